"""Do wavelets instead of pooling make networks robust to noise? Digits, and filaments to segment.

    python examples/wavelet_downsampling.py --out results.json --figures figures [--tiny]

Trains small VGGs and ResNets with ordinary and with wavelet down-sampling on 5,000 MNIST digits (found
through the environment variable INVLEARN_DATA; drawn digits without it), tests them on the noises of
ImageNet-C, then trains U-Nets and SegNets with and without wavelets on drawn filaments. A run that was
stopped goes on where it was: what `--out` already holds is not computed again.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from invlearn.wavelets import EncoderDecoder, replace_downsampling

WAVELETS = ("haar", "db2", "bior3.3")
UNETS = ("SegNet", "WaveSegNet", "UNet_V1", "UNet_V2", "WaveSNet_V3", "WaveSNet_V4")
Noise = Callable[[Tensor, float, torch.Generator], Tensor]
# The strengths of ImageNet-C at its five severities: Hendrycks, Dietterich, arXiv:1903.12261. As there,
# images are clipped to 0 ... 1 again, which on a black background makes the mean of Gaussian noise positive:
# hence once more without clipping.
NOISES: dict[str, tuple[Noise, tuple[float, ...]]] = {
    "gaussian": (lambda x, s, g: (x + s * randn(x, g)).clamp(0, 1), (0.08, 0.12, 0.18, 0.26, 0.38)),
    "unclipped gaussian": (lambda x, s, g: x + s * randn(x, g), (0.08, 0.12, 0.18, 0.26, 0.38)),
    "shot": (lambda x, s, g: (torch.poisson(x * s, generator=g) / s).clamp(0, 1), (60, 25, 12, 5, 3)),
    "impulse": (lambda x, s, g: salt_and_pepper(x, s, g), (0.03, 0.06, 0.09, 0.17, 0.27)),
    "speckle": (lambda x, s, g: (x + x * s * randn(x, g)).clamp(0, 1), (0.15, 0.2, 0.35, 0.45, 0.6)),
}
SEVERITIES = (1, 2, 3, 4, 5)
FILAMENT_NOISE = (0.1, 0.2, 0.3, 0.4, 0.5)  # standard deviations in the test; training sees the second


@dataclass(frozen=True)
class Size:
    """How much is trained."""

    digits: int = 4000
    digit_tests: int = 1000
    digit_epochs: int = 5
    digit_channels: tuple[int, ...] = (8, 16, 32)
    filaments: int = 256
    filament_tests: int = 64
    filament_epochs: int = 10
    filament_pixels: int = 64
    filament_channels: tuple[int, ...] = (8, 16, 32)
    seeds: tuple[int, ...] = (0, 1, 2)


TINY = Size(60, 20, 1, (2, 4), 4, 2, 1, 16, (2, 4), (0,))


def randn(x: Tensor, generator: torch.Generator) -> Tensor:
    """Return standard normal numbers of the shape of `x`."""
    return torch.randn(x.shape, generator=generator)


def salt_and_pepper(x: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    """Set the share `amount` of all pixels to 0 or 1, one as likely as the other."""
    hit = torch.rand(x.shape, generator=generator) < amount
    return torch.where(hit, (torch.rand(x.shape, generator=generator) < 0.5).to(x.dtype), x)


def noisy(x: Tensor, noise: str, severity: int, seed: int = 0) -> Tensor:
    """Put `noise` of `severity` 1 to 5 on images in 0 ... 1."""
    function, strengths = NOISES[noise]
    return function(x, strengths[severity - 1], torch.Generator().manual_seed(seed))


def drawn_digits(count: int, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Seven-segment digits, slanted, shifted and of varying width: what serves where there is no MNIST."""
    ends = {"a": (0, 0, 1, 0), "b": (1, 0, 1, 1), "c": (1, 1, 1, 2), "d": (0, 2, 1, 2)}
    ends |= {"e": (0, 1, 0, 2), "f": (0, 0, 0, 1), "g": (0, 1, 1, 1)}
    lit = ("abcdef", "bc", "abged", "abgcd", "fgbc", "afgcd", "afgedc", "abc", "abcdefg", "abcdfg")
    labels = np.arange(count) % 10
    rows, columns = np.mgrid[:28, :28]
    images = np.empty((count, 1, 28, 28), dtype=np.float32)
    for image, label in zip(images, labels, strict=True):
        x0, y0, slant, width = generator.uniform((8, 4, -0.2, 0.8), (11, 7, 0.2, 1.6))
        distance = np.full((28, 28), np.inf)
        for segment in lit[label]:
            (xa, ya, xb, yb) = np.array(ends[segment]) * 8.0
            xa, xb, ya, yb = x0 + xa - slant * ya, x0 + xb - slant * yb, y0 + ya, y0 + yb
            along = ((columns - xa) * (xb - xa) + (rows - ya) * (yb - ya)) / ((xb - xa) ** 2 + (yb - ya) ** 2)
            along = along.clip(0, 1)
            d = np.hypot(columns - xa - along * (xb - xa), rows - ya - along * (yb - ya))
            distance = np.minimum(distance, d)
        image[0] = 1 / (1 + np.exp(2 * (distance - width)))
    return torch.from_numpy(images), torch.from_numpy(labels)


