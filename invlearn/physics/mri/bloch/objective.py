"""The mean log Cramér–Rao bound as a function of smooth flip angles, in JAX, with its gradient."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from invlearn.physics.mri.bloch.epg import echoes


@partial(jax.jit, static_argnames=("states", "dephasing"))
@jax.value_and_grad
def mean_log_bound(
    coefficients: Array,
    basis: Array,
    frames: Array,
    start: Array,
    atoms: Array,
    slice_weights: Array,
    weights: Array,
    states: int,
    dephasing: tuple[int, int],
) -> Array:
    """Mean over tissues of w1 log(std(T1) / T1) + w2 log(std(T2) / T2), over w1 + w2, for real sequences.

    Parameters
    ----------
    coefficients, basis
        `(knots,)` and `(frames, knots)`; their product is the flip angles in rad.
    frames, start
        Tables of `epg.echoes`; the flip angles in them do not count.
    atoms
        `(4, points of the slice, tissues)`, B1 times the slice's factors.
    slice_weights
        `(points,)`, of sum 1.
    weights
        w1, w2.
    states, dephasing
        As for `epg.echoes`.

    Returns
    -------
    value, gradient
        The mean, and its derivatives by the coefficients.
    """
    table = frames.at[0].set(basis @ coefficients)
    signal, slopes = echoes(
        table,
        start,
        atoms.reshape(4, -1),
        states=states,
        dephasing=dephasing,
        derivatives=("t1", "t2"),
    )
    points = jnp.concatenate([signal[None], slopes]).reshape(3, len(table[0]), *atoms.shape[1:])
    columns = jnp.einsum("ifpt,p->ift", points, slice_weights)
    # M0, T1 ∂/∂T1, T2 ∂/∂T2: the bounds come out relative
    columns *= jnp.concatenate([jnp.ones_like(atoms[:1, 0]), atoms[:2, 0]])[:, None]
    fisher = jnp.einsum("ift,jft->tij", columns, columns)
    variances = jnp.diagonal(jnp.linalg.inv(fisher), axis1=1, axis2=2)[:, 1:]
    return (0.5 * jnp.log(variances) @ weights).mean() / weights.sum()
