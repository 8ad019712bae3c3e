"""The report of a registration: before and after, how the space was bent, and the numbers."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from invlearn.reports import figures
from invlearn.reports.figures import Scale
from invlearn.reports.learnability import number
from invlearn.reports.page import Block, Fold, Gallery, Heading, Items, Plot, Section, Table, Text

_PLANES = (("sagittal", 0), ("coronal", 1), ("axial", 2))
_GREY = Scale(0.0, 1.0, "gray")
_TILES = 7  # of a checkerboard, along the longer side
_LINES = 24  # of a grid, along the longer side
_LARGEST = 256  # pixels of a picture along its longer side
_GAP = 2  # pixels beside each slice
_SECONDS = 1.6  # of one turn of a flicker
_FOLDED_FROM = 12  # labels: longer tables open on a click


@runtime_checkable
class RegistrationResult(Protocol):
    """What the report reads (`invlearn.registration.Registration`)."""

    @property
    def fixed(self) -> Any: ...
    @property
    def warped(self) -> Any: ...
    @property
    def deformation(self) -> Any: ...
    @property
    def history(self) -> Any: ...
    @property
    def similarity(self) -> Any: ...
    @property
    def converged(self) -> bool: ...
    @property
    def notes(self) -> Sequence[str]: ...

    def jacobian(self) -> Any: ...


class Canonical:
    """A grid seen along x (to the right), y (to the front) and z (up), whatever the order of its axes.

    Parameters
    ----------
    affine
        (4, 4) of the grid, mm, RAS.
    """

    def __init__(self, affine: np.ndarray) -> None:
        from nibabel.orientations import io_orientation

        orientation = io_orientation(affine)
        self.axes = [int(a) for a in np.argsort(orientation[:, 0])]
        self.signs = [int(orientation[a, 1]) for a in self.axes]
        lengths = np.linalg.norm(affine[:3, :3], axis=0)
        self.spacing = tuple(float(lengths[a]) for a in self.axes)

    def volume(self, data: np.ndarray) -> np.ndarray:
        """`(X, Y, Z)` along the three directions."""
        turned = np.transpose(data, self.axes)
        return np.flip(turned, tuple(k for k in range(3) if self.signs[k] < 0))

    def field(self, u: np.ndarray) -> np.ndarray:
        """Components and grid of a field in voxels, along the three directions."""
        return np.stack([s * self.volume(u[a]) for a, s in zip(self.axes, self.signs, strict=True)])


def unit(data: np.ndarray) -> np.ndarray:
    """Grey values between 0 and 1: from the 0.5th to the 99.5th percentile of what is no background."""
    x = np.nan_to_num(np.asarray(data, dtype=np.float64), posinf=0, neginf=0)
    values = x[x != np.median(x)]
    low, high = np.percentile(values, (0.5, 99.5)) if values.size else (0.0, 0.0)
    low = min(low, float(np.median(x)))
    return np.clip((x - low) / (high - low), 0, 1) if high > low else np.zeros_like(x)


def cut(volume: np.ndarray, plane: int, at: int) -> np.ndarray:
    """A slice as it is looked at: rows downwards, z (or y) upwards, left to the left."""
    return np.asarray(volume).take(at, plane).T[::-1]


def shaped(flat: np.ndarray, spacing: tuple[float, float], smooth: bool = True) -> np.ndarray:
    """A slice with square pixels; `spacing` is that of columns and rows, in mm."""
    from scipy import ndimage

    width, height = flat.shape[1] * spacing[0], flat.shape[0] * spacing[1]
    pixel = max(min(spacing), max(width, height) / _LARGEST)
    factors = (max(1, round(height / pixel)) / flat.shape[0], max(1, round(width / pixel)) / flat.shape[1])
    return ndimage.zoom(flat, factors, order=1 if smooth else 0, grid_mode=True, mode="nearest")


def checkerboard(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Tiles of two pictures in turns."""
    side = max(1, max(a.shape) // _TILES)
    rows, columns = np.indices(a.shape) // side
    return np.where((rows + columns) % 2 == 0, a, b)


def montage(flats: Sequence[np.ndarray], empty: float = 0.0) -> np.ndarray:
    """Pictures side by side, the lower ones in the middle of the height."""
    height = max(x.shape[0] for x in flats)
    padded = []
    for x in flats:
        spare = height - x.shape[0]
        rows = (spare // 2, spare - spare // 2)
        padded.append(np.pad(x, (rows, (_GAP, _GAP)), constant_values=empty))
    return np.hstack(padded)


def flicker(a: np.ndarray, b: np.ndarray) -> str:
    """Two pictures in turns, as an SVG that needs no script; still where motion is not wanted."""
    height, width = a.shape
    style = (
        "image{image-rendering:auto}"
        f".b{{animation:f {_SECONDS}s steps(1) infinite}}"
        "@keyframes f{0%{opacity:0}50%{opacity:1}}"
        "@media(prefers-reduced-motion:reduce){.b{animation:none;opacity:0}}"
    )
    images = "".join(
        f'<image class="{name}" width="{width}" height="{height}" href="{figures.picture(x, _GREY)}"/>'
        for name, x in (("a", a), ("b", b))
    )
    text = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}"><style>{style}</style>{images}</svg>'
    )
    return figures._uri(text.encode(), "svg+xml")


