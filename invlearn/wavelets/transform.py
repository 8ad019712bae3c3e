"""Discrete wavelet transforms over the last one, two or three axes, differentiable to any order."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from invlearn.wavelets import kernels, polyphase
from invlearn.wavelets.filters import FilterBank, check_mode, filter_bank
from invlearn.wavelets.polyphase import Analysis, forward_analysis, inverse_analysis

_MAX_AXES = 3


class _Analyse(torch.autograd.Function):
    """`kernels.analyse` with its adjoint as derivative; linear, so its own forward derivative too."""

    @staticmethod
    def forward(x: Tensor, analysis: Analysis) -> tuple[Tensor, ...]:
        return tuple(kernels.analyse(x, analysis))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.analysis = inputs[1]
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, None]:
        given = next((grad for grad in grads if grad is not None), None)
        if given is None:
            return None, None
        # one array of zeros for all sub-bands that nothing depends on, such as those of a low-pass layer
        zeros = torch.zeros_like(given) if any(grad is None for grad in grads) else None
        full = [zeros if grad is None else grad for grad in grads]
        return _Synthesise.apply(ctx.analysis, *full), None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> tuple[Tensor, ...]:
        return _Analyse.apply(tangent, ctx.analysis)

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor, analysis: Analysis) -> tuple[Any, Any]:
        out = _Analyse.apply(x.movedim(in_dims[0], 0), analysis)
        return out, (0,) * len(out)


class _Synthesise(torch.autograd.Function):
    """`kernels.synthesise`, the adjoint of `_Analyse`."""

    @staticmethod
    def forward(analysis: Analysis, *bands: Tensor) -> Tensor:
        return kernels.synthesise(bands, analysis)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.analysis = inputs[0]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        return None, *_Analyse.apply(grad, ctx.analysis)

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Tensor) -> Tensor:
        return _Synthesise.apply(ctx.analysis, *tangents)

    @staticmethod
    def vmap(info: Any, in_dims: Any, analysis: Analysis, *bands: Tensor) -> tuple[Any, Any]:
        moved = [
            band.expand(info.batch_size, *band.shape) if dim is None else band.movedim(dim, 0)
            for band, dim in zip(bands, in_dims[1:], strict=True)
        ]
        return _Synthesise.apply(analysis, *moved), 0


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype in kernels.HALF_PRECISION else x


def _analyse(x: Tensor, analysis: Analysis) -> list[Tensor]:
    if torch.compiler.is_compiling():
        # a graph of plain operations: it exports, and the compiler fuses it
        return [band.to(x.dtype) for band in polyphase.analyse(_wide(x), analysis)]
    return list(_Analyse.apply(x, analysis))


def _synthesise(bands: Sequence[Tensor], analysis: Analysis) -> Tensor:
    if torch.compiler.is_compiling():
        return polyphase.synthesise([_wide(band) for band in bands], analysis).to(bands[0].dtype)
    return _Synthesise.apply(analysis, *bands)


def band_names(ndim: int) -> list[str]:
    """Sub-band keys of an `ndim`-axis transform in the order of `pywt.dwtn`: ``aaa, aad, …, ddd``.

    The letters follow the axes, slowest first: over (depth, height, width), ``aad`` is low-pass along
    depth and height and high-pass along width.
    """
    return ["".join(letters) for letters in itertools.product("ad", repeat=ndim)]


def _check_ndim(ndim: int | None, available: int, what: str) -> int:
    if ndim is None:
        ndim = available
    if not 1 <= ndim <= _MAX_AXES:
        raise ValueError(
            f"{what}: the transform covers 1, 2 or {_MAX_AXES} axes, not {ndim}; pass ndim=1, 2 or 3 and "
            "keep the leading dimensions as batch"
        )
    if available < ndim:
        raise ValueError(f"{what}: ndim={ndim} needs at least {ndim} dimensions; the input has {available}")
    return ndim


def _as_tensor(x: Any, what: str) -> Tensor:
    if isinstance(x, np.ndarray):
        if x.dtype.char not in "efdFD":
            raise TypeError(
                f"{what}: {x.dtype} cannot hold wavelet coefficients here; convert it first, e.g. "
                "x.astype('float32')"
            )
        # torch refuses reversed arrays and foreign byte orders, and warns of read-only ones
        x = x.astype(x.dtype.newbyteorder("="), copy=False)
        x = torch.as_tensor(x if x.flags.writeable and min(x.strides, default=0) >= 0 else x.copy())
    if not isinstance(x, Tensor):
        raise TypeError(f"{what}: expected a torch tensor or a numpy array, got {type(x).__name__}")
    if x.layout != torch.strided:
        raise TypeError(f"{what}: the layout {x.layout} cannot be transformed; use x.to_dense()")
    if not (x.is_floating_point() or x.is_complex()) or x.dtype.itemsize < 2:
        raise TypeError(
            f"{what}: {x.dtype} cannot hold wavelet coefficients; convert it first, e.g. x.float()"
        )
    return x


def check_sizes(sizes: Sequence[int], mode: str, what: str) -> None:
    """Refuses sizes that no transform exists for, in the name of `what`."""
    smallest = min(sizes)
    if smallest < 1:
        raise ValueError(
            f"{what}: a transformed axis is empty (sizes {tuple(sizes)}); give at least 1 sample"
        )
    if mode == "reflect" and smallest < 2:
        raise ValueError(
            f"{what}: mode 'reflect' needs at least 2 samples along every axis (sizes {tuple(sizes)}); "
            "use 'symmetric' or 'periodization'"
        )


def dwt(x: Any, wavelet: Any, ndim: int | None = None, mode: str = "periodization") -> dict[str, Any]:
    """One level of the discrete wavelet transform over the last `ndim` axes.

    Parameters
    ----------
    x : Tensor or ndarray, (*batch, *sizes)
        Real or complex floating point, any device. 16-bit types are computed in float32.
    wavelet : str, pywt.Wavelet, FilterBank or four sequences of float
        See `filter_bank`.
    ndim : int, optional
        Number of trailing axes to transform, 1 to 3; the rest is batch. Default: all axes of `x`.
    mode : str
        "periodization" (default): ``ceil(n / 2)`` coefficients per axis, exactly invertible. Otherwise
        "zero", "symmetric", "reflect", "periodic" or "constant": ``floor((n + L - 1) / 2)``
        coefficients for filters of length L. Values and sizes are those of `pywt.dwtn`.

    Returns
    -------
    dict of str to Tensor (ndarray if `x` is one)
        Keys and order as `pywt.dwtn` (see `band_names`), each value of shape (*batch, *counts).

    Raises
    ------
    ValueError
        Unknown wavelet or mode, `ndim` outside 1 to 3 or above `x.ndim`, an empty axis, or an axis of
        one sample in the mode "reflect".
    TypeError
        Integer or boolean data, or not an array.

    Notes
    -----
    Along one axis ``a[i] = Σ_j dec_lo[j] x[2i + s - j]``, with ``s = L / 2`` for "periodization" (an odd
    signal first repeats its last sample) and ``s = 1`` otherwise; ``d`` likewise with ``dec_hi``
    (S. Mallat, 1989, doi:10.1109/34.192463). The derivative is the exact adjoint.

    Examples
    --------
    >>> import torch
    >>> bands = dwt(torch.arange(4.0), "haar", ndim=1)
    >>> [round(v, 4) for v in bands["a"].tolist()]
    [0.7071, 3.5355]
    """
    numpy = isinstance(x, np.ndarray)
    x = _as_tensor(x, "dwt")
    bank, mode = filter_bank(wavelet), check_mode(mode)
    ndim = _check_ndim(ndim, x.ndim, "dwt")
    sizes = x.shape[x.ndim - ndim :]
    check_sizes(sizes, mode, "dwt")
    bands = _analyse(x, forward_analysis(bank, sizes, mode))
    return {name: band.numpy() if numpy else band for name, band in zip(band_names(ndim), bands, strict=True)}


def _check_bands(bands: Any, ndim: int | None, what: str) -> tuple[list[Tensor], int]:
    if not isinstance(bands, Mapping):
        raise TypeError(
            f"{what}: the sub-bands must be a dict such as dwt returns, got {type(bands).__name__}"
        )
    if ndim is None:
        ndim = max((len(str(key)) for key in bands), default=0)
    if not 1 <= ndim <= _MAX_AXES:
        raise ValueError(
            f"{what}: the transform covers 1, 2 or {_MAX_AXES} axes, not {ndim}; pass ndim=1, 2 or 3"
        )
    names = band_names(ndim)
    if set(bands) != set(names):
        missing, extra = sorted(set(names) - set(bands)), sorted(set(bands) - set(names), key=str)
        raise ValueError(
            f"{what}: ndim={ndim} needs the {len(names)} sub-bands {', '.join(names)}; "
            f"missing: {', '.join(missing) or 'none'}; unexpected: {', '.join(map(str, extra)) or 'none'} "
            "(a sub-band may be None for zeros)"
        )
    given = {
        name: _as_tensor(bands[name], f"{what}, sub-band {name!r}")
        for name in names
        if bands[name] is not None
    }
    if not given:
        raise ValueError(f"{what}: every sub-band is None; at least one must be given")
    first_name, first = next(iter(given.items()))
    for name, band in given.items():
        if band.shape != first.shape or band.device != first.device:
            raise ValueError(
                f"{what}: sub-band {name!r} is {tuple(band.shape)} on {band.device}, but {first_name!r} is "
                f"{tuple(first.shape)} on {first.device}; all must agree"
            )
    dtype = first.dtype
    for band in given.values():
        dtype = torch.promote_types(dtype, band.dtype)
    _check_ndim(ndim, first.ndim, what)
    zeros = torch.zeros_like(first, dtype=dtype) if len(given) < len(names) else None
    return [given[name].to(dtype) if name in given else zeros for name in names], ndim  # type: ignore[misc]


def idwt(
    bands: Any,
    wavelet: Any,
    ndim: int | None = None,
    mode: str = "periodization",
    size: Sequence[int] | None = None,
) -> Any:
    """Inverse of `dwt`: one level of synthesis over the last `ndim` axes.

    Parameters
    ----------
    bands : mapping of str to Tensor or ndarray
        All ``2^ndim`` sub-bands, of one shape (*batch, *counts); a value of None stands for zeros.
    wavelet, mode
        As given to `dwt`.
    ndim : int, optional
        Number of transformed axes. Default: the length of the keys.
    size : sequence of int, optional
        Sizes of the transformed axes before `dwt`. Without it the result has the even sizes of
        `pywt.idwtn`, one larger than an odd original; with it the result is cropped.

    Returns
    -------
    Tensor (ndarray if the sub-bands are), (*batch, *sizes)
        ``2 counts`` samples per axis for "periodization", else ``2 counts - L + 2``.

    Raises
    ------
    ValueError
        Missing or unexpected sub-bands, differing shapes, too few coefficients for the filters, or a
        `size` that these sub-bands cannot give.
    TypeError
        Integer data, or not a mapping of arrays.
    """
    tensors, ndim = _check_bands(bands, ndim, "idwt")
    bank, mode = filter_bank(wavelet), check_mode(mode)
    counts = tensors[0].shape[tensors[0].ndim - ndim :]
    check_sizes(counts, "zero", "idwt")
    analysis = inverse_analysis(bank, counts, mode)
    if min(analysis.sizes) < 1:
        raise ValueError(
            f"idwt: {tuple(counts)} coefficients are too few for filters of length {bank.length} in mode "
            f"{mode!r}; at least {bank.length // 2} are needed along every axis"
        )
    x = _crop(_synthesise(tensors, analysis), analysis.sizes, size)
    return x.numpy() if any(isinstance(band, np.ndarray) for band in bands.values()) else x


def dwt_adjoint(bands: Any, wavelet: Any, sizes: Sequence[int], mode: str = "periodization") -> Any:
    """Adjoint of `dwt` as a linear map: ``Σ <dwt(x), c> = <x, dwt_adjoint(c)>``.

    It is the inverse for an orthogonal wavelet, "periodization" and even sizes; otherwise the two differ.

    Parameters
    ----------
    bands : mapping of str to Tensor or ndarray
        All ``2^ndim`` sub-bands, each (*batch, *counts); a value of None stands for zeros.
    wavelet, mode
        As given to `dwt`.
    sizes : sequence of int
        Sizes of the transformed axes before `dwt`, 1 to 3 of them.

    Returns
    -------
    Tensor (ndarray if the sub-bands are), (*batch, *sizes)

    Raises
    ------
    ValueError
        As `idwt`, and if `dwt` would not give sub-bands of this shape for `sizes`.
    TypeError
        As `idwt`.
    """
    ndim = len(sizes)
    tensors, _ = _check_bands(bands, ndim, "dwt_adjoint")
    bank, mode = filter_bank(wavelet), check_mode(mode)
    check_sizes(sizes, mode, "dwt_adjoint")
    analysis = forward_analysis(bank, sizes, mode)
    counts = tuple(tensors[0].shape[tensors[0].ndim - ndim :])
    if counts != analysis.counts:
        raise ValueError(
            f"dwt_adjoint: sub-bands of {counts} coefficients do not belong to sizes {tuple(sizes)}, which "
            f"give {analysis.counts} with {bank.name!r} in mode {mode!r}"
        )
    x = _synthesise(tensors, analysis)
    return x.numpy() if any(isinstance(band, np.ndarray) for band in bands.values()) else x


def _crop(x: Tensor, sizes: Sequence[int], size: Sequence[int] | None) -> Tensor:
    if size is None:
        return x
    if len(size) != len(sizes) or any(not full - 1 <= n <= full for n, full in zip(size, sizes, strict=True)):
        raise ValueError(
            f"idwt: size {tuple(size)} cannot come from these sub-bands, which give {tuple(sizes)} "
            "(or one less along an axis)"
        )
    for axis, n in enumerate(size, start=x.ndim - len(size)):
        x = x.narrow(axis, 0, n)
    return x


def max_level(sizes: Sequence[int], wavelet: Any) -> int:
    """Deepest useful level, ``floor(log2(min(sizes) / (L - 1)))``, as `pywt.dwtn_max_level`."""
    reach = len(filter_bank(wavelet).dec_lo) - 1
    level = 0
    while 2 * reach <= min(sizes):  # in integers, which the compiler can follow
        reach, level = 2 * reach, level + 1
    return level


def check_level(level: int | None, sizes: Sequence[int], bank: FilterBank, what: str) -> int:
    """`level`, or the deepest one for None; refuses others in the name of `what`.

    One level is always possible; beyond the deepest, every coefficient would see the border.
    """
    deepest = max_level(sizes, bank)
    if level is None:
        return deepest
    if not 0 <= level <= max(deepest, 1):
        raise ValueError(
            f"{what}: level={level} is out of range; the maximum for sizes {tuple(sizes)} and {bank.name!r} "
            f"(filters of length {bank.length}) is {max(deepest, 1)}"
        )
    return level


def wavedec(
    x: Any, wavelet: Any, ndim: int | None = None, mode: str = "periodization", level: int | None = None
) -> list[Any]:
    """Several levels of `dwt`, each on the low-pass band of the one before.

    Parameters
    ----------
    x, wavelet, ndim, mode
        As in `dwt`.
    level : int, optional
        Number of levels. Default: the deepest, `max_level`.

    Returns
    -------
    list
        ``[approximation, details of the coarsest level, …, details of the finest]`` as
        `pywt.wavedecn`: each entry but the first is a dict without the all-low-pass key.

    Raises
    ------
    ValueError
        Besides those of `dwt`, a negative level or one above `max_level` (one level always exists).
    TypeError
        As `dwt`.
    """
    data = _as_tensor(x, "wavedec")
    bank = filter_bank(wavelet)
    ndim = _check_ndim(ndim, data.ndim, "wavedec")
    sizes = data.shape[data.ndim - ndim :]
    check_sizes(sizes, mode, "wavedec")
    level = check_level(level, sizes, bank, "wavedec")
    details = []
    low = x
    for _ in range(level):
        bands = dwt(low, bank, ndim, mode)
        low = bands.pop("a" * ndim)
        details.append(bands)
    return [low, *reversed(details)]


def waverec(
    coefficients: Sequence[Any],
    wavelet: Any,
    ndim: int | None = None,
    mode: str = "periodization",
    size: Sequence[int] | None = None,
) -> Any:
    """Inverse of `wavedec`.

    Parameters
    ----------
    coefficients : sequence
        As `wavedec` returns it; a level's details may miss no key, a value of None stands for zeros.
    wavelet, ndim, mode
        As given to `wavedec`.
    size : sequence of int, optional
        Sizes of the transformed axes of the original, to crop odd ones to (see `idwt`).

    Returns
    -------
    Tensor or ndarray, (*batch, *sizes)

    Raises
    ------
    ValueError, TypeError
        As `idwt`; also an empty list.
    """
    if not isinstance(coefficients, Sequence) or not coefficients:
        raise ValueError("waverec: coefficients must be the list that wavedec returns; got nothing in it")
    low, *details = coefficients
    if not details:
        if size is not None and tuple(low.shape[low.ndim - len(size) :]) != tuple(size):
            raise ValueError(
                f"waverec: size {tuple(size)} does not fit an approximation of shape {tuple(low.shape)} alone"
            )
        return low
    for level, bands in enumerate(details):
        if not isinstance(bands, Mapping):
            raise TypeError(
                f"waverec: entry {level + 1} must be a dict of details, got {type(bands).__name__}"
            )
        rank = ndim if ndim is not None else max((len(key) for key in bands), default=0)
        given = next((band for band in bands.values() if band is not None), None)
        if given is not None and low is not None:
            # an odd low-pass band came back one sample larger: crop it, as pywt.waverecn does
            for axis in range(low.ndim - rank, low.ndim):
                if low.shape[axis] == given.shape[axis] + 1:
                    low = low[(slice(None),) * axis + (slice(given.shape[axis]),)]
        last = level == len(details) - 1
        low = idwt({"a" * rank: low, **bands}, wavelet, rank, mode, size if last else None)
    return low
