"""Training a WaveUNet3D: cubes of stacks with known neurons, their variations, and the loss."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor, nn
from torch.utils.data import Dataset

from invlearn.neuro.losses import Objective
from invlearn.neuro.waveunet import MULTIPLE, WaveUNet3D
from invlearn.training import Settings, TrainingResult, train

Sample = dict[str, Tensor]
CUBE = (32, 64, 64)
LEAST_SHARE = 0.003  # of neuron in a cube that is chosen for its neuron, unless the whole stack has less
_TRIES = 8  # to find such a cube


@dataclass(frozen=True, eq=False)
class Example:
    """A stack and its truth.

    Attributes
    ----------
    image
        (D, H, W), normalised, float16 or float32.
    mask
        (D, H, W), where the neuron is.
    """

    image: Float[np.ndarray, "D H W"]
    mask: Bool[np.ndarray, "D H W"]


class Cubes(Dataset[Sample]):
    """Random cubes of stacks: some anywhere, most where the neuron is.

    A stack of N cubes' size gives N cubes anywhere and `rich` times N with a share of neuron of at least the
    smaller of 0.003 and the share in the whole stack. Which cubes these are is drawn anew every time, from
    torch's global generator, which the trainer seeds.

    Parameters
    ----------
    examples
        A sequence of `Example`.
    cube
        Voxels of a cube, multiples of 16; stacks that are smaller are mirrored.
    rich
        Cubes with neuron for every cube anywhere.

    Raises
    ------
    ValueError
        A side that is no multiple of 16, a negative `rich`, no examples.

    References
    ----------
    The sampling is that of the cubes of Li, Shen, arXiv:2106.00259, made from the stacks of BigNeuron.
    """

    def __init__(
        self, examples: Sequence[Example], cube: tuple[int, int, int] = CUBE, rich: float = 3.0
    ) -> None:
        if min(cube) < 1 or any(n % MULTIPLE for n in cube) or rich < 0:
            raise ValueError(
                f"Cubes: the sides are multiples of {MULTIPLE} and rich is not negative, got {cube}, {rich}"
            )
        if not examples:
            raise ValueError("Cubes: there are no stacks to learn from")
        self.examples, self.cube, self.rich = examples, cube, rich
        self._drawn: list[tuple[int, bool]] = []
        for k in range(len(examples)):
            count = math.prod(math.ceil(n / c) for n, c in zip(examples[k].mask.shape, cube, strict=True))
            self._drawn += [(k, False)] * count + [(k, True)] * round(rich * count)

    def __len__(self) -> int:
        return len(self._drawn)

    def __getitem__(self, i: int) -> Sample:
        number, rich = self._drawn[i]
        example = self.examples[number]
        start = self._rich(example.mask) if rich else self._anywhere(example.mask.shape)
        part = tuple(slice(a, a + n) for a, n in zip(start, self.cube, strict=True))
        image = _filled(example.image[part], self.cube).astype(np.float32)
        mask = _filled(example.mask[part], self.cube).astype(np.float32)
        return {"image": torch.from_numpy(image), "mask": torch.from_numpy(mask)}

    def _anywhere(self, shape: Sequence[int]) -> list[int]:
        return [_integer(0, max(0, n - c)) for n, c in zip(shape, self.cube, strict=True)]

    def _rich(self, mask: np.ndarray) -> list[int]:
        """The first cube around a random voxel of the neuron that has enough of it, or the best of a few."""
        inside = np.flatnonzero(mask)
        if not inside.size:
            return self._anywhere(mask.shape)
        enough = min(LEAST_SHARE, inside.size / mask.size) * math.prod(self.cube)
        best, start = -1, [0, 0, 0]
        for _ in range(_TRIES):
            voxel = np.unravel_index(inside[_integer(0, inside.size - 1)], mask.shape)
            tried = [
                min(max(0, int(v) - _integer(0, c - 1)), max(0, n - c))
                for v, c, n in zip(voxel, self.cube, mask.shape, strict=True)
            ]
            part = tuple(slice(a, a + n) for a, n in zip(tried, self.cube, strict=True))
            found = int(mask[part].sum())
            if found > best:
                best, start = found, tried
            if best >= enough:
                break
        return start


def _integer(low: int, high: int) -> int:
    """From torch's global generator, both ends included."""
    return int(torch.randint(low, high + 1, ()))


