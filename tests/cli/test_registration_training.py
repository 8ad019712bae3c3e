"""`invlearn registration train`: weights from a folder of volumes, and what is refused."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from invlearn.io import Volume, write_volume
from invlearn.registration.winet import load_winet
from invlearn.training import read_weights, save_network

COMMAND = ("registration", "train")
SIZE = 16
TINY = ("--width", "2", "--epochs", "1", "--quiet")
WRITTEN = {"winet.safetensors", "winet.json", "log.csv", "run.json", "checkpoints"}


def volume(seed: int, size: int = SIZE, spacing: float = 2.0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(size,) * 3)
    return ndimage.gaussian_filter(noise, 4 / spacing).astype(np.float32)


def put(path: Path, count: int) -> Path:
    """A folder of volumes with labels."""
    (path / "labels").mkdir(parents=True)
    affine = np.diag([2.0, 2, 2, 1])
    for k in range(count):
        data = volume(k)
        write_volume(path / f"{k}.nii.gz", Volume(data, affine))
        labels = (data > 0).astype(np.uint8) + (data > data.std())
        write_volume(path / "labels" / f"{k}.nii.gz", Volume(labels, affine))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three volumes with labels."""
    return put(tmp_path / "brains", 3)


@pytest.fixture(scope="module")
def usual(run: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, torch.Tensor]]:
    """The weights after a step or two on two volumes, by the options; each trained once."""
    place = tmp_path_factory.mktemp("usual")
    brains = put(place / "brains", 2)

    @functools.cache
    def train(*options: object) -> dict[str, torch.Tensor]:
        out = place / str(len(list(place.iterdir())))
        result = run(brains, "-o", out, *TINY, *options)
        assert result.exit_code == 0, result.output
        return read_weights(out / "winet.safetensors")[0]

    return train


def card_of(out: Path) -> dict:
    return read_weights(out / "winet.safetensors")[1]


