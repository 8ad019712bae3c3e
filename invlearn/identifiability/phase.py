"""Phase diagrams: where learning from measurements alone really succeeds."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from invlearn.identifiability.learn import learn_subspace, recovery_error

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OperatorKind = Literal["gaussian", "complex gaussian", "mask"]
Job = tuple[int, int, int, int, OperatorKind, int, int]
_KINDS = ("gaussian", "complex gaussian", "mask")
_SUCCESS = 1e-3
_FILE = "cells.jsonl"
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class PhaseDiagram:
    """Results of learning experiments over a grid of (k, m, G).

    Attributes
    ----------
    n
        Size of a signal.
    dimensions, ms, operators
        The grid: dimensions k, rows m of an operator, numbers G of operators.
    operator
        Kind of random operator.
    trials, seed
        Experiments per cell and their seed.
    success
        `(K, M, G)` fraction of the trials with a recovery error below 1e-3.
    error
        `(K, M, G)` median relative recovery error of held-out signals.
    """

    n: int
    dimensions: tuple[int, ...]
    ms: tuple[int, ...]
    operators: tuple[int, ...]
    operator: str
    trials: int
    seed: int
    success: np.ndarray = field(repr=False)
    error: np.ndarray = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain types, ready for JSON."""
        return {
            "n": self.n,
            "dimensions": list(self.dimensions),
            "ms": list(self.ms),
            "operators": list(self.operators),
            "operator": self.operator,
            "trials": self.trials,
            "seed": self.seed,
            "success": self.success.tolist(),
            "error": self.error.tolist(),
        }

    def figure(self) -> Figure:
        """The success map, a panel per dimension, under the lines of theory.

        Lines over G: m = n/G (necessary), k + (n-k)/G (one subspace: learnable from here for almost
        every operator), k + n/G (sufficient for any set of dimension k), 2k (recovery, any set).
        Needs matplotlib; draws without any window system.
        """
        from matplotlib.figure import Figure as MplFigure
        from matplotlib.ticker import MaxNLocator

        panels = len(self.dimensions)
        columns = min(panels, 3)
        rows = math.ceil(panels / columns)
        width = 1.6 + 3.1 * columns
        fig = MplFigure(figsize=(width, 0.9 + 3.0 * rows), layout="constrained")
        axes = fig.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        gs, ms = np.array(self.operators), np.array(self.ms)
        # Unevenly spaced grids are drawn to scale: cell edges lie halfway between the values.
        fine = np.linspace(_edges(gs)[0], _edges(gs)[-1], 400)
        fine = fine[fine >= 1]
        image = None
        for i, (k, ax) in enumerate(zip(self.dimensions, axes.flat, strict=False)):
            image = ax.pcolormesh(_edges(gs), _edges(ms), self.success[i], cmap="cividis", vmin=0, vmax=1)
            for values, style, label in (
                (self.n / fine, ":", "necessary: n/G"),
                (k + (self.n - k) / fine, "-", "one subspace: k + (n-k)/G"),
                (k + self.n / fine, "--", "any set: k + n/G"),
                (np.full_like(fine, 2 * k), "-.", "recovery, any set: 2k"),
            ):
                # White under black stays visible on both ends of the colour map.
                ax.plot(fine, values, style, color="white", lw=2.6, alpha=0.7)
                ax.plot(fine, values, style, color="black", lw=1.2, label=label)
            ax.set_xlim(_edges(gs)[[0, -1]])
            ax.set_ylim(_edges(ms)[[0, -1]])
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
            ax.set_title(f"k = {k}", fontsize=10)
        for ax in list(axes.flat)[panels:]:
            ax.set_visible(False)
        for ax in axes[-1]:
            ax.set_xlabel("operators G")
        for row in axes:
            row[0].set_ylabel("rows per operator m")
        handles, labels = axes.flat[0].get_legend_handles_labels()
        fig.legend(handles, labels, loc="outside lower center", ncols=min(4, 2 * columns), fontsize=8)
        if image is not None:
            fig.colorbar(image, ax=axes, label=f"learned, fraction of {self.trials} trials")
        fig.suptitle(f"Learning a k-subspace of {self.n} entries ({self.operator} operators)", fontsize=11)
        return fig


def _edges(values: np.ndarray) -> np.ndarray:
    """Cell edges around the grid values."""
    if len(values) == 1:
        return np.array([values[0] - 0.5, values[0] + 0.5])
    middle = (values[1:] + values[:-1]) / 2
    return np.concatenate(
        [[1.5 * values[0] - 0.5 * values[1]], middle, [1.5 * values[-1] - 0.5 * values[-2]]]
    )