def digits(size: Size) -> tuple[str, Tensor, Tensor, Tensor, Tensor]:
    """Return the origin of the digits, then images and labels for training and for the test."""
    generator = np.random.default_rng(0)
    count = size.digits + size.digit_tests
    path = Path(os.environ.get("INVLEARN_DATA", "")) / "images" / "mnist_5k.csv.gz"
    if "INVLEARN_DATA" in os.environ and path.exists():
        table = np.loadtxt(path, delimiter=",", dtype=np.float32)
        x = torch.from_numpy(table[:, :-1].reshape(-1, 1, 28, 28) / 255)
        y, origin = torch.from_numpy(table[:, -1].astype(np.int64)), "MNIST, 5,000 digits"
    else:
        (x, y), origin = drawn_digits(count, generator), "drawn seven-segment digits"
    order = torch.from_numpy(generator.permutation(len(x)))[:count]
    x, y = x[order], y[order]
    return origin, x[: size.digits], y[: size.digits], x[size.digits :], y[size.digits :]


def filaments(count: int, pixels: int, seed: int) -> tuple[Tensor, Tensor]:
    """Clean images of smooth thin curves of varying brightness, and their masks (within the radius)."""
    generator = np.random.default_rng(seed)
    grid = np.stack(list(np.mgrid[:pixels, :pixels]), axis=-1).astype(float)
    images = np.zeros((count, 1, pixels, pixels), dtype=np.float32)
    masks = np.zeros((count, pixels, pixels), dtype=np.int64)
    for image, mask in zip(images, masks, strict=True):
        for _ in range(generator.integers(2, 5)):
            steps = 2 * pixels
            angle = generator.uniform(0, 2 * np.pi) + np.cumsum(generator.normal(0, 0.12, steps))
            steps_along = 0.7 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
            curve = generator.uniform(0, pixels, 2) + np.cumsum(steps_along, axis=0)
            distance = np.linalg.norm(grid[:, :, None] - curve[None, None], axis=-1).min(axis=-1)
            radius = generator.uniform(0.6, 1.4)
            profile = generator.uniform(0.35, 0.9) * np.exp(-0.5 * (distance / radius) ** 2)
            image[0] = np.maximum(image[0], profile)
            mask |= distance <= radius
    return torch.from_numpy(0.1 + images), torch.from_numpy(masks)


def vgg(channels: tuple[int, ...]) -> nn.Module:
    """A small VGG with batch normalisation: per width two 3 x 3 convolutions and a max-pool."""
    parts: list[nn.Module] = []
    for before, after in zip((1, *channels), channels, strict=False):
        for inner in (before, after):
            parts += [nn.Conv2d(inner, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        parts.append(nn.MaxPool2d(2))
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels[-1], 10))


