"""What a training was for: cards and digests of its operators, losses and data."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import numpy as np
from torch import Tensor

from invlearn.io.tensors import as_tensor
from invlearn.learning.objective import Objective
from invlearn.physics.family import OperatorFamily
from invlearn.physics.operator import LinearOperator


def physics_card(physics: LinearOperator | OperatorFamily) -> dict[str, Any]:
    """What a measurement is, in plain types: kind, spaces, number of operators, a digest of their numbers.

    Two operators with equal cards have the same classes, settings and numbers to the last bit, on any
    device. Of a `FromFunction` only the tensors are known, not what it makes of them.
    """
    operators = list(physics) if isinstance(physics, OperatorFamily) else [physics]
    digest = hashlib.sha256()
    for operator in operators:
        digest.update(f"{_lasting(repr(operator))}\n{_settings(operator)}\n".encode())
        for name, value in operator.state_dict().items():
            value = value.detach().cpu().resolve_conj().contiguous()
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            digest.update(value.numpy().tobytes())
    first = operators[0]
    return {
        "operator": type(first).__name__,
        "domain": str(first.domain),
        "codomain": str(first.codomain),
        "operators": len(operators),
        "numbers": digest.hexdigest()[:16],
    }


def _settings(operator: LinearOperator) -> str:
    """What an operator and its parts keep in public attributes that are no tensors: factors, names, axes."""
    kept = [
        f"{place}.{name}={value!r}"
        for place, part in operator.named_modules()
        for name, value in sorted(vars(part).items())
        if not (name.startswith("_") or name == "training" or callable(value))
    ]
    return _lasting("\n".join(kept))


def data_hash(data: Any) -> str:
    """SHA-256 of tensors or arrays, one or a sequence of them, with their shapes and types."""
    digest = hashlib.sha256()
    for part in [data] if isinstance(data, Tensor | np.ndarray) else data:
        array = as_tensor(part, "data_hash").detach().cpu().resolve_conj().contiguous().numpy()
        digest.update(f"{array.dtype} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def objective_card(objective: Objective) -> list[str]:
    """The terms of an objective, `"0.5 Splitting(keep=0.6, ...)"`, in the order of their sum."""
    return [_lasting(f"{weight:g} {loss!r}") for weight, loss in objective.terms]


def _lasting(text: str) -> str:
    """A representation without the addresses of objects, which are others in the next process."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", text)
