"""WiNet: its size, exact synthesis, any wavelet and any grid, both directions, files, prediction."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from torch import Tensor

from invlearn.registration import compose, jacobian_determinant, optimise, warp
from invlearn.registration.winet import WiNet, load_winet, weights_file
from invlearn.training import read_weights, save_network, write_weights
from invlearn.wavelets import band_names, dwt

ROOT = Path(__file__).parents[2]
WIDTH = 2
SHAPE = (32, 16, 16)


def volumes(shape: tuple[int, ...] = SHAPE, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator), torch.rand(shape, generator=generator)


def network(seed: int = 0, scale: float = 1.0, **options) -> WiNet:
    torch.manual_seed(seed)
    made = WiNet(**{"width": WIDTH, **options}).eval()
    with torch.no_grad():
        for head in made.heads:
            head.weight.mul_(scale)
    return made


def without_refinement(made: WiNet) -> WiNet:
    """The refinement passes the heads' details on: what is left is a plain inverse transform."""
    for block in made.refinement:
        block.forward = lambda coarse, head: head  # type: ignore[method-assign]
    return made


def test_the_published_size_part_by_part() -> None:
    made = WiNet()
    sizes = {name: sum(p.numel() for p in part.parameters()) for name, part in made.named_children()}
    # 3 x 3 x 3 convolutions with bias: 27 a b + b; transposed ones of 2 x 2 x 2: 8 a a + a
    conv = lambda a, b: 27 * a * b + b  # noqa: E731
    up = lambda a, s, b: 8 * a * a + a + conv(a + s, b) + conv(b, b)  # noqa: E731
    assert sizes["encoder"] == sum(
        conv(a, b) for a, b in ((16, 32), *3 * [(32, 32)], (32, 64), *3 * [(64, 64)])
    )
    assert sizes["decoder"] == up(64, 64, 64) + up(64, 32, 64) + up(64, 32, 32)
    assert sizes["heads"] == 27 * (64 * 24 + 64 * 21 + 32 * 21)
    assert sizes["refinement"] == 2 * (27 * 6 * 42 + 42 + 27 * 6 * 21 + 21)
    assert sizes["smoothing"] == 3 * 3 * 27
    assert sum(sizes.values()) == 1_418_573


@pytest.mark.parametrize("wavelet", ["haar", "db4", "bior2.2"])
def test_the_synthesis_inverts_three_levels_of_the_transform(wavelet: str) -> None:
    made = without_refinement(WiNet(wavelet, WIDTH)).double()
    field = torch.randn(2, 3, 32, 16, 48, dtype=torch.float64)
    low, levels = field / 16, []
    for _ in range(3):
        bands = dwt(low, wavelet, ndim=3)
        low = bands.pop("aaa")
        levels.append(torch.stack(list(bands.values()), 1))
    heads = [torch.cat([low[:, None], levels[2]], 1), levels[1], levels[0]]
    assert torch.allclose(made.synthesise(heads), field, atol=1e-10)


@pytest.mark.parametrize("wavelet", ["haar", "db2"])
def test_an_orthogonal_synthesis_keeps_the_energy(wavelet: str) -> None:
    made = without_refinement(WiNet(wavelet, WIDTH)).double()
    heads = [torch.randn(1, n, 3, *[size] * 3, dtype=torch.float64) for n, size in ((8, 4), (7, 8), (7, 16))]
    energy = sum(float(head.square().sum()) for head in heads)
    assert float((made.synthesise(heads).detach() / 16).square().sum()) == pytest.approx(energy, rel=1e-12)


def test_refinement_keeps_sub_bands_apart_and_takes_the_coarser_level() -> None:
    block = WiNet(width=WIDTH).refinement[0]
    coarse, head = torch.randn(1, 7, 3, 4, 4, 4), torch.randn(1, 7, 3, 8, 8, 8)
    before = block(coarse, head)
    assert before.shape == head.shape
    for changed in (0, 1):
        given = [coarse.clone(), head.clone()]
        given[changed][:, 2] += 1
        difference = (block(*given) - before).abs().amax((0, 2, 3, 4, 5))
        assert difference[2] > 0
        assert torch.equal(difference[[0, 1, 3, 4, 5, 6]], torch.zeros(6))


def test_the_second_refinement_sees_the_raw_head_and_not_the_first_ones_result() -> None:
    made = WiNet(width=WIDTH)
    heads = [torch.randn(1, n, 3, *[size] * 3) for n, size in ((8, 2), (7, 4), (7, 8))]
    seen = []
    made.refinement[1].register_forward_pre_hook(lambda module, given: seen.append(given))
    made.synthesise(heads)
    assert torch.equal(seen[0][0], heads[1])
    assert torch.equal(seen[0][1], heads[2])


