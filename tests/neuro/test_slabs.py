"""Prediction slab by slab gives what the network gives as a whole, in less memory."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from invlearn.neuro import slabs
from invlearn.neuro.waveunet import WaveUNet3D

PAIRS = ("SegNet", "UNet_V1", "UNet_V2", "WaveSNet_V1", "WaveSNet_V2", "WaveSNet_V3", "WaveSNet_V4")


def network(pair: str = "WaveSNet_V3", **options: object) -> WaveUNet3D:
    """With statistics that are none of a fresh network, so that all layers count."""
    torch.manual_seed(0)
    made = WaveUNet3D(pair, width=2, **options)  # type: ignore[arg-type]
    for m in made.modules():
        if isinstance(m, nn.BatchNorm3d):
            nn.init.uniform_(m.running_mean, -0.1, 0.1)
            nn.init.uniform_(m.running_var, 0.5, 2)
    return made.eval()


@pytest.mark.parametrize("wavelet", ["haar", "db2"])
@pytest.mark.parametrize("pair", PAIRS)
def test_it_is_the_softmax_of_the_whole(pair: str, wavelet: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slabs, "_SLAB", 6)
    for classes, shape in (
        (2, (2, 32, 16, 16)),
        (3, (1, 23, 17, 19)),
        (2, (1, 8, 9, 21)),
        (2, (1, 9, 12, 8)),
    ):
        made, x = network(pair, wavelet=wavelet, classes=classes), torch.randn(shape)
        with torch.inference_mode():
            expected = made(x[:, None]).softmax(1)[:, -1]
            found = made.probability(x)
        assert found.dtype == torch.float32
        assert torch.allclose(found, expected, atol=2e-6)


def test_the_halo_is_what_the_convolutions_see(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slabs, "_SLAB", 6)
    made, x = network(), torch.randn(1, 32, 16, 16)
    with torch.inference_mode():
        expected = made(x[:, None]).softmax(1)[:, -1]
        whole = slabs._in_slabs
        monkeypatch.setattr(slabs, "_in_slabs", lambda axis, n, compute, halo=0: whole(axis, n, compute, 0))
        assert (made.probability(x) - expected).abs().max() > 1e-4


class Largest(TorchDispatchMode):
    """The numbers of elements of what operations return."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and not out._is_view():
            self.sizes.append(out.numel())
        return out


@pytest.mark.parametrize("shape", [(256, 16, 16), (16, 256, 16), (16, 16, 256)])
def test_nothing_but_the_features_is_as_large_as_the_stack(shape: tuple[int, int, int]) -> None:
    made, x = network().folded(), torch.randn(1, *shape)
    counted = {}
    for name, run in (("slabs", made.probability), ("whole", lambda x: made(x[:, None]))):
        with torch.no_grad(), Largest() as seen:
            run(x)
        counted[name] = sum(size >= 2 * x.numel() for size in seen.sizes)
    assert counted["slabs"] == 1  # the features of the finest level
    assert counted["whole"] > 5


def test_cuts_go_across_the_longest_axis_and_the_last_one_only_where_it_is_by_far() -> None:
    shapes = ((9, 5, 8), (5, 9, 8), (5, 6, 9), (5, 6, 13))
    assert [slabs.cut_axis(shape) for shape in shapes] == [0, 1, 1, 2]