def grid_lines(u: np.ndarray, spacing: tuple[float, float]) -> list[np.ndarray]:
    """Lines of a regular grid where the map takes them, in mm, each (n, 2).

    Parameters
    ----------
    u
        (2, columns, rows) of the slice: in-plane displacement in voxels.
    spacing
        Of columns and rows, in mm.
    """
    scale = np.array(spacing).reshape(2, 1, 1)
    at = (np.indices(u.shape[1:]) + u) * scale
    extent = np.array(u.shape[1:]) * spacing
    steps = [max(1, round(extent.max() / _LINES / s)) for s in spacing]
    columns = [at[:, i, :].T for i in range(steps[0] // 2, u.shape[1], steps[0])]
    rows = [at[:, :, j].T for j in range(steps[1] // 2, u.shape[2], steps[1])]
    return columns + rows


def deformed_grids(slices: _Slices) -> str:
    """Regular grids in the three planes, bent by the deformation, over the fixed slices."""
    from matplotlib.collections import LineCollection
    from matplotlib.figure import Figure

    sizes = [slices.extent(plane) for _, plane in _PLANES]
    width, height = sum(w for w, _ in sizes), max(h for _, h in sizes)
    buffer = io.BytesIO()
    with figures.house_style():
        figure = Figure(figsize=(9, 9 * height / width), dpi=128, facecolor="black")
        left = 0.0
        for (_, plane), (w, h) in zip(_PLANES, sizes, strict=True):
            place = (left / width, (1 - h / height) / 2, w / width, h / height)
            axes, (dx, dy) = figure.add_axes(place), slices.spacing(plane)
            left += w
            box = (-dx / 2, w - dx / 2, -dy / 2, h - dy / 2)
            axes.imshow(
                slices.flat(slices.fixed, plane), cmap="gray", vmin=0, vmax=1.6, extent=box, aspect="auto"
            )
            lines = grid_lines(slices.in_plane(plane), (dx, dy))
            axes.add_collection(LineCollection(lines, colors="#ffb454", linewidths=0.7))
            axes.set(xlim=box[:2], ylim=box[2:])
            axes.axis("off")
        figure.savefig(buffer, format="png")
    return figures._uri(buffer.getvalue(), "png")


def similarity_curve(history: Sequence[tuple[Sequence[int], Sequence[float]]], name: str) -> str:
    """The similarity step by step, one stretch a grid, coarse to fine."""
    with figures.house_style():
        figure, axes = figures.new_figure()
        start = 0
        for shape, values in history:
            steps = range(start, start + len(values))
            axes.plot(steps, values, label=" × ".join(map(str, shape)))
            start += len(values)
        axes.set(xlabel="step", ylabel=f"similarity ({name})")
        axes.legend(title="grid", loc="best")
        return figures.svg(figure)


class _Slices:
    """The three slices through the middle of the object, of every volume on the fixed grid."""

    def __init__(self, result: RegistrationResult, before: np.ndarray) -> None:
        self.view = Canonical(np.asarray(result.fixed.affine))
        fixed, after = (
            self.view.volume(unit(figures.to_numpy(v.data))) for v in (result.fixed, result.warped)
        )
        self.fixed, self.after, self.before = fixed, after, self.view.volume(unit(before))
        self.u = self.view.field(figures.to_numpy(result.deformation))
        self.determinant = self.view.volume(figures.to_numpy(result.jacobian()))
        weights = fixed if fixed.any() else np.ones_like(fixed)
        total = weights.sum()
        self.at = [
            round(float((weights.sum(tuple({0, 1, 2} - {k})) * np.arange(fixed.shape[k])).sum() / total))
            for k in range(3)
        ]

    def spacing(self, plane: int) -> tuple[float, float]:
        across, up = (self.view.spacing[k] for k in range(3) if k != plane)
        return across, up

    def flat(self, volume: np.ndarray, plane: int, smooth: bool = True) -> np.ndarray:
        return shaped(cut(volume, plane, self.at[plane]), self.spacing(plane), smooth)

    def in_plane(self, plane: int) -> np.ndarray:
        kept = [k for k in range(3) if k != plane]
        return np.stack([self.u[k].take(self.at[plane], plane) for k in kept])

    def extent(self, plane: int) -> tuple[float, float]:
        """Width and height of a slice in mm."""
        across, up = (self.fixed.shape[k] * self.view.spacing[k] for k in range(3) if k != plane)
        return across, up

    def row(self, volume: np.ndarray) -> np.ndarray:
        """The three slices side by side."""
        return montage([self.flat(volume, plane) for _, plane in _PLANES])


def _row(source: str, what: str, caption: str) -> Plot:
    return Plot(source, f"{what}: a sagittal, a coronal and an axial slice.", caption)


def _seen(slices: _Slices) -> Section:
    fixed, before, after = (slices.row(v) for v in (slices.fixed, slices.before, slices.after))
    tiles = [_boards(slices, volume) for volume in (slices.before, slices.after)]
    words = (
        "Sagittal, coronal and axial slices through the middle of the fixed volume; the front is on the "
        "right, the left of the body on the left."
    )
    blocks: list[Block] = [
        Text(words),
        Heading("Fixed and moving in turns"),
        _row(flicker(fixed, before), "Fixed and moving in turns, before", "Before: the headers alone."),
        _row(
            flicker(fixed, after),
            "Fixed and moving in turns, after",
            "After: what still moves is still apart.",
        ),
        Heading("Checkerboard of fixed and moving"),
        _row(tiles[0], "Checkerboard before", "Before."),
        _row(tiles[1], "Checkerboard after", "After: edges go on across the tiles."),
    ]
    rows = ((fixed, "Fixed"), (before, "Moving, before"), (after, "Moving, after"))
    plain = [_row(figures.picture(x, _GREY), name, f"{name}.") for x, name in rows]
    return Section("Before and after", [*blocks, Fold("The three volumes by themselves", plain)])


def _boards(slices: _Slices, volume: np.ndarray) -> str:
    flats = [checkerboard(*(slices.flat(v, plane) for v in (slices.fixed, volume))) for _, plane in _PLANES]
    return figures.picture(montage(flats), _GREY)


def determinant_scale(determinant: np.ndarray) -> Scale:
    """A scale about 1, as wide as nearly all of the volume, at most 0 … 2."""
    spread = float(np.percentile(np.abs(determinant - 1), 99.5))
    width = min(1.0, max(0.1, np.ceil(10 * spread) / 10))
    return Scale(1 - width, 1 + width, figures.DIVERGING, "|J| (1: unchanged)")


def _bent(slices: _Slices) -> Section:
    scale = determinant_scale(slices.determinant)
    flats = [slices.flat(slices.determinant, plane, smooth=False) for _, plane in _PLANES]
    words = (
        "The grid shows where points of the fixed volume find their partners, in the plane, without the "
        "affine part. |J| is the volume that a voxel takes up on the moving side, again without the affine "
        "part; where it is not positive, space folds."
    )
    blocks: list[Block] = [
        Text(words),
        _row(deformed_grids(slices), "Deformed grid", ""),
        _row(figures.picture(montage(flats, 1.0), scale), "Map of the Jacobian determinant", ""),
        Gallery((), scale=scale),
    ]
    return Section("How space was bent", blocks)


def metric_rows(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The numbers of `metrics.json`, as names and values."""
    alike = found["similarity"]
    rows = []
    if found["dice_after"] is not None:
        for key, name, unit_ in (
            ("dice_before", "Dice before, mean", ""),
            ("dice_after", "Dice after, mean", ""),
            ("hd95_mm", "HD95 after, mean", " mm"),
        ):
            mean = found[key]["mean"]
            rows.append((name, "–" if mean is None else f"{mean:.3f}{unit_}"))
    return [
        *rows,
        (f"similarity ({alike['name']}) before", f"{alike['before']:.4f}"),
        (f"similarity ({alike['name']}) after", f"{alike['after']:.4f}"),
        ("voxels that fold", f"{found['folding_percent']:.3g} %"),
        ("standard deviation of ln |J|", f"{found['sd_log_jacobian']:.3f}"),
        ("forward, then inverse: mean distance", f"{found['inverse_consistency_mm']:.4f} mm"),
        ("seconds", number(round(found["seconds"], 2))),
        ("seconds of processor time", number(round(found["cpu_seconds"], 2))),
    ]


def _label_table(found: Mapping[str, Any]) -> list[Block]:
    names = [key for key in found["dice_after"] if key != "mean"]

    def text(key: str, name: str) -> str:
        value = found[key][name]
        return "–" if value is None else f"{value:.3f}"

    rows = [(name, *(text(key, name) for key in ("dice_before", "dice_after", "hd95_mm"))) for name in names]
    table = Table(("label", "Dice before", "Dice after", "HD95 after (mm)"), rows)
    return [Fold(f"All {len(names)} labels", [table])] if len(names) >= _FOLDED_FROM else [table]


def _numbers(result: RegistrationResult, found: Mapping[str, Any]) -> Section:
    blocks: list[Block] = [Table(("what", "value"), metric_rows(found))]
    if found["dice_after"] is not None:
        blocks += _label_table(found)
    if result.history:
        name = result.similarity[0]
        shapes = ", ".join(" × ".join(map(str, shape)) for shape, _ in result.history)
        alt = f"The similarity {name} at every step, on grids of {shapes} voxels."
        caption = "" if result.converged else "The finest grid used up its steps before it had settled."
        blocks.append(Plot(similarity_curve(result.history, name), alt, caption))
    if result.notes:
        blocks.append(Items(list(result.notes), "warning"))
    return Section("In numbers", blocks)


def answer(found: Mapping[str, Any]) -> tuple[str, str]:
    """How it went in one line, and its tone."""
    alike, after = found["similarity"], found["dice_after"]
    fold = (
        f"{found['folding_percent']:.2g} % of the voxels fold"
        if found["folding_percent"]
        else "nothing folds"
    )
    if after is not None and after["mean"] is not None:
        first, last = found["dice_before"]["mean"], after["mean"]
        words, better = f"Dice {first:.3f} before, {last:.3f} after; {fold}.", last >= first
    else:
        words = (
            f"Similarity ({alike['name']}) {alike['before']:.3f} before, {alike['after']:.3f} after; {fold}."
        )
        better = alike["after"] >= alike["before"]
    return words, "good" if better and not found["folding_percent"] else "unsure"


def sections(result: RegistrationResult, before: np.ndarray, found: Mapping[str, Any]) -> list[Section]:
    """All sections of the page of one pair.

    Parameters
    ----------
    result
        The registration.
    before
        The moving volume on the fixed grid by the headers alone.
    found
        What `metrics.json` holds.
    """
    slices = _Slices(result, before)
    words, tone = answer(found)
    seen = _seen(slices)
    return [Section(seen.title, seen.blocks, words, tone), _numbers(result, found), _bent(slices)]


def summary(
    result: RegistrationResult,
    before: np.ndarray,
    found: Mapping[str, Any],
    question: str,
    introduction: Sequence[Block],
    words: str,
) -> Section:
    """One section for a page with several questions: the pictures open, the rest folded away."""
    slices = _Slices(result, before)
    seen, bent, numbers = _seen(slices), _bent(slices), _numbers(result, found)
    blocks: list[Block] = [*introduction, *seen.blocks]
    blocks += [Fold(part.title, part.blocks) for part in (bent, numbers)]
    return Section(question, blocks, words, "good")