class Residual(nn.Module):
    """The basic block of a ResNet: two 3 x 3 convolutions beside a shortcut."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(after), nn.BatchNorm2d(after)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            resize = nn.Conv2d(before, after, 1, stride, bias=False)
            self.shortcut = nn.Sequential(resize, nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(inner)) + self.shortcut(x))


def resnet(channels: tuple[int, ...]) -> nn.Module:
    """A small ResNet: stem with a max-pool, then a block per width, strided from the second on."""
    stem = [nn.Conv2d(1, channels[0], 3, padding=1, bias=False), nn.BatchNorm2d(channels[0]), nn.ReLU()]
    blocks = [
        Residual(before, after, 1 if level == 0 else 2)
        for level, (before, after) in enumerate(zip((channels[0], *channels), channels, strict=False))
    ]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels[-1], 10)]
    return nn.Sequential(*stem, nn.MaxPool2d(3, 2, padding=1), *blocks, *head)


NETWORKS = {"VGG": vgg, "ResNet": resnet}


def train(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    epochs: int,
    seed: int,
    weight: Tensor | None = None,
    batch: int = 50,
) -> None:
    """AdamW on the cross-entropy, one cycle of the learning rate up to 0.01."""
    batch = min(batch, len(x))
    steps = epochs * (len(x) // batch)
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.01, total_steps=steps + 1)
    generator = torch.Generator().manual_seed(seed)
    model.train()
    for _ in range(epochs):
        for index in torch.randperm(len(x), generator=generator)[: len(x) // batch * batch].split(batch):
            optimiser.zero_grad()
            F.cross_entropy(model(x[index]), y[index], weight).backward()
            optimiser.step()
            schedule.step()


@torch.no_grad()
def predict(model: nn.Module, x: Tensor) -> Tensor:
    model.eval()
    return torch.cat([model(part).argmax(1) for part in x.split(250)])


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Share of right answers."""
    return float((predict(model, x) == y).double().mean())


def overlap(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Intersection over union of the foreground, over all pixels of all images."""
    found = predict(model, x).bool()
    return float((found & y.bool()).sum() / (found | y.bool()).sum().clamp(min=1))


@torch.no_grad()
def renormalise(model: nn.Module, x: Tensor) -> None:
    """Take the statistics of all batch normalisations anew, from one pass over `x`."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # a plain average over the batches
    model.train()
    for part in x.split(250):
        model(part)


def classify(size: Size, data: list[Tensor], network: str, down: str, seed: int) -> dict[str, Any]:
    """Train one classifier, and test it clean and on every noise."""
    x, y, test_x, test_y = data
    torch.manual_seed(seed)
    model = NETWORKS[network](size.digit_channels)
    if down != "ordinary":
        model = replace_downsampling(model, down).model
    start = time.process_time()
    train(model, x, y, size.digit_epochs, seed)
    result: dict[str, Any] = {"cpu_seconds": round(time.process_time() - start, 2)}
    result["clean"] = accuracy(model, test_x, test_y)
    result["noise"] = {
        noise: [accuracy(model, noisy(test_x, noise, severity), test_y) for severity in SEVERITIES]
        for noise in NOISES
    }
    return result


def convert(size: Size, data: list[Tensor], network: str, seed: int) -> dict[str, Any]:
    """Train an ordinary classifier, convert it to haar, and see what its weights are worth."""
    x, y, test_x, test_y = data
    torch.manual_seed(seed)
    model = NETWORKS[network](size.digit_channels)
    scratch = replace_downsampling(model).model
    train(model, x, y, size.digit_epochs, seed)
    result = {"ordinary": accuracy(model, test_x, test_y)}
    for key, unit_gain in (("converted", False), ("unit gain", True)):
        converted = replace_downsampling(model, unit_gain=unit_gain).model
        result[key] = accuracy(converted, test_x, test_y)
        renormalise(converted, x)
        result[f"{key}, new statistics"] = accuracy(converted, test_x, test_y)
    for key, start in (("converted", replace_downsampling(model).model), ("from scratch", scratch)):
        train(start, x, y, 1, seed)
        result[f"{key}, one epoch"] = accuracy(start, test_x, test_y)
    return result


def segment(size: Size, data: list[Tensor], network: str, seed: int) -> dict[str, Any]:
    """Train one encoder-decoder on filaments at one noise level, and test it at all of them."""
    x, y, test_x, test_y = data
    generator = torch.Generator().manual_seed(seed)
    x = x + FILAMENT_NOISE[1] * randn(x, generator)
    torch.manual_seed(seed)
    model = EncoderDecoder(1, 2, network, ndim=2, channels=size.filament_channels)
    start = time.process_time()
    train(model, x, y, size.filament_epochs, seed, weight=torch.tensor([1.0, 3.0]), batch=16)
    seconds = round(time.process_time() - start, 2)
    noise = randn(test_x, torch.Generator().manual_seed(3))
    return {
        "cpu_seconds": seconds,
        "parameters": sum(p.numel() for p in model.parameters()),
        "iou": [overlap(model, test_x + strength * noise, test_y) for strength in FILAMENT_NOISE],
    }


def study(size: Size, out: Path) -> dict[str, Any]:
    """Run what `out` does not hold yet, writing it after every network."""
    origin, *data = digits(size)
    settings = {**asdict(size), "digits from": origin, "torch": torch.__version__}
    settings = json.loads(json.dumps(settings))
    results: dict[str, Any] = {
        "settings": settings,
        "classification": [],
        "conversion": [],
        "segmentation": [],
    }
    if out.exists():
        results = json.loads(out.read_text())
        if results["settings"] != settings:
            raise SystemExit(f"{out} holds results of other settings: give another --out, or remove it")
    curves = [
        *filaments(size.filaments, size.filament_pixels, seed=1),
        *filaments(size.filament_tests, size.filament_pixels, seed=2),
    ]

    def run(part: str, keys: dict[str, Any], function: Callable[..., dict[str, Any]], *inputs: Any) -> None:
        if any(keys.items() <= done.items() for done in results[part]):
            return
        results[part].append(keys | function(size, *inputs, **keys))
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(results, indent=1) + "\n")
        print(part, *keys.values(), flush=True)

    for seed in size.seeds:
        for network in NETWORKS:
            for down in ("ordinary", *WAVELETS):
                run("classification", {"network": network, "down": down, "seed": seed}, classify, data)
            run("conversion", {"network": network, "seed": seed}, convert, data)
        for pair in UNETS:
            run("segmentation", {"network": pair, "seed": seed}, segment, curves)
    return results


