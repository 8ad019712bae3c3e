"""Checkpoints: two are kept, damage is seen, nothing is unpickled."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.utils.data import TensorDataset

from invlearn.training import Settings, train
from invlearn.training.checkpoint import find_checkpoint, read_checkpoint, write_checkpoint

BASE = Settings(batch_size=4, accelerator="cpu", progress=False)
DATA = TensorDataset(torch.arange(12.0)[:, None])


class Task(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, batch: list[Tensor], generator: Generator) -> Tensor:
        return (batch[0] * self.weight - 1).square().mean()


def test_two_checkpoints_are_kept(tmp_path: Path) -> None:
    for epoch in (1, 2, 3):
        assert write_checkpoint(tmp_path, {"epoch": epoch}) == tmp_path / "last.ckpt"
    assert read_checkpoint(tmp_path / "last.ckpt")["epoch"] == 3
    assert read_checkpoint(tmp_path / "previous.ckpt")["epoch"] == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last.ckpt", "previous.ckpt"]


def test_a_run_killed_between_two_files_goes_on_from_the_one_before(tmp_path: Path) -> None:
    assert find_checkpoint(tmp_path) is None
    write_checkpoint(tmp_path, {"epoch": 1})
    write_checkpoint(tmp_path, {"epoch": 2})
    (tmp_path / "last.ckpt").unlink()
    assert find_checkpoint(tmp_path) == tmp_path / "previous.ckpt"


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "foreign"])
def test_resuming_from_a_damaged_checkpoint_names_it_and_the_whole_one(tmp_path: Path, damage: str) -> None:
    settings = replace(BASE, folder=tmp_path)
    train(Task(), DATA, epochs=3, settings=settings)
    last = tmp_path / "last.ckpt"
    content = bytearray(last.read_bytes())
    if damage == "truncated":
        content = content[: len(content) // 2]
    elif damage == "flipped":
        content[content.index(b"<\x97\xda") if b"<\x97\xda" in content else len(content) // 3] ^= 0xFF
    elif damage == "empty":
        content = bytearray()
    else:
        torch.save({"epoch": 1}, last)
        content = bytearray(last.read_bytes())
    last.write_bytes(content)
    with pytest.raises(ValueError, match=r"last\.ckpt cannot be used: .*resume='.*previous\.ckpt'"):
        train(Task(), DATA, epochs=4, settings=replace(settings, resume=True))
    resumed, unbroken = Task(), Task()
    train(resumed, DATA, epochs=4, settings=replace(settings, resume=tmp_path / "previous.ckpt"))
    train(unbroken, DATA, epochs=4, settings=BASE)
    assert torch.equal(resumed.weight, unbroken.weight)


def test_without_a_whole_one_that_is_said(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, {"epoch": 1})
    (tmp_path / "last.ckpt").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="no whole checkpoint beside it"):
        read_checkpoint(tmp_path / "last.ckpt")
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        read_checkpoint(tmp_path / "absent.ckpt")


class Trap:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return open, ("trap-was-sprung", "w")  # type: ignore[return-value]


def test_nothing_is_run_by_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"format": "invlearn checkpoint 1", "trap": Trap()}, tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match="truncated or damaged"):
        read_checkpoint(tmp_path / "last.ckpt")
    (tmp_path / "previous.ckpt").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ValueError, match="truncated or damaged"):
        read_checkpoint(tmp_path / "previous.ckpt")
    assert not (tmp_path / "trap-was-sprung").exists()


def test_a_failed_write_leaves_the_last_one(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, {"epoch": 1})
    with pytest.raises((AttributeError, TypeError, pickle.PicklingError)):
        write_checkpoint(tmp_path, {"epoch": lambda: 2})
    assert read_checkpoint(tmp_path / "last.ckpt")["epoch"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]
