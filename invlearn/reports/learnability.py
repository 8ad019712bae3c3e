"""The report of a learnability check: verdict in words first, then the evidence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from invlearn.reports import figures
from invlearn.reports.page import Block, Fold, Gallery, Heading, Items, Picture, Plot, Section, Table, Text

HEADLINES = {
    "impossible": "Impossible: no method can learn a reconstruction from these measurements alone.",
    "certified": "Certified: these measurements determine the signal model, by a rank computed for them.",
    "generic": "Generic: almost every set of operators of these sizes suffices; this one was not certified.",
    "undecided": "Undecided: nothing forbids learning, and nothing here proves that it works.",
}
TONES = {"impossible": "bad", "certified": "good", "generic": "good", "undecided": "unsure"}
_COLORS = {
    "impossible": "#b3261e",
    "undecided": "#8a6100",
    "generic": figures.BLUE,
    "certified": figures.GREEN,
}


@runtime_checkable
class LearnabilityResult(Protocol):
    """What the report reads from the result of a check (`invlearn.identifiability.Report`)."""

    verdict: str
    reason: str
    n: int
    m: tuple[int, ...]
    operators: int
    group: str | None
    dimension: int | None
    bounds: Sequence[Any]
    certificate: Any
    warnings: Sequence[str]
    shape: tuple[int, ...]
    complex: bool
    coverage: Any
    coverage_basis: str | None
    unseen: Any
    unseen_what: str
    spectrum: Any
    sweep: Sequence[Any]
    dimension_estimate: Any
    ghost_test: Any
    completable: Any

    def to_dict(self) -> dict[str, Any]: ...


def number(value: Any) -> str:
    """A count or measure as text: integers whole, other numbers to three or four digits, none as a dash."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple):
        return ", ".join(map(number, value))
    if math.isfinite(value) and float(value).is_integer() and abs(value) < 1e15:
        text = f"{int(value):,}"
    elif abs(value) >= 1000:
        text = f"{value:,.1f}"
    else:
        text = f"{value:.3g}" if abs(value) < 1e-3 else f"{value:.4g}"
    return text.replace("-", "−", 1) if text.startswith("-") else text


def ranks(m: Sequence[int]) -> str:
    """Ranks of the operators: one number when they agree, their range otherwise."""
    low, high = min(m), max(m)
    return number(low) if low == high else f"{number(low)} to {number(high)}"


def facts(report: LearnabilityResult) -> list[tuple[str, str]]:
    """The setting of the check as names and values."""
    field = "complex numbers" if report.complex else "numbers"
    shape = f"{' × '.join(map(str, report.shape))} = " if len(report.shape) > 1 else ""
    rows = [
        ("signals", f"{shape}{number(report.n)} {field}"),
        ("operators", number(report.operators)),
        ("m, independent measurements of each", ranks(report.m)),
        ("group", report.group or "none"),
    ]
    estimate = report.dimension_estimate
    if report.dimension is not None:
        given = "" if estimate is None else f" (estimated, {number(estimate.low)} to {number(estimate.high)})"
        rows.append(("k, dimension of the signals", number(report.dimension) + given))
    return rows


def bound_rows(report: LearnabilityResult) -> list[tuple[Sequence[str], str]]:
    """The bounds as rows of text with a tone, those that apply first."""
    rows: list[tuple[Sequence[str], str]] = []
    for bound in sorted(report.bounds, key=lambda b: not b.applies):
        holds = "–" if bound.holds is None else "holds" if bound.holds else "fails"
        if not bound.applies:
            result, tone = "not applicable", ""
        else:
            result, tone = holds, {"holds": "good", "fails": "bad"}.get(holds, "")
            if bound.kind == "sufficient" and tone == "bad":
                tone = ""  # a sufficient condition that fails forbids nothing
        cells = (
            bound.id,
            f"{bound.statement}{'; ' + bound.note if bound.note else ''}",
            bound.kind,
            number(bound.required),
            number(bound.actual),
            number(bound.margin),
            result,
        )
        rows.append((cells, tone))
    return rows


def _bounds(report: LearnabilityResult) -> Section:
    rows = bound_rows(report)
    table = Table(
        ("id", "condition", "kind", "required", "actual", "margin", "result"),
        [cells for cells, _ in rows],
        "A necessary condition that fails makes learning impossible. A sufficient one settles it only where "
        "it applies: theorems about almost every operator say nothing about masks, Fourier samples or blurs.",
        [tone for _, tone in rows],
    )
    by_source: dict[str, list[str]] = {}
    for bound in report.bounds:
        by_source.setdefault(bound.source, []).append(bound.id)
    sources = [f"{', '.join(ids)}: {source}" for source, ids in by_source.items()]
    return Section("Conditions", [table, Items(sources, "sources")])


