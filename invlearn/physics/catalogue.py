"""Examples of every operator, for the registry: the modes, ranks and fields each one has."""

from __future__ import annotations

import numpy as np
import torch
from torch import Generator, Tensor, nn

from invlearn.physics.blocks import block_diagonal, stack
from invlearn.physics.linear import (
    Blur,
    Crop,
    Dense,
    Downsample,
    FiniteDifference,
    Fourier,
    FromFunction,
    Mask,
    Pad,
    from_scipy,
)
from invlearn.physics.mri.cartesian import CartesianMRI
from invlearn.physics.operator import LinearOperator, Operator, identity, zero
from invlearn.physics.registry import register
from invlearn.physics.space import Space

_F64, _C128 = torch.float64, torch.complex128


def _normal(*shape: int, g: Generator, complex: bool = False) -> Tensor:
    return torch.randn(shape, dtype=_C128 if complex else _F64, generator=g)


def _mask(*shape: int, g: Generator) -> Tensor:
    mask = torch.rand(shape, generator=g) < 0.5
    mask.view(-1)[0] = True
    return mask


register("dense/real")(lambda g: Dense(_normal(7, 12, g=g)))
register("dense/image")(lambda g: Dense(_normal(5, 12, g=g), shape=(3, 4)))
register("dense/complex")(lambda g: Dense(_normal(9, 6, g=g, complex=True)))
register("dense/real matrix, complex data")(lambda g: Dense(_normal(4, 6, g=g), complex=True))
register("dense/batch")(lambda g: Dense(_normal(3, 4, 5, g=g)))
register("dense/complex batch")(lambda g: Dense(_normal(2, 5, 3, g=g, complex=True)))
register("dense/single precision")(lambda g: Dense(_normal(3, 5, g=g).float()))

register("mask/1d")(lambda g: Mask(_mask(9, g=g)))
register("mask/2d complex")(lambda g: Mask(_mask(5, 8, g=g), complex=True))
register("mask/3d")(lambda g: Mask(_mask(3, 4, 5, g=g)))

register("fourier/1d odd")(lambda g: Fourier((9,)))
register("fourier/2d centred")(lambda g: Fourier((5, 8), centered=True))
register("fourier/3d axes centred")(lambda g: Fourier((4, 5, 6), axes=(0, 2), centered=True))
register("fourier/real")(lambda g: Fourier((5, 6), complex=False))
register("fourier/real axis")(lambda g: Fourier((4, 7), axes=-1, complex=False))

register("cartesian mri/1d")(lambda g: CartesianMRI(_mask(11, g=g)))
register("cartesian mri/2d")(lambda g: CartesianMRI(_mask(7, 10, g=g)))
register("cartesian mri/2d coils")(
    lambda g: CartesianMRI(_mask(6, 9, g=g), _normal(3, 6, 9, g=g, complex=True))
)
register("cartesian mri/3d not centred")(lambda g: CartesianMRI(_mask(3, 4, 5, g=g), centered=False))
register("cartesian mri/3d coils")(
    lambda g: CartesianMRI(_mask(4, 3, 5, g=g), _normal(2, 4, 3, 5, g=g, complex=True))
)
register("cartesian mri/coils, full")(
    lambda g: CartesianMRI(torch.ones(5, 6), _normal(2, 5, 6, g=g, complex=True))
)

