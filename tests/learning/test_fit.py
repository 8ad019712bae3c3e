"""Training reconstructions: it learns without truth, goes on as if never stopped, and says what is wrong."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Generator, Tensor, nn
from torch.utils.data import TensorDataset

from invlearn.learning import (
    SURE,
    UNSURE,
    Diverged,
    EquivariantImaging,
    MeasurementConsistency,
    MeasurementFolder,
    MultiOperatorImaging,
    NotLearnable,
    Settings,
    Splitting,
    Supervised,
    fit,
)
from invlearn.physics import Dense, GaussianNoise, LinearOperator, OperatorFamily, identity
from invlearn.physics.groups import Shifts
from invlearn.physics.mri import CartesianMRI

MC, MOI = MeasurementConsistency(), MultiOperatorImaging()
BASE = Settings(batch_size=20, learning_rate=3e-2, accelerator="cpu", progress=False)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """The gate's own warnings are tested in test_gate."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="it is not certain|training although")
        yield


class Linear(nn.Module):
    """W (Aᴴy): all it takes for signals of a subspace and orthonormal rows."""

    def __init__(self, n: int = 12, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(n, dtype=dtype))

    def forward(self, y: Tensor, A: LinearOperator) -> Tensor:
        z = A.adjoint(y)
        return (z.flatten(1) @ self.weight.T).reshape(z.shape)


def problem(count: int = 200, noise: float = 0.0) -> tuple[OperatorFamily, TensorDataset, Tensor]:
    """Two-dimensional signals of 12 entries, five operators of 7 orthonormal rows."""
    g = Generator().manual_seed(0)
    x = torch.randn(count, 2, generator=g) @ torch.randn(2, 12, generator=g)
    rows = [torch.linalg.qr(torch.randn(12, 7, generator=g)).Q.T for _ in range(5)]
    family = OperatorFamily.from_matrices(rows)
    index = torch.arange(count) % 5
    y = family(x, index)
    return family, TensorDataset(GaussianNoise(noise)(y, g), index), x


def part(data: TensorDataset, rows: slice, *more: Tensor) -> TensorDataset:
    return TensorDataset(*(t[rows] for t in (*data.tensors, *more)))


def test_it_learns_without_truth_nearly_what_truth_teaches() -> None:
    family, data, x = problem(220)
    errors = {}
    for name, losses in (("alone", MC + MOI), ("truth", Supervised())):
        train = part(data, slice(0, 160), *([x] if name == "truth" else []))
        held_out = part(data, slice(160, 220), x)
        model = Linear()
        settings = replace(BASE, batch_size=40)
        result = fit(model, family, train, losses, epochs=25, val=held_out, settings=settings, dimension=2)
        history = result.training.history
        assert history[-1]["train/loss"] < 0.2 * history[0]["train/loss"]
        errors[name] = history[-1]["val/relative_error"]
    start = 1 - 7 / 12  # of the energy is out of sight
    assert errors["truth"] <= errors["alone"] < 0.35 < start**0.5
    assert result.gate.verdict == "supervised"


def test_consistency_alone_leaves_the_null_space() -> None:
    family, data, x = problem()
    with pytest.raises(NotLearnable, match="MeasurementConsistency"):
        fit(Linear(), family, data, MC, epochs=1, settings=BASE)
    held_out = part(data, slice(0, 50), x)
    settings = replace(BASE, batch_size=50)
    result = fit(Linear(), family, data, MC, epochs=12, val=held_out, settings=settings, force=True)
    assert result.gate.verdict == "impossible"
    assert result.training.history[-1]["val/relative_error"] > 0.55


def test_one_operator_needs_no_index() -> None:
    family, _, x = problem()
    y = family[0](x)
    losses = MC + EquivariantImaging(Shifts((12,)))
    result = fit(Linear(), family[0], TensorDataset(y), losses, epochs=1, settings=BASE, dimension=2)
    assert result.gate.report is not None
    assert result.gate.report.group == "shifts"
    fit(Linear(), family[0], TensorDataset(y, x), Supervised(), epochs=1, settings=BASE)


