"""The comparison page: made from the committed figures, losses found by comparing, nothing left out."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


page, run, recorded = load("page"), load("run"), load("recorded")
PEERS: dict[str, Any] = json.loads((ROOT / "benchmarks" / "peers.json").read_text(encoding="utf-8"))


def test_the_committed_page_is_what_the_figures_make(tmp_path: Path) -> None:
    page.main(["-o", str(tmp_path / "comparison.md")])
    committed = (ROOT / "docs" / "comparison.md").read_text(encoding="utf-8")
    made = (tmp_path / "comparison.md").read_text(encoding="utf-8")
    assert committed == made, "run: python benchmarks/page.py"


def test_the_first_thing_on_the_page_are_the_losses() -> None:
    found = page.comparisons(page.RESULTS)
    text = page.render(found, PEERS)
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings[0] == "## Where invlearn loses"
    assert headings[-1] == "## Never measured here"
    first = text.split("## ")[1]
    losses = [loss for one in found for loss in one.losses()]
    assert losses
    assert all(loss in first for loss in losses)
    assert "CG-SENSE 28.8" in first  # known from docs/unrolled.md


def comparison(**changes: Any) -> Any:
    measures = (page.Measure("error", -1), page.CPU)
    rows = {"invlearn": (1.0, 10.0), "invlearn quick": (3.0, 1.0), "peer": (2.0, 9.8), "bound": (0.0, 0.0)}
    given = {"area": "A", "title": "T", "measures": measures, "rows": rows, "references": ("bound",)}
    return page.Comparison(**given | changes)


def test_losses_are_those_of_our_default_beyond_noise() -> None:
    assert list(comparison().losses()) == []  # 2 % of time is noise, a bound is nobody's method
    slower = {"invlearn": (1.0, 10.0), "peer": (2.0, 5.0), "other": (0.5, 4.0)}
    assert list(comparison(rows=slower).losses()) == [
        "error: other 0.5; invlearn 1",
        "CPU s: other 4, peer 5; invlearn 10",
    ]
    (only,) = comparison(default="invlearn quick").losses()
    assert only == "error: peer 2; invlearn quick 3"
    unknown = comparison(rows={"invlearn": (None, 1.0), "peer": (1.0, None)})
    assert list(unknown.losses()) == []


def test_a_table_marks_ours_and_bounds() -> None:
    lines = comparison().table().splitlines()
    assert lines[0] == "|  | error | CPU s |"
    assert "| **invlearn quick** | 3 | 1 |" in lines
    assert "| *bound* | 0 | 0 |" in lines


def test_every_reader_reads_a_committed_file_or_one_that_is_to_come(tmp_path: Path) -> None:
    found = page.comparisons(page.RESULTS)
    used = {one.source.split("`")[1].removeprefix("results/") for one in found}
    there = {f"{name}.json" for name in page.READERS if (page.RESULTS / f"{name}.json").is_file()}
    assert used == there
    assert len(there) >= 10
    assert page.comparisons(tmp_path) == []


def test_files_that_are_to_come(tmp_path: Path) -> None:
    """As pgdnet.py, segmentation.py and gpu.py write them."""
    errors = {"t1_percent": 1.0, "t2_percent": 2.0, "cpu_seconds": 3.0}
    maps = {"snr_db": 30, "mrzero, 200 frames": {"llr": errors, "pgdnet": errors | {"t2_percent": 4.0}}}
    speeds = {"side": 256, "cpu_seconds": 10.0, "voxels_per_cpu_second": 5.0, "peak_gib": 1.0}
    stacks = {"throughput": [{"name": "invlearn", **speeds}, {"name": "monai", **speeds | {"peak_gib": 0.5}}]}
    row = {"seconds_processor": 8.0, "seconds_device": 2.0, "times_faster": 4.0}
    row |= {"difference": 1e-7, "tolerance": 1e-5}
    device = {
        "machine": {"date": "2026-01-02", "device": "G1"},
        "cases": {"WiNet": row},
        "tests": {"passed": 7},
    }
    for name, content in (("pgdnet", maps), ("segmentation", stacks), ("gpu", device)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    text = page.render(page.comparisons(tmp_path), PEERS)
    assert "T2 error, %: llr 2; invlearn pgdnet 4" in text
    assert "memory, GiB: MONAI sliding windows 0.5; invlearn 1" in text
    assert "| **invlearn WiNet** | 8 | 2 | 4 | – | 1.0e-07 | 1.0e-05 |" in text
    assert "Tests that need CUDA: 7 passed." in text
    assert "2026-01-02; G1" in text


def test_what_was_not_recorded_is_said() -> None:
    assert page.about({}) == "date not recorded; machine not recorded"
    assert page.about({"about": {"platform": "Linux-6", "cpus": 2, "threads": "1"}}) == (
        "date not recorded; Linux, 2 cores, 1 thread"
    )
    assert page.about({"date": "2026-01-02", "date_is": "of a commit"}) == (
        "2026-01-02 (of the commit); machine not recorded"
    )
    told = page.about(recorded.about(3, "scipy", "no-such-package"))
    assert recorded.processor() in told
    assert "3 threads" in told
    assert "scipy" in told
    assert "no-such-package" not in told


def test_peers_without_a_figure_are_listed_and_leave_the_list_once_measured() -> None:
    assert "| convexAdam | Registration |" in page.render([comparison()], PEERS)
    assert "| convexAdam | Registration |" not in page.render([comparison(peers=("convexAdam",))], PEERS)
    listed = {name for rows in PEERS.values() for name, _ in rows}
    rows = " ".join(name for one in page.comparisons(page.RESULTS) for name in one.rows)
    for measured in (
        "mrpro",
        "torchkbnufft",
        "torchsim",
        "finufft",
        "ptwt",
        "PyWavelets",
        "ANTs",
        "MONAI",
        "Rivulet2",
    ):
        assert measured in rows
        assert measured not in listed


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        (0.0, "0"),
        (1418573, "1,418,573"),
        (0.0123456, "0.0123"),
        (2.4e-5, "2.4e-05"),
        (10.0, "10"),
    ],
)
def test_numbers(value: float | None, shown: str) -> None:
    assert page.number(value) == shown


def test_all_scripts_run_and_the_page_is_written_last(monkeypatch: pytest.MonkeyPatch) -> None:
    scripts = {path.stem for path in (ROOT / "benchmarks").glob("*.py")}
    assert set(run.SCRIPTS) == scripts - {"page", "run", "recorded"}
    called: list[list[str]] = []

    def call(command: list[str]) -> int:
        called.append(command)
        return 3 if "bloch" in command[1] else 0

    monkeypatch.setenv("INVLEARN_DATA", "somewhere")
    monkeypatch.setattr(run.shutil, "which", lambda name: "/bin/" + name)
    left = run.run(list(run.SCRIPTS), "python-with-ants", [], call)
    assert left == ["bloch: exit code 3", "pgdnet: needs --weights, such as those of `invlearn mrf train`"]
    names = [Path(command[1]).stem for command in called]
    assert names == [name for name in run.SCRIPTS if name != "pgdnet"] + ["page"]
    assert called[names.index("registration")][2:] == ["--peers", "python-with-ants"]
    monkeypatch.delenv("INVLEARN_DATA")
    assert len(run.run(["neurons"], "", [], call)) == 1
    monkeypatch.setattr(run.shutil, "which", lambda name: None)
    assert run.run(["gpu"], "", [], call) == ["gpu: needs a machine with CUDA"]
