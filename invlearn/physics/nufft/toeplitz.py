"""AᴴWA of a non-uniform Fourier transform as a convolution, by two padded FFTs.

(AᴴWA)(r, r') = t(r - r') with t(δ) = sum_n w_n exp(2πi k_n·δ): a Toeplitz matrix, which is a corner of a
circulant one on a grid of at least 2N - 1 points. See J. A. Fessler, S. Lee, V. T. Olafsson, H. R. Shi,
D. C. Noll, "Toeplitz-based iterative image reconstruction for MRI with correction for magnetic field
inhomogeneity", IEEE Trans. Signal Process. 53 (2005), DOI 10.1109/TSP.2005.853152.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from invlearn.io.arrays import format_bytes, memory_limit
from invlearn.physics.nufft.transform import fast_even_size, transform
from invlearn.physics.nufft.validate import check_eps, check_shape, check_trajectory, choose_backend
from invlearn.physics.space import as_numbers, complex_dtype, real_dtype

#: Bytes of padded images that are transformed at a time: on a processor what its cache holds.
_CHUNK = {"cpu": 2**22, "cuda": 2**28}


@torch.no_grad()
def toeplitz_kernel(
    trajectory: Any,
    shape: Sequence[int],
    weights: Any = None,
    *,
    eps: float = 1e-9,
    backend: str | None = None,
) -> Tensor:
    """Transfer function of AᴴWA, computed once in double precision.

    Parameters
    ----------
    trajectory
        `(*T, N, d)` in cycles per pixel; each of the *T trajectories gets a kernel.
    shape
        Shape of the image.
    weights
        w, `(*B, *T, N)` real or complex; one if not given. For the normal operator of a subspace with the
        basis φ: w_n = φ_k(n)* φ_l(n) for each (k, l).
    eps
        Relative accuracy of the underlying transform.
    backend
        As for `NonUniformFFT`.

    Returns
    -------
    `(*B, *T, *grid)`, float64 for real weights (t is Hermitian) and complex128 for complex ones, zero
    frequency first; grid is `2 * shape`, a little more where 2N has a prime factor above 7. Exchanging w
    by its conjugate conjugates the transfer function. It is a constant to automatic differentiation, and
    laid out in memory as `apply_toeplitz` reads it.

    Raises
    ------
    ValueError
        As `NonUniformFFT`; weights that do not fit the trajectory or are NaN, more kernels than memory holds.
    """
    who = "toeplitz_kernel"
    trajectory = check_trajectory(trajectory, who)
    shape = check_shape(shape, trajectory, who)
    samples = trajectory.shape[:-1]
    if weights is None:
        weights = trajectory.new_ones(samples)
    weights = as_numbers(weights, f"{who}: weights").to(trajectory.device)
    if weights.shape[max(weights.ndim - len(samples), 0) :] != samples:
        raise ValueError(
            f"{who}: weights must be (*batch, {', '.join(map(str, samples))}), one for each sample, got "
            f"{tuple(weights.shape)}"
        )
    grid = tuple(fast_even_size(2 * n) for n in shape)
    kernels = (*weights.shape[:-1], *shape)
    if (needed := kernel_bytes(kernels, shape)) > memory_limit():
        raise ValueError(
            f"{who}: {math.prod(kernels[: -len(shape)])} kernels on a grid of {grid} need "
            f"{format_bytes(needed)}, more than the {format_bytes(memory_limit())} of memory there is; take "
            "a lower rank, or fewer pixels"
        )
    engine = choose_backend(backend, trajectory.device, who)(tuple(2 * n for n in shape), check_eps(eps, who))
    t = transform(weights.to(torch.complex128), trajectory, engine, True)
    # t(δ) for δ = -N … N-1 around index N; δ = -N pairs no two pixels, without it t is Hermitian
    for axis, n in enumerate(shape):
        dim = axis - len(shape)
        t.select(dim, 0).zero_()
        t = _grow(t, dim, fast_even_size(2 * n)).roll(-n, dim)
    kernel = torch.fft.fftn(t, dim=tuple(range(-len(shape), 0)))
    if not weights.is_complex():
        kernel = kernel.real
    return as_laid_out(kernel, len(grid))


def kernel_bytes(kernels: Sequence[int], shape: Sequence[int]) -> int:
    """Memory that computing kernels takes, themselves and one copy; `kernels` is `(*B, *shape)`."""
    count = math.prod(kernels[: len(kernels) - len(shape)])
    return 2 * 16 * count * math.prod(fast_even_size(2 * n) for n in shape)


def as_laid_out(kernel: Tensor, d: int) -> Tensor:
    """The same transfer function, in memory as `apply_toeplitz` reads it without a copy."""
    return _as_read(kernel, d).contiguous().movedim(-1, -d)


def _grow(t: Tensor, dim: int, size: int) -> Tensor:
    """Zeros behind along one axis."""
    missing = size - t.shape[dim]
    if not missing:
        return t
    zeros = list(t.shape)
    zeros[dim] = missing
    return torch.cat([t, t.new_zeros(zeros)], dim)


def _as_read(kernel: Tensor, d: int) -> Tensor:
    """Axes in the order in which the last of the padded FFTs leaves them."""
    return kernel.movedim(-d, -1)


def _to_spectrum(x: Tensor, grid: Sequence[int]) -> Tensor:
    """Zero-padded FFT over the last axes, in the order `_as_read`; no row of zeros is transformed."""
    d = len(grid)
    for step, size in enumerate(reversed(grid)):
        x = torch.fft.fft(x.movedim(-1, -d) if step else x, size)
    return x


def _from_spectrum(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Inverse of `_to_spectrum`; each axis is cropped as soon as it is back."""
    d = len(shape)
    for step, size in enumerate(shape):
        x = torch.fft.ifft(x if not step else x.movedim(-d, -1))[..., :size]
    return x


