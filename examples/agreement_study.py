"""Does the verdict of `check` agree with learning that is really attempted?

For every setting one set of operators is drawn. `check` sees the operators and the dimension k. Then
random k-dimensional subspaces are drawn, signals of them are measured, and the subspace is learned
from the measurements alone (alternating minimisation and variable projection, `learn_subspace`,
which uses nothing of the certificates). It counts as learned when held-out signals are recovered
with a relative error below 1e-3 in every trial.

    python examples/agreement_study.py            # a few minutes on one core
    python examples/agreement_study.py --tiny     # a few settings

Writes `benchmarks/results/agreement.json`, `docs/figures/agreement.svg` and, with `--map`, a phase diagram
`docs/figures/phase.svg`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import runpy
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

# One thread: the matrices are small. Read when the linear algebra is loaded, so before it.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402

from invlearn.identifiability import Report, check, learn_subspace  # noqa: E402
from invlearn.identifiability.learn import LearnedSubspace, recovery_error  # noqa: E402
from invlearn.identifiability.phase import PhaseDiagram, phase_diagram, random_operators  # noqa: E402
from invlearn.physics import Dense, OperatorFamily  # noqa: E402
from invlearn.physics.groups import Group, Rotations90, Shifts  # noqa: E402

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parent.parent
recorded = runpy.run_path(str(ROOT / "benchmarks" / "recorded.py"))["about"]
TRIALS = 3
SUCCESS = 1e-3
EXPLAINED = 1e-9
COLOURS = {"certified": "#0072B2", "generic": "#56B4E9", "undecided": "#E69F00", "impossible": "#D55E00"}
MARKERS = {
    "gaussian": "o",
    "complex gaussian": "s",
    "mask": "^",
    "repeated": "D",
    "one signal each": "v",
    "shifts": "P",
    "rotations90": "X",
}


@dataclass(frozen=True)
class Setting:
    """One row of the study.

    `kind` is a kind of random operator, `"repeated"` (Gaussian operators of which half are the
    others over again), `"one signal each"` (Gaussian, and no more than one signal measured by each
    operator), or a group that acts on the signals of one Gaussian operator.
    """

    kind: str
    n: int
    k: int
    m: int
    count: int
    seed: int = 0

    @property
    def distinct(self) -> int:
        """Operators without repetitions."""
        return self.count // 2 if self.kind == "repeated" else self.count

    @property
    def samples(self) -> int:
        """Signals that each operator measures."""
        return 1 if self.kind == "one signal each" else 4 * self.k

    @property
    def key(self) -> list[int]:
        """Seed of the setting's own random numbers."""
        return [self.seed, list(MARKERS).index(self.kind), self.n, self.k, self.m, self.count]

    @property
    def margin(self) -> float:
        """m minus k + (n - k)/G."""
        return self.m - self.k - (self.n - self.k) / self.distinct


def settings() -> list[Setting]:
    """All settings: around the thresholds, and away from them."""
    found = []
    gaussian = [(16, 2, 3), (16, 3, 4), (24, 2, 3), (24, 2, 6), (30, 3, 2), (30, 3, 5), (30, 3, 10)]
    gaussian += [(30, 8, 4), (36, 4, 9), (40, 5, 7)]
    for n, k, count in gaussian:
        threshold = math.ceil(k + (n - k) / count)
        found += [Setting("gaussian", n, k, threshold + d, count) for d in (-2, -1, 0, 1)]
        found.append(Setting("gaussian", n, k, max(1, math.ceil(n / count) - 1), count))
    found += [Setting("gaussian", 30, 8, 8, 12), Setting("gaussian", 20, 6, 5, 10)]
    found += [Setting("complex gaussian", 16, 2, m, 3) for m in (5, 6, 7, 8)]
    found += [Setting("complex gaussian", 24, 3, m, 5) for m in (6, 7, 8, 9)]
    found += [Setting("mask", 16, 2, m, count) for m in (4, 6, 8, 10) for count in (4, 12)]
    found += [Setting("mask", 25, 3, m, count) for m in (6, 9, 12, 16) for count in (6, 20)]
    # Near their own threshold sum (m - k) >= n - k, which masks may miss by the way they overlap.
    found += [Setting("mask", 16, 3, 4, count) for count in (8, 12, 13, 14, 16, 24)]
    found += [Setting("mask", 25, 3, 5, count) for count in (10, 11, 12, 14, 18)]
    found += [Setting("gaussian", 30, 3, 4, count) for count in (26, 27, 28)]
    found += [Setting("gaussian", 40, 5, 6, count) for count in (34, 36, 40)]
    found += [Setting("one signal each", 20, 2, m, count) for m in (3, 4, 5) for count in (10, 15, 30, 60)]
    found += [Setting("repeated", 24, 2, m, 8) for m in (6, 7, 8, 9)]
    found += [Setting("shifts", 20, 1, m, 4) for m in (4, 5, 6, 7, 9)]
    found += [Setting("shifts", 20, 2, m, 4) for m in (5, 6, 7, 8, 11)]
    found += [Setting("shifts", 20, 2, m, 5) for m in (4, 5, 6, 7)]
    found += [Setting("shifts", 24, 4, m, 4) for m in (8, 9, 10)]
    found += [Setting("rotations90", 25, 2, m, 4) for m in (6, 7, 8, 9, 10)]
    found += [Setting("rotations90", 16, 4, m, 4) for m in (6, 7, 8)]
    # A grid may name a setting twice.
    return list(dict.fromkeys(found))


