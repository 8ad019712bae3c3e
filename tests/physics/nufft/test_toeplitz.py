"""AᴴWA by convolution, against the matrices."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from invlearn.physics.nufft import NonUniformFFT, apply_toeplitz, toeplitz, toeplitz_kernel


def numbers(*size, seed=0, dtype=torch.complex128):
    return torch.randn(*size, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def weighted_normal(matrix):
    """weighted_normal(k, shape, w, x): AᴴWA x by the matrix of the direct sum."""

    def apply(k, shape, w, x):
        a = matrix(k, shape)
        return (a.mH @ (w[..., None] * (a @ x.flatten(-len(shape))[..., None])))[..., 0].unflatten(-1, shape)

    return apply


@pytest.mark.parametrize("shape", [(17,), (7, 8), (13, 22), (4, 5, 6)])
@pytest.mark.parametrize("cplx", [False, True])
def test_it_is_the_weighted_normal_operator(weighted_normal, shape, cplx, points, error):
    k, x = points(40, len(shape)), numbers(3, *shape)
    w = numbers(40, dtype=torch.complex128 if cplx else torch.float64)
    kernel = toeplitz_kernel(k, shape, w)
    assert kernel.is_complex() == cplx
    exact = weighted_normal(k, shape, w, x)
    assert error(apply_toeplitz(kernel, x), exact) <= 1e-8
    assert error(apply_toeplitz(kernel, x.to(torch.complex64)), exact) <= 1e-6


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_the_operator_s_normal_is_better_than_its_transforms(weighted_normal, dtype, points, error):
    k, shape = points(300, 2), (30, 27)
    transform, x = NonUniformFFT(k, shape, eps=1e-2), numbers(2, *shape)
    exact = weighted_normal(k, shape, torch.ones(300), x)
    assert error(transform.normal(x.to(dtype)), exact) <= 1e-6
    assert transform.normal(x.to(dtype)).dtype == dtype


def test_weights_default_to_one(points):
    k = points(40, 2)
    assert torch.equal(toeplitz_kernel(k, (6, 7)), toeplitz_kernel(k, (6, 7), torch.ones(40)))


def test_accuracy_and_backend_of_the_kernel(points, error):
    k = points(40, 2)
    best = toeplitz_kernel(k, (6, 7), eps=1e-12)
    assert error(toeplitz_kernel(k, (6, 7), eps=1e-12, backend="torch"), best) < 1e-11
    assert not torch.equal(toeplitz_kernel(k, (6, 7), backend="torch"), toeplitz_kernel(k, (6, 7)))
    rough = error(toeplitz_kernel(k, (6, 7), eps=1e-3), best)
    assert 1e-6 < rough < 1e-3


@pytest.mark.parametrize("shape", [(7,), (5, 8), (3, 4, 5)])
def test_leading_axes_of_kernel_and_images(weighted_normal, shape, points, error):
    k, w = points(40, len(shape)), numbers(2, 3, 40)
    kernel = toeplitz_kernel(k, shape, w)
    assert kernel.shape == (2, 3, *(2 * n for n in shape))
    x = numbers(4, 2, 3, *shape)
    assert error(apply_toeplitz(kernel, x), weighted_normal(k, shape, w, x)) < 1e-8
    assert_close(apply_toeplitz(kernel, x[0]), apply_toeplitz(kernel, x)[0])


@pytest.mark.parametrize("shape", [(7,), (5, 8), (3, 4, 5)])
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_subspace_normal_operator(matrix, shape, dtype, points, error):
    # y_k = sum over frames n of φ_k(n)* A_nᴴ A_n (sum_l φ_l(n) x_l), as it is written
    k, basis = points(40, len(shape)), numbers(3, 40)
    weights = basis.conj()[:, None] * basis
    x = numbers(2, 3, *shape)
    a = matrix(k, shape)
    samples = (basis * (a @ x.flatten(-len(shape))[..., None])[..., 0]).sum(-2, keepdim=True)
    exact = (a.mH @ (basis.conj() * samples)[..., None])[..., 0].unflatten(-1, shape)
    kernel = toeplitz_kernel(k, shape, weights)
    assert error(apply_toeplitz(kernel, x.to(dtype), mixing=True), exact) < (
        1e-6 if dtype == torch.complex64 else 1e-8
    )
    # half of it is enough: exchanging k and l conjugates
    assert_close(kernel.transpose(0, 1), kernel.conj())
    one = apply_toeplitz(kernel, x[0].to(dtype), mixing=True)
    assert_close(one, apply_toeplitz(kernel, x.to(dtype), mixing=True)[0], rtol=1e-5, atol=1e-4)


def test_several_trajectories(weighted_normal, points, error):
    k, w, x = points(3, 40, 2), numbers(2, 3, 40), numbers(2, 3, 5, 8)
    kernel = toeplitz_kernel(k, (5, 8), w)
    assert kernel.shape == (2, 3, 10, 16)
    assert error(apply_toeplitz(kernel, x), weighted_normal(k, (5, 8), w, x)) < 1e-8
    assert_close(toeplitz_kernel(k, (5, 8))[1], toeplitz_kernel(k[1], (5, 8)))


def test_mixing_is_not_the_plain_product(points):
    kernel = toeplitz_kernel(points(40, 2), (5, 6), numbers(2, 2, 40))
    x = numbers(2, 2, 5, 6)
    assert not torch.allclose(apply_toeplitz(kernel, x), apply_toeplitz(kernel, x, mixing=True))


@pytest.mark.parametrize("mixing", [False, True])
def test_derivatives(mixing, points):
    kernel = toeplitz_kernel(points(40, 2), (4, 5), numbers(2, 2, 40))
    x = numbers(3, 2, 2, 4, 5).requires_grad_()

    def call(x):
        return apply_toeplitz(kernel, x, mixing=mixing)

    assert torch.autograd.gradcheck(call, (x,), check_forward_ad=True, fast_mode=True)
    assert torch.autograd.gradgradcheck(call, (x,), fast_mode=True)


def test_the_answer_does_not_depend_on_the_chunk(points, monkeypatch):
    k, x = points(40, 2), numbers(5, 2, 2, 6, 7)
    kernel = toeplitz_kernel(k, (6, 7), numbers(2, 2, 40))
    whole = apply_toeplitz(kernel, x), apply_toeplitz(kernel, x, mixing=True)
    monkeypatch.setitem(toeplitz._CHUNK, "cpu", 3 * 12 * 14 * 16)
    assert_close(apply_toeplitz(kernel, x), whole[0])
    assert_close(apply_toeplitz(kernel, x, mixing=True), whole[1])


def test_kernels_are_laid_out_to_be_read_without_a_copy(points):
    for shape in ((6, 7), (3, 4, 5)):
        kernel = toeplitz_kernel(points(40, len(shape)), shape, torch.ones(2, 40))
        for form in (kernel, kernel.to(torch.float32), toeplitz.as_laid_out(kernel.clone(), len(shape))):
            assert toeplitz._as_read(form, len(shape)).is_contiguous()


def test_gradients_of_normal(points):
    transform = NonUniformFFT(points(30, 2), (4, 5), eps=1e-12)
    x = numbers(4, 5).requires_grad_()
    (g,) = torch.autograd.grad((transform.normal(x).conj() * x).sum().real, x)
    assert_close(g, 2 * transform.normal(x.detach()))


def test_empty_batch_and_meta(points):
    kernel = toeplitz_kernel(points(40, 2), (6, 7))
    assert apply_toeplitz(kernel, numbers(0, 6, 7)).shape == (0, 6, 7)
    there = apply_toeplitz(kernel.to("meta"), numbers(2, 6, 7).to("meta"))
    assert (there.shape, there.device.type) == ((2, 6, 7), "meta")


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda k: toeplitz_kernel(k[None], (6, 7), torch.ones(40)), ValueError, r"\(\*batch, 1, 40\)"),
        (lambda k: toeplitz_kernel(k, (6, 7), torch.ones(39)), ValueError, r"\(\*batch, 40\).*got \(39,\)"),
        (lambda k: toeplitz_kernel(k, (6, 7), torch.tensor(1.0)), ValueError, r"got \(\)"),
        (lambda k: toeplitz_kernel(k, (6, 7), torch.full((40,), torch.nan)), ValueError, "NaN"),
        (lambda k: toeplitz_kernel(k, (6,)), ValueError, "1 axes.*2 coordinates"),
        (lambda k: toeplitz_kernel(k, (6, 7), eps=2.0), ValueError, "eps=2.0"),
        (lambda k: apply_toeplitz(toeplitz_kernel(k, (6, 7)), torch.ones(6, 7)), TypeError, "complex images"),
        (lambda k: apply_toeplitz(toeplitz_kernel(k, (6, 7)), numbers(6, 8)), ValueError, "does not fit"),
        (
            lambda k: apply_toeplitz(toeplitz_kernel(k, (6, 7), torch.ones(2, 40)), numbers(3, 6, 7)),
            ValueError,
            "does not fit",
        ),
        (
            lambda k: apply_toeplitz(toeplitz_kernel(k, (6, 7)), numbers(2, 6, 7), mixing=True),
            ValueError,
            r"expected \(K, K, \*grid\)",
        ),
        (
            lambda k: apply_toeplitz(toeplitz_kernel(k, (6, 7)).requires_grad_(), numbers(6, 7)),
            ValueError,
            "no gradient in its kernel",
        ),
    ],
)
def test_bad_input(make, kind, message, points):
    with pytest.raises(kind, match=message) as caught:
        make(points(40, 2))
    assert "\n" not in str(caught.value)


def test_more_kernels_than_memory_are_refused_with_the_size(points, monkeypatch):
    monkeypatch.setattr(toeplitz, "memory_limit", lambda: 100_000)
    toeplitz_kernel(points(40, 2), (6, 7), torch.ones(18, 40))
    with pytest.raises(ValueError, match=r"19 kernels on a grid of \(12, 14\) need 102\.1 kB, more than"):
        toeplitz_kernel(points(40, 2), (6, 7), torch.ones(19, 40))