@given(st.tuples(*3 * [st.integers(1, 34)]))
def test_any_size_gives_a_field_of_that_size(shape: tuple[int, int, int]) -> None:
    field = network()(*volumes(shape))
    assert field.shape == (3, *shape)
    assert torch.isfinite(field).all()


def test_leading_dimensions_are_batch() -> None:
    made = network(scale=10)
    moving, fixed = (torch.stack([x, x.flip(0)]) for x in volumes())
    both = made.output(moving, fixed)
    assert both.shape == (2, 3, *SHAPE)
    for k in range(2):
        assert torch.allclose(both[k], made.output(moving[k], fixed[k]), atol=1e-5)
    assert torch.equal(made.output(moving[None], fixed[None])[0], both)


def test_brightness_and_contrast_do_not_matter() -> None:
    made = network(scale=10)
    moving, fixed = volumes()
    assert torch.allclose(made.output(moving, fixed), made.output(1000 * moving - 7, fixed + 3), atol=1e-4)
    assert torch.isfinite(made.output(torch.full(SHAPE, 5.0), fixed)).all()


@pytest.mark.parametrize(
    ("options", "other"),
    [({"wavelet": "db4"}, {}), ({"width": 3}, {}), ({"diffeomorphic": False}, {})],
)
def test_arguments_matter(options: dict, other: dict) -> None:
    first, second = (network(scale=200, **given)(*volumes()) for given in (options, other))
    assert float((first - second).detach().abs().max()) > 1e-3


def test_exp_v_and_exp_minus_v_undo_one_another_and_do_not_fold() -> None:
    made = network(scale=50)
    given = volumes((32, 32, 32))
    with torch.no_grad():
        forward, back = made.both(*given)
        assert torch.equal(forward, made(*given))
    size = float(forward.square().sum(0).sqrt().max())
    assert size > 0.5
    inside = (slice(None), *3 * [slice(4, -4)])
    rest = compose(forward, back)[inside].square().sum(0).sqrt()
    assert float(rest.mean()) < 0.1 * size
    assert jacobian_determinant(forward).min() > 0


def test_a_displacement_has_an_inverse_too() -> None:
    made = network(scale=5, diffeomorphic=False)
    forward, back = made.both(*volumes())
    assert torch.equal(forward, made.output(*volumes()))
    assert float(compose(forward.detach(), back).abs().max()) < 0.02


