from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from invlearn.identifiability.splitting import bernoulli_splits, check_splitting
from invlearn.physics.linear.dense import Dense
from invlearn.physics.linear.mask import Mask


def mask(*kept: int, n: int = 4) -> np.ndarray:
    return np.isin(np.arange(n), kept)


def rows(m: np.ndarray) -> np.ndarray:
    return np.eye(m.size)[m.ravel()]


def test_all_of_the_signal_in_every_target_satisfies_everything() -> None:
    report = check_splitting([(mask(0), mask(0, 1, 2, 3)), (mask(1), mask(0, 1, 2, 3))])
    assert report.holds
    assert report.holds_noise_free
    assert all(c.holds and c.failing_probability == 0 for c in report.conditions)
    assert report["S1"].smallest == 1.0
    assert report.inputs == 2
    assert report.uncovered.sum() == 0


def test_one_complement_per_input_needs_the_data_it_saw() -> None:
    # The usual split of a full measurement: the other half is the target.
    report = check_splitting([(mask(0, 1), mask(2, 3)), (mask(2, 3), mask(0, 1))])
    assert not report.holds
    assert report["S1"].actual == 2
    assert report["S1"].failing_probability == 1.0
    assert report.holds_noise_free
    assert report["S2"].holds  # on average over A_a everything is tested
    assert report["S3"].holds


def test_targets_are_averaged_per_input_and_not_over_all() -> None:
    # Entry 3 is tested, but never when A_a sees entry 0.
    splits = [(mask(0), mask(0, 1)), (mask(0), mask(1, 2)), (mask(1), mask(0, 1, 2, 3))]
    report = check_splitting(splits)
    assert report.inputs == 2
    assert report["S2"].holds
    assert not report.holds
    assert not report.holds_noise_free
    assert report.worst_split == 0
    assert report["S1"].actual == 3
    assert report["S1"].failing_probability == pytest.approx(2 / 3)
    np.testing.assert_array_equal(report.uncovered, [0, 0, 0, 1])


def test_an_entry_that_is_never_measured_fails_every_condition() -> None:
    report = check_splitting([(mask(0), mask(1, 2)), (mask(1), mask(0, 2))])
    assert [c.id for c in report.conditions] == ["S1", "S1-complement", "S2", "S3"]
    assert not any(c.holds for c in report.conditions)
    assert report["S3"].actual == 3


def test_what_the_input_saw_counts_only_without_noise_and_in_s3() -> None:
    report = check_splitting([(mask(0), mask(1, 2, 3))])
    assert not report["S1"].holds
    assert not report["S2"].holds
    assert report["S1-complement"].holds
    assert report["S3"].holds


def test_weights_decide_what_occurs_and_how_often() -> None:
    splits = [(mask(0), mask(0, 1, 2, 3)), (mask(1), mask(0, 1, 2))]
    assert check_splitting(splits, weights=[3.0, 1.0])["S1"].failing_probability == pytest.approx(0.25)
    assert check_splitting(splits, weights=[1.0, 0.0]).holds
    uneven = [(mask(0), mask(0, 1)), (mask(0), mask(2, 3))]
    assert check_splitting(uneven, weights=[9.0, 1.0])["S1"].smallest == pytest.approx(1 / 9)


def test_masks_operators_and_matrices_agree() -> None:
    rng = np.random.default_rng(0)
    splits = []
    for _ in range(6):
        m = rng.random((3, 4)) < 0.8
        a = m & (rng.random((3, 4)) < 0.5)
        splits.append((a, m & ~a))
    reference = check_splitting(splits).to_dict()
    for convert in (lambda m: Mask(torch.from_numpy(m)), rows, lambda m: Dense(rows(m), shape=(3, 4))):
        found = check_splitting([(convert(a), convert(b)) for a, b in splits]).to_dict()
        for mine, theirs in zip(found["conditions"], reference["conditions"], strict=True):
            assert mine["actual"] == theirs["actual"]
            assert mine["smallest"] == pytest.approx(theirs["smallest"], abs=1e-12)
        np.testing.assert_allclose(found["uncovered"], reference["uncovered"], atol=1e-12)


