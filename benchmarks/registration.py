"""Registration beside other programs: accuracy, regularity, consistency, processor time, memory.

``INVLEARN_DATA=DIR python benchmarks/registration.py`` runs every contender on every pair, each in a
process of its own so that its peak memory is its own, and writes ``benchmarks/results/registration.json``.
Contenders that are not installed are skipped with a word; ``--peers PYTHON`` names an interpreter that has
them (antspyx, convexAdam, FireANTs), so that they need not live beside invlearn.

All are judged alike: by the displacement field (mm) that takes fixed to moving points. Times are of the
registration alone, without imports, reading and writing; the peak is that of the whole process.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import resource
import runpy
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

RESULTS = Path(__file__).parent / "results" / "registration.json"
recorded = runpy.run_path(str(Path(__file__).with_name("recorded.py")))["about"]
ALONE = "headers alone"
SWAPPED = ", swapped"
PROSTATES = re.compile(r"prostate \d and \d")
ITERATIONS = (100, 60, 30)  # of the demons, coarse to fine
FULL = (160, 192, 224)  # the grid of a brain at 1 mm
CUBE = (256, 256, 256)
BOX = (104, 124, 100)  # within a brain
GAMMA, SLOPE = 0.6, 0.2  # of the changed contrast; of the bias: sd of its logarithm
SHADE, ROUGH = 60.0, 30.0  # mm, over which the bias is smooth
WARP, REACH = 8.0, 14.0  # mm: largest displacement of the known warp, and its smoothness
Array = np.ndarray


# --- contenders: the field (3, D, H, W) in mm, RAS, on the fixed grid. Peers run where invlearn is not.


def by_invlearn(
    fixed: Path, moving: Path, roughest: float | None = None, **options: Any
) -> Callable[[], Array]:
    import invlearn.registration.loops
    import invlearn.registration.points  # noqa: F401
    from invlearn.io import read_volume
    from invlearn.registration import Settings, register

    pair = read_volume(fixed), read_volume(moving)
    settings = None if roughest is None else Settings(roughest=roughest)
    return lambda: register(*pair, settings=settings, **options).forward_field()


def affine_by_simpleitk(fixed: Any, moving: Any) -> Any:
    import SimpleITK as sitk

    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(32)
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetMetricSamplingPercentage(0.1)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-4, 100)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([4, 2, 1])
    method.SetSmoothingSigmasPerLevel([2, 1, 0])
    start = sitk.CenteredTransformInitializer(
        fixed, moving, sitk.AffineTransform(3), sitk.CenteredTransformInitializerFilter.MOMENTS
    )
    method.SetInitialTransform(start, inPlace=False)
    return method.Execute(fixed, moving)


def by_demons(fixed: Path, moving: Path, sigma: float, prepare: str) -> Callable[[], Array]:
    """SimpleITK: affine by mutual information, then diffeomorphic demons on three grids."""
    import SimpleITK as sitk

    f, m = (sitk.ReadImage(str(path), sitk.sitkFloat32) for path in (fixed, moving))

    def corrected(image: Any) -> Any:
        small = sitk.Shrink(image, [4 if n >= 64 else 1 for n in image.GetSize()])
        bias = sitk.N4BiasFieldCorrectionImageFilter()
        bias.Execute(
            small - sitk.GetArrayViewFromImage(small).min() + 1, sitk.OtsuThreshold(small, 0, 1, 200)
        )
        return image / sitk.Exp(sitk.Cast(bias.GetLogBiasFieldAsImage(image), sitk.sitkFloat32))

    def level(f: Any, m: Any, u: Any, factor: int, steps: int) -> Any:
        factors = [factor if n >= 16 * factor else 1 for n in f.GetSize()]
        spacing = f.GetSpacing()
        small = [
            sitk.Shrink(sitk.SmoothingRecursiveGaussian(x, [0.5 * factor * s for s in spacing]), factors)
            if factor > 1
            else x
            for x in (f, m)
        ]
        demons = sitk.DiffeomorphicDemonsRegistrationFilter()
        demons.SetNumberOfIterations(steps)
        demons.SetStandardDeviations(sigma)
        start = sitk.Image(small[0].GetSize(), sitk.sitkVectorFloat64)
        start.CopyInformation(small[0])
        if u is not None:
            start = sitk.Resample(u, small[0], sitk.Transform(), sitk.sitkLinear, 0.0, sitk.sitkVectorFloat64)
        return demons.Execute(small[0], small[1], start)

    def run() -> Array:
        a, b = (corrected(f), corrected(m)) if prepare == "n4" else (f, m)
        affine = affine_by_simpleitk(a, b)
        moved = sitk.Resample(b, a, affine, sitk.sitkLinear, 0.0)
        if prepare in ("matched", "n4"):
            moved = sitk.HistogramMatching(moved, a, 256, 15, True)
        u = None
        for factor, steps in zip((4, 2, 1), ITERATIONS, strict=True):
            u = level(a, moved, u, factor, steps)
        # p -> affine(p + u(p)): the field first
        whole = sitk.CompositeTransform([affine, sitk.DisplacementFieldTransform(sitk.Image(u))])
        total = sitk.TransformToDisplacementField(
            whole, sitk.sitkVectorFloat64, a.GetSize(), a.GetOrigin(), a.GetSpacing(), a.GetDirection()
        )
        return ras(sitk.GetArrayFromImage(total).transpose(3, 2, 1, 0))

    return run


def ras(lps: Array) -> Array:
    """From LPS to RAS."""
    return lps * np.array([-1.0, -1, 1]).reshape(3, 1, 1, 1)


def by_ants(fixed: Path, moving: Path, kind: str = "SyN", **options: Any) -> Callable[[], Array]:
    import ants

    f, m = ants.image_read(str(fixed)), ants.image_read(str(moving))

    def run() -> Array:
        with tempfile.TemporaryDirectory() as folder:
            found = ants.registration(f, m, kind, outprefix=f"{folder}/t_", **options)
            prefix = f"{folder}/whole_"
            ants.apply_transforms(f, m, found["fwdtransforms"], compose=prefix)
            data = np.asarray(nibabel.load(f"{prefix}comptx.nii.gz").dataobj)
            return ras(np.moveaxis(data[..., 0, :], -1, 0).astype(np.float64))

    return run


def by_convexadam(fixed: Path, moving: Path) -> Callable[[], Array]:
    """On the fixed grid by the headers: it has no affine stage."""
    import SimpleITK as sitk
    import torch
    from convexAdam.convex_adam_MIND import convex_adam_pt

    f = sitk.ReadImage(str(fixed), sitk.sitkFloat32)
    m = sitk.Resample(sitk.ReadImage(str(moving), sitk.sitkFloat32), f)
    a, b = (torch.from_numpy(sitk.GetArrayFromImage(x).T.copy()) for x in (f, m))
    affine = nibabel.load(fixed).affine

    def run() -> Array:
        u = convex_adam_pt(a, b, device=torch.device("cpu"), dtype=torch.float32)
        return np.einsum("ij,jdhw->idhw", affine[:3, :3], np.moveaxis(np.asarray(u, np.float64), -1, 0))

    return run


def by_fireants(fixed: Path, moving: Path) -> Callable[[], Array]:
    """Affine, then greedy with local correlation, by the steps and rates of its tutorial."""
    import torch
    from fireants.io import BatchedImages, Image
    from fireants.registration.affine import AffineRegistration
    from fireants.registration.greedy import GreedyRegistration

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    f, m = (BatchedImages([Image.load_file(str(path), device="cpu")]) for path in (fixed, moving))

    def run() -> Array:
        rough = AffineRegistration(
            [8, 4, 2, 1], [200, 100, 50, 20], f, m, optimizer="Adam", optimizer_lr=3e-3, cc_kernel_size=5
        )
        rough.optimize()
        fine = GreedyRegistration(
            scales=[4, 2, 1], iterations=[200, 100, 25], fixed_images=f, moving_images=m, cc_kernel_size=5,
            deformation_type="compositive", smooth_grad_sigma=1, optimizer="adam", optimizer_lr=0.5,
            init_affine=rough.get_affine_matrix().detach(),
        )  # fmt: skip
        fine.optimize()
        with tempfile.TemporaryDirectory() as folder:
            fine.save_as_ants_transforms(f"{folder}/u.nii.gz")
            data = np.asarray(nibabel.load(f"{folder}/u.nii.gz").dataobj)
        return ras(np.moveaxis(data[..., 0, :], -1, 0).astype(np.float64))

    return run


CONTENDERS: dict[str, tuple[str, Callable[[Path, Path], Callable[[], Array]]]] = {
    "invlearn": ("invlearn", by_invlearn),
    "invlearn mi": ("invlearn", lambda f, m: by_invlearn(f, m, similarity="mi")),
    # allowed to be as rough as demons of a small sigma are
    "invlearn rough": ("invlearn", lambda f, m: by_invlearn(f, m, roughest=0.5)),
    **{
        f"demons {sigma} {prepare}": (
            "SimpleITK",
            lambda f, m, sigma=sigma, prepare=prepare: by_demons(f, m, sigma, prepare),
        )
        for sigma in (0.8, 1.0, 1.5)
        for prepare in ("raw", "matched", "n4")
    },
    "ANTs SyN": ("ants", by_ants),
    # of its SyN: 40, 20 and 0 steps; its own "SyNCC" takes up to 2100, 1200 and 1200
    "ANTs SyN CC": ("ants", lambda f, m: by_ants(f, m, syn_metric="CC", syn_sampling=2)),
    "ANTs SyNCC": ("ants", lambda f, m: by_ants(f, m, "SyNCC")),
    "convexAdam": ("convexAdam", by_convexadam),
    "FireANTs": ("fireants", by_fireants),
}


def work(contender: str, folder: Path) -> None:
    """In a process of its own: register, and leave the field and what it took."""
    run = CONTENDERS[contender][1](folder / "fixed.nii.gz", folder / "moving.nii.gz")
    cpu, wall = cpu_seconds(), time.perf_counter()
    found = run()
    spent = {"cpu_seconds": cpu_seconds() - cpu, "seconds": time.perf_counter() - wall}
    np.save(folder / "field.npy", found.astype(np.float32))
    (folder / "spent.json").write_text(json.dumps({**spent, "peak_gb": peak_gb()}))


def peak_gb() -> float:
    """Of this process. `ru_maxrss` would also count the parent's memory at the fork."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return float(line.split()[1]) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**30


