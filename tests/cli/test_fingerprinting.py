"""`invlearn mrf` from maps to k-space to maps: the fixed interface other people's scripts use."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import pytest

from invlearn.io import read_scan
from invlearn.io.maps import write_map
from invlearn.physics.mri import FingerprintSequence, trajectories
from invlearn.physics.mri.fingerprint import Dictionary, Grid
from invlearn.training import save_network
from invlearn.unrolled import PGDNet, fingerprinting
from invlearn.unrolled.pixelwise import SignalNetwork

COMMAND = ("mrf",)
FOREIGN = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "foreign_scan.py"))
SIZE, FRAMES = 24, 60
MAPS = ("T1map", "T2map", "PDmap")
WRITTEN = {f"{name}{sd}.{kind}" for name in MAPS for sd in ("", "_sd") for kind in ("nii.gz", "json")}


@pytest.fixture(autouse=True)
def coarse_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small dictionary: these tests are about files and options."""
    built = Grid.logarithmic((0.3, 3.5), (0.03, 0.6), step=0.3)
    with_b1 = Grid.logarithmic((0.3, 3.5), (0.03, 0.6), step=0.6, b1=[0.85, 0.95])
    monkeypatch.setattr(fingerprinting, "_grid", lambda b1: built if b1 is None else with_b1)


def tissue() -> dict[str, np.ndarray]:
    y, x = (np.mgrid[:SIZE, :SIZE] + 0.5) / SIZE * 2 - 1
    label = (np.hypot(x, y) < 0.8).astype(int) + (np.hypot(x, y) < 0.55)
    return {
        "t1": np.array([0, 1.3, 0.8])[label] * (1 + 0.05 * x),
        "t2": np.array([0, 0.1, 0.07])[label] * (1 + 0.05 * y),
        "pd": np.array([0, 0.85, 0.7])[label],
    }


