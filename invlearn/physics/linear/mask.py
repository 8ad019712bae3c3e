"""Inpainting: keep some entries, set the others to zero."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from invlearn.physics.operator import LinearOperator, Spectrum
from invlearn.physics.space import Space, as_zero_one


class Mask(LinearOperator):
    """Element-wise product with a mask of zeros and ones, on images of any rank.

    Parameters
    ----------
    mask
        Shape of the image; boolean, or numbers 0 and 1.
    complex
        Whether the images are complex.

    Raises
    ------
    ValueError
        Entries other than 0 and 1.
    """

    mask: Tensor

    def __init__(self, mask: Tensor | np.ndarray, complex: bool = False) -> None:
        mask = as_zero_one(mask, "a mask")
        space = Space(tuple(mask.shape), complex)
        super().__init__(space, space)
        self.register_buffer("mask", mask)

    def _forward(self, x: Tensor) -> Tensor:
        return x * self.mask

    def _adjoint(self, y: Tensor) -> Tensor:
        return y * self.mask

    def _normal(self, x: Tensor) -> Tensor:
        return x * self.mask

    def _spectrum(self) -> Spectrum:
        return Spectrum("pixel", self.mask.to(torch.float64))
