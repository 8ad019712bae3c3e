from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from invlearn.wavelets import MODES, dwt, filter_bank, idwt, kernels, polyphase
from invlearn.wavelets.polyphase import Analysis, forward_analysis, inverse_analysis

cpu = pytest.importorskip("invlearn.wavelets.kernels.cpu")


def noise(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def steps(wavelet: str, sizes: tuple[int, ...], mode: str) -> list[Analysis]:
    """The analyses of a transform and of its inverse."""
    forward = forward_analysis(filter_bank(wavelet), sizes, mode)
    return [forward, inverse_analysis(filter_bank(wavelet), forward.counts, mode)]


def assert_same(step: Analysis, batch: tuple[int, ...], dtype: torch.dtype = torch.float64) -> None:
    """The kernels give the reference, and the adjoint is exact."""
    x = noise(*batch, *step.sizes, dtype=dtype)
    bands, expected = cpu.analyse(x, step), polyphase.analyse(x, step)
    tolerance = 1e-11 if dtype == torch.float64 else 1e-5
    for band, reference in zip(bands, expected, strict=True):
        torch.testing.assert_close(band, reference, rtol=0, atol=tolerance)
    weights = [noise(*band.shape, dtype=dtype, seed=k) for k, band in enumerate(bands)]
    back = cpu.synthesise(weights, step)
    torch.testing.assert_close(back, polyphase.synthesise(weights, step), rtol=0, atol=tolerance)
    inner = sum(float((w.double() * b.double()).sum()) for w, b in zip(weights, bands, strict=True))
    scale = float(x.double().norm()) * sum(float(w.double().norm()) for w in weights)
    assert abs(inner - float((x.double() * back.double()).sum())) <= 10 * torch.finfo(dtype).eps * scale


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("wavelet", ["haar", "db2", "bior2.2", "bior3.3", "db5"])
@pytest.mark.parametrize("sizes", [(1,), (2,), (9,), (32,), (5, 6), (1, 1), (40, 17), (5, 4, 9), (6, 33, 20)])
def test_equals_reference(sizes: tuple[int, ...], wavelet: str, mode: str) -> None:
    for step in steps(wavelet, sizes, mode):
        assert_same(step, (2,))


def test_filters_longer_than_the_signal() -> None:
    for mode in MODES:
        for step in steps("dmey", (5, 20), mode) + steps("db20", (7,), mode):
            assert_same(step, (2,))


@given(
    sizes=st.lists(st.integers(1, 23), min_size=1, max_size=3),
    batch=st.lists(st.integers(1, 3), max_size=2),
    wavelet=st.sampled_from(["haar", "db3", "db4", "rbio3.1", "sym7"]),
    mode=st.sampled_from(MODES),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_equals_reference_everywhere(
    sizes: list[int], batch: list[int], wavelet: str, mode: str, dtype: torch.dtype
) -> None:
    if mode == "reflect":
        sizes = [n + 1 for n in sizes]
    for step in steps(wavelet, tuple(sizes), mode):
        assert_same(step, tuple(batch), dtype)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("sizes", [(70000,), (300, 301), (40, 60, 50)])
def test_large_tensors_and_threads(sizes: tuple[int, ...], threads: int) -> None:
    """Several tiles and chunks, in one thread and in more threads than chunks come out even for."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for step in steps("db4", sizes, "periodization"):
            assert_same(step, (1,))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("openmp", [True, False])
def test_together(openmp: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """In torch's threads, and in our own where there are none: all take part, and errors come back."""
    if not openmp:
        monkeypatch.setattr(cpu, "_openmp", lambda: None)
    elif cpu._openmp() is None:
        pytest.skip("torch runs on another parallel runtime here")
    barrier = threading.Barrier(3)
    seen: list[int] = []
    cpu._together(lambda: (barrier.wait(60), seen.append(threading.get_ident())), 3)
    assert len(set(seen)) == 3

    def fail() -> None:
        raise MemoryError("out of it")

    with pytest.raises(MemoryError, match="out of it"):
        cpu._together(fail, 2)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert_same(steps("db2", (40, 60, 50), "symmetric")[0], (1,))
    finally:
        torch.set_num_threads(before)


def test_small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of few rows, as for very wide images."""
    monkeypatch.setattr(cpu, "_CACHE_BYTES", 1)
    for mode in MODES:
        for step in steps("bior3.3", (7, 45, 12), mode) + steps("db2", (61, 8), mode):
            assert_same(step, (2,))


def test_the_device_and_dtype_choose_the_kernel() -> None:
    assert kernels._backend(torch.zeros(2)) is cpu
    assert kernels._backend(torch.zeros(2, dtype=torch.bfloat16)) is polyphase
    assert kernels._backend(torch.zeros(2, device="meta")) is polyphase
    bands = dwt(torch.zeros(2, 5, 6, device="meta"), "db2", 2)
    assert bands["ad"].shape == (2, 3, 3)
    assert bands["ad"].device.type == "meta"


def test_the_kernels_are_what_a_plain_tensor_gets(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for name in ("analyse", "synthesise"):
        original = getattr(cpu, name)
        monkeypatch.setattr(cpu, name, lambda *a, n=name, f=original: (calls.append(n), f(*a))[1])
    x = noise(4, 8, 8).requires_grad_()
    bands = dwt(x, "db2", 2)
    assert calls == ["analyse"]
    idwt(bands, "db2", 2).sum().backward()
    assert calls == ["analyse", "synthesise", "analyse", "synthesise"]


def test_without_numba_the_results_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    x = noise(2, 9, 12)
    fast = dwt(x, "bior2.2", 2, "symmetric")
    back = idwt(fast, "bior2.2", 2, "symmetric")
    monkeypatch.setattr(kernels, "_cpu", lambda: None)
    monkeypatch.setattr(cpu, "analyse", lambda *_: pytest.fail("the kernel was called"))
    for name, band in dwt(x, "bior2.2", 2, "symmetric").items():
        torch.testing.assert_close(band, fast[name], rtol=0, atol=1e-12)
    torch.testing.assert_close(idwt(fast, "bior2.2", 2, "symmetric"), back, rtol=0, atol=1e-12)


def test_numba_is_looked_for_not_assumed() -> None:
    code = (
        "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'numba' else find(name, *a)\n"
        "import torch, sys; from invlearn.wavelets import dwt\n"
        "print(dwt(torch.ones(4), 'haar', 1)['a'].tolist(), 'numba' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split()[-1] == "False"


def test_compiles_where_nothing_can_be_kept_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    from numba.core import caching

    from invlearn.wavelets.kernels import loops

    def nowhere(*_: object, **__: object) -> None:
        raise RuntimeError("cannot cache function: no locator available")

    monkeypatch.setattr(caching.FunctionCache, "__init__", nowhere)
    assert loops._jit(lambda x: x + 1)(2) == 3


def test_from_several_threads_at_once() -> None:
    x = noise(16, 64, 64, dtype=torch.float32)
    expected = dwt(x, "db2", 2)["ad"]
    wrong: list[int] = []

    def repeat(k: int) -> None:
        if any(not torch.equal(dwt(x, "db2", 2)["ad"], expected) for _ in range(10)):
            wrong.append(k)

    workers = [threading.Thread(target=repeat, args=(k,)) for k in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def _child(queue: multiprocessing.Queue) -> None:
    torch.set_num_threads(2)
    queue.put(float(dwt(np.ones((16, 64, 64)), "haar", 2)["aa"].mean()))  # torch's own threads do not survive


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_after_a_fork() -> None:
    """A data loader's worker forks a process whose threads were at work: the child makes its own."""
    dwt(np.ones((16, 64, 64)), "haar", 2)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=_child, args=(queue,))
    process.start()
    assert queue.get(timeout=60) == pytest.approx(2.0)
    process.join()


MEMORY = """
import torch
from invlearn.wavelets import dwt, idwt

def resident(key):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(key))

def peak(function, *arguments):  # of the process while the function runs, above what it held before
    with open("/proc/self/clear_refs", "w") as reset:
        reset.write("5")
    before = resident("VmRSS")
    result = function(*arguments)
    return result, resident("VmHWM") - before

torch.set_num_threads(2)
x = torch.ones(1, 1, 8, 8, 8)
idwt(dwt(x, "bior3.3", 3), "bior3.3", 3)  # libraries and compiled code
x = torch.ones(1, 2, 128, 256, 256)
bands, forward = peak(dwt, x, "bior3.3", 3)
y, inverse = peak(idwt, bands, "bior3.3", 3)
print(*((x.nbytes + extra) / (2 * x.nbytes) for extra in (forward, inverse)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's own account of memory")
def test_peak_memory_stays_near_input_plus_output() -> None:
    run = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    forward, inverse = map(float, run.stdout.split())
    assert 0.9 < forward <= 1.2
    assert 0.9 < inverse <= 1.2


def test_tables_mark_zeros_beside_their_nearest_sample() -> None:
    tables = {mode: polyphase.forward_tables(steps("db2", (3,), mode)[0])[0].tolist() for mode in MODES}
    assert tables == {
        "periodization": [2, 0, 1, 2, 2, 0],
        "zero": [~0, ~0, 0, 1, 2, ~2, ~2, ~2],
        "symmetric": [1, 0, 0, 1, 2, 2, 1, 0],
        "reflect": [2, 1, 0, 1, 2, 1, 0, 1],
        "periodic": [1, 2, 0, 1, 2, 0, 1, 2],
        "constant": [0, 0, 0, 1, 2, 2, 2, 2],
    }


CUDA_KERNELS = """
import torch
from invlearn.wavelets import MODES, filter_bank, polyphase
from invlearn.wavelets.kernels import cuda
from invlearn.wavelets.polyphase import forward_analysis, inverse_analysis

def check(step, dtype=torch.float64, tolerance=1e-12):
    x = torch.randn(2, *step.sizes, dtype=dtype)
    wide = torch.promote_types(dtype, torch.float32)  # 16-bit types are summed in float32
    expected = polyphase.analyse(x.to(wide), step)
    for band, reference in zip(cuda.analyse(x, step), expected, strict=True):
        torch.testing.assert_close(band, reference.to(dtype), rtol=tolerance, atol=tolerance)
    weights = [torch.randn_like(band).to(dtype) for band in expected]
    reference = polyphase.synthesise([band.to(wide) for band in weights], step).to(dtype)
    torch.testing.assert_close(cuda.synthesise(weights, step), reference, rtol=tolerance, atol=tolerance)

torch.manual_seed(0)
# db2 goes in one pass over three axes, bior2.2 axis by axis
few = ("periodization", "zero", "constant")
cases = [((9,), "db4", MODES), ((1, 6), "haar", few), ((5, 6), "bior2.2", few), ((5, 4, 7), "db2", few)]
for sizes, wavelet, modes in (*cases, ((3, 4, 6), "bior2.2", few[:2])):
    for mode in modes:
        forward = forward_analysis(filter_bank(wavelet), sizes, mode)
        check(forward)
        check(inverse_analysis(filter_bank(wavelet), forward.counts, mode))
check(forward_analysis(filter_bank("haar"), (4, 6, 8), "periodization"), torch.float16, 1e-3)
empty = forward_analysis(filter_bank("haar"), (4, 6), "zero")
assert cuda.analyse(torch.zeros(0, 4, 6), empty)[3].shape == (0, 2, 3)
assert cuda.synthesise([torch.zeros(0, 2, 3)] * 4, empty).shape == (0, 4, 6)
"""


def test_cuda_kernels_in_the_interpreter() -> None:
    """Their arithmetic and indexing, run by Triton's interpreter on the processor."""
    pytest.importorskip("triton")
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    run = subprocess.run(
        [sys.executable, "-c", CUDA_KERNELS], capture_output=True, text=True, env=environment
    )
    assert run.returncode == 0, run.stderr


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("wavelet", ["haar", "db2", "bior3.3"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.complex64])
def test_cuda_equals_processor(wavelet: str, dtype: torch.dtype) -> None:
    x = noise(2, 12, 15, 18, dtype=torch.complex64 if dtype.is_complex else torch.float32).to(dtype)
    bands = dwt(x.cuda(), wavelet, 3)
    tolerance = 2e-3 if dtype == torch.float16 else 1e-5
    for name, band in dwt(x, wavelet, 3).items():
        torch.testing.assert_close(bands[name].cpu(), band, rtol=tolerance, atol=tolerance)
    back = idwt(bands, wavelet, 3, size=(12, 15, 18))
    torch.testing.assert_close(back.cpu(), x, rtol=tolerance, atol=10 * tolerance)
