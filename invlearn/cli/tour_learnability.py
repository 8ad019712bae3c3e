"""The tour's questions on learnability: photographs of PyWavelets, measured in several ways."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from invlearn.cli.learnability import KNOWLEDGE, OPERATORS, Question
from invlearn.cli.options import Settings
from invlearn.io.arrays import write_npy
from invlearn.io.runs import Run
from invlearn.reports.page import Block, Code, Gallery, Picture, Section, Text

INPUTS = "inputs"


@dataclass(frozen=True)
class Exhibit:
    """One question of the tour.

    Attributes
    ----------
    name
        Key of its verdict in `run.json`.
    question, story
        The question, and what was measured, in words.
    options
        Options of `invlearn learnability`; files by their name in `INPUTS`.
    files
        What these files hold: one array for `.npy`, arrays by name for `.npz`.
    pictures
        What to show of the input: captions and 2-D arrays, each with its own grey scale.
    """

    name: str
    question: str
    story: str
    options: Mapping[str, Any]
    files: Mapping[str, Any]
    pictures: Mapping[str, np.ndarray]

    def write(self, folder: Path) -> None:
        """Write the input files."""
        for name, content in self.files.items():
            if isinstance(content, Mapping):
                np.savez_compressed(folder / name, **content)
            else:
                write_npy(folder / name, content)

    def command_line(self) -> str:
        """The command that asks the question, from inside the tour's folder."""
        words = ["invlearn", "learnability"]
        for name, value in self.options.items():
            words.append(f"--{name.replace('_', '-')}")
            if isinstance(value, tuple):
                words += map(str, value)
            else:
                words.append(f"{INPUTS}/{value}" if value in self.files else str(value))
        return shlex.join(words)

    def ask(self, folder: Path) -> Question:
        """The question as the command would ask it, with the files in `folder`."""
        options = dict.fromkeys((*OPERATORS, *KNOWLEDGE, "group", "shape", "noise"))
        options |= {
            name: folder / value if isinstance(value, str) and value in self.files else value
            for name, value in self.options.items()
        }
        return Question.from_options(options)


def photograph(name: str, size: int) -> np.ndarray:
    """A photograph of PyWavelets in 0 ... 1, averaged down to `size` pixels a side."""
    import pywt.data

    image = getattr(pywt.data, name)().astype(np.float64) / 255
    step = image.shape[0] // size
    image = image[: step * size, : step * size]
    return image.reshape(size, step, size, step).mean((1, 3))


