"""Weights and their card in one safetensors file: nothing is ever unpickled.

The card says what the weights are for (architecture, physics, data, verdict, ...) in plain JSON. It stands in
the header of the file, and in a readable `.json` beside it. A digest of it all is written along, so that a
damaged file is refused and not used.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from invlearn.io.atomic import replacing
from invlearn.io.damage import damage_named

_KEY = "invlearn"  # the entry of the header that holds the card

Network = TypeVar("Network", bound=nn.Module)


def write_weights(
    path: str | os.PathLike[str],
    module: nn.Module | Mapping[str, Tensor],
    card: Mapping[str, Any],
    *,
    overwrite: bool = False,
) -> None:
    """Write the state of `module` and its card to `path`, and the card alone beside it.

    Parameters
    ----------
    path
        Ends in `.safetensors`. The card goes to the same name with `.json`.
    module
        A module, or a state dictionary. Real, complex and integer tensors on any device.
    card
        What the weights are, in plain types for JSON.
    overwrite
        Replace files that exist.

    Raises
    ------
    ValueError
        Another ending, a card that is no JSON, weights that are NaN or infinite.
    TypeError
        A state that holds something else than tensors.
    FileExistsError
        One of the files exists, and `overwrite` was not given.
    """
    path = _weights_path(path)
    state = dict(module.state_dict() if isinstance(module, nn.Module) else module)
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} is a {type(value).__name__}; weights files hold tensors only")
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"the weights {name} have NaN or infinite entries; they are not worth keeping")
    text = _card_text(card)
    beside = path.with_suffix(".json")
    for target in (path, beside):
        if target.exists() and not overwrite:
            raise FileExistsError(f"{target} exists already; give overwrite=True, or another place")
    plain = {name: _plain(value) for name, value in state.items()}
    header = {"card": json.loads(text), "complex": sorted(n for n, v in state.items() if v.is_complex())}
    header["sha256"] = _digest(plain, header)
    data = safetensors.torch.save(plain, {_KEY: json.dumps(header)})
    path.parent.mkdir(parents=True, exist_ok=True)
    for target, content in ((path, data), (beside, text.encode())):
        with replacing(target) as place:
            place.write_bytes(content)


def read_weights(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state dictionary (on the CPU) and the card of a file that `write_weights` wrote.

    Raises
    ------
    FileNotFoundError
        No such file.
    ValueError
        Damaged, or not written by `write_weights`.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there are no weights at {path}")
    anew = "take a whole copy of the weights"
    with (
        damage_named(path, "is no safetensors file, or a damaged one", anew),
        safetensors.safe_open(path, framework="pt") as file,
    ):
        metadata = file.metadata() or {}
        plain = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    if _KEY not in metadata:
        raise ValueError(
            f"{path} was not written by invlearn: it has no model card; load it with safetensors and write "
            "it anew with write_weights"
        )
    with damage_named(path, "has a damaged model card", anew):
        header = json.loads(metadata[_KEY])
        digest = header.pop("sha256")
        card, names = dict(header["card"]), header["complex"]
    if _digest(plain, header) != digest:
        raise ValueError(f"{path} is damaged: it differs from what was written; {anew}")
    return {name: torch.view_as_complex(v) if name in names else v for name, v in plain.items()}, card


def load_into(
    module: nn.Module, path: str | os.PathLike[str], expect: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Load a file's weights into `module`, if they are for it.

    Parameters
    ----------
    module
        Gets the weights, on its own device and in its own precision.
    path
        Written by `write_weights`.
    expect
        Entries that the card must have, nested mappings entry by entry; other entries of the card are free.

    Returns
    -------
    dict
        The card.

    Raises
    ------
    FileNotFoundError
        No such file.
    ValueError
        Damaged, or for something else: the message names every entry, tensor or shape that differs.
    """
    state, card = read_weights(path)
    _put_into(module, path, state, card, expect or {})
    return card


