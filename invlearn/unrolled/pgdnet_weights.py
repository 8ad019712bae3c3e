"""PGD-Net in files, and the weights that come with the package."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from invlearn.physics.mri.sequence import FingerprintSequence
from invlearn.training.weights import load_network
from invlearn.unrolled.pgdnet import TRAINS, PGDNet
from invlearn.unrolled.pixelwise import ExactSignals, SignalNetwork, Signals

KIND = PGDNet.__name__
FOLDER = Path(__file__).parent / "weights"
_PATTERN = "pgdnet_*.safetensors"
_UNITS = {
    "flip_angle": (180 / math.pi, "°"),
    "phase": (180 / math.pi, "°"),
    "tr": (1e3, " ms"),
    "te": (1e3, " ms"),
}
_CLOSE = {"flip_angle": 1e-3, "phase": 1e-3, "tr": 1e-5, "te": 1e-5}  # rad, s: headers are rounded


def load_pgdnet(path: str | os.PathLike[str]) -> PGDNet:
    """The network in a file that `invlearn.training.save_network` wrote, ready to reconstruct.

    Raises
    ------
    FileNotFoundError
        No such file.
    ValueError
        Damaged, or for something else than a PGDNet.
    """
    return load_network(path, KIND, _built)


def _built(made: Mapping[str, Any], state: Mapping[str, Any]) -> PGDNet:
    """A network like the card's, with the sequence and basis of the file."""
    trains = dict(zip(TRAINS, state["trains"].numpy(), strict=True))
    sequence = FingerprintSequence.from_dict({**trains, **made["sequence"]})
    basis, phase = state["basis"], complex(*made["phase"])
    return PGDNet(
        sequence,
        basis,
        phase,
        _decoder(made["decoder"], sequence, basis, phase),
        iterations=made["iterations"],
        start=made["start"],
        steps=made["steps"],
        width=made["width"],
        levels=made["levels"],
    )


def _decoder(
    made: Mapping[str, Any], sequence: FingerprintSequence, basis: Tensor, phase: complex
) -> Signals:
    if made.get("kind") == ExactSignals.__name__:
        return ExactSignals(sequence, basis, phase)
    return SignalNetwork(made["rank"], made["hidden"], tuple(made["b1"]), complex=made["complex"])


def differences(known: FingerprintSequence, other: FingerprintSequence) -> Iterator[str]:
    """In what another sequence differs from the one that weights are for; nothing when they are the same."""
    if known.frames != other.frames:
        yield f"{other.frames} frames instead of {known.frames}"
        return
    for name, close in _CLOSE.items():
        gap = np.abs(getattr(known, name) - getattr(other, name))
        if gap.max() > close:
            factor, unit = _UNITS[name]
            frame = int(gap.argmax())
            yield (
                f"{name} {factor * getattr(other, name)[frame]:.4g}{unit} instead of "
                f"{factor * getattr(known, name)[frame]:.4g}{unit} in frame {frame}"
            )
    for name in ("inversion_time", "inversion_efficiency", "kind"):
        mine, theirs = getattr(known, name), getattr(other, name)
        same = math.isclose(mine, theirs, abs_tol=1e-5) if _both_numbers(mine, theirs) else mine == theirs
        if not same:
            yield f"{name} {theirs} instead of {mine}"
    profiles = [
        p if p is None else np.asarray(p).tolist() for p in (known.slice_profile, other.slice_profile)
    ]
    if profiles[0] != profiles[1]:
        yield "another slice profile"


def _both_numbers(*values: Any) -> bool:
    return all(isinstance(value, int | float) for value in values)


def require_sequence(network: PGDNet, sequence: FingerprintSequence, rank: int | None, what: str) -> None:
    """Refuse weights that are for another sequence or rank.

    Raises
    ------
    ValueError
        Naming all that differs.
    """
    found = list(differences(network.sequence, sequence))
    if rank is not None and rank != network.rank:
        found.append(f"rank {rank} instead of {network.rank}")
    if found:
        raise ValueError(
            f"{what} are for another sequence: this scan has {'; '.join(found)}. Train weights for it with "
            "invlearn mrf train, or use --method subspace"
        )


def shipped(folder: Path = FOLDER) -> list[Path]:
    """The weights files that come with the package."""
    return sorted(folder.glob(_PATTERN))


def weights_for(sequence: FingerprintSequence, folder: Path = FOLDER) -> PGDNet:
    """The shipped network for this sequence.

    Raises
    ------
    ValueError
        There is none: says how to train one.
    """
    known = []
    for path in shipped(folder):
        network = load_pgdnet(path)
        if not list(differences(network.sequence, sequence)):
            return network
        known.append(f"{network.sequence.frames} frames")
    there = (
        f"the weights that come with invlearn are for its built-in train of {' or '.join(known)}"
        if known
        else ("no weights come with this version of invlearn")
    )
    raise ValueError(
        f"no PGD-Net weights for this sequence of {sequence.frames} frames: {there}. Train some with: "
        "invlearn mrf train MAPS_FOLDER -o DIR --sequence CSV, and give them with --weights; or use --method "
        "subspace"
    )
