"""The tour: real photographs, true commands, one page."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from invlearn.cli import main, tour, tour_learnability
from invlearn.cli.tour_learnability import QUESTIONS, Exhibit, patches, photograph, random_masks

QUICK = (tour_learnability.one_mask, tour_learnability.two_masks, tour_learnability.same_lines)


def exhibits() -> list[Exhibit]:
    return [make(np.random.default_rng([0, number])) for number, make in enumerate(QUESTIONS)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tour of the quick questions."""
    out = tmp_path_factory.mktemp("tour") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tour, "JOBS", ("invlearn.cli.tour_learnability",))
        patch.setattr(tour_learnability, "QUESTIONS", QUICK)
        result = CliRunner().invoke(main, ["tour", "-o", str(out)])
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    assert "report.html" in result.stderr
    return out


def test_the_tour_writes_one_page_its_inputs_and_its_record(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {"report.html", "run.json", "inputs"}
    html = (folder / "report.html").read_text()
    for exhibit in exhibits():
        assert (exhibit.question in html) == (exhibit.name in {make.__name__ for make in QUICK})
    assert "What stays invisible" in html
    assert "https://" not in html


def test_the_questions_have_different_answers(folder: Path) -> None:
    record = json.loads((folder / "run.json").read_text())
    assert record["metrics"]["learnability"] == {
        "one_mask": "impossible",
        "two_masks": "undecided",
        "same_lines": "impossible",
    }
    assert set(record["timings"]) == set(record["metrics"]["learnability"])


def test_the_commands_shown_give_the_verdicts_shown(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    verdicts = json.loads((folder / "run.json").read_text())["metrics"]["learnability"]
    html = (folder / "report.html").read_text()
    for exhibit in exhibits():
        if exhibit.name not in verdicts:
            continue
        line = exhibit.command_line()
        assert line in html
        program, *args = shlex.split(line)
        assert program == "invlearn"
        result = CliRunner().invoke(main, [*args, "--json", "--quiet"])
        assert json.loads(result.stdout)["verdict"] == verdicts[exhibit.name]


def test_the_tour_does_not_overwrite(folder: Path) -> None:
    again = CliRunner().invoke(main, ["tour", "-o", str(folder)])
    assert again.exit_code == 2
    assert "--overwrite" in again.stderr


def test_every_exhibit_can_be_asked(tmp_path: Path) -> None:
    for exhibit in exhibits():
        exhibit.write(tmp_path)
        family, known = exhibit.ask(tmp_path).read()
        assert len(known) == 1
        for picture in exhibit.pictures.values():
            assert picture.ndim == 2
        assert family.domain.ndim == 2


def test_exhibits_come_from_the_seed() -> None:
    make = tour_learnability.one_mask
    first, again, other = (make(np.random.default_rng(seed)).files["one_mask.npy"] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_photographs_are_averaged_down() -> None:
    whole, half = photograph("ascent", 512), photograph("ascent", 256)
    assert half.shape == (256, 256)
    np.testing.assert_allclose(half[3, 5], whole[6:8, 10:12].mean())
    assert 0 <= whole.min() < whole.max() <= 1


def test_patches_tile_the_photographs() -> None:
    tiles = patches(8)
    assert tiles.shape == (3 * 64 * 64, 8, 8)
    np.testing.assert_array_equal(tiles[65], photograph("camera", 512)[8:16, 8:16])


def test_masks_keep_the_same_number_each() -> None:
    masks = random_masks(5, (10, 10), 0.3, np.random.default_rng(0))
    assert masks.shape == (5, 10, 10)
    assert (masks.sum((1, 2)) == 30).all()
    assert len({mask.tobytes() for mask in masks}) == 5


@pytest.mark.slow
def test_the_whole_tour(tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = CliRunner().invoke(main, ["tour", "-o", str(out), "--quiet"])
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    metrics = json.loads((out / "run.json").read_text())["metrics"]
    assert metrics["fingerprinting"]["t1"]["median_relative_error"] < 0.05
    verdicts = metrics["learnability"]
    assert verdicts == {
        "one_mask": "impossible",
        "many_masks": "certified",
        "two_masks": "undecided",
        "blur": "impossible",
        "mask_with_shifts": "certified",
        "same_lines": "impossible",
        "other_lines": "certified",
        "unknown_dimension": "certified",
    }
