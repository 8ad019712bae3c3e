"""Exact, differentiable wavelet transforms in one, two and three dimensions, and layers made of them."""

from __future__ import annotations

from invlearn.wavelets.convert import Conversion, Replacement, replace_downsampling
from invlearn.wavelets.filters import MODES, FilterBank, filter_bank
from invlearn.wavelets.layers import (
    DWT,
    IDWT,
    HardShrinkage,
    SoftShrinkage,
    WaveletDownsample,
    WaveletUpsample,
)
from invlearn.wavelets.transform import band_names, dwt, dwt_adjoint, idwt, max_level, wavedec, waverec
from invlearn.wavelets.unet import PAIRS, EncoderDecoder, Pair

__all__ = [
    "DWT",
    "IDWT",
    "MODES",
    "PAIRS",
    "Conversion",
    "EncoderDecoder",
    "FilterBank",
    "HardShrinkage",
    "Pair",
    "Replacement",
    "SoftShrinkage",
    "WaveletDownsample",
    "WaveletUpsample",
    "band_names",
    "dwt",
    "dwt_adjoint",
    "filter_bank",
    "idwt",
    "max_level",
    "replace_downsampling",
    "wavedec",
    "waverec",
]