@pytest.mark.parametrize("stop", [15, 23])
def test_a_resumed_fit_equals_an_unbroken_one_bit_for_bit(tmp_path: Path, stop: int) -> None:
    family, data, _ = problem(noise=0.1)
    losses = UNSURE(0.2) + MOI + Splitting()

    class Stopped(Linear):
        calls = 0

        def forward(self, y: Tensor, A: LinearOperator) -> Tensor:
            self.calls += 1
            if self.calls > 4 * stop:
                raise KeyboardInterrupt
            return super().forward(y, A)

    settings = replace(BASE, schedule="cosine", folder=tmp_path, checkpoint_steps=4)
    options: dict[str, Any] = {"epochs": 3, "val": part(data, slice(0, 40)), "dimension": 2}
    whole, resumed = Linear(), Linear()
    unbroken = fit(whole, family, data, losses, settings=replace(BASE, schedule="cosine"), **options)
    with pytest.raises(KeyboardInterrupt):
        fit(Stopped(), family, data, losses, settings=settings, **options)
    result = fit(resumed, family, data, losses, settings=replace(settings, resume=True), **options)
    assert torch.equal(whole.weight, resumed.weight)
    assert result.learned == unbroken.learned
    assert 0 < result.learned["UNSURE.sd"] != 0.2
    assert [row["val/loss"] for row in result.training.history] == [
        row["val/loss"] for row in unbroken.training.history
    ]


def test_complex_measurements() -> None:
    g = Generator().manual_seed(0)
    family = OperatorFamily([CartesianMRI(torch.rand(4, 4, generator=g) < 0.7) for _ in range(4)])
    basis = torch.randn(2, 16, generator=g, dtype=torch.complex64)
    x = (torch.randn(80, 2, generator=g, dtype=torch.complex64) @ basis).reshape(80, 4, 4)
    index = torch.arange(80) % 4
    data = TensorDataset(family(x, index), index)
    losses = SURE(GaussianNoise(0.01)) + MOI + Splitting()
    model = Linear(16, torch.complex64)
    result = fit(model, family, data, losses, epochs=20, settings=BASE, force=True)
    history = result.training.history
    assert history[-1]["train/loss"] < 0.5 * history[0]["train/loss"]
    assert not torch.equal(model.weight.imag, torch.zeros(16, 16))


def test_mixed_precision_is_for_the_model_alone() -> None:
    family, data, _ = problem()
    seen = []

    class Watched(Linear):
        def forward(self, y: Tensor, A: LinearOperator) -> Tensor:
            out = y.sum() + y @ torch.zeros(7, 12) + (A.adjoint(y.float()).float() @ self.weight)
            seen.append((y.dtype, (A.adjoint(y).float() @ self.weight).dtype))
            return out

    settings = replace(BASE, precision="bf16-mixed")
    fit(Watched(), family, data, MC + MOI, epochs=1, settings=settings, dimension=2)
    assert set(seen) == {(torch.float32, torch.bfloat16)}


def test_double_precision_is_the_models_own() -> None:
    family, data, _ = problem()
    data = TensorDataset(data.tensors[0].double(), data.tensors[1])
    model = Linear(dtype=torch.float64)
    fit(model, family, data, MC + MOI, epochs=1, settings=BASE, dimension=2)
    assert model.weight.dtype == torch.float64


def test_the_result_is_plain_for_json() -> None:
    family, data, _ = problem()
    result = fit(Linear(), family, data, [MC, 0.5 * MOI], epochs=2, settings=BASE, dimension=2)
    plain = json.loads(json.dumps(result.to_dict()))
    assert plain["gate"]["verdict"] == "certified"
    assert len(plain["training"]["history"]) == 2
    assert plain["learned"] == {}


def test_diverging_training_is_stopped() -> None:
    family, data, _ = problem()
    with pytest.raises(Diverged, match="lower the learning rate"):
        fit(Linear(), family, data, MC + MOI, epochs=50, settings=replace(BASE, learning_rate=1e30))


