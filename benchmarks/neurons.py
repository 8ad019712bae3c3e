"""How well are neurons found and traced? Networks beside thresholds, Frangi's filter, Rivulet2.

    INVLEARN_DATA=... python benchmarks/neurons.py --networks FOLDER --rivuletpy PYTHON

Four parts: simulated stacks of seeds that no network was trained on, at three levels of noise; real
morphologies rendered by the simulated microscope; a real stack with background and noise added back in
steps, its tracing before that as the reference; a synthetic branch from elsewhere with its truth.
`--networks` holds the weights of the comparison, `NAME_sSEED/*.safetensors`, such as those of
`examples/train_waveunet.py`; the weights that ship are always measured. `--rivuletpy` names an interpreter
that has rivuletpy.

All masks go through the same tracer but for Rivulet2, which has its own; its mask is that of its tree.
Distances are in voxels. A stack where nothing is found counts with a tree of one voxel's length in its
middle. Every result is kept at once (`--kept`), so that the same command goes on where it stopped. Writes
`results/neurons.json`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import runpy
import subprocess
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage

from invlearn.io.runs import hash_path
from invlearn.io.stacks import open_stack
from invlearn.io.swc import Tree, read_swc
from invlearn.neuro import compare, overlap, segment, simulate, swc_to_mask, trace
from invlearn.neuro.segmentation import How
from invlearn.neuro.waveunet import SHIPPED

RESULTS = Path(__file__).parent / "results" / "neurons.json"
recorded = runpy.run_path(str(Path(__file__).with_name("recorded.py")))["about"]
LEVELS = ("low", "medium", "high")
SEED, STACKS, SHAPE = 3_000_000, 20, (48, 128, 128)  # training took 1 000 000 on, validation 2 000 000 on
MORPHOLOGIES = (
    "OP_1-gs",
    "hemibrain_DA1_1734350788",
    "hemibrain_DA1_722817260",
    "snudda_WT-P270-20-15ak-cor",
)
MORPHOLOGY_SHAPE = (64, 192, 192)
ADDED = (0.0, 0.1, 0.25, 0.5, 1.0)  # background, in grey levels of the median of the neuron; noise follows
PHOTONS = 20.0  # counted where the neuron has its median brightness, at the largest step
TRACER = 2  # changes with the tracer, so that kept results of an older one do not count
Array = np.ndarray


@dataclass(frozen=True)
class Case:
    """A stack with its truth.

    Attributes
    ----------
    part, name, level
        Which it is.
    stack
        (D, H, W).
    voxel_size
        (z, y, x), µm.
    tree, mask
        The truth; the mask None where there is none.
    """

    part: str
    name: str
    level: str
    stack: Array
    voxel_size: tuple[float, float, float]
    tree: Tree
    mask: Array | None

    @property
    def fingerprint(self) -> str:
        """Another simulator makes other stacks, whose results are not mixed with these."""
        return hashlib.sha256(self.stack.tobytes()).hexdigest()[:12]


Found = tuple[Array, Tree | None]
Method = Callable[[Case], Found]


# --- cases


def simulated() -> Iterator[Case]:
    for number in range(STACKS):
        for level in LEVELS:
            s = simulate(SHAPE, seed=SEED + number, noise=level)
            yield Case("simulated", str(SEED + number), level, s.stack, s.voxel_size, s.tree, s.mask)


def morphologies(data: Path) -> Iterator[Case]:
    for number, name in enumerate(MORPHOLOGIES):
        tree = read_swc(data / "neurons" / f"{name}.swc")
        if name.startswith("hemibrain"):
            tree = tree.scaled((0.008, 0.008, 0.008), "um")
        for level in LEVELS:
            s = simulate(MORPHOLOGY_SHAPE, seed=SEED + 1000 + number, noise=level, tree=tree)
            yield Case("morphologies", name, level, s.stack, s.voxel_size, s.tree, s.mask)


def confocal(data: Path) -> Iterator[Case]:
    """The real stack, whose background had been set to 0, with background and photon noise put back."""
    with (
        zipfile.ZipFile(data / "neurons" / "rivuletpy_test.tif.zip") as archive,
        tempfile.TemporaryDirectory() as at,
    ):
        clean = open_stack(archive.extract("test.tif", at), voxel_size=(1, 1, 1)).array()
    mask = clean > 0
    tree = trace(mask)
    middle = float(np.median(clean[mask]))
    for step, added in enumerate(ADDED):
        rng = np.random.default_rng(SEED + 2000 + step)
        light = clean / middle + added
        photons = PHOTONS / max(added, 1e-9)
        noisy = rng.poisson(light * photons) / photons if added else light
        noisy = ndimage.gaussian_filter(noisy, 0.5) if added else noisy
        stack = np.clip(noisy * 64, 0, 255).astype(np.uint8)
        yield Case("confocal", "rivuletpy_test", f"{added:g}", stack, (1.0, 1.0, 1.0), tree, mask)


def branch(data: Path) -> Iterator[Case]:
    stack = open_stack(data / "neurons" / "snake_noise10.tif", voxel_size=(1, 1, 1)).array()
    tree = read_swc(data / "neurons" / "snake_noise10.swc").scaled((1, 1, 1), "um")
    yield Case("branch", "snake_noise10", "", stack, (1.0, 1.0, 1.0), tree, None)


# --- methods: a mask and a tree


def by_network(path: Path) -> Method:
    def run(case: Case) -> Found:
        how = How(precision="bfloat16")
        found = segment(case.stack, weights=path, voxel_size=case.voxel_size, trace=True, how=how)
        return np.asarray(found.mask), found.tree

    return run


def parts_of(mask: Array, largest: bool = False) -> Array:
    """The connected parts of at least a hundred voxels, or the largest alone."""
    label, _ = ndimage.label(mask, np.ones((3, 3, 3)))
    sizes = np.bincount(label.ravel())
    sizes[0] = 0
    return label == sizes.argmax() if largest and sizes.any() else (sizes >= 100)[label]


def traced(case: Case, mask: Array) -> Found:
    return mask, trace(mask, case.voxel_size) if mask.any() and not mask.all() else None


def smoothed(case: Case) -> Array:
    return ndimage.gaussian_filter(case.stack.astype(np.float32), 1.0)


def by_otsu(case: Case) -> Found:
    """Otsu's threshold of the smoothed stack."""
    from skimage.filters import threshold_otsu

    smooth = smoothed(case)
    return traced(case, parts_of(smooth > threshold_otsu(smooth)))


