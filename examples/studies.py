"""What the studies of learned reconstruction share: images, figures of merit, command line, pictures."""

from __future__ import annotations

import argparse
import json
import os
import runpy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn.functional import affine_grid, grid_sample, interpolate, pad

from invlearn.physics import LinearOperator, OperatorFamily

ROOT = Path(__file__).resolve().parent.parent
TRAINING_HEADS = ("fireants_atlas_2mm_1000_3.nii.gz", "fireants_atlas_2mm_1001_3.nii.gz")
TEST_HEAD = "colin27_ch2_t1_1mm.nii.gz"  # another person
recorded = runpy.run_path(str(ROOT / "benchmarks" / "recorded.py"))["about"]


def read_head(path: Path, shape: tuple[int, int], millimetres: float) -> Tensor:
    """Axial slices of a head with the nose up in the middle of `shape`, `(N, *shape)`.

    Pixels are `millimetres` wide; white matter is about 0.6, slices without much of the head are left out.
    """
    import nibabel

    file = nibabel.load(path)
    volume = np.asarray(file.dataobj, dtype=np.float32)
    slices = torch.from_numpy(np.ascontiguousarray(volume.transpose(2, 1, 0)[:, ::-1]))
    slices = (slices / np.quantile(volume[volume > 0], 0.99)).clamp(0, 1.2)
    size = [round(n * float(file.header.get_zooms()[0]) / millimetres) for n in slices.shape[1:]]
    slices = interpolate(slices[:, None], size, mode="bilinear", antialias=True)[:, 0]
    top, left = shape[0] - size[0], shape[1] - size[1]
    slices = pad(slices, (left // 2, left - left // 2, top // 2, top - top // 2))  # negative crops
    return slices[slices.mean((1, 2)) > 0.12]


def deformed(images: Tensor, generator: Generator) -> Tensor:
    """Other heads: turned, scaled, mirrored, smoothly deformed, of another contrast; `(N, H, W)`."""
    count, rows, columns = images.shape

    def signed(*shape: int) -> Tensor:
        return 2 * torch.rand(shape, generator=generator) - 1

    angle, scale = 0.3 * signed(count), 1 + 0.15 * signed(count, 2)
    mirror = torch.where(signed(count) < 0, -1.0, 1.0)
    cosine, sine, ratio = angle.cos(), angle.sin(), rows / columns
    affine = torch.stack(
        [
            torch.stack([mirror * scale[:, 0] * cosine, -ratio * scale[:, 0] * sine, 0.1 * signed(count)], 1),
            torch.stack([mirror * scale[:, 1] * sine / ratio, scale[:, 1] * cosine, 0.1 * signed(count)], 1),
        ],
        1,
    )
    grid = affine_grid(affine, [count, 1, rows, columns], align_corners=True)
    coarse = 0.06 * torch.randn(count, 2, 6, 6, generator=generator)
    smooth = interpolate(coarse, (rows, columns), mode="bicubic", align_corners=True)
    moved = grid_sample(images[:, None], grid + smooth.movedim(1, -1), align_corners=True)[:, 0]
    gamma = (0.4 * torch.randn(count, 1, 1, generator=generator)).exp()
    return moved.clamp(0, 1.2) ** gamma


def ellipses(count: int, shape: tuple[int, int], generator: Generator) -> Tensor:
    """Random overlapping ellipses, the stand-in where there are no heads; `(count, *shape)`, 0 to 1."""
    y, x = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in shape), indexing="ij")
    image = torch.zeros(count, *shape)
    for _ in range(8):
        centre = 0.5 * (2 * torch.rand(2, count, 1, 1, generator=generator) - 1)
        axes = 0.1 + 0.4 * torch.rand(2, count, 1, 1, generator=generator)
        value = 2 * torch.rand(count, 1, 1, generator=generator) - 0.7
        image += value * (((y - centre[0]) / axes[0]) ** 2 + ((x - centre[1]) / axes[1]) ** 2 < 1)
    return image.clamp_min(0) / image.amax((1, 2), keepdim=True).clamp_min(0.1)