@pytest.fixture(scope="module")
def folder(run: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Maps, a scan of them, and its reconstruction."""
    place = tmp_path_factory.mktemp("mrf")
    np.savez(place / "maps.npz", **tissue())
    result = run("simulate", place / "maps.npz", "-o", place / "scan.h5", "--frames", FRAMES, "--snr", 35)
    assert result.exit_code == 0, result.output
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            fingerprinting, "_grid", lambda b1: Grid.logarithmic((0.3, 3.5), (0.03, 0.6), step=0.15)
        )
        result = run("reconstruct", place / "scan.h5", "-o", place / "out")
    assert result.exit_code == 0, result.output
    return place


def test_the_scan_is_what_the_contract_says(folder: Path) -> None:
    scan = read_scan(folder / "scan.h5")
    assert (scan.frames, scan.shape, scan.coils) == (FRAMES, (SIZE, SIZE), 8)
    assert abs(scan.trajectory).max() <= 0.5
    sequence = FingerprintSequence.default(FRAMES)
    np.testing.assert_allclose(scan.flip_angle, sequence.flip_angle, rtol=1e-5)
    np.testing.assert_allclose(scan.tr, sequence.tr, rtol=1e-5)
    assert scan.inversion_time == pytest.approx(0.018)
    record = json.loads((folder / "scan.h5.run.json").read_text())
    assert str(folder / "maps.npz") in record["inputs"]


def test_the_results_are_what_the_contract_says(folder: Path) -> None:
    out = folder / "out"
    assert {path.name for path in out.iterdir()} == WRITTEN | {"report.html", "run.json"}
    image = nibabel.load(out / "T1map.nii.gz")
    assert image.shape == (SIZE, SIZE, 1)
    t1, truth = image.get_fdata()[..., 0].T, tissue()
    inside = truth["pd"] > 0
    assert np.median(abs(t1 - truth["t1"])[inside] / truth["t1"][inside]) < 0.02
    assert json.loads((out / "T2map_sd.json").read_text()) == {"Units": "s"}
    record = json.loads((out / "run.json").read_text())
    assert set(record["outputs"]) == WRITTEN | {"report.html", "run.json"}
    assert record["metrics"]["settings"]["method"] == "subspace"
    html = (out / "report.html").read_text()
    for words in ("How sure are they?", "How they were made", "Flip angle"):
        assert words in html


def test_evaluate_prints_exactly_the_contract(run: Any, folder: Path) -> None:
    result = run("evaluate", folder / "out", "--truth", folder / "maps.npz", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert set(found) == {"t1", "t2", "pd", "voxels"}
    for name in ("t1", "t2", "pd"):
        assert set(found[name]) == {"median_relative_error", "nrmse", "bias"}
    assert found["voxels"] == int((tissue()["pd"] > 0).sum())
    assert found["t1"]["median_relative_error"] < 0.02
    assert found["pd"]["median_relative_error"] < 0.05
    words = run("evaluate", folder / "out", "--truth", folder / "maps.npz")
    assert "over" in words.stdout
    assert len(words.stdout.splitlines()) == 4


def test_a_folder_of_maps_is_a_truth_too(run: Any, folder: Path, tmp_path: Path) -> None:
    truth = tissue()
    for name, array in (("T1map", truth["t1"]), ("T2map", truth["t2"]), ("PDmap", truth["pd"])):
        write_map(tmp_path / f"{name}.nii.gz", array, (1.0, 1.0), "s")
    of_npz, of_folder = (
        json.loads(run("evaluate", folder / "out", "--truth", place, "--json").stdout)
        for place in (folder / "maps.npz", tmp_path)
    )
    assert of_folder["t2"]["nrmse"] == pytest.approx(of_npz["t2"]["nrmse"], rel=1e-4)
    itself = json.loads(run("evaluate", tmp_path, "--truth", tmp_path, "--json").stdout)
    assert itself["t1"] == {"median_relative_error": 0, "nrmse": 0, "bias": 0}


def test_simulation_comes_from_the_seed(run: Any, folder: Path, tmp_path: Path) -> None:
    scans = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        args = (
            "simulate",
            folder / "maps.npz",
            "-o",
            tmp_path / name,
            "--frames",
            5,
            "--snr",
            20,
            "--seed",
            seed,
        )
        assert run(*args).exit_code == 0
        scans.append(read_scan(tmp_path / name).kspace)
    np.testing.assert_array_equal(scans[0], scans[1])
    assert not np.array_equal(scans[0], scans[2])


def test_simulate_with_every_option(run: Any, folder: Path, tmp_path: Path) -> None:
    sequence = FingerprintSequence.default(9)
    sequence.to_csv(tmp_path / "train.csv")
    np.save(tmp_path / "arms.npy", trajectories.radial(4, 30).numpy())
    options = ("--sequence", tmp_path / "train.csv", "--inversion-time", 0.02, "--frames", 7)
    place = tmp_path / "scan.h5"
    more = ("--trajectory", tmp_path / "arms.npy", "--coils", 3, "--quiet")
    result = run("simulate", folder / "maps.npz", "-o", place, *options, *more)
    assert (result.exit_code, result.output) == (0, "")
    scan = read_scan(place)
    assert (scan.frames, scan.coils, scan.inversion_time) == (7, 3, pytest.approx(0.02))
    np.testing.assert_allclose(scan.flip_angle, sequence.flip_angle[:7], rtol=1e-5)
    np.testing.assert_allclose(scan.trajectory[:30], trajectories.radial(4, 30)[0], atol=1e-6)
    spokes = ("-o", tmp_path / "r.h5", "--trajectory", "radial", "--frames", 3)
    assert run("simulate", folder / "maps.npz", *spokes).exit_code == 0
    radial = read_scan(tmp_path / "r.h5").trajectory.reshape(3, -1, 2)
    ends = radial[:, 0, 0] * radial[:, -1, 1], radial[:, 0, 1] * radial[:, -1, 0]
    np.testing.assert_allclose(*ends, atol=1e-6)  # straight through the middle


def test_reconstruct_a_foreign_scan_with_every_option(run: Any, refused: Any, tmp_path: Path) -> None:
    """Written without invlearn, nothing on the sequence in the header, trajectory and coils beside it."""
    data, trajectory = FOREIGN["simulate"](tissue(), FRAMES, 4, 35.0, samples=300)
    FOREIGN["write"](tmp_path / "scan.h5", data, trajectory, (SIZE, SIZE))
    FOREIGN["write_sequence"](tmp_path / "train.csv", FRAMES)
    np.save(tmp_path / "arms.npy", trajectory)
    np.savez(tmp_path / "coils.npz", coil_maps=FOREIGN["coil_maps"](4, (SIZE, SIZE)))
    image = nibabel.Nifti1Image(np.full((SIZE, SIZE, 1), 0.9, np.float32), np.eye(4))
    nibabel.save(image, tmp_path / "b1.nii.gz")
    needed = ("--sequence", tmp_path / "train.csv", "--inversion-time", FOREIGN["INVERSION_TIME"])
    plain = run("reconstruct", tmp_path / "scan.h5", "-o", tmp_path / "plain", *needed, "--rank", 6)
    assert plain.exit_code == 0, plain.output
    found = json.loads((tmp_path / "plain" / "run.json").read_text())["metrics"]["settings"]
    assert (found["rank"], found["coil_maps"]) == (6, "estimated")
    extra = ("--trajectory", tmp_path / "arms.npy", "--coil-maps", tmp_path / "coils.npz")
    whole = ("--b1", tmp_path / "b1.nii.gz", "--method", "adjoint", "--rank", 5, "--quiet")
    result = run("reconstruct", tmp_path / "scan.h5", "-o", tmp_path / "full", *needed, *extra, *whole)
    assert (result.exit_code, result.output) == (0, "")
    record = json.loads((tmp_path / "full" / "run.json").read_text())
    assert (
        record["metrics"]["settings"] | {"rank": 5, "coil_maps": "given", "method": "adjoint"}
        == (record["metrics"]["settings"])
    )
    assert len(record["inputs"]) == 5
    assert "does not say its flip_angle, tr, te; give the sequence (--sequence" in refused(
        "reconstruct", tmp_path / "scan.h5", "-o", tmp_path / "none"
    )
    np.savez(tmp_path / "maps.npz", **tissue())
    result = run("evaluate", tmp_path / "plain", "--truth", tmp_path / "maps.npz", "--json")
    errors = json.loads(result.stdout)
    assert errors["t1"]["median_relative_error"] < 0.02
    assert errors["t2"]["median_relative_error"] < 0.05


def test_the_sequence_given_wins_over_the_header(run: Any, folder: Path, tmp_path: Path) -> None:
    sequence = FingerprintSequence.default(FRAMES)
    FingerprintSequence(0.8 * sequence.flip_angle, sequence.phase, sequence.tr, sequence.te).to_csv(
        tmp_path / "weaker.csv"
    )
    args = ("reconstruct", folder / "scan.h5", "-o", tmp_path / "o", "--sequence", tmp_path / "weaker.csv")
    assert run(*args).exit_code in (0, 1)
    t2 = [nibabel.load(place / "T2map.nii.gz").get_fdata() for place in (folder / "out", tmp_path / "o")]
    inside = (tissue()["pd"] > 0).T
    assert np.median(abs(t2[1] - t2[0])[inside]) > 0.005


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a PGD-Net before training: gradient descent with matching."""
    train = FingerprintSequence.default(FRAMES)
    dictionary = Dictionary.build(train, Grid.logarithmic((0.3, 3.5), (0.03, 0.6), step=0.3), rank=6)
    network = PGDNet(train, dictionary.basis, dictionary.phase, SignalNetwork(6, 100), width=4, levels=1)
    network.fit_decoder(atoms=1500)
    path = tmp_path_factory.mktemp("weights") / "pgdnet.safetensors"
    save_network(path, network, {})
    return path


def test_pgdnet_needs_weights(refused: Any, folder: Path, tmp_path: Path) -> None:
    line = refused("reconstruct", folder / "scan.h5", "-o", tmp_path / "o", "--method", "pgdnet")
    assert f"no PGD-Net weights for this sequence of {FRAMES} frames" in line
    assert "invlearn mrf train MAPS_FOLDER -o DIR" in line
    assert list(tmp_path.iterdir()) == []


def test_pgdnet_with_weights(run: Any, folder: Path, tmp_path: Path, weights: Path) -> None:
    args = ("reconstruct", folder / "scan.h5", "-o", tmp_path / "o", "--method", "pgdnet")
    result = run(*args, "--weights", weights)
    assert result.exit_code == 0, result.output
    assert {path.name for path in (tmp_path / "o").iterdir()} == WRITTEN | {"report.html", "run.json"}
    record = json.loads((tmp_path / "o" / "run.json").read_text())
    assert record["metrics"]["settings"]["method"] == "pgdnet"
    assert str(weights) in record["inputs"]
    result = run("evaluate", tmp_path / "o", "--truth", folder / "maps.npz", "--json")
    assert json.loads(result.stdout)["t1"]["median_relative_error"] < 0.05


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--method", "pgdnet", "--rank", 4), "rank 4 instead of 6"),
        (("--method", "pgdnet", "--inversion-time", 0.03), "inversion_time 0.03 instead of 0.018"),
        (("--method", "llr"), "weights are for the method pgdnet"),
    ],
)
def test_weights_for_something_else(
    refused: Any, folder: Path, tmp_path: Path, weights: Path, options: tuple[object, ...], message: str
) -> None:
    args = ("reconstruct", folder / "scan.h5", "-o", tmp_path / "o", "--weights", weights)
    assert message in refused(*args, *options)
    assert list(tmp_path.iterdir()) == []


