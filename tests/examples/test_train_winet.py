"""The script that trains WiNet on brains, at tiny size, on drawn heads."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from invlearn.io import Volume, write_volume
from invlearn.registration.fields import compose, exponential, warp
from invlearn.registration.synthesis import Synthesis
from invlearn.registration.winet import load_winet

SCRIPT = Path(__file__).parents[2] / "examples" / "train_winet.py"
TINY = ["--shape", "16", "16", "16", "--width", "2", "--pairs", "2", "--batch", "1"]


def test_example_writes_weights_with_a_card_and_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("INVLEARN_DATA", raising=False)
    main = runpy.run_path(str(SCRIPT))["main"]
    card = main([str(tmp_path), "--epochs", "1", *TINY])
    assert card["data"] == "drawn ellipsoids"
    assert card["training"]["steps"] == 2
    measured = card["held_back"]
    assert 40 < measured["dice_percent_before"] < 95
    assert abs(measured["dice_percent_after"] - measured["dice_percent_before"]) < 20
    assert load_winet(tmp_path / "winet_brain_t1.safetensors").width == 2
    again = main([str(tmp_path), "--epochs", "1", "--resume", *TINY])
    assert again == card


def test_a_number_is_always_the_same_pair_and_others_differ() -> None:
    module = runpy.run_path(str(SCRIPT))
    heads = module["drawn"]((16, 16, 16), 0)[0]
    first, again, other = (module["Drawn"](heads, 20, module["SYNTHESIS"], s) for s in (0, 0, 1))
    assert len(first) == 20
    for i in range(8):
        pair = first[i]
        assert all(torch.equal(pair[name], again[i][name]) for name in pair)
        assert not torch.equal(pair["moving"], other[i]["moving"])
        assert set(pair) == {"moving", "fixed", "moving_target", "fixed_target", "velocity"}
    assert not torch.equal(first[0]["moving"], first[1]["moving"])


def test_the_velocity_brings_any_two_onto_one_another() -> None:
    """Two heads, one twice, labels in other contrasts, shapes: whatever the pair."""
    module = runpy.run_path(str(SCRIPT))
    heads = [{**head, "image": head["labels"] / 4} for head in module["drawn"]((24, 24, 24), 0)[0]]
    still = Synthesis(displacement=2.0, scales=(16.0, 8.0), gamma=0.0, bias=0.0, noise=0.0)
    pairs = module["Drawn"](heads, 30, still, 0)
    before, after, kinds = [], [], set()
    for pair in (pairs[i] for i in range(30)):
        moved = warp(pair["moving_target"], exponential(pair["velocity"]))
        inner = (slice(3, -3),) * 3  # what moved in from outside is not known
        before.append(float((pair["moving_target"] - pair["fixed_target"])[inner].abs().mean()))
        after.append(float((moved - pair["fixed_target"])[inner].abs().mean()))
        kinds.add(torch.equal(pair["moving"], pair["moving_target"]))
    assert np.mean(after) < 0.6 * np.mean(before)
    assert kinds == {True, False}  # drawn in a contrast of its own, or not
    large = module["Drawn"](heads, 30, Synthesis(displacement=0.0), 0)
    same = [bool((large[i]["velocity"].abs() < 1e-3).all()) for i in range(30)]
    assert 0.3 < np.mean(same) < 0.9  # of one head


def test_shapes_fill_the_brain_and_differ() -> None:
    shapes = runpy.run_path(str(SCRIPT))["shapes"]
    inside = torch.zeros(20, 20, 20, dtype=torch.bool)
    inside[4:16, 4:16, 4:16] = True
    one, other = (shapes(inside, torch.Generator().manual_seed(k)) for k in (0, 1))
    assert torch.equal(one > 0, inside)
    assert len(one.unique()) > 4
    assert float((one == other)[inside].double().mean()) < 0.5


def head(shape: tuple[int, int, int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A skull (6) around fluid (1), grey (2) and white matter (3) with some glia (8), and its image."""
    axes = np.meshgrid(*[np.linspace(-1.1, 1.1, n) for n in shape], indexing="ij")
    x, y, z = axes
    folds = 0.06 * np.cos(5 * np.arctan2(y, x) + seed) * np.cos(4 * z)
    radius = np.sqrt(x**2 + y**2 + z**2) + folds
    labels = np.select([radius < r for r in (0.1, 0.45, 0.65, 0.75, 0.95)], [8, 3, 2, 1, 6], 0)
    image = np.select([labels == k for k in (8, 3, 2, 1, 6)], [0.8, 1.0, 0.6, 0.25, 0.45], 0.0)
    return labels.astype(np.uint8), (1000 * ndimage.gaussian_filter(image, 0.5)).astype(np.float32)


def test_brains_are_read_stripped_and_put_onto_one_grid(tmp_path: Path) -> None:
    """A folder with the names of the real files, of drawn heads."""
    shape, place = (26, 30, 26), np.diag([8.0, 8.0, 8.0, 1.0])
    labels, image = head(shape)
    files = {
        "brains/colin27_ch2_t1_1mm": image,
        "mrf/brainweb_normal_crisp_labels_1mm": labels,
        "brains/fireants_atlas_2mm_1000_3": head(shape, 1)[1],
        "brains/fireants_atlas_2mm_1001_3": head(shape, 2)[1],
    }
    for kind, data in (
        ("t1", image * (labels != 6)),
        ("gm", 255 * (labels == 2)),
        ("wm", 255 * (labels == 3)),
    ):
        files[f"brains/mni_icbm152_{kind}_tal_nlin_sym_09a_converted"] = data.astype(np.float32)
    for name, data in files.items():
        path = tmp_path / "data" / f"{name}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_volume(path, Volume(data, place))
    brains = runpy.run_path(str(SCRIPT))["brains"]
    learnt, held_back, told = brains(tmp_path / "data", tmp_path / "out", 8.0, shape)
    assert "held back" in told
    assert [set(one) for one in learnt] == [{"image", "labels", "there", "back"}] * 3
    assert not learnt[0]["there"].any()
    for one in learnt[1:]:
        carried = warp(learnt[0]["image"], one["there"])
        assert np.corrcoef(carried.flatten(), one["image"].flatten())[0, 1] > 0.9
        assert float(compose(one["there"], one["back"]).abs().mean()) < 0.05
    assert [sorted(one["labels"].unique().tolist()) for one in held_back] == [[0, 1, 2]] * 2
    skull, brain = labels == 6, np.isin(labels, (1, 2, 3, 8))
    for one in learnt:
        assert one["image"].shape == shape
        values = one["image"].numpy()
        assert values[brain].mean() > 5 * values[skull].mean()  # whatever of the skull is left is its rim
