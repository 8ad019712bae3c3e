"""The wavelet study at tiny size; that its committed results are whole and the page says what they say."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from invlearn.wavelets import replace_downsampling

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "wavelet-networks.md"
RESULTS = ROOT / "benchmarks" / "results" / "wavelet_downsampling.json"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location(
        "wavelet_downsampling", ROOT / "examples" / "wavelet_downsampling.py"
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(autouse=True)
def _drawn_digits(monkeypatch):
    monkeypatch.delenv("INVLEARN_DATA", raising=False)


def test_noises_grow_with_severity_and_repeat(example):
    x, _ = example.drawn_digits(40, example.np.random.default_rng(0))
    for noise in example.NOISES:
        errors = [float((example.noisy(x, noise, s) - x).square().mean()) for s in example.SEVERITIES]
        assert errors == sorted(errors)
        assert errors[0] > 0
        assert torch.equal(example.noisy(x, noise, 3), example.noisy(x, noise, 3))
        assert not torch.equal(example.noisy(x, noise, 3), example.noisy(x, noise, 3, seed=1))
        low, high = example.noisy(x, noise, 5).aminmax()
        assert (low >= 0 and high <= 1) == (noise != "unclipped gaussian")


def test_noise_strengths_are_those_said(example):
    grey = torch.full((1, 1, 300, 300), 0.5)
    assert float(example.noisy(grey, "unclipped gaussian", 2).std()) == pytest.approx(0.12, rel=0.02)
    assert float(example.noisy(grey, "speckle", 1).std()) == pytest.approx(0.5 * 0.15, rel=0.02)
    assert float(example.noisy(grey, "shot", 1).var()) == pytest.approx(0.5 / 60, rel=0.05)
    assert float((example.noisy(grey, "impulse", 5) != 0.5).float().mean()) == pytest.approx(0.27, rel=0.03)


def test_drawn_digits_can_be_told_apart(example):
    x, y = example.drawn_digits(400, example.np.random.default_rng(0))
    assert x.shape == (400, 1, 28, 28)
    assert 0 <= x.min() < 0.05
    assert 0.9 < x.max() <= 1
    means = torch.stack([x[:200][y[:200] == label].mean(0) for label in range(10)])
    nearest = (x[200:, None] - means).square().sum((2, 3, 4)).argmin(1)
    assert (nearest == y[200:]).float().mean() > 0.6


def test_filaments_are_brighter_inside_their_masks(example):
    x, y = example.filaments(6, 32, seed=0)
    assert x.shape == (6, 1, 32, 32)
    assert 0.01 < y.float().mean() < 0.4
    assert x[:, 0][y == 1].min() > x[:, 0][y == 0].mean()
    assert not torch.equal(x, example.filaments(6, 32, seed=1)[0])


def test_networks_are_converted_as_wavecnets_are(example):
    counts = {
        name: [r.kind for r in replace_downsampling(network((2, 3, 4))).replacements]
        for name, network in example.NETWORKS.items()
    }
    assert counts["VGG"] == ["max-pool"] * 3
    assert sorted(counts["ResNet"]) == ["max-pool", *["strided convolution"] * 2, *["strided shortcut"] * 2]


def test_overlap_by_hand(example):
    class Threshold(torch.nn.Module):
        def forward(self, x):
            return torch.cat([0.5 - x, x - 0.5], dim=1)

    x = torch.tensor([1.0, 1.0, 0.0, 0.0]).reshape(1, 1, 2, 2)
    y = torch.tensor([1, 0, 1, 0]).reshape(1, 2, 2)
    assert example.overlap(Threshold(), x, y) == pytest.approx(1 / 3)
    assert example.accuracy(Threshold(), x, y) == pytest.approx(1 / 2)


def test_training_learns(example):
    x, y = example.drawn_digits(200, example.np.random.default_rng(0))
    torch.manual_seed(0)
    model = example.vgg((8, 16))
    example.train(model, x, y, epochs=10, seed=0, batch=20)
    assert example.accuracy(model, x, y) > 0.5


def test_study_runs_resumes_and_draws(example, tmp_path, monkeypatch, capsys):
    out = tmp_path / "results.json"
    monkeypatch.setattr(sys, "argv", ["study", "--tiny", "--out", str(out), "--figures", str(tmp_path)])
    example.main()
    assert len(list(tmp_path.glob("*.png"))) == 4
    written = json.loads(out.read_text())
    assert written["settings"]["digits from"] == "drawn seven-segment digits"
    assert [len(written[part]) for part in ("classification", "conversion", "segmentation")] == [8, 2, 6]
    printed = capsys.readouterr().out
    assert "| VGG | haar |" in printed
    # a run that lost its last result computes that one alone
    last = written["segmentation"].pop()
    out.write_text(json.dumps(written))
    for function in ("classify", "convert"):
        monkeypatch.setattr(example, function, None)
    again = example.study(example.TINY, out)["segmentation"][-1]
    assert {**again, "cpu_seconds": 0} == {**last, "cpu_seconds": 0}
    with pytest.raises(SystemExit, match="results of other settings"):
        example.study(replace(example.TINY, seeds=(1,)), out)


def test_committed_results_are_whole_and_the_page_shows_them(example):
    results = json.loads(RESULTS.read_text())
    seeds = example.Size().seeds
    for part, kinds in (
        ("classification", 2 * (1 + len(example.WAVELETS))),
        ("conversion", 2),
        ("segmentation", len(example.UNETS)),
    ):
        assert len(results[part]) == kinds * len(seeds)
    expected = json.loads(json.dumps(example.asdict(example.Size())))
    assert expected.items() <= results["settings"].items()
    page = PAGE.read_text()
    for line in example.tables(results).splitlines():
        assert line in page
    for figure in re.findall(r"\]\((figures/[^)]+)\)", page):
        assert (PAGE.parent / figure).is_file()


def test_the_code_on_the_page_runs():
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    assert len(blocks) >= 3
    for block in blocks:
        exec(block, {})
