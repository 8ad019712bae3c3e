"""The comparison page, `docs/comparison.md`, from the JSON files in `benchmarks/results`.

``python benchmarks/page.py`` writes it. Nothing in it is typed by hand: figures, dates and machines come
from the files, the list of losses from comparing them, and a peer that no file has is listed as never
measured (`benchmarks/peers.json`).
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS, PEERS, PAGE = HERE / "results", HERE / "peers.json", HERE.parent / "docs" / "comparison.md"
OURS = "invlearn"
NOISE = 0.03  # differences of time and memory below this share are noise

Json = Any


@dataclass(frozen=True)
class Measure:
    """A column: its title with the unit, and which way is better (1 more, -1 less, 0 neither)."""

    title: str
    better: int
    noise: float = 0.0

    def worse(self, ours: float, theirs: float) -> bool:
        """Whether ours is beaten by more than the noise."""
        return self.better * (theirs - ours) > self.noise * abs(theirs)


CPU = Measure("CPU s", -1, NOISE)
MILLISECONDS = Measure("CPU ms", -1, NOISE)
MEMORY = Measure("memory, GB", -1, NOISE)


@dataclass(frozen=True)
class Comparison:
    """One job done by several, in one run."""

    area: str
    title: str
    measures: tuple[Measure, ...]
    rows: Mapping[str, tuple[float | None, ...]]
    default: str = ""  # the row of ours that a user gets who chooses nothing; the first of them without
    references: tuple[str, ...] = ()  # rows that are bounds or starting points, nobody's method
    peers: tuple[str, ...] = ()  # those of peers.json that are among the rows
    case: str = ""  # sizes and the like
    source: str = ""  # the file, and its date and machine

    def losses(self) -> Iterator[str]:
        """The measures in which our default is beaten, and by whom."""
        mine = next((name for name in (self.default, *self.rows) if name in self.rows and ours(name)), None)
        if mine is None:
            return
        others = [name for name in self.rows if not ours(name) and name not in self.references]
        for k, measure in enumerate(self.measures):
            own = self.rows[mine][k]
            rivals = [(value, name) for name in others if (value := self.rows[name][k]) is not None]
            ahead = [pair for pair in rivals if own is not None and measure.worse(own, pair[0])]
            ahead.sort(key=lambda pair: -measure.better * pair[0])
            if ahead and own is not None:
                named = ", ".join(f"{name} {number(value)}" for value, name in ahead)
                yield f"{measure.title}: {named}; {mine} {number(own)}"

    def table(self) -> str:
        """In Markdown; ours in bold."""
        lines = [[""] + [measure.title for measure in self.measures], ["---"] * (len(self.measures) + 1)]
        for name, values in self.rows.items():
            shown = f"**{name}**" if ours(name) else f"*{name}*" if name in self.references else name
            lines.append([shown, *map(number, values)])
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def ours(name: str) -> bool:
    """Whether a row is this library's own way."""
    return name.startswith(OURS)


def number(value: float | None) -> str:
    """Three significant digits."""
    if value is None:
        return "–"
    if value == 0:
        return "0"
    digits = 2 - math.floor(math.log10(abs(value)))
    if digits > 5:
        return f"{value:.1e}"
    return f"{value:,.0f}" if digits < 1 else f"{value:.{digits}f}".rstrip("0").rstrip(".")


def about(result: Json) -> str:
    """Date, machine and versions of a file, or that they were not recorded."""
    inner = result.get("about", {})
    both = {**inner, **result} if isinstance(inner, dict) else result
    machine = both.get("machine")
    date = both.get("date") or (isinstance(machine, dict) and machine.get("date")) or "date not recorded"
    date += " (of the commit)" if "date_is" in both else ""
    if isinstance(machine, dict):
        told = [machine.get("device"), machine.get("processor"), machine.get("system")]
        cores, threads = machine.get("cores"), machine.get("threads", both.get("threads"))
    else:
        told = [machine, both.get("platform", "").split("-")[0]]
        cores, threads = both.get("processors", both.get("cpus")), both.get("threads")
    words = [str(word) for word in told if word] or ["machine not recorded"]
    words += [f"{cores} cores"] if cores else []
    words += [f"{threads} thread{'s' * (str(threads) != '1')}"] if threads else []
    versions = {k: v for k, v in both.get("versions", {}).items() if k != OURS and isinstance(v, str)}
    listed = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"{date}; {', '.join(words)}" + (f"; {listed}" if listed and len(listed) < 120 else "")


