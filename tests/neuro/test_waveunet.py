"""The seven networks, their sizes, and what tiling relies on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from invlearn.neuro.waveunet import MULTIPLE, REACH, WaveUNet3D, load_waveunet
from invlearn.training import save_network, write_weights

SEVEN = ("SegNet", "UNet_V1", "UNet_V2", "WaveSNet_V1", "WaveSNet_V2", "WaveSNet_V3", "WaveSNet_V4")
LEARNED = {  # in the ways up and down: 1 x 1 convolutions with w, 2w, 4w and 8w channels
    "UNet_V1": lambda w: sum(c * c + c for c in (w, 2 * w, 4 * w, 8 * w)),
    "UNet_V2": lambda w: sum(c * c + c for c in (w, 2 * w, 4 * w, 8 * w)),
    "WaveSNet_V2": lambda w: sum(c * c + c for c in (w, 2 * w, 4 * w, 8 * w)),
}


def trained(pair: str = "WaveSNet_V3", **options: object) -> WaveUNet3D:
    """A network whose batch normalisations have seen something."""
    torch.manual_seed(0)
    made = WaveUNet3D(pair, **options)
    for _ in range(3):
        made(torch.randn(2, 1, 32, 32, 32))
    return made.eval()


@pytest.mark.parametrize(("width", "count"), [(4, 203_122), (8, 810_594), (16, 3_238_594)])
def test_parameter_counts_of_the_reference(width: int, count: int) -> None:
    assert sum(p.numel() for p in WaveUNet3D(width=width).parameters()) == count


@pytest.mark.parametrize("pair", SEVEN)
def test_the_pairs_differ_in_what_their_ways_learn_alone(pair: str) -> None:
    count = sum(p.numel() for p in WaveUNet3D(pair, width=4).parameters())
    if pair == "SegNet":  # no skip: each level's first decoder convolution sees half the channels
        expected = 203_122 - sum(27 * c * c for c in (4, 8, 16, 32))
    else:
        expected = 203_122 + LEARNED.get(pair, lambda w: 0)(4)
    assert count == expected


@pytest.mark.parametrize("pair", SEVEN)
def test_all_seven_run_in_both_precisions(pair: str) -> None:
    made = trained(pair, width=2)
    x = torch.randn(1, 1, 16, 32, 32)
    with torch.no_grad():
        full = made(x)
        with torch.autocast("cpu", torch.bfloat16):
            half = made(x)
    assert full.shape == (1, 2, 16, 32, 32)
    assert half.dtype == torch.bfloat16
    assert float((full - half.float()).abs().mean()) < 0.05 * float(full.std())


def test_whole_weights_in_bfloat16() -> None:
    made = trained(width=2).to(torch.bfloat16)
    assert made(torch.randn(1, 1, 16, 16, 16, dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize(
    "options", [{"pair": "UNet_V1"}, {"width": 3}, {"wavelet": "bior2.2"}, {"classes": 3}], ids=str
)
def test_arguments_matter(options: dict) -> None:
    x = torch.randn(1, 1, 16, 32, 32)
    first, second = trained(width=2)(x), trained(**{"width": 2, **options})(x)
    assert first.shape != second.shape or float((first - second).detach().abs().max()) > 1e-3


@pytest.mark.parametrize("pair", ["WaveSNet_V3", "UNet_V1", "SegNet"])
def test_folding_the_normalisation_changes_nothing(pair: str) -> None:
    made = trained(pair, width=3)
    folded = made.folded()
    x = torch.randn(2, 1, 16, 32, 32)
    with torch.no_grad():
        assert torch.allclose(folded(x), made(x), atol=2e-5)
    assert not any(isinstance(m, nn.BatchNorm3d) for m in folded.modules())
    assert any(isinstance(m, nn.BatchNorm3d) for m in made.modules())


def test_on_one_thread_folded_networks_do_not_take_the_slow_convolution() -> None:
    from torch.profiler import ProfilerActivity, profile

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        made, x = trained(width=2), torch.randn(1, 1, 16, 16, 16)
        swift = {}
        for name, network in (("folded", made.folded()), ("plain", made)):
            with torch.no_grad(), profile(activities=[ProfilerActivity.CPU]) as seen:
                found = network(x)
            swift[name] = sum(event.name == "aten::mkldnn_convolution" for event in seen.events())
            assert torch.allclose(found, made(x), atol=2e-5)
    finally:
        torch.set_num_threads(threads)
    layers = sum(isinstance(m, nn.BatchNorm3d) for m in made.modules())
    assert swift["folded"] >= layers > swift["plain"]


def test_folded_networks_compute_in_other_precisions_too() -> None:
    made, x = trained(width=2), torch.randn(1, 1, 32, 32, 32)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        assert made.folded()(x).dtype == torch.bfloat16
    double = made.double()
    with torch.no_grad():
        assert torch.allclose(double.folded()(x.double()), double(x.double()), atol=1e-10)


def test_probability_is_the_softmax_of_the_last_class() -> None:
    x = torch.randn(2, 16, 16, 16)
    for classes in (2, 3):
        made = trained(width=2, classes=classes)
        with torch.no_grad():
            expected = made(x[:, None]).softmax(1)[:, -1]
            assert torch.allclose(made.probability(x), expected, atol=1e-6)


@pytest.mark.parametrize("pair", ["WaveSNet_V3", "UNet_V1"])
def test_nothing_beyond_the_reach_matters(pair: str) -> None:
    made = WaveUNet3D(pair, width=1).double().eval()
    for m in made.modules():
        if isinstance(m, nn.Conv3d | nn.ConvTranspose3d):  # positive: no path is switched off
            nn.init.uniform_(m.weight, 0.01, 0.1)
            nn.init.zeros_(m.bias)
    x = torch.rand(1, 1, 16, 16, 256, dtype=torch.float64, requires_grad=True)
    y = made(x)
    furthest = 0
    for place in (112, 119, 120, 127):
        (gradient,) = torch.autograd.grad(y[0, 1, 8, 8, place], x, retain_graph=True)
        seen = gradient.abs().sum((0, 1, 2, 3)).nonzero().flatten()
        furthest = max(furthest, place - int(seen.min()), int(seen.max()) - place)
    assert 80 < furthest <= REACH


def test_the_network_commutes_with_shifts_by_sixteen_and_not_by_eight() -> None:
    made = trained(width=2).double()
    x = torch.rand(1, 1, 16, 16, 272, dtype=torch.float64)
    with torch.no_grad():
        y = made(x)
        for shift, alike in ((MULTIPLE, True), (MULTIPLE // 2, False)):
            moved = made(x[..., shift:])
            inner = slice(REACH, -REACH)
            difference = float((moved[..., inner] - y[..., shift:][..., inner]).abs().max())
            assert (difference < 1e-10) == alike


def test_small_grids_stay_in_full_precision() -> None:
    made = WaveUNet3D(width=1)
    seen = {}
    for name, block in (("top", made.encoder[0]), ("bottom", made.bottom)):
        block.register_forward_hook(lambda m, i, o, name=name: seen.update({name: o.dtype}))
    with torch.autocast("cpu", torch.bfloat16):
        made(torch.randn(1, 1, 32, 32, 32))
    assert seen == {"top": torch.bfloat16, "bottom": torch.float32}


def test_weights_make_the_same_network_again(tmp_path: Path) -> None:
    made = trained("UNet_V2", width=2, classes=3)
    save_network(tmp_path / "w.safetensors", made, {"data": "noise"})
    again = load_waveunet(tmp_path / "w.safetensors")
    assert again.to_dict() == made.to_dict()
    x = torch.randn(1, 1, 16, 16, 16)
    with torch.no_grad():
        assert torch.equal(again(x), made(x))
    with pytest.raises(FileExistsError):
        save_network(tmp_path / "w.safetensors", made, {})


def test_weights_for_another_network_are_refused(tmp_path: Path) -> None:
    write_weights(tmp_path / "w.safetensors", nn.Linear(2, 2), {"network": {"kind": "WiNet"}})
    with pytest.raises(ValueError, match="are for WiNet, not for a WaveUNet3D"):
        load_waveunet(tmp_path / "w.safetensors")
    write_weights(
        tmp_path / "x.safetensors", nn.Linear(2, 2), {"network": {"kind": "WaveUNet3D", "pair": "SegNet"}}
    )
    with pytest.raises(ValueError, match="does not say the 'width'"):
        load_waveunet(tmp_path / "x.safetensors")
    with pytest.raises(FileNotFoundError, match="no weights at"):
        load_waveunet(tmp_path / "none.safetensors")


def test_the_shipped_weights_are_small_and_load() -> None:
    from invlearn.neuro.waveunet import SHIPPED

    assert SHIPPED.stat().st_size <= 6e6
    assert load_waveunet().to_dict()["pair"] == "WaveSNet_V3"
