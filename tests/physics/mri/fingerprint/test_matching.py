from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from invlearn.physics.mri.bloch import crb, simulate
from invlearn.physics.mri.fingerprint import matching

MAPS = ("t1", "t2", "pd", "b1", "t1_sd", "t2_sd", "pd_sd", "correlation", "residual")


def coefficients(dictionary, t1, t2, pd, b1=None):
    """`(K, n)` of exactly simulated voxels."""
    return (pd[..., None] * dictionary.compress(simulate(dictionary.sequence, t1, t2, b1))).movedim(-1, 0)


@pytest.fixture(scope="module")
def voxels(dictionary, tissues):
    """T1, T2, PD and coefficients of some voxels off the grid."""
    t1, t2 = tissues
    pd = torch.polar(torch.linspace(0.3, 40, len(t1), dtype=torch.float64), torch.arange(len(t1)).double())
    return t1, t2, pd, coefficients(dictionary, t1, t2, pd)


def relative(found, exact):
    return float(((found - exact) / exact).abs().max())


@pytest.mark.parametrize("refine", [True, "interpolated", "exact"])
def test_recovers_what_lies_off_the_grid(dictionary, voxels, refine):
    t1, t2, pd, x = voxels
    found = dictionary.match(x, refine=refine)
    limit = 1e-9 if refine == "exact" else 1e-4
    assert relative(found.t1, t1) < limit
    assert relative(found.t2, t2) < limit
    assert relative(found.pd, pd) < limit
    assert float(found.residual.max()) < 2e-5
    assert_close(found.correlation, torch.ones_like(t1), atol=1e-9, rtol=0)


def test_interpolation_differs_from_simulation_by_far_less_than_the_bound(dictionary, voxels):
    _t1, _t2, pd, x = voxels
    g = torch.Generator().manual_seed(0)
    sigma = 0.01
    x = x / pd + sigma * torch.randn(x.shape, dtype=torch.complex128, generator=g) * 2**0.5
    fast, exact = (dictionary.match(x, refine=how, noise=sigma) for how in ("interpolated", "exact"))
    for name in ("t1", "t2"):
        gap = (getattr(fast, name) - getattr(exact, name)).abs()
        assert float((gap / getattr(exact, f"{name}_sd")).max()) < 1e-2
        assert_close(getattr(fast, f"{name}_sd"), getattr(exact, f"{name}_sd"), rtol=1e-2, atol=0)


def test_without_refinement_it_is_the_best_atom(dictionary, voxels):
    *_, x = voxels
    found = dictionary.match(x, refine=False)
    unit = dictionary.atoms / torch.linalg.vector_norm(dictionary.atoms, dim=1, keepdim=True)
    best = (unit.to(x.dtype) @ x).abs().argmax(0)
    assert_close(torch.stack([found.t1, found.t2, found.b1], 1), dictionary.parameters[best])
    atom = dictionary.atoms[best].to(x.dtype)
    pd = (atom * x.T).sum(1) / atom.abs().square().sum(1) / dictionary.phase
    assert_close(found.pd, pd)
    refined = dictionary.match(x)
    assert bool((refined.residual < found.residual).all())


def test_standard_errors_are_the_cramer_rao_bound(complete, tissues):
    t1, t2 = tissues
    x = coefficients(complete, t1, t2, torch.ones(len(t1), dtype=torch.complex128))
    found = complete.match(x, noise=1.0)
    bound = crb(complete.sequence, t1, t2)
    assert_close(torch.stack([found.pd_sd, found.t1_sd, found.t2_sd], 1), bound, rtol=2e-3, atol=0)


def test_a_subspace_loses_information(dictionary, complete, tissues):
    t1, t2 = tissues
    one = torch.ones(len(t1), dtype=torch.complex128)
    some, all_ = (d.match(coefficients(d, t1, t2, one), noise=1.0) for d in (dictionary, complete))
    assert bool((some.t2_sd > all_.t2_sd * (1 - 1e-3)).all())