def test_pairs_with_validation_on_labels(run: Any, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run(folder, "-o", out, *TINY, "--hold-out", 1, "--wavelet", "db2")
    assert result.exit_code == 0, result.output
    assert {path.name for path in out.iterdir()} == WRITTEN
    card = card_of(out)
    assert card["data"] == {"volumes": ["0.nii.gz", "1.nii.gz"], "held_back": ["2.nii.gz"], "mode": "pairs"}
    assert card["network"]["wavelet"] == "db2"
    assert card["network"]["spacing_mm"] == 2.0
    assert 0 <= card["result"]["val/dice"] <= 1
    assert card["result"]["step"] == 2
    assert json.loads((out / "winet.json").read_text()) == card
    record = json.loads((out / "run.json").read_text())
    assert len(record["inputs"]) == 6
    assert record["metrics"]["best_epoch"] == 1
    field = load_winet(out / "winet.safetensors")(*(torch.from_numpy(volume(k)) for k in (0, 1)))
    assert field.shape == (3, SIZE, SIZE, SIZE)


def test_an_atlas_is_moved_onto_all_others(run: Any, folder: Path, tmp_path: Path) -> None:
    assert run(folder, "-o", tmp_path / "out", *TINY, "--atlas", folder / "1.nii.gz").exit_code == 0
    card = card_of(tmp_path / "out")
    assert card["data"]["mode"] == "atlas"
    assert card["data"]["volumes"] == ["1.nii.gz", "0.nii.gz", "2.nii.gz"]
    assert card["result"]["step"] == 2


def test_synthetic_deformations_need_one_volume_alone(run: Any, folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "one.csv"
    table.write_text("image,labels\nbrains/0.nii.gz,brains/labels/0.nii.gz\n")
    result = run(table, "-o", tmp_path / "out", "--width", 2, "--quiet", "--synthetic", "--steps", 11)
    assert result.exit_code == 0, result.output
    card = card_of(tmp_path / "out")
    assert card["result"]["step"] == 20  # whole epochs of ten
    assert card["training"]["objective"]["supervision"] == 1.0
    assert card["training"]["synthesis"]["label_contrast"] == 0.5


def test_volumes_on_other_grids_are_resampled_and_that_is_said(
    run: Any, folder: Path, tmp_path: Path
) -> None:
    fine = np.diag([1.0, 1, 1, 1])
    fine[:3, 3] = -0.5
    write_volume(folder / "3.nii.gz", Volume(volume(9, 2 * SIZE, 1.0), fine))
    write_volume(folder / "labels" / "3.nii.gz", Volume(np.ones((32,) * 3, np.uint8), fine))
    options = ("-o", tmp_path / "out", "--width", "2", "--epochs", "1")
    result = run(folder, *options)
    assert result.exit_code == 0, result.output
    said = [line for line in result.stderr.splitlines() if "resampled" in line]
    assert len(said) == 1
    assert "3.nii.gz was resampled to 2 mm, 16 × 16 × 16" in said[0]
    assert "1.nii.gz" not in said[0]


def test_the_common_grid_can_be_chosen(run: Any, folder: Path, tmp_path: Path) -> None:
    options = ("--spacing", 4, "--shape", 8, 10, 12)
    assert run(folder, "-o", tmp_path / "out", *TINY, *options).exit_code == 0
    assert card_of(tmp_path / "out")["grid"] == {"shape": [8, 10, 12], "spacing_mm": 4.0}


def test_resume_goes_on_and_equals_an_unbroken_run(
    run: Any, refused: Any, folder: Path, tmp_path: Path
) -> None:
    (folder / "2.nii.gz").unlink()
    one, two = tmp_path / "one", tmp_path / "two"
    assert run(folder, "-o", one, "--width", 2, "--epochs", 2, "--quiet").exit_code == 0
    assert run(folder, "-o", two, *TINY).exit_code == 0
    assert "--resume" in refused(folder, "-o", two, "--width", 2, "--epochs", 2)
    assert run(folder, "-o", two, "--width", 2, "--epochs", 2, "--quiet", "--resume").exit_code == 0
    assert card_of(two)["result"]["step"] == 4
    whole, resumed = (read_weights(out / "winet.safetensors")[0] for out in (one, two))
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    assert run(folder, "-o", two, *TINY, "--overwrite").exit_code == 0
    assert card_of(two)["result"]["step"] == 2


def test_weights_to_start_from(run: Any, refused: Any, folder: Path, tmp_path: Path) -> None:
    (folder / "2.nii.gz").unlink()
    assert run(folder, "-o", tmp_path / "one", *TINY).exit_code == 0
    weights = tmp_path / "one" / "winet.safetensors"
    assert run(folder, "-o", tmp_path / "two", *TINY, "--weights", weights).exit_code == 0
    first, second = (card_of(tmp_path / name)["result"]["train/loss"] for name in ("one", "two"))
    assert first != second
    line = refused(folder, "-o", tmp_path / "three", *TINY, "--wavelet", "db2", "--weights", weights)
    assert 'network.wavelet is "haar" in the file and "db2" here' in line
    assert not (tmp_path / "three").exists()


@pytest.mark.parametrize(
    "option",
    [
        ("--seed", 1),
        ("--smoothness", 30.0),
        ("--symmetric",),
        ("--learning-rate", 0.01),
        ("--synthetic",),
        ("--synthetic", "--label-contrast", 1.0),
    ],
)
def test_options_change_the_weights(usual: Callable[..., dict[str, torch.Tensor]], option: tuple) -> None:
    first = usual("--synthetic") if "--label-contrast" in option else usual()
    second = usual(*option)
    assert any(not torch.equal(value, second[name]) for name, value in first.items())


def test_displacements_and_mixed_precision_stand_in_the_card(run: Any, folder: Path, tmp_path: Path) -> None:
    options = ("--displacement", "--precision", "bf16-mixed")
    assert run(folder, "-o", tmp_path / "out", *TINY, *options).exit_code == 0
    card = card_of(tmp_path / "out")
    assert card["network"]["diffeomorphic"] is False
    assert card["training"]["settings"]["precision"] == "bf16-mixed"


# --- bad input ---


def test_an_empty_folder(refused: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "no volumes" in refused(tmp_path / "empty", "-o", tmp_path / "out")
    assert "does not exist" in refused(tmp_path / "nowhere", "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_one_volume_makes_no_pairs(refused: Any, folder: Path, tmp_path: Path) -> None:
    for k in (1, 2):
        (folder / f"{k}.nii.gz").unlink()
    line = refused(folder, "-o", tmp_path / "out")
    assert "1 volume" in line
    assert "--synthetic" in line
    assert "2 that training needs" in refused(folder, "-o", tmp_path / "out", "--hold-out", 2)
    assert "no volume but the atlas" in refused(
        folder, "-o", tmp_path / "out", "--atlas", folder / "0.nii.gz"
    )


def test_a_slice_is_no_volume(refused: Any, folder: Path, tmp_path: Path) -> None:
    import nibabel

    for path in (folder / "0.nii.gz", folder / "2.nii.gz"):
        nibabel.save(nibabel.Nifti1Image(np.ones((8, 8), np.uint8), np.eye(4)), path)
        assert "2 dimensions" in refused(folder, "-o", tmp_path / "out", *TINY)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--atlas", "nowhere.nii"), "nowhere.nii does not exist"),
        (("--atlas", "nowhere.nii", "--synthetic"), "not both"),
        (("--epochs", 1, "--steps", 1), "not both"),
        (("--shape", 8, 8), "three numbers"),
        (("--spacing", -1), "spacing"),
        (("--wavelet", "harr"), "haar"),
        (("--learning-rate", -1), "learning_rate"),
        (("--displacement", "--symmetric"), "diffeomorphic"),
        (("--weights", "nowhere.safetensors"), "nowhere.safetensors"),
        (("--device", "abacus"), "abacus"),
    ],
)
def test_refused_options(refused: Any, folder: Path, tmp_path: Path, options: tuple, words: str) -> None:
    assert words in refused(folder, "-o", tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


def test_weights_for_another_network(refused: Any, folder: Path, tmp_path: Path) -> None:
    from invlearn.registration.winet import WiNet

    save_network(tmp_path / "w.safetensors", WiNet(width=3, spacing=2.0), {})
    line = refused(folder, "-o", tmp_path / "out", *TINY, "--weights", tmp_path / "w.safetensors")
    assert "network.width is 3 in the file and 2 here" in line


@pytest.mark.parametrize(("after", "words"), [(1, "start again"), (8, "--resume goes on")])
def test_an_interruption_says_how_to_go_on(
    run: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int, words: str
) -> None:
    """Six pairs an epoch: the eighth step comes after the first checkpoint."""
    from invlearn.registration.learning import RegistrationTask

    args = (folder, "-o", tmp_path / "out", "--width", 2, "--epochs", 2, "--hold-out", 0, "--quiet")
    real, calls = RegistrationTask.forward, []

    def stopped(self: Any, *given: Any) -> Any:
        calls.append(1)
        if len(calls) == after:
            raise KeyboardInterrupt
        return real(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(RegistrationTask, "forward", stopped)
        result = run(*args)
    assert result.exit_code == 130
    assert words in result.stderr
    assert not (tmp_path / "out" / "winet.safetensors").exists()
    assert run(*args, "--resume").exit_code == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == WRITTEN