def _certificate(report: LearnabilityResult) -> Section | None:
    certificate = report.certificate
    if certificate is None:
        return None
    blocks: list[Block] = [
        Text(f"Model: {certificate.model}. Scope: {certificate.scope}"),
        Table(
            ("null space found", "expected", "gap", "tolerance", "method"),
            [
                (
                    number(certificate.nullity),
                    number(certificate.expected_nullity),
                    number(certificate.gap),
                    number(certificate.tolerance),
                    certificate.method,
                )
            ],
        ),
    ]
    test = report.ghost_test
    if test is not None and test.assignments:
        blocks.append(
            Text(
                f"Unions of subspaces: with {number(test.assignments)} random mixed assignments of operators "
                f"to subspaces, ghosts of dimension {number(test.ghost_dimension)} remain."
            )
        )
    if report.spectrum is not None and len(report.spectrum):
        source = figures.spectrum(
            report.spectrum, expected_nullity=certificate.expected_nullity, tolerance=certificate.tolerance
        )
        caption = (
            f"Smallest singular values of the certificate's stack. The first {certificate.expected_nullity} "
            "belong to the model itself; any further one near zero is a direction that cannot be learned."
        )
        blocks.append(Plot(source, "Smallest singular values on a logarithmic scale", caption))
    return Section("Certificate for these operators", blocks)


def _signal_pictures(signals: np.ndarray, name: str, unit: str) -> Gallery:
    """Signals of any rank as one gallery with one scale."""
    if np.iscomplexobj(signals):
        signals, unit = signals.real, f"{unit}, real part".lstrip(", ")
    if signals.ndim == 2:
        bound = float(np.abs(signals).max())
        curves = [
            Picture(figures.curve(s, xlabel="entry", ylabel=unit, bound=bound), f"{name} {i + 1}")
            for i, s in enumerate(signals)
        ]
        return Gallery(curves, wide=True)
    scale = figures.shared_scale([signals], signed=True, unit=unit)

    def peak(signal: np.ndarray) -> list[int]:
        return [int(i) for i in np.unravel_index(np.abs(signal).argmax(), signal.shape)]

    pictures = [
        Picture(figures.picture(flat, scale), f"{name} {i + 1}" + (f", {label}" if label else ""))
        for i, s in enumerate(signals)
        for label, flat in figures.slices(s, peak(s))
    ]
    return Gallery(pictures, scale=scale)


def _unseen(report: LearnabilityResult) -> Section | None:
    if report.unseen is None or not len(report.unseen):
        return None
    what = report.unseen_what[:1].upper() + report.unseen_what[1:]
    directions = figures.to_numpy(report.unseen)
    if all(np.count_nonzero(direction) == 1 for direction in directions):
        directions = directions[:4]  # single entries: the coverage map shows them all
    gallery = _signal_pictures(directions, "direction", "amplitude")
    return Section("What stays invisible", [Text(f"{what}: examples of norm 1."), gallery])


def _completable(report: LearnabilityResult) -> Section | None:
    if report.completable is None:
        return None
    share = figures.to_numpy(report.completable).astype(np.float64)
    words = (
        "The certificate failed, yet not everywhere alike: for each entry, the share of the operators "
        "under which it is determined by what was measured."
    )
    if share.ndim == 1:
        source = figures.bars(100 * share, xlabel="entry", ylabel="operators (%)")
        return Section(
            "What can be completed", [Text(words), Plot(source, "Completable share of each entry")]
        )
    scale = figures.Scale(0.0, 100.0, unit="% of operators")
    pictures = [Picture(figures.picture(100 * flat, scale), label) for label, flat in figures.slices(share)]
    return Section("What can be completed", [Text(words), Gallery(pictures, scale=scale)])


