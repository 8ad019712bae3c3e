"""Every linear operator of the catalogue, with a small example of each.

The operator tests run over this registry: an operator is tested by being registered.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator

import torch

from invlearn.physics.operator import LinearOperator

Example = Callable[[torch.Generator], LinearOperator]
_EXAMPLES: dict[str, Example] = {}

#: Modules that register examples; they are imported when the registry is first asked.
_MODULES = (
    "invlearn.physics.catalogue",
    "invlearn.physics.linear.libraries",
    "invlearn.physics.linear.permutation",
    "invlearn.physics.linear.radon",
    "invlearn.physics.linear.wavelet",
    "invlearn.physics.mri.fingerprint.operator",
    "invlearn.physics.mri.noncartesian",
    "invlearn.physics.nufft.operator",
    "invlearn.physics.rotations",
)


def register(name: str) -> Callable[[Example], Example]:
    """Add an example under a unique name; it gets a seeded generator for its random parts.

    The decorated function returns a small operator (at most a few thousand numbers a side), with
    odd or unequal sizes where the operator allows them.
    """

    def add(example: Example) -> Example:
        if name in _EXAMPLES:
            raise ValueError(f"an operator example named {name!r} is registered already")
        _EXAMPLES[name] = example
        return example

    return add


def names() -> list[str]:
    """Names of all registered examples."""
    for module in _MODULES:
        importlib.import_module(module)
    return sorted(_EXAMPLES)


def example(name: str, seed: int = 0) -> LinearOperator:
    """Build the registered example."""
    if name not in (known := names()):
        raise ValueError(f"no operator example {name!r}; there are {', '.join(known)}")
    return _EXAMPLES[name](torch.Generator().manual_seed(seed))


def examples(seed: int = 0) -> Iterator[tuple[str, LinearOperator]]:
    """All of them, by name."""
    return ((name, example(name, seed)) for name in names())
