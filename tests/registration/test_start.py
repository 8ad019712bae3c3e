"""Registration from a network's prediction, whatever the orientation of the volumes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from nibabel.orientations import apply_orientation, inv_ornt_aff
from scipy import ndimage

from invlearn.io import Volume
from invlearn.registration import register
from invlearn.registration.start import predict, register_from
from invlearn.registration.winet import WiNet

SHAPE = (20, 18, 16)


def blobs(seed: int) -> np.ndarray:
    x = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=SHAPE), 2)
    return (x / x.std()).astype(np.float32)


@pytest.fixture(scope="module")
def network() -> WiNet:
    torch.manual_seed(0)
    made = WiNet("haar", 4, spacing=2.0).eval()
    with torch.no_grad():
        for head in made.heads:
            head.weight.mul_(100)  # to displacements of about a voxel
    return made


AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])


@pytest.mark.parametrize(
    "orientation", [[[0, -1], [1, 1], [2, 1]], [[2, 1], [0, -1], [1, -1]], [[1, -1], [2, 1], [0, 1]]]
)
def test_the_prediction_does_not_depend_on_the_order_of_the_axes(
    network: WiNet, orientation: list[list[int]]
) -> None:
    fixed, moving = blobs(0), blobs(1)
    plain = predict(network, Volume(fixed, AFFINE), Volume(moving, AFFINE)).numpy()
    assert np.abs(plain).max() > 0.5
    turn = np.array(orientation, float)
    affine = AFFINE @ inv_ornt_aff(turn, SHAPE)
    turned = [Volume(np.ascontiguousarray(apply_orientation(x, turn)), affine) for x in (fixed, moving)]
    found = predict(network, *turned).numpy()
    # in mm the two fields are one
    world = np.einsum("ij,jdhw->idhw", affine[:3, :3], found)
    expected = np.stack([apply_orientation(2 * u, turn) for u in plain])
    np.testing.assert_allclose(world, expected, atol=1e-3)


def test_it_sees_the_voxels_that_it_was_trained_on(network: WiNet) -> None:
    fixed, moving = (Volume(blobs(k), np.diag([1.0, 2, 4, 1])) for k in (0, 1))
    field = predict(network, fixed, moving)
    assert field.shape == (3, *SHAPE)
    resampled = [
        Volume(ndimage.zoom(v.data, (0.5, 1, 2), order=1, grid_mode=True, mode="nearest"), AFFINE)
        for v in (fixed, moving)
    ]
    direct = predict(network, *resampled)
    assert direct.shape == (3, 10, 18, 32)
    scale = torch.tensor([2, 1, 0.5]).reshape(3, 1, 1, 1)
    back = torch.nn.functional.interpolate(direct[None], size=SHAPE, mode="trilinear")[0] * scale
    assert float((field - back).abs().max()) < 0.05 * float(back.abs().max())
    with pytest.raises(ValueError, match="one grid"):
        predict(network, fixed, Volume(moving.data[1:], moving.affine))


def test_the_prediction_is_where_it_starts(network: WiNet) -> None:
    fixed, moving = Volume(blobs(0), AFFINE), Volume(ndimage.shift(blobs(0), 0.7, order=1), AFFINE)
    expected = predict(network, fixed, moving)
    alone = register_from(network, fixed, moving, affine="none", iterations=0, similarity="mse")
    difference = (alone.deformation - expected).abs()
    assert float(expected.abs().max()) > 0.5
    assert float(difference.mean()) < 0.1 * float(expected.abs().mean())  # but where folds were mended
    climbed = register_from(network, fixed, moving, affine="none", iterations=20, similarity="mse")
    assert climbed.similarity[2] > alone.similarity[2]
    without = register_from(None, fixed, moving, affine="none", iterations=5)
    plain = register(fixed, moving, affine="none", iterations=5)
    np.testing.assert_array_equal(without.deformation, plain.deformation)
    assert not np.array_equal(climbed.deformation, without.deformation)
