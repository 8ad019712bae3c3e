"""Train a reconstruction from measurements."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.utils.data import Dataset

from invlearn.learning.gate import Gate, examine
from invlearn.learning.identity import objective_card, physics_card
from invlearn.learning.objective import Batch, Loss, Objective
from invlearn.learning.sure import UNSURE
from invlearn.physics.family import OperatorFamily
from invlearn.physics.operator import LinearOperator
from invlearn.training import Settings, TrainingResult, train
from invlearn.training.data import check_dataset, is_finite

_GATE_SAMPLES = 500  # measurements that the dimension is estimated from


@dataclass(frozen=True)
class FitResult:
    """What `fit` did; the model holds the weights.

    Attributes
    ----------
    gate
        The learnability check before training.
    training
        Epoch by epoch, see `TrainingResult`. Losses are logged by name and without their weights. Where
        held-out data come with ground truth, `val/relative_error` is ‖f(y, A) - x‖/‖x‖.
    learned
        What losses learned along: the noise's standard deviation of `UNSURE`.
    """

    gate: Gate
    training: TrainingResult
    learned: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain types, ready for JSON."""
        return {
            "gate": self.gate.to_dict(),
            "training": self.training.to_dict(),
            "learned": dict(self.learned),
        }


def fit(
    model: nn.Module,
    physics: OperatorFamily | LinearOperator,
    data: Dataset[Any],
    losses: Loss | Objective | Iterable[Loss | Objective],
    *,
    epochs: int,
    val: Dataset[Any] | None = None,
    settings: Settings | None = None,
    dimension: int | None = None,
    force: bool = False,
) -> FitResult:
    """Train a model to reconstruct, from measurements alone or with ground truth.

    Before training, the learnability check runs for what the losses bring: operators that nothing links are
    checked one by one, `MultiOperatorImaging` and `Splitting` link them, a group moves them.

    Parameters
    ----------
    model
        ``model(y, A)`` is the reconstruction `(N, *domain.shape)` of measurements `(N, *codomain.shape)`. In
        a batch of a family, A is one operator whose batch axis runs over the samples' operators.
    physics
        The operator, or the family of operators.
    data
        Samples `(y,)` for one operator, `(y, operator_index)` for a family; x comes last where a loss needs
        it.
    losses
        Their sum is minimised: ``2 * EquivariantImaging(group) + MeasurementConsistency()``, or a list.
    epochs
        How often to go through the data.
    val
        Held-out samples as in `data`. Without ground truth the same losses are measured on the measurements.
        They may have x where the training data have none: then its error is logged, and nothing else is
        done with it.
    settings
        How to train.
    dimension
        Of the signal set, for the check; by default estimated from a few hundred measurements.
    force
        Train although the check says that it is impossible.

    Returns
    -------
    FitResult

    Raises
    ------
    NotLearnable
        A necessary condition fails for these operators and losses.
    ValueError
        Samples that do not fit the operators or the losses, or a dimension out of range; and what `train`
        raises.
    TypeError
        A model, physics, losses or samples of another kind.
    Diverged
        See `train`.

    Warns
    -----
    UserWarning
        The check could not decide, or `force` was used.
    """
    settings = Settings() if settings is None else settings
    operators = OperatorFamily([physics]) if isinstance(physics, LinearOperator) else physics
    if not isinstance(operators, OperatorFamily):
        raise TypeError(f"physics is a LinearOperator or an OperatorFamily, got {type(physics).__name__}")
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"the model is a torch.nn.Module called as model(y, A), got {model!r}; of a class make an object"
        )
    size = operators.domain.size
    if dimension is not None and not (isinstance(dimension, int) and 1 <= dimension <= size):
        raise ValueError(
            f"dimension, that of the signal set, is a whole number in 1 ... {size} (entries of a signal), "
            f"got {dimension!r}"
        )
    objective = Objective.of(losses)
    for loss in objective.losses:
        loss.check(operators)
    is_family = isinstance(physics, OperatorFamily)
    reader = _Reader(operators, is_family, any(loss.needs_truth for loss in objective.losses))
    reader.check(check_dataset(data, "the training data"), "the training data")
    if val is not None:
        reader.check(check_dataset(val, "the validation data"), "the validation data")
    y, index = reader.some(data, _GATE_SAMPLES)
    gate = examine(operators, objective, y, index, dimension=dimension, force=force)
    task = _Task(model, operators, objective, reader)
    training = train(task, data, epochs=epochs, val=val, settings=settings)
    return FitResult(gate, training, task.learned_values())


