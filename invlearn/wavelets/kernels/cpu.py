"""Runs the processor kernels of `loops` on tensors, in as many threads as torch uses."""

from __future__ import annotations

import ctypes
import itertools
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from invlearn.wavelets.polyphase import Analysis, adjoint_tables, fold, forward_tables

DTYPES = (torch.float32, torch.float64)

_CACHE_BYTES = 128 * 1024  # what the temporaries of a tile of rows may take of a core's second-level cache
_SERIAL_SAMPLES = 1 << 15  # below this, handing work to another thread costs more than it saves
_CHUNKS_PER_THREAD = 4  # so that a thread that is held up does not hold up all


def _matrix(analysis: Analysis, dtype: torch.dtype, adjoint: bool) -> np.ndarray:
    """The taps as (output, stream, position): channels from parities, or for the adjoint the reverse."""
    m = np.array((analysis.low, analysis.high)).reshape(2, -1, 2).transpose(0, 2, 1)
    if adjoint:
        m = m.transpose(1, 0, 2)[:, :, ::-1]
    return np.ascontiguousarray(m, dtype=str(dtype).removeprefix("torch."))


@lru_cache(maxsize=256)
def _forward_plan(analysis: Analysis, dtype: torch.dtype) -> tuple[Any, ...]:
    """Tables, inner rows and taps of `loops.analyse`."""
    start, half = analysis.start, analysis.half
    rows, count = (analysis.sizes[-2], analysis.counts[-2]) if analysis.ndim > 1 else (0, 0)
    inner = (start + 1) // 2, min((rows + start) // 2 - half + 1, count)
    return _pad(forward_tables(analysis)), inner, _matrix(analysis, dtype, adjoint=False)


@lru_cache(maxsize=256)
def _adjoint_plan(analysis: Analysis, dtype: torch.dtype) -> tuple[Any, ...]:
    """Tables, inner rows, taps and pairs of `loops.synthesise`."""
    half, lead = analysis.half, analysis.lead
    pairs = tuple(analysis.pairs(k) for k in range(analysis.ndim))
    inner = half - 1 - lead, (analysis.counts[-2] if analysis.ndim > 1 else 0) - lead
    return _pad(adjoint_tables(analysis)), inner, _matrix(analysis, dtype, adjoint=True), pairs


def _pad(tables: list[Tensor]) -> tuple[np.ndarray, ...]:
    return (*(np.zeros(0, np.int64) for _ in range(3 - len(tables))), *(table.numpy() for table in tables))


def _three(values: Sequence[int], batch: int) -> tuple[int, int, int]:
    """Axes as the kernels count them: with a single one to transform, the batch is rows of one plane."""
    return ((1, batch, values[0]), (1, *values), tuple(values))[len(values) - 1]  # type: ignore[return-value]


