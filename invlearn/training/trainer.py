"""The one trainer of everything that is learned here, on Lightning Fabric.

What is trained is a module that turns a batch into losses. The trainer brings it through epochs of a data
set: devices, precision, order of the data, validation, checkpoints, logs, and a plain word when it diverges.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Generator, Tensor, nn
from torch.utils.data import Dataset

from invlearn.training import data as order
from invlearn.training import logs
from invlearn.training.checkpoint import find_checkpoint, read_checkpoint, write_checkpoint
from invlearn.training.devices import Losses, Parcel, Sums, make_fabric, over_devices, own_randomness
from invlearn.training.results import Diverged, TrainingResult
from invlearn.training.settings import Settings

if TYPE_CHECKING:
    from lightning.fabric import Fabric

_FIRST_STEPS = 10  # their largest loss is the measure of an explosion
_VALIDATION = 10**9  # the place of the validation's randomness in a run: beyond all steps


def train(
    task: nn.Module,
    data: Dataset[Any],
    *,
    epochs: int,
    val: Dataset[Any] | None = None,
    settings: Settings | None = None,
) -> TrainingResult:
    """Train the parameters of `task` to lower the loss that it returns.

    Parameters
    ----------
    task
        ``task(batch, generator)`` gives the loss of a batch (as torch's default collation makes it of
        samples): a real number, or a mapping with `"loss"` and other numbers to log. All randomness of the
        loss comes from the generator, which lives on the CPU. Ends in evaluation mode, on the device where it
        was. Its attribute `identity`, where it has one, is a mapping of plain types that a resumed run must
        share: what the loss is, say.
    data
        Samples: a data set with a length and items by number.
    epochs
        How often to go through the data, those of a resumed run included.
    val
        Held-out samples. The same loss is measured on them after each epoch, always with the same
        randomness, and the weights with the lowest are kept.
    settings
        How to train.

    Returns
    -------
    TrainingResult

    Raises
    ------
    ModuleNotFoundError
        Lightning is not installed.
    ValueError
        No epochs or no data, a sample with NaN, a damaged checkpoint or one of another run, nothing to train,
        a loss that does not depend on what is trained, a device that is not there.
    TypeError
        Data that cannot be read by number, settings of another kind.
    FileExistsError
        The folder holds another run's checkpoint, and `resume` was not asked for.
    Diverged
        The loss became NaN, infinite or exploded.

    Notes
    -----
    On one CPU a resumed run gives the same weights bit for bit as an unbroken one, from every checkpoint, as
    long as `workers` is 0 or samples are not random. Everything random is seeded by `settings.seed` and the
    place in the run; the global generators are seeded for the run and get their states back afterwards.
    """
    settings = Settings() if settings is None else settings
    if not isinstance(settings, Settings):
        raise TypeError(f"settings is a Settings object, such as Settings(batch_size=16), got {settings!r}")
    if not isinstance(epochs, int) or epochs < 1:
        raise ValueError(f"training needs at least one epoch, and a whole number of them, got {epochs!r}")
    order.check_dataset(data, "the training data")
    if val is not None:
        order.check_dataset(val, "the validation data")
    if not any(p.requires_grad for p in task.parameters()):
        raise ValueError("there is nothing to train: the module has no parameter that requires a gradient")
    fabric = make_fabric(settings)
    device = next(task.parameters()).device
    with own_randomness(fabric):
        try:
            return _Run(fabric, task, data, epochs, val, settings).train()
        finally:
            task.to(device)
            task.eval()


class _Run:
    """One call of `train`."""

    def __init__(
        self,
        fabric: Fabric,
        task: nn.Module,
        data: Dataset[Any],
        epochs: int,
        val: Dataset[Any] | None,
        settings: Settings,
    ) -> None:
        self.fabric, self.task, self.data, self.epochs, self.val = fabric, task, data, epochs, val
        self.settings = settings
        self.folder = None if settings.folder is None else Path(settings.folder)
        self.checkpoint: Path | None = None
        self.indices, self.skipped = self._usable(data, "the training data")
        self.val_indices = [] if val is None else self._usable(val, "the validation data")[0]
        self.per_epoch = math.ceil(len(self.indices) / settings.batch_size)
        # what a checkpoint holds
        self.epoch, self.within, self.largest = 0, 0, 0.0
        self.first: tuple[float, float] = (0.0, _length(task))  # loss and length of the weights
        self.sums = Sums()
        self.history: list[dict[str, int | float]] = []
        self.best: dict[str, Tensor] = {}
        parameters = [p for p in task.parameters() if p.requires_grad]
        optimiser = torch.optim.AdamW(
            parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        saved = self._saved()
        with logs.quiet():
            self.model, self.optimiser = fabric.setup(Losses(task), optimiser)
        if saved is not None:
            self._restore(saved)
        self.good = self._state()

    # --- before ---

    def _usable(self, data: Dataset[Any], what: str) -> tuple[list[int], tuple[int, ...]]:
        everything = list(range(len(data)))  # type: ignore[arg-type]
        if self.settings.bad_samples == "refuse":
            return everything, ()
        good, bad = order.usable(data)
        if not good:
            raise ValueError(f"all {len(bad)} samples of {what} have NaN or infinite entries")
        return good, tuple(bad)

    def _saved(self) -> dict[str, Any] | None:
        """The checkpoint to go on from, if there is one."""
        resume = self.settings.resume
        path = Path(resume) if not isinstance(resume, bool) else None
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            found = find_checkpoint(self.folder)
            if found is not None and resume is False:
                raise FileExistsError(
                    f"{found} is a checkpoint of an earlier run; give resume=True to go on with it, or "
                    f"another "
                    "folder"
                )
            path = path or (found if resume is True else None)
        if path is None:
            return None
        saved = read_checkpoint(path)
        here = self._run_identity()
        other = [
            f"{name} was {was!r} and is {here.get(name)!r}"
            for name, was in saved["identity"].items()
            if here.get(name) != was
        ]
        if other:
            raise ValueError(f"the checkpoint {path} is of another run: {'; '.join(other)}")
        self.checkpoint = path
        return saved

    def _run_identity(self) -> dict[str, Any]:
        """What must be equal for a resumed run to be the same run."""
        parameters = {name: list(p.shape) for name, p in self.task.named_parameters()}
        identity = {**self.settings.decisive(), "samples": len(self.indices), "parameters": parameters}
        identity |= getattr(self.task, "identity", {})
        if self.settings.schedule != "constant":
            identity["epochs"] = self.epochs
        return identity

    # --- state ---

    def _state(self) -> dict[str, Tensor]:
        return {name: v.detach().cpu().clone() for name, v in self.task.state_dict().items()}

    def _save(self) -> None:
        """Keep the state in memory, and in a checkpoint; unless it is broken already."""
        if not all(bool(torch.isfinite(p).all()) for p in self.task.parameters()):
            raise self._diverged("its weights became NaN or infinite")
        self.good = self._state()
        if self.folder is None:
            return
        if self.fabric.is_global_zero:
            state = {
                "identity": self._run_identity(),
                "epoch": self.epoch,
                "within": self.within,
                "first": list(self.first),
                "largest": self.largest,
                "sums": self.sums.sums,
                "history": self.history,
                "task": self.good,
                "best": self.best,
                "optimiser": self.optimiser.state_dict(),
                "scaler": self.fabric.strategy.precision.state_dict(),
            }
            self.checkpoint = write_checkpoint(self.folder, state)
            logs.write_csv(self.folder, self.history)
        self.fabric.barrier()

    def _restore(self, saved: Mapping[str, Any]) -> None:
        self.task.load_state_dict(saved["task"])
        self.optimiser.load_state_dict(saved["optimiser"])
        self.fabric.strategy.precision.load_state_dict(saved["scaler"])
        self.epoch, self.within, self.largest = saved["epoch"], saved["within"], saved["largest"]
        self.first = tuple(saved.get("first", (self.largest, self.first[1])))
        self.sums = Sums(saved["sums"])
        self.history, self.best = saved["history"], saved["best"]

    # --- training ---

    def train(self) -> TrainingResult:
        total = self.per_epoch * self.epochs
        bar = logs.Bar(
            self.settings.progress if self.fabric.is_global_zero else False,
            total,
            self.per_epoch * self.epoch + self.within,
        )
        board = logs.tensorboard(self.folder) if self.folder and self.fabric.is_global_zero else None
        stopped: Literal["finished", "early"] = "finished"
        try:
            while self.epoch < self.epochs and stopped == "finished":
                self._one_epoch(bar)
                if board is not None:
                    board.log_metrics(self.history[-1], self.epoch)
                if self._out_of_patience():
                    stopped = "early"
        finally:
            bar.close()
            if board is not None:
                board.finalize("success")
        if self.val is not None:
            self.task.load_state_dict(self.best)
        best = self._best_epoch() if self.val is not None else self.epoch
        history = tuple(dict(row) for row in self.history)
        return TrainingResult(history, best, stopped, self.skipped, self.checkpoint)

    def _one_epoch(self, bar: logs.Bar) -> None:
        start, settings = time.perf_counter(), self.settings
        all_batches = order.batches(self.indices, settings.batch_size, settings.seed, self.epoch)
        rest = self._shares(all_batches[self.within :])
        seed = order.number(settings.seed, self.epoch, _VALIDATION)
        batches = iter(order.loader(self.data, rest, "the training data", settings.workers, seed))
        self.model.train()
        for part in rest:
            order.seed_all(self._number())  # for data sets that draw
            batch = next(batches)
            order.seed_all(self._number())  # for models that draw, however the data came
            self._one_step(batch, len(part), bar)
            every = settings.checkpoint_steps
            if every and self.within % every == 0 and self.within < self.per_epoch:
                self._save()
        row: dict[str, int | float] = {"epoch": self.epoch + 1, "step": self.per_epoch * (self.epoch + 1)}
        row |= {"learning_rate": self._rate(self.per_epoch * (self.epoch + 1) - 1)}
        row |= self.sums.means(self.fabric, "train") | self._validate()
        self.history.append(row | {"seconds": time.perf_counter() - start})
        self.epoch, self.within, self.sums = self.epoch + 1, 0, Sums()
        if self.val is not None and self._best_epoch() == self.epoch:
            self.best = self._state()
        self._save()

    def _one_step(self, batch: Any, samples: int, bar: logs.Bar) -> None:
        step = self.per_epoch * self.epoch + self.within
        for group in self.optimiser.param_groups:
            group["lr"] = self._rate(step)
        generator = Generator().manual_seed(self._number())
        losses = self.model(Parcel(self.fabric.to_device(batch), generator))
        loss = float(losses["loss"].detach())
        self._watch(loss, step)
        if not losses["loss"].requires_grad:
            raise ValueError(
                "the loss does not depend on the parameters to train: does the model detach its output, or "
                "run under torch.no_grad()?"
            )
        self.optimiser.zero_grad()
        self.fabric.backward(losses["loss"])
        if self.settings.gradient_clip is not None:
            self.fabric.clip_gradients(
                self.model, self.optimiser, max_norm=self.settings.gradient_clip, error_if_nonfinite=False
            )
        self.optimiser.step()
        self.sums.add(losses, samples)
        self.within += 1
        bar.step(self.epoch + 1, loss)

    def _shares(self, batches: list[order.Indices]) -> list[order.Indices]:
        parts = [order.shares(part, self.fabric.world_size, self.fabric.global_rank) for part in batches]
        return [part for part in parts if part]

    def _number(self) -> int:
        """The seed of this step on this device."""
        return order.number(self.settings.seed, self.epoch, self.within, self.fabric.global_rank)

    def _rate(self, step: int) -> float:
        rate = self.settings.learning_rate
        if self.settings.schedule == "constant":
            return rate
        return rate * 0.5 * (1 + math.cos(math.pi * step / (self.per_epoch * self.epochs)))

    # --- judging ---

    @torch.no_grad()
    def _validate(self) -> dict[str, float]:
        if self.val is None:
            return {}
        self.model.eval()
        sums, size = Sums(), self.settings.batch_size
        parts = self._shares([self.val_indices[i : i + size] for i in range(0, len(self.val_indices), size)])
        seed = order.number(self.settings.seed, _VALIDATION)
        batches = order.loader(self.val, parts, "the validation data", self.settings.workers, seed)
        for i, (part, batch) in enumerate(zip(parts, batches, strict=True)):
            place = order.number(self.settings.seed, _VALIDATION, i, self.fabric.global_rank)
            order.seed_all(place)
            generator = Generator().manual_seed(place)
            sums.add(self.model(Parcel(self.fabric.to_device(batch), generator)), len(part))
        return sums.means(self.fabric, "val")

    def _watch(self, loss: float, step: int) -> None:
        """Stop where the loss is no number, or far beyond what it was in the beginning."""
        if step == 0:
            self.first = (abs(loss), self.first[1])
        early = step < _FIRST_STEPS
        measure = max(self.first[0] if early else self.largest, 1e-30)
        broken = not math.isfinite(loss)
        exploded = abs(loss) > self.settings.explosion * measure
        if early:  # a first loss near zero is no measure by itself: the weights must have exploded too
            exploded = exploded and _length(self.task) > 2 * max(self.first[1], 1)
        if self.fabric.world_size > 1:  # all devices stop, or none
            broken, exploded = (n > 0 for n in over_devices(self.fabric, [float(broken), float(exploded)]))
        if broken:
            raise self._diverged(f"the loss became {loss}")
        if exploded:
            raise self._diverged(f"the loss grew to {loss:.3g}, in the first steps it was {measure:.3g}")
        if early:
            self.largest = max(self.largest, abs(loss))

    def _diverged(self, why: str) -> Diverged:
        step = self.per_epoch * self.epoch + self.within + 1
        self.task.load_state_dict(copy.deepcopy(self.good))
        kept = (
            f"the last good checkpoint is {self.checkpoint}"
            if self.checkpoint is not None
            else "the module holds its last good weights"
        )
        return Diverged(
            f"training diverged in step {step} (epoch {self.epoch + 1}): {why}; {kept}; lower the learning "
            f"rate "
            f"(now {self.settings.learning_rate:g}) or set gradient_clip",
            self.epoch + 1,
            step,
            self.checkpoint,
        )

    def _monitored(self) -> list[float]:
        return [row["val/loss" if self.val is not None else "train/loss"] for row in self.history]

    def _best_epoch(self) -> int:
        values = [v if math.isfinite(v) else math.inf for v in self._monitored()]
        return values.index(min(values)) + 1

    def _out_of_patience(self) -> bool:
        patience = self.settings.patience
        return patience is not None and self.epoch - self._best_epoch() >= patience


def _length(task: nn.Module) -> float:
    """The norm of all that is trained."""
    return math.hypot(
        *(float(torch.linalg.vector_norm(p.detach())) for p in task.parameters() if p.requires_grad)
    )
