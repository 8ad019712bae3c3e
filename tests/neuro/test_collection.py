"""Stacks with masks or tracings, from a folder or a table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from invlearn.io.stacks import write_stack
from invlearn.io.swc import Tree, write_swc
from invlearn.neuro.collection import Collection, find_pairs
from invlearn.neuro.learning import Cubes
from invlearn.neuro.normalise import estimate
from invlearn.neuro.rasterise import swc_to_mask

SHAPE = (16, 24, 40)
VOXEL = (1.0, 0.5, 0.5)


def tree() -> Tree:
    """A straight fibre along x in slice 5, row 8; µm."""
    count = 15
    x = np.linspace(2.0, 17.0, count)
    xyz = np.stack([x, np.full(count, 4.0), np.full(count, 5.0)], 1)
    return Tree(xyz, np.full(count, 1.0), np.arange(count) - 1, np.full(count, 3), "um")


def image(mask: np.ndarray, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(20, 3, mask.shape) + 100 * mask).clip(0, 255).astype(np.uint8)


def folder(path: Path, *, masks: bool = False, swc: bool = True, voxel: tuple = VOXEL) -> Path:
    """Two stacks and their truth."""
    mask = swc_to_mask(tree(), SHAPE, voxel)
    path.mkdir(parents=True)
    for k, name in enumerate(("a", "b")):
        write_stack(path / f"{name}.tif", image(mask, k), voxel)
        if swc:
            write_swc(path / f"{name}.swc", tree())
        if masks:
            (path / "masks").mkdir(exist_ok=True)
            write_stack(path / "masks" / f"{name}.tif", mask, voxel)
    return path


def test_tracings_and_masks_give_the_same_truth(tmp_path: Path) -> None:
    expected = swc_to_mask(tree(), SHAPE, VOXEL)
    for name, options in {"t": {}, "m": {"masks": True, "swc": False}}.items():
        pairs = find_pairs(folder(tmp_path / name, **options))
        assert [pair.stack.name for pair in pairs] == ["a.tif", "b.tif"]
        (tmp_path / f"{name}p").mkdir()
        found = Collection(pairs, tmp_path / f"{name}p")
        assert len(found) == 2
        assert np.array_equal(found[1].mask, expected)
        x = image(expected, 1)
        assert np.abs(found[1].image - estimate(x)(x)).max() < 2e-3  # half precision
        assert not found.notes


def test_a_table_names_the_files_and_a_mask_is_preferred(tmp_path: Path) -> None:
    home = folder(tmp_path / "f", masks=True)
    (home / "pairs.csv").write_text("stack,mask,swc\na.tif,masks/a.tif,a.swc\nb.tif,,b.swc\n")
    for source in (home, home / "pairs.csv"):
        first, second = find_pairs(source)
        assert first.truth == home / "masks" / "a.tif"
        assert second.truth == home / "b.swc"


def test_what_is_prepared_can_be_learned_from(tmp_path: Path) -> None:
    found = Collection(find_pairs(folder(tmp_path / "f")), tmp_path)
    cubes = Cubes(found, (16, 16, 32))
    assert cubes[len(cubes) - 1]["mask"].any()


def test_long_voxels_are_brought_onto_the_networks_grid(tmp_path: Path) -> None:
    voxel = (5.0, 0.5, 0.5)
    for name, options in {"t": {}, "m": {"masks": True, "swc": False}}.items():
        (tmp_path / f"{name}p").mkdir()
        found = Collection(find_pairs(folder(tmp_path / name, voxel=voxel, **options)), tmp_path / f"{name}p")
        assert found[0].image.shape == found[0].mask.shape == (31, 24, 40)
        places = np.argwhere(found[0].mask)
        assert places[:, 0].mean() == pytest.approx(2, abs=0.6)  # slice 1 of 5 µm, of 2.5 µm slice 2


def test_a_given_voxel_size_wins_and_an_unknown_one_is_said(tmp_path: Path) -> None:
    home = folder(tmp_path / "f")
    pairs = find_pairs(home)
    other = Collection(pairs, tmp_path, (0.8, 0.8, 0.5))
    assert np.argwhere(other[0].mask)[:, 1].mean() == pytest.approx(5, abs=0.3)  # and not 8
    np.save(home / "c.npy", image(other[0].mask))
    write_swc(home / "c.swc", tree())
    (tmp_path / "p").mkdir()
    notes = Collection(find_pairs(home)[2:], tmp_path / "p").notes
    assert "voxel size" in notes[0]


def test_a_tracing_upside_down_is_noticed(tmp_path: Path) -> None:
    home = folder(tmp_path / "f")
    write_swc(home / "a.swc", tree().flipped_y((SHAPE[1] - 1) * VOXEL[1]))
    notes = Collection(find_pairs(home), tmp_path).notes
    assert len(notes) == 1
    assert "a.swc seems to count y from the other end" in notes[0]


def test_truths_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    home = folder(tmp_path / "f")
    write_swc(home / "a.swc", tree().scaled((100.0, 100.0, 100.0), "um"))
    with pytest.raises(ValueError, match=r"nodes of .*a\.swc lie outside of its stack"):
        Collection(find_pairs(home), tmp_path)
    home = folder(tmp_path / "g", masks=True, swc=False)
    write_stack(home / "masks" / "a.tif", np.ones((16, 24, 30), bool), VOXEL, overwrite=True)
    with pytest.raises(ValueError, match=r"is \(16, 24, 30\), its stack is \(16, 24, 40\)"):
        Collection(find_pairs(home), tmp_path)
    write_stack(home / "masks" / "a.tif", np.zeros(SHAPE, bool), VOXEL, overwrite=True)
    with pytest.raises(ValueError, match="no neuron in it"):
        Collection(find_pairs(home), tmp_path)


def test_collections_that_cannot_be_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        find_pairs(tmp_path / "none")
    with pytest.raises(ValueError, match="has no stacks"):
        find_pairs(tmp_path)
    home = folder(tmp_path / "f", swc=False)
    with pytest.raises(FileNotFoundError, match=r"neither a tracing a\.swc"):
        find_pairs(home)
    table = home / "t.csv"
    for text, error, message in (
        ("image\na.tif\n", ValueError, "line 2: there is no stack"),
        ("stack,swc\na.tif,\n", ValueError, "line 2: .*neither mask nor swc"),
        ("stack,swc\na.tif,none.swc\n", FileNotFoundError, "line 2: .*none.swc does not exist"),
        ("stack,mask\na.tif,b.tif\na.tif,b.tif\n", ValueError, "twice"),
    ):
        table.write_text(text)
        with pytest.raises(error, match=message):
            find_pairs(table)
    table.write_bytes(b"\xff\xfe\x00stack")
    with pytest.raises(ValueError, match="no CSV file"):
        find_pairs(table)


def test_a_channel_and_a_time_are_picked_of_every_stack(tmp_path: Path) -> None:
    import tifffile

    mask = swc_to_mask(tree(), SHAPE, VOXEL)
    bright = np.stack([image(mask, k) for k in range(6)]).reshape(3, 2, *SHAPE)  # T, C, Z, Y, X
    metadata = {"axes": "TZCYX", "spacing": VOXEL[0], "unit": "um"}
    resolution = (1 / VOXEL[2], 1 / VOXEL[1])
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, bright.swapaxes(1, 2), imagej=True, resolution=resolution, metadata=metadata)
    write_swc(tmp_path / "a.swc", tree())
    pairs = find_pairs(tmp_path)
    with pytest.raises(ValueError, match="holds 2 channels; pick one"):
        Collection(pairs, tmp_path)
    for channel, time in ((0, 2), (1, 0)):
        found = Collection(pairs, tmp_path, channel=channel, time=time)
        x = bright[time, channel]
        assert np.abs(found[0].image - estimate(x)(x)).max() < 2e-3
        assert np.array_equal(found[0].mask, mask)
