"""CG-SENSE images from multi-coil k-space: a spiral scan and an undersampled Cartesian one.

    python examples/noncartesian_mri.py [-o FOLDER] [--size 128] [--iterations 30]

A spiral scan is simulated, its coil maps are estimated from its own samples, and the image is
reconstructed with them. Where the variable INVLEARN_DATA names a folder with the two real scans of
the how-to page, these are reconstructed too. Each image is compared with SigPy's for the same
samples, maps and damping: one line a scan with times and the relative difference.
"""

from __future__ import annotations

import argparse
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sigpy.mri
from scipy.io import loadmat
from torch import Tensor

from invlearn.physics import LinearOperator, cg, identity
from invlearn.physics.mri import CartesianMRI, NonCartesianMRI, coils, trajectories


@dataclass(frozen=True)
class Scan:
    """K-space `(C, ...)`, the trajectory `(N, 2)` of a non-Cartesian one, and the image's shape."""

    name: str
    kspace: np.ndarray
    trajectory: Tensor | None
    shape: tuple[int, int]

    @property
    def mask(self) -> np.ndarray:
        """Where a Cartesian scan was sampled."""
        return np.abs(self.kspace).sum(0) > 0

    def maps(self) -> np.ndarray:
        """Coil maps out of the middle of k-space."""
        if self.trajectory is None:
            return coils.espirit(self.kspace)
        return coils.estimate_maps(self.kspace, self.trajectory, self.shape)

    def operator(self, maps: np.ndarray) -> LinearOperator:
        """Image to k-space; of about unit norm, so that one damping serves every scan."""
        if self.trajectory is None:
            return CartesianMRI(self.mask, maps)
        return NonCartesianMRI(self.trajectory, self.shape, maps) / np.sqrt(np.prod(self.shape))


def simulated(size: int, seed: int = 0) -> Scan:
    """The Shepp-Logan phantom seen by eight coils along 24 spiral arms, with noise of 1 %."""
    shape = (size, size)
    image, maps = sigpy.shepp_logan(shape), sigpy.mri.birdcage_maps((8, *shape))
    arms = trajectories.spiral(24, 8 * size, shape, density=(1.0, 0.5)).flatten(0, 1)
    kspace = NonCartesianMRI(arms, shape, maps)(image)
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal(kspace.shape) + 1j * rng.standard_normal(kspace.shape)
    kspace += 0.01 * np.sqrt(np.mean(np.abs(kspace) ** 2) / 2) * noise
    return Scan("simulated spiral", kspace.astype(np.complex64), arms, shape)


def real_scans(folder: Path) -> Iterator[Scan]:
    """The 8-coil brain (12 % of Cartesian k-space) and the 8-coil spiral scan of a phantom."""
    kspace = np.load(folder / "mrf" / "sigpy_tutorial_cartesian_ksp.npy")
    yield Scan("Cartesian brain", kspace, None, kspace.shape[1:])
    path = folder / "mrf" / "openmrf_espirit_spiral.mat"
    arms = trajectories.read_trajectory(path)  # (60, 1182, 2)
    data = loadmat(path, variable_names=["data"])["data"].transpose(2, 1, 0)  # (coils, arms, samples)
    # neighbouring turns of the 60 arms are 1/374 apart: that many pixels are sampled fully
    for step in (1, 2):
        some = data[:, ::step].reshape(len(data), -1).astype(np.complex64)
        yield Scan(f"phantom, {60 // step} spiral arms", some, arms[::step].flatten(0, 1), (374, 374))


def cg_sense(scan: Scan, maps: np.ndarray, damping: float, iterations: int) -> np.ndarray:
    """The x that minimises ‖Ax - y‖² + damping ‖x‖², by conjugate gradients."""
    operator = scan.operator(maps)
    normal = operator.H @ operator + damping * identity(scan.shape, complex=True)
    return cg(normal, operator.adjoint(scan.kspace), tolerance=1e-6, max_iterations=iterations).value