register("blur/circular 1d even kernel")(lambda g: Blur(_normal(4, g=g), (9,)))
register("blur/circular 2d")(lambda g: Blur(_normal(3, 5, g=g), (8, 11)))
register("blur/circular channels")(lambda g: Blur(_normal(3, 2, g=g), (2, 6, 7)))
register("blur/circular wraps")(lambda g: Blur(_normal(7, 3, g=g), (5, 4)))
register("blur/circular 3d")(lambda g: Blur(_normal(3, 2, 3, g=g), (5, 4, 6)))
register("blur/circular complex")(lambda g: Blur(_normal(3, 3, g=g, complex=True), (6, 5)))
register("blur/circular real kernel, complex data")(lambda g: Blur(_normal(3, g=g), (7,), complex=True))
register("blur/valid 1d")(lambda g: Blur(_normal(4, g=g), (11,), "valid"))
register("blur/valid 2d")(lambda g: Blur(_normal(2, 5, g=g), (7, 9), "valid"))
register("blur/valid 3d complex")(lambda g: Blur(_normal(2, 3, 2, g=g, complex=True), (4, 5, 3), "valid"))
register("blur/replicate 1d")(lambda g: Blur(_normal(4, g=g), (7,), "replicate"))
register("blur/replicate 2d")(lambda g: Blur(_normal(5, 2, g=g), (6, 7), "replicate"))
register("blur/replicate long kernel")(lambda g: Blur(_normal(9, 3, g=g), (4, 5), "replicate"))
register("blur/replicate 3d complex")(
    lambda g: Blur(_normal(3, 1, 2, g=g, complex=True), (4, 3, 5), "replicate")
)

register("downsample/filtered 1d")(lambda g: Downsample((10,), 3))
register("downsample/filtered 2d")(lambda g: Downsample((9, 10), 2))
register("downsample/filtered 3d factors")(lambda g: Downsample((5, 6, 7), (2, 1, 3)))
register("downsample/filtered complex channels")(lambda g: Downsample((2, 7, 8), (2, 3), complex=True))
register("downsample/plain 2d")(lambda g: Downsample((9, 10), 2, antialias=False))

register("crop/2d centred")(lambda g: Crop((7, 8), (3, 4)))
register("crop/3d complex")(lambda g: Crop((4, 5, 6), (2, 5, 3), start=(1, 0, 3), complex=True))
register("pad/2d centred")(lambda g: Pad((3, 4), (7, 9)))
register("pad/1d complex")(lambda g: Pad((5,), (8,), start=(0,), complex=True))

register("difference/1d")(lambda g: FiniteDifference((7,)))
register("difference/2d")(lambda g: FiniteDifference((5, 6)))
register("difference/3d axes complex")(lambda g: FiniteDifference((3, 4, 5), axes=(2, 0), complex=True))
register("difference/circular")(lambda g: FiniteDifference((5, 6), mode="circular"))
register("difference/one pixel")(lambda g: FiniteDifference((1, 2)))


def _moving_sum(x: Tensor) -> Tensor:
    return x.cumsum(-1)[..., 1:] * 0.5


def _weighted_fft(x: Tensor) -> Tensor:
    return torch.fft.fft(x * torch.arange(1.0, 7.0, dtype=x.real.dtype, device=x.device))


class _Convolution(nn.Module):
    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        y = nn.functional.conv1d(x.reshape(-1, *x.shape[-2:]), self.weight.to(x.dtype))
        return y.reshape(*x.shape[:-2], *y.shape[-2:])


register("function/real")(lambda g: FromFunction(_moving_sum, Space((3, 6)), Space((3, 5))))
register("function/complex")(lambda g: FromFunction(_weighted_fft, Space((6,), True), Space((6,), True)))
register("function/real to complex")(lambda g: FromFunction(_weighted_fft, Space((6,)), Space((6,), True)))
register("function/module")(
    lambda g: FromFunction(_Convolution(_normal(2, 3, 2, g=g)), Space((3, 7)), Space((2, 6)))
)


@register("scipy/sparse")
def _sparse(g: Generator) -> LinearOperator:
    import scipy.sparse

    matrix = _normal(8, 12, g=g) * _mask(8, 12, g=g)
    return from_scipy(scipy.sparse.csr_array(matrix.numpy()), shape=(3, 4), codomain_shape=(2, 4))


@register("scipy/sparse complex")
def _sparse_complex(g: Generator) -> LinearOperator:
    import scipy.sparse

    matrix = _normal(5, 7, g=g, complex=True) * _mask(5, 7, g=g)
    return from_scipy(scipy.sparse.coo_array(matrix.numpy()))


