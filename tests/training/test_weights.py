"""Weights files: what goes in comes out, and what is damaged or for something else is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from invlearn.training import load_into, read_weights, write_weights

CARD = {"architecture": {"name": "net", "channels": [4, 8]}, "physics": {"m": 200, "masks": "ab12"}}


class Net(nn.Module):
    """A layer, complex coil maps, a counter: all the kinds of tensors a model may hold."""

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.layer = nn.Linear(2, width)
        self.maps = nn.Parameter(torch.randn(2, 2, dtype=torch.complex64))
        self.register_buffer("steps", torch.tensor(7))
        self.register_buffer("empty", torch.zeros(0))


def test_round_trip_is_exact(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, other = Net(), Net()
    write_weights(tmp_path / "net.safetensors", net, CARD)
    state, card = read_weights(tmp_path / "net.safetensors")
    assert card == CARD
    assert json.loads((tmp_path / "net.json").read_text()) == CARD
    assert load_into(other, tmp_path / "net.safetensors", {"physics": {"m": 200}}) == CARD
    for name, value in net.state_dict().items():
        assert torch.equal(value, state[name])
        assert torch.equal(value, other.state_dict()[name])
        assert value.dtype == state[name].dtype
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.json", "net.safetensors"]


def test_other_readers_of_safetensors_find_the_tensors(tmp_path: Path) -> None:
    write_weights(tmp_path / "w.safetensors", {"a": torch.arange(4.0)[::2]}, {})
    loaded = safetensors.torch.load_file(tmp_path / "w.safetensors")
    assert torch.equal(loaded["a"], torch.tensor([0.0, 2.0]))


def test_shared_and_strided_tensors_keep_their_values(tmp_path: Path) -> None:
    base = torch.arange(6.0).reshape(2, 3)
    write_weights(tmp_path / "w.safetensors", {"a": base, "b": base.T, "c": base}, {})
    state, _ = read_weights(tmp_path / "w.safetensors")
    assert torch.equal(state["b"], base.T)
    assert torch.equal(state["c"], base)


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    write_weights(path, {"a": torch.zeros(1)}, {})
    with pytest.raises(FileExistsError, match="overwrite=True"):
        write_weights(path, {"a": torch.ones(1)}, {})
    write_weights(path, {"a": torch.ones(1)}, {}, overwrite=True)
    assert read_weights(path)[0]["a"].item() == 1


@pytest.mark.parametrize("place", [0, 40, -1, "half"])
def test_a_damaged_file_is_refused(tmp_path: Path, place: int | str) -> None:
    path = tmp_path / "w.safetensors"
    write_weights(path, Net(), CARD)
    data = bytearray(path.read_bytes())
    if isinstance(place, str):
        data = data[: len(data) // 2]
    else:
        data[place] ^= 0x41
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"damaged|not written by invlearn"):
        read_weights(path)


@pytest.mark.parametrize("position", range(20))
def test_every_flipped_bit_of_the_tensors_is_seen(tmp_path: Path, position: int) -> None:
    path = tmp_path / "w.safetensors"
    write_weights(path, {"a": torch.arange(5.0)}, CARD)
    data = bytearray(path.read_bytes())
    data[-20 + position] ^= 1 << (position % 8)
    path.write_bytes(data)
    with pytest.raises(ValueError, match="damaged"):
        read_weights(path)


def test_a_changed_card_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    write_weights(path, {"a": torch.arange(5.0)}, CARD)
    path.write_bytes(path.read_bytes().replace(b"ab12", b"ab13"))
    with pytest.raises(ValueError, match="damaged"):
        read_weights(path)


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    safetensors.torch.save_file({"a": torch.zeros(2)}, tmp_path / "foreign.safetensors")
    with pytest.raises(ValueError, match="not written by invlearn"):
        read_weights(tmp_path / "foreign.safetensors")
    torch.save({"a": torch.zeros(2)}, tmp_path / "pickle.safetensors")
    with pytest.raises(ValueError, match="no safetensors file"):
        read_weights(tmp_path / "pickle.safetensors")
    with pytest.raises(FileNotFoundError, match="no weights at"):
        read_weights(tmp_path / "absent.safetensors")


def test_weights_for_something_else_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    write_weights(path, Net(), CARD)
    expect = {"physics": {"m": 100, "masks": "ab12"}, "architecture": {"depth": 3}}
    with pytest.raises(ValueError, match=r"physics.m is 200 in the file and 100 here.*nothing of architect"):
        load_into(Net(), path, expect)
    with pytest.raises(ValueError, match=r"layer.weight is \(3, 2\) in the file and \(5, 2\) here"):
        load_into(Net(width=5), path)
    with pytest.raises(ValueError, match=r"0.weight is missing.*layer.weight has no place in this Seq"):
        load_into(nn.Sequential(nn.Linear(2, 2)), path)
    real = Net()
    real.maps = nn.Parameter(torch.zeros(2, 2))
    with pytest.raises(ValueError, match=r"maps is torch\.complex64 in the file and torch\.float32 here"):
        load_into(real, path)


def test_a_refused_file_leaves_the_model_alone(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    write_weights(path, Net(), CARD)
    net = Net()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(ValueError, match="not for this model"):
        load_into(net, path, {"physics": {"m": 1}})
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    good: dict[str, Tensor] = {"a": torch.zeros(1)}
    with pytest.raises(ValueError, match=r"\.safetensors file"):
        write_weights(tmp_path / "w.pt", good, {})
    with pytest.raises(ValueError, match="plain types"):
        write_weights(tmp_path / "w.safetensors", good, {"a": np.zeros(2)})
    with pytest.raises(ValueError, match="plain types"):
        write_weights(tmp_path / "w.safetensors", good, {"a": float("nan")})
    with pytest.raises(ValueError, match="the weights a have NaN"):
        write_weights(tmp_path / "w.safetensors", {"a": torch.tensor([float("nan")])}, {})
    assert list(tmp_path.iterdir()) == []


def test_extra_state_is_refused(tmp_path: Path) -> None:
    class Odd(nn.Module):
        def get_extra_state(self) -> dict[str, int]:
            return {"a": 1}

    with pytest.raises(TypeError, match="hold tensors only"):
        write_weights(tmp_path / "w.safetensors", Odd(), {})