def learnability(result: Json) -> Iterator[Comparison]:
    def row(found: Json, key: str) -> tuple[float | None, ...]:
        return found.get("nullity"), found.get(key), found.get("peak_memory_gb")

    nullity = Measure("null space found", 0)
    for case, found in result["small"].items():
        rows = {name: row(one, "median_seconds")[:2] for name, one in found.items()}
        measures = (nullity, Measure("s", -1, NOISE))
        yield Comparison("Learnability", f"Rank certificate, {case}", measures, rows)
    scale = {k: v for k, v in result["scale"].items() if isinstance(v, dict)}
    rows = {name.replace("check", f"{OURS} check"): row(one, "cpu_seconds") for name, one in scale.items()}
    case = f"Rank certificate, {result['scale']['case']} (null space: 32)"
    yield Comparison("Learnability", case, (nullity, CPU, MEMORY), rows)


def bloch(result: Json) -> Iterator[Comparison]:
    rate, error = Measure("tissues per CPU s", 1, NOISE), Measure("largest relative error", -1)
    groups = {"equal states (30)": "30 states", "an error of 1e-6": "1e-6|256 states"}
    for title, marks in groups.items():
        rows = {
            name: (one["tissues_per_cpu_second"], one.get("largest_relative_error"))
            for name, one in result["rows"].items()
            if any(mark in name for mark in marks.split("|")) and "derivatives" not in name
        }
        title, case = f"Bloch simulation at {title}", result["case"]
        yield Comparison("Fingerprinting", title, (rate, error), rows, case=case)


def nufft(result: Json) -> Iterator[Comparison]:
    error = Measure("error", -1)
    for found in result["rows"]:
        times, errors = found["milliseconds"], found["error"]
        parts = (
            "mrpro forward",
            "mrpro adjoint",
            "torchkbnufft forward",
            "torchkbnufft adjoint",
            "copy",
            "subspace",
        )
        rows = {name: (ms, errors.get(name)) for name, ms in times.items() if not name.startswith(parts)}
        eps = f", eps {found['eps']:g}" if "eps" in found else ""
        title, case = f"Non-uniform FFT, {found['operation']}{eps}", result["problem"]
        bounds = ("padded FFTs",)
        yield Comparison("Fingerprinting", title, (MILLISECONDS, error), rows, OURS, bounds, case=case)
        if found["operation"] == "normal":
            both = {n: (times[n], errors[n]) for n in parts[:4]}
            for way in ("forward", "adjoint"):
                mine = next(r for r in result["rows"] if r["operation"] == way and r.get("eps") == 1e-4)
                rows = {f"{OURS}, eps 1e-4": (mine["milliseconds"][OURS], mine["error"][OURS])}
                rows |= {name: value for name, value in both.items() if name.endswith(way)}
                title = f"Non-uniform FFT, {way}, other libraries at their defaults"
                yield Comparison("Fingerprinting", title, (MILLISECONDS, error), rows)


def fingerprinting_accuracy(result: Json) -> Iterator[Comparison]:
    yield from _maps(result, lambda name: name if name == "adjoint" else f"{OURS} {name}")


def pgdnet(result: Json) -> Iterator[Comparison]:
    yield from _maps(result, lambda name: f"{OURS} {name}" if name.startswith("pgdnet") else name)