def sigpy_sense(scan: Scan, maps: np.ndarray, damping: float, iterations: int) -> np.ndarray:
    """The same by SigPy, whose coordinates are (y, x) in cycles per field of view."""
    where: dict[str, np.ndarray]
    if scan.trajectory is None:
        where = {"weights": scan.mask.astype(np.float32)}
    else:
        where = {"coord": scan.trajectory.flip(-1).numpy().astype(np.float32) * np.float32(scan.shape)}
    app = sigpy.mri.app.SenseRecon(
        scan.kspace, maps, lamda=damping, max_iter=iterations, show_pbar=False, **where
    )
    return app.run()


def timed(call: Callable[..., np.ndarray], *args: Any) -> tuple[np.ndarray, float]:
    """The result of a call and its CPU seconds, after one iteration to warm up."""
    call(*args[:-1], 1)
    start = time.process_time()
    return call(*args), time.process_time() - start


@dataclass(frozen=True)
class Result:
    """What came out for one scan: images, maps, CPU seconds, and how far SigPy's image is away."""

    scan: Scan
    adjoint: np.ndarray
    image: np.ndarray
    maps: np.ndarray
    seconds: tuple[float, float]
    difference: float


def reconstruct(scan: Scan, damping: float = 0.01, iterations: int = 30) -> Result:
    """Maps, adjoint and CG-SENSE image of a scan, beside SigPy's image."""
    maps = scan.maps()
    image, ours = timed(cg_sense, scan, maps, damping, iterations)
    theirs_image, theirs = timed(sigpy_sense, scan, maps, damping, iterations)
    difference = float(np.linalg.norm(image - theirs_image) / np.linalg.norm(theirs_image))
    return Result(scan, scan.operator(maps).adjoint(scan.kspace), image, maps, (ours, theirs), difference)


def figure(result: Result, path: Path) -> None:
    """The adjoint, the image, and one coil map, side by side."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    fig, axes = pyplot.subplots(1, 3, figsize=(7.2, 3.2), layout="constrained")
    panels = {
        "adjoint": np.abs(result.adjoint),
        "CG-SENSE": np.abs(result.image),
        "|map| of the first coil": np.abs(result.maps[0]),
    }
    for axis, (title, values) in zip(axes, panels.items(), strict=True):
        axis.imshow(values, cmap="gray", vmin=0, vmax=np.quantile(values, 0.998))
        axis.set_title(title, fontsize=9)
        axis.set_axis_off()
    fig.savefig(path, dpi=110, bbox_inches="tight")
    pyplot.close(fig)


def main() -> None:
    """Print the table and write a figure for each scan."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, help="folder for figures (none without it)")
    parser.add_argument("--size", type=int, default=128, help="pixels a side of the simulated image")
    parser.add_argument("--iterations", type=int, default=30, help="conjugate gradient steps")
    args = parser.parse_args()
    # both are stopped by the number of iterations: that they did not converge further is no news
    logging.getLogger("invlearn").setLevel(logging.ERROR)
    scans = [simulated(args.size)]
    if folder := os.environ.get("INVLEARN_DATA"):
        scans += real_scans(Path(folder))
    print(f"{'scan':<26}{'invlearn':>10}{'SigPy':>10}{'ratio':>8}{'difference':>12}")
    for scan in scans:
        result = reconstruct(scan, iterations=args.iterations)
        ours, theirs = result.seconds
        row = f"{scan.name:<26}{ours:>9.2f}s{theirs:>9.2f}s{ours / theirs:>8.2f}{result.difference:>12.1e}"
        print(row, flush=True)
        if args.output:
            args.output.mkdir(parents=True, exist_ok=True)
            figure(result, args.output / f"{scan.name.replace(', ', '-').replace(' ', '-').lower()}.png")


if __name__ == "__main__":
    main()
