"""Trajectories: analytic geometry, Nyquist spacing, and files of every layout."""

from __future__ import annotations

import math
from dataclasses import replace

import ismrmrd
import numpy as np
import pytest
import torch
from scipy.io import savemat
from torch.testing import assert_close

from invlearn.io import Scan, write_scan
from invlearn.physics.mri.trajectories import radial, read_trajectory, spiral, stack_of


def radius_and_angle(arm):
    """Radius and unwrapped angle along an arm, the middle left out."""
    return arm[1:].norm(dim=-1).numpy(), np.unwrap(torch.atan2(arm[1:, 1], arm[1:, 0]).numpy())


def test_spiral_has_equal_steps_and_ends_at_the_edge():
    arms = spiral(12, 4000, (64, 48))
    assert arms.shape == (12, 4000, 2)
    assert_close(arms[:, 0], torch.zeros(12, 2, dtype=torch.float64))
    assert_close(arms[:, -1].norm(dim=-1), torch.full((12,), 0.5, dtype=torch.float64))
    steps = arms.diff(dim=1).norm(dim=-1)
    assert float(steps.max() / steps.min()) < 1.02  # chords of equal arcs


@pytest.mark.parametrize("density", [1.0, 0.5, (1.0, 0.25)])
def test_spiral_meets_nyquist_for_the_stated_part_of_the_field_of_view(density):
    # one arm, so neighbouring turns are 1/(F N) apart: dr/dθ = 1 / (2π F N)
    n = 64
    r, theta = radius_and_angle(spiral(1, 20_000, (n, 32), density=density)[0])
    middle, edge = density if isinstance(density, tuple) else (density, density)
    expected = 1 / (2 * math.pi * n * (middle + (edge - middle) * r / 0.5))
    found = np.gradient(r, theta)
    np.testing.assert_allclose(found[1:-1], expected[1:-1], rtol=1e-3)


def test_arms_share_the_turns():
    arms = spiral(4, 5000, (64, 64))
    _, theta = radius_and_angle(arms[0])
    np.testing.assert_allclose(theta[-1], 2 * math.pi * 64 * 0.5 / 4)
    quarter = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
    assert_close(arms[1], arms[0] @ quarter)
    assert_close(arms[2], -arms[0])


def test_interleaves_and_golden_angle():
    many = spiral(10, 50, (32, 32), interleaves=4)
    assert_close(many[:4], spiral(4, 50, (32, 32)))
    assert_close(many[4:8], many[:4])
    golden = spiral(10, 50, (32, 32), interleaves=4, golden_angle=True)
    assert_close(golden[0], many[0])
    ends = torch.view_as_complex(golden[:, -1].contiguous())
    turned = torch.angle(ends[1:] / ends[:-1]) % (2 * math.pi)
    assert_close(turned, torch.full_like(turned, math.radians(222.4922359)), rtol=1e-8, atol=1e-8)