def test_dense_ranks_and_uncovered_direction() -> None:
    rng = np.random.default_rng(1)
    a, direction = rng.standard_normal((1, 5)), np.array([3.0, 4, 0, 0, 0]) / 5
    blind = np.eye(5) - np.outer(direction, direction)
    splits = [(a, blind[i : i + 2]) for i in range(0, 5, 1)]
    report = check_splitting(splits)
    assert report.inputs == 1
    assert report["S1"].actual == 4
    np.testing.assert_allclose(report.uncovered, direction**2, atol=1e-12)
    assert report["S1-complement"].holds  # the row of A_a sees that direction
    complex_report = check_splitting([(a + 0j, 1j * b) for a, b in splits])
    assert complex_report["S1"].actual == 4
    np.testing.assert_allclose(complex_report.uncovered, direction**2, atol=1e-12)


def test_inputs_that_differ_by_rounding_are_one_and_by_phase_two() -> None:
    a = np.array([[1.0, 1 / 3, 0.2]])
    nearly = a * (1 + 1e-15)
    full = np.eye(3)
    assert check_splitting([(a, full[:2]), (nearly, full[1:])]).holds
    assert not check_splitting([(a, full[:2]), (-a, full[1:])]).holds
    # Equal A^H A is not enough to be the same input to a network.
    m = Mask(torch.tensor([1.0, 0, 1]))
    assert check_splitting([(m, m), (-1 * m, m)]).inputs == 2
    assert check_splitting([(m, m), (1 * m, m)]).inputs <= 2


def test_many_targets_are_compressed_without_loss() -> None:
    rng = np.random.default_rng(2)
    a = rng.standard_normal((2, 6))
    splits = [(a, rng.standard_normal((2, 6))) for _ in range(30)]
    mean = sum(b.T @ b for _, b in splits)
    values = np.linalg.eigvalsh(mean)
    assert check_splitting(splits)["S1"].smallest == pytest.approx(values[0] / values[-1], rel=1e-10)


def test_fourier_diagonal_operators_are_exact() -> None:
    from invlearn.physics.mri.cartesian import CartesianMRI

    lines = np.zeros((2, 6, 6), dtype=bool)
    lines[0, ::2], lines[1, 1::2] = True, True
    a, b = (CartesianMRI(torch.from_numpy(m)) for m in lines)
    report = check_splitting([(a, b)])
    assert report["S1"].actual == 18
    assert report.holds_noise_free


def test_plain_json_and_unknown_condition() -> None:
    report = check_splitting([(mask(0), mask(1, 2, 3))])
    found = json.loads(json.dumps(report.to_dict()))
    assert found["conditions"][0]["source"]
    assert found["uncovered"] == [1.0, 0.0, 0.0, 0.0]
    with pytest.raises(KeyError, match="no condition 'S9'"):
        report["S9"]


