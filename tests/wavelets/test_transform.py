from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import pywt
import torch
from hypothesis import given
from hypothesis import strategies as st

from invlearn.wavelets import (
    MODES,
    FilterBank,
    band_names,
    dwt,
    dwt_adjoint,
    filter_bank,
    idwt,
    kernels,
    max_level,
    wavedec,
    waverec,
)

WAVELETS = ["haar", "db2", "db4", "bior2.2", "bior3.3", "bior4.4", "rbio3.1", "sym5", "coif1"]
CUSTOM = [[0.3, 0.9, 0.2], [0.5, -1.0, 0.4], [1.0, 0.5, 0.25], [0.1, -0.7, 0.6]]  # odd, not reconstructing


def noise(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("wavelet", WAVELETS)
@pytest.mark.parametrize("shape", [(1,), (2,), (3,), (16,), (17,), (6, 7), (2, 33), (5, 4, 9), (2, 3, 12)])
def test_equals_pywavelets(shape: tuple[int, ...], wavelet: str, mode: str) -> None:
    if mode == "reflect" and min(shape) == 1:
        pytest.skip("refused by PyWavelets too")
    x = noise(*shape)
    expected = pywt.dwtn(x.numpy(), wavelet, mode)
    bands = dwt(x, wavelet, len(shape), mode)
    assert list(bands) == list(expected)
    for name, band in bands.items():
        assert band.shape == expected[name].shape
        np.testing.assert_allclose(band, expected[name], rtol=0, atol=1e-12)
    back = pywt.idwtn(expected, wavelet, mode)
    mine = idwt(bands, wavelet, len(shape), mode)
    assert mine.shape == back.shape
    np.testing.assert_allclose(mine, back, rtol=0, atol=1e-12)


@pytest.mark.parametrize("mode", MODES)
def test_custom_bank_equals_pywavelets(mode: str) -> None:
    wavelet = pywt.Wavelet("mine", filter_bank=CUSTOM)
    x = noise(9, 6)
    expected = pywt.dwtn(x.numpy(), wavelet, mode)
    for form in (wavelet, CUSTOM, FilterBank(*map(tuple, CUSTOM))):
        bands = dwt(x, form, 2, mode)
        for name, band in bands.items():
            np.testing.assert_allclose(band, expected[name], atol=1e-12)
    np.testing.assert_allclose(idwt(bands, CUSTOM, 2, mode), pywt.idwtn(expected, wavelet, mode), atol=1e-12)


@given(
    shape=st.lists(st.integers(2, 21), min_size=1, max_size=3),
    wavelet=st.sampled_from(["haar", "db3", "bior2.2", "bior3.3", "rbio2.4"]),
    mode=st.sampled_from(MODES),
    seed=st.integers(0, 999),
)
def test_properties(shape: list[int], wavelet: str, mode: str, seed: int) -> None:
    """Reconstruction, the exact adjoint, and batching, for any shape."""
    ndim = len(shape)
    x = noise(2, *shape, seed=seed).requires_grad_()
    bands = dwt(x, wavelet, ndim, mode)
    torch.testing.assert_close(idwt(bands, wavelet, ndim, mode, size=shape), x, rtol=0, atol=1e-9)
    for name, band in dwt(x[1], wavelet, ndim, mode).items():
        torch.testing.assert_close(band, bands[name][1])
    weights = {name: noise(*band.shape, seed=seed + 1) for name, band in bands.items()}
    inner = sum((weights[name] * band).sum() for name, band in bands.items())
    (adjoint,) = torch.autograd.grad(inner, x)
    direction = noise(*x.shape, seed=seed + 2)
    other = sum((weights[n] * b).sum() for n, b in dwt(direction, wavelet, ndim, mode).items())
    torch.testing.assert_close((adjoint * direction).sum(), other)


@pytest.mark.parametrize("mode", MODES)
def test_adjoint_is_the_transpose(mode: str) -> None:
    """Column by column against the matrix of PyWavelets' own transform."""
    columns = [pywt.dwtn(column.reshape(5, 4), "bior2.2", mode) for column in np.eye(20)]
    matrix = np.stack([np.concatenate([c.ravel() for c in column.values()]) for column in columns], 1)
    bands = {name: noise(*c.shape, seed=k) for k, (name, c) in enumerate(columns[0].items())}
    expected = matrix.T @ np.concatenate([band.ravel() for band in bands.values()])
    np.testing.assert_allclose(dwt_adjoint(bands, "bior2.2", (5, 4), mode).ravel(), expected, atol=1e-12)
    arrays = {name: band.numpy() for name, band in bands.items()}
    assert isinstance(dwt_adjoint(arrays, "bior2.2", (5, 4), mode), np.ndarray)


@pytest.mark.parametrize("wavelet", ["haar", "db2", "db5"])
def test_orthogonal_transform_is_an_isometry_and_its_adjoint_is_its_inverse(wavelet: str) -> None:
    x = noise(3, 8, 6, 10).requires_grad_()
    bands = dwt(x, wavelet, 3)
    energy = sum(band.square().sum() for band in bands.values())
    torch.testing.assert_close(energy, x.square().sum())
    (grad,) = torch.autograd.grad(0.5 * energy, x)
    torch.testing.assert_close(grad, x)


@pytest.mark.parametrize("mode", MODES)
def test_gradients_to_second_order(mode: str) -> None:
    x = noise(3, 4).requires_grad_()

    def forward(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(dwt(x, "bior2.2", 2, mode).values())

    bands = [band.detach().requires_grad_() for band in forward(x)]

    def inverse(*bands: torch.Tensor) -> torch.Tensor:
        return idwt(dict(zip(band_names(2), bands, strict=True)), "bior2.2", 2, mode)

    for function, inputs in ((forward, (x,)), (inverse, tuple(bands))):
        assert torch.autograd.gradcheck(function, inputs, check_forward_ad=True)
        assert torch.autograd.gradgradcheck(function, inputs)


def test_torch_func_transforms() -> None:
    x, v = noise(4, 6, 8), noise(4, 6, 8, seed=1)

    def low(x: torch.Tensor) -> torch.Tensor:
        return dwt(x, "db2", 2)["ad"]

    torch.testing.assert_close(torch.func.vmap(low)(x), low(x))
    torch.testing.assert_close(torch.func.vmap(low, in_dims=2)(x.permute(1, 2, 0)), low(x))
    value, tangent = torch.func.jvp(low, (x,), (v,))
    torch.testing.assert_close(value, low(x))
    torch.testing.assert_close(tangent, low(v))
    jacobian = torch.func.jacrev(low)(x[0])
    torch.testing.assert_close(jacobian, torch.func.jacfwd(low)(x[0]))
    torch.testing.assert_close(torch.einsum("ijkl,kl->ij", jacobian, x[0]), low(x[0]))
    hessian = torch.func.hessian(lambda x: low(x).square().sum())(x[0])
    torch.testing.assert_close(hessian, 2 * torch.einsum("ijab,ijcd->abcd", jacobian, jacobian))
    bands = dwt(x, "db2", 2)
    bands["dd"] = bands["dd"][0]  # one band shared by the whole vmapped batch

    def back(a: torch.Tensor, rest: torch.Tensor, shared: torch.Tensor) -> torch.Tensor:
        return idwt({"aa": a, "ad": rest, "da": rest, "dd": shared}, "db2", 2)

    mapped = torch.func.vmap(back, in_dims=(0, 0, None))(bands["aa"], bands["ad"], bands["dd"])
    torch.testing.assert_close(mapped[2], back(bands["aa"][2], bands["ad"][2], bands["dd"]))


@pytest.mark.parametrize("mode", MODES)
def test_wavedec_equals_pywavelets(mode: str) -> None:
    x = noise(45, 38)
    for level in (None, 0, 1, 2):
        expected = pywt.wavedecn(x.numpy(), "db2", mode, level)
        mine = wavedec(x, "db2", 2, mode, level)
        assert len(mine) == len(expected)
        np.testing.assert_allclose(mine[0], expected[0], atol=1e-12)
        for bands, reference in zip(mine[1:], expected[1:], strict=True):
            assert list(bands) == list(reference)
            for name, band in bands.items():
                np.testing.assert_allclose(band, reference[name], atol=1e-12)
        np.testing.assert_allclose(
            waverec(mine, "db2", 2, mode), pywt.waverecn(expected, "db2", mode), atol=1e-12
        )
        torch.testing.assert_close(waverec(mine, "db2", 2, mode, size=(45, 38)), x)


def test_wavedec_default_level_is_the_deepest() -> None:
    assert max_level((64, 100), "db2") == pywt.dwtn_max_level((64, 100), "db2") == 4
    assert len(wavedec(noise(64, 100), "db2", 2)) == 5
    assert max_level((5,), "db4") == 0
    assert len(wavedec(noise(5), "db4", 1)) == 1
    assert len(wavedec(noise(5), "db4", 1, level=1)) == 2


def test_waverec_takes_none_for_zeros() -> None:
    coefficients = wavedec(noise(2, 16, 16), "haar", 2, level=2)
    cut = [coefficients[0], coefficients[1], dict.fromkeys(coefficients[2])]
    zeroed = [*coefficients[:2], {k: torch.zeros_like(v) for k, v in coefficients[2].items()}]
    torch.testing.assert_close(waverec(cut, "haar", 2), waverec(zeroed, "haar", 2))


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.float16, 2e-3), (torch.bfloat16, 2e-2)]
)
def test_lower_precision(dtype: torch.dtype, tolerance: float) -> None:
    x = noise(2, 12, 16, 14).to(dtype)
    exact = dwt(x.double(), "bior3.3", 3)
    bands = dwt(x, "bior3.3", 3)
    for name, band in bands.items():
        assert band.dtype == dtype
        assert (band.double() - exact[name]).abs().max() <= tolerance * exact[name].abs().max()
    assert idwt(bands, "bior3.3", 3).dtype == dtype