def random_operators(kind: OperatorKind, count: int, m: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """`(count, m, n)` random operators: Gaussian, complex Gaussian, or m entries chosen at random."""
    if kind == "mask":
        return np.stack([np.eye(n)[np.sort(rng.permutation(n)[:m])] for _ in range(count)])
    return _normal((count, m, n), kind, rng)


def _normal(shape: tuple[int, ...], kind: str, rng: np.random.Generator) -> np.ndarray:
    real = rng.standard_normal(shape)
    return real + 1j * rng.standard_normal(shape) if kind == "complex gaussian" else real


def learning_trial(
    n: int, k: int, m: int, count: int, *, operator: OperatorKind = "gaussian", seed: Sequence[int] = (0,)
) -> float:
    """One experiment: learn a random k-subspace from measurements of `count` random operators.

    4k signals are measured by each operator, none of them is seen; the relative recovery error of
    20 other signals is returned. `seed` is a list of integers (see `numpy.random.SeedSequence`).
    """
    rng = np.random.default_rng(list(seed))
    basis = np.linalg.qr(_normal((n, k), operator, rng))[0]
    matrices = random_operators(operator, count, m, n, rng)
    y = [_normal((4 * k, k), operator, rng) @ (a @ basis).T for a in matrices]
    start = int(rng.integers(2**31))
    learned = learn_subspace(matrices, y, k, seed=start)
    return recovery_error(learned, matrices, _normal((20, k), operator, rng) @ basis.T)


def _cell(job: Job) -> tuple[int, int, int, list[float]]:
    n, k, m, count, operator, trials, seed = job
    errors = [
        learning_trial(n, k, m, count, operator=operator, seed=(seed, n, k, m, count, t))
        for t in range(trials)
    ]
    return k, m, count, errors


class _CellFile:
    """Finished cells, a line each after a line of settings; a torn last line is forgotten."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / _FILE
        self.cells: dict[tuple[int, int, int], list[float]] = {}
        header = json.dumps(settings)
        lines = self.path.read_text().splitlines(keepends=True) if self.path.exists() else []
        whole = [line for line in lines if line.endswith("\n")]
        if whole:
            if whole[0].rstrip() != header:
                raise ValueError(
                    f"{self.path} holds another experiment ({whole[0].strip()}), this one is {header}; "
                    "give another folder or remove that file"
                )
            for line in whole[1:]:
                k, m, count, errors = json.loads(line)
                self.cells[k, m, count] = errors
        if len(whole) != len(lines) or not whole:
            self.path.write_text("".join(whole) or header + "\n")

    def add(self, cell: tuple[int, int, int, list[float]]) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(cell) + "\n")


def _run(jobs: list[Job], workers: int) -> Iterator[Any]:
    if workers == 1:
        yield from map(_cell, jobs)
        return
    # Children read these when they load their linear algebra: one thread each. A fork would inherit
    # the parent's threads and their locks, so fresh processes are started.
    saved = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
    try:
        for future in as_completed([pool.submit(_cell, job) for job in jobs]):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)
        for name, value in saved.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _checked(n: int, name: str, values: Sequence[int], most: int | None) -> tuple[int, ...]:
    found = tuple(sorted({int(v) for v in values}))
    if not found or found[0] < 1 or (most is not None and found[-1] > most):
        limits = "of 1 or more" if most is None else f"in 1 ... {most}"
        raise ValueError(f"{name} must be integers {limits} (n = {n}), got {list(values)}")
    return found


def phase_diagram(
    n: int,
    dimensions: Sequence[int],
    ms: Sequence[int],
    operators: Sequence[int],
    *,
    operator: OperatorKind = "gaussian",
    trials: int = 5,
    seed: int = 0,
    workers: int | None = None,
    folder: str | Path | None = None,
) -> PhaseDiagram:
    """Learn subspaces from incomplete measurements over a grid of (k, m, G), and count successes.

    Every trial draws a random k-dimensional subspace and G random operators, measures 4k signals
    with each operator, learns the subspace from these measurements alone (`learn_subspace`), and
    succeeds when held-out signals are recovered with a relative error below 1e-3. A progress bar is
    shown on a terminal.

    Parameters
    ----------
    n
        Size of a signal.
    dimensions, ms, operators
        Values of k, of m (rows per operator) and of G.
    operator
        `"gaussian"`, `"complex gaussian"` or `"mask"` (m entries of the signal, chosen at random).
    trials
        Experiments per cell.
    seed
        Every trial has a seed made of this, its cell and its number: results depend neither on the
        order nor on the number of workers.
    workers
        Processes, one thread each; all CPUs by default. With more than one, a script needs the
        usual ``if __name__ == "__main__":`` guard.
    folder
        Where finished cells are kept, a line each: run again after an interruption, it goes on
        where it was and gives the same result.

    Returns
    -------
    PhaseDiagram

    Raises
    ------
    ValueError
        Grid values below 1, k or m above n, an unknown operator, a folder with another experiment.
    """
    if operator not in _KINDS:
        raise ValueError(f"operator must be one of {', '.join(_KINDS)}, got {operator!r}")
    if n < 1 or trials < 1 or (workers is not None and workers < 1):
        raise ValueError(f"n, trials and workers must be 1 or more, got {n}, {trials}, {workers}")
    ks = _checked(n, "dimensions", dimensions, n)
    rows = _checked(n, "ms", ms, n)
    counts = _checked(n, "operators", operators, None)
    settings = {"n": n, "operator": operator, "trials": trials, "seed": seed}
    store = _CellFile(Path(folder), settings) if folder is not None else None
    done = dict(store.cells) if store else {}
    grid = [(k, m, count) for k in ks for m in rows for count in counts]
    jobs: list[Job] = [(n, *cell, operator, trials, seed) for cell in grid if cell not in done]
    # The dear cells first, so that no worker ends alone with one of them.
    jobs.sort(key=lambda job: -job[1] * job[3])

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("learning experiments"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
    )
    with bar:
        task = bar.add_task("", total=len(grid), completed=len(grid) - len(jobs))
        for cell in _run(jobs, min(workers or os.cpu_count() or 1, max(len(jobs), 1))):
            if store:
                store.add(cell)
            done[cell[:3]] = cell[3]
            bar.advance(task)
    shape = (len(ks), len(rows), len(counts))
    errors = np.array([done[cell] for cell in grid])
    return PhaseDiagram(
        n=n,
        dimensions=ks,
        ms=rows,
        operators=counts,
        operator=operator,
        trials=trials,
        seed=seed,
        success=(errors < _SUCCESS).mean(axis=1).reshape(shape),
        error=np.median(errors, axis=1).reshape(shape),
    )