def _maps(result: Json, named: Callable[[str], str]) -> Iterator[Comparison]:
    measures = (Measure("T1 error, %", -1), Measure("T2 error, %", -1), CPU)
    for case, found in result.items():
        if not isinstance(found, dict) or "frames" not in case:
            continue
        ways = {name: one for name, one in found.items() if isinstance(one, dict) and "t1_percent" in one}
        rows = {named(n): (o["t1_percent"], o["t2_percent"], o.get("cpu_seconds")) for n, o in ways.items()}
        bounds = {f"oracle, {n}": (o["t1_percent"], o["t2_percent"], None)
                  for n, o in found.get("oracles", {}).items() if n != "true images"}  # fmt: skip
        default = next((n for n in (f"{OURS} pgdnet", f"{OURS} subspace") if n in rows), "")
        title = f"Fingerprint maps, {case} (median errors)"
        yield Comparison("Fingerprinting", title, measures, rows | bounds, default, tuple(bounds))


def fingerprinting_reconstruction(result: Json) -> Iterator[Comparison]:
    rows = {f"{OURS} {result['method']['method']}": (result["total_cpu"], result["peak_memory_gb"])}
    case = (
        f"{result['matrix']}², {result['coils']} coils, {result['frames']} frames, {result['atoms']:,} atoms"
    )
    yield Comparison("Fingerprinting", f"A whole reconstruction: {case}", (CPU, MEMORY), rows)


def registration(result: Json) -> Iterator[Comparison]:
    keys = {
        "dice": Measure("Dice", 1),
        "error_voxels": Measure("error, voxels", -1),
        "correlation": Measure("correlation of brightness", 1),
        "sd_log_jacobian": Measure("SD ln J", -1, NOISE),
        "folding_percent": Measure("folding, %", -1),
        "cpu_seconds": CPU,
        "peak_gb": MEMORY,
    }
    for pair in dict.fromkeys(mean["pair"] for mean in result["means"]):
        found = {mean["contender"]: mean for mean in result["means"] if mean["pair"] == pair}
        known = {k: m for k, m in keys.items() if any(k in mean for mean in found.values())}
        rows = {name: tuple(mean.get(k) for k in known) for name, mean in found.items()}
        runs = max(mean["runs"] for mean in found.values())
        step = result.get("about", {}).get("step", 1)
        title = f"Registration, {pair}{', every second voxel' if step == 2 else ''} (runs: {runs})"
        measured = tuple(p for p in ("FireANTs", "convexAdam") if any(p.lower() in n.lower() for n in rows))
        yield Comparison(
            "Registration", title, tuple(known.values()), rows, OURS, ("headers alone",), measured
        )


def winet(result: Json) -> Iterator[Comparison]:
    measures = (CPU, Measure("memory, GiB", -1, NOISE), Measure("parameters", -1))
    rows = {
        (f"{OURS} {one['name']}" if one["name"].startswith("WiNet") else one["name"]): (
            one["cpu_seconds"],
            one["peak_gib_beyond_inputs"],
            one["parameters"],
        )
        for one in result["networks"]
    }
    shape = " × ".join(map(str, result["shape"]))
    yield Comparison("Registration", f"Networks for registration, one forward pass, {shape}", measures, rows)


def neurons(result: Json) -> Iterator[Comparison]:
    keys = {
        "f1": Measure("F1 of voxels", 1),
        "tree_f1": Measure("F1 of cable", 1),
        "esa": Measure("ESA, voxels", -1),
        "cpu_seconds": CPU,
    }
    names = {
        "shipped": f"{OURS}, weights that ship",
        "WaveSNet_V3_w4": f"{OURS}, WaveSNet V3, width 4",
        "UNet_V1_w4": "U-Net V1, width 4",
        "best threshold": "threshold the truth likes best",
    }
    titles = {"simulated": "Neurons, simulated stacks", "morphologies": "Neurons, real morphologies rendered",
              "branch": "Neurons, a branch from elsewhere (snake_noise10)",
              "confocal": "Neurons, a real stack with background put back"}  # fmt: skip
    for part, levels in result["means"].items():
        for level in [name for name in levels if name != "all"] or ["all"]:
            found = levels[level]
            known = {k: m for k, m in keys.items() if any(k in one for one in found.values())}
            stacks = max(one["stacks"] for one in found.values())
            rows = {}
            for name, one in found.items():
                fewer = f" ({one['stacks']} stacks)" if one["stacks"] < stacks else ""
                rows[names.get(name, name) + fewer] = tuple(one.get(k) for k in known)
            tail = "" if level == "all" else f", {'background' if part == 'confocal' else 'noise'} {level}"
            bounds = tuple(name for name in rows if name.startswith("threshold"))
            title = f"{titles[part]}{tail} (stacks: {stacks})"
            yield Comparison("Neurons", title, tuple(known.values()), rows, names["shipped"], bounds)