def test_sixteen_bit_accumulates_in_float32() -> None:
    """One rounding at the end: each coefficient is the nearest half-precision number but for a last bit."""
    x = noise(64, 64).half()
    for name, band in dwt(x, "db4", 2).items():
        assert torch.equal(band, dwt(x.float(), "db4", 2)[name].half())


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@pytest.mark.parametrize("mode", ["periodization", "symmetric"])
def test_complex(dtype: torch.dtype, mode: str) -> None:
    x = torch.complex(noise(2, 9, 12), noise(2, 9, 12, seed=1)).to(dtype).requires_grad_()
    bands = dwt(x, "bior2.2", 2, mode)
    for name, band in bands.items():
        assert band.dtype == dtype
        parts = torch.complex(dwt(x.real, "bior2.2", 2, mode)[name], dwt(x.imag, "bior2.2", 2, mode)[name])
        torch.testing.assert_close(band, parts)
    torch.testing.assert_close(idwt(bands, "bior2.2", 2, mode, size=(9, 12)), x)
    assert torch.autograd.gradcheck(
        lambda x: dwt(x, "bior2.2", 2, mode)["ad"], (x.detach().to(torch.complex128).requires_grad_(),)
    )


def test_numpy_in_numpy_out() -> None:
    x = noise(3, 8, 8).numpy()
    bands = dwt(x, "haar", 2)
    assert all(isinstance(band, np.ndarray) for band in bands.values())
    back = idwt(bands, "haar", 2)
    assert isinstance(back, np.ndarray)
    np.testing.assert_allclose(back, x)
    coefficients = wavedec(x, "haar", 2)
    assert isinstance(coefficients[0], np.ndarray)
    np.testing.assert_allclose(waverec(coefficients, "haar", 2), x)