def patches(size: int) -> np.ndarray:
    """All disjoint patches `(N, size, size)` of three photographs."""
    images = [photograph(name, 512) for name in ("camera", "ascent", "aero")]
    tiles = np.stack(images).reshape(3, 512 // size, size, 512 // size, size)
    return tiles.transpose(0, 1, 3, 2, 4).reshape(-1, size, size)


def random_masks(count: int, shape: tuple[int, ...], keep: float, rng: np.random.Generator) -> np.ndarray:
    """Masks `(count, *shape)` that keep the same number of random entries each."""
    size = int(np.prod(shape))
    order = rng.random((count, size)).argsort(1)
    return (order < round(keep * size)).reshape(count, *shape)


def one_mask(rng: np.random.Generator) -> Exhibit:
    """The same pixels are missing from every photograph."""
    image, mask = photograph("camera", 48), random_masks(1, (48, 48), 0.5, rng)
    return Exhibit(
        "one_mask",
        "My camera has dead pixels, always the same half. Can I learn to fill them in?",
        "Photographs of 48 × 48 pixels, seen through one mask that keeps half of the pixels.",
        {"masks": "one_mask.npy", "dimension": 16},
        {"one_mask.npy": mask},
        {"a photograph (not given)": image, "what is measured": image * mask[0]},
    )


def many_masks(rng: np.random.Generator) -> Exhibit:
    """Every photograph through one of 40 masks."""
    image, masks = photograph("camera", 48), random_masks(40, (48, 48), 0.3, rng)
    return Exhibit(
        "many_masks",
        "What if the mask changes from one photograph to the next?",
        "40 random masks, each keeping 30 % of the pixels: less of every photograph than before.",
        {"masks": "forty_masks.npy", "dimension": 16},
        {"forty_masks.npy": masks},
        {f"mask {i + 1}": image * masks[i] for i in (0, 1, 39)},
    )


def two_masks(rng: np.random.Generator) -> Exhibit:
    """Two masks that complete each other, and no third."""
    image = photograph("aero", 24)
    board = np.add.outer(np.arange(24), np.arange(24)) % 2 == 0
    return Exhibit(
        "two_masks",
        "Two masks see every pixel between them. Is that enough?",
        "The two colours of a chessboard as masks, for images of 24 × 24 pixels. No pixel is always hidden, "
        "but no two neighbours are ever seen together.",
        {"masks": "chessboards.npy", "dimension": 8},
        {"chessboards.npy": np.stack([board, ~board])},
        {"mask 1": image * board, "mask 2": image * ~board},
    )


def blur(rng: np.random.Generator) -> Exhibit:
    """A blur commutes with shifts: their symmetry brings nothing new."""
    size, width = 24, 4
    image = photograph("ascent", size)
    kernel = np.zeros((size, size))
    kernel[0, :width] = 1 / width
    shifted = [np.roll(kernel, (i, j), (0, 1)).ravel() for i in range(size) for j in range(size)]
    matrix = np.stack(shifted, axis=1)
    return Exhibit(
        "blur",
        "My images are blurred by motion, and look alike when shifted. Is that enough to learn from?",
        f"One horizontal motion blur over {width} pixels, as a circulant matrix for images of {size} × "
        f"{size} pixels, and the group of all cyclic shifts: the setting of equivariant imaging.",
        {"matrices": "motion_blur.npz", "shape": (size, size), "group": "shifts", "dimension": 8},
        {"motion_blur.npz": {"matrices": matrix[None]}},
        {
            "an image (not given)": image,
            "what is measured": (matrix @ image.ravel()).reshape(size, size),
        },
    )


def mask_with_shifts(rng: np.random.Generator) -> Exhibit:
    """A mask does not commute with shifts."""
    image, mask = photograph("ascent", 24), random_masks(1, (24, 24), 0.5, rng)
    return Exhibit(
        "mask_with_shifts",
        "And one mask with dead pixels, when the images look alike after a shift?",
        "Half of the pixels of a 24 × 24 image, one mask, and the group of all cyclic shifts: unlike the "
        "blur, the mask treats a shifted image differently.",
        {"masks": "mask_24.npy", "group": "shifts", "dimension": 8},
        {"mask_24.npy": mask},
        {"an image (not given)": image, "what is measured": image * mask[0]},
    )


def _zero_filled(image: np.ndarray, lines: np.ndarray) -> np.ndarray:
    """Magnitude of the image from the k-space that `lines` keep."""
    spectrum = np.fft.fftshift(np.fft.fft2(image))
    return np.abs(np.fft.ifft2(np.fft.ifftshift(lines * spectrum)))


def same_lines(rng: np.random.Generator) -> Exhibit:
    """The same k-space lines in every scan."""
    lines = np.zeros((1, 32, 32), bool)
    lines[0, ::4] = lines[0, 13:19] = True
    return Exhibit(
        "same_lines",
        "Every scan of mine acquires the same k-space lines. Do rotated anatomies teach me the missing ones?",
        "Accelerated MRI with one coil: every fourth line of k-space and six in the middle, and quarter "
        "turns as the symmetry of the anatomies.",
        {"kspace_masks": "same_lines.npy", "group": "rotations90", "dimension": 8},
        {"same_lines.npy": lines},
        {
            "lines, zero frequency in the middle": lines[0].astype(float),
            "zero-filled image": _zero_filled(photograph("camera", 32), lines[0]),
        },
    )


def other_lines(rng: np.random.Generator) -> Exhibit:
    """Other k-space lines in every scan."""
    lines = np.zeros((16, 24, 24), bool)
    lines[:, 10:14] = True
    for scan in lines:
        scan[rng.permutation(24)[:6]] = True
    image = photograph("camera", 24)
    return Exhibit(
        "other_lines",
        "And if the lines change from scan to scan?",
        "Sixteen sets of lines of 24 × 24 k-space: four in the middle, the others at random. "
        "No symmetry is assumed.",
        {"kspace_masks": "other_lines.npy", "dimension": 8},
        {"other_lines.npy": lines},
        {f"zero-filled image, scan {i + 1}": _zero_filled(image, lines[i]) for i in (0, 1, 15)},
    )


def unknown_dimension(rng: np.random.Generator) -> Exhibit:
    """Nothing is given but masked patches."""
    truth = patches(8)[::2]
    masks = random_masks(6, (8, 8), 0.75, rng)
    index = rng.integers(0, len(masks), len(truth))
    kept = masks[index].reshape(len(truth), -1)
    y = truth.reshape(len(truth), -1)[kept].reshape(len(truth), -1)
    shown = {f"patch {i}, mask {index[i] + 1}": truth[i] * masks[index[i]] for i in (500, 2500, 4500)}
    return Exhibit(
        "unknown_dimension",
        "I have nothing but incomplete measurements, and no idea of the dimension. What can you tell me?",
        f"{len(truth):,} patches of 8 × 8 pixels from three photographs, each through one of 6 masks that "
        "keep 48 of the 64 pixels. Differences below 2 % of white are taken as noise; the dimension of the "
        "patches is estimated from these measurements alone.",
        {"masks": "patch_masks.npy", "measurements": "patches.npz", "noise": 0.02},
        {"patch_masks.npy": masks, "patches.npz": {"y": y.astype(np.float32), "operator_index": index}},
        shown,
    )


QUESTIONS: tuple[Callable[[np.random.Generator], Exhibit], ...] = (
    one_mask,
    many_masks,
    two_masks,
    blur,
    mask_with_shifts,
    same_lines,
    other_lines,
    unknown_dimension,
)


def exhibits(folder: Path, settings: Settings, run: Run) -> Iterator[Section]:
    """A section a question; the inputs are left in `folder`/inputs."""
    from invlearn.reports import figures
    from invlearn.reports.learnability import summary

    inputs = folder / INPUTS
    inputs.mkdir(exist_ok=True)
    verdicts = run.metrics["learnability"] = {}
    for number, make in enumerate(QUESTIONS):
        exhibit = make(np.random.default_rng([settings.seed, number]))
        exhibit.write(inputs)
        with settings.progress(exhibit.question), run.timed(exhibit.name):
            report = exhibit.ask(inputs).answer(settings)
        verdicts[exhibit.name] = report.verdict
        pictures = [
            Picture(figures.picture(array, figures.Scale(0.0, float(array.max()), "gray")), caption)
            for caption, array in exhibit.pictures.items()
        ]
        introduction: list[Block] = [Text(exhibit.story), Gallery(pictures), Code(exhibit.command_line())]
        yield summary(report, exhibit.question, introduction)
