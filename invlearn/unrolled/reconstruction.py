"""A learned reconstruction as one object: the network, and what it was trained for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar

import torch

import invlearn.unrolled.proximal as proximal
from invlearn.learning.identity import physics_card
from invlearn.physics.family import OperatorFamily
from invlearn.physics.operator import LinearOperator
from invlearn.training.weights import load_into, read_weights, write_weights
from invlearn.unrolled.iterations import ITERATIONS, iteration_by_name
from invlearn.unrolled.lowrank import LocallyLowRank, NuclearNorm
from invlearn.unrolled.networks import Learned
from invlearn.unrolled.proximal import Regulariser
from invlearn.unrolled.unrolled import Unrolled

_REGULARISERS: dict[str, type[Regulariser]] = {
    kind.__name__: kind
    for kind in (
        proximal.Zero,
        proximal.L1,
        proximal.GroupL1,
        proximal.Box,
        proximal.TotalVariation,
        proximal.WaveletShrinkage,
        NuclearNorm,
        LocallyLowRank,
    )
}


@dataclass(frozen=True)
class LearnedReconstruction:
    """A trained `Unrolled` network with its physics, its training data's hash and its verdict.

    Called like the network: ``x = reconstruction(y, A)``.

    Parameters
    ----------
    model
        The network, of a `Learned` prior or a `Regulariser` of this package.
    physics
        `physics_card` of the operator or family that it was trained for.
    training_data
        `data_hash` of the measurements that it was trained on.
    verdict
        Of the learnability check before training: certified, generic, undecided or impossible.
    details
        Anything else worth keeping, in plain types for JSON: losses, epochs, metrics.

    Raises
    ------
    ValueError
        On `save`, a network that cannot be rebuilt by name; on `load`, a damaged file or weights for
        another physics, saying what differs; on a call, an operator of another kind.
    """

    model: Unrolled
    physics: Mapping[str, Any]
    training_data: str | None = None
    verdict: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    format: ClassVar[int] = 1

    def __call__(self, y: Any, operator: LinearOperator) -> Any:
        """The reconstruction of `(*batch, *codomain)` without gradients, tensor or numpy array like `y`."""
        kind = {"operator": type(operator).__name__, "domain": str(operator.domain)}
        differing = [f"{key} {self.physics[key]}" for key in kind if self.physics[key] != kind[key]]
        if differing:
            raise ValueError(
                f"this reconstruction was learned for {', '.join(differing)}, not for {operator.label}; "
                "train one for this operator"
            )
        with torch.no_grad():
            return self.model(y, operator)

    def to_dict(self) -> dict[str, Any]:
        """All but the weights, for JSON: the model card."""
        return {
            "kind": type(self).__name__,
            "format": self.format,
            "architecture": architecture(self.model),
            "physics": dict(self.physics),
            "training_data": self.training_data,
            "verdict": self.verdict,
            "details": dict(self.details),
        }

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write weights and card to `path` (`.safetensors`), and the card to the `.json` beside it."""
        write_weights(path, self.model, self.to_dict(), overwrite=overwrite)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], physics: LinearOperator | OperatorFamily | None = None
    ) -> LearnedReconstruction:
        """Read what `save` wrote.

        Parameters
        ----------
        path
            The `.safetensors` file.
        physics
            Refuse the weights unless they were trained for exactly this.
        """
        card = read_weights(path)[1]
        if card.get("kind") != cls.__name__ or card.get("format") != cls.format:
            raise ValueError(
                f"{path} holds {card.get('kind', 'other weights')} of format {card.get('format')}, "
                f"not a {cls.__name__} of format {cls.format}"
            )
        model = build(card["architecture"])
        load_into(model, path, None if physics is None else {"physics": physics_card(physics)})
        return cls(model, card["physics"], card["training_data"], card["verdict"], card["details"])


def architecture(model: Unrolled) -> dict[str, Any]:
    """All that rebuilds an `Unrolled` but its weights, in plain types.

    Raises
    ------
    ValueError
        An iteration, prior or start that has no name here.
    """
    names = {type(iteration): name for name, iteration in ITERATIONS.items()}
    if type(model.iteration) not in names:
        raise _nameless(f"the iteration {type(model.iteration).__name__}")
    if not isinstance(model.start, str):
        raise _nameless("a start that is a function")
    if isinstance(model.regulariser, Regulariser):
        kind = type(model.regulariser).__name__
        if kind not in _REGULARISERS:
            raise _nameless(f"the regulariser {kind}")
        prior = {"regulariser": kind, **asdict(model.regulariser)}  # type: ignore[call-overload]
    elif isinstance(first := model.priors[0], Learned):
        prior = first.to_dict()
    else:
        raise _nameless(f"the prior {type(first).__name__}")
    return {
        "iteration": names[type(model.iteration)],
        "iteration_settings": asdict(model.iteration),  # type: ignore[call-overload]
        "prior": prior,
        "depth": model.depth,
        "tied": model.tied,
        "start": model.start,
        "norm": model.norm,
        "checkpoint": model.checkpoint,
    }


def _nameless(what: str) -> ValueError:
    return ValueError(
        f"{what} cannot be rebuilt from a file; use those of invlearn.unrolled, or keep the weights with "
        "invlearn.training.write_weights and build the model yourself"
    )


def build(settings: Mapping[str, Any]) -> Unrolled:
    """The inverse of `architecture`, with new weights."""
    rest = dict(settings)
    iteration = replace(iteration_by_name(rest.pop("iteration")), **rest.pop("iteration_settings"))  # type: ignore[type-var]
    prior = dict(rest.pop("prior"))
    if "regulariser" not in prior:
        return Unrolled(iteration, Learned.from_dict(prior), **rest)
    kind = prior.pop("regulariser")
    if kind not in _REGULARISERS:
        raise ValueError(f"no regulariser {kind!r}; there are {', '.join(_REGULARISERS)}")
    numbers = {k: tuple(v) if isinstance(v, list) else v for k, v in prior.items()}
    return Unrolled(iteration, _REGULARISERS[kind](**numbers), **rest)
