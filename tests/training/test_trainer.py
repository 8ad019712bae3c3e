"""The trainer: it learns, a resumed run equals an unbroken one bit for bit, and what goes wrong is said."""

from __future__ import annotations

import csv
import math
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Generator, Tensor, nn
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from invlearn.training import Diverged, Settings, train

BASE = Settings(batch_size=8, learning_rate=1e-2, accelerator="cpu", progress=False)


class Regression(nn.Module):
    """A task with every kind of randomness: dropout, a generator, numpy's and Python's global ones."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.net = nn.Sequential(
                nn.Linear(3, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 1)
            )
        self.scale = scale
        self.steps = 0
        self.stop_at: int | None = None

    def forward(self, batch: list[Tensor], generator: Generator) -> dict[str, Tensor]:
        self.steps += self.training
        if self.stop_at is not None and self.steps > self.stop_at:
            raise KeyboardInterrupt
        x, y = batch
        jitter = torch.randn(x.shape, generator=generator) * (np.random.rand() + random.random())  # noqa: NPY002
        error = (self.net(x + 0.01 * jitter) - y).square().mean()
        return {"loss": self.scale * error, "error": error}


def data(count: int = 60, seed: int = 0) -> TensorDataset:
    x = torch.randn(count, 3, generator=Generator().manual_seed(seed))
    return TensorDataset(x, x.sum(1, keepdim=True))


def weights(task: nn.Module) -> list[Tensor]:
    return [v.clone() for v in task.state_dict().values()]


def equal(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(v, w) for v, w in zip(weights(a), weights(b), strict=True))


def rows(result: Any) -> list[dict[str, float]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in result.history]


def test_training_lowers_the_loss_also_on_held_out_data(tmp_path: Path) -> None:
    task = Regression()
    settings = replace(BASE, folder=tmp_path / "run")
    result = train(task, data(), epochs=12, val=data(20, seed=1), settings=settings)
    first, last = result.history[0], result.history[-1]
    assert last["train/loss"] < 0.3 * first["train/loss"]
    assert last["val/loss"] < 0.3 * first["val/loss"]
    assert last["step"] == 12 * math.ceil(60 / 8)
    assert not task.training
    with (tmp_path / "run" / "log.csv").open() as stream:
        table = list(csv.DictReader(stream))
    assert [float(row["val/error"]) for row in table] == [row["val/error"] for row in result.history]
    assert any((tmp_path / "run" / "tensorboard").iterdir())


@pytest.mark.parametrize("stop", [8, 13, 21])
def test_a_killed_run_that_is_resumed_equals_an_unbroken_one(tmp_path: Path, stop: int) -> None:
    settings = replace(BASE, schedule="cosine", gradient_clip=0.5, weight_decay=0.01)
    whole = Regression()
    unbroken = train(whole, data(), epochs=4, val=data(20, 1), settings=settings)
    settings = replace(settings, folder=tmp_path, checkpoint_steps=3)
    killed, resumed = Regression(), Regression()
    killed.stop_at = stop
    with pytest.raises(KeyboardInterrupt):
        train(killed, data(), epochs=4, val=data(20, 1), settings=settings)
    with torch.no_grad():
        resumed.net[0].weight.zero_()  # what a resumed run starts from does not matter
    result = train(resumed, data(), epochs=4, val=data(20, 1), settings=replace(settings, resume=True))
    assert resumed.steps < whole.steps
    assert equal(whole, resumed)
    assert rows(result) == rows(unbroken)


def test_more_epochs_can_be_added(tmp_path: Path) -> None:
    whole, parts = Regression(), Regression()
    train(whole, data(), epochs=4, settings=BASE)
    settings = replace(BASE, folder=tmp_path, resume=True)
    train(parts, data(), epochs=2, settings=settings)
    train(parts, data(), epochs=4, settings=settings)
    assert equal(whole, parts)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others() -> None:
    tasks = [Regression() for _ in range(3)]
    for task, seed in zip(tasks, (0, 0, 1), strict=True):
        train(task, data(), epochs=1, settings=replace(BASE, seed=seed))
    assert equal(tasks[0], tasks[1])
    assert not equal(tasks[0], tasks[2])


def test_the_global_generators_get_their_states_back() -> None:
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    random.seed(3)
    expected = torch.rand(1), np.random.rand(), random.random()  # noqa: NPY002
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    random.seed(3)
    train(Regression(), data(), epochs=1, settings=BASE)
    assert (torch.rand(1), np.random.rand(), random.random()) == expected  # noqa: NPY002


@pytest.mark.parametrize(
    "changed",
    [
        {"batch_size": 5},
        {"learning_rate": 1e-3},
        {"weight_decay": 0.5},
        {"schedule": "cosine"},
        {"gradient_clip": 1e-3},
        {"seed": 7},
        {"precision": "bf16-mixed"},
    ],
)
def test_every_decisive_setting_changes_the_result_and_is_asked_for_on_resuming(
    tmp_path: Path, changed: dict[str, Any]
) -> None:
    plain, other = Regression(), Regression()
    train(plain, data(), epochs=2, settings=replace(BASE, folder=tmp_path))
    train(other, data(), epochs=2, settings=replace(BASE, **changed))
    assert not equal(plain, other)
    settings = replace(BASE, folder=tmp_path, resume=True, **changed)
    with pytest.raises(ValueError, match=f"is of another run: {next(iter(changed))} was"):
        train(Regression(), data(), epochs=3, settings=settings)


def test_other_data_or_another_model_is_another_run(tmp_path: Path) -> None:
    settings = replace(BASE, folder=tmp_path)
    train(Regression(), data(), epochs=1, settings=settings)
    with pytest.raises(FileExistsError, match="resume=True"):
        train(Regression(), data(), epochs=1, settings=settings)
    settings = replace(settings, resume=True)
    with pytest.raises(ValueError, match="samples was 60 and is 50"):
        train(Regression(), data(50), epochs=2, settings=settings)
    task = Regression()
    task.more = nn.Linear(1, 1)
    with pytest.raises(ValueError, match="parameters was"):
        train(task, data(), epochs=2, settings=settings)


def test_early_stopping_keeps_the_best_weights() -> None:
    class Rising(nn.Module):
        """Held-out loss falls and rises again as the weight passes 0.05."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(()))

        def forward(self, batch: list[Tensor], generator: Generator) -> Tensor:
            return -self.weight if self.training else (self.weight - 0.05).square()

    settings = replace(BASE, batch_size=60, patience=2)
    task = Rising()
    result = train(task, data(), epochs=50, val=data(4), settings=settings)
    assert result.stopped == "early"
    assert result.best_epoch == 5
    assert len(result.history) == 7
    assert task.weight.item() == pytest.approx(0.05, abs=1e-4)
    assert train(Rising(), data(), epochs=9, settings=settings).stopped == "finished"


