"""The oracle: a sum of magnetisation vectors spread evenly over one cycle of dephasing, in plain NumPy."""

from __future__ import annotations

import numpy as np


def rotate(transverse, longitudinal, angle, phase):
    """Right-handed about (cos phase, sin phase, 0)."""
    turned = transverse * np.exp(-1j * phase)
    y = turned.imag * np.cos(angle) - longitudinal * np.sin(angle)
    z = turned.imag * np.sin(angle) + longitudinal * np.cos(angle)
    return (turned.real + 1j * y) * np.exp(1j * phase), z


def relax(transverse, longitudinal, seconds, t1, t2, b0):
    turn = np.exp(-seconds / t2 + 2j * np.pi * b0 * seconds)
    return transverse * turn, 1 + (longitudinal - 1) * np.exp(-seconds / t1)


def isochromat_sum(programme, t1, t2, b1=1.0, b0=0.0, count=None):
    """Mx + iMy at the echoes for M0 = 1; exact once there are more isochromats than dephasings."""
    count = count or 2 * programme.frames + 2
    cycle = np.exp(2j * np.pi * np.arange(count) / count)
    before, after = programme.dephasing
    total = 0
    for factor, weight in programme.slice_profile:
        b = b1 * factor
        xy, z = np.zeros(count, complex), np.ones(count)
        if programme.inversion_time is not None:
            z = (1 - 2 * programme.inversion_efficiency) * z
            xy, z = relax(xy, z, programme.inversion_time, t1, t2, b0)
        if programme.excitation is not None:
            angle, phase, delay = programme.excitation
            xy, z = relax(*rotate(xy, z, b * angle, phase), delay, t1, t2, b0)
            xy = xy * cycle
        echoes = []
        frames = zip(programme.flip_angle, programme.phase, programme.tr, programme.te, strict=True)
        for angle, phase, tr, te in frames:
            xy, z = relax(*rotate(xy, z, b * angle, phase), te, t1, t2, b0)
            xy = xy * cycle**before
            echoes.append(xy.mean())
            xy, z = relax(xy, z, tr - te, t1, t2, b0)
            xy = xy * cycle**after
        total = total + weight * np.array(echoes)
    return total