def test_bad_weights_and_scans_for_pgdnet(
    run: Any, refused: Any, folder: Path, tmp_path: Path, weights: Path
) -> None:
    learned = ("--method", "pgdnet", "--weights")
    args = ("reconstruct", folder / "scan.h5", "-o", tmp_path / "o", *learned)
    (tmp_path / "bad.safetensors").write_bytes(weights.read_bytes()[:-100])
    assert "damaged" in refused(*args, tmp_path / "bad.safetensors")
    assert "does not exist" in refused(*args, tmp_path / "none.safetensors")
    np.savez(tmp_path / "coils.npz", coil_maps=np.zeros((8, SIZE, SIZE), np.complex64))
    line = refused(*args, weights, "--coil-maps", tmp_path / "coils.npz")
    assert "the coil maps are zero everywhere" in line
    short = tmp_path / "short.h5"
    assert run("simulate", folder / "maps.npz", "-o", short, "--frames", 40).exit_code == 0
    line = refused("reconstruct", short, "-o", tmp_path / "o", *learned, weights)
    assert f"this scan has 40 frames instead of {FRAMES}" in line


def test_a_reconstruction_that_does_not_converge_says_so(
    run: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dataclasses

    whole = fingerprinting.reconstruct_fingerprints
    monkeypatch.setattr(
        fingerprinting,
        "reconstruct_fingerprints",
        lambda *args, **options: dataclasses.replace(whole(*args, **options), converged=False),
    )
    result = run("reconstruct", folder / "scan.h5", "-o", tmp_path / "o")
    assert result.exit_code == 1
    *_, warning, closing = result.stderr.splitlines()
    assert "had not converged" in warning
    words = f"maps of {SIZE} × {SIZE} voxels, subspace of rank "
    assert closing.startswith(f"invlearn: {tmp_path / 'o'}: {words}")
    assert (tmp_path / "o" / "T1map.nii.gz").exists()


def test_nothing_is_overwritten(refused: Any, folder: Path) -> None:
    assert "--overwrite" in refused("simulate", folder / "maps.npz", "-o", folder / "scan.h5")
    assert "--overwrite" in refused("reconstruct", folder / "scan.h5", "-o", folder / "out")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [("t1", -1.0, "t1 must be positive"), ("t2", 9.0, "T2 is above T1"), ("pd", np.nan, "pd is NaN")],
)
def test_impossible_maps(refused: Any, tmp_path: Path, name: str, value: float, message: str) -> None:
    arrays = tissue()
    arrays[name][12, 12] = value
    np.savez(tmp_path / "m.npz", **arrays)
    assert message in refused("simulate", tmp_path / "m.npz", "-o", tmp_path / "scan.h5")
    assert [path.name for path in tmp_path.iterdir()] == ["m.npz"]