def segmentation(result: Json) -> Iterator[Comparison]:
    measures = (Measure("voxels per CPU s", 1, NOISE), CPU, Measure("memory, GiB", -1, NOISE))
    names = {"monai": "MONAI sliding windows"}
    rows = {
        names.get(one["name"], one["name"]): (
            one["voxels_per_cpu_second"],
            one["cpu_seconds"],
            one["peak_gib"],
        )
        for one in result["throughput"]
    }
    side = result["throughput"][0]["side"]
    title = f"Segmentation of {side}³ voxels with networks of equal arithmetic"
    yield Comparison("Neurons", title, measures, rows, peers=("MONAI sliding windows",))
    rows = {
        f"{OURS}, {one['side']}³{', traced' if one['trace'] else ''}": (one["cpu_seconds"], one["peak_gib"])
        for one in result.get("memory", [])
    }
    if rows:
        title = "`invlearn segment` on sparse stacks in photon noise, from Zarr to Zarr"
        yield Comparison("Neurons", title, measures[1:], rows)


def unrolled_mri(result: Json) -> Iterator[Comparison]:
    psnr = (Measure("PSNR, dB", 1),)
    named = {n: f"{OURS} {n}" if n.startswith("unrolled") else n for n in
             [*result["psnr_db"], *result["real_scan"]["psnr_db"]]}  # fmt: skip
    for title, found in (
        ("a third head", result["psnr_db"]),
        ("a real scan", result["real_scan"]["psnr_db"]),
    ):
        rows = {named[name]: (value,) for name, value in found.items()}
        yield Comparison(
            "Learning",
            f"Multi-coil MRI without ground truth, {title}",
            psnr,
            rows,
            named["unrolled, splitting"],
            ("zero-filled",),
        )


def sparse_view_ct(result: Json) -> Iterator[Comparison]:
    classical = ("FBP", "TV", "supervised")
    rows = {
        (n if n in classical else f"{OURS} {n}"): (v,)
        for n, v in result["psnr_db"].items()
        if not n.startswith("tv_")
    }
    title = "Tomography from 10 views without ground truth"
    yield Comparison(
        "Learning", title, (Measure("PSNR, dB", 1),), rows, f"{OURS} EI, rotations", ("supervised",)
    )


def wavelets(result: Json) -> Iterator[Comparison]:
    cells = {(c["tensor"], c["wavelet"], c["operation"]): c["milliseconds"] for c in result["cells"]}
    ways = list(dict.fromkeys(operation for _, _, operation in cells))
    every = list(dict.fromkeys(wavelet for _, wavelet, _ in cells))
    for tensor, shape in result["tensors"].items():
        for title, chosen in (
            ("haar", ["haar"]),
            ("mean over longer filters", [w for w in every if w != "haar"]),
        ):
            names = list(cells[tensor, chosen[0], ways[0]])
            rows = {
                name: tuple(_mean([cells[tensor, w, way].get(name) for w in chosen]) for way in ways)
                for name in names if name != "copy"
            }  # fmt: skip
            measures = tuple(Measure(f"{way}, ms", -1, NOISE) for way in ways)
            full = f"Wavelet transform 3D, {title}, {' × '.join(map(str, shape))}"
            yield Comparison("Wavelets", full, measures, rows)


