"""The report in words and as plain values."""

from __future__ import annotations

import json

import pytest
import torch

from invlearn.identifiability import Report, check
from invlearn.physics import Dense, OperatorFamily
from invlearn.physics.groups import Shifts
from invlearn.physics.mri import CartesianMRI

CONTRACT = {
    "verdict", "n", "m", "operators", "group", "dimension", "bounds", "certificate", "plan", "warnings"
}  # fmt: skip
BOUND = {"id", "kind", "statement", "required", "actual", "margin", "holds", "applies", "source"}
CERTIFICATE = {"model", "scope", "nullity", "expected_nullity", "gap", "tolerance", "method"}


def matrices(g: int, m: int, n: int) -> OperatorFamily:
    generator = torch.Generator().manual_seed(0)
    return OperatorFamily.from_matrices(torch.randn(g, m, n, dtype=torch.float64, generator=generator))


def reports() -> dict[str, Report]:
    signals = torch.randn(300, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    signals = signals[:, :2] @ signals[:2]
    return {
        "certified": check(matrices(3, 8, 12), dimension=2),
        "generic": check(matrices(3, 8, 12), dimension=2, certify=False, noise=0.1),
        "impossible": check(
            CartesianMRI(torch.arange(9).reshape(3, 3) > 4), group=Shifts((3, 3)), dimension=1
        ),
        "undecided": check(matrices(3, 8, 12)),
        "from signals": check(matrices(3, 8, 12), signals=signals),
    }


@pytest.fixture(scope="module")
def all_reports() -> dict[str, Report]:
    return reports()


def test_contract(all_reports: dict[str, Report]) -> None:
    for name, report in all_reports.items():
        plain = report.to_dict()
        assert json.loads(json.dumps(plain, allow_nan=False)) == plain
        assert plain.keys() >= CONTRACT
        assert all(b.keys() >= BOUND and b["kind"] in ("necessary", "sufficient") for b in plain["bounds"])
        assert plain["certificate"] is None or plain["certificate"].keys() >= CERTIFICATE
        assert plain["plan"].keys() >= {"minimal_m", "minimal_operators"}
        assert isinstance(plain["m"], list)
        assert plain["verdict"] == report.verdict
        if name != "from signals":
            assert report.verdict == name
    assert all_reports["from signals"].to_dict()["dimension_estimate"]["value"] == 2
    assert {"dimension": 2, "verdict": "certified"} in all_reports["from signals"].to_dict()["sweep"]


def test_words(all_reports: dict[str, Report]) -> None:
    text = {name: str(report) for name, report in all_reports.items()}
    for name, report in all_reports.items():
        lines = text[name].splitlines()
        assert lines[0] == f"{report.verdict.upper()}: {report.reason}"
        assert f"n = {report.n}, {report.operators} operator" in lines[1]
        assert [line.split()[0] for line in lines[2 : 2 + len(report.bounds)]] == [
            b.id for b in report.bounds
        ]
        assert all(f"warning: {w}" in lines for w in report.warnings)
    assert "FAILS" in text["impossible"]
    assert "group shifts" in text["impossible"]
    assert "certificate (subspace): almost every" in text["certified"]
    assert "FAILS" not in text["certified"]
    assert "does not apply here" in text["impossible"]
    assert "unlimited data" in text["generic"]


def test_learnable_and_spectrum(all_reports: dict[str, Report]) -> None:
    assert [r.learnable for r in all_reports.values()] == [True, True, False, False, True]
    spectrum = all_reports["certified"].spectrum
    assert spectrum is not None
    assert int((spectrum < 1e-12).sum()) == 2
    assert all_reports["generic"].spectrum is None


def test_pictures(all_reports: dict[str, Report]) -> None:
    report = all_reports["impossible"]
    assert report.unseen is not None
    assert report.unseen.shape[1:] == (3, 3)
    assert report.unseen.is_complex()
    norms = report.unseen.flatten(1).norm(dim=1)
    torch.testing.assert_close(norms, torch.ones_like(norms))
    assert report.unseen_what
    assert report.coverage is not None
    assert report.coverage_basis == "fourier"
    assert int((report.coverage > 0).sum()) == 4
    assert all_reports["certified"].unseen is None
    assert all_reports["certified"].unseen_what == ""
    assert Dense(torch.eye(2)).label not in str(report)
