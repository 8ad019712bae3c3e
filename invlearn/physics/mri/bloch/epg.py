"""The extended phase graph as one scan over frames, atoms along the last axis."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

PARAMETERS = ("t1", "t2", "b1", "b0")

_Graph = tuple[Array, Array, Array]  # P, M, Z: (orders, atoms)
_Pulse = tuple[Array, Array, Array]  # cosine and sine of the flip angle (atoms,), and u


@partial(jax.jit, static_argnames=("states", "dephasing", "derivatives"))
def echoes(
    frames: Array,
    start: Array,
    atoms: Array,
    keep: Array | None = None,
    *,
    states: int,
    dephasing: tuple[int, int],
    derivatives: tuple[str, ...] = (),
) -> tuple[Array, Array]:
    """Signals of many atoms, and their derivatives.

    With F+ = -i P and F- = +i M a pulse about x leaves P, M and Z real. The same formulas hold about
    an axis at the phase φ with u = exp(iφ), so the dtype of `u` decides between the real and the
    complex recursion.

    Parameters
    ----------
    frames
        `(5, frames)`: flip angle (rad), TR, TE (s), real and imaginary part of u. A real recursion
        takes four rows: u = ±1.
    start
        `(6,)`: inversion time (s), 2 × inversion efficiency (0 without inversion), and flip angle,
        cos and sin of the phase, and delay (s) of an excitation pulse (0 without).
    atoms
        `(4, atoms)`: T1, T2 (s), B1 (relative), B0 (Hz).
    keep
        `(atoms,)`: a number of orders for each atom, up to `states`; None keeps `states` for all.
    states
        Orders kept: 0 … states - 1.
    dephasing
        Shifts of order before the echo, and after it.
    derivatives
        Names of rows of `atoms`.

    Returns
    -------
    signal
        i times the transverse magnetisation at the echoes, `(frames, atoms)`; real for four rows.
    derivatives
        `(len(derivatives), frames, atoms)`.
    """

    def signal(values: Array) -> Array:
        return _scan(frames, start, values, keep, states, dephasing)

    if not derivatives:
        return signal(atoms), jnp.zeros((0,), atoms.dtype)
    rows = jnp.array([PARAMETERS.index(name) for name in derivatives])
    directions = (
        jnp.zeros((len(derivatives), *atoms.shape), atoms.dtype).at[jnp.arange(len(rows)), rows].set(1)
    )
    value, slopes = jax.vmap(lambda d: jax.jvp(signal, (atoms,), (d,)), out_axes=(None, 0))(directions)
    return value, slopes


def _scan(
    frames: Array,
    start: Array,
    atoms: Array,
    keep: Array | None,
    states: int,
    dephasing: tuple[int, int],
) -> Array:
    is_complex = len(frames) == 5
    t1, t2, b1, b0 = atoms
    r1, r2 = 1 / t1, 1 / t2

    def turned(flip: Array, *axis: Array) -> _Pulse:
        u = lax.complex(*axis) if is_complex else axis[0]
        return jnp.cos(flip * b1), jnp.sin(flip * b1), u

    def precession(seconds: Array) -> Array:
        return jnp.exp(2j * jnp.pi * b0 * seconds) if is_complex else jnp.ones_like(seconds)

    def advance(graph: _Graph, pulse: _Pulse, seconds: Array, precessed: Array) -> _Graph:
        p, m, z = _rotate(graph, pulse)
        e1, e2 = jnp.exp(-seconds * r1), jnp.exp(-seconds * r2) * precessed
        return e2 * p, e2.conj() * m, (e1 * z).at[0].add(-jnp.expm1(-seconds * r1))

    kept = None if keep is None else (jnp.arange(states)[:, None] < keep).astype(atoms.dtype)

    def dephase(graph: _Graph) -> _Graph:
        p, m, z = _dephase(graph)
        return (p, m, z) if kept is None else (kept * p, kept * m, z)

    def frame(graph: _Graph, row: tuple[_Pulse, Array, Array, Array, Array]) -> tuple[_Graph, Array]:
        pulse, te, rest, precessed_te, precessed_rest = row
        if dephasing[0]:
            graph = dephase(advance(graph, pulse, te, precessed_te))
            nothing = (jnp.ones_like(r1), jnp.zeros_like(r1), pulse[2])
            return dephase(advance(graph, nothing, rest, precessed_rest)), graph[0][0]
        # of order 0 alone: the whole graph relaxes once a frame
        p, m, z = graph
        echo = _rotate((p[0], m[0], z[0]), pulse)[0] * jnp.exp(-te * r2) * precessed_te
        graph = advance(graph, pulse, te + rest, precessed_te * precessed_rest)
        return (dephase(graph) if dephasing[1] else graph), echo

    inversion_time, twice_efficiency, *excitation, delay = start
    z = jnp.zeros((states, atoms.shape[1]), atoms.dtype)
    z0 = z.at[0].set(1 - twice_efficiency * jnp.exp(-inversion_time * r1))
    if is_complex:
        z, z0 = z.astype(jnp.result_type(z, 1j)), z0.astype(jnp.result_type(z, 1j))
    graph = (z, z, z0)
    if dephasing[0]:
        graph = dephase(advance(graph, turned(*excitation), delay, precession(delay)))
    # sines and cosines stay out of the scan: in it, XLA would compute them anew for every order
    flip, tr, te, *axis = frames[:, :, None]
    rows = (turned(flip, *axis), te, tr - te, precession(te), precession(tr - te))
    return lax.scan(frame, graph, rows)[1]


def _rotate(graph: _Graph, pulse: _Pulse) -> _Graph:
    """The rotation about (Re u, Im u, 0)."""
    p, m, z = graph
    cosine, sine, u = pulse
    stay, swap, v = (1 + cosine) / 2, (1 - cosine) / 2, u.conj()
    return (
        stay * p - (swap * u * u) * m + (sine * u) * z,
        stay * m - (swap * v * v) * p + (sine * v) * z,
        cosine * z - (sine * v / 2) * p - (sine * u / 2) * m,
    )


def _dephase(graph: _Graph) -> _Graph:
    """One more cycle across the voxel: P moves up an order, M down, P_0 = M_0*."""
    # padding, unlike concatenation, lets XLA vectorise: ten times faster on a CPU
    p, m, z = graph
    m = jnp.pad(m[1:], ((0, 1), (0, 0)))
    return jnp.pad(p[:-1], ((1, 0), (0, 0))).at[0].set(m[0].conj()), m, z