def test_a_sample_with_nan_is_named_or_skipped() -> None:
    family, data, _ = problem()
    data.tensors[0][7, 2] = math.nan
    with pytest.raises(ValueError, match="sample 7 of the training data has NaN"):
        fit(Linear(), family, data, MC + MOI, epochs=1, settings=BASE, dimension=2)
    settings = replace(BASE, bad_samples="skip")
    result = fit(Linear(), family, data, MC + MOI, epochs=1, settings=settings, dimension=2)
    assert result.training.skipped == (7,)


def test_operators_of_several_sizes_train_one_sample_at_a_time() -> None:
    g = Generator().manual_seed(0)
    family = OperatorFamily([Dense(torch.randn(m, 12, generator=g)) for m in (5, 7)])
    x = torch.randn(10, 12, generator=g)

    class Ragged(torch.utils.data.Dataset[tuple[Tensor, int]]):
        def __len__(self) -> int:
            return 10

        def __getitem__(self, i: int) -> tuple[Tensor, int]:
            return family[i % 2](x[i]), i % 2

    with pytest.raises(ValueError, match="batch_size=1"):
        fit(Linear(), family, Ragged(), MC + MOI, epochs=1, settings=BASE, force=True)
    fit(Linear(), family, Ragged(), MC + MOI, epochs=1, settings=replace(BASE, batch_size=1), force=True)


class Named(torch.utils.data.Dataset[dict[str, Tensor]]):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        return {"y": torch.zeros(7)}


def test_samples_that_do_not_fit_are_named() -> None:
    family, data, x = problem()
    y, index = data.tensors

    def run(*tensors: Tensor, losses: Any = MC + MOI, physics: Any = family, **options: Any) -> None:
        fit(Linear(), physics, TensorDataset(*tensors), losses, epochs=1, settings=BASE, **options)

    with pytest.raises(ValueError, match=r"is \(y, operator_index\), .* got 1 part \(Tensor\)"):
        run(y)
    with pytest.raises(ValueError, match=r"is \(y,\), .* got 3 parts"):
        run(y, index, x, physics=family[0], losses=Supervised())
    with pytest.raises(ValueError, match=r"is \(y,\), .* got 1 part \(dict\)"):
        fit(Linear(), family[0], Named(), MC, epochs=1, settings=BASE, force=True)
    with pytest.raises(ValueError, match=r"operator index of a sample is one integer, got torch\.float32"):
        run(y, index.float())
    with pytest.raises(ValueError, match=r"operator index of a sample is one integer, got .*\(7,\)"):
        run(index, y)
    for dimension in (0, 13):
        with pytest.raises(ValueError, match=f"a whole number in 1 ... 12 .*got {dimension}"):
            run(y, index, dimension=dimension)
    with pytest.raises(ValueError, match="works in float32, the measurements are float64"):
        run(y.double(), index)
    with pytest.raises(ValueError, match="add x as the last part"):
        run(y, index, losses=Supervised())
    with pytest.raises(ValueError, match="operator index 9 is out of range for 5"):
        run(y, index + 9)
    with pytest.raises(ValueError, match=r"a measurement of operator 0 expects \(\*batch, 7\), got \(6,\)"):
        run(y[:, :6], index)
    with pytest.raises(ValueError, match=r"has the shape \(7,\), got \(1, 7\)"):
        run(y[:, None], index)
    with pytest.raises(ValueError, match=r"the validation data: x expects"):
        run(y, index, val=TensorDataset(y, index, x[:, :3]))
    with pytest.raises(ValueError, match="the training data is empty"):
        run(y[:0], index[:0])
    with pytest.raises(TypeError):
        run(y, physics=[family])
    with pytest.raises(ValueError, match="learns from several operators"):
        run(y, physics=family[0])