def test_standard_errors_are_the_spread_of_repeated_measurements(dictionary, voxels):
    _t1, t2, pd, x = voxels
    voxel, repeats, sigma = 1, 2000, 0.002
    g = torch.Generator().manual_seed(0)
    noise = torch.randn(len(x), repeats, dtype=torch.complex128, generator=g) * 2**0.5 * sigma
    x = (x / pd)[:, voxel : voxel + 1] + noise
    found = dictionary.match(x, noise=sigma)
    for name in ("t1", "t2"):
        spread, reported = getattr(found, name).std(), getattr(found, f"{name}_sd").mean()
        assert float(spread / reported) == pytest.approx(1, abs=0.08)  # five of its own deviations
    assert float(found.pd.abs().std() / found.pd_sd.mean()) == pytest.approx(1, abs=0.08)
    bias = (found.t2.mean() - t2[voxel]) / found.t2.std()
    assert abs(float(bias)) < 0.15
    # without `noise`, the residual tells it: 2K - 4 degrees of freedom a voxel
    estimated = dictionary.match(x)
    ratio = (estimated.t2_sd / estimated.t2).square().mean() / (found.t2_sd / found.t2).square().mean()
    assert float(ratio) == pytest.approx(1, abs=0.1)


def test_noise_scales_the_standard_errors(dictionary, voxels):
    *_, x = voxels
    noise = torch.linspace(0.1, 1, x.shape[1], dtype=torch.float64)
    one, mapped = dictionary.match(x, noise=1.0), dictionary.match(x, noise=noise)
    for name in ("t1_sd", "t2_sd", "pd_sd"):
        assert_close(getattr(mapped, name), noise * getattr(one, name))


def test_known_b1(with_b1):
    t1, t2, b1 = torch.tensor([[0.9, 1.4, 0.7], [0.09, 0.21, 0.3], [0.87, 1.12, 1.0]], dtype=torch.float64)
    pd = torch.tensor([1 + 1j, 2.0, -3j], dtype=torch.complex128)
    x = coefficients(with_b1, t1, t2, pd, b1)
    found = with_b1.match(x, b1=b1)
    assert_close(found.b1, b1)
    assert relative(found.t1, t1) < 5e-4
    assert relative(found.t2, t2) < 5e-4
    assert relative(with_b1.match(x, b1=1.0).t2, t2) > 0.02  # a wrong B1 biases T2
    bound = crb(with_b1.sequence, t1, t2, b1) / pd.abs()[:, None]
    known = with_b1.match(x, b1=b1, noise=1.0)
    assert_close(torch.stack([known.t1_sd, known.t2_sd], 1), bound[:, 1:], rtol=0.15, atol=0)


def test_unknown_b1_is_fitted_at_a_price(with_b1):
    t1, t2, b1 = torch.tensor([[0.9, 1.4], [0.09, 0.21], [0.92, 1.08]], dtype=torch.float64)
    x = coefficients(with_b1, t1, t2, torch.ones(2, dtype=torch.complex128), b1)
    found = with_b1.match(x, noise=1.0)
    assert_close(found.b1, b1, atol=2e-3, rtol=0)
    assert relative(found.t1, t1) < 2e-3
    known = with_b1.match(x, b1=b1, noise=1.0)
    assert bool((found.t1_sd > known.t1_sd).all())


def test_mask_and_voxels_without_signal(dictionary, voxels):
    t1, _, _, x = voxels
    x = x.clone()
    x[:, 2] = 0
    mask = torch.ones(x.shape[1], dtype=torch.bool)
    mask[0] = False
    found = dictionary.match(x, mask=mask)
    assert found.mask.tolist() == [False, True, False, True, True, True, True]
    for name in MAPS:
        assert not getattr(found, name)[~found.mask].any()
    assert relative(found.t1[found.mask], t1[found.mask]) < 1e-4
    nothing = dictionary.match(torch.zeros_like(x))
    assert nothing.to_dict()["voxels"] == 0
    assert nothing.to_dict()["median_t1"] is None