def _coverage(report: LearnabilityResult) -> Section | None:
    if report.coverage is None or report.coverage_basis is None:
        return None
    counts = figures.to_numpy(report.coverage).astype(np.float64)
    fourier = report.coverage_basis == "fourier"
    entry = "spatial frequency" if fourier else "entry"
    if fourier:
        counts = np.fft.fftshift(counts)
    unseen = int((counts == 0).sum())
    seers = "copies of the operator under the group" if report.group else "operators"
    low, high = number(counts.min()), number(counts.max())
    if unseen:
        words = f"{number(unseen)} of {number(counts.size)} are seen by none of the {seers}."
    elif low == high:
        words = f"Every {entry} is seen by {low} of the {seers}."
    else:
        words = f"Every {entry} is seen: the least seen by {low}, the most by {high} {seers}."
    blocks: list[Block] = [Text(words)]
    if counts.ndim == 1:
        blocks.append(
            Plot(figures.bars(counts, xlabel=entry, ylabel=f"number of {seers}"), f"Coverage of each {entry}")
        )
    else:
        scale = figures.Scale(0.0, max(float(counts.max()), 1.0), unit=seers)
        pictures = [
            Picture(
                figures.picture(flat, scale), label or ("zero frequency in the middle" if fourier else "")
            )
            for label, flat in figures.slices(counts)
        ]
        blocks.append(Gallery(pictures, f"How many {seers} see each {entry}.", scale))
        whole = np.rint(counts).astype(np.int64)
        if 1 < whole.max() <= 200:
            source = figures.bars(
                np.bincount(whole.ravel()),
                xlabel=f"number of {seers} that see it",
                ylabel="entries",
                highlight=0,
            )
            blocks.append(Plot(source, f"Histogram of the coverage of each {entry}"))
    return Section("Coverage", blocks)


def _dimension(report: LearnabilityResult) -> Section | None:
    estimate = report.dimension_estimate
    if estimate is None:
        return None
    rows = [(name, number(value)) for name, value in dict(estimate.by_method).items()]
    blocks: list[Block] = [
        Text(
            f"Estimated dimension {number(estimate.value)}, between {number(estimate.low)} "
            f"and {number(estimate.high)}."
        ),
        Table(("estimator", "dimension"), rows),
    ]
    if report.sweep:
        source = figures.sweep(
            list(report.sweep), _COLORS, xlabel="dimension k of the signals", mark=estimate.value
        )
        seen = {verdict for _, verdict in report.sweep}
        words = (
            "The verdict is the same over the whole interval."
            if len(seen) == 1
            else "The verdict depends on the dimension within its interval."
        )
        blocks.append(Plot(source, "Verdict at each dimension of the interval", words))
    return Section("Dimension of the signals", blocks)


def _plan(report: LearnabilityResult) -> Section | None:
    plan = report.to_dict().get("plan")
    if not plan:
        return None
    names = {
        "minimal_m": "smallest m to learn any set of this dimension, and to recover its signals",
        "minimal_operators": "smallest number of operators at the given m",
        "minimal_m_subspace": "smallest m to learn one linear subspace",
        "minimal_m_recovery": "smallest m to recover the signals of a known set",
        "expected_unseen": "entries that random masks of this density would leave unseen, on average",
    }
    rows = [
        (names.get(key, key.replace("_", " ")), number(value))
        for key, value in plan.items()
        if value is not None
    ]
    if not rows:
        return None
    return Section("What it would take", [Table(("for operators in general position", "value"), rows)])


def verdict_section(
    report: LearnabilityResult, title: str = "Can a reconstruction be learned from these measurements alone?"
) -> Section:
    """The verdict in words, its reason, the setting and the warnings."""
    blocks: list[Block] = [
        Text(report.reason),
        Table(("setting", "value"), facts(report)),
    ]
    shown, more = list(report.warnings[:5]), list(report.warnings[5:])
    if shown:
        blocks.append(Items(shown, "warning"))
    if more:
        blocks.append(Fold(f"{len(more)} more notes", [Items(more, "warning")]))
    return Section(title, blocks, HEADLINES[report.verdict], TONES[report.verdict])


def evidence(report: LearnabilityResult) -> list[Section]:
    """The sections after the verdict: conditions, certificate, pictures, dimension, plan."""
    parts = (
        _bounds(report),
        _certificate(report),
        _unseen(report),
        _completable(report),
        _coverage(report),
        _dimension(report),
        _plan(report),
    )
    return [part for part in parts if part is not None]


def sections(report: LearnabilityResult) -> list[Section]:
    """All sections of the page of one check."""
    return [verdict_section(report), *evidence(report)]


def summary(report: LearnabilityResult, question: str, introduction: Sequence[Block]) -> Section:
    """One section for a page with several questions: the introduction, the answer, its evidence.

    Evidence without pictures is folded away.
    """
    verdict = verdict_section(report, question)
    blocks = [*introduction, *verdict.blocks]
    for part in evidence(report):
        if any(isinstance(block, Plot | Gallery) for block in part.blocks):
            blocks += [Heading(part.title), *part.blocks]
        else:
            blocks.append(Fold(part.title, part.blocks))
    return Section(question, blocks, verdict.answer, verdict.tone)
