"""From k-space to maps: accuracy on a phantom, honest error bars, scans of other programs, bad input."""

from __future__ import annotations

import dataclasses
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from invlearn.io import Scan, read_scan
from invlearn.io.maps import TissueMaps
from invlearn.physics.mri import FingerprintSequence, trajectories
from invlearn.physics.mri.fingerprint import Dictionary, Grid
from invlearn.physics.mri.fingerprint.evaluate import Evaluation, evaluate_maps
from invlearn.physics.mri.fingerprint.simulate import birdcage_maps, simulate_scan
from invlearn.training import save_network
from invlearn.unrolled import FingerprintMaps, PGDNet, reconstruct_fingerprints, subspace
from invlearn.unrolled import fingerprinting as module
from invlearn.unrolled.fingerprinting import sequence_of
from invlearn.unrolled.subspace import LowRank, Subspace

FOREIGN = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "foreign_scan.py"))
SIZE, FRAMES = 48, 100


def labels() -> np.ndarray:
    """0 air, 1 a rim, 2 the inside, 3 a cavity."""
    y, x = (np.mgrid[:SIZE, :SIZE] + 0.5) / SIZE * 2 - 1
    r = np.hypot(x, 1.1 * y)
    return (r < 0.85).astype(int) + (r < 0.7) + ((np.hypot(x - 0.2, y) < 0.3) & (r < 0.7))


def phantom() -> TissueMaps:
    """Off-grid values that drift over the image."""
    y, x = (np.mgrid[:SIZE, :SIZE] + 0.5) / SIZE * 2 - 1
    t1 = np.array([0, 1.3, 0.8, 2.5])[labels()] * (1 + 0.05 * x)
    t2 = np.array([0, 0.1, 0.07, 0.3])[labels()] * (1 + 0.05 * y)
    return TissueMaps(t1, t2, np.array([0, 0.85, 0.7, 1])[labels()])


CORE = (labels() == 1) | (labels() == 2)
TRUTH = phantom()


@pytest.fixture(scope="module")
def sequence() -> FingerprintSequence:
    return FingerprintSequence.default(FRAMES)


@pytest.fixture(scope="module")
def dictionary(sequence: FingerprintSequence) -> Dictionary:
    return Dictionary.build(sequence, Grid.logarithmic((0.2, 4.0), (0.02, 1.0), step=0.15), rank=7)


def arms() -> np.ndarray:
    return trajectories.spiral(FRAMES, 400, (SIZE, SIZE), interleaves=12, golden_angle=True).numpy()


@pytest.fixture(scope="module")
def scan(sequence: FingerprintSequence) -> Scan:
    return simulate_scan(TRUTH, sequence, arms(), snr=30.0)


def errors(maps: FingerprintMaps) -> Evaluation:
    return evaluate_maps(maps.t1, maps.t2, maps.pd, TRUTH, CORE)


def medians(maps: FingerprintMaps) -> tuple[float, float, float]:
    found = errors(maps)
    return tuple(getattr(found, name).median_relative_error for name in ("t1", "t2", "pd"))  # type: ignore[return-value]


@pytest.fixture(scope="module")
def best(scan: Scan, dictionary: Dictionary) -> FingerprintMaps:
    return reconstruct_fingerprints(scan, dictionary=dictionary)


def test_the_default_is_accurate(best: FingerprintMaps) -> None:
    t1, t2, pd = medians(best)
    assert t1 < 0.006
    assert t2 < 0.015
    assert pd < 0.01
    assert best.settings["method"] == "subspace"
    assert best.converged
    assert best.t1.shape == best.pd.shape == (SIZE, SIZE)
    assert np.iscomplexobj(best.pd)


def test_the_methods_from_the_worst_to_the_best(
    scan: Scan, dictionary: Dictionary, best: FingerprintMaps
) -> None:
    adjoint = reconstruct_fingerprints(scan, "adjoint", dictionary=dictionary)
    blocks = reconstruct_fingerprints(scan, LowRank(iterations=20, shifts=1), dictionary=dictionary)
    for name in (0, 1):
        assert medians(best)[name] < 0.5 * medians(adjoint)[name]
        assert medians(blocks)[name] < medians(adjoint)[name]
    assert best.residual < adjoint.residual


def test_standard_errors_cover_the_truth(best: FingerprintMaps) -> None:
    # the bound of an estimate without regularisation: conservative inside tissue
    inner = CORE & (np.roll(CORE, 1, 0) & np.roll(CORE, -1, 0) & np.roll(CORE, 1, 1) & np.roll(CORE, -1, 1))
    for name in ("t1", "t2"):
        error = abs(getattr(best, name) - getattr(TRUTH, name))[inner]
        sd = getattr(best, f"{name}_sd")[inner]
        assert np.mean(error < 1.96 * sd) > 0.7
        assert np.median(sd) < 3 * np.median(error)