def heads(
    folder: Path | None,
    shape: tuple[int, int],
    millimetres: float,
    counts: tuple[int, int],
    generator: Generator,
) -> tuple[Tensor, Tensor]:
    """Images to train and to test on, `counts` of them, of different people; the former are deformed."""
    if folder is None:
        train, test = (ellipses(count, shape, generator) for count in counts)
        return train, test
    brains = folder / "brains"
    people = torch.cat([read_head(brains / name, shape, millimetres) for name in TRAINING_HEADS])
    train = deformed(people[torch.arange(counts[0]) % len(people)], generator)
    other = read_head(brains / TEST_HEAD, shape, millimetres)
    return train, other[torch.linspace(0, len(other) - 1, counts[1]).long()]


def psnr(x: Tensor, truth: Tensor) -> float:
    """Mean peak signal-to-noise ratio of |x| in dB; the peak is that of each image."""
    error = (x.abs() - truth.abs()).square().mean((1, 2))
    return float((10 * torch.log10(truth.abs().amax((1, 2)).square() / error)).mean())


def best(candidates: dict[float, Tensor], truth: Tensor) -> tuple[float, Tensor]:
    """The weight whose images come closest to the truth, and they."""
    return max(candidates.items(), key=lambda item: psnr(item[1], truth))


def each(
    call: Callable[[Tensor, LinearOperator], Tensor], y: Tensor, family: OperatorFamily, index: Tensor
) -> Tensor:
    """`call(y, A)` for every measurement with its own operator."""
    with torch.no_grad():
        return torch.cat([call(y[i : i + 1], family[int(index[i])]) for i in range(len(y))])


@dataclass(frozen=True)
class Outcome:
    """What a study found.

    `figures` goes into the results file, with `psnr_db` of every method; `images` are the test images by
    every method, the truth among them; `shown` says which to draw.
    """

    figures: dict[str, Any]
    images: dict[str, Tensor]
    shown: tuple[int, ...] = (0,)

    def draw(self, path: Path) -> None:
        """A column for each method: the images shown, and under each what is wrong with it five-fold."""
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt

        size = (1.9 * len(self.images), 4.6 * len(self.shown))
        panels, axes = plt.subplots(2 * len(self.shown), len(self.images), figsize=size)
        for column, (name, x) in enumerate(self.images.items()):
            for row, i in enumerate(self.shown):
                truth, picture = self.images["truth"][i].abs(), x[i].abs()
                top = float(truth.max())
                axes[2 * row, column].imshow(picture, cmap="gray", vmin=0, vmax=top)
                axes[2 * row + 1, column].imshow(5 * (picture - truth).abs(), cmap="magma", vmin=0, vmax=top)
            level = "5 × error below" if name == "truth" else f"{self.figures['psnr_db'][name]:.1f} dB"
            axes[0, column].set_title(f"{name}\n{level}", fontsize=8)
        for axis in axes.flat:
            axis.axis("off")
        panels.tight_layout()
        path.parent.mkdir(parents=True, exist_ok=True)
        panels.savefig(path, dpi=110)
        plt.close(panels)


def command(
    name: str, about: str, study: Callable[[Path | None, bool], Outcome], arguments: list[str] | None
) -> None:
    """Run `study(folder with the data, whether tiny)` and write results and figure."""
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="random ellipses at tiny size")
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks" / "results" / f"{name}.json")
    figure = ROOT / "docs" / "figures" / f"{name.replace('_', '-')}.png"
    parser.add_argument("--figure", type=Path, default=figure)
    args = parser.parse_args(arguments)
    data = os.environ.get("INVLEARN_DATA")
    if not args.tiny and not data:
        parser.error("the study needs the heads: set INVLEARN_DATA to their folder, or use --tiny")
    outcome = study(None if args.tiny or not data else Path(data), args.tiny)
    args.json.parent.mkdir(parents=True, exist_ok=True)
    result = recorded(torch.get_num_threads(), "invlearn") | outcome.figures
    args.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    outcome.draw(args.figure)
    for method, level in outcome.figures["psnr_db"].items():
        print(f"{method:<28}{level:6.2f} dB")