def tables(results: dict[str, Any]) -> str:
    """Write the results as Markdown tables: percent, mean ± standard deviation over the seeds."""

    def cell(values: list[float]) -> str:
        return f"{100 * np.mean(values):.1f} ± {100 * np.std(values):.1f}"

    def table(columns: list[str], rows: list[list[str]]) -> str:
        return "\n".join(f"| {' | '.join(row)} |" for row in [columns, ["---"] * len(columns), *rows])

    rows = []
    for network in NETWORKS:
        for down in ("ordinary", *WAVELETS):
            runs = [r for r in results["classification"] if (r["network"], r["down"]) == (network, down)]
            means = [cell([float(np.mean(r["noise"][noise])) for r in runs]) for noise in NOISES]
            seconds = f"{np.median([r['cpu_seconds'] for r in runs]):.0f}"
            rows.append([network, down, cell([r["clean"] for r in runs]), *means, seconds])
    classification = table(["network", "down-sampling", "clean", *NOISES, "CPU s"], rows)

    rows = []
    for network in NETWORKS:
        runs = [r for r in results["conversion"] if r["network"] == network]
        steps = [key for key in runs[0] if key not in ("network", "seed")]
        rows.append([network, *(cell([r[key] for r in runs]) for key in steps)])
    conversion = table(["network", *steps], rows)

    rows = []
    for network in UNETS:
        runs = [r for r in results["segmentation"] if r["network"] == network]
        overlaps = [cell([r["iou"][k] for r in runs]) for k in range(len(FILAMENT_NOISE))]
        seconds = f"{np.median([r['cpu_seconds'] for r in runs]):.0f}"
        rows.append([network, f"{runs[0]['parameters']:,}", *overlaps, seconds])
    segmentation = table(["network", "parameters", *(f"{s:g}" for s in FILAMENT_NOISE), "CPU s"], rows)
    return "\n\n".join([classification, conversion, segmentation])