def by_sigmas(case: Case) -> Found:
    """Five robust standard deviations over the median of the smoothed stack, the largest part."""
    smooth = smoothed(case)
    middle = float(np.median(smooth))
    spread = 1.4826 * float(np.median(np.abs(smooth - middle)))
    return traced(case, parts_of(smooth > middle + 5 * max(spread, 0.2), largest=True))


def by_best_threshold(case: Case) -> Found:
    """The threshold of the smoothed stack that the truth likes best: no method, a bound for thresholds."""
    if case.mask is None:
        return by_otsu(case)
    smooth, best = smoothed(case), (-1.0, case.mask)
    share = np.geomspace(0.05, 12, 16)  # per cent of the voxels
    for level in np.percentile(smooth, 100 - share):
        mask = parts_of(smooth > level)
        f1 = 2 * (mask & case.mask).sum() / max(1, mask.sum() + case.mask.sum())
        best = max(best, (float(f1), mask), key=lambda pair: pair[0])
    return traced(case, best[1])


def by_frangi(case: Case) -> Found:
    """Frangi's vesselness at two scales, Otsu's threshold of its square root."""
    from skimage.filters import frangi, threshold_otsu

    vessel = np.sqrt(frangi(case.stack.astype(np.float32), sigmas=(1, 2), black_ridges=False))
    return traced(case, parts_of(vessel > threshold_otsu(vessel)))


# With the names that numpy, scipy and scikit-image have dropped since it was written.
RIVULET = """
import sys, types
import numpy as np, scipy.ndimage, skimage.morphology
from skimage.filters import threshold_otsu
skimage.morphology.skeletonize_3d = skimage.morphology.skeletonize
np.in1d, np.int, np.float, np.bool = np.isin, int, float, bool
old = types.ModuleType("scipy.ndimage.morphology")
old.__dict__.update(scipy.ndimage.__dict__)
sys.modules[old.__name__] = old
from rivuletpy.trace import R2Tracer
stack = scipy.ndimage.gaussian_filter(np.load(sys.argv[1]).astype(np.float32), 0.7)
swc, soma = R2Tracer(silent=True, clean=True).trace(stack, threshold_otsu(stack))
np.save(sys.argv[2], swc.get_array())
"""


