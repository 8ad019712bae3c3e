"""Every shape, dtype and orientation that can come: what holds for all of them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from invlearn.io import Volume, open_stack, read_volume, write_stack, write_volume
from invlearn.io.itk import read_field, write_field
from invlearn.registration import warp
from invlearn.wavelets import dwt, idwt

SEEDS = st.integers(0, 2**32 - 1)
ORIENTATIONS = [
    (axes, signs)
    for axes in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]


def shapes(least: int, most: int) -> st.SearchStrategy[tuple[int, ...]]:
    return st.tuples(*[st.integers(least, most)] * 3)


def oriented(orientation: tuple[tuple[int, ...], tuple[int, ...]], seed: int) -> np.ndarray:
    """An affine whose axes lie along those of the world in some order and sense, a little oblique."""
    rng = np.random.default_rng(seed)
    axes, signs = orientation
    matrix = np.eye(4)
    matrix[:3, :3] = (np.eye(3)[list(axes)] * signs) @ np.diag(rng.uniform(0.5, 3, 3))
    angle = rng.uniform(-0.3, 0.3)
    turn = np.eye(3)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    matrix[:3, :3] = turn @ matrix[:3, :3]
    matrix[:3, 3] = rng.uniform(-100, 100, 3)
    return matrix


@given(
    shapes(1, 7),
    st.sampled_from(["u1", "i2", "i4", "f4", "f8", "?", "u2", "i1"]),
    st.sampled_from(ORIENTATIONS),
    SEEDS,
)
def test_volumes_come_back(
    tmp_path_factory: pytest.TempPathFactory,
    shape: tuple[int, ...],
    dtype: str,
    orientation: tuple,
    seed: int,
) -> None:
    path = tmp_path_factory.mktemp("v") / ("v.nii.gz" if seed % 2 else "v.nii")
    data = np.random.default_rng(seed).integers(0, 100, shape).astype(dtype)
    affine = oriented(orientation, seed)
    write_volume(path, Volume(data, affine))
    found = read_volume(path)
    np.testing.assert_array_equal(found.data, data)
    np.testing.assert_allclose(found.affine, affine, atol=1e-4)


@given(shapes(1, 6), st.sampled_from(ORIENTATIONS), SEEDS)
def test_fields_come_back(
    tmp_path_factory: pytest.TempPathFactory, shape: tuple[int, ...], orientation: tuple, seed: int
) -> None:
    path = tmp_path_factory.mktemp("f") / "f.nii.gz"
    field = np.random.default_rng(seed).normal(size=(3, *shape)).astype(np.float32)
    affine = oriented(orientation, seed)
    write_field(path, field, affine)
    found, place = read_field(path)
    np.testing.assert_array_equal(found, field)
    np.testing.assert_allclose(place, affine, atol=1e-4)


@given(
    shapes(2, 9),
    st.sampled_from(["u1", "u2", "f4", "i4", "f8", "?"]),
    st.sampled_from([".tif", ".zarr"]),
    SEEDS,
)
@settings(max_examples=15)
def test_stacks_come_back(
    tmp_path_factory: pytest.TempPathFactory, shape: tuple[int, ...], dtype: str, suffix: str, seed: int
) -> None:
    path = tmp_path_factory.mktemp("s") / f"s{suffix}"
    data = np.random.default_rng(seed).integers(0, 100, shape).astype(dtype)
    write_stack(path, data, (1.5, 0.4, 0.5))
    found = open_stack(path)
    np.testing.assert_array_equal(found.array(), data * np.uint8(255) if dtype == "?" else data)
    assert found.voxel_size == pytest.approx((1.5, 0.4, 0.5))


@given(shapes(3, 9), st.tuples(*[st.integers(-2, 2)] * 3), SEEDS)
def test_a_constant_field_of_whole_voxels_shifts(
    shape: tuple[int, ...], shift: tuple[int, ...], seed: int
) -> None:
    x = torch.from_numpy(np.random.default_rng(seed).normal(size=shape).astype(np.float32))
    field = torch.tensor(shift, dtype=torch.float32).reshape(3, 1, 1, 1).expand(3, *shape).contiguous()
    found = warp(x, field)
    for p in itertools.product(*map(range, shape)):
        q = tuple(a + b for a, b in zip(p, shift, strict=True))
        if all(0 <= a < n for a, n in zip(q, shape, strict=True)):
            assert abs(float(found[p] - x[q])) < 1e-5


@given(
    st.lists(st.integers(2, 9), min_size=1, max_size=3),
    st.sampled_from(["haar", "db2", "bior2.2", "sym4"]),
    st.sampled_from([torch.float32, torch.float64, torch.complex64, torch.complex128]),
    SEEDS,
)
def test_wavelets_invert_and_keep_the_dtype(
    shape: list[int], wavelet: str, dtype: torch.dtype, seed: int
) -> None:
    even = [2 * n for n in shape]
    x = torch.from_numpy(np.random.default_rng(seed).normal(size=even)).to(dtype)
    bands = dwt(x, wavelet, ndim=len(even), mode="periodization")
    assert all(band.dtype == dtype for band in bands.values())
    again = idwt(bands, wavelet, ndim=len(even), mode="periodization")
    assert again.dtype == dtype
    torch.testing.assert_close(
        again, x, atol=1e-4 if dtype in (torch.float32, torch.complex64) else 1e-9, rtol=0
    )


@given(
    st.tuples(st.integers(3, 20), st.integers(5, 40), st.integers(5, 40)),
    st.sampled_from(["u1", "u2", "f4", "i4"]),
    SEEDS,
)
@settings(max_examples=6)
def test_stacks_of_every_shape_and_type_are_segmented(
    tmp_path_factory: pytest.TempPathFactory, shape: tuple[int, ...], dtype: str, seed: int
) -> None:
    from invlearn.neuro.segmentation import segment
    from invlearn.neuro.waveunet import WaveUNet3D
    from invlearn.training import save_network

    path = tmp_path_factory.mktemp("w") / "w.safetensors"
    torch.manual_seed(0)
    save_network(path, WaveUNet3D(width=1), {})
    x = np.random.default_rng(seed).integers(10, 60, shape).astype(dtype)
    x[shape[0] // 2, shape[1] // 2] = 250
    found = segment(x, weights=path, voxel_size=(0.5, 0.5, 0.5))
    again = segment(x, weights=path, voxel_size=(0.5, 0.5, 0.5))
    assert found.mask.shape == shape
    np.testing.assert_array_equal(found.mask, again.mask)