def cpu_seconds() -> float:
    """Of this process and of the ones that it started."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


# --- pairs


@dataclass
class Subject:
    """A volume, its labels, and a mask of what counts."""

    image: Array
    affine: Array
    labels: Array | None = None
    mask: Array | None = None


@dataclass
class Case:
    """Two subjects; `truth` is the field in mm that a perfect registration finds."""

    name: str
    fixed: Subject
    moving: Subject
    truth: Array | None = None


def load(path: Path, step: int = 1) -> tuple[Array, Array]:
    image = nibabel.load(path)
    data, affine = np.asarray(image.dataobj), image.affine.copy()
    affine[:3, :3] *= step
    return data[::step, ::step, ::step], affine


def colin(data: Path, step: int) -> Subject:
    image, affine = load(data / "brains" / "colin27_ch2_t1_1mm.nii.gz", step)
    classes, _ = load(data / "mrf" / "brainweb_normal_crisp_labels_1mm.nii.gz", step)
    labels = np.select([classes == 2, classes == 3], [1, 2], 0).astype(np.uint8)
    return Subject(image.astype(np.float32), affine, labels, np.isin(classes, (1, 2, 3, 8)))


def mni(data: Path, step: int) -> Subject:
    name = "mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"
    image, affine = load(data / "brains" / name.format("t1"), step)
    grey, white = (load(data / "brains" / name.format(k), step)[0] > 127.5 for k in ("gm", "wm"))
    return Subject(
        image.astype(np.float32), affine, np.select([grey, white], [1, 2], 0).astype(np.uint8), image > 0
    )


def stripped(subject: Subject) -> Subject:
    """The brain alone, as the average brain is."""
    return Subject(np.where(subject.mask, subject.image, 0), subject.affine, subject.labels, subject.mask)


def prostate(data: Path, number: int, step: int) -> Subject:
    folder, name = data / "prostate" / "train", f"case{number:06d}.nii.gz"
    image, affine = load(folder / "mr_images" / name, step)
    labels = load(folder / "mr_labels" / name)[0]
    gland = (labels if labels.ndim == 3 else labels[..., 0])[::step, ::step, ::step]
    return Subject(image.astype(np.float32), affine, (gland > 0.5).astype(np.uint8), image > 0)


def head(data: Path, number: int, step: int) -> Subject:
    image, affine = load(data / "brains" / f"fireants_atlas_2mm_{number}_3.nii.gz", step)
    return Subject(image.astype(np.float32), affine, None, image > 0.1 * np.percentile(image, 99))


def changed(subject: Subject, across: float = SHADE) -> Subject:
    """The same in another contrast, under a shading that is smooth over so many mm."""
    from scipy import ndimage

    image = subject.image / subject.image.max()
    spacing = np.linalg.norm(subject.affine[:3, :3], axis=0)
    noise = np.random.default_rng(0).standard_normal([-(-n // 8) for n in image.shape])
    rough = ndimage.gaussian_filter(noise, across / (8 * spacing), mode="nearest")
    shade = ndimage.zoom(rough, np.array(image.shape) / rough.shape, order=1, mode="nearest", grid_mode=True)
    shade = np.exp(SLOPE * (shade - shade.mean()) / shade.std())
    return replace(subject, image=(image.clip(0) ** GAMMA * shade).astype(np.float32))


def fitted(subject: Subject, shape: tuple[int, ...]) -> Subject:
    """On a grid of that shape around the middle of the object; a finer one if it is larger on every side."""
    from invlearn.io import Volume
    from invlearn.registration import Transform

    old = np.array(subject.image.shape)
    finer = max(1.0, float((np.array(shape) / old).min()))
    at = np.argwhere(subject.mask)
    corner = ((at.min(0) + at.max(0)) / 2 - (np.array(shape) - 1) / (2 * finer)).round()
    there = np.diag([1 / finer, 1 / finer, 1 / finer, 1.0])
    there[:3, 3] = corner
    affine = subject.affine @ there
    still = Transform(np.zeros((3, *shape)), affine)

    def moved(data: Array, mode: str) -> Array:
        return still.image(Volume(data, subject.affine), mode).data

    assert subject.labels is not None
    assert subject.mask is not None
    return Subject(
        moved(subject.image, "linear"),
        affine,
        moved(subject.labels, "labels"),
        moved(subject.mask.astype(np.uint8), "nearest") > 0,
    )


def known(name: str, subject: Subject) -> Case:
    """The subject, and itself turned, scaled, shifted and bent, on its own grid; the truth goes along."""
    from invlearn.cli import tour_registration as tour
    from invlearn.io import Volume
    from invlearn.io.itk import points_of
    from invlearn.registration import Transform

    tour.LARGEST, tour.REACH = WARP, REACH
    volume = Volume(subject.image, subject.affine)
    x = points_of(volume.affine, volume.shape)
    matrix = tour.turned(x.reshape(3, -1).mean(1))
    u = tour.smooth_field(volume.shape, volume.spacing[0], 0)
    y = np.einsum("ij,jdhw->idhw", matrix[:3, :3], x + u) + matrix[:3, 3].reshape(3, 1, 1, 1)
    # where a point of the original went is the fixed side: original(y(x)) is the image that was bent
    bent = Transform(y - x, volume.affine).image(volume)
    return Case(
        name,
        Subject(bent.data, volume.affine, None, _inside(y - x, subject)),
        subject,
        y - x,
    )


def _inside(truth: Array, subject: Subject) -> Array:
    from invlearn.io import Volume
    from invlearn.registration import Transform

    assert subject.mask is not None
    mask = Volume(subject.mask.astype(np.uint8), subject.affine)
    return Transform(truth, subject.affine).image(mask, "nearest").data > 0


def cases(data: Path, step: int, only: str) -> Iterator[Case]:
    """All pairs in both directions, but for the known map."""
    coarse = {1: "", 2: ", every second voxel"}.get(step, f", every {step}th voxel")

    def both(name: str, a: Callable[[], Subject], b: Callable[[], Subject]) -> Iterator[Case]:
        if only in (name := f"{name}{coarse}"):
            first, second = a(), b()
            yield Case(name, first, second)
            yield Case(f"{name}{SWAPPED}", second, first)

    def sized(subject: Callable[[], Subject], shape: tuple[int, ...]) -> Callable[[], Subject]:
        return lambda: fitted(subject(), shape)

    def average() -> Subject:
        return mni(data, step)

    def person() -> Subject:
        return stripped(colin(data, step))

    yield from both("MNI152 and Colin27", average, person)
    yield from both("MNI152 and Colin27 in other contrast and shading", average, lambda: changed(person()))
    yield from both("MNI152 and Colin27 under a rough shading", average, lambda: changed(person(), ROUGH))
    yield from both("MNI152 and Colin27 with skull", average, lambda: colin(data, step))
    for name, shape in (("at 160 × 192 × 224", FULL), ("at 256³", CUBE), ("that fill the volume", BOX)):
        size = tuple(n // step for n in shape)
        first, second = sized(average, size), sized(person, size)
        yield from both(f"brains {name}", first, second)
        if shape is FULL:
            other = f"brains {name} in other contrast and shading"
            yield from both(other, first, lambda second=second: changed(second()))
    if only in (name := f"Colin27 under a known map{coarse}"):
        yield known(name, colin(data, step))
    yield from both("heads at 2 mm", lambda: head(data, 1000, step), lambda: head(data, 1001, step))
    for i in range(8):
        for j in range(i + 1, 8):
            yield from both(
                f"prostate {i} and {j}",
                lambda i=i: prostate(data, i, step),
                lambda j=j: prostate(data, j, step),
            )


# --- judging


def judge(case: Case, displacement: Array) -> dict[str, Any]:
    """The numbers of one field, and of none at all in `before`."""
    import torch

    from invlearn.io import Volume
    from invlearn.io.itk import millimetres_to_voxels
    from invlearn.registration import Transform, metrics

    fixed, moving = case.fixed, case.moving
    transform = Transform(displacement, fixed.affine)
    u = torch.from_numpy(millimetres_to_voxels(displacement, fixed.affine)).float()
    found: dict[str, Any] = {
        "folding_percent": metrics.folding_percent(u),
        "sd_log_jacobian": metrics.sd_log_jacobian(u),
    }
    if fixed.labels is not None and moving.labels is not None:
        warped = transform.image(Volume(moving.labels, moving.affine), "labels").data
        scores = metrics.dice(fixed.labels, warped)
        found["dice"] = {
            "mean": float(np.mean(list(scores.values()))),
            **{str(k): v for k, v in scores.items()},
        }
    if fixed.labels is None and case.truth is None:
        warped = transform.image(Volume(moving.image, moving.affine)).data
        found["correlation"] = float(np.corrcoef(fixed.image[fixed.mask], warped[fixed.mask])[0, 1])
    if case.truth is not None:
        voxel = np.linalg.norm(fixed.affine[:3, 0])
        wrong = np.sqrt(((displacement - case.truth) ** 2).sum(0))[fixed.mask] / voxel
        found["error_voxels"] = {"mean": float(wrong.mean()), "95 %": float(np.percentile(wrong, 95))}
    return found


def round_trip(case: Case, there: Array, back: Array) -> float:
    """Mean distance in voxels of fixed points (in the mask) from where two registrations take them."""
    from invlearn.io.itk import points_of
    from invlearn.registration import Transform

    grid = points_of(case.fixed.affine, case.fixed.image.shape)
    points = grid[:, case.fixed.mask].T[::7]
    first, second = Transform(there, case.fixed.affine), Transform(back, case.moving.affine)
    rest = second.points(first.points(points)) - points
    return float(np.linalg.norm(rest, axis=1).mean() / np.linalg.norm(case.fixed.affine[:3, 0]))


def measured(case: Case, contender: str, python: str, folder: Path) -> tuple[dict[str, Any], Array]:
    """One contender on one pair, in a process of its own."""
    for name, subject in (("fixed", case.fixed), ("moving", case.moving)):
        nibabel.save(nibabel.Nifti1Image(subject.image, subject.affine), folder / f"{name}.nii.gz")
    line = [python, str(Path(__file__).resolve()), "--worker", contender, "--folder", str(folder)]
    done = subprocess.run(line, capture_output=True, text=True, cwd=folder)
    if done.returncode:
        raise RuntimeError(f"{contender} on {case.name}: {done.stderr.strip().splitlines()[-1]}")
    displacement = np.load(folder / "field.npy").astype(np.float64)
    spent = json.loads((folder / "spent.json").read_text())
    return {**spent, **judge(case, displacement)}, displacement


def interpreter(module: str, peers: str) -> str | None:
    """An interpreter that has the module: this one, else the peers'."""
    if importlib.util.find_spec(module) is not None:
        return sys.executable
    if peers and not subprocess.run([peers, "-c", f"import {module}"], capture_output=True).returncode:
        return peers
    return None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", default="", help="an interpreter that has antspyx, convexAdam or FireANTs")
    parser.add_argument("--step", type=int, default=1, help="take every n-th voxel: a quick trial")
    parser.add_argument("--only", default="", help="pairs whose name contains this")
    parser.add_argument("--contenders", nargs="*", default=list(CONTENDERS))
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--resume", action="store_true", help="keep what --output has")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.worker, options.folder)
        return
    data = os.environ.get("INVLEARN_DATA")
    if not data:
        parser.error("INVLEARN_DATA names the folder with the data")
    pythons = {name: interpreter(CONTENDERS[name][0], options.peers) for name in options.contenders}
    for name, python in pythons.items():
        if python is None:
            print(f"{name}: skipped, {CONTENDERS[name][0]} is not installed", flush=True)
    threads = int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1))
    about = recorded(threads, "SimpleITK")
    rows = earlier_rows(options.output) if options.resume else []
    done = {(row["pair"], row["contender"]) for row in rows}
    forward: dict[str, Array] = {}
    for case in cases(Path(data), options.step, options.only):
        if (case.name, ALONE) not in done:
            nowhere = np.zeros((3, *case.fixed.image.shape))
            rows.append({"pair": case.name, "contender": ALONE, **judge(case, nowhere)})
        for name, python in pythons.items():
            if python is None or (case.name, name) in done:
                continue
            with tempfile.TemporaryDirectory() as folder:
                try:
                    row, displacement = measured(case, name, python, Path(folder))
                except RuntimeError as error:
                    row, displacement = {"failed": str(error)}, None
            if displacement is not None and case.name.endswith(SWAPPED) and name in forward:
                row["round_trip_voxels"] = round_trip(case, displacement, forward[name])
            if displacement is not None:
                forward[name] = displacement
            else:
                forward.pop(name, None)
            rows.append({"pair": case.name, "contender": name, **row})
            print(json.dumps(rows[-1]), flush=True)
            write(options.output, {"about": about, "rows": rows, "means": means(rows)})


