"""Coil sensitivities from the data themselves, and fewer virtual coils.

Maps s_c are normalised to Σ_c |s_c|² = 1 where there is signal, so that a reconstruction with them
shows the image times the root of the coils' total sensitivity. Their common phase, which no
data can tell from the phase of the image, is that of the virtual coil with the most energy:
Σ_c conj(w_c) s_c is real and not negative in every pixel, w being the dominant left singular
vector of the maps. Images are centred as everywhere: the origin is the pixel N//2, and Cartesian
k-space has its zero frequency there.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar, overload

import numpy as np
import torch
from jaxtyping import Complex, Num
from torch import Tensor
from torch.nn.functional import avg_pool1d, pad

from invlearn.io.arrays import format_bytes, memory_limit
from invlearn.io.tensors import as_tensor
from invlearn.physics.linear.fourier import unitary_fft, unitary_ifft
from invlearn.physics.nufft import NonUniformFFT
from invlearn.physics.operator import identity
from invlearn.physics.solvers import cg
from invlearn.physics.space import as_numbers, complex_dtype

_MARGIN = 8  # k-space points around the calibration region, which take up what lies beyond it
P = ParamSpec("P")
Array = TypeVar("Array", Tensor, np.ndarray)


def _numpy_edge(call: Callable[Concatenate[Tensor, P], Tensor]) -> Callable[Concatenate[Array, P], Array]:
    """Numpy data in, numpy maps out."""

    @functools.wraps(call)
    def run(data: Any, /, *args: P.args, **kwargs: P.kwargs) -> Any:
        found = call(as_tensor(data, "coils"), *args, **kwargs)
        return found.numpy() if isinstance(data, np.ndarray) else found

    return run


def _coil_data(data: Any, who: str, axes: tuple[int, ...]) -> Tensor:
    """Finite complex `(C, ...)` with one of the numbers `axes` of further axes, not all zero."""
    data = as_numbers(data, who)
    data = data.to(complex_dtype(data.dtype))
    if data.ndim - 1 not in axes or 0 in data.shape:
        expected = " or ".join(f"(C, {', '.join('zyx'[-n:])})" if n > 1 else "(C, samples)" for n in axes)
        raise ValueError(f"{who} must be {expected} with at least one coil, got {tuple(data.shape)}")
    if not bool(data.any()):
        raise ValueError(f"{who} is zero everywhere: no coil map can be found in it")
    return data


def _virtual_coils(data: Tensor) -> Tensor:
    """Left singular vectors of `(C, n)`, `(C, C)` complex128, the one with the most energy first."""
    gram = torch.zeros(len(data), len(data), dtype=torch.complex128, device=data.device)
    for part in data.split(2**20, dim=1):
        part = part.to(torch.complex128)
        gram += part @ part.mH
    return torch.linalg.eigh(gram).eigenvectors.flip(-1)


def _with_common_phase(maps: Tensor) -> Tensor:
    """The maps with the phase of their virtual coil taken out; see the module."""
    weights = _virtual_coils(maps.flatten(1))[:, 0].to(maps.dtype)
    weights = weights * torch.sgn(weights[weights.abs().argmax()]).conj()
    virtual = torch.tensordot(weights.conj(), maps, 1)
    return maps * torch.where(virtual == 0, torch.ones_like(virtual), torch.sgn(virtual)).conj()


def _consistent_kernels(middle: Tensor, size: int, threshold: float) -> Tensor:
    """What every block of `size` points a side of k-space reproduces, as a convolution between coils.

    `(C, C, D)` over the D = (2 size - 1)^d offsets between points of a block: the mean, over all blocks that
    hold a point, of the block projected on the space of all blocks.
    """
    coils, d = len(middle), middle.ndim - 1
    blocks = middle
    for axis in range(1, d + 1):
        blocks = blocks.unfold(axis, size, 1)
    rows = blocks.movedim(0, d).reshape(-1, coils * size**d)
    _, values, vectors = torch.linalg.svd(rows, full_matrices=False)
    signal = vectors[values > threshold * values[0]]
    projector = (signal.mT @ signal.conj()).reshape(coils, size**d, coils, size**d)
    pairs = projector.transpose(1, 2).reshape(coils, coils, -1)
    inside = torch.cartesian_prod(*[torch.arange(size)] * d).reshape(-1, d)
    apart = (inside[:, None] - inside[None]).flatten(0, 1) + size - 1
    strides = torch.tensor([(2 * size - 1) ** n for n in reversed(range(d))])
    found = pairs.new_zeros(coils, coils, (2 * size - 1) ** d)
    return found.index_add_(2, (apart * strides).sum(1).to(found.device), pairs) / size**d


def _in_image(kernels: Tensor, size: int, shape: tuple[int, ...]) -> Tensor:
    """Convolutions of k-space `(C, C, D)` as matrices `(*shape, C, C)`: what they do to every pixel."""
    d, coils = len(shape), len(kernels)
    offsets = torch.cartesian_prod(*[torch.arange(1 - size, size)] * d).reshape(-1, d)
    places = (offsets % torch.tensor(shape)) @ torch.tensor([math.prod(shape[n + 1 :]) for n in range(d)])
    grid = kernels.new_zeros(coils, coils, math.prod(shape))
    grid = grid.index_add_(2, places.to(kernels.device), kernels).reshape(coils, coils, *shape)
    axes = tuple(range(2, d + 2))
    matrices = torch.fft.fftshift(torch.fft.ifftn(grid, dim=axes, norm="forward"), axes)
    return matrices.movedim((0, 1), (-2, -1))


@_numpy_edge
def espirit(
    kspace: Num[Tensor, "coils ..."],
    /,
    *,
    calibration: int = 24,
    kernel: int = 6,
    threshold: float = 0.02,
    crop: float = 0.95,
) -> Complex[Tensor, "coils ..."]:
    """ESPIRiT maps from the middle of Cartesian k-space.

    Parameters
    ----------
    kspace
        `(C, H, W)` or `(C, D, H, W)`, zero frequency at N//2; fully sampled in the calibration
        region. The maps have its shape.
    calibration
        Side of the calibration region in k-space points.
    kernel
        Side of the convolution kernels.
    threshold
        Singular values of the calibration matrix below this part of the largest are noise.
    crop
        Maps are zero where the largest eigenvalue, 1 where the coils agree on a signal, is not above.

    Returns
    -------
    Tensor or ndarray
        Maps `(C, *image)`, Σ|s|² = 1 or 0; phase as the module says.

    Raises
    ------
    ValueError
        Another shape, NaN, nothing but zeros, a calibration region smaller than the kernel,
        zero maps everywhere, or more memory needed than there is (a matrix of coils a pixel).

    References
    ----------
    Uecker et al., "ESPIRiT - an eigenvalue approach to autocalibrating parallel MRI", Magn. Reson.
    Med. 71:990-1001 (2014), doi 10.1002/mrm.24751.
    """
    data = _coil_data(kspace, "espirit: kspace", (2, 3))
    calibration = min(calibration, *data.shape[1:])
    if not 1 <= kernel <= calibration:
        raise ValueError(
            f"espirit: a kernel of {kernel} points needs a calibration region of at least as many, "
            f"got {calibration} in k-space {tuple(data.shape)}"
        )
    # a matrix of coils in every pixel, its eigenvectors, and a copy
    needed = 3 * data[0].numel() * len(data) ** 2 * data.dtype.itemsize
    if needed > memory_limit():
        raise ValueError(
            f"espirit: maps for k-space {tuple(data.shape)} would need {format_bytes(needed)} of memory, "
            f"more than the {format_bytes(memory_limit())} there is; compress the coils, or use adaptive maps"
        )
    middle = data[_middle(data.shape[1:], (calibration,) * (data.ndim - 1))]
    kernels = _consistent_kernels(middle / data.abs().max(), kernel, threshold)
    values, vectors = torch.linalg.eigh(_in_image(kernels, kernel, data.shape[1:]))
    maps = torch.where(values[..., -1] > crop, vectors[..., -1].movedim(-1, 0), 0)
    if not bool(maps.any()):
        raise ValueError(f"espirit: no pixel has an eigenvalue above crop = {crop}; lower crop or threshold")
    return _with_common_phase(maps).to(data.dtype)


def _box(x: Tensor, size: int) -> Tensor:
    """Means over boxes of `size` pixels a side (odd) along the image axes; the border is repeated."""
    half = size // 2
    for axis in range(1, x.ndim):
        line = x.movedim(axis, -1)
        flat = torch.view_as_real(line).movedim(-1, 0).reshape(-1, 1, line.shape[-1])
        mean = avg_pool1d(pad(flat, (half, half), mode="replicate"), size, stride=1)
        mean = torch.view_as_complex(mean.reshape(2, *line.shape).movedim(0, -1).contiguous())
        x = mean.movedim(-1, axis)
    return x


@_numpy_edge
def adaptive_maps(
    images: Num[Tensor, "coils ..."],
    /,
    *,
    size: int = 5,
    iterations: int = 10,
    threshold: float = 0.0,
) -> Complex[Tensor, "coils ..."]:
    """Maps from coil images: the dominant eigenvector of their covariance around every pixel.

    It is found by the power method with the covariance never formed: combine the images with the
    present maps, m = Σ_c conj(s_c) x_c; then s_c is the mean of x_c conj(m) over the box, normalised.

    Parameters
    ----------
    images
        Coil images `(C, H, W)` or `(C, D, H, W)`, complex.
    size
        Side of the box in pixels, odd.
    iterations
        Steps of the power method.
    threshold
        Maps are zero where the mean energy of a box is below this part of the largest; with 0
        they are so only where the images are.

    Returns
    -------
    Tensor or ndarray
        Maps `(C, *image)`, Σ|s|² = 1 or 0; phase as the module says.

    Raises
    ------
    ValueError
        Another shape, NaN, nothing but zeros, a size that is even or not positive, no iterations,
        a threshold outside 0 … 1.

    References
    ----------
    Walsh et al., "Adaptive reconstruction of phased array MR imagery", Magn. Reson. Med. 43:682-690
    (2000), doi 10.1002/(SICI)1522-2594(200005)43:5<682::AID-MRM10>3.0.CO;2-G; the iteration: Inati,
    Hansen, Kellman, "A fast optimal method for coil sensitivity estimation and adaptive coil
    combination for complex images", Proc. ISMRM 22:4407 (2014).
    """
    x = _coil_data(images, "adaptive_maps: images", (2, 3))
    if size < 1 or size % 2 == 0:
        raise ValueError(f"adaptive_maps: the box has an odd number of pixels a side, got {size}")
    if iterations < 1 or not 0 <= threshold < 1:
        raise ValueError(
            "adaptive_maps: iterations must be at least 1 and 0 <= threshold < 1, "
            f"got {iterations} and {threshold}"
        )
    x = x / x.abs().max()
    maps = _virtual_coils(x.flatten(1))[:, 0].to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))
    for _ in range(iterations):
        combined = (maps.conj() * x).sum(0)
        maps = _box(x * combined.conj(), size)
        length = torch.linalg.vector_norm(maps, dim=0)
        maps = maps / torch.where(length == 0, 1, length)
    energy = _box((x.abs() ** 2).sum(0, keepdim=True).to(x.dtype), size)[0].real
    maps = maps * (energy > threshold * energy.max())
    return _with_common_phase(maps)


@overload
def compress(kspace: Tensor, n: int) -> tuple[Tensor, Tensor]: ...
@overload
def compress(kspace: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]: ...
def compress(kspace: Any, n: int) -> Any:
    """The n virtual coils that keep the most energy (principal components of the coils).

    The rows of the matrix are orthonormal, so white noise stays white with the same variance.

    Parameters
    ----------
    kspace
        `(C, ...)`: k-space or coil images.
    n
        Number of virtual coils, at most C.

    Returns
    -------
    tuple
        The virtual coils `(n, ...)` and the matrix `(n, C)` that makes them, which applies to
        coil maps too: ``torch.tensordot(matrix, maps, 1)``.

    Raises
    ------
    ValueError
        n outside 1 … C, NaN, no coils.

    References
    ----------
    Buehrer et al., "Array compression for MRI with large coil arrays", Magn. Reson. Med.
    57:1131-1139 (2007), doi 10.1002/mrm.21237.
    """
    data = as_numbers(kspace, "compress: kspace")
    data = data.to(complex_dtype(data.dtype))
    if data.ndim < 2 or not 1 <= n <= len(data):
        raise ValueError(f"compress: from k-space {tuple(data.shape)} come 1 to C virtual coils, not {n}")
    matrix = _virtual_coils(data.flatten(1))[:, :n].mH.to(data.dtype).resolve_conj()
    found = torch.tensordot(matrix, data, 1), matrix
    return tuple(f.numpy() for f in found) if isinstance(kspace, np.ndarray) else found


def calibration_kspace(
    kspace: Num[Tensor, "coils samples"] | np.ndarray,
    trajectory: Num[Tensor, "points d"] | np.ndarray,
    shape: tuple[int, ...],
    calibration: int = 24,
) -> Complex[Tensor, "coils ..."]:
    """The middle of Cartesian k-space from non-Cartesian samples, zero around it.

    The samples in the middle are fitted in the least-squares sense by coil images of the same field
    of view and low resolution.

    Parameters
    ----------
    kspace, trajectory
        Samples `(C, N)` at `(N, d)` cycles per pixel of the image.
    shape
        The image.
    calibration
        Side of the region in k-space points.

    Returns
    -------
    Tensor
        `(C, *shape)`, zero frequency at N//2.

    Raises
    ------
    ValueError
        Lengths that do not agree, NaN, too few samples in the middle of k-space.
    """
    data = _coil_data(kspace, "the calibration's kspace", (1,))
    points = as_numbers(trajectory, "the calibration's trajectory").to(data.device, torch.float64)
    shape = tuple(shape)
    if points.shape != (data.shape[1], len(shape)):
        raise ValueError(
            f"k-space has {data.shape[1]} samples a coil and the image {len(shape)} axes, so the trajectory "
            f"must be ({data.shape[1]}, {len(shape)}), got {tuple(points.shape)}"
        )
    region = tuple(min(calibration, s) for s in shape)
    grid = tuple(min(r + _MARGIN, s) for r, s in zip(region, shape, strict=True))
    scale = torch.tensor([s / g for s, g in zip(shape, grid, strict=True)][::-1]).to(points)
    points = points * scale  # the low-resolution image has fewer and larger pixels
    inside = (points.abs() <= 0.5).all(-1)
    if int(inside.sum()) < math.prod(region):
        raise ValueError(
            f"only {int(inside.sum())} samples lie in the middle of k-space, too few for a calibration "
            f"region of {region}; make it smaller, or give coil maps"
        )
    nufft = NonUniformFFT(points[inside], grid, eps=1e-5)
    b = nufft.adjoint(data[:, inside])
    damped = nufft.H @ nufft + 1e-3 * int(inside.sum()) * identity(grid, complex=True)
    low = unitary_fft(cg(damped, b, tolerance=1e-3).value, tuple(range(-len(grid), 0)), centered=True)
    found = torch.zeros((len(data), *shape), dtype=data.dtype, device=data.device)
    found[_middle(shape, region)] = low[_middle(grid, region)]
    return found


def _middle(shape: tuple[int, ...], region: tuple[int, ...]) -> tuple[Any, ...]:
    """The index of a region around N//2, whose own middle lies there too."""
    starts = [s // 2 - r // 2 for s, r in zip(shape, region, strict=True)]
    return (..., *(slice(a, a + r) for a, r in zip(starts, region, strict=True)))


@_numpy_edge
def estimate_maps(
    kspace: Num[Tensor, "coils samples"],
    /,
    trajectory: Num[Tensor, "points d"] | np.ndarray,
    shape: tuple[int, ...],
    method: str = "espirit",
    *,
    calibration: int = 24,
) -> Complex[Tensor, "coils ..."]:
    """Coil maps from non-Cartesian k-space, out of its middle.

    Parameters
    ----------
    kspace, trajectory
        Samples `(C, N)` at `(N, d)` cycles per pixel. Frames of different contrast may be put
        together: their mean shows the same coils.
    shape
        The image, `(H, W)` or `(D, H, W)`.
    method
        `"espirit"` (maps are zero outside the object), or `"adaptive"` (maps everywhere, cheaper).
    calibration
        Side of the region of k-space that is used, in points of the image's Cartesian grid.

    Returns
    -------
    Tensor or ndarray
        Maps `(C, *shape)`, Σ|s|² = 1 or 0; phase as the module says.

    Raises
    ------
    ValueError
        An unknown method, lengths that do not agree, NaN, too few samples in the middle.
    """
    if method not in ("espirit", "adaptive"):
        raise ValueError(f'estimate_maps: the method is "espirit" or "adaptive", got {method!r}')
    middle = calibration_kspace(kspace, trajectory, shape, calibration)
    if method == "espirit":
        return espirit(middle, calibration=calibration)
    region = tuple(min(calibration, s) for s in shape)
    window = torch.ones((), dtype=torch.float64, device=middle.device)
    for r in region:
        offset = torch.arange(r).to(window) - r // 2
        window = window[..., None] * torch.cos(math.pi * offset / (r + 1)) ** 2  # Hann
    middle[_middle(tuple(shape), region)] *= window
    return adaptive_maps(unitary_ifft(middle, tuple(range(-len(shape), 0)), centered=True))