def damaged(folder: Path, tmp_path: Path, change: str) -> Path:
    """The scan with its file spoilt in one way."""
    path = tmp_path / "bad.h5"
    whole = (folder / "scan.h5").read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if change == "cut" else whole)
    if change == "foreign":
        path.unlink()
        with h5py.File(path, "w") as file:
            file["numbers"] = np.ones(3)
    elif change == "text":
        path.write_text("this is no scan")
    elif change != "cut":
        with h5py.File(path, "r+") as file:
            rows = file["dataset/data"][:]
            if change == "nan":
                rows["data"][3][7] = np.nan
            elif change == "short":
                rows["data"][3] = rows["data"][3][:-4]
            elif change == "far":
                rows["traj"][3] = rows["traj"][3] * 4
            elif change == "coils":
                rows["head"]["active_channels"] = 0
            file["dataset/data"][:] = rows
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("cut", "truncated or damaged"),
        ("foreign", "no ISMRMRD scan"),
        ("text", "not an HDF5 file"),
        ("nan", "NaN"),
        ("short", "samples"),
        ("far", "outside the field of view"),
        ("coils", "zero coils"),
    ],
)
def test_damaged_scans(refused: Any, folder: Path, tmp_path: Path, change: str, message: str) -> None:
    path = damaged(folder, tmp_path, change)
    assert message in refused("reconstruct", path, "-o", tmp_path / "o")
    assert [p.name for p in tmp_path.iterdir()] == ["bad.h5"]


