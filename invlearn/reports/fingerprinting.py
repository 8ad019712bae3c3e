"""The report of a fingerprinting reconstruction: the maps, how sure they are, how they were made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from invlearn.reports import figures
from invlearn.reports.figures import Scale
from invlearn.reports.learnability import number
from invlearn.reports.page import Block, Fold, Gallery, Heading, Picture, Plot, Section, Table, Text

#: Colour map and unit by map; the unit that is shown is `factor` times the unit of the map.
_SHOWN = {"t1": ("T1", "magma", "s", 1.0), "t2": ("T2", "viridis", "ms", 1e3), "pd": ("PD", "gray", "", 1.0)}
_ERRORS = "cividis"


@runtime_checkable
class FingerprintResult(Protocol):
    """What the report reads (`invlearn.unrolled.FingerprintMaps`)."""

    t1: Any
    t2: Any
    pd: Any
    t1_sd: Any
    t2_sd: Any
    pd_sd: Any
    correlation: Any
    sequence: Any
    noise: float
    residual: float
    converged: bool
    iterations: int
    residuals: Sequence[float]
    settings: Mapping[str, Any]


@runtime_checkable
class Truth(Protocol):
    """What the maps should be (`invlearn.io.maps.TissueMaps`)."""

    @property
    def t1(self) -> Any: ...
    @property
    def t2(self) -> Any: ...
    @property
    def pd(self) -> Any: ...
    @property
    def inside(self) -> Any: ...


def object_mask(result: FingerprintResult) -> np.ndarray:
    """Where there is something to see: \\|PD\\| above 15 % of its 99th percentile."""
    density = np.abs(figures.to_numpy(result.pd))
    return density > 0.15 * np.percentile(density, 99)


def _relative(result: FingerprintResult, name: str) -> np.ndarray:
    """Standard error over value, where there is an object; NaN elsewhere."""
    value = np.abs(figures.to_numpy(getattr(result, name)))
    sd = figures.to_numpy(getattr(result, f"{name}_sd"))
    known = object_mask(result) & (value > 0) & np.isfinite(sd)
    return np.where(known, sd / np.where(known, value, 1), np.nan)


def scatter(values: np.ndarray, mask: np.ndarray) -> float:
    """Standard deviation of relative differences of neighbours along the last axis, per voxel, robust.

    1.4826 × the median of \\|x[i + 1] - x[i]\\| / (√2 x̄) over neighbours that are both in the mask.
    """
    a, b = values[..., 1:], values[..., :-1]
    both = mask[..., 1:] & mask[..., :-1] & (a + b > 0)
    if not both.any():
        return float("nan")
    relative = 2 * np.abs(a - b)[both] / (a + b)[both]
    return float(1.4826 * np.median(relative) / np.sqrt(2))


def _pictures(array: np.ndarray, scale: Scale, caption: str) -> list[Picture]:
    return [
        Picture(figures.picture(flat, scale), f"{caption}{', ' + label if label else ''}")
        for label, flat in figures.slices(array)
    ]


def _gallery(result: FingerprintResult, name: str) -> Gallery:
    title, colors, unit, factor = _SHOWN[name]
    mask = object_mask(result)
    values = np.where(mask, factor * np.abs(figures.to_numpy(getattr(result, name))), 0)
    scale = Scale(0.0, _upper(values[mask]), colors, unit or "PD")
    return Gallery(_pictures(values, scale, title), scale=scale, wide=True)


def _upper(values: np.ndarray) -> float:
    """The upper end of a scale: a round number above nearly all values; fluid may outshine it."""
    top = float(min(np.percentile(values, 98), 2 * np.percentile(values, 75))) if values.size else 1.0
    step = 10 ** np.floor(np.log10(top)) / 2 if top > 0 else 1.0
    return float(np.ceil(top / step) * step)


def _maps(result: FingerprintResult, title: str) -> Section:
    return Section(title, [_gallery(result, name) for name in _SHOWN])


def precision_rows(result: FingerprintResult) -> list[tuple[str, str, str]]:
    """Name, median standard error and scatter between neighbours of each map, in percent."""
    mask = object_mask(result)
    rows = []
    for name, (title, *_) in _SHOWN.items():
        relative = _relative(result, name)
        values = np.abs(figures.to_numpy(getattr(result, name)))
        known = np.isfinite(relative)
        median = float(np.median(relative[known])) if known.any() else float("nan")
        rows.append((title, f"{100 * median:.2f} %", f"{100 * scatter(values, mask):.2f} %"))
    return rows


def _precision(result: FingerprintResult) -> Section:
    pictures: list[Picture] = []
    scale = Scale(0.0, 10.0, _ERRORS, "% of the value")
    for name in ("t1", "t2"):
        percent = np.nan_to_num(100 * _relative(result, name))
        pictures += _pictures(percent, scale, f"standard error of {_SHOWN[name][0]}")
    words = (
        "The Cramér–Rao bound of an unbiased estimate from these data, at the noise that the reconstruction "
        "left unexplained. A regularised map scatters less than the bound, and pays for it with bias near "
        "edges; where it scatters more, aliasing or motion is at work."
    )
    table = Table(("map", "bound, median", "scatter between neighbours"), precision_rows(result))
    return Section("How sure are they?", [Text(words), table, Gallery(pictures, scale=scale)])


def residual_curve(residuals: Sequence[float]) -> str:
    """The solver's residuals, step by step."""
    with figures.house_style():
        figure, axes = figures.new_figure(height=2.2)
        axes.semilogy(range(len(residuals)), np.maximum(residuals, 1e-12), ".-", color=figures.BLUE)
        axes.set(xlabel="step", ylabel="residual")
        axes.xaxis.get_major_locator().set_params(integer=True)
        return figures.svg(figure)