@pytest.mark.parametrize(
    ("splits", "weights", "message"),
    [
        ([], None, "no splits"),
        ([(mask(0),)], None, "split 0 must be a pair"),
        ([(mask(0), mask(0, n=5))], None, "A_b of split 0 is a mask on 5 entries"),
        ([(mask(0), np.eye(4))], None, "all must act on one domain and be of one kind"),
        ([(mask(0), np.array(["x"]))], None, "A_b of split 0 must be a LinearOperator"),
        ([(np.full((2, 3), np.nan), np.eye(3))], None, "A_a of split 0 has NaN"),
        ([(mask(0), mask(1))], [1.0, 2.0], "weights must be 1 numbers"),
        ([(mask(0), mask(1))], [-1.0], "weights must be 1 numbers"),
        ([(mask(0), mask(1))], [0.0], "not all zero"),
        ([(mask(0), mask(1))], [np.nan], "weights must be 1 numbers"),
    ],
)
def test_bad_splits(splits: list, weights: list | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_splitting(splits, weights)


# Random splits.


def test_bernoulli_conditional_mean_matches_enumeration() -> None:
    masks = np.array([[1, 1, 1, 0], [0, 1, 1, 1], [1, 1, 0, 0]])
    keep, prior = 0.4, np.array([0.5, 0.3, 0.2])
    splits, weights = bernoulli_splits(masks, keep, 40, seed=1, weights=prior)
    assert weights.sum() == pytest.approx(1)
    posterior: dict[bytes, np.ndarray] = {}
    chance: dict[bytes, float] = {}
    for a in np.ndindex(2, 2, 2, 2):
        inside = np.array(a, dtype=bool)
        for m, p in zip(masks.astype(bool), prior, strict=True):
            if (inside & ~m).any():
                continue
            joint = p * keep ** inside.sum() * (1 - keep) ** (m.sum() - inside.sum())
            key = inside.tobytes()
            posterior[key] = posterior.get(key, 0) + joint * (m & ~inside)
            chance[key] = chance.get(key, 0) + joint
    for key in {a.tobytes() for a, _ in splits}:
        mine = sum(w * b for (a, b), w in zip(splits, weights, strict=True) if a.tobytes() == key)
        total = sum(w for (a, _), w in zip(splits, weights, strict=True) if a.tobytes() == key)
        np.testing.assert_allclose(mine / total, posterior[key] / chance[key], atol=1e-12)


def test_many_overlapping_masks_pass_and_one_mask_does_not() -> None:
    rng = np.random.default_rng(0)
    masks = rng.random((400, 2, 4)) < 0.6
    one = check_splitting(*bernoulli_splits(masks[:1], 0.3, 20))
    many = check_splitting(*bernoulli_splits(masks, 0.3, 20))
    assert not one.holds_noise_free
    assert many["S2"].holds
    assert many["S1-complement"].failing_probability < 0.5
    assert not many.holds  # what is in A_a is never in A_b


@given(keep=st.floats(0.05, 0.95), draws=st.integers(1, 5), seed=st.integers(0, 50))
def test_halves_partition_a_mask(keep: float, draws: int, seed: int) -> None:
    masks = np.random.default_rng(seed).random((3, 2, 3)) < 0.7
    splits, weights = bernoulli_splits(torch.from_numpy(masks), keep, draws, seed=seed)
    assert len(splits) == len(weights) >= draws
    assert weights.sum() == pytest.approx(1)
    for a, b in splits:
        assert not (a & b).any()
        assert any(np.array_equal(a | b, m) for m in masks)


def test_keep_draws_and_seed_count() -> None:
    masks = np.ones((1, 400))
    kept = [np.mean([a.mean() for a, _ in bernoulli_splits(masks, p, 5)[0]]) for p in (0.2, 0.7)]
    assert kept == pytest.approx([0.2, 0.7], abs=0.05)
    assert len(bernoulli_splits(masks, 0.5, 7)[0]) == 7
    first, second = (bernoulli_splits(masks, 0.5, 1, seed=s)[0][0][0] for s in (0, 1))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize(
    ("masks", "kwargs", "message"),
    [
        (np.full((2, 3), 2), {}, "masks must be"),
        (np.ones(3), {}, "masks must be"),
        (np.ones((2, 3)), {"keep": 1.0}, "strictly between 0 and 1"),
        (np.ones((2, 3)), {"draws": 0}, "draws 1 or more"),
        (np.ones((2, 3)), {"weights": [1.0]}, "weights must be 2 numbers"),
    ],
)
def test_bad_masks(masks: np.ndarray, kwargs: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bernoulli_splits(masks, **{"keep": 0.5, "draws": 3, **kwargs})
