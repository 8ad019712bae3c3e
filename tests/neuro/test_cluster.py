"""The same cubes on a cluster of two workers."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from invlearn.io.stacks import write_stack
from invlearn.neuro.segmentation import How, segment
from invlearn.neuro.waveunet import WaveUNet3D
from invlearn.training import save_network

distributed = pytest.importorskip("distributed")


def files(folder: Path) -> tuple[Path, Path]:
    """A stack in Zarr and weights."""
    pytest.importorskip("zarr")
    x = np.random.default_rng(0).normal(20, 4, (24, 100, 120))
    x[8:12, 30:34] += 90
    write_stack(folder / "s.zarr", x.astype(np.float32), (0.5, 0.5, 0.5))
    torch.manual_seed(0)
    save_network(folder / "w.safetensors", WaveUNet3D(width=1), {})
    return folder / "s.zarr", folder / "w.safetensors"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A scheduler and two workers, each a process that is started again when it dies."""
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with warnings.catch_warnings(), distributed.LocalCluster(**options) as found:
        yield found


@pytest.mark.filterwarnings("ignore")
def test_two_workers_give_what_one_process_gives(tmp_path: Path, cluster: Any) -> None:
    source, weights = files(tmp_path)
    cube = (32, 64, 64)
    here = segment(source, weights=weights, output=tmp_path / "here", how=How(cube=cube))
    seen: list[int] = []
    there = segment(
        source,
        weights=weights,
        output=tmp_path / "there",
        how=How(cube=cube, scheduler=cluster.scheduler_address),
        progress=lambda done, total: seen.append(done),
    )
    assert here.cubes["all"] > 2
    assert seen == list(range(1, here.cubes["all"] + 1))
    assert np.array_equal(here.mask.array(), there.mask.array())
    assert here.foreground == there.foreground > 0


@pytest.mark.filterwarnings("ignore")
def test_a_worker_killed_midway_changes_nothing(tmp_path: Path, cluster: Any) -> None:
    source, weights = files(tmp_path)
    given: Any = {"weights": weights, "probability": True}
    here = segment(source, **given, how=How(cube=(32, 64, 64)))
    died: list[int] = []

    def kill_one(done: int, total: int) -> None:
        """The process of a worker that is at a cube."""
        busy = {name for name, state in cluster.scheduler.workers.items() if state.processing}
        found = [nanny.pid for nanny in cluster.workers.values() if nanny.worker_address in busy]
        if found and not died:
            os.kill(found[0], signal.SIGKILL)
            died.append(done)

    how = How(cube=(32, 64, 64), scheduler=cluster.scheduler_address, folder=tmp_path / "kept")
    there = segment(source, **given, how=how, progress=kill_one)
    assert died[0] < here.cubes["all"]
    assert float(here.probability.std()) > 0
    assert np.array_equal(here.probability, there.probability)
    assert np.array_equal(here.mask, there.mask)
    assert there.cubes == here.cubes
    assert not (tmp_path / "kept").exists()


def test_no_scheduler_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from invlearn.neuro import cluster

    monkeypatch.setattr(cluster, "_TIMEOUT", 0.2)
    source, weights = files(tmp_path)
    with pytest.raises(ValueError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        segment(source, weights=weights, how=How(scheduler="tcp://127.0.0.1:9"))


def test_without_dask_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    source, weights = files(tmp_path)
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ModuleNotFoundError, match=r"invlearn\[big\]"):
        segment(source, weights=weights, how=How(scheduler="tcp://127.0.0.1:9"))