class Diverging(nn.Module):
    """Good for three epochs of one step, then what is asked for."""

    def __init__(self, later: float, start: int = 3) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.later = later
        self.start = start
        self.step = 0

    def forward(self, batch: list[Tensor], generator: Generator) -> Tensor:
        self.step += 1
        return self.weight * (self.later if self.step > self.start else 1.0)


@pytest.mark.parametrize(
    ("later", "start", "why"),
    [(math.nan, 3, "became nan"), (math.inf, 3, "became inf"), (1e9, 12, r"grew to .*e\+0[89]")],
)
def test_diverging_training_stops_and_keeps_what_was_good(
    tmp_path: Path, later: float, start: int, why: str
) -> None:
    settings = replace(BASE, batch_size=60, folder=tmp_path)
    with pytest.raises(Diverged, match=f"diverged in step {start + 1}.*{why}.*last.ckpt") as caught:
        train(Diverging(later, start), data(), epochs=20, settings=settings)
    assert caught.value.epoch == start + 1
    assert caught.value.checkpoint == tmp_path / "last.ckpt"
    good, resumed = Diverging(1.0), Diverging(1.0)
    train(good, data(), epochs=start, settings=replace(settings, folder=None))
    train(resumed, data(), epochs=start, settings=replace(settings, resume=True))
    assert equal(good, resumed)


def test_a_diverged_module_holds_its_last_good_weights() -> None:
    task, good = Diverging(math.nan), Diverging(1.0)
    with pytest.raises(Diverged, match="the module holds its last good weights"):
        train(task, data(), epochs=9, settings=replace(BASE, batch_size=60))
    train(good, data(), epochs=3, settings=replace(BASE, batch_size=60))
    assert equal(task, good)


def test_the_bound_of_an_explosion_is_a_setting() -> None:
    settings = replace(BASE, batch_size=60, explosion=1e12)
    train(Diverging(1e9, 12), data(), epochs=14, settings=settings)


class Quadratic(nn.Module):
    """A loss that starts at `first`, and grows with the square of how far the weights have gone."""

    def __init__(self, first: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(10))
        self.first = first

    def forward(self, batch: list[Tensor], generator: Generator) -> Tensor:
        return self.first - self.weight.sum() + self.weight.square().sum()


