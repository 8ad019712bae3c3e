"""MRI sampled on the points of a Cartesian k-space grid."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from invlearn.physics.linear.fourier import unitary_fft, unitary_ifft
from invlearn.physics.operator import LinearOperator, Spectrum
from invlearn.physics.space import Space, as_numbers, as_zero_one, complex_dtype


class CartesianMRI(LinearOperator):
    """Coil images in k-space at the sampled points, y_c = M F (s_c x); zero at the others.

    F is the unitary Fourier transform over all axes of the image, 1-D to 3-D.

    Parameters
    ----------
    mask
        `(*kspace)` of 0 and 1, the shape of the image too; zero frequency at index N//2.
    coil_maps
        Sensitivities `(C, *image)`, complex; without them one coil with s = 1, and measurements
        `(*kspace)` instead of `(C, *kspace)`.
    centered
        Whether the image's origin is the pixel N//2 and the zero frequency lies at N//2, in mask
        and measurements; otherwise both are at index 0.

    Raises
    ------
    ValueError
        A mask with other entries than 0 and 1 or of more than three axes, coil maps that do not
        fit it or hold NaN or infinite entries.
    TypeError
        Half precision.
    """

    mask: Tensor
    coil_maps: Tensor | None

    def __init__(
        self,
        mask: Tensor | np.ndarray,
        coil_maps: Tensor | np.ndarray | None = None,
        centered: bool = True,
    ) -> None:
        mask = as_zero_one(mask, "CartesianMRI: the mask")
        if not 1 <= mask.ndim <= 3:
            raise ValueError(f"CartesianMRI takes a mask of 1 to 3 axes, got {tuple(mask.shape)}")
        domain = Space(tuple(mask.shape), True)
        maps = None
        if coil_maps is not None:
            maps = as_numbers(coil_maps, "CartesianMRI: coil_maps")
            maps = maps.to(complex_dtype(maps.dtype), copy=True)
            if tuple(maps.shape[1:]) != domain.shape or maps.shape[0] < 1:
                raise ValueError(
                    f"CartesianMRI: coil_maps must be (C, {', '.join(map(str, domain.shape))}), "
                    f"as the mask is, got {tuple(maps.shape)}"
                )
        super().__init__(domain, domain if maps is None else Space((len(maps), *domain.shape), True))
        self.register_buffer("mask", mask)
        self.register_buffer("coil_maps", maps)
        self.centered = centered
        self.dims = tuple(range(-domain.ndim, 0))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, centered={self.centered}"

    @property
    def _mask_from_zero(self) -> Tensor:
        """The mask with the zero frequency first."""
        return torch.fft.ifftshift(self.mask) if self.centered else self.mask

    def _to_coils(self, x: Tensor) -> Tensor:
        if self.coil_maps is None:
            return x
        return x.unsqueeze(-self.codomain.ndim) * self.coil_maps.to(x.dtype)

    def _from_coils(self, x: Tensor) -> Tensor:
        if self.coil_maps is None:
            return x
        return (x * self.coil_maps.to(x.dtype).conj()).sum(-self.codomain.ndim)

    def _forward(self, x: Tensor) -> Tensor:
        return unitary_fft(self._to_coils(x), self.dims, self.centered) * self.mask

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._from_coils(unitary_ifft(y * self.mask, self.dims, self.centered))

    def _normal(self, x: Tensor) -> Tensor:
        # FᴴMF is a circular convolution: it commutes with the shifts of the centring, so none is done
        kspace = torch.fft.fftn(self._to_coils(x), dim=self.dims)
        return self._from_coils(torch.fft.ifftn(kspace * self._mask_from_zero, dim=self.dims))

    def _spectrum(self) -> Spectrum | None:
        if self.coil_maps is None:
            return Spectrum("fourier", self._mask_from_zero.to(torch.float64))
        if bool(self.mask.all()):
            return Spectrum("pixel", self.coil_maps.to(torch.complex128).abs().square().sum(0))
        return None