def test_a_sequence_of_another_length(refused: Any, folder: Path, tmp_path: Path) -> None:
    FingerprintSequence.default(FRAMES - 7).to_csv(tmp_path / "s.csv")
    line = refused("reconstruct", folder / "scan.h5", "-o", tmp_path / "o", "--sequence", tmp_path / "s.csv")
    assert str(FRAMES - 7) in line
    line = refused(
        "simulate",
        folder / "maps.npz",
        "-o",
        tmp_path / "x.h5",
        "--sequence",
        tmp_path / "s.csv",
        "--frames",
        80,
    )
    assert f"has {FRAMES - 7} frames, --frames asks for 80" in line
    (tmp_path / "s.csv").write_text("flip,tr\n1,2\n")
    assert "the header must be" in refused(
        "reconstruct", folder / "scan.h5", "-o", tmp_path / "o", "--sequence", tmp_path / "s.csv"
    )


@pytest.mark.parametrize(
    ("option", "content", "message"),
    [
        ("--coil-maps", np.ones((2, 3, 3)), "coil maps must be (8, 24, 24)"),
        ("--b1", np.ones((2, 2)), "B1 map must have the image's shape"),
        ("--trajectory", np.zeros((5, 7, 2)), "trajectory"),
        ("--trajectory", np.full((5, 7, 2), 30.0), "outside the field of view"),
    ],
)
def test_files_that_do_not_fit(
    refused: Any, folder: Path, tmp_path: Path, option: str, content: np.ndarray, message: str
) -> None:
    np.save(tmp_path / "a.npy", content)
    args = ("reconstruct", folder / "scan.h5", "-o", tmp_path / "o", option, tmp_path / "a.npy")
    assert message in refused(*args)
    assert not (tmp_path / "o").exists()