@pytest.mark.parametrize("rate", [1e3, 1e6])
def test_an_explosion_in_the_first_steps_is_one_too(rate: float) -> None:
    task = Quadratic(1.0)
    settings = replace(BASE, learning_rate=rate, batch_size=20)
    with pytest.raises(Diverged, match=r"diverged in step 2 .*in the first steps it was 1;") as caught:
        train(task, data(), epochs=20, settings=settings)
    assert caught.value.step == 2
    assert torch.equal(task.weight, torch.ones(10))


def test_a_first_loss_of_nearly_zero_is_no_measure() -> None:
    task = Quadratic(1e-12)  # after a step it is 1e6 times as much and more
    result = train(task, data(), epochs=9, settings=replace(BASE, batch_size=60, learning_rate=1e-3))
    assert abs(result.history[1]["train/loss"]) > 1e6 * abs(result.history[0]["train/loss"])


def test_broken_weights_never_reach_a_checkpoint(tmp_path: Path) -> None:
    class Breaks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(()))

        def forward(self, batch: list[Tensor], generator: Generator) -> Tensor:
            return self.weight.sqrt()  # a finite loss with an infinite gradient

    with pytest.raises(Diverged, match="its weights became NaN"):
        train(Breaks(), data(), epochs=1, settings=replace(BASE, folder=tmp_path, batch_size=60))
    assert not (tmp_path / "last.ckpt").exists()


class WithNaN(Dataset[tuple[Tensor, Tensor]]):
    def __init__(self, bad: tuple[int, ...]) -> None:
        self.clean, self.bad = data(), bad

    def __len__(self) -> int:
        return len(self.clean)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        x, y = self.clean[i]
        return (x * math.nan, y) if i in self.bad else (x, y)


def test_a_sample_with_nan_is_named_or_skipped() -> None:
    with pytest.raises(ValueError, match="sample 17 of the training data has NaN"):
        train(Regression(), WithNaN((17,)), epochs=1, settings=BASE)
    with pytest.raises(ValueError, match="sample 2 of the validation data has NaN"):
        train(Regression(), data(), epochs=1, val=WithNaN((2,)), settings=BASE)
    result = train(Regression(), WithNaN((3, 17)), epochs=2, settings=replace(BASE, bad_samples="skip"))
    assert result.skipped == (3, 17)
    assert result.history[-1]["step"] == 2 * math.ceil(58 / 8)
    with pytest.raises(ValueError, match="all 60 samples"):
        train(Regression(), WithNaN(tuple(range(60))), epochs=1, settings=replace(BASE, bad_samples="skip"))


def test_data_that_cannot_be_used_is_refused() -> None:
    class Stream(IterableDataset[Tensor]):
        def __iter__(self) -> Any:
            return iter([])

    with pytest.raises(ValueError, match="the training data is empty"):
        train(Regression(), TensorDataset(torch.zeros(0, 3)), epochs=1, settings=BASE)
    with pytest.raises(ValueError, match="the validation data is empty"):
        train(Regression(), data(), epochs=1, val=TensorDataset(torch.zeros(0, 3)), settings=BASE)
    with pytest.raises(TypeError, match="items by number"):
        train(Regression(), Stream(), epochs=1, settings=BASE)
    with pytest.raises(ValueError, match="at least one epoch"):
        train(Regression(), data(), epochs=0, settings=BASE)
    with pytest.raises(ValueError, match="nothing to train"):
        train(Regression().requires_grad_(False), data(), epochs=1, settings=BASE)


def test_samples_of_several_shapes_ask_for_single_ones() -> None:
    class Ragged(Dataset[Tensor]):
        def __len__(self) -> int:
            return 4

        def __getitem__(self, i: int) -> Tensor:
            return torch.zeros(i + 1)

    with pytest.raises(ValueError, match=r"do not make one batch .* batch_size=1"):
        train(Regression(), Ragged(), epochs=1, settings=BASE)


def test_a_task_must_return_a_loss() -> None:
    class Nothing(Regression):
        def forward(self, batch: list[Tensor], generator: Generator) -> dict[str, Tensor]:
            return {"error": super().forward(batch, generator)["error"]}

    with pytest.raises(ValueError, match="must return a loss"):
        train(Nothing(), data(), epochs=1, settings=BASE)


def test_a_loss_without_a_gradient_is_said() -> None:
    class Detached(Regression):
        def forward(self, batch: list[Tensor], generator: Generator) -> Tensor:
            return super().forward(batch, generator)["loss"].detach()

    with pytest.raises(ValueError, match="does not depend on the parameters to train"):
        train(Detached(), data(), epochs=1, settings=BASE)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
