"""Before training: can these losses learn from these measurements at all?

Every loss says what it brings: nothing beyond each operator by itself, a group, or a link between all the
operators. The learnability check then runs for exactly that, on the dimension of the signals as it is
given or estimated from a few batches of the measurements.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from invlearn.identifiability import Report, check, check_splitting, estimate_dimension_from_measurements
from invlearn.identifiability.setting import DENSE_LIMIT
from invlearn.identifiability.splitting import bernoulli_splits
from invlearn.learning.objective import Loss, Objective
from invlearn.learning.splitting import Splitting
from invlearn.physics.family import OperatorFamily
from invlearn.physics.groups import Group
from invlearn.physics.linear.mask import Mask
from invlearn.physics.noise import GaussianNoise
from invlearn.physics.operator import LinearOperator

_SPLITS = 16  # random inputs for which the condition of a splitting loss is computed
# entries of a signal for which the answer takes seconds where all operators are diagonal in a known basis
_COUNTED, _CERTIFIED = 2**18, 2**14
_ALONE = 8  # operators that are checked one by one where no loss links them


class NotLearnable(ValueError):
    """The losses cannot teach what these operators do not show; nothing was trained.

    Attributes
    ----------
    report
        The learnability check that says so: conditions, and pictures of what stays invisible.
    """

    def __init__(self, report: Report, what: str) -> None:
        super().__init__(
            f"this cannot be learned with {what}: {report.reason} Measure with more operators "
            f"(MultiOperatorImaging), "
            "use a symmetry of the signals (EquivariantImaging), or train all the same with force=True"
        )
        self.report = report


@dataclass(frozen=True, eq=False)
class Gate:
    """What was found before training.

    Attributes
    ----------
    verdict
        As in `invlearn.identifiability.Report`; or `"supervised"` where a loss compares with ground truth,
        and nothing has to be shown.
    reason
        Why, in a sentence or two.
    report
        The check behind it; None if none was made.
    seconds
        How long it took.
    """

    verdict: str
    reason: str
    report: Report | None
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Plain types, ready for JSON."""
        report = None if self.report is None else self.report.to_dict()
        return {"verdict": self.verdict, "reason": self.reason, "report": report, "seconds": self.seconds}


def examine(
    operators: OperatorFamily,
    objective: Objective,
    y: list[Tensor],
    index: Tensor,
    *,
    dimension: int | None = None,
    force: bool = False,
) -> Gate:
    """Find out whether an objective can work.

    Parameters
    ----------
    operators
        All of them.
    objective
        The losses.
    y
        Some measurements, one tensor a sample.
    index
        `(len(y),)`: which operator made them.
    dimension
        Of the signal set; None estimates it from the measurements.
    force
        Warn where otherwise NotLearnable would be raised.

    Returns
    -------
    Gate

    Raises
    ------
    NotLearnable
        A necessary condition fails, and `force` was not given.
    """
    start = time.perf_counter()
    what = " + ".join(objective.names)
    if any(loss.needs_truth for loss in objective.losses):
        return Gate("supervised", "A loss compares with ground truth.", None, time.perf_counter() - start)
    try:
        gate = _examine(operators, objective, y, index, dimension)
    except (ValueError, TypeError, ArithmeticError, RuntimeError) as error:
        # a check that cannot be made must not stop a training that could work
        gate = Gate("undecided", f"The learnability check could not be made: {error}", None, 0.0)
    gate = Gate(gate.verdict, gate.reason, gate.report, time.perf_counter() - start)
    if gate.verdict == "impossible":
        assert gate.report is not None
        if not force:
            raise NotLearnable(gate.report, what)
        warnings.warn(f"training although this cannot be learned with {what}: {gate.reason}", stacklevel=3)
    elif gate.verdict == "undecided":
        warnings.warn(f"it is not certain that this can be learned with {what}: {gate.reason}", stacklevel=3)
    return gate


