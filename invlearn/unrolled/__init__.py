"""Proximal algorithms over any operator, classical and unrolled into networks."""

from __future__ import annotations

from invlearn.learning.identity import data_hash, physics_card
from invlearn.unrolled.data_term import DataTerm
from invlearn.unrolled.fingerprinting import FingerprintMaps, reconstruct_fingerprints
from invlearn.unrolled.iterations import ADMM, FISTA, HQS, PDHG, PGD, Iteration
from invlearn.unrolled.lowrank import LocallyLowRank, NuclearNorm
from invlearn.unrolled.networks import Learned, ResidualCNN, UNet, WaveletUNet
from invlearn.unrolled.pgdnet import PGDNet
from invlearn.unrolled.pgdnet_weights import load_pgdnet
from invlearn.unrolled.proximal import (
    L1,
    Box,
    GroupL1,
    Regulariser,
    TotalVariation,
    WaveletShrinkage,
    Zero,
)
from invlearn.unrolled.reconstruction import LearnedReconstruction
from invlearn.unrolled.unrolled import (
    Unrolled,
    UnrolledADMM,
    UnrolledFISTA,
    UnrolledHQS,
    UnrolledPDHG,
    UnrolledPGD,
)
from invlearn.unrolled.variational import Variational

__all__ = [
    "ADMM",
    "FISTA",
    "HQS",
    "L1",
    "PDHG",
    "PGD",
    "Box",
    "DataTerm",
    "FingerprintMaps",
    "GroupL1",
    "Iteration",
    "Learned",
    "LearnedReconstruction",
    "LocallyLowRank",
    "NuclearNorm",
    "PGDNet",
    "Regulariser",
    "ResidualCNN",
    "TotalVariation",
    "UNet",
    "Unrolled",
    "UnrolledADMM",
    "UnrolledFISTA",
    "UnrolledHQS",
    "UnrolledPDHG",
    "UnrolledPGD",
    "Variational",
    "WaveletShrinkage",
    "WaveletUNet",
    "Zero",
    "data_hash",
    "load_pgdnet",
    "physics_card",
    "reconstruct_fingerprints",
]
