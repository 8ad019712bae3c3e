"""Figures in one house style, as images that an HTML page can hold.

Matplotlib is imported where it is used, and never through pyplot: no window, no global state.
"""

from __future__ import annotations

import base64
import contextlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

SEQUENTIAL = "viridis"
DIVERGING = "RdBu_r"
INK = "#1f2933"
BLUE, ORANGE, GREEN, GREY = "#2f6db5", "#c4590a", "#1b7f4d", "#8894a0"

_STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "lines.linewidth": 1.4,
    "lines.markersize": 4,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "svg.hashsalt": "invlearn",  # the same figure gives the same bytes
}


@dataclass(frozen=True)
class Scale:
    """One colour scale, shared by the pictures that are compared.

    Attributes
    ----------
    low, high
        Values at the two ends.
    colors
        Name of a perceptually uniform Matplotlib colour map.
    unit
        Unit of the values, or what they count.
    """

    low: int | float
    high: int | float
    colors: str = SEQUENTIAL
    unit: str = ""

    @property
    def gradient(self) -> str:
        """The colour map as the stops of a CSS gradient."""
        rgb = _colors(np.linspace(0, 1, 17), self.colors)[:, :3]
        return ", ".join("#{:02x}{:02x}{:02x}".format(*color) for color in rgb)


def shared_scale(arrays: Sequence[Any], *, signed: bool = False, unit: str = "") -> Scale:
    """The scale that holds all of `arrays`; symmetric about zero when `signed`."""
    values = np.concatenate([to_numpy(a).ravel() for a in arrays])
    if signed:
        bound = float(np.abs(values).max()) or 1.0
        return Scale(-bound, bound, DIVERGING, unit)
    return Scale(float(values.min()), float(values.max()), SEQUENTIAL, unit)


def to_numpy(array: Any) -> np.ndarray:
    """A tensor on any device, or anything NumPy understands, as an array."""
    if hasattr(array, "detach"):
        array = array.detach().cpu()
    return np.asarray(array)


def _colors(values: np.ndarray, name: str) -> np.ndarray:
    """`values` in 0 ... 1 to RGBA bytes."""
    from matplotlib import colormaps

    return colormaps[name](values, bytes=True)


def _uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def picture(array: Any, scale: Scale) -> str:
    """A real 2-D array as a PNG data URI, a pixel an entry (rows down, columns right)."""
    from matplotlib.image import imsave

    array = to_numpy(array).astype(np.float64)
    if array.ndim != 2:
        raise ValueError(f"a picture is a 2-D array, got the shape {array.shape}")
    width = scale.high - scale.low
    unit = (array - scale.low) / width if width > 0 else np.zeros_like(array)
    buffer = io.BytesIO()
    imsave(buffer, _colors(np.clip(unit, 0, 1), scale.colors), format="png")
    return _uri(buffer.getvalue(), "png")


def slices(array: Any, through: Sequence[int] | None = None) -> list[tuple[str, np.ndarray]]:
    """The 2-D pictures of an array of rank 2 or more, with a label each.

    A volume gives its three orthogonal slices; further leading axes give one entry. They pass
    through the index `through`, by default the middle.
    """
    array = to_numpy(array)
    if array.ndim < 2:
        raise ValueError(f"slices are of arrays with two axes or more, got the shape {array.shape}")
    where = [size // 2 for size in array.shape] if through is None else [int(i) for i in through]
    while array.ndim > 3:
        array = array[where.pop(0)]
    if array.ndim == 2:
        return [("", array)]
    return [(f"axis {axis}, slice {where[axis]}", array.take(where[axis], axis)) for axis in range(3)]


@contextlib.contextmanager
def house_style() -> Iterator[None]:
    """The house style for the Matplotlib figures made and saved within."""
    import matplotlib

    with matplotlib.rc_context(_STYLE):
        yield


def new_figure(width: int | float = 5.2, height: int | float = 2.8) -> tuple[Any, Any]:
    """A figure of `width` by `height` inches and its axes; make and save it within `house_style`.

    The default width keeps the text readable on a telephone.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def svg(figure: Any) -> str:
    """A figure as an SVG data URI with its text as outlines."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return _uri(buffer.getvalue(), "svg+xml")


def curve(values: Any, *, xlabel: str, ylabel: str, bound: int | float | None = None) -> str:
    """A 1-D signal as a small plot; `bound` fixes the vertical range to ±bound."""
    with house_style():
        figure, axes = new_figure(2.6, 1.8)
        values = to_numpy(values)
        axes.axhline(0, color=GREY, linewidth=0.6)
        axes.plot(values, color=BLUE, marker="." if len(values) <= 64 else "")
        axes.set(xlabel=xlabel, ylabel=ylabel)
        if bound is not None:
            axes.set_ylim(-1.1 * bound, 1.1 * bound)
        return svg(figure)


def bars(counts: Any, *, start: int = 0, xlabel: str, ylabel: str, highlight: int | None = None) -> str:
    """A bar chart of `counts` at `start`, `start` + 1, ...; the bar at `highlight` stands out."""
    with house_style():
        figure, axes = new_figure(height=2.2)
        counts = to_numpy(counts)
        where = np.arange(start, start + len(counts))
        axes.bar(where, counts, color=[ORANGE if w == highlight else BLUE for w in where])
        axes.set(xlabel=xlabel, ylabel=ylabel)
        axes.xaxis.get_major_locator().set_params(integer=True)
        return svg(figure)


def spectrum(values: Any, *, expected_nullity: int, tolerance: int | float | None = None) -> str:
    """Smallest singular values, ascending, on a log scale, with the gap after the null space."""
    sigma = to_numpy(values).astype(np.float64)
    shown = np.maximum(sigma, 1e-18)  # exact zeros need a place on a log axis
    with house_style():
        figure, axes = new_figure()
        index = np.arange(1, len(sigma) + 1)
        null = index <= expected_nullity
        axes.semilogy(index[null], shown[null], "o", color=GREY, label=f"null space expected: {null.sum()}")
        axes.semilogy(index[~null], shown[~null], "o", color=BLUE, label="must be above the tolerance")
        if tolerance is not None and tolerance > 0:
            axes.axhline(
                tolerance, color=ORANGE, linestyle="--", linewidth=1, label=f"tolerance {tolerance:.1e}"
            )
        if null.any() and not null.all():
            edge = int(null.sum())
            axes.axvspan(edge + 0.35, edge + 0.65, color=GREY, alpha=0.25, linewidth=0)
        axes.set(xlabel="index, smallest first", ylabel="singular value")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_ylim(max(shown.min() / 30, 1e-19), max(30 * shown.max(), 1.0))
        axes.legend(loc="best")
        return svg(figure)


def sweep(
    points: Sequence[tuple[int | float, str]],
    colors: dict[str, str],
    *,
    xlabel: str,
    mark: int | float | None,
) -> str:
    """A verdict at each value of a quantity, one row a verdict; `mark` is the value that was used."""
    with house_style():
        rows = list(colors)
        figure, axes = new_figure(height=0.9 + 0.35 * len(rows))
        if mark is not None:
            axes.axvline(mark, color=GREY, linestyle="--", linewidth=1)
        for value, verdict in points:
            axes.plot(value, rows.index(verdict), "s", color=colors[verdict], markersize=7)
        axes.set_yticks(range(len(rows)), rows)
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.set_xlabel(xlabel)
        axes.xaxis.get_major_locator().set_params(integer=True)
        return svg(figure)