def by_rivulet(python: Path) -> Method:
    """Rivulet2 at Otsu's threshold of the slightly smoothed stack."""

    def run(case: Case) -> Found:
        with tempfile.TemporaryDirectory() as folder:
            given, made = Path(folder, "stack.npy"), Path(folder, "swc.npy")
            np.save(given, case.stack)
            try:
                subprocess.run(
                    [python, "-c", RIVULET, given, made], check=True, capture_output=True, timeout=900
                )
            except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
                return np.zeros(case.stack.shape, bool), None
            rows = np.load(made)
        ids = {int(i): k for k, i in enumerate(rows[:, 0])}
        parent = np.array([ids.get(int(p), -1) for p in rows[:, 6]])
        parent[parent == np.arange(len(rows))] = -1  # its soma is its own parent
        # its axes are those of the array; its radii are in voxels
        tree = Tree(rows[:, [4, 3, 2]], np.maximum(rows[:, 5], 0), parent, rows[:, 1], "voxel")
        return swc_to_mask(tree, case.stack.shape, case.voxel_size), tree

    return run


# --- running, keeping, summing up


def score(case: Case, found: Found) -> dict[str, float]:
    mask, tree = found
    row = {}
    if case.mask is not None:
        exact = overlap(mask, case.mask)
        row = {"f1": exact.f1, "f1_1": overlap(mask, case.mask, tolerance=1).f1, "cldice": exact.cldice}
    if tree is None or not len(tree.edges):
        middle = ((np.array(case.stack.shape) - 1) / 2 * case.voxel_size)[::-1]
        ends = np.stack([middle, middle + np.array((case.voxel_size[2], 0, 0))])
        tree = Tree(ends, np.ones(2), np.array([-1, 0]), np.array([3, 3]))
    tree = tree.in_um(case.voxel_size)
    agreement = compare(tree, case.tree, voxel_size=case.voxel_size).to_dict()
    for key in ("esa", "dsa", "pds", "precision", "recall", "f1", "length_ratio"):
        row["tree_f1" if key == "f1" else key] = agreement[key]
    return {key: round(float(value), 4) for key, value in row.items()}