@dataclass(frozen=True, eq=False)
class _Reader:
    """What the parts of a sample are."""

    operators: OperatorFamily
    is_family: bool
    supervised: bool

    @property
    def layout(self) -> str:
        return "(y, operator_index)" if self.is_family else "(y,)"

    def split(self, sample: Any, what: str) -> tuple[Any, Any, Any]:
        """y, the operator's index (0 for one operator) and x (None if there is none)."""
        parts = list(sample) if isinstance(sample, Sequence) and not isinstance(sample, str) else [sample]
        least = 2 if self.is_family else 1
        numbers = all(isinstance(part, Tensor | np.ndarray | np.generic | int | float) for part in parts)
        if not (numbers and least <= len(parts) <= least + 1):
            kinds = ", ".join(type(part).__name__ for part in parts)
            raise ValueError(
                f"a sample of {what} is {self.layout}, with x last where there is ground truth; got "
                f"{len(parts)} part{'s' if len(parts) != 1 else ''} ({kinds})"
            )
        return parts[0], parts[1] if self.is_family else 0, parts[least] if len(parts) > least else None

    def check(self, data: Dataset[Any], what: str) -> None:
        """Refuse samples that do not fit, by the first of them."""
        y, g, x = self.split(data[0], what)
        number = torch.as_tensor(g)
        if number.numel() != 1 or number.dtype == torch.bool or number.is_floating_point():
            raise ValueError(
                f"{what}: the operator index of a sample is one integer, got {number.dtype} of the shape "
                f"{tuple(number.shape)}"
            )
        g = int(number)
        if not 0 <= g < len(self.operators):
            raise ValueError(
                f"{what}: operator index {g} is out of range for {len(self.operators)} operators"
            )
        space = self.operators[g].codomain
        checked = space.check(torch.as_tensor(y), f"{what}: a measurement of operator {g}")
        if checked.ndim != space.ndim:
            raise ValueError(
                f"{what}: a measurement of operator {g} has the shape {space.shape}, got "
                f"{tuple(checked.shape)}"
            )
        if x is not None:
            self.operators.domain.check(torch.as_tensor(x), f"{what}: x")
        elif self.supervised:
            raise ValueError(f"{what}: a loss needs ground truth; add x as the last part of each sample")

    def some(self, data: Dataset[Any], count: int) -> tuple[list[Tensor], Tensor]:
        """Some measurements and their operators, those with NaN left out."""
        size = len(data)  # type: ignore[arg-type]
        chosen = torch.randperm(size, generator=Generator().manual_seed(0))[:count].tolist()
        pairs = [self.split(data[i], "the training data")[:2] for i in chosen]
        good = [(torch.as_tensor(y), int(g)) for y, g in pairs if is_finite(y)]
        return [y for y, _ in good], torch.tensor([g for _, g in good], dtype=torch.int64)


class _Task(nn.Module):
    """Model, operators and losses as one module for the trainer."""

    def __init__(
        self, model: nn.Module, operators: OperatorFamily, objective: Objective, reader: _Reader
    ) -> None:
        super().__init__()
        self.model = model
        self.operators = operators
        self.objective = objective
        self.reader = reader
        initial = {name: value for loss in objective.losses for name, value in loss.initial.items()}
        self.learned = nn.ParameterDict(
            {name: nn.Parameter(torch.tensor(value)) for name, value in initial.items()}
        )

    def forward(self, samples: Any, generator: Generator) -> dict[str, Tensor]:
        y, index, x = self.reader.split(samples, "the data")
        device = y.device.type
        index = torch.as_tensor(index, device=y.device).expand(len(y))
        mixed = torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if mixed else None

        def reconstruct(y: Tensor, A: LinearOperator) -> Tensor:
            with torch.autocast(device, dtype=dtype, enabled=mixed), _precision_named(self.model, y):
                found = self.model(y, A)
            # measurements and losses stay in full precision
            return found.to(A.domain.dtype(y.dtype)) if mixed else found

        with torch.autocast(device, enabled=False):
            batch = Batch(reconstruct, self.operators, y, index, generator, x, dict(self.learned))
            losses = self.objective(batch)
            if x is not None and not self.training:
                error = torch.linalg.vector_norm(batch.x1 - x) / torch.linalg.vector_norm(x)
                losses["relative_error"] = error
        return losses

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What a resumed run must share (see `train`)."""
        return {"losses": objective_card(self.objective), "physics": physics_card(self.operators)}

    def learned_values(self) -> dict[str, float]:
        found = {}
        for loss in self.objective.losses:
            if isinstance(loss, UNSURE):
                found["UNSURE.sd"] = float(loss.level(self.learned["UNSURE"].detach()).sqrt().cpu())
        return found


@contextlib.contextmanager
def _precision_named(model: nn.Module, y: Tensor) -> Iterator[None]:
    """Say so where a model fails for numbers of another precision than its own."""
    try:
        yield
    except RuntimeError as error:
        own = {p.dtype.to_real() for p in model.parameters() if p.is_floating_point() or p.is_complex()}
        if not own or y.dtype.to_real() in own:
            raise
        names = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in own))
        given = str(y.dtype).removeprefix("torch.")
        raise ValueError(
            f"the model works in {names}, the measurements are {given}, and it fails for them "
            f"({str(error).splitlines()[0]}); convert the data, for example with y.to(torch.float32) "
            "(complex64 for complex data), or the model with model.double()"
        ) from error