def gpu(result: Json) -> Iterator[Comparison]:
    cases = result["cases"]
    keys = {
        "seconds_processor": "processor, s",
        "seconds_device": "GPU, s",
        "times_faster": "times faster",
        "gigabytes_device": "GPU memory, GiB",
        "difference": "relative difference",
        "tolerance": "tolerance",
    }
    rows = {f"{OURS} {name}": tuple(row.get(key) for key in keys) for name, row in cases.items()}
    tests = result.get("tests", {})
    ran = ", ".join(f"{tests[kind]} {kind}" for kind in ("passed", "failed", "skipped") if kind in tests)
    case = f"Tests that need CUDA: {ran or 'not run'}"
    measures = tuple(Measure(title, 0) for title in keys.values())
    yield Comparison("GPU", "Every job on a GPU beside the processor", measures, rows, case=case)


def _mean(values: list[float | None]) -> float | None:
    """Geometric; None where one is missing."""
    known = [v for v in values if v]
    return math.exp(sum(map(math.log, known)) / len(known)) if len(known) == len(values) else None


READERS = {
    reader.__name__: reader
    for reader in (
        learnability, unrolled_mri, sparse_view_ct, fingerprinting_accuracy, pgdnet,
        fingerprinting_reconstruction, bloch, nufft, registration, winet, neurons, segmentation, wavelets,
        gpu,
    )
}  # fmt: skip


def comparisons(folder: Path) -> list[Comparison]:
    """Of all files that are there."""
    found = []
    for name, reader in READERS.items():
        path = folder / f"{name}.json"
        if not path.is_file():
            continue
        result = json.loads(path.read_text(encoding="utf-8"))
        for one in reader(result):
            found.append(replace(one, source=f"`results/{path.name}`: {about(result)}"))
    return found


def render(found: list[Comparison], peers: Mapping[str, list[list[str]]]) -> str:
    """The page."""
    lines = [INTRODUCTION, "## Where invlearn loses", ""]
    for one in found:
        losses = list(one.losses())
        if losses:
            lines += [f"* **{one.title}.** " + ". ".join(losses) + "."]
    lines += ["", LOSSES_TOLD]
    for area in dict.fromkeys(one.area for one in found):
        lines += ["", f"## {area}"]
        for one in (one for one in found if one.area == area):
            lines += ["", f"### {one.title}", *(["", f"{one.case}."] if one.case else [])]
            lines += ["", one.table(), "", f"*{one.source}.*"]
    measured = {peer for one in found for peer in one.peers}
    lines += ["", "## Never measured here", "", "| peer | field | |", "| --- | --- | --- |"]
    for area, listed in peers.items():
        lines += [f"| {name} | {area} | {why} |" for name, why in listed if name not in measured]
    return "\n".join(lines) + "\n"


INTRODUCTION = """<!-- made by benchmarks/page.py from benchmarks/results; do not edit -->

# Beside other libraries

Every table is one run: the contenders did the same work in turns on the machine and the day below it. Read
the ratios; seconds depend on the machine. CPU seconds are processor time of all threads, memory is the peak
of a process (of what it adds, where the unit is GiB). **invlearn** is bold; *bounds and starting points*,
which are nobody's method, are in italics and take no part in winning or losing. `make bench` measures again,
with the peers that are installed, and writes this page anew.
"""

LOSSES_TOLD = f"""Listed is every measure in which what invlearn does by default is beaten by another row of
the same table, by more than {NOISE:.0%} where it is time or memory. Equal accuracy is not asked for: a
quicker row may be the less accurate one, so see its table. What a paper claims and was not reproduced is in
[the literature](literature.md)."""


def main(given: list[str] | None = None) -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("-o", "--output", type=Path, default=PAGE)
    options = parser.parse_args(given)
    peers = json.loads(PEERS.read_text(encoding="utf-8"))
    options.output.write_text(render(comparisons(options.results), peers), encoding="utf-8")


if __name__ == "__main__":
    main()