def test_mixed_precision_is_close_and_the_field_stays_float32() -> None:
    made = network(scale=10, width=8)
    full = made(*volumes()).detach()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = made(*volumes()).detach()
    assert mixed.dtype == torch.float32
    assert not torch.equal(mixed, full)
    kinds = []
    made.encoder[3].register_forward_hook(lambda block, given, x: kinds.append(x.dtype))
    made.encoder[0].register_forward_hook(lambda block, given, x: kinds.append(x.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        made.output(*volumes())
    assert kinds == [torch.bfloat16, torch.float32]  # full precision on grids of a few voxels
    assert float((mixed - full).abs().max()) < 0.1 * float(full.abs().max())


def test_gradients_reach_every_parameter_that_instance_normalisation_lets_them_reach() -> None:
    made = network(scale=10).train()
    made(*volumes()).square().mean().backward()
    norms = {name: float(p.grad.abs().max()) for name, p in made.named_parameters() if p.grad is not None}
    assert set(norms) == {name for name, _ in made.named_parameters()}
    absorbed = {"encoder.0.0.bias", "encoder.0.3.bias"}  # the mean is taken out behind them
    assert {name for name, norm in norms.items() if norm < 1e-12} <= absorbed


@pytest.mark.parametrize(
    ("options", "word"),
    [({"width": 0}, "width"), ({"spacing": -1.0}, "spacing"), ({"wavelet": "harr"}, "haar")],
)
def test_refused_arguments(options: dict, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        WiNet(**options)


def test_refused_volumes() -> None:
    made = network()
    with pytest.raises(ValueError, match="on one grid"):
        made.output(torch.rand(16, 16, 16), torch.rand(16, 16, 18))
    with pytest.raises(ValueError, match="volumes"):
        made.output(torch.rand(16, 16, 0), torch.rand(16, 16, 0))
    with pytest.raises(ValueError, match="NaN"):
        made(torch.full((16, 16, 16), torch.nan), torch.rand(16, 16, 16))


# --- files ---


def test_weights_come_back_bit_for_bit(tmp_path: Path) -> None:
    made = network(seed=3, wavelet="db2", diffeomorphic=False, spacing=2.5)
    save_network(tmp_path / "w.safetensors", made, {"data": "random"})
    again = load_winet(tmp_path / "w.safetensors")
    assert again.to_dict() == made.to_dict()
    assert not again.training
    assert torch.equal(again(*volumes()), made(*volumes()))
    assert read_weights(tmp_path / "w.safetensors")[1]["data"] == "random"


def test_weights_for_something_else_are_refused(tmp_path: Path) -> None:
    made, path = network(), tmp_path / "w.safetensors"
    write_weights(path, made, {"network": {"kind": "UNet"}})
    with pytest.raises(ValueError, match="UNet"):
        load_winet(path)
    write_weights(path, made, {}, overwrite=True)
    with pytest.raises(ValueError, match="something else"):
        load_winet(path)
    write_weights(path, made, {"network": {"kind": "WiNet", "wavelet": "haar"}}, overwrite=True)
    with pytest.raises(ValueError, match="width"):
        load_winet(path)
    write_weights(path, made, {"network": {**made.to_dict(), "width": 3}}, overwrite=True)
    with pytest.raises(ValueError, match=r"encoder\.0\.0\.weight is"):
        load_winet(path)
    with pytest.raises(FileNotFoundError, match=r"nowhere"):
        load_winet(tmp_path / "nowhere.safetensors")


def test_the_weights_that_come_along_are_found_by_their_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = weights_file("brain_t1")
    assert found.stat().st_size <= 6e6
    made = load_winet("brain_t1")
    assert (made.width, made.spacing, made.diffeomorphic) == (16, 6.0, True)
    card = read_weights(found)[1]
    assert card["held_back"]["dice_percent_after"] > card["held_back"]["dice_percent_before"] + 3
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"brain_t2 does not exist.*brain_t1"):
        weights_file("brain_t2")
    (tmp_path / "brain_t1").write_text("a file of that name")  # what the user has goes first
    assert weights_file("brain_t1") == Path("brain_t1")


def test_the_weights_that_come_along_see_what_moved() -> None:
    """A brain of shells, drawn, not one of those that were learned from: part of a shift is found."""
    axes = np.meshgrid(*[np.linspace(-96, 96, 33)[:-1] + 3] * 3, indexing="ij")

    def brain(shift: float) -> torch.Tensor:
        x, y, z = axes[0] / 66, (axes[1] - shift) / 82, axes[2] / 62
        radius = np.sqrt(x**2 + y**2 + z**2)
        levels = [radius < r for r in (0.2, 0.7, 0.85, 1.0)]
        image = np.select(levels, [0.2, 0.95, 0.65, 0.25], 0.0)
        return torch.from_numpy(ndimage.gaussian_filter(image, 0.7)).float()

    moving, fixed = brain(6.0), brain(-6.0)
    with torch.no_grad():
        field = load_winet("brain_t1")(moving, fixed)
    inside = fixed > 0.1
    before, after = (float((warped - fixed)[inside].abs().mean()) for warped in (moving, warp(moving, field)))
    assert after < 0.9 * before
    assert float(field[1][inside].mean()) > 0.1  # voxels of 6 mm, of 2: a beginning


def test_a_prediction_is_a_start_for_the_optimiser() -> None:
    made = network(scale=10)
    axes = torch.meshgrid(*[torch.linspace(-1, 1, 24)] * 3, indexing="ij")
    fixed = torch.exp(-3 * sum((x**2 for x in axes), torch.zeros(())))
    moving = warp(fixed, torch.full((3, 24, 24, 24), 1.0))
    start = made(moving, fixed).detach()
    found = optimise(fixed, moving, iterations=(10, 5), initial=start)
    unmoved = optimise(fixed, moving, iterations=0, initial=start)
    assert torch.allclose(unmoved.field, start, atol=1e-5)
    before, after = ((warp(moving, u) - fixed).square().mean() for u in (start, found.field))
    assert after < before
    assert jacobian_determinant(found.field).min() > 0


def test_band_order_is_that_of_the_transforms() -> None:
    """The heads' first band is the low-pass one, the others follow `band_names`."""
    made = without_refinement(WiNet(width=WIDTH)).double()
    names = band_names(3)
    for k, name in itertools.islice(enumerate(names), 0, None, 3):
        heads = [
            torch.zeros(1, n, 3, *[size] * 3, dtype=torch.float64) for n, size in ((8, 2), (7, 4), (7, 8))
        ]
        heads[0][0, k, 1, 0, 0, 0] = 1
        field = made.synthesise(heads)[0].detach()
        low = field[1]
        for _ in range(2):
            low = dwt(low, "haar", ndim=3)["aaa"]
        bands = dwt(low, "haar", ndim=3)
        assert float(bands[name][0, 0, 0]) == pytest.approx(16)
        assert float(field[[0, 2]].abs().max()) == 0


def test_the_page_has_the_measured_numbers() -> None:
    measured = json.loads((ROOT / "benchmarks" / "results" / "winet.json").read_text())
    page = (ROOT / "docs" / "winet.md").read_text(encoding="utf-8")
    assert measured["shape"] == [160, 192, 224]
    for row in measured["networks"]:
        numbers = f"{row['cpu_seconds']:.1f} | {row['peak_gib_beyond_inputs']:.1f}"
        assert f"| {row['name']} | {row['parameters']:,} | {numbers} |" in page