class Kept:
    """Results, a line each, in a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self.rows = [json.loads(line) for line in lines if line.strip()]
        self.known = {self._key(row) for row in self.rows}

    @staticmethod
    def _key(row: dict[str, Any]) -> tuple[str, ...]:
        return tuple(str(row[key]) for key in ("part", "name", "level", "stack", "method", "version"))

    def add(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        self.known.add(self._key(row))
        with self.path.open("a") as stream:
            stream.write(json.dumps(row) + "\n")

    def has(self, row: dict[str, Any]) -> bool:
        return self._key(row) in self.known


def methods(networks: Path | None, rivuletpy: Path | None) -> dict[str, tuple[str, Method]]:
    """Name to version and method."""
    found = {"shipped": (f"{hash_path(SHIPPED)[:12]} bfloat16", by_network(SHIPPED))}
    for path in sorted(networks.glob("*/*.safetensors")) if networks else ():
        found[path.parent.name] = (f"{hash_path(path)[:12]} bfloat16", by_network(path))
    found |= {
        "Otsu": ("1", by_otsu),
        "5 sigma": ("1", by_sigmas),
        "best threshold": ("1", by_best_threshold),
        "Frangi": ("1", by_frangi),
    }
    if rivuletpy:
        found["Rivulet2"] = ("1", by_rivulet(rivuletpy))
    return found


def processor_seconds() -> float:
    """Of this process and of those that it started and that ended."""
    return sum(os.times()[:4])


def run(cases: Iterator[Case], used: dict[str, tuple[str, Method]], kept: Kept) -> None:
    for case in cases:
        for name, (version, method) in used.items():
            row: dict[str, Any] = {"part": case.part, "name": case.name, "level": case.level}
            row |= {"stack": case.fingerprint, "method": name, "version": f"{TRACER} {version}"}
            if kept.has(row):
                continue
            start, clock = processor_seconds(), time.perf_counter()
            found = method(case)
            row["cpu_seconds"] = round(processor_seconds() - start, 2)
            row["seconds"] = round(time.perf_counter() - clock, 2)
            row.update(score(case, found))
            kept.add(row)
            print(
                *(
                    row.get(k, "")
                    for k in ("part", "name", "level", "method", "f1", "esa", "tree_f1", "seconds")
                )
            )


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Means by part, level and method; networks that differ in the seed alone together."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in rows:
        method = re.sub(r"_s\d+$", "", row["method"])
        for level in {row["level"], "all"}:
            groups.setdefault((row["part"], level or "all", method), []).append(row)
    numbers = (
        "f1",
        "f1_1",
        "cldice",
        "esa",
        "dsa",
        "pds",
        "precision",
        "recall",
        "tree_f1",
        "length_ratio",
        "cpu_seconds",
    )
    made: dict[str, Any] = {}
    for (part, level, method), members in sorted(groups.items()):
        entry: dict[str, Any] = {"stacks": len({(m["name"], m["level"]) for m in members})}
        for key in numbers:
            values = [m[key] for m in members if key in m]
            if values:
                entry[key] = round(float(np.mean(values)), 3)
        seeds = {m["method"] for m in members}
        if len(seeds) > 1:
            for key in ("f1", "esa"):
                means = [np.mean([m[key] for m in members if m["method"] == s]) for s in sorted(seeds)]
                entry[f"{key}_of_seeds"] = [round(float(mean), 3) for mean in means]
        made.setdefault(part, {}).setdefault(level, {})[method] = entry
    return made


def show(found: dict[str, Any]) -> None:
    for part, levels in found.items():
        for level, entries in levels.items():
            print(f"\n{part}, {level}\n{'':24}{'F1':>7}{'ESA':>8}{'PDS':>7}{'tree F1':>9}{'CPU s':>7}")
            for method, e in sorted(entries.items(), key=lambda pair: pair[1]["esa"]):
                f1 = f"{e['f1']:.3f}" if "f1" in e else "–"
                print(
                    f"{method:24}{f1:>7}{e['esa']:8.2f}{e['pds']:7.2f}{e['tree_f1']:9.3f}{e['cpu_seconds']:7.1f}"
                )


def draw(path: Path) -> None:
    """The figure of docs/neurons.md: the stack of the tour, its tracing, and the tracing over the truth."""
    import base64
    import io

    from matplotlib.image import imread, imsave

    from invlearn.cli.tour_neurons import FIRST_SEED, NOISE
    from invlearn.cli.tour_neurons import SHAPE as TOUR
    from invlearn.reports import neurons as report

    sample = simulate(TOUR, seed=FIRST_SEED, noise=NOISE)
    tree = segment(sample.stack, voxel_size=sample.voxel_size, trace=True).tree
    seen = report.project(sample.stack, sample.voxel_size)
    uris = (
        report.stack_picture(seen),
        report.tree_picture(seen, tree, sample.voxel_size),
        report.truth_picture(seen, tree, sample.tree, sample.voxel_size),
    )
    pictures = [imread(io.BytesIO(base64.b64decode(uri.split(",")[1])))[::2, ::2, :3] for uri in uris]
    gap = np.ones((len(pictures[0]), 12, 3), dtype=np.float32)
    imsave(path, np.hstack([pictures[0], gap, pictures[1], gap, pictures[2]]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--networks", type=Path)
    parser.add_argument("--rivuletpy", type=Path)
    parser.add_argument("--kept", type=Path, default=RESULTS.with_suffix(".jsonl"))
    parser.add_argument("--parts", nargs="+", default=["simulated", "branch", "morphologies", "confocal"])
    parser.add_argument("--methods", nargs="+", help="run these alone; the table has all that are kept")
    parser.add_argument("--levels", nargs="+", help="run these levels of noise alone")
    parser.add_argument(
        "--figure", type=Path, metavar="PNG", help="draw the figure of the guide, nothing else"
    )
    options = parser.parse_args()
    if options.figure:
        draw(options.figure)
        return
    used, kept = methods(options.networks, options.rivuletpy), Kept(options.kept)
    chosen = {name: used[name] for name in options.methods or used}
    data = Path(os.environ.get("INVLEARN_DATA", ""))
    parts: dict[str, Callable[[], Iterator[Case]]] = {
        "simulated": simulated,
        "branch": lambda: branch(data),
        "morphologies": lambda: morphologies(data),
        "confocal": lambda: confocal(data),
    }
    for part in options.parts:
        cases = (case for case in parts[part]() if not options.levels or case.level in options.levels)
        run(cases, chosen, kept)
    versions = {name: version for name, (version, _) in used.items()}
    rows = [row for row in kept.rows if row["version"] == f"{TRACER} {versions.get(row['method'])}"]
    found = summary(rows)
    settings = {"seed": SEED, "stacks": STACKS, "shape": list(SHAPE), "levels": LEVELS, "versions": versions}
    told = recorded(torch.get_num_threads(), "scikit-image")
    head = json.dumps({**told, "settings": settings, "means": found}, indent=1)
    lines = ",\n  ".join(json.dumps(row) for row in rows)
    RESULTS.write_text(f'{head[:-2]},\n "stacks": [\n  {lines}\n ]\n}}\n')
    show(found)


if __name__ == "__main__":
    main()