def save_network(
    path: str | os.PathLike[str], network: nn.Module, card: Mapping[str, Any], *, overwrite: bool = False
) -> None:
    """Write weights and a model card from which `load_network` builds the same network again.

    Parameters
    ----------
    path
        Ends in `.safetensors`; the card goes beside it, in `.json`.
    network
        Its `to_dict()` says what it is, its `kind` among it.
    card
        What else shall stand in the card: data, training, what it was measured to do.
    overwrite
        Replace files that exist.

    Raises
    ------
    ValueError, FileExistsError
        As `write_weights`.
    """
    made = network.to_dict()  # type: ignore[operator]
    write_weights(path, network, {**card, "network": made}, overwrite=overwrite)


def load_network(
    path: str | os.PathLike[str],
    kind: str,
    build: Callable[[Mapping[str, Any], Mapping[str, Tensor]], Network],
    otherwise: str = "",
) -> Network:
    """The network in a file that `save_network` wrote, in evaluation mode.

    Parameters
    ----------
    path
        Of the weights.
    kind
        Of the network.
    build
        Makes a network from what its `to_dict` said, and the tensors of the file.
    otherwise
        What to do with a file of another kind, for the message.

    Raises
    ------
    FileNotFoundError
        No such file.
    ValueError
        Damaged, or for something else than a network of this kind: the message names what differs.
    """
    state, card = read_weights(path)
    made = card.get("network")
    found = made.get("kind") if isinstance(made, Mapping) else None
    if not isinstance(made, Mapping) or found != kind:
        raise ValueError(
            f"the weights in {path} are for {found or 'something else'}, not for a {kind}{otherwise}"
        )
    try:
        network = build(made, state)
    except KeyError as missing:
        raise ValueError(
            f"the card of {path} does not say the {missing} of the {kind}; take a whole copy of it"
        ) from None
    _put_into(network, path, state, card, {"network": network.to_dict()})  # type: ignore[operator]
    return network.eval()


def _put_into(
    module: nn.Module,
    path: str | os.PathLike[str],
    state: Mapping[str, Tensor],
    card: Mapping[str, Any],
    expect: Mapping[str, Any],
) -> None:
    problems = list(_differences(card, json.loads(_card_text(expect))))
    own = module.state_dict()
    problems += [f"{name} is missing in the file" for name in own if name not in state]
    problems += [f"{name} has no place in this {type(module).__name__}" for name in state if name not in own]
    for name in own:
        if name in state and state[name].shape != own[name].shape:
            problems.append(
                f"{name} is {tuple(state[name].shape)} in the file and {tuple(own[name].shape)} here"
            )
        elif name in state and state[name].is_complex() != own[name].is_complex():
            problems.append(f"{name} is {state[name].dtype} in the file and {own[name].dtype} here")
    if problems:
        listed = "; ".join(problems[:8]) + (f"; and {len(problems) - 8} more" if len(problems) > 8 else "")
        raise ValueError(f"the weights in {path} are not for this model: {listed}")
    module.load_state_dict(state)


def _weights_path(path: str | os.PathLike[str]) -> Path:
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"weights are written to a .safetensors file, got {path}")
    return path


def _card_text(card: Mapping[str, Any]) -> str:
    try:
        return json.dumps(dict(card), indent=2, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise ValueError(f"a model card holds plain types for JSON only: {error}") from error


def _plain(value: Tensor) -> Tensor:
    """On the CPU, of its own memory; complex as pairs of real numbers."""
    value = value.detach().cpu()
    return (torch.view_as_real(value.resolve_conj()) if value.is_complex() else value).clone().contiguous()


def _digest(state: Mapping[str, Tensor], header: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(state):
        value = state[name]
        digest.update(f"{name}\0{value.dtype}\0{tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _differences(found: Mapping[str, Any], expected: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in expected.items():
        name = f"{prefix}{key}"
        if key not in found:
            yield f"the card says nothing of {name} (here {json.dumps(value)})"
        elif isinstance(value, dict) and isinstance(found[key], dict):
            yield from _differences(found[key], value, f"{name}.")
        elif found[key] != value:
            yield f"{name} is {json.dumps(found[key])} in the file and {json.dumps(value)} here"