TINY = [
    Setting("gaussian", 12, 2, 4, 4),
    Setting("gaussian", 12, 2, 5, 4),
    Setting("mask", 9, 1, 2, 2),
    Setting("complex gaussian", 8, 1, 4, 3),
    Setting("repeated", 12, 2, 7, 4),
    Setting("shifts", 8, 1, 4, 4),
]


def group_of(setting: Setting) -> Group | None:
    """The group that acts on the signals, if the setting has one."""
    if setting.kind == "shifts":
        return Shifts((setting.n,), step=setting.n // setting.count)
    if setting.kind == "rotations90":
        side = math.isqrt(setting.n)
        return Rotations90((side, side))
    return None


def moves_of(group: Group) -> np.ndarray:
    """The group's permutation matrices T_h, `(order, n, n)`."""
    eye = np.eye(group.size)
    images = eye.reshape(group.size, *group.shape)
    return np.stack([group(images, h).reshape(eye.shape).T for h in range(group.order)])


def draw_operators(setting: Setting, rng: np.random.Generator) -> np.ndarray:
    """`(G, m, n)`; with a group, the one operator `(1, m, n)`."""
    if group_of(setting) is not None:
        return random_operators("gaussian", 1, setting.m, setting.n, rng)
    if setting.kind == "repeated":
        half = random_operators("gaussian", setting.distinct, setting.m, setting.n, rng)
        return np.concatenate([half, half])
    kind = "gaussian" if setting.kind == "one signal each" else setting.kind
    return random_operators(kind, setting.count, setting.m, setting.n, rng)  # type: ignore[arg-type]


def ask(setting: Setting, matrices: np.ndarray) -> Report:
    """The verdict: operators and dimension in, nothing of the experiment."""
    group = group_of(setting)
    if group is not None:
        return check(Dense(matrices[0], shape=group.shape), group=group, dimension=setting.k)
    if setting.kind == "mask":
        return check(OperatorFamily.from_masks(matrices.sum(axis=1) > 0), dimension=setting.k)
    return check(OperatorFamily.from_matrices(matrices), dimension=setting.k)


def draw(shape: tuple[int, ...], setting: Setting, rng: np.random.Generator) -> np.ndarray:
    """Standard normal, complex for complex operators."""
    real = rng.standard_normal(shape)
    return real + 1j * rng.standard_normal(shape) if setting.kind == "complex gaussian" else real


def learn(setting: Setting, matrices: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """Recovery error of held-out signals, and the unexplained part of the data, of one trial."""
    basis = np.linalg.qr(draw((setting.n, setting.k), setting, rng))[0]
    held_out = draw((20, setting.k), setting, rng) @ basis.T
    start = int(rng.integers(2**31))
    group = group_of(setting)
    if group is not None:
        moves = moves_of(group)
        y = [draw((setting.samples, setting.k), setting, rng) @ (matrices[0] @ t @ basis).T for t in moves]
        return learn_orbit(matrices[0], moves, y, held_out, start)
    y = [draw((setting.samples, setting.k), setting, rng) @ (a @ basis).T for a in matrices]
    learned = learn_subspace(matrices, y, setting.k, restarts=40, seed=start)
    return recovery_error(learned, matrices, held_out), learned.residual


def learn_orbit(
    matrix: np.ndarray, moves: np.ndarray, y: list[np.ndarray], held_out: np.ndarray, seed: int
) -> tuple[float, float]:
    """Learn the copies T_h V of a subspace from A T_h x, without knowing which copy is which.

    Measurements come in one batch a copy, but the batches are not labelled: every assignment of
    copies to batches is tried (the first batch is copy 0: the orbit has no origin). If several
    assignments explain the data, the data do not decide, and the worst of them counts.
    """
    k = np.linalg.matrix_rank(held_out)
    found: list[LearnedSubspace] = []
    for order in itertools.permutations(range(1, len(moves))):
        assigned = matrix @ moves[[0, *order]]
        found.append(learn_subspace(assigned, y, int(k), restarts=6, iterations=150, seed=seed))
    best = min(f.residual for f in found)
    explaining = [f for f in found if f.residual <= max(EXPLAINED, best)]
    return max(orbit_error(f, matrix, moves, held_out) for f in explaining), best


def orbit_error(
    learned: LearnedSubspace, matrix: np.ndarray, moves: np.ndarray, held_out: np.ndarray
) -> float:
    """Relative error of recovering T_h x, x held out, from A T_h x with the copy h unknown."""
    copies = [LearnedSubspace(t @ learned.basis, 0.0, True, 0, 1, ()) for t in moves]
    errors = 0.0
    for move in moves:
        x = held_out @ move.T
        y = x @ matrix.T
        recovered = [copy.recover(y, matrix) for copy in copies]
        # The copy whose best signals explain the measurements best.
        best = min(recovered, key=lambda r: float(np.linalg.norm(y - r @ matrix.T)))
        errors += float(np.linalg.norm(x - best) ** 2)
    return math.sqrt(errors / len(moves)) / float(np.linalg.norm(held_out))


def run(setting: Setting, trials: int) -> dict[str, Any]:
    """Verdict and experiment for one setting."""
    key = setting.key
    matrices = draw_operators(setting, np.random.default_rng(key))
    report = ask(setting, matrices)
    results = [learn(setting, matrices, np.random.default_rng([*key, t])) for t in range(trials)]
    errors, residuals = ([r[i] for r in results] for i in (0, 1))
    row = {
        **asdict(setting),
        "margin": setting.margin,
        "verdict": report.verdict,
        "reason": report.reason,
        "ghosts": None if report.ghost_test is None else report.ghost_test.ghost_dimension,
        "errors": errors,
        "residuals": residuals,
        "learned": all(e < SUCCESS for e in errors),
    }
    return {
        **row,
        "agrees": row["learned"] == report.learnable,
        "explanation": explain(setting, row, report),
    }


def explain(setting: Setting, row: dict[str, Any], report: Report) -> str:
    """Why verdict and experiment differ; empty where they agree."""
    if row["learned"] == report.learnable:
        return ""
    if report.verdict == "impossible":
        return "a counter-example to a necessary condition: this must not happen"
    if row["learned"]:
        if report.certificate is not None and report.certificate.passed:
            return (
                "every copy of the subspace was measured, in a batch of its own; the verdict asks for more, "
                "that no mixture of copies leaves a spurious direction"
            )
        return "the subspaces drawn were learned although the certificate failed on another one"
    equations = setting.samples * setting.count * (setting.m - setting.k)
    unknowns = setting.k * (setting.n - setting.k)
    if equations < unknowns:
        return (
            f"too few signals: {equations} equations for the {unknowns} unknowns of a subspace; the verdict "
            "speaks of unlimited data"
        )
    missed = [
        e for e, r in zip(row["errors"], row["residuals"], strict=True) if e >= SUCCESS and r > EXPLAINED
    ]
    failed = sum(e >= SUCCESS for e in row["errors"])
    if len(missed) == failed:
        return (
            f"local minimum in {failed} of {len(row['errors'])} trials: no start explained the data, which "
            "the true subspace does; the data suffice, the optimiser did not"
        )
    return "another subspace explains the data although the certificate passed: this must not happen"


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts by verdict and outcome."""
    verdicts = {v: {"learned": 0, "not learned": 0} for v in COLOURS}
    for row in rows:
        verdicts[row["verdict"]]["learned" if row["learned"] else "not learned"] += 1
    return {
        "settings": len(rows),
        "agree": sum(row["agrees"] for row in rows),
        "by_verdict": verdicts,
        "contradictions": sum("must not happen" in row["explanation"] for row in rows),
    }


def tables(result: dict[str, Any]) -> str:
    """Counts and disagreements, as they stand in `docs/agreement.md`."""
    lines = ["| verdict | learned | not learned |", "|---|---|---|"]
    lines += [
        f"| {v} | {c['learned']} | {c['not learned']} |" for v, c in result["summary"]["by_verdict"].items()
    ]
    lines += [
        "",
        "| operators | n | k | m | G | verdict | error | why |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in result["settings"]:
        if not r["agrees"]:
            figures = [
                *(r[key] for key in ("kind", "n", "k", "m", "count", "verdict")),
                f"{max(r['errors']):.1e}",
            ]
            lines.append(f"| {' | '.join(map(str, figures))} | {r['explanation']} |")
    return "\n".join(lines)


def figure(rows: list[dict[str, Any]]) -> Figure:
    """Recovery error against the distance from the threshold k + (n - k)/G, coloured by verdict."""
    from matplotlib.figure import Figure as MplFigure
    from matplotlib.lines import Line2D

    fig = MplFigure(figsize=(8.4, 4.8), layout="constrained")
    ax = fig.subplots()
    jitter = np.random.default_rng(0)
    for row in sorted(rows, key=lambda r: not r["agrees"]):
        error = float(np.clip(np.max(row["errors"]), 1e-15, 1e3))
        filled = row["agrees"]
        colour = COLOURS[row["verdict"]]
        ax.plot(
            row["margin"] + jitter.uniform(-0.04, 0.04),
            error,
            MARKERS[row["kind"]],
            ms=6.5,
            mec=colour if filled else "black",
            mew=0.8 if filled else 1.8,
            color=colour,
            alpha=0.85,
        )
    ax.set_xscale("symlog", linthresh=2, linscale=2)
    ticks = [-5, -2, -1, 0, 1, 2, 5, 10]
    ax.set_xticks(ticks, [str(t) for t in ticks])
    ax.set_yscale("log")
    ax.set_ylim(3e-16, 3e3)
    ax.axhline(SUCCESS, color="black", lw=0.8, ls="--")
    ax.axvline(0, color="black", lw=0.8, ls=":")
    ax.text(ax.get_xlim()[0], SUCCESS * 1.3, "  learned below this line", fontsize=8, va="bottom")
    ax.set_xlabel("rows per operator m, minus k + (n-k)/G")
    ax.set_ylabel("recovery error of held-out signals,\nworst of the trials")
    used = {row["kind"] for row in rows}
    verdicts = {row["verdict"] for row in rows}
    handles = [
        Line2D([], [], marker="o", ls="", color=c, label=v) for v, c in COLOURS.items() if v in verdicts
    ]
    handles += [
        Line2D([], [], marker=m, ls="", color="0.4", label=k) for k, m in MARKERS.items() if k in used
    ]
    handles.append(
        Line2D(
            [], [], marker="o", ls="", mfc="white", mec="black", mew=1.8, label="verdict and outcome differ"
        )
    )
    ax.legend(handles=handles, fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    ax.spines[["top", "right"]].set_visible(False)
    return fig


HEADER = f"{'kind':17} {'n':>3} {'k':>2} {'m':>3} {'G':>3}  {'verdict':11} {'error':>8}  learned"


def line(row: dict[str, Any]) -> str:
    """A setting as a line of text under `HEADER`."""
    return (
        f"{row['kind']:17} {row['n']:3} {row['k']:2} {row['m']:3} {row['count']:3}  {row['verdict']:11} "
        f"{max(row['errors']):8.1e}  {'yes' if row['learned'] else 'no':3}  {row['explanation']}"
    )


def study(chosen: list[Setting], trials: int) -> dict[str, Any]:
    """All settings, one after the other, each printed as it ends."""
    print(HEADER)
    rows = []
    for setting in chosen:
        rows.append(run(setting, trials))
        print(line(rows[-1]), flush=True)
    return {"trials": trials, "threshold": SUCCESS, "summary": summary(rows), "settings": rows}


def phase_map(tiny: bool) -> PhaseDiagram:
    """Where learning succeeds over (k, m, G), for Gaussian operators on signals of 24 entries."""
    if tiny:
        return phase_diagram(8, [1], [3, 5], [2, 4], trials=1, workers=1)
    return phase_diagram(24, [2, 4, 6], range(2, 17), [2, 3, 4, 6, 8, 12], trials=3)


def save(drawn: Figure, path: Path) -> None:
    """Write an SVG that is the same file every time."""
    from matplotlib import rc_context

    path.parent.mkdir(parents=True, exist_ok=True)
    with rc_context({"svg.hashsalt": path.stem}):
        drawn.savefig(path, format="svg", metadata={"Date": None})


def main(arguments: list[str] | None = None) -> None:
    """Run the study from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="a few small settings, one trial")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks" / "results" / "agreement.json")
    parser.add_argument("--figure", type=Path, default=ROOT / "docs" / "figures" / "agreement.svg")
    parser.add_argument("--map", type=Path, nargs="?", const=ROOT / "docs" / "figures" / "phase.svg")
    options = parser.parse_args(arguments)
    if options.map is not None:
        save(phase_map(options.tiny).figure(), options.map)
    chosen = [replace(s, seed=options.seed) for s in (TINY if options.tiny else settings())]
    result = study(chosen, 1 if options.tiny else TRIALS)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    about = recorded(int(os.environ["OMP_NUM_THREADS"]), "scipy", "invlearn")
    options.json.write_text(json.dumps(about | result, indent=1) + "\n")
    save(figure(result["settings"]), options.figure)
    print(tables(result))


if __name__ == "__main__":
    main()