def test_noise_and_residual_are_those_of_the_data(best: FingerprintMaps, scan: Scan) -> None:
    noise = np.sqrt(np.mean(abs(scan.kspace) ** 2)) * 10**-1.5
    assert best.noise == pytest.approx(noise, rel=0.3)
    assert best.residual == pytest.approx(10**-1.5, rel=0.3)


def test_standard_errors_are_those_of_plain_least_squares(
    sequence: FingerprintSequence, dictionary: Dictionary, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four noises, no regularisation, known coils: their spread is the standard error that each states."""
    monkeypatch.setattr(subspace, "_FIRST_TOLERANCE", 1e-3)
    clean, coil_maps = simulate_scan(TRUTH, sequence, arms()), birdcage_maps(8, (SIZE, SIZE))
    rng, found = np.random.default_rng(0), []
    for _ in range(4):
        noise = 0.05 * (rng.standard_normal((*clean.kspace.shape, 2)) @ [1, 1j])
        noisy = dataclasses.replace(clean, kspace=clean.kspace + noise)
        found.append(
            reconstruct_fingerprints(noisy, Subspace(weight=0.0), dictionary=dictionary, coil_maps=coil_maps)
        )
    for name in ("t1", "t2", "pd"):
        spread = np.std([abs(getattr(maps, name)) for maps in found], axis=0, ddof=1)[CORE]
        stated = getattr(found[0], f"{name}_sd")[CORE]
        assert 0.65 < np.median(spread / stated) < 1.4


def test_given_coil_maps_are_used(scan: Scan, dictionary: Dictionary, best: FingerprintMaps) -> None:
    true = birdcage_maps(8, (SIZE, SIZE))
    maps = reconstruct_fingerprints(scan, dictionary=dictionary, coil_maps=true)
    np.testing.assert_array_equal(maps.coil_maps, true)
    assert medians(maps)[1] < 0.015
    assert (maps.settings["coil_maps"], best.settings["coil_maps"]) == ("given", "estimated")
    agreement = abs((best.coil_maps.conj() * true).sum(0))[TRUTH.inside]
    assert np.quantile(agreement, 0.05) > 0.99


def test_one_coil_needs_no_maps(sequence: FingerprintSequence, dictionary: Dictionary) -> None:
    flat = np.ones((1, SIZE, SIZE), np.complex64)
    scan = simulate_scan(TRUTH, sequence, arms(), coils=flat, snr=40.0)
    maps = reconstruct_fingerprints(scan, dictionary=dictionary)
    np.testing.assert_array_equal(maps.coil_maps, flat)
    assert medians(maps)[0] < 0.02


def test_the_sequence_comes_from_the_scan(scan: Scan, sequence: FingerprintSequence) -> None:
    found = sequence_of(scan)
    np.testing.assert_allclose(found.flip_angle, sequence.flip_angle)
    np.testing.assert_allclose(found.tr, sequence.tr)
    assert found.inversion_time == sequence.inversion_time
    one = sequence_of(dataclasses.replace(scan, te=np.array([0.002])))
    np.testing.assert_array_equal(one.te, np.full(FRAMES, 0.002))


def test_b1_is_corrected_when_it_is_given() -> None:
    small, frames = (slice(12, 36), slice(12, 36)), 60
    truth = TissueMaps(*(getattr(TRUTH, name)[small] for name in ("t1", "t2", "pd")))
    b1 = np.linspace(0.85, 1.1, 24)[None].repeat(24, 0)
    truth = dataclasses.replace(truth, mask=None, b1=b1)
    train = FingerprintSequence.default(frames)
    trajectory = trajectories.spiral(frames, 300, (24, 24), interleaves=6, golden_angle=True).numpy()
    scan = simulate_scan(truth, train, trajectory, snr=40.0)
    coil_maps = birdcage_maps(8, (24, 24))
    dictionary = Dictionary.build(
        train, Grid.logarithmic((0.3, 4.0), (0.03, 0.6), step=0.25, b1=[0.8, 0.95, 1.15]), rank=6
    )
    plain = Dictionary.build(train, Grid.logarithmic((0.3, 4.0), (0.03, 0.6), step=0.25), rank=6)
    found = [
        reconstruct_fingerprints(scan, dictionary=which, coil_maps=coil_maps, b1=field)
        for which, field in ((dictionary, b1), (plain, None))
    ]
    corrected, wrong = (evaluate_maps(m.t1, m.t2, m.pd, truth).t2.median_relative_error for m in found)
    assert corrected < 0.5 * wrong


def test_a_b1_map_widens_the_grid() -> None:
    grid = module._grid(module._b1_map(np.array([[0.7, 1.1], [0.0, 1.0]]), (2, 2)))
    assert float(grid.b1[0]) < 0.7 < 1.1 < float(grid.b1[-1])
    assert float(grid.b1.diff().max()) <= 0.051


def test_a_scan_of_another_program(tmp_path: Path) -> None:
    """Its own Bloch simulation, spiral, coils and noise; bare FINUFFT and ismrmrd; no header lists."""
    tissue = {name: getattr(TRUTH, name) for name in ("t1", "t2", "pd")}
    data, trajectory = FOREIGN["simulate"](tissue, FRAMES, 6, 35.0, samples=400)
    FOREIGN["write"](tmp_path / "scan.h5", data, trajectory, (SIZE, SIZE))
    FOREIGN["write_sequence"](tmp_path / "train.csv", FRAMES)
    train = FingerprintSequence.from_csv(tmp_path / "train.csv", inversion_time=FOREIGN["INVERSION_TIME"])
    scan = read_scan(tmp_path / "scan.h5")
    small = Dictionary.build(train, Grid.logarithmic((0.2, 4.0), (0.02, 1.0), step=0.15), rank=7)
    t1, t2, _ = medians(reconstruct_fingerprints(scan, dictionary=small))
    assert t1 < 0.01
    assert t2 < 0.02
    with pytest.raises(ValueError, match=r"does not say its flip_angle, tr, te; give the sequence"):
        reconstruct_fingerprints(scan)


def test_the_result_as_plain_values(best: FingerprintMaps) -> None:
    plain = best.to_dict()
    assert set(plain) == {"noise", "residual", "converged", "iterations", "settings", "residuals"}
    assert plain["settings"]["rank"] == 7
    assert len(plain["residuals"]) == plain["iterations"] + 1


def test_rank_and_progress(scan: Scan, monkeypatch: pytest.MonkeyPatch) -> None:
    coarse = Grid.logarithmic((0.3, 3.0), (0.03, 0.5), step=0.6)
    monkeypatch.setattr(module, "_grid", lambda b1: coarse)
    told: list[str] = []
    maps = reconstruct_fingerprints(scan, Subspace(weight=0.0), rank=3, progress=told.append)
    assert maps.settings["rank"] == len(maps.images) == 3
    assert told == ["simulating the dictionary", "estimating coil maps", "least squares", "matching"]
    assert reconstruct_fingerprints(scan, Subspace(weight=0.0)).settings["rank"] > 3
    with pytest.raises(ValueError, match="rank 101 is not between 1 and"):
        reconstruct_fingerprints(scan, rank=101)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "magic"}, "no method 'magic'"),
        ({"sequence": FingerprintSequence.default(FRAMES - 1)}, "the sequence has 99 frames, the scan 100"),
        ({"coil_maps": np.ones((8, 4, 4), complex)}, r"coil maps must be \(8, 48, 48\)"),
        ({"coil_maps": np.zeros((8, SIZE, SIZE), complex)}, "zero everywhere"),
        ({"coil_maps": np.full((8, SIZE, SIZE), np.nan + 0j)}, "NaN or infinite"),
        ({"b1": np.ones((4, 4))}, r"B1 map must have the image's shape \(48, 48\)"),
        ({"b1": np.full((SIZE, SIZE), np.nan)}, "B1 map has NaN"),
        ({"b1": np.full((SIZE, SIZE), 95.0)}, "percent"),
    ],
)
def test_bad_input(scan: Scan, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        reconstruct_fingerprints(scan, **change)


@pytest.fixture(scope="module")
def network(dictionary: Dictionary) -> PGDNet:
    """Before training: gradient descent with matching."""
    made = PGDNet(dictionary.sequence, dictionary.basis, dictionary.phase, width=4, levels=1)
    made.fit_decoder(atoms=3000)
    return made


def test_pgdnet_as_a_method(scan: Scan, network: PGDNet, tmp_path: Path) -> None:
    found = reconstruct_fingerprints(scan, network)
    t1, t2, pd = medians(found)  # nothing was learned yet
    assert t1 < 0.03
    assert t2 < 0.1
    assert pd < 0.05
    assert found.settings == {
        "method": "pgdnet",
        "iterations": 3,
        "rank": 7,
        "weights": "given",
        "coil_maps": "estimated",
    }
    assert (found.converged, found.iterations, len(found.residuals)) == (True, 3, 3)
    assert found.residual < 0.4
    save_network(tmp_path / "w.safetensors", network, {})
    told: list[str] = []
    again = reconstruct_fingerprints(
        scan, "pgdnet", weights=tmp_path / "w.safetensors", progress=told.append, b1=np.ones((SIZE, SIZE))
    )
    np.testing.assert_allclose(again.t1, found.t1, rtol=1e-3)
    assert told == ["estimating coil maps", "PGD-Net"]


def test_pgdnet_sees_as_few_virtual_coils_as_hold_the_energy(scan: Scan, network: PGDNet) -> None:
    """Coils that repeat others cost nothing and change nothing; maps come back for all of them."""
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(12, 12)))
    kspace = (turn[:, : scan.coils] @ scan.kspace).astype(np.complex64)
    many = dataclasses.replace(scan, kspace=kspace)
    virtual, matrix = module._virtual_coils(many.kspace, 5e-4)
    assert matrix is not None
    n = len(matrix)
    np.testing.assert_allclose(virtual, matrix.numpy() @ kspace, rtol=0, atol=1e-5 * abs(kspace).max())
    assert n <= scan.coils
    energy = np.linalg.svd(kspace, compute_uv=False) ** 2
    assert energy[n:].sum() <= 5e-4 * energy.sum() < energy[n - 1 :].sum()
    found, usual = (reconstruct_fingerprints(each, network) for each in (many, scan))
    np.testing.assert_allclose(found.t1[CORE], usual.t1[CORE], rtol=5e-3)
    assert found.coil_maps.shape == (12, SIZE, SIZE)
    given = reconstruct_fingerprints(many, network, coil_maps=found.coil_maps)
    np.testing.assert_allclose(given.t1[CORE], found.t1[CORE], rtol=1e-2)
    assert module._virtual_coils(kspace, 0.0)[1] is None
    assert module._virtual_coils(kspace[:1], 0.5)[1] is None


def test_its_standard_errors_are_those_of_matching(
    scan: Scan, network: PGDNet, best: FingerprintMaps
) -> None:
    """At the same tissue and noise; the noise that each finds differs."""
    found = reconstruct_fingerprints(scan, network)
    for name in ("t1_sd", "t2_sd", "pd_sd"):
        one, other = (getattr(maps, name)[CORE] / maps.noise for maps in (found, best))
        assert np.median(one / other) == pytest.approx(1, abs=0.05)
    assert found.correlation[CORE].mean() > 0.99


def test_pgdnet_refuses(scan: Scan, network: PGDNet, dictionary: Dictionary, tmp_path: Path) -> None:
    save_network(tmp_path / "w.safetensors", network, {})
    for options, message in (
        ({"method": network, "dictionary": dictionary}, "PGD-Net takes no dictionary"),
        ({"method": network, "weights": tmp_path / "w.safetensors"}, "not both"),
        ({"method": "llr", "weights": tmp_path / "w.safetensors"}, "weights are for the method pgdnet"),
        ({"method": network, "rank": 6}, "rank 6 instead of 7"),
        ({"method": network, "b1": np.full((SIZE, SIZE), 0.9)}, "the weights know 1 to 1"),
        ({"method": "pgdnet"}, "no PGD-Net weights for this sequence of 100 frames"),
    ):
        with pytest.raises(ValueError, match=message):
            reconstruct_fingerprints(scan, **options)  # type: ignore[arg-type]


def test_coil_maps_of_large_matrices_are_those_of_all_pixels(
    scan: Scan, dictionary: Dictionary, monkeypatch: pytest.MonkeyPatch
) -> None:
    basis = dictionary.basis.to(torch.complex64)
    whole = module.estimated_coil_maps(scan, basis)
    monkeypatch.setattr(module, "_COIL_GRID", 24)
    coarse = module.estimated_coil_maps(scan, basis)
    assert coarse.shape == whole.shape
    torch.testing.assert_close((coarse.abs() ** 2).sum(0), torch.ones(SIZE, SIZE))
    agreement = (coarse.conj() * whole).sum(0).abs()[torch.from_numpy(TRUTH.inside)]
    assert float(agreement.quantile(0.02)) > 0.995


def test_a_scan_without_trajectory(scan: Scan, dictionary: Dictionary) -> None:
    with pytest.raises(ValueError, match="has no trajectory"):
        reconstruct_fingerprints(dataclasses.replace(scan, trajectory=None), dictionary=dictionary)


def test_a_scan_of_nothing(scan: Scan, dictionary: Dictionary) -> None:
    with pytest.raises(ValueError, match="zero everywhere"):
        reconstruct_fingerprints(dataclasses.replace(scan, kspace=0 * scan.kspace), dictionary=dictionary)


def test_what_memory_cannot_hold_is_refused_beforehand(
    scan: Scan, dictionary: Dictionary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "memory_limit", lambda: 10**7)
    with pytest.raises(ValueError, match=r"48 × 48 voxels at rank 7 with 8 coils would need \d+\.\d MB"):
        reconstruct_fingerprints(scan, dictionary=dictionary)