def test_a_run_with_other_losses_or_operators_is_not_resumed(tmp_path: Path) -> None:
    family, data, _ = problem(40)
    settings = replace(BASE, folder=tmp_path)
    fit(Linear(), family, data, MC + MOI, epochs=1, settings=settings, dimension=2)
    settings = replace(settings, resume=True)

    def resume(physics: OperatorFamily, losses: Any) -> None:
        fit(Linear(), physics, data, losses, epochs=2, settings=settings, dimension=2, force=True)

    with pytest.raises(
        ValueError, match=r"losses was .*'1 MultiOperatorImaging.* is .*'2 MultiOperatorImaging"
    ):
        resume(family, MC + 2 * MOI)
    other = OperatorFamily.from_matrices([A.to_dense().flip(1) for A in family])
    with pytest.raises(ValueError, match="is of another run: physics was"):
        resume(other, MC + MOI)
    resume(family, MC + MOI)


def test_what_is_no_module_and_no_data_is_named_without_a_type_checker() -> None:
    script = (
        "import torch\n"
        "from invlearn.learning import MeasurementConsistency, Splitting, fit\n"
        "from invlearn.physics import identity\n"
        "data = torch.zeros(4, 3)\n"
        "linear = torch.nn.Linear(3, 3)\n"
        "for model, y in ((torch.nn.Identity, data), (lambda y, A: y, data), (linear, None)):\n"
        "    try: fit(model, identity((3,)), y, MeasurementConsistency(), epochs=1)\n"
        "    except TypeError as error: print(error)\n"
        "try: Splitting(keep='half')\n"
        "except ValueError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.count("the model is a torch.nn.Module called as model(y, A)") == 2
    assert "the training data must be a data set with len()" in done.stdout
    assert "keep must lie strictly between 0 and 1, got 'half'" in done.stdout


def test_a_folder_of_measurements(tmp_path: Path) -> None:
    family, data, x = problem(20)
    y, index = data.tensors
    for i in range(20):
        np.savez(tmp_path / f"{i:03}.npz", x=x[i], y=y[i], operator_index=index[i])
    folder = MeasurementFolder(tmp_path)
    assert len(folder) == 20
    for i in (0, 13):
        assert all(torch.equal(a, b) for a, b in zip(folder[i], (y[i], index[i], x[i]), strict=True))
    read, kept = Linear(), Linear()
    fit(read, family, folder, Supervised(), epochs=1, settings=BASE)
    fit(kept, family, TensorDataset(y, index, x), Supervised(), epochs=1, settings=BASE)
    assert torch.equal(read.weight, kept.weight)


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        MeasurementFolder(tmp_path / "absent")
    with pytest.raises(ValueError, match=r"has no \.npz files: there is nothing to learn from"):
        MeasurementFolder(tmp_path)
    np.savez(tmp_path / "0.npz", y=np.zeros(3))
    np.savez(tmp_path / "1.npz", y=np.zeros(3), x=np.zeros(4))
    with pytest.raises(ValueError, match=r"1\.npz holds .*, but .*0\.npz holds y"):
        MeasurementFolder(tmp_path)[1]
    (tmp_path / "1.npz").write_bytes((tmp_path / "0.npz").read_bytes()[:60])
    with pytest.raises(ValueError, match=r"1\.npz cannot be read"):
        MeasurementFolder(tmp_path)[1]
    np.savez(tmp_path / "0.npz", kspace=np.zeros(3))
    with pytest.raises(ValueError, match="holds kspace; a sample is y, operator_index, x"):
        MeasurementFolder(tmp_path)


def test_denoising_with_known_noise_needs_no_clean_image() -> None:
    g = Generator().manual_seed(0)
    x = torch.randn(260, 2, generator=g) @ torch.randn(2, 12, generator=g)
    noise = GaussianNoise(1.0)
    y = noise(x, g)
    held_out = TensorDataset(y[200:], x[200:])
    errors, settings = [], replace(BASE, batch_size=40)
    for losses in (SURE(noise), Supervised()):
        train = TensorDataset(y[:200], x[:200])
        result = fit(Linear(), identity((12,)), train, losses, epochs=20, val=held_out, settings=settings)
        errors.append(result.training.history[result.training.best_epoch - 1]["val/relative_error"])
    unchanged = float((y[200:] - x[200:]).norm() / x[200:].norm())
    assert errors[0] < 0.7 * unchanged
    assert errors[0] < 1.3 * errors[1]