def _chunks(count: int, nbytes: int, device: torch.device) -> Iterator[slice]:
    step = max(1, _CHUNK.get(device.type, _CHUNK["cpu"]) // max(nbytes, 1))
    return (slice(i, i + step) for i in range(0, count, step))


def _filter(kernel: Tensor, x: Tensor, d: int) -> Tensor:
    """`(*B, *grid)` times images `(n, *B, *shape)`."""
    shape, grid = x.shape[-d:], kernel.shape[-d:]
    factors = _as_read(kernel, d).contiguous().reshape(-1, *_as_read(kernel, d).shape[-d:])
    x = x.reshape(len(x), -1, *shape)
    out = torch.empty_like(x)
    padded = math.prod(grid) * x.element_size()
    for b in range(len(factors)):
        for part in _chunks(len(x), padded, x.device):
            out[part, b] = _from_spectrum(_to_spectrum(x[part, b], grid).mul_(factors[b]), shape)
    return out


def _mix(kernel: Tensor, x: Tensor, d: int) -> Tensor:
    """`(K, L, *grid)` times images `(n, L, *shape)`: a matrix product at each frequency."""
    shape, grid = x.shape[-d:], kernel.shape[-d:]
    factors = _as_read(kernel, d).contiguous()
    rows, columns = factors.shape[:2]
    out = x.new_empty(len(x), rows, *shape)
    for part in _chunks(len(x), columns * math.prod(grid) * x.element_size(), x.device):
        spectrum = _to_spectrum(x[part], grid)
        for row in range(rows):
            total = factors[row, 0] * spectrum[:, 0]
            for column in range(1, columns):
                total.addcmul_(factors[row, column], spectrum[:, column])
            out[part, row] = _from_spectrum(total, shape)
    return out


class _Toeplitz(torch.autograd.Function):
    @staticmethod
    def forward(kernel: Tensor, x: Tensor, d: int, mixing: bool) -> Tensor:
        x = x.detach().resolve_conj()
        if x.device.type == "meta" or x.numel() == 0:
            return torch.empty_like(x)
        lead = kernel.ndim - d
        flat = x.reshape(-1, *x.shape[x.ndim - d - (lead - 1 if mixing else lead) :])
        return (_mix if mixing else _filter)(kernel, flat, d).reshape(x.shape)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        kernel, _, ctx.d, ctx.mixing = inputs
        ctx.save_for_backward(kernel)
        ctx.save_for_forward(kernel)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, g: Tensor | None) -> tuple[None, Tensor | None, None, None]:
        if g is None:
            return None, None, None, None
        (kernel,) = ctx.saved_tensors
        kernel = kernel.transpose(0, 1) if ctx.mixing else kernel
        return None, _Toeplitz.apply(kernel.conj().resolve_conj(), g, ctx.d, ctx.mixing), None, None

    @staticmethod
    def jvp(ctx: Any, _kernel: Tensor | None, dx: Tensor, *_: None) -> Tensor:
        (kernel,) = ctx.saved_tensors
        return _Toeplitz.apply(kernel, dx, ctx.d, ctx.mixing)


def apply_toeplitz(kernel: Tensor, x: Tensor, *, mixing: bool = False) -> Tensor:
    """Apply AᴴWA, given its transfer function.

    Parameters
    ----------
    kernel
        `(*B, *grid)` of `toeplitz_kernel`. Brought to the precision of `x` at each call; do it beforehand
        where there are many.
    x
        Images `(*batch, *B, *shape)`, complex.
    mixing
        With a kernel `(K, K, *grid)` and images `(*batch, K, *shape)`: y_k = sum_l t_kl * x_l, the normal
        operator of a subspace, with K FFTs instead of K².

    Returns
    -------
    Shape and dtype of `x`; differentiable in `x`.

    Raises
    ------
    ValueError
        A kernel that does not fit the images, or one that asks for gradients.
    TypeError
        Real images.
    """
    if not x.is_complex():
        raise TypeError(
            f"apply_toeplitz takes complex images, got {x.dtype}; convert with x.to(torch.complex64)"
        )
    if kernel.requires_grad:
        raise ValueError("apply_toeplitz has no gradient in its kernel; use kernel.detach()")
    d = _dimension(kernel, x, mixing)
    precision = complex_dtype if kernel.is_complex() else real_dtype
    return _Toeplitz.apply(kernel.to(precision(x.dtype)), x, d, mixing)


def _dimension(kernel: Tensor, x: Tensor, mixing: bool) -> int:
    """Number of image axes: the one with which kernel and images fit."""
    for d in (3, 2, 1):
        lead = kernel.ndim - d
        axes = kernel.shape[:lead][1:] if mixing else kernel.shape[:lead]
        square = not mixing or (lead == 2 and kernel.shape[0] == kernel.shape[1])
        if lead >= 0 and square and x.ndim >= len(axes) + d:
            fits = x.shape[x.ndim - d - len(axes) : x.ndim - d] == axes
            sizes = tuple(fast_even_size(2 * n) for n in x.shape[x.ndim - d :])
            if fits and sizes == tuple(kernel.shape[lead:]):
                return d
    wanted = "(K, K, *grid) and (*batch, K, *shape)" if mixing else "(*B, *grid) and (*batch, *B, *shape)"
    raise ValueError(
        f"apply_toeplitz: a kernel {tuple(kernel.shape)} does not fit images {tuple(x.shape)}; expected "
        f"{wanted}, with the grid that toeplitz_kernel made for that shape"
    )