def _filled(x: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    missing = [(0, want - have) for want, have in zip(shape, x.shape, strict=True)]
    return np.pad(x, missing, mode="symmetric") if any(after for _, after in missing) else x


@dataclass(frozen=True)
class Variation:
    """Random changes of training cubes, besides flips along all axes and exchanged y and x.

    Attributes
    ----------
    contrast
        Largest logarithm of a factor on the brightness.
    gamma
        Largest logarithm of an exponent of the brightness.
    offset
        Largest shift of the background, in units of the neuron's brightness.
    noise
        Largest standard deviation of added noise, in the same units.

    Raises
    ------
    ValueError
        A negative number.
    """

    contrast: float = 0.4
    gamma: float = 0.3
    offset: float = 0.05
    noise: float = 0.08

    def __post_init__(self) -> None:
        if min(asdict(self).values()) < 0:
            raise ValueError(f"Variation: no number may be negative, got {asdict(self)}")

    def to_dict(self) -> dict[str, float]:
        """Plain types, ready for JSON."""
        return asdict(self)

    def __call__(self, image: Tensor, mask: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """A changed batch ``(B, D, H, W)``; the same flips for all of it."""
        flips = [axis for axis in (1, 2, 3) if torch.rand((), generator=generator) < 0.5]
        image, mask = image.flip(flips), mask.flip(flips)
        if image.shape[2] == image.shape[3] and torch.rand((), generator=generator) < 0.5:
            image, mask = image.transpose(2, 3), mask.transpose(2, 3)

        def draw(most: float) -> Tensor:
            unit = 2 * torch.rand(len(image), 1, 1, 1, generator=generator) - 1
            return (most * unit).to(image)

        image = image.sign() * image.abs().pow(draw(self.gamma).exp()) * draw(self.contrast).exp()
        noise = torch.randn(image.shape, generator=generator).to(image)
        return image + draw(self.offset) + draw(self.noise).abs() * noise, mask


class SegmentationTask(nn.Module):
    """A network and its loss, as `invlearn.training.train` takes it.

    Parameters
    ----------
    network
        What is trained.
    objective
        The loss; None takes the defaults.
    variation
        Of the cubes while training; None takes the defaults.
    """

    def __init__(
        self, network: WaveUNet3D, objective: Objective | None = None, variation: Variation | None = None
    ) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.objective, self.variation = objective or Objective(), variation or Variation()

    def forward(self, batch: Mapping[str, Tensor], generator: Generator) -> dict[str, Tensor]:
        """The loss and its parts; in evaluation of the cubes as they are."""
        image, mask = batch["image"], batch["mask"]
        if self.training:
            image, mask = self.variation(image, mask, generator)
        x = image.unsqueeze(1).contiguous(memory_format=torch.channels_last_3d)
        logits = self.network(x)
        with torch.autocast(x.device.type, enabled=False):
            return self.objective(logits.float(), mask)


class Fixed(Dataset[Sample]):
    """Cubes drawn once, for validation.

    Parameters
    ----------
    cubes
        Where they come from.
    count
        How many, spread over the stacks.
    seed
        Which.
    """

    def __init__(self, cubes: Cubes, count: int, seed: int = 0) -> None:
        numbers = np.linspace(0, len(cubes) - 1, min(count, len(cubes))).round().astype(int).tolist()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.samples = [cubes[i] for i in numbers]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, i: int) -> Sample:
        return dict(self.samples[i])


def train_waveunet(
    network: WaveUNet3D,
    data: Dataset[Sample],
    *,
    epochs: int,
    objective: Objective | None = None,
    variation: Variation | None = None,
    val: Dataset[Sample] | None = None,
    settings: Settings | None = None,
) -> TrainingResult:
    """Train a network on `Cubes`.

    Parameters
    ----------
    network
        Holds the weights of the best epoch afterwards.
    data
        `Cubes`.
    epochs
        How often to go through them.
    objective
        The loss; None takes the defaults.
    variation
        Of the cubes; None takes the defaults.
    val
        Held-back cubes, `Fixed`: their loss chooses the best epoch.
    settings
        See `invlearn.training.Settings`; None takes batches of four, a learning rate of 2e-3 that falls to
        zero, and gradients of norm 1 at most.

    Returns
    -------
    TrainingResult
        What `invlearn.training.train` returns, and raises.
    """
    task = SegmentationTask(network, objective, variation)
    settings = settings or Settings(
        batch_size=4, learning_rate=2e-3, schedule="cosine", gradient_clip=1.0, seed=0
    )
    return train(task, data, epochs=epochs, val=val, settings=settings)
