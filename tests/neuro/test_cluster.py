"""The same cubes on a cluster of two workers."""

from __future__ import annotations

import warnings
from pathlib import Path

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


@pytest.mark.filterwarnings("ignore")
def test_two_workers_give_what_one_process_gives(tmp_path: Path) -> None:
    source, weights = files(tmp_path)
    cube = (32, 64, 64)
    here = segment(source, weights=weights, output=tmp_path / "here", how=How(cube=cube))
    with (
        warnings.catch_warnings(),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
    ):
        seen: list[int] = []
        how = How(cube=cube, scheduler=cluster.scheduler_address)
        there = segment(
            source,
            weights=weights,
            output=tmp_path / "there",
            how=how,
            progress=lambda done, total: seen.append(done),
        )
    assert here.cubes["all"] > 2
    assert seen == list(range(1, here.cubes["all"] + 1))
    assert np.array_equal(here.mask.array(), there.mask.array())
    assert here.foreground == there.foreground > 0


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
