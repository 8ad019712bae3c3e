"""The gain between two volumes: what is found, what is not taken for gain, and where nothing was seen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.polynomial import legendre
from scipy import ndimage

from invlearn.registration.gain import Gain


def halves(gain: Gain, shape: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor, int]:
    """The voxels of a box, those of one colour first; their order, and how many of that colour."""
    at = torch.cartesian_prod(*(torch.arange(n).double() for n in shape))
    order, half = gain.board(at)
    return at[order], order, half


def test_a_gain_is_found_in_spite_of_outliers_and_does_not_run_away() -> None:
    """A quadratic logarithm exactly, with one voxel in ten elsewhere; constant along a thin axis."""
    gain = Gain((20, 24, 3), (1.0, 1.0, 1.0), degree=3)
    assert max(p[2] for p in gain.powers) == 0
    at, order, half = halves(gain, (12, 24, 3))
    terms = gain.terms(at)
    true = torch.exp(0.3 * terms[gain.powers.index((1, 0, 0))] - 0.2 * terms[gain.powers.index((0, 2, 0))])
    ratio = true.clone()
    ratio[::10] *= 2.5
    found = gain.fit(ratio, terms, half)
    assert (found / true - 1).abs().max() < 0.06
    over = gain.over(torch.zeros(20, 24, 3)).exp()
    torch.testing.assert_close(over[:12].flatten().double()[order], found, atol=1e-5, rtol=0)
    assert over.amax() <= found.amax() * 1.0001  # beyond what was seen it stays within what was seen
    finer = gain.over(torch.zeros(40, 48, 6))
    assert finer.shape == (40, 48, 6)
    torch.testing.assert_close(gain.over(torch.zeros(40, 48, 6), slice(32, 48)), finer[32:])


def test_a_gain_is_no_more_bent_than_it_foretells() -> None:
    """Blobs of anatomy are not followed, a cubic gain is, and beneath the blobs as well."""
    gain = Gain((24, 24, 24))
    at, order, half = halves(gain, gain.shape)
    terms = gain.terms(at)
    assert 0.4 < half / len(at) < 0.6
    smooth = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=gain.shape), 1.2)
    blobs = torch.from_numpy(0.3 * smooth / smooth.std()).flatten()[order]

    def degree() -> int:
        used = gain.coefficients.abs() > 1e-9
        return max((sum(p) for p, u in zip(gain.powers, used, strict=True) if u), default=0)

    assert max(map(sum, gain.powers)) == 6
    assert max(map(sum, Gain((24, 24, 24), degree=1).powers)) == 1
    assert gain.fit(blobs.exp(), terms, half).log().abs().max() < 0.12
    assert degree() < 3
    cubic = 0.5 * terms[gain.powers.index((3, 0, 0))]
    found = gain.fit((cubic + blobs).exp(), terms, half).log()
    assert degree() == 3
    assert (found - cubic).square().mean().sqrt() < 0.1


def test_its_terms_are_legendre_polynomials() -> None:
    gain = Gain((9, 7, 8), degree=4)
    at = torch.cartesian_prod(*(torch.arange(n).double() for n in gain.shape))
    x = [((2 * at[:, k] + 1) / n - 1).numpy() for k, n in enumerate(gain.shape)]
    for power, term in zip(gain.powers, gain.terms(at), strict=True):
        factors = [legendre.legval(v, np.eye(5)[p]) for v, p in zip(x, power, strict=True)]
        np.testing.assert_allclose(term, np.prod(factors, axis=0), atol=1e-12)


def test_an_object_within_one_cube_gets_a_constant_gain() -> None:
    gain = Gain((60, 60, 60))
    at = torch.cartesian_prod(*(torch.arange(2, 8).double(),) * 3)
    assert gain.board(at)[1] == len(at)
    found = gain.fit(torch.full((len(at),), 1.3), gain.terms(at), len(at))
    torch.testing.assert_close(found, torch.full((len(at),), 1.3), atol=1e-3, rtol=0)