def _examine(
    operators: OperatorFamily, objective: Objective, y: list[Tensor], index: Tensor, dimension: int | None
) -> Gate:
    k = dimension
    found: list[Report] = []
    for part, group in _settings(operators, objective.losses):
        size = part.domain.size
        spectra = {None if (s := A.spectrum()) is None else s.basis for A in part}
        exact = len(spectra) == 1 and None not in spectra and group is None
        if size > (_COUNTED if exact else DENSE_LIMIT):
            return Gate(
                "undecided",
                f"Signals of {size} entries are too large to be checked in seconds; "
                f"invlearn.identifiability.check "
                "takes its time for them.",
                None,
                0.0,
            )
        certify = size <= (_CERTIFIED if exact else DENSE_LIMIT)
        if k is None and certify:
            k = _estimate(operators, objective.losses, y, index)
        report = check(part, group=group, dimension=k if certify else None)
        failed = [b.id for b in report.bounds if b.kind == "necessary" and b.applies and b.holds is False]
        if failed == ["dimension"] and dimension is None:  # an estimate proves nothing impossible
            report = check(part, group=group)
        found.append(report)
        if report.verdict == "impossible":
            break
    worst = min(found, key=lambda r: ("impossible", "undecided", "generic", "certified").index(r.verdict))
    condition = _splitting_condition(operators, objective.losses) if worst.learnable else None
    if condition is not None:
        return Gate("undecided", condition, worst, 0.0)
    return Gate(worst.verdict, worst.reason, worst, 0.0)


def _settings(
    operators: OperatorFamily, losses: tuple[Loss, ...]
) -> Iterator[tuple[OperatorFamily, Group | None]]:
    """What must be learnable: the family as a whole if a loss links its operators, else each by itself."""
    groups = [loss.group for loss in losses if loss.group is not None]
    group = max(groups, key=lambda g: g.order) if groups else None
    if any(loss.couples for loss in losses):
        yield operators, group
        return
    for A in list(operators)[:_ALONE]:
        yield OperatorFamily([A]), group


def _estimate(
    operators: OperatorFamily, losses: tuple[Loss, ...], y: list[Tensor], index: Tensor
) -> int | None:
    """The dimension of the signals from some measurements; None where they are too few."""
    noises = [getattr(loss, "noise", None) for loss in losses]
    sd = max((noise.sd for noise in noises if isinstance(noise, GaussianNoise)), default=0.0)
    rows = [torch.view_as_real(v.resolve_conj()) if v.is_complex() else v for v in y]
    halved = operators.domain.complex
    if y[0].is_complex():
        sd = sd / 2**0.5
    parts = [
        torch.stack([rows[i].flatten() for i in (index == g).nonzero().flatten().tolist()])
        for g in torch.unique(index).tolist()
    ]
    try:
        found = estimate_dimension_from_measurements(parts, noise=sd or None)
    except ValueError:
        return None
    k = -(-found.value // 2) if halved else found.value
    return min(max(k, 1), operators.domain.size)


def _splitting_condition(operators: OperatorFamily, losses: tuple[Loss, ...]) -> str | None:
    """Why a splitting loss might not have the supervised minimiser; None if it has, or is not alone."""
    splits = [loss for loss in losses if isinstance(loss, Splitting)]
    if not splits or any(loss.couples and not isinstance(loss, Splitting) for loss in losses):
        return None
    keep = splits[0].keep
    if splits[0].group is not None:
        return None  # the condition is on the operators moved by the group, which the check has covered
    if all(isinstance(A, Mask) for A in operators) and not (splits[0].shared_axes or splits[0].centre):
        masks = torch.stack([A.mask for A in operators if isinstance(A, Mask)])
        report = check_splitting(*bernoulli_splits(masks, keep, _SPLITS))
    elif operators.domain.size <= DENSE_LIMIT // 4:
        report = check_splitting([_halves(A, splits[0], seed) for seed in range(_SPLITS) for A in operators])
    else:
        return None
    if report.holds:
        return None
    failed = report["S1"]
    return (
        f"The operators can be learned from, but the splitting loss leaves {report.n - failed.actual} of "
        f"{report.n} "
        f"directions untested for {failed.failing_probability:.0%} of the split measurements by themselves "
        f"(condition S1): "
        "it relies on the network treating different splits alike."
    )


def _halves(A: LinearOperator, loss: Splitting, seed: int) -> tuple[LinearOperator, LinearOperator]:
    kept = loss.draw(A.codomain, Generator().manual_seed(seed))
    return tuple(Mask(part.to(A.device), A.codomain.complex) @ A for part in (kept, ~kept))  # type: ignore[return-value]