def earlier_rows(path: Path) -> list[dict[str, Any]]:
    """What an earlier run measured and did not fail at."""
    rows: list[dict[str, Any]] = json.loads(path.read_text())["rows"] if path.exists() else []
    return [row for row in rows if "failed" not in row]


def write(path: Path, found: dict[str, Any]) -> None:
    """After every run, so that the file is whole whenever the benchmark is stopped."""
    path.parent.mkdir(exist_ok=True)
    scratch = path.with_suffix(".part")
    scratch.write_text(json.dumps(found, indent=1) + "\n")
    scratch.replace(path)


def means(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Over all prostate pairs, and over both directions of the others."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        pair = PROSTATES.sub("prostate, all pairs", row["pair"].removesuffix(SWAPPED))
        groups.setdefault((pair, row["contender"]), []).append(row)
    found = []
    for (pair, contender), group in groups.items():
        mean: dict[str, Any] = {"pair": pair, "contender": contender, "runs": len(group)}
        for key in (
            "cpu_seconds",
            "seconds",
            "peak_gb",
            "folding_percent",
            "sd_log_jacobian",
            "round_trip_voxels",
            "correlation",
        ):
            values = [row[key] for row in group if key in row]
            if values:
                mean[key] = round(float(np.mean(values)), 4)
        for key, part in (("dice", "mean"), ("error_voxels", "mean")):
            values = [row[key][part] for row in group if key in row]
            if values:
                mean[key] = round(float(np.mean(values)), 4)
        found.append(mean)
    return found


if __name__ == "__main__":
    main()