def _flip_angles(result: FingerprintResult) -> str:
    with figures.house_style():
        figure, axes = figures.new_figure(height=1.8)
        axes.plot(np.degrees(figures.to_numpy(result.sequence.flip_angle)), color=figures.BLUE)
        axes.set(xlabel="frame", ylabel="flip angle (°)")
        return figures.svg(figure)


def facts(result: FingerprintResult) -> list[tuple[str, str]]:
    """How the maps were made, as names and values."""
    rows = [(name.replace("_", " "), number(value)) for name, value in result.settings.items()]
    rows += [
        ("frames", number(len(result.sequence.flip_angle))),
        ("unexplained part of k-space", f"{100 * result.residual:.2f} %"),
        ("steps", f"{number(result.iterations)}{'' if result.converged else ' (not converged)'}"),
    ]
    return rows


def _making(result: FingerprintResult) -> Section:
    blocks: list[Block] = [Table(("setting", "value"), facts(result))]
    if len(result.residuals) > 1:
        words = "Each rise is a new pass with new weights." if result.settings["method"] == "subspace" else ""
        blocks.append(Plot(residual_curve(result.residuals), "Residual after each step", words))
    blocks.append(Plot(_flip_angles(result), "Flip angle of each frame", "The sequence that was assumed."))
    return Section("How they were made", blocks)


def _error_section(result: FingerprintResult, truth: Truth) -> Section:
    inside = np.asarray(truth.inside)
    scale = Scale(-20.0, 20.0, figures.DIVERGING, "% error")
    pictures: list[Picture] = []
    rows = []
    for name in ("t1", "t2"):
        title = _SHOWN[name][0]
        true = np.where(inside, figures.to_numpy(getattr(truth, name)), 1)
        error = np.where(inside, figures.to_numpy(getattr(result, name)) / true - 1, 0)
        pictures += _pictures(100 * error, scale, f"error of {title}")
        absolute = np.abs(error[inside])
        bound = _relative(result, name)[inside]
        known = np.isfinite(bound) & (bound > 0)
        ratio = float(np.median(absolute[known] / bound[known])) / 0.6745 if known.any() else float("nan")
        rows.append(
            (
                title,
                f"{100 * np.median(absolute):.2f} %",
                f"{100 * np.median(error[inside]):+.2f} %",
                f"{ratio:.2f}",
            )
        )
    table = Table(
        ("map", "median error", "median bias", "error / bound"),
        rows,
        "Error over bound is 1 for an unbiased estimate that reaches the Cramér–Rao bound everywhere; less "
        "is the work of a prior, more is partial volume, aliasing or folding.",
    )
    return Section("Against the truth", [table, Gallery(pictures, scale=scale)])


def sections(
    result: FingerprintResult, truth: Truth | None = None, title: str = "T1, T2 and proton density"
) -> list[Section]:
    """All sections of the page of one reconstruction; with a truth, its errors too."""
    errors = [] if truth is None else [_error_section(result, truth)]
    return [_maps(result, title), *errors, _precision(result), _making(result)]


def summary(
    result: FingerprintResult, truth: Truth, question: str, introduction: Sequence[Block], answer: str
) -> Section:
    """One section for a page with several questions: the maps and errors open, the rest folded away."""
    blocks: list[Block] = [*introduction, *(_gallery(result, name) for name in _SHOWN)]
    errors = _error_section(result, truth)
    blocks += [Heading(errors.title), *errors.blocks]
    blocks += [Fold(part.title, part.blocks) for part in (_precision(result), _making(result))]
    return Section(question, blocks, answer, "good")