def test_rank_above_the_frames(refused: Any, folder: Path, tmp_path: Path) -> None:
    line = refused("reconstruct", folder / "scan.h5", "-o", tmp_path / "o", "--rank", FRAMES + 1)
    assert f"rank {FRAMES + 1} is not between 1 and" in line
    assert str(FRAMES) in line


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("reconstruct", "no.h5", "-o", "o"), "no.h5 does not exist"),
        (("simulate", "no.npz", "-o", "x.h5"), "no.npz does not exist"),
        (("evaluate", "no", "--truth", "maps.npz"), "no is no folder"),
        (("evaluate", ".", "--truth", "maps.npz"), "missing"),
        (("simulate", "maps.npz", "-o", "x.h5", "--snr", "nan"), "--snr must be a finite number"),
        (("simulate", "maps.npz", "-o", "x.h5", "--coils", "0"), "--coils"),
        (("simulate", "maps.npz", "-o", "x.h5", "--trajectory", "circle"), "circle"),
        (("reconstruct", "scan.h5", "-o", "o", "--method", "magic"), "--method"),
        (("reconstruct", "scan.h5", "-o", "o", "--b1", "no.nii.gz"), "no.nii.gz does not exist"),
        (("reconstruct", "scan.h5", "-o", "o", "--device", "cuda:77"), "--device cuda:77"),
    ],
)
def test_wrong_usage(
    refused: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(folder)
    before = sorted(path.name for path in folder.iterdir())
    assert message in refused(*args)
    assert sorted(path.name for path in folder.iterdir()) == before


def test_evaluate_needs_one_grid(refused: Any, folder: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "small.npz", **{name: value[:20] for name, value in tissue().items()})
    line = refused("evaluate", folder / "out", "--truth", tmp_path / "small.npz")
    assert "the truth (20, 24)" in line


def test_sizes_that_memory_cannot_hold_are_refused(
    refused: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("invlearn.physics.mri.fingerprint.simulate.memory_limit", lambda: 10**6)
    assert "MB of memory" in refused("simulate", folder / "maps.npz", "-o", tmp_path / "x.h5")
    monkeypatch.setattr(fingerprinting, "memory_limit", lambda: 10**6)
    assert "MB of memory" in refused("reconstruct", folder / "scan.h5", "-o", tmp_path / "o")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("what", ["scan", "maps"])
def test_a_full_disk_leaves_nothing(
    run: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    def full(path: Path, *rest: Any, **options: Any) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device", str(path))

    if what == "scan":
        monkeypatch.setattr("invlearn.io.write_scan", full)
        result = run("simulate", folder / "maps.npz", "-o", tmp_path / "x.h5", "--frames", 3, "--quiet")
    else:
        monkeypatch.setattr("invlearn.io.maps.write_volume", full)
        result = run(
            "reconstruct", folder / "scan.h5", "-o", tmp_path / "o", "--method", "adjoint", "--quiet"
        )
    assert result.exit_code == 1
    assert result.stderr.startswith("invlearn: No space left on device")
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_help_imports_nothing_heavy() -> None:
    import subprocess

    code = (
        "import sys\nfrom invlearn.cli import main\n"
        "try:\n    main(['mrf', 'reconstruct', '--help'])\n"
        "except SystemExit as exit:\n    assert exit.code == 0\n"
        "heavy = {'torch', 'jax', 'sigpy', 'matplotlib', 'scipy', 'numpy', 'h5py'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)


def test_the_density_keeps_its_unit(folder: Path) -> None:
    """The scan's total sensitivity is one: PD keeps its unit."""
    pd = nibabel.load(folder / "out" / "PDmap.nii.gz").get_fdata()[..., 0].T
    inside = tissue()["pd"] > 0
    assert np.median(pd[inside] / tissue()["pd"][inside]) == pytest.approx(1, abs=0.03)


def test_maps_become_nifti_without_flips(tmp_path: Path) -> None:
    from types import SimpleNamespace

    from invlearn.cli.fingerprinting import write_results

    t1 = np.arange(6.0).reshape(2, 3)
    arrays = {"t1": t1, "t2": t1 + 10, "pd": 1j * t1, "t1_sd": t1, "t2_sd": t1, "pd_sd": t1}
    write_results(tmp_path, SimpleNamespace(**arrays), (2.0, 3.0))
    for name, offset in (("T1map", 0), ("T2map", 10), ("PDmap", 0), ("T2map_sd", 0)):
        image = nibabel.load(tmp_path / f"{name}.nii.gz")
        assert image.shape == (3, 2, 1)
        np.testing.assert_allclose(image.get_fdata()[..., 0].T, t1 + offset, rtol=1e-6)
        assert image.header.get_zooms()[:2] == (3.0, 2.0)