def _scipy_operator(matrix: np.ndarray, **shapes: tuple[int, ...]) -> LinearOperator:
    import scipy.sparse.linalg

    return from_scipy(scipy.sparse.linalg.aslinearoperator(matrix), **shapes)


register("scipy/operator")(lambda g: _scipy_operator(_normal(5, 6, g=g).numpy(), shape=(2, 3)))
register("scipy/operator complex")(lambda g: _scipy_operator(_normal(4, 6, g=g, complex=True).numpy()))

register("algebra/identity")(lambda g: identity((3, 5)))
register("algebra/identity complex")(lambda g: identity((4,), complex=True))
register("algebra/zero")(lambda g: zero(Space((3, 2)), Space((4,))))
register("algebra/adjoint")(lambda g: Dense(_normal(4, 7, g=g)).H)
register("algebra/adjoint complex to real")(lambda g: Fourier((5, 4), complex=False).H)
register("algebra/composition")(
    lambda g: Downsample((6, 7), 2, antialias=False) @ Blur(_normal(3, 3, g=g), (6, 7))
)
register("algebra/composition real to complex")(
    lambda g: Mask(_mask(5, 6, g=g), complex=True) @ Fourier((5, 6), complex=False)
)
register("algebra/composition diagonal")(lambda g: Fourier((5, 6)) @ Mask(_mask(5, 6, g=g), complex=True))
register("algebra/through the reals")(lambda g: Fourier((5,), complex=False) @ Fourier((5,), complex=False).H)
register("algebra/normal")(lambda g: (a := Blur(_normal(3, g=g), (7,))).H @ a)
register("algebra/normal real to complex")(lambda g: (a := Fourier((6,), complex=False)).H @ a)
register("algebra/sum")(lambda g: Dense(_normal(4, 6, g=g)) + Dense(_normal(4, 6, g=g)))
register("algebra/difference")(lambda g: Fourier((5,)) - 0.5 * identity((5,), complex=True))
register("algebra/scaled")(lambda g: -2.5 * Mask(_mask(3, 4, g=g)))
register("algebra/scaled complex")(lambda g: (1 - 2j) * CartesianMRI(_mask(4, 5, g=g)))
register("algebra/scaled real to complex")(lambda g: 3 * Fourier((5,), complex=False) / 2)
register("algebra/stack")(lambda g: stack([Mask(_mask(4, 5, g=g)) for _ in range(3)]))
register("algebra/stack unequal")(lambda g: stack([Dense(_normal(m, 6, g=g), shape=(2, 3)) for m in (2, 5)]))
register("algebra/stack fourier")(
    lambda g: stack([*(CartesianMRI(_mask(4, 5, g=g)) for _ in range(2)), identity((4, 5), complex=True)])
)
register("algebra/stack two bases")(lambda g: stack([Blur(_normal(3, g=g), (6,)), Mask(_mask(6, g=g))]))
register("algebra/block diagonal")(
    lambda g: block_diagonal([Dense(_normal(3, 5, g=g)), Blur(_normal(3, g=g), (5,))])
)
register("algebra/block diagonal unequal")(
    lambda g: block_diagonal([Mask(_mask(2, 3, g=g), complex=True), identity((4,), complex=True)])
)


class _Squares(Operator):
    """x to x² times its mirror image: nonlinear, with a Jacobian that is not diagonal."""

    def _forward(self, x: Tensor) -> Tensor:
        return (x.square() * x.flip(-1))[..., :-1]


class _Intensity(Operator):
    """x to |Fx|², as in phase retrieval: complex to real, not holomorphic."""

    def _forward(self, x: Tensor) -> Tensor:
        return torch.fft.fft(x).abs().square()


register("algebra/jacobian")(lambda g: _Squares(Space((2, 5)), Space((2, 4))).linearize(_normal(2, 5, g=g)))
register("algebra/jacobian complex")(
    lambda g: _Intensity(Space((6,), True), Space((6,))).linearize(_normal(6, g=g, complex=True))
)