def test_radial_spokes():
    spokes = radial(6, 8)
    assert spokes.shape == (6, 8, 2)
    assert_close(spokes[:, 4], torch.zeros(6, 2, dtype=torch.float64))
    assert_close(spokes[0, :, 0], torch.arange(-4, 4, dtype=torch.float64) / 8)
    assert_close(spokes[3, :, 1], spokes[0, :, 0])  # 90 degrees further
    golden = torch.view_as_complex(radial(50, 8, golden_angle=True)[:, 0].contiguous())
    turned = torch.angle(golden[1:] / golden[:-1]) % math.pi
    assert_close(turned, torch.full_like(turned, math.radians(111.2461179)), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("golden_angle", [True, False])
def test_spokes_over_the_sphere(golden_angle):
    directions = radial(4000, 2, 3, golden_angle=golden_angle)[:, 0] / -0.5
    assert_close(directions.norm(dim=-1), torch.ones(4000, dtype=torch.float64))
    # lines spread evenly over the sphere have the second moment 1/3
    moment = directions.mT @ directions / 4000
    assert_close(moment, torch.eye(3, dtype=torch.float64) / 3, atol=3e-3, rtol=0)
    early = directions[:200].mT @ directions[:200] / 200
    even = bool((early - torch.eye(3) / 3).abs().max() < 0.03)
    assert even == golden_angle  # golden means cover the sphere with any run of spokes


def test_stack():
    arms = spiral(3, 20, (16, 16))
    stack = stack_of(arms, 4)
    assert stack.shape == (12, 20, 3)
    assert_close(stack[3:6, :, :2], arms)
    assert_close(stack[::3, 0, 2], torch.tensor([-0.5, -0.25, 0, 0.25], dtype=torch.float64))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: spiral(0, 10, (8, 8)), "at least 1 arms, got 0"),
        (lambda: spiral(1, 1, (8, 8)), "at least 2 samples"),
        (lambda: spiral(1, 10, (8, 8, 8)), "stack_of for volumes"),
        (lambda: spiral(1, 10, (8, 8), density=0.0), "density is a positive part"),
        (lambda: spiral(1, 10, (8, 8), density=(1.0, math.nan)), "density is a positive part"),
        (lambda: spiral(1, 10, (8, 8), interleaves=0), "at least 1 interleaves"),
        (lambda: radial(0, 10), "at least 1 arms"),
        (lambda: radial(3, 1), "at least 2 samples"),
        (lambda: radial(3, 10, 4), "2 or 3 dimensions, got 4"),
        (lambda: stack_of(radial(3, 10), 0), "at least 1 partitions"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


ARMS = spiral(6, 40, (32, 32)).numpy()


@pytest.mark.parametrize(
    "array",
    [
        ARMS,
        ARMS.swapaxes(0, 1),
        np.moveaxis(ARMS, -1, 0),
        np.moveaxis(ARMS.swapaxes(0, 1), -1, 0),
        ARMS[..., 0] + 1j * ARMS[..., 1],
        (ARMS[..., 0] + 1j * ARMS[..., 1]).T,
        np.concatenate([ARMS, np.zeros((6, 40, 1))], axis=-1),
    ],
)
def test_layouts_of_files(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    np.savez(tmp_path / "a.npz", weights=np.ones(3), traj=array)
    savemat(tmp_path / "a.mat", {"w": np.ones(3), "k": array})
    for name in ("a.npy", "a.npz", "a.mat"):
        found = read_trajectory(tmp_path / name)
        assert found.dtype == torch.float64
        np.testing.assert_array_equal(found, ARMS)


def test_single_arm_and_volumes(tmp_path):
    for array in (ARMS[0], ARMS[0].T, ARMS[:1], ARMS[:1].swapaxes(0, 1), ARMS[0, :, 0] + 1j * ARMS[0, :, 1]):
        np.save(tmp_path / "a.npy", array)
        np.testing.assert_array_equal(read_trajectory(tmp_path / "a.npy"), ARMS[:1])
    volume = stack_of(torch.from_numpy(ARMS), 3)
    np.save(tmp_path / "a.npy", volume)
    assert_close(read_trajectory(tmp_path / "a.npy"), volume)


def test_from_a_scan(tmp_path):
    single = ARMS.astype("f4").astype("f8")
    kspace, frame = np.ones((1, 240), "c8"), np.repeat(np.arange(6), 40)
    scan = Scan(kspace, single.reshape(-1, 2), frame, 6, (32, 32), (0.3, 0.3))
    write_scan(tmp_path / "a.h5", scan)
    np.testing.assert_array_equal(read_trajectory(tmp_path / "a.h5"), single)
    write_scan(tmp_path / "b.h5", replace(scan, readouts=np.array([20] * 2 + [40] * 5)))
    with pytest.raises(ValueError, match=r"from 20 to 40 samples"):
        read_trajectory(tmp_path / "b.h5")
    with ismrmrd.Dataset(str(tmp_path / "c.mrd")) as dataset:
        dataset.write_xml_header(
            b"<ismrmrdHeader><encoding><encodedSpace><matrixSize><x>8</x><y>8</y></matrixSize></encodedSpace>"
            b"</encoding></ismrmrdHeader>"
        )
        dataset.append_acquisition(ismrmrd.Acquisition.from_array(np.ones((1, 4), "c8")))
    with pytest.raises(ValueError, match="no trajectory in its acquisitions"):
        read_trajectory(tmp_path / "c.mrd")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.random.default_rng(0).uniform(-0.5, 0.5, (30, 40, 2)), "which the samples cannot be told"),
        (np.zeros((5, 6)), r"has the shape \(5, 6\)"),
        (np.zeros(7), r"has the shape \(7,\)"),
        (np.zeros((4, 5, 6, 2)), r"has the shape \(4, 5, 6, 2\)"),
        (ARMS * 32, "cycles per field of view"),
        (ARMS * 2 * np.pi, "radians per pixel"),
        (np.full((4, 2), np.nan), "8 NaN"),
    ],
)
def test_files_that_are_no_trajectory(tmp_path, array, message):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(ValueError, match=message):
        read_trajectory(tmp_path / "a.npy")


def test_no_such_file(tmp_path):
    for name in ("a.npy", "a.h5"):
        with pytest.raises(FileNotFoundError, match="does not exist"):
            read_trajectory(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "shape"), [("openmrf_espirit_spiral", (60, 1182, 2)), ("imr_K_Traj4rec", (48, 1092, 2))]
)
def test_measured_and_designed_ones(data_folder, name, shape):
    found = read_trajectory(data_folder / "mrf" / f"{name}.mat")
    assert found.shape == shape
    assert float(found[:, 0].norm(dim=-1).max()) < 1e-3  # every arm starts in the middle
    assert float(found[:, -1].norm(dim=-1).min()) > 0.45
