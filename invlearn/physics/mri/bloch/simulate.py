"""Signals of a pulse sequence for any number of tissues: tensors in, tensors out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar, overload, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from invlearn.physics.mri.bloch.engine import PARAMETERS, Engine
from invlearn.physics.mri.bloch.states import exact_states, ladder, measured_states, proven_states
from invlearn.physics.mri.sequence import PulseProgramme
from invlearn.physics.space import as_numbers, complex_dtype

TOLERANCE = 1e-6
_STATES_TIMES_ATOMS = 16384  # of one scan: six arrays of that size stay in a core's second-level cache
_MANY = 256  # atoms from which on measuring the number of states saves more than it costs


Values = TypeVar("Values", Tensor, np.ndarray)


@runtime_checkable
class PulseSequence(Protocol):
    """Whatever can tell the simulator what to play."""

    def programme(self) -> PulseProgramme:
        """What the simulator plays."""
        ...


@overload
def simulate(
    sequence: PulseSequence,
    t1: Values,
    t2: Values,
    b1: Values | None = None,
    b0: Values | None = None,
    *,
    tolerance: float = TOLERANCE,
    states: int | None = None,
    derivatives: Sequence[str],
) -> tuple[Values, Values]: ...
@overload
def simulate(
    sequence: PulseSequence,
    t1: Values,
    t2: Values,
    b1: Values | None = None,
    b0: Values | None = None,
    *,
    tolerance: float = TOLERANCE,
    states: int | None = None,
) -> Values: ...
def simulate(
    sequence: PulseSequence,
    t1: Tensor | np.ndarray,
    t2: Tensor | np.ndarray,
    b1: Tensor | np.ndarray | None = None,
    b0: Tensor | np.ndarray | None = None,
    *,
    tolerance: float = TOLERANCE,
    states: int | None = None,
    derivatives: Sequence[str] | None = None,
) -> Any:
    """The signal Mx + iMy at every echo, for M0 = 1, by the extended phase graph.

    Raw rotating frame: a pulse of phase φ turns the magnetisation right-handed about
    (cos φ, sin φ, 0), so a 90° pulse about x gives -i. Positive B0 turns it from x towards y.

    Parameters
    ----------
    sequence
        A `FingerprintSequence`, `TurboSpinEcho` or anything else with a `programme()`.
    t1, t2
        Relaxation times in s, 0 < t2 <= t1, of shapes that broadcast together; float32 or float64
        decides the precision.
    b1
        Factor on all flip angles (not on the inversion), >= 0; None is 1.
    b0
        Off-resonance in Hz; None is 0.
    tolerance
        Largest error of an echo by the orders that are left out, in units of M0. More is never
        silently left out.
    states
        Number of orders for all atoms, instead of the number that the tolerance asks for. Too few for
        the tolerance are refused.
    derivatives
        Names among `"t1"`, `"t2"`, `"b1"`, `"b0"`: their exact derivatives are returned too.

    Returns
    -------
    signal
        Complex, `(*shape, frames)`; torch for torch, numpy for numpy.
    derivatives
        Only when asked for: `(len(derivatives), *shape, frames)`, per s, per unit of B1, per Hz.

    Raises
    ------
    ValueError
        NaN, times that are not positive, t2 > t1, negative b1, shapes that do not broadcast, too few
        states, an unknown derivative.
    TypeError
        Half precision, integers or complex numbers.

    References
    ----------
    Weigel, J. Magn. Reson. Imaging 41:266 (2015), doi:10.1002/jmri.24619.
    """
    names = tuple(derivatives or ())
    signal, slopes = simulate_all(sequence, (t1, t2, b1, b0), tolerance, states, names)
    if isinstance(t1, np.ndarray):
        return signal.numpy() if derivatives is None else (signal.numpy(), slopes.numpy())
    return signal if derivatives is None else (signal, slopes)


def simulate_all(
    sequence: PulseSequence,
    parameters: tuple[object, ...],
    tolerance: float,
    states: int | None,
    derivatives: tuple[str, ...],
) -> tuple[Tensor, Tensor]:
    """`simulate` for T1, T2, B1 and B0 as tensors or arrays, with any number of derivatives."""
    atoms, shape = _atoms(*parameters)
    for name in derivatives:
        if name not in PARAMETERS:
            raise ValueError(f"simulate: no derivative {name!r}; choose among {', '.join(PARAMETERS)}")
    if not tolerance > 0:
        raise ValueError(f"simulate: tolerance must be positive, got {tolerance}")
    engine = Engine(sequence.programme(), parameters[3] is not None or "b0" in derivatives, derivatives)
    signal, slopes = _play_grouped(engine, atoms, _states_of(engine, atoms, tolerance, states))
    frames, device = signal.shape[-1], getattr(parameters[0], "device", "cpu")
    return (
        signal.reshape(*shape, frames).to(device),
        slopes.reshape(len(derivatives), *shape, frames).to(device),
    )


def _atoms(t1: object, t2: object, b1: object, b0: object) -> tuple[Tensor, tuple[int, ...]]:
    """`(4, atoms)`: the checked parameters, and their common shape."""
    given = {"t1": t1, "t2": t2, "b1": b1, "b0": b0}
    values = {name: as_numbers(v, f"simulate: {name}") for name, v in given.items() if v is not None}
    if any(v.is_complex() for v in values.values()):
        raise TypeError("simulate takes real parameters, got complex ones")
    dtype = max((v.dtype for v in values.values()), key=lambda d: d.itemsize)
    try:
        shape = torch.broadcast_shapes(*(v.shape for v in values.values()))
    except RuntimeError:
        listed = ", ".join(f"{name} {tuple(v.shape)}" for name, v in values.items())
        raise ValueError(f"simulate: these shapes do not broadcast together: {listed}") from None
    neutral = {"b1": 1.0, "b0": 0.0}
    rows = [
        values[name].to("cpu", dtype).expand(shape).reshape(-1)
        if name in values
        else torch.full((math.prod(shape),), neutral[name], dtype=dtype)
        for name in PARAMETERS
    ]
    atoms = torch.stack(rows).detach()
    _check(atoms)
    return atoms, tuple(shape)


def _check(atoms: Tensor) -> None:
    t1, t2, b1, _ = atoms
    rules = (
        (t1 <= 0, "t1 must be positive seconds"),
        (t2 <= 0, "t2 must be positive seconds"),
        (t2 > t1, "t2 must not exceed t1 (both in s)"),
        (b1 < 0, "b1 must not be negative"),
    )
    for broken, what in rules:
        if bool(broken.any()):
            i = int(broken.nonzero()[0])
            raise ValueError(
                f"simulate: {what}; atom {i} of {atoms.shape[1]} has t1 {t1[i]:g}, t2 {t2[i]:g}, b1 {b1[i]:g}"
            )


def _states_of(engine: Engine, atoms: Tensor, tolerance: float, states: int | None) -> np.ndarray:
    """Orders of each atom, or the given number when it is enough."""
    values = atoms.numpy().astype(np.float64)
    rungs = ladder(exact_states(engine.programme))
    if states is None:
        return rungs[np.searchsorted(rungs, _enough(engine, values, tolerance, values.shape[1] >= _MANY))]
    if states < 1:
        raise ValueError(f"simulate: states must be at least 1, got {states}")
    if states < rungs[-1] and values.shape[1]:
        needed = _enough(engine, values, tolerance, measure=True)
        worst = int(needed.argmax())
        if needed[worst] > states:
            raise ValueError(
                f"simulate: {states} states are too few for the tolerance {tolerance:g}: an atom with t1 "
                f"{values[0, worst]:g} s, t2 {values[1, worst]:g} s may need {needed[worst]}. Leave states "
                "out, or raise the tolerance"
            )
    return np.full(values.shape[1], min(states, rungs[-1]))


def _enough(engine: Engine, atoms: np.ndarray, tolerance: float, measure: bool) -> np.ndarray:
    """The least number of orders of each atom that is known to be enough."""
    exact = exact_states(engine.programme)
    if engine.names:  # the proof is for the signal
        proven = np.full(atoms.shape[1], exact)
    else:
        proven = proven_states(engine.programme, atoms[0], atoms[1], tolerance)
    if not measure or engine.off_resonance or exact <= ladder(exact)[0]:
        return proven
    return np.minimum(proven, measured_states(engine.programme, atoms, tolerance, engine.names))


def _play_grouped(engine: Engine, atoms: Tensor, states: np.ndarray) -> tuple[Tensor, Tensor]:
    """Signals `(atoms, frames)`, derivatives `(names, atoms, frames)`; atoms of equal `states` together."""
    count, frames = atoms.shape[1], engine.programme.frames
    out = torch.empty(1 + len(engine.names), count, frames, dtype=complex_dtype(atoms.dtype))
    jobs = [
        (torch.from_numpy(part), int(number))
        for number in np.unique(states)
        for part in _blocks(np.flatnonzero(states == number), int(number))
    ]

    def play(job: tuple[Tensor, int]) -> None:
        members, number = job
        rows = min(size for size in _block_sizes(number) if size >= len(members))
        padded = torch.cat([members, members[:1].expand(rows - len(members))])
        out[:, members] = engine.play(atoms[:, padded], number)[:, : len(members)] * engine.factor

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        list(pool.map(play, jobs))
    return out[0], out[1:]


def _block_sizes(states: int) -> tuple[int, int, int]:
    """Numbers of atoms that are compiled for; the largest keeps the scan in a core's second-level cache."""
    return 8, 32, max(64, min(512, 1 << int(math.log2(_STATES_TIMES_ATOMS / states))))


def _blocks(members: np.ndarray, states: int) -> list[np.ndarray]:
    size = _block_sizes(states)[-1]
    return [members[begin : begin + size] for begin in range(0, len(members), size)]
