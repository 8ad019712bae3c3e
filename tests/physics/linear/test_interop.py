"""Operators from functions and SciPy, and back."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from invlearn.physics import (
    Blur,
    Dense,
    Fourier,
    FromFunction,
    Mask,
    Space,
    check_adjoint,
    check_linear,
    from_scipy,
    lsqr,
    to_scipy,
)


def test_adjoint_of_a_function_is_the_transposed_matrix():
    a = FromFunction(lambda x: x.cumsum(-1)[..., 1:], Space((5,)), Space((4,)))
    matrix = np.tril(np.ones((5, 5)))[1:]
    np.testing.assert_allclose(a.to_dense().numpy(), matrix)
    np.testing.assert_allclose(a.H.to_dense().numpy(), matrix.T)


def test_a_module_moves_and_is_saved_with_the_operator():
    layer = nn.Conv1d(2, 3, 3, bias=False)
    a = FromFunction(layer, Space((2, 8)), Space((3, 6)))
    assert list(a.state_dict()) == ["fn.weight"]
    a.to(torch.float64)
    assert check_adjoint(a)
    assert_close(
        a.adjoint(torch.ones(3, 6, dtype=torch.float64)[None]),
        nn.functional.conv_transpose1d(torch.ones(1, 3, 6, dtype=torch.float64), layer.weight),
    )


def test_a_function_with_numbers_of_its_own_precision():
    for dtype in (torch.float32, torch.float64):
        matrix = torch.ones(3, 2, dtype=dtype)
        a = FromFunction(lambda x, m=matrix: x @ m, Space((3,)), Space((2,)))
        assert a(torch.ones(3, dtype=dtype)).tolist() == [3, 3]


def test_mixed_precision_leaves_a_function_in_full_precision():
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(7, 5, generator=generator)
    a = FromFunction(lambda x: x @ matrix, Space((7,)), Space((5,)))
    x, y = torch.randn(2, 7, generator=generator), torch.randn(2, 5, generator=generator)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (x @ matrix).dtype == torch.bfloat16  # what autocast would do to it
        forward, adjoint = a(x), a.adjoint(y)
    assert_close(forward, x @ matrix, rtol=1e-6, atol=1e-6)
    assert_close(adjoint, y @ matrix.T, rtol=1e-6, atol=1e-6)


def test_a_nonlinear_function_is_found_out():
    a = FromFunction(lambda x: x.abs(), Space((5,)), Space((5,)))
    assert not check_linear(a)
    conjugate = FromFunction(torch.conj, Space((5,), True), Space((5,), True))
    assert not check_linear(conjugate)


@pytest.mark.parametrize(
    ("fn", "domain", "codomain", "error", "message"),
    [
        (3, Space((2,)), Space((2,)), TypeError, "."),
        (lambda x: x[..., :1], Space((2,)), Space((2,)), ValueError, r"gives \(1, 1\)"),
        (lambda x: None, Space((2,)), Space((2,)), ValueError, "NoneType"),
        (lambda x: x + 1, Space((2,)), Space((2,)), ValueError, "takes 0 to something else"),
        (torch.fft.fft, Space((2,)), Space((2,)), ValueError, "complex"),
        (lambda x: x @ torch.ones(3, 3), Space((2,)), Space((3,)), ValueError, "must take a batch of one"),
    ],
)
def test_bad_functions(fn, domain, codomain, error, message):
    with pytest.raises(error, match=message):
        FromFunction(fn, domain, codomain)


@given(
    m=st.integers(1, 9),
    n=st.integers(1, 9),
    cplx=st.booleans(),
    seed=st.integers(0, 9),
    kind=st.sampled_from(["csr", "csc", "coo", "dia", "operator"]),
)
def test_from_scipy(m, n, cplx, seed, kind):
    rng = np.random.default_rng(seed)
    full = rng.standard_normal((m, n)) * (rng.random((m, n)) < 0.4)
    x, y = rng.standard_normal((3, n)), rng.standard_normal((3, m))
    if cplx:
        full = full * (1 + 2j) + 0j
        x, y = x + 1j, y - 1j
    if kind == "operator":
        a = from_scipy(scipy.sparse.linalg.aslinearoperator(full))
    else:
        a = from_scipy(scipy.sparse.coo_array(full).asformat(kind))
    np.testing.assert_allclose(a(x), x @ full.T, atol=1e-12)
    np.testing.assert_allclose(a.adjoint(y), y @ full.conj(), atol=1e-12)
    assert a(x[0].astype(np.complex64 if cplx else np.float32)).dtype.itemsize == (8 if cplx else 4)


def test_from_scipy_shapes_and_duplicates():
    doubled = scipy.sparse.coo_array(([1.0, 2.0], ([0, 0], [3, 3])), shape=(2, 6))
    a = from_scipy(doubled, shape=(2, 3), codomain_shape=(1, 2))
    assert (a.domain, a.codomain) == (Space((2, 3)), Space((1, 2)))
    x = np.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(a(x), [[9, 0]])


def test_bad_matrices():
    with pytest.raises(TypeError, match="goes into Dense"):
        from_scipy(np.eye(3))
    with pytest.raises(ValueError, match="do not hold the 6 columns"):
        from_scipy(scipy.sparse.eye_array(6), shape=(2, 2))
    with pytest.raises(ValueError, match="NaN"):
        from_scipy(scipy.sparse.csr_array(np.array([[np.nan, 1.0]])))
    with pytest.raises(TypeError, match="convert with"):
        from_scipy(scipy.sparse.csr_array(np.eye(2)).astype(np.longdouble))
    one_way = scipy.sparse.linalg.LinearOperator((2, 2), matvec=lambda v: v, dtype=float)
    with pytest.raises(ValueError, match="no rmatvec"):
        from_scipy(one_way)


def test_wrong_rmatvec_is_caught():
    m = np.arange(6.0).reshape(2, 3)
    wrong = scipy.sparse.linalg.LinearOperator(
        (2, 3), matvec=lambda v: m @ v, rmatvec=lambda v: 1.01 * m.T @ v, dtype=float
    )
    assert not check_adjoint(from_scipy(wrong))


@pytest.mark.parametrize("cplx", [False, True])
def test_scipy_solves_with_ours(cplx):
    rng = np.random.default_rng(0)
    blur = Blur(torch.tensor([0.2, 1.0, 0.3]), (4, 5), complex=cplx)
    x = rng.standard_normal(20) + (1j * rng.standard_normal(20) if cplx else 0)
    a = to_scipy(blur)
    np.testing.assert_allclose(a @ x, blur(x.reshape(4, 5)).ravel())
    normal = scipy.sparse.linalg.aslinearoperator(a.H @ a)
    found, info = scipy.sparse.linalg.cg(normal, a.H @ (a @ x), rtol=1e-12)
    assert info == 0
    np.testing.assert_allclose(found, x, atol=1e-8)
    # round trip
    np.testing.assert_allclose(from_scipy(a)(x), blur(x.reshape(4, 5)).ravel(), atol=1e-12)


def test_scipy_sees_a_real_to_complex_operator_as_real():
    a = Mask(torch.arange(7) % 3 != 1, complex=True) @ Fourier((7,), centered=True, complex=False)
    b = to_scipy(a)
    assert b.shape == (14, 7)
    assert b.dtype == np.float64
    y = a(a.domain.random(generator=torch.Generator().manual_seed(0)))
    ours = lsqr(a, y, tolerance=1e-10)
    theirs = scipy.sparse.linalg.lsqr(b, a.codomain.to_real(y).numpy(), atol=1e-13, btol=1e-13)[0]
    np.testing.assert_allclose(ours.value.numpy(), theirs, atol=1e-8)


def test_importing_the_catalogue_imports_nothing_slow():
    import subprocess
    import sys

    code = (
        "import sys, invlearn.physics; "
        "slow = ('scipy.sparse.linalg', 'sigpy', 'numba', 'jax', 'matplotlib', 'torch._dynamo'); "
        "print([m for m in slow if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_results_follow_the_mask():
    keep = np.array([1.0, 0.0, 1.0])
    np.testing.assert_array_equal((to_scipy(Mask(keep)) @ np.ones(3)), keep)
    np.testing.assert_array_equal(to_scipy(Dense(np.diag(keep))).matmat(np.eye(3)), np.diag(keep))
