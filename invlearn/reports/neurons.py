"""The report of a segmentation: projections of the stack, its mask and its tracing, and the numbers."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from invlearn.reports import figures
from invlearn.reports.page import Block, Fold, Heading, Items, Plot, Section, Table, Text

_LARGEST = 640  # pixels of a projection along its longer side
_WIDTH = 9.0  # inches
_GAP = 0.02  # between the views, of the width
_BRANCHES = ("#4cc9f0", "#ffb454", "#80ed99", "#ff6b9d", "#c4a7ff", "#ffe066", "#5eead4", "#ff9b7a")
_MASK, _TRUTH = "#ff8c1a", "#d9730d"


@runtime_checkable
class SegmentationResult(Protocol):
    """What the report reads (`invlearn.neuro.segmentation.Segmentation`)."""

    @property
    def mask(self) -> Any: ...
    @property
    def tree(self) -> Any: ...
    @property
    def voxel_size(self) -> Sequence[float]: ...
    @property
    def foreground(self) -> int: ...
    @property
    def cubes(self) -> Mapping[str, int]: ...
    @property
    def seconds(self) -> Mapping[str, float]: ...
    @property
    def warnings(self) -> Sequence[str]: ...


@dataclass(frozen=True)
class Projections:
    """The largest value along each axis.

    Attributes
    ----------
    views
        Along z: (rows, columns); along y: (slices, columns); along x: (rows, slices).
    extent
        (z, y, x) of the volume, µm.
    """

    views: tuple[np.ndarray, np.ndarray, np.ndarray]
    extent: tuple[float, float, float]


def _shrunk(view: np.ndarray) -> np.ndarray:
    """At most `_LARGEST` pixels a side; of a block of pixels the largest stays."""
    for axis in (0, 1):
        factor = -(-view.shape[axis] // _LARGEST)
        if factor > 1:
            starts = np.arange(0, view.shape[axis], factor)
            view = np.maximum.reduceat(view, starts, axis=axis)
    return view


def project(volume: Any, voxel_size: Sequence[float]) -> Projections:
    """The three maximum projections of a volume, read box by box if it lies on the disk.

    Parameters
    ----------
    volume
        (D, H, W): an array, or a stack that says its `boxes`.
    voxel_size
        (z, y, x), µm.
    """
    depth, height, width = (int(n) for n in volume.shape)
    down, front, right = (
        np.full(size, -np.inf, np.float32) for size in ((height, width), (depth, width), (height, depth))
    )
    for z, y, x in volume.boxes() if hasattr(volume, "boxes") else [(slice(None),) * 3]:
        box = figures.to_numpy(volume[z, y, x])
        for view, part, seen in (
            (down, (y, x), box.max(axis=0)),
            (front, (z, x), box.max(axis=1)),
            (right, (y, z), box.max(axis=2).T),
        ):
            view[part] = np.maximum(view[part], seen)
    z_um, y_um, x_um = (n * s for n, s in zip((depth, height, width), voxel_size, strict=True))
    return Projections((_shrunk(down), _shrunk(front), _shrunk(right)), (z_um, y_um, x_um))


def grey(projections: Projections) -> list[np.ndarray]:
    """Brightness between 0 and 1: what is below the median is black, dim branches are lifted."""
    values = np.concatenate([view.ravel() for view in projections.views])
    low, high = np.percentile(values, (40, 99.8))
    if high <= low:
        low, high = float(values.min()), float(values.max())
    spread = high - low if high > low else 1.0
    return [np.sqrt(np.clip((view - low) / spread, 0, 1)) for view in projections.views]


def nice_length(extent: float | int) -> float:
    """1, 2 or 5 times a power of ten, about a fifth of the extent."""
    aim = extent / 5
    power = 10.0 ** np.floor(np.log10(aim))
    return float(max(step * power for step in (1, 2, 5) if step * power <= aim * 1.0001))


def branches(tree: Any) -> Iterator[np.ndarray]:
    """Paths (n, 3) in µm from a root or a branch point to the next one, or to an end."""
    stops = (tree.children != 1) | (tree.parent < 0)
    for node in np.flatnonzero(stops & (tree.parent >= 0)):
        path = [int(node)]
        while len(path) < 2 or not stops[path[-1]]:
            path.append(int(tree.parent[path[-1]]))
        yield tree.xyz[path]


class _Canvas:
    """Three views in one picture: from above, beside it from the right, below it from the front."""

    def __init__(self, extent: Sequence[float]) -> None:
        from matplotlib.figure import Figure

        self.z, self.y, self.x = extent
        gap = _GAP * (self.x + self.z)
        width, height = self.x + gap + self.z, self.y + gap + self.z
        size = (_WIDTH, min(max(_WIDTH * height / width, 1.5), 2 * _WIDTH))
        self.figure = Figure(figsize=size, dpi=128, facecolor=figures.INK)
        places = (
            (0, 1 - self.y / height, self.x / width, self.y / height),
            (0, 0, self.x / width, self.z / height),
            (1 - self.z / width, 1 - self.y / height, self.z / width, self.y / height),
        )
        self.axes = [self.figure.add_axes(place) for place in places]
        for axes, (across, down) in zip(self.axes, self.sizes, strict=True):
            axes.set(xlim=(0, across), ylim=(down, 0))
            axes.axis("off")
        self.scale = min(size[0] / width, size[1] / height)  # inches a µm

    @property
    def sizes(self) -> tuple[tuple[float, float], ...]:
        """Across and down, µm."""
        return (self.x, self.y), (self.x, self.z), (self.z, self.y)

    def images(self, pictures: Sequence[np.ndarray], **style: Any) -> None:
        for axes, (across, down), picture in zip(self.axes, self.sizes, pictures, strict=True):
            axes.imshow(
                picture, extent=(0, across, down, 0), aspect="auto", interpolation="antialiased", **style
            )

    def tint(self, pictures: Sequence[np.ndarray], color: str) -> None:
        """Where a picture is not 0."""
        from matplotlib.colors import to_rgba

        for axes, (across, down), picture in zip(self.axes, self.sizes, pictures, strict=True):
            layer = np.zeros((*picture.shape, 4))
            layer[picture > 0] = to_rgba(color, 0.75)
            axes.imshow(layer, extent=(0, across, down, 0), aspect="auto", interpolation="nearest")

    def lines(self, paths: Sequence[np.ndarray], colors: Sequence[str], width: float) -> None:
        """Paths (n, 3) in µm, (x, y, z), as all three views see them."""
        from matplotlib.collections import LineCollection

        for axes, (across, down) in zip(self.axes, ((0, 1), (0, 2), (2, 1)), strict=True):
            flat = [path[:, (across, down)] for path in paths]
            axes.add_collection(LineCollection(flat, colors=colors, linewidths=width, capstyle="round"))

    def dots(self, points: np.ndarray) -> None:
        """Points (n, 3) in µm, (x, y, z)."""
        for axes, (across, down) in zip(self.axes, ((0, 1), (0, 2), (2, 1)), strict=True):
            axes.plot(points[:, across], points[:, down], "o", color="white", ms=6, mfc="none", mew=1.4)

    def scale_bar(self) -> None:
        """In the lower left corner of the first view."""
        length = nice_length(min(self.x, self.y))
        inch = 1 / self.scale
        left, bottom = 0.12 * inch, self.y - 0.15 * inch
        style: Any = {"color": "white", "zorder": 5}
        self.axes[0].plot([left, left + length], [bottom, bottom], lw=3, solid_capstyle="butt", **style)
        self.axes[0].text(left, bottom - 0.06 * inch, f"{length:g} µm", fontsize=11, va="bottom", **style)

    def png(self) -> str:
        buffer = io.BytesIO()
        self.figure.savefig(buffer, format="png")
        return figures._uri(buffer.getvalue(), "png")


_VIEWS = "From above; beside it from the right, below it from the front; the brightest voxel on every line."


def stack_picture(stack: Projections) -> str:
    """The stack alone."""
    canvas = _Canvas(stack.extent)
    canvas.images(grey(stack), cmap="gray", vmin=0, vmax=1)
    canvas.scale_bar()
    return canvas.png()


def mask_picture(stack: Projections, mask: Projections) -> str:
    """The mask over the stack."""
    canvas = _Canvas(stack.extent)
    canvas.images(grey(stack), cmap="gray", vmin=0, vmax=1)
    canvas.tint(mask.views, _MASK)
    canvas.scale_bar()
    return canvas.png()


def tree_picture(stack: Projections, tree: Any, voxel_size: Sequence[float]) -> str:
    """The tracing over the stack, a colour a branch, circles around the roots."""
    canvas, shift = _Canvas(stack.extent), _first_centre(voxel_size)
    canvas.images(grey(stack), cmap="gray", vmin=0, vmax=2.0)
    paths = [path + shift for path in branches(tree)]
    canvas.lines(paths, [_BRANCHES[k % len(_BRANCHES)] for k in range(len(paths))], 1.3)
    canvas.dots(tree.xyz[tree.roots] + shift)
    canvas.scale_bar()
    return canvas.png()


def truth_picture(stack: Projections, tree: Any, truth: Any, voxel_size: Sequence[float]) -> str:
    """The tracing, thin and white, over the truth, wide and orange."""
    canvas, shift = _Canvas(stack.extent), _first_centre(voxel_size)
    canvas.lines([path + shift for path in branches(truth)], [_TRUTH], 3.4)
    canvas.lines([path + shift for path in branches(tree)], ["white"], 1.1)
    canvas.scale_bar()
    return canvas.png()


def _first_centre(voxel_size: Sequence[float]) -> np.ndarray:
    """Where the views have the centre of the first voxel, which trees have at 0; (x, y, z)."""
    return 0.5 * np.asarray(voxel_size, dtype=np.float64)[::-1]


def _times(values: Sequence[Any], digits: int = 3) -> str:
    return " × ".join(f"{value:.{digits}g}" if isinstance(value, float) else f"{value:,}" for value in values)


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}{'es' if what.endswith('ch') else 's'}"


def tree_rows(tree: Any) -> list[tuple[str, str]]:
    """What a tracing has, as names and values."""
    low, middle, high = np.percentile(tree.radius, (5, 50, 95))
    cable = f"{tree.length:,.0f} µm" if tree.length < 1e4 else f"{tree.length / 1e3:,.1f} mm"
    rows = [
        ("trees", f"{len(tree.roots):,}"),
        ("cable", cable),
        ("branch points", f"{len(tree.branch_points):,}"),
        ("ends", f"{len(tree.ends):,}"),
        ("radius: median, and that of 5 % and 95 % of the nodes", f"{middle:.2f}, {low:.2f}, {high:.2f} µm"),
    ]
    somas = tree.radius[tree.kind == 1]
    if len(somas):
        rows.append(("somas, with their radii", f"{len(somas)}: {', '.join(f'{r:.1f}' for r in somas)} µm"))
    return rows


def _rows(stack: Any, found: SegmentationResult) -> list[tuple[str, str]]:
    share = found.foreground / max(1, int(np.prod(stack.shape)))
    voxel = _times([float(side) for side in found.voxel_size])
    rows = [
        ("stack (z × y × x)", f"{_times(stack.shape)} voxels of {voxel} µm"),
        ("voxels of neuron", f"{found.foreground:,} ({100 * share:.3g} %)"),
        *(tree_rows(found.tree) if found.tree is not None else []),
        ("cubes; of them empty, and so left out", f"{found.cubes['all']:,}; {found.cubes['background']:,}"),
    ]
    return rows + [(f"seconds: {name}", f"{value:.2f}") for name, value in found.seconds.items()]


def answer(found: SegmentationResult) -> tuple[str, str]:
    """What was found in one line, and its tone."""
    if not found.foreground:
        return "No neuron was found in this stack.", "unsure"
    if found.tree is None:
        return f"{found.foreground:,} voxels belong to neurons.", "good"
    tree = found.tree
    return (
        f"{_many(len(tree.roots), 'tree')}, {tree.length:,.0f} µm of cable, "
        f"{_many(len(tree.branch_points), 'branch point')}, {_many(len(tree.ends), 'end')}.",
        "good",
    )


def _pictures(stack: Any, found: SegmentationResult, truth: Any = None) -> list[Block]:
    seen = project(stack, found.voxel_size)
    blocks: list[Block] = [Text(_VIEWS), Plot(stack_picture(seen), f"The stack. {_VIEWS}", "The stack.")]
    if found.tree is not None:
        words = "The tracing: a colour a branch, a circle around every root."
        blocks.append(Plot(tree_picture(seen, found.tree, found.voxel_size), words, words))
    if found.tree is not None and truth is not None:
        words = "The tracing (white) over the truth (orange): orange alone was missed, white alone is false."
        blocks.append(Plot(truth_picture(seen, found.tree, truth, found.voxel_size), words, words))
    if found.foreground:
        mask = mask_picture(seen, project(found.mask, found.voxel_size))
        plot = Plot(mask, "The mask over the stack.", "The voxels of neuron, over the stack.")
        blocks.append(plot if found.tree is None else Fold("The mask", [plot]))
    return blocks


def sections(stack: Any, found: SegmentationResult) -> list[Section]:
    """All sections of the page of one stack.

    Parameters
    ----------
    stack
        (D, H, W): an array, or anything with a shape and slices.
    found
        Its segmentation.
    """
    words, tone = answer(found)
    numbers: list[Block] = [Table(("what", "value"), _rows(stack, found))]
    if found.warnings:
        numbers.append(Items(list(found.warnings), "warning"))
    return [Section("What was found", _pictures(stack, found), words, tone), Section("In numbers", numbers)]


def summary(
    stack: Any,
    found: SegmentationResult,
    truth: Any,
    question: str,
    introduction: Sequence[Block],
    words: str,
) -> Section:
    """One section for a page with several questions, where the truth is known."""
    pictures = _pictures(stack, found, truth)
    numbers = Fold("In numbers", [Table(("what", "value"), _rows(stack, found))])
    return Section(question, [*introduction, Heading("What was found"), *pictures, numbers], words, "good")
