"""Weights in files: whole or refused, for their sequence and for no other."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from invlearn.physics.mri import FingerprintSequence
from invlearn.training import save_network, write_weights
from invlearn.unrolled import pgdnet_weights as module
from invlearn.unrolled.pgdnet import PGDNet
from invlearn.unrolled.pgdnet_weights import (
    differences,
    load_pgdnet,
    require_sequence,
    shipped,
    weights_for,
)


@pytest.fixture
def file(small_network: PGDNet, tmp_path: Path) -> Path:
    save_network(tmp_path / "pgdnet_60.safetensors", small_network, {"data": "none"})
    return tmp_path / "pgdnet_60.safetensors"


def test_what_was_saved_is_loaded(file: Path, small_network: PGDNet) -> None:
    found = load_pgdnet(file)
    assert found.to_dict() == small_network.to_dict()
    assert found.sequence == small_network.sequence
    assert found.digest() == small_network.digest()
    for name, value in small_network.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], value, rtol=0, atol=0)
    assert not found.training
    card = json.loads(file.with_suffix(".json").read_text())
    assert card["data"] == "none"
    assert card["network"]["frames"] == 60
    with pytest.raises(FileExistsError):
        save_network(file, small_network, {})
    save_network(file, small_network, {}, overwrite=True)


def test_damaged_files(file: Path, tmp_path: Path) -> None:
    whole = file.read_bytes()
    for name, content in (("cut", whole[: len(whole) // 2]), ("changed", whole[:-9] + b"x" + whole[-8:])):
        bad = tmp_path / f"{name}.safetensors"
        bad.write_bytes(content)
        with pytest.raises(ValueError, match="damaged"):
            load_pgdnet(bad)
    with pytest.raises(FileNotFoundError, match="there are no weights at"):
        load_pgdnet(tmp_path / "none.safetensors")


def test_weights_of_something_else(small_network: PGDNet, tmp_path: Path) -> None:
    write_weights(tmp_path / "a.safetensors", torch.nn.Linear(2, 2), {"network": {"kind": "WiNet"}})
    with pytest.raises(ValueError, match="are for WiNet, not for a PGDNet"):
        load_pgdnet(tmp_path / "a.safetensors")
    write_weights(tmp_path / "b.safetensors", small_network, {"network": {"kind": "PGDNet"}})
    with pytest.raises(ValueError, match="does not say the 'sequence' of the PGDNet"):
        load_pgdnet(tmp_path / "b.safetensors")


def changed(sequence: FingerprintSequence, **change: Any) -> FingerprintSequence:
    return dataclasses.replace(sequence, **change)


def test_every_difference_is_named(small_network: PGDNet) -> None:
    known = small_network.sequence
    flip = known.flip_angle.copy()
    flip[7] *= 1.1
    cases: list[tuple[dict[str, Any], str]] = [
        ({"flip_angle": flip}, "flip_angle"),
        ({"phase": known.phase + 0.1}, "phase 5.73° instead of 0°"),
        ({"tr": known.tr + 1e-3}, "tr"),
        ({"te": known.te + 1e-3}, "te 2.908 ms instead of 1.908 ms"),
        ({"inversion_time": None}, "inversion_time None instead of 0.018"),
        ({"inversion_time": 0.02}, "inversion_time 0.02 instead of 0.018"),
        ({"inversion_efficiency": 0.9}, "inversion_efficiency"),
        ({"kind": "bssfp"}, "kind bssfp instead of fisp"),
        ({"slice_profile": np.array([[1.0, 1.0], [0.5, 1.0]])}, "another slice profile"),
    ]
    for change, words in cases:
        (found,) = differences(known, changed(known, **change))
        assert words in found
    assert "in frame 7" in next(differences(known, changed(known, flip_angle=flip)))
    assert list(differences(known, known.truncated(50))) == ["50 frames instead of 60"]
    rounded = changed(known, flip_angle=np.radians(np.round(np.degrees(known.flip_angle), 3)))
    assert list(differences(known, rounded)) == []


def test_other_sequences_and_ranks_are_refused(small_network: PGDNet) -> None:
    require_sequence(small_network, small_network.sequence, 6, "these")
    require_sequence(small_network, small_network.sequence, None, "these")
    with pytest.raises(ValueError, match=r"these are for another sequence: .* rank 5 instead of 6\. Train"):
        require_sequence(small_network, small_network.sequence, 5, "these")
    with pytest.raises(ValueError, match="this scan has 40 frames instead of 60"):
        require_sequence(small_network, FingerprintSequence.default(40), None, "these")


def test_the_package_finds_those_of_the_sequence(file: Path, small_network: PGDNet, tmp_path: Path) -> None:
    found = weights_for(FingerprintSequence.default(60), tmp_path)
    assert found.digest() == small_network.digest()
    with pytest.raises(
        ValueError, match=r"no PGD-Net weights for this sequence of 44 frames: .* of 60 frames"
    ):
        weights_for(FingerprintSequence.default(44), tmp_path)
    with pytest.raises(
        ValueError, match=r"no weights come with this .*invlearn mrf train MAPS_FOLDER -o DIR"
    ):
        weights_for(FingerprintSequence.default(60), tmp_path / "empty")
    assert shipped(tmp_path) == [file]


@pytest.mark.parametrize("path", shipped(), ids=lambda path: path.stem)
def test_what_ships_is_small_and_for_the_built_in_train(path: Path) -> None:
    assert path.stat().st_size <= 3_000_000
    network = load_pgdnet(path)
    assert weights_for(FingerprintSequence.default(network.sequence.frames)).digest() == network.digest()
    card = json.loads(path.with_suffix(".json").read_text())
    assert {"task", "data", "limits", "signals", "training", "held_back"} <= set(card)
    assert card["signals"]["decoder_error"] < 1e-3
    assert card["network"]["kind"] == module.KIND