def test_images_precision_and_numpy(dictionary, voxels):
    t1, *_, x = voxels
    image = x[:, :6].reshape(6, 2, 1, 3)
    found = dictionary.match(image.numpy().astype(np.complex64))
    assert found.t1.shape == (2, 1, 3)
    assert found.t1.dtype == np.float32
    assert found.pd.dtype == np.complex64
    np.testing.assert_allclose(found.t1.ravel(), t1[:6].numpy(), rtol=1e-4)
    assert dictionary.match(image).t1.dtype == torch.float64


def test_real_coefficients_of_real_atoms(dictionary):
    found = dictionary.match(dictionary.atoms[30:32].T, refine=False)
    assert_close(found.t1, dictionary.parameters[30:32, 0])
    assert_close(found.pd * dictionary.phase, torch.ones(2, dtype=torch.complex128))


def test_the_unit_of_the_data_does_not_matter(dictionary, voxels):
    *_, x = voxels
    one, small = dictionary.match(x), dictionary.match(1e-7 * x)
    assert_close(small.t2, one.t2)
    assert_close(small.pd, 1e-7 * one.pd)


def test_voxels_are_fitted_in_chunks(dictionary, voxels, monkeypatch):
    *_, x = voxels
    whole = dictionary.match(x)
    monkeypatch.setattr(matching, "_CHUNK", 2)
    assert_close(dictionary.match(x).t2, whole.t2)


def test_too_few_coefficients_leave_no_noise_estimate(short, grid):
    from invlearn.physics.mri import Dictionary

    two = Dictionary.build(short, grid, rank=2)
    found = two.match(two.atoms[:5].T.to(torch.complex64))
    assert bool(found.t1_sd.isnan().all())
    json.dumps(found.to_dict(), allow_nan=False)


def test_summary(dictionary, voxels):
    *_, x = voxels
    found = dictionary.match(x)
    summary = found.to_dict()
    assert summary["voxels"] == x.shape[1]
    assert summary["median_t2"] == pytest.approx(float(found.t2.median()))
    assert summary["median_pd"] == pytest.approx(float(found.pd.abs().median()))
    assert set(summary) == {"voxels", *(f"median_{name}" for name in MAPS)}


NAN = float("nan")


@pytest.mark.parametrize(
    ("x", "arguments", "message"),
    [
        (torch.ones(5, 3), {}, r"expects coefficients \(K, \*image\) with K = 6"),
        (torch.ones(6), {}, "expects coefficients"),
        (torch.full((6, 3), NAN), {}, "NaN"),
        (torch.ones(6, 3), {"mask": torch.ones(4)}, r"mask must be \(3,\)"),
        (torch.ones(6, 3), {"mask": torch.full((3,), 0.5)}, "only 0 and 1"),
        (torch.ones(6, 3), {"noise": torch.ones(4)}, r"noise must be a number or a map \(3,\)"),
        (torch.ones(6, 3), {"noise": -1.0}, "standard deviation"),
        (torch.ones(6, 3), {"noise": NAN}, "NaN"),
        (torch.ones(6, 3), {"b1": 1.0}, "needs a dictionary with a B1 axis"),
        (torch.ones(6, 3), {"refine": "quickly"}, "refine is True, False"),
    ],
)
def test_bad_input(dictionary, x, arguments, message):
    with pytest.raises(ValueError, match=message):
        dictionary.match(x, **arguments)


def test_bad_b1_and_dtype(dictionary, with_b1):
    with pytest.raises(
        ValueError, match=r"b1 runs from 0.5 to 0.5 inside the mask, the dictionary from 0.85"
    ):
        with_b1.match(torch.ones(8, 3), b1=0.5)
    with pytest.raises(TypeError, match="float16"):
        dictionary.match(torch.ones(6, 3, dtype=torch.float16))