@pytest.mark.parametrize("accelerator", ["cuda", "gpu", "abacus"])
def test_a_device_that_is_not_there_is_named(accelerator: str) -> None:
    with pytest.raises(ValueError, match=f"accelerator='{accelerator}'.*take accelerator='auto'") as refusal:
        train(Regression(), data(), epochs=1, settings=replace(BASE, accelerator=accelerator))
    assert "\n" not in str(refusal.value)


def test_a_task_says_what_a_resumed_run_must_share(tmp_path: Path) -> None:
    class Named(Regression):
        identity: ClassVar[dict[str, str]] = {"loss": "squares"}

    class Other(Regression):
        identity: ClassVar[dict[str, str]] = {"loss": "absolute values"}

    settings = replace(BASE, folder=tmp_path)
    train(Named(), data(), epochs=1, settings=settings)
    with pytest.raises(ValueError, match="loss was 'squares' and is 'absolute values'"):
        train(Other(), data(), epochs=2, settings=replace(settings, resume=True))
    train(Named(), data(), epochs=2, settings=replace(settings, resume=True))


def test_a_bar_is_shown_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    train(Regression(), data(), epochs=1, settings=replace(BASE, progress=True))
    assert "8/8 steps" in capsys.readouterr().err
    train(Regression(), data(), epochs=1, settings=BASE)
    assert capsys.readouterr() == ("", "")


def test_workers_load_the_same_data() -> None:
    plain, loaded = Regression(), Regression()
    train(plain, data(), epochs=1, settings=BASE)
    train(loaded, data(), epochs=1, settings=replace(BASE, workers=1))
    assert equal(plain, loaded)


def test_lightning_is_imported_late_and_missed_by_name() -> None:
    script = (
        "import sys; import invlearn.training as t; import torch\n"
        "assert 'lightning' not in sys.modules and 'torchvision' not in sys.modules\n"
        "sys.modules['lightning'] = sys.modules['lightning.fabric'] = None\n"
        "try: t.train(torch.nn.Linear(1, 1), [1], epochs=1)\n"
        "except ModuleNotFoundError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "invlearn[train]" in done.stdout


WRONG_TYPES = """
import torch
from invlearn.training import Settings, train

task, data = torch.nn.Linear(1, 1), torch.zeros(3, 1)
for call in (
    lambda: Settings(batch_size=2.5),
    lambda: Settings(learning_rate="1e-3"),
    lambda: train(task, data, epochs=1.5),
    lambda: train(task, data, epochs="3"),
    lambda: train(task, data, epochs=1, settings={"batch_size": 3}),
    lambda: train(task, None, epochs=1),
):
    try: call()
    except (TypeError, ValueError) as error: print(error)
"""


def test_arguments_of_another_type_are_named_without_a_type_checker() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WRONG_TYPES], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    expected = [
        "batch_size must be at least 1 and a whole number, got 2.5",
        "learning_rate must be positive and finite, got '1e-3'",
        "at least one epoch, and a whole number of them, got 1.5",
        "at least one epoch, and a whole number of them, got '3'",
        "settings is a Settings object",
        "the training data must be a data set with len() and items by number",
    ]
    assert all(part in line for part, line in zip(expected, done, strict=True))


TWO_DEVICES = """
import sys, torch
from dataclasses import replace
from torch.utils.data import TensorDataset
from invlearn.training import Settings, train

class Task(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(3, 1, dtype=torch.float64))
    def forward(self, batch, generator):
        return (batch[0] @ self.weight - batch[1]).square().mean()

x = torch.randn(48, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
data = TensorDataset(x, x.sum(1, keepdim=True))
settings = Settings(batch_size=8, learning_rate=0.05, accelerator="cpu", progress=False)
alone, together = Task(), Task()
one = train(alone, data, epochs=2, val=data, settings=settings)
two = train(together, data, epochs=2, val=data, settings=replace(settings, devices=2, strategy="ddp"))
assert torch.allclose(alone.weight, together.weight, rtol=1e-9), (alone.weight, together.weight)
for a, b in zip(one.history, two.history):
    assert abs(a["train/loss"] - b["train/loss"]) < 1e-9 and abs(a["val/loss"] - b["val/loss"]) < 1e-9
open(sys.argv[1] + str(torch.distributed.get_rank()), "w").write("equal")
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_two_devices_make_the_steps_of_one(tmp_path: Path) -> None:
    script = tmp_path / "two.py"
    script.write_text(TWO_DEVICES)
    subprocess.run([sys.executable, str(script), str(tmp_path / "rank")], check=True, timeout=300)
    assert sorted(p.name for p in tmp_path.glob("rank*")) == ["rank0", "rank1"]
