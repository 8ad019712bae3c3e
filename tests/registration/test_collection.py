"""Volumes of a folder or a table on one grid: through world coordinates, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from invlearn.io import Volume, write_volume
from invlearn.registration import collection
from invlearn.registration.collection import (
    Collection,
    CommonGrid,
    Source,
    common_grid,
    find_sources,
    resampled_image,
    resampled_labels,
)

AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])


def ball(affine: np.ndarray = AFFINE, shape: tuple[int, ...] = (16, 18, 20)) -> Volume:
    """A smooth bright ball around (17, 15, 21) mm on any grid: the same thing in the world."""
    at = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1)
    world = at @ affine[:3, :3].T + affine[:3, 3]
    distance = np.linalg.norm(world - (17, 15, 21), axis=-1)
    return Volume((100 / (1 + np.exp((distance - 9) / 3))).astype(np.float32), affine)


def put(folder: Path, *names: str, labels: bool = False) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        write_volume(folder / name, ball())
        if labels:
            (folder / "labels").mkdir(exist_ok=True)
            write_volume(folder / "labels" / name, Volume((ball().data > 50).astype(np.uint8), AFFINE))
    return folder


def test_a_folder_with_labels_in_order_of_names(tmp_path: Path) -> None:
    folder = put(tmp_path / "brains", "b.nii.gz", "a.nii", labels=True)
    (folder / "notes.txt").write_text("not a volume")
    found = find_sources(folder)
    assert [source.image.name for source in found] == ["a.nii", "b.nii.gz"]
    assert [source.labels for source in found] == [folder / "labels" / s.image.name for s in found]


def test_a_table_relative_to_itself(tmp_path: Path) -> None:
    put(tmp_path / "brains", "a.nii", "b.nii", labels=True)
    table = tmp_path / "list.csv"
    table.write_text("image,labels\nbrains/b.nii,brains/labels/b.nii\nbrains/a.nii,brains/labels/a.nii\n")
    assert [source.image.name for source in find_sources(table)] == ["b.nii", "a.nii"]
    table.write_text("image\nbrains/a.nii\n")
    assert find_sources(table) == [Source(tmp_path / "brains" / "a.nii")]


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("image\nnone.nii\n", FileNotFoundError, "line 2.*none.nii does not exist"),
        ("file\na.nii\n", ValueError, "header is image"),
        ("image\n", ValueError, "no volumes"),
        ("image\na.nii\na.nii\n", ValueError, "twice"),
        ("image,labels\na.nii,a.nii\nb.nii,\n", ValueError, "b.nii has no labels"),
    ],
)
def test_refused_tables(tmp_path: Path, text: str, kind: type, words: str) -> None:
    put(tmp_path, "a.nii", "b.nii")
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(kind, match=words):
        find_sources(tmp_path / "list.csv")


def test_refused_folders(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        find_sources(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no volumes"):
        find_sources(tmp_path)
    (tmp_path / "list.csv").write_bytes(b"image\n\xff\xfe\x00")
    with pytest.raises(ValueError, match="no CSV file"):
        find_sources(tmp_path / "list.csv")


def test_the_common_grid_follows_the_world_around_the_middle(tmp_path: Path) -> None:
    affine = np.array([[0, -2.0, 0, 30], [3, 0, 0, -5], [0, 0, 4, 7], [0, 0, 0, 1]])
    write_volume(tmp_path / "a.nii", Volume(np.ones((10, 20, 30), np.uint8), affine))
    grid = common_grid(tmp_path / "a.nii")
    assert (grid.shape, grid.spacing) == ((20, 15, 60), 2.0)
    middle = affine[:3, :3] @ np.array([4.5, 9.5, 14.5]) + affine[:3, 3]
    assert np.allclose(grid.affine[:3, :3] @ ((np.array(grid.shape) - 1) / 2) + grid.affine[:3, 3], middle)
    other = common_grid(tmp_path / "a.nii", 4.0, (8, 9, 10))
    assert (other.shape, other.spacing) == ((8, 9, 10), 4.0)
    with pytest.raises(ValueError, match="spacing"):
        common_grid(tmp_path / "a.nii", 0.0)


@pytest.mark.parametrize(
    "affine",
    [
        np.array([[-2.0, 0, 0, 38], [0, 2, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]]),
        np.array([[0, 0, 1.0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]]),
    ],
)
def test_volumes_on_other_grids_agree_in_the_world(affine: np.ndarray) -> None:
    grid = CommonGrid((16, 18, 20), AFFINE)
    other = ball(affine, (20, 18, 20) if affine[0, 0] < 0 else (36, 40, 32))
    assert grid.agrees(ball())
    assert not grid.agrees(other)
    difference = resampled_image(other, grid, "other") - resampled_image(ball(), grid, "one")
    assert float(difference.abs().max()) < 0.05
    labels = resampled_labels(Volume((other.data > 50).astype(np.int16), other.affine), grid, "other")
    assert labels.dtype == torch.int64
    assert float((labels == torch.from_numpy(ball().data > 50)).float().mean()) > 0.98


def test_images_lie_between_0_and_1() -> None:
    image = resampled_image(ball(), CommonGrid((16, 18, 20), AFFINE), "ball")
    assert (float(image.min()), float(image.max())) == (0, 1)


@pytest.mark.parametrize(
    ("data", "affine", "words"),
    [
        (np.full((16, 18, 20), np.nan), AFFINE, "NaN"),
        (np.ones((16, 18, 20)), AFFINE, "constant"),
        (np.eye(16)[..., None].repeat(9, -1), np.diag([2, 2, 2, 1.0]) + 1e3 * np.eye(4, k=3), "tenth"),
    ],
)
def test_refused_images(data: np.ndarray, affine: np.ndarray, words: str) -> None:
    with pytest.raises(ValueError, match=f"it.nii.*{words}"):
        resampled_image(Volume(data, affine), CommonGrid((16, 18, 20), AFFINE), "it.nii")


def test_refused_labels() -> None:
    with pytest.raises(ValueError, match="whole numbers"):
        resampled_labels(Volume(np.full((4, 4, 4), 0.5), AFFINE), CommonGrid((4, 4, 4), AFFINE), "it.nii")


def test_a_collection_reads_once_and_says_what_it_resampled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "a.nii", labels=True)
    write_volume(tmp_path / "b.nii", ball(np.diag([1.0, 1, 1, 1]), (32, 36, 40)))
    volumes = Collection(
        [Source(tmp_path / "a.nii", tmp_path / "labels" / "a.nii"), Source(tmp_path / "b.nii")],
        common_grid(tmp_path / "a.nii"),
    )
    assert len(volumes) == 2
    assert set(volumes[0]) == {"image", "labels"}
    assert volumes[0] is volumes[0]
    assert volumes[1]["image"].shape == (16, 18, 20)
    assert volumes.resampled == [str(tmp_path / "b.nii")]
    monkeypatch.setattr(collection, "_MEMORY", 0)
    frugal = Collection(volumes.sources, volumes.grid)
    assert frugal[0] is frugal[0]
    assert frugal[1] is not frugal[1]
    assert torch.equal(frugal[1]["image"], volumes[1]["image"])


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 8, 3)])
def test_volumes_of_other_dimensions_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    import nibabel

    nibabel.save(nibabel.Nifti1Image(np.ones(shape, np.uint8), np.eye(4)), tmp_path / "a.nii")
    with pytest.raises(ValueError, match="dimensions"):
        Collection([Source(tmp_path / "a.nii")], common_grid(tmp_path / "a.nii"))[0]