def test_numpy_views() -> None:
    """Reversed and read-only arrays, which torch does not take as they are."""
    x = noise(8, 8).numpy()
    frozen = x[::-1].copy()
    frozen.flags.writeable = False
    for name, band in dwt(x[::-1], "db2", 2).items():
        np.testing.assert_array_equal(band, dwt(frozen, "db2", 2)[name])


def test_numpy_of_the_other_byte_order() -> None:
    x = np.random.default_rng(0).standard_normal((4, 6))
    swapped = x.astype(x.dtype.newbyteorder())
    for key, band in dwt(x, "db2").items():
        np.testing.assert_array_equal(dwt(swapped, "db2")[key], band)


def test_gradient_through_some_sub_bands_only(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[set[int]] = []
    plain = kernels.synthesise

    def watched(bands: Any, analysis: Any) -> torch.Tensor:
        seen.append({band.data_ptr() for band in bands})
        return plain(bands, analysis)

    monkeypatch.setattr(kernels, "synthesise", watched)
    x = noise(8, 6).requires_grad_()
    low = dwt(x, "bior2.2")["aa"]
    weight = noise(*low.shape, seed=1)
    (gradient,) = torch.autograd.grad(low, x, weight)
    expected = dwt_adjoint({"aa": weight, "ad": None, "da": None, "dd": None}, "bior2.2", (8, 6))
    torch.testing.assert_close(gradient, expected)
    assert len(seen[0]) == 2  # the other three share their zeros
    assert torch.autograd.gradgradcheck(lambda x: dwt(x, "bior2.2")["da"], x)


def test_default_ndim_is_every_axis() -> None:
    x = noise(4, 6)
    assert list(dwt(x, "haar")) == ["aa", "ad", "da", "dd"]
    torch.testing.assert_close(idwt(dwt(x, "haar"), "haar"), x)


def test_layouts_and_empty_batches() -> None:
    x = noise(8, 6, 3, 4)
    for view in (x.permute(2, 3, 0, 1), x.permute(3, 2, 1, 0)[:, :, ::2], x[..., :1].expand(8, 6, 3, 4)):
        bands = dwt(view, "db2", 2)
        for name, band in dwt(view.contiguous(), "db2", 2).items():
            torch.testing.assert_close(bands[name], band)
        strided = {name: band.mT.contiguous().mT for name, band in bands.items()}
        torch.testing.assert_close(idwt(strided, "db2", 2, size=view.shape[-2:]), view)
    empty = dwt(noise(0, 4, 6), "haar", 2)
    assert empty["ad"].shape == (0, 2, 3)
    assert idwt(empty, "haar", 2).shape == (0, 4, 6)


def test_does_not_touch_its_input() -> None:
    x = noise(4, 9, 8)
    copy = x.clone()
    bands = dwt(x, "db2", 3)
    copies = {name: band.clone() for name, band in bands.items()}
    idwt(bands, "db2", 3)
    assert torch.equal(x, copy)
    assert all(torch.equal(band, copies[name]) for name, band in bands.items())


def test_a_nan_stays_within_reach_of_the_filters() -> None:
    x = noise(64)
    x[32] = torch.nan
    for mode in MODES:
        bad = dwt(x, "db2", 1, mode)["a"].isnan()
        assert bad.sum() == 2


COMPILED = """
import torch
from invlearn.wavelets import dwt, filter_bank, idwt, wavedec, waverec

custom = [[0.3, 0.9, 0.2], [0.5, -1.0, 0.4], [1.0, 0.5, 0.25], [0.1, -0.7, 0.6]]
haar = filter_bank("haar")
for wavelet, ndim, mode in (("db2", 2, "periodization"), (haar, 3, "reflect"), (custom, 1, "zero")):
    def round_trip(x):
        bands = dwt(x, wavelet, ndim, mode)
        return idwt({k: v.tanh() for k, v in bands.items()}, wavelet, ndim, mode)

    x, y = (torch.linspace(-1, 1, 672).sin().view(2, 7, 8, 6).requires_grad_() for _ in range(2))
    compiled = torch.compile(round_trip, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), round_trip(y))
    compiled(x).square().sum().backward()
    round_trip(y).square().sum().backward()
    torch.testing.assert_close(x.grad, y.grad)
    if ndim == 1:
        compiled(torch.zeros(2, 7, 8, 10))  # a second size, traced with a symbol

x = torch.rand(2, 13, 16)
levels = torch.compile(
    lambda x: waverec(wavedec(x, "db2", 2), "db2", 2, size=(13, 16)), fullgraph=True, backend="aot_eager"
)
torch.testing.assert_close(levels(x), x)
"""


def test_compiles_without_graph_breaks() -> None:
    """In a fresh interpreter: the compiler cannot trace the annotation checks of this one."""
    run = subprocess.run([sys.executable, "-W", "error", "-c", COMPILED], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


class _Model(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bands = dwt(x, "bior2.2", 2)
        return idwt({k: v * 2 for k, v in bands.items()}, "bior2.2", 2)


def test_exports() -> None:
    x = noise(3, 8, 10)
    program = torch.export.export(_Model(), (x,))
    torch.testing.assert_close(program.module()(x), 2 * x)
    namespaces = {str(n.target).split(".")[0] for n in program.graph.nodes if n.op == "call_function"}
    assert namespaces <= {"aten", "<built-in function getitem>"}  # portable: no operator of ours


def test_exports_with_a_dynamic_batch() -> None:
    batch = torch.export.Dim("batch")
    program = torch.export.export(_Model(), (noise(3, 8, 10),), dynamic_shapes={"x": {0: batch}})
    x = noise(5, 8, 10)
    torch.testing.assert_close(program.module()(x), 2 * x)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: dwt(x, "bior2.3", 2), "unknown wavelet 'bior2.3'; did you mean 'bior"),
        (lambda x: dwt(x, "morl", 2), "'morl' is continuous"),
        (lambda x: dwt(x, "haar", 2, "periodisation"), "did you mean 'periodization'"),
        (lambda x: dwt(x, "haar", 2, "smooth"), "choose one of periodization, zero"),
        (lambda x: dwt(x, "haar", 4), "1, 2 or 3 axes, not 4"),
        (lambda x: dwt(x, "haar", 0), "1, 2 or 3 axes, not 0"),
        (lambda x: dwt(x[0, 0], "haar", 3), "needs at least 3 dimensions"),
        (lambda x: dwt(torch.zeros(2, 3, 4, 5), "haar"), "1, 2 or 3 axes, not 4"),
        (lambda x: dwt(x[..., :0], "haar", 2), "axis is empty"),
        (lambda x: dwt(x[..., :1], "haar", 2, "reflect"), "at least 2 samples"),
        (lambda x: wavedec(x, "db2", 2, level=5), r"level=5 is out of range; the maximum .* is 1"),
        (lambda x: wavedec(x, "db2", 2, level=-1), "level=-1 is out of range"),
        (lambda x: waverec([], "db2", 2), "list that wavedec returns"),
        (lambda x: idwt({"a": x, "d": x}, "haar", 2), r"needs the 4 sub-bands .*missing: aa"),
        (lambda x: idwt({"aa": x, "ad": x, "da": x}, "haar", 2), "missing: dd"),
        (lambda x: idwt({**dwt(x, "haar", 2), "q": x}, "haar", 2), "unexpected: q"),
        (lambda x: idwt({**dwt(x, "haar", 2), "q": x, 1: x}, "haar"), "unexpected: 1, q"),
        (lambda x: waverec([x], "haar", 2, size=(8, 7)), r"size \(8, 7\) does not fit"),
        (lambda x: idwt(dict.fromkeys(["a", "d"]), "haar"), "every sub-band is None"),
        (lambda x: idwt({"a": x, "d": x[:, :-1]}, "haar", 1), r"sub-band 'd' is \(2, 7, 8\)"),
        (lambda x: idwt({}, "haar"), "1, 2 or 3 axes, not 0"),
        (
            lambda x: idwt({"a": x[..., :2], "d": x[..., :2]}, "db4", 1, "zero"),
            "too few for filters of length 8",
        ),
        (lambda x: idwt({"a": x[..., :0], "d": x[..., :0]}, "haar", 1), "axis is empty"),
        (lambda x: dwt_adjoint(dwt(x, "haar", 2), "haar", (8, 9)), r"do not belong to sizes \(8, 9\)"),
        (lambda x: dwt_adjoint(dwt(x, "haar", 2), "haar", (8,)), "needs the 2 sub-bands"),
        (lambda x: idwt({"aaa": x[0], "ddd": x[0]}, "haar", 3), "needs the 8 sub-bands"),
        (lambda x: idwt(dict.fromkeys(band_names(3), x[0, 0]), "haar", 3), "needs at least 3 dimensions"),
        (lambda x: idwt(dwt(x, "haar", 2), "haar", 2, size=(8, 5)), r"size \(8, 5\) cannot come"),
        (lambda x: idwt(dwt(x, "haar", 2), "haar", 2, size=(8,)), r"size \(8,\) cannot come"),
    ],
)
def test_bad_values(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(noise(2, 8, 8))  # type: ignore[operator]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dwt(torch.arange(8), "haar", 1), "torch.int64 cannot hold wavelet coefficients"),
        (lambda: dwt(np.ones(8, dtype=bool), "haar", 1), r"bool cannot hold .*x.astype\('float32'\)"),
        (lambda: dwt(np.ones(8, np.longdouble), "haar", 1), "cannot hold wavelet coefficients here"),
        (lambda: dwt(torch.ones(8).to(torch.float8_e4m3fn), "haar", 1), "float8_e4m3fn cannot hold"),
        (lambda: dwt(torch.ones(8).to_sparse(), "haar", 1), r"use x.to_dense\(\)"),
        (lambda: dwt([1.0, 2.0], "haar", 1), "expected a torch tensor or a numpy array, got list"),
        (lambda: wavedec(torch.arange(8), "haar", 1), "cannot hold"),
        (lambda: idwt({"a": torch.arange(4), "d": torch.arange(4)}, "haar"), "sub-band 'a': torch.int64"),
        (lambda: idwt([torch.ones(4)] * 2, "haar", 1), "must be a dict"),
        (lambda: idwt({"a": torch.ones(4), "d": 0.0}, "haar"), "sub-band 'd': expected a torch tensor"),
        (lambda: waverec([torch.ones(4), torch.ones(4)], "haar", 1), "entry 1 must be a dict"),
        (lambda: dwt(torch.ones(4), 3, 1), "wavelet must be a name"),
    ],
)
def test_bad_types(call: object, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        call()  # type: ignore[operator]


def test_filter_bank_object_is_accepted_everywhere() -> None:
    x = noise(16)
    bank = filter_bank("db2")
    torch.testing.assert_close(waverec(wavedec(x, bank, 1), bank, 1), x)