def _tile(rows: int, width: int, ndim: int, half: int, itemsize: int) -> int:
    """Rows of a task, so that its temporaries fit the inner caches."""
    per_row = (2, 4, 8)[ndim - 1] * width * itemsize
    return max(1, min(rows, max(2 * half, _CACHE_BYTES // per_row)))


_pool: ThreadPoolExecutor | None = None
_pool_lock = threading.Lock()
_forked = False


def _after_fork() -> None:
    """The threads of the parent do not exist in the child, nor may its lock be free."""
    global _pool, _pool_lock, _forked
    _pool, _pool_lock, _forked = None, threading.Lock(), True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

_Callback = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


@lru_cache(maxsize=1)
def _openmp() -> Any:
    """``GOMP_parallel`` of the GNU OpenMP runtime that torch has loaded, or None where there is none."""
    try:
        parallel = ctypes.CDLL("libgomp.so.1", mode=os.RTLD_NOLOAD | os.RTLD_NOW).GOMP_parallel
    except (OSError, AttributeError):
        return None
    parallel.argtypes, parallel.restype = [_Callback, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint], None
    return parallel


def _together(function: Callable[[], None], threads: int) -> None:
    """Calls `function` in so many threads at once, this one among them.

    Best in torch's own OpenMP threads: after every operation they wait in a loop for a millisecond or more,
    and threads of ours would have to share the cores with them. A forked process has lost them.
    """
    global _pool
    openmp = None if _forked else _openmp()
    if openmp is not None:
        failures: list[BaseException] = []

        def guarded(_: object) -> None:
            try:
                function()
            except BaseException as failure:
                failures.append(failure)

        openmp(_Callback(guarded), None, threads, 0)
        if failures:
            raise failures[0]
        return
    with _pool_lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="invlearn-wavelets")
        helpers = [_pool.submit(function) for _ in range(threads - 1)]
    function()
    for helper in helpers:
        helper.result()


def in_threads(work: Callable[[int, int], None], tasks: int, samples: int) -> None:
    """Calls ``work(first, last)`` over ``0 … tasks``, in as many threads as torch may use."""
    threads = min(torch.get_num_threads(), tasks)
    if threads == 1 or samples < _SERIAL_SAMPLES:
        work(0, tasks)
        return
    step = -(-tasks // (threads * _CHUNKS_PER_THREAD))
    chunks = iter(range(0, tasks, step))  # its `next` is atomic

    def drain() -> None:
        for first in chunks:
            work(first, min(first + step, tasks))

    _together(drain, threads)


def _flat(tensors: Sequence[Tensor]) -> tuple[np.ndarray, ...]:
    """Eight flat arrays on the tensors' memory; the kernels read only the first 2^ndim."""
    arrays = [tensor.detach().view(-1).numpy() for tensor in tensors]
    return tuple(itertools.islice(itertools.cycle(arrays), 8))


def _scratch(samples: int, m: np.ndarray) -> tuple[np.ndarray, ...]:
    taps = m.shape[2]
    return np.empty(samples, m.dtype), np.empty(taps, np.int64), np.empty(taps, np.int64), np.empty_like(m)


def analyse(x: Tensor, analysis: Analysis) -> list[Tensor]:
    """`polyphase.analyse` for a real tensor of `DTYPES` in main memory."""
    from invlearn.wavelets.kernels import loops

    ndim = analysis.ndim
    shape = x.shape[: x.ndim - ndim]
    batch = shape.numel()
    tables, inner, m = _forward_plan(analysis, x.dtype)
    sizes, counts = _three(analysis.sizes, batch), _three(analysis.counts, batch)
    bands = [x.new_empty((*shape, *analysis.counts)) for _ in range(2**ndim)]
    if batch == 0:
        return bands
    source, targets = x.detach().contiguous().view(-1).numpy(), _flat(bands)
    tile = _tile(counts[1], sizes[2], ndim, analysis.half, x.itemsize)
    reach = analysis.half - 1
    samples = 2 * tile * (counts[2] + reach) + (2 * tile + 4 * (tile + reach)) * sizes[2]

    def work(first: int, last: int) -> None:
        loops.analyse(
            source, targets, (first, last), (sizes, counts), (tables, inner, analysis.start), m, (ndim, tile),
            _scratch(samples, m),
        )  # fmt: skip

    planes = counts[0] * (1 if ndim == 1 else batch)
    in_threads(work, planes * -(-counts[1] // tile), x.numel())
    return bands


def synthesise(bands: Sequence[Tensor], analysis: Analysis) -> Tensor:
    """`polyphase.synthesise` for real tensors of `DTYPES` in main memory."""
    from invlearn.wavelets.kernels import loops

    ndim, first_band = analysis.ndim, bands[0]
    shape = first_band.shape[: first_band.ndim - ndim]
    batch = shape.numel()
    tables, inner, m, pair_counts = _adjoint_plan(analysis, first_band.dtype)
    counts, pairs = _three(analysis.counts, batch), _three(pair_counts, batch)
    full = analysis.unfolded
    out = first_band.new_empty((*shape, *full))
    if batch > 0:
        sources = _flat([band.detach().contiguous() for band in bands])
        target = out.view(-1).numpy()
        sizes = _three(full, batch)
        tile = _tile(pairs[1], sizes[2], ndim, analysis.half, out.itemsize)
        axes = tables, inner, analysis.lead, analysis.shift
        reach = analysis.half - 1
        samples = tile * (2 * pairs[2] + 4 * (pairs[2] + reach)) + 8 * (tile + reach) * counts[2]

        def work(first: int, last: int) -> None:
            loops.synthesise(
                target,
                sources,
                (first, last),
                (sizes, counts, pairs),
                axes,
                m,
                (ndim, tile),
                _scratch(samples, m),
            )

        planes = pairs[0] * (1 if ndim == 1 else batch)
        in_threads(work, planes * -(-pairs[1] // tile), out.numel())
    for k in range(ndim):
        out = fold(out, analysis, k)
    return out