def draw(results: dict[str, Any], folder: Path) -> None:
    """Draw what `results` hold: the noises, accuracy and overlap against noise."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    size = Size(**{key: value for key, value in results["settings"].items() if key in Size.__annotations__})
    colours = ("black", "tab:orange", "tab:blue", "tab:green", "tab:red", "tab:purple")

    def curve(axes: Any, x: Any, rows: list[list[float]], label: str, colour: str, style: str = "-") -> None:
        mean, spread = np.mean(rows, axis=0), np.std(rows, axis=0)
        axes.plot(x, mean, style, color=colour, label=label, marker="o", markersize=3)
        axes.fill_between(x, mean - spread, mean + spread, color=colour, alpha=0.1, linewidth=0)

    figure, grid = plt.subplots(2, 5, figsize=(12, 4.8), sharex=True, sharey=True, layout="constrained")
    for row, network in zip(grid, NETWORKS, strict=True):
        for axes, noise in zip(row, NOISES, strict=True):
            for colour, down in zip(colours, ("ordinary", *WAVELETS), strict=False):
                runs = [r for r in results["classification"] if (r["network"], r["down"]) == (network, down)]
                curve(axes, range(6), [[r["clean"], *r["noise"][noise]] for r in runs], down, colour)
            axes.set_title(f"{network}, {noise}", fontsize=10)
            axes.set(ylim=(0, 1.02), xticks=range(6))
            axes.grid(alpha=0.3)
        row[0].set_ylabel("accuracy")
    for axes in grid[-1]:
        axes.set_xlabel("severity (0: clean)")
    grid[0, 0].legend(fontsize=8, loc="lower left")
    figure.savefig(folder / "wavelet-classification.png", dpi=85)
    plt.close(figure)

    figure, axes = plt.subplots(figsize=(6.5, 4), layout="constrained")
    for index, network in enumerate(UNETS):
        runs = [r["iou"] for r in results["segmentation"] if r["network"] == network]
        wavelet = network.startswith("Wave")
        curve(axes, FILAMENT_NOISE, runs, network, colours[index], "-" if wavelet else "--")
    axes.axvline(FILAMENT_NOISE[1], color="grey", linewidth=0.8)
    axes.annotate("seen in training", (FILAMENT_NOISE[1] + 0.005, 0.03), color="grey", fontsize=8)
    axes.set(xlabel="standard deviation of the noise", ylabel="intersection over union", ylim=(0, 1))
    axes.set_xticks(FILAMENT_NOISE)
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    figure.savefig(folder / "wavelet-segmentation.png", dpi=85)
    plt.close(figure)

    _, *data = digits(size)
    figure, grid = plt.subplots(5, 6, figsize=(5.5, 4.8), layout="constrained")
    for row, noise in zip(grid, NOISES, strict=True):
        images = [data[2][:1], *(noisy(data[2][:1], noise, severity) for severity in SEVERITIES)]
        for severity, (axes, image) in enumerate(zip(row, images, strict=True)):
            low, high = (-0.5, 1.5) if image.min() < 0 else (0, 1)
            axes.imshow(image[0, 0], cmap="gray", vmin=low, vmax=high)
            axes.set(xticks=[], yticks=[])
            if noise == "gaussian":
                axes.set_title(f"severity {severity}" if severity else "clean", fontsize=8)
        row[0].set_ylabel(noise.replace(" ", "\n"), fontsize=8)
    figure.savefig(folder / "wavelet-noises.png", dpi=80)
    plt.close(figure)

    x, y = filaments(4, size.filament_pixels, seed=2)
    normal = randn(x, torch.Generator().manual_seed(3))
    figure, row = plt.subplots(1, 4, figsize=(8, 2.3), layout="constrained")
    panels = {f"noise {s}": (x + s * normal)[3, 0] for s in FILAMENT_NOISE[::2]} | {"mask": y[3]}
    for axes, (title, panel) in zip(row, panels.items(), strict=True):
        axes.imshow(panel, cmap="gray", vmin=0, vmax=1)
        axes.set(xticks=[], yticks=[])
        axes.set_title(title, fontsize=9)
    figure.savefig(folder / "wavelet-filaments.png", dpi=80)
    plt.close(figure)


def main() -> None:
    """Read the command line and run the study."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="JSON file of the results")
    parser.add_argument("--figures", type=Path, help="folder for the figures")
    parser.add_argument("--tiny", action="store_true", help="a few seconds' worth, to see that it runs")
    arguments = parser.parse_args()
    results = study(TINY if arguments.tiny else Size(), arguments.out)
    if arguments.figures:
        draw(results, arguments.figures)
    print(tables(results))


if __name__ == "__main__":
    main()
