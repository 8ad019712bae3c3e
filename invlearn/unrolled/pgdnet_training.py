"""How PGD-Net learns: from scans whose maps are known, or from their k-space alone."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.utils.data import Dataset

from invlearn.physics.mri.fingerprint import Dictionary
from invlearn.physics.mri.sequence import FingerprintSequence
from invlearn.training import Settings, TrainingResult, train
from invlearn.unrolled.pgdnet import Estimate, Measured, PGDNet
from invlearn.unrolled.pgdnet_pool import measured
from invlearn.unrolled.pixelwise import SignalNetwork, Signals

#: Flip-angle factors that a decoder is fitted for.
B1 = tuple(round(0.7 + 0.05 * i, 2) for i in range(13))
_ENERGY = 0.99995
_TINY = 1e-5  # of a mean, before its logarithm is taken
_ROUND = 0.005  # of a logarithm: below it errors count squared, above it as they are


@dataclass(frozen=True)
class MapLoss:
    """The error of the maps of every iterate, the last ones most.

    Σ_t w_t (T1 + T2 + pd + images), w_t proportional to t and of sum 1: of log T1 and log T2 the mean
    absolute error over the voxels with signal, of ρ and of the images over all voxels and in units of the
    object's.

    Attributes
    ----------
    t1, t2, pd, images
        Weights.
    relative
        Whether the logarithms of the four means of a scan are added in place of the means: then a tenth less
        error counts as much in a scan with little noise as in one with much.
    robust
        e: errors of log T1 and log T2 count as e ln(1 + error/e), so that voxels and scans about which little
        can be known do not outweigh the others; None for the errors themselves.
    detach
        Whether an iterate is a constant to those after it; see `PGDNet.forward`.
    """

    t1: float = 1.0
    t2: float = 1.0
    pd: float = 0.5
    images: float = 0.2
    relative: bool = False
    robust: float | None = None
    detach: bool = True

    def __post_init__(self) -> None:
        for name in ("t1", "t2", "pd", "images"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"MapLoss: {name} is a weight, at least 0, got {getattr(self, name)}")
        if self.robust is not None and not self.robust > 0:
            raise ValueError(
                f"MapLoss: robust is a positive error of a logarithm, or None, got {self.robust}"
            )

    def __call__(self, network: PGDNet, batch: dict[str, Tensor], generator: Generator) -> dict[str, Tensor]:
        """Of a batch of one scan of a `Pool`."""
        scan = measured(batch)
        found = network(scan, detach=self.detach)
        truth = truth_of(network, batch)
        rows = [self.of(estimate, truth) for estimate in found]
        weights = torch.arange(1, len(rows) + 1, dtype=torch.float32)
        weights = weights / weights.sum()
        loss = torch.stack([row.pop("loss") for row in rows]) @ weights
        return {"loss": loss} | {name: value.detach() for name, value in rows[-1].items()}

    def of(self, found: Estimate, truth: Truth) -> dict[str, Tensor]:
        """Of one iterate: the sum, and its parts."""
        weight = truth.weight / truth.weight.sum()
        gaps = _soft(found.point, truth.point)
        bent = gaps if self.robust is None else self.robust * torch.log1p(gaps / self.robust)
        pd = (found.density - truth.density).abs().mean() / truth.scale
        gap = (found.images - truth.images).abs().square().sum(0)
        images = (gap / truth.size**2 + 1e-12).sqrt().mean()
        means = [(bent[0] * weight).sum(), (bent[1] * weight).sum(), pd, images]
        if self.relative:
            means = [torch.log(mean + _TINY) for mean in means]
        weights = (self.t1, self.t2, self.pd, self.images)
        loss = sum((w * mean for w, mean in zip(weights, means, strict=True)), torch.zeros_like(pd))
        t1, t2 = ((error * weight).sum() for error in gaps)
        return {"loss": loss, "t1": t1, "t2": t2, "pd": pd, "images": images}


def _soft(found: Tensor, truth: Tensor) -> Tensor:
    """|found - truth| with a round tip."""
    return ((found - truth).square() + _ROUND**2).sqrt() - _ROUND


@dataclass(frozen=True)
class Truth:
    """Maps and images of a scan, and their size."""

    point: Tensor
    density: Tensor
    images: Tensor
    weight: Tensor
    scale: Tensor
    size: Tensor


@torch.no_grad()
def truth_of(network: PGDNet, batch: dict[str, Tensor]) -> Truth:
    """Of a batch of one scan."""
    t1, t2, density = (batch[name][0] for name in ("t1", "t2", "pd"))
    inside = density.abs() > 0
    point = torch.stack([t1, t2]).where(inside, torch.tensor(1.0)).log()
    b1 = batch["b1"][0] if "b1" in batch else None
    atoms = network.decoder(point[:, inside].T, None if b1 is None else b1[inside])
    images = torch.zeros(network.rank, *density.shape, dtype=density.dtype)
    images[:, inside] = (atoms * density[inside][:, None]).T
    power = density.abs().square()
    scale = (power.square().sum() / power.sum()).sqrt()
    strength = images.abs().square().sum(0)
    weight = inside * (density.abs() / (0.3 * scale)).clamp_max(1)
    return Truth(point, density, images, weight, scale, (strength.square().sum() / strength.sum()).sqrt())


@dataclass(frozen=True)
class KspaceLoss:
    """What the images of a network that saw part of the samples say of the others; no maps are needed.

    ‖A_b x_T - y_b‖²/‖y_b‖² + consistency ‖A_a x_T - y_a‖²/‖y_a‖², x_T from (y_a, A_a). The noise of y_b is
    independent of x_T, so that the first term's expectation is the error of the images in k-space, plus a
    constant (measurement splitting); the second is measurement consistency.

    Attributes
    ----------
    consistency
        Weight of the second term.

    References
    ----------
    Yaman et al., Magn. Reson. Med. 84 (2020) 3172, doi:10.1002/mrm.28378.
    """

    consistency: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.consistency < float("inf"):
            raise ValueError(f"KspaceLoss: consistency is a weight, at least 0, got {self.consistency}")

    def __call__(self, network: PGDNet, batch: dict[str, Tensor], generator: Generator) -> dict[str, Tensor]:
        """Of a batch of one scan of a `Pool` in two parts."""
        if batch["energy"].shape[-1] != 2:
            raise ValueError("KspaceLoss needs a pool of scans in two parts: write_pool(..., split=True)")
        seen, kept = measured(batch, 0), measured(batch, 1)
        x = network(seen)[-1].images
        test, fit = _misfit(kept, x), _misfit(seen, x)
        return {"loss": test + self.consistency * fit, "test": test.detach(), "fit": fit.detach()}


def _misfit(scan: Measured, x: Tensor) -> Tensor:
    """‖Ax - y‖²/‖y‖²."""
    gap = scan.normal(x) - 2 * scan.back_projection
    return 1 + (x.conj() * gap).real.sum() / scan.energy


def new_pgdnet(
    sequence: FingerprintSequence,
    *,
    rank: int | None = None,
    seed: int = 0,
    decoder: Signals | None = None,
    **options: Any,
) -> tuple[PGDNet, dict[str, float]]:
    """A network for a sequence: basis and decoder as they will be, the CNN before training.

    Parameters
    ----------
    sequence
        What will be played.
    rank
        K; by default as many as keep 99.995 % of the signals' energy.
    seed
        Of the CNN's weights.
    decoder
        As for `PGDNet`, to be fitted here; by default for all of `B1`.
    options
        As for `PGDNet`: iterations, start, steps, width, levels.

    Returns
    -------
    tuple
        The network, and for its card the share of energy outside the subspace and the relative error of the
        decoder.

    Raises
    ------
    ValueError
        As `Dictionary.build` and `PGDNet`.
    """
    dictionary = Dictionary.build(sequence, rank=rank, energy=_ENERGY if rank is None else None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if decoder is None:
            basis = dictionary.basis
            decoder = SignalNetwork(basis.shape[1], b1=B1, complex=basis.is_complex())
        network = PGDNet(sequence, dictionary.basis, dictionary.phase, decoder, **options)
    error = network.fit_decoder()
    return network, {"energy_outside_the_subspace": 1 - dictionary.energy, "decoder_error": error}


class _Task(nn.Module):
    def __init__(self, network: PGDNet, loss: MapLoss | KspaceLoss) -> None:
        super().__init__()
        self.network, self.loss = network, loss

    def forward(self, batch: dict[str, Tensor], generator: Generator) -> dict[str, Tensor]:
        return self.loss(self.network, batch, generator)


def one_by_one(who: str, network: PGDNet, settings: Settings | None) -> Settings:
    """The settings, for a function of this name that trains a network one scan a step.

    Raises
    ------
    ValueError
        Larger batches, a decoder that was not fitted.
    """
    settings = Settings(batch_size=1) if settings is None else settings
    if settings.batch_size != 1:
        raise ValueError(f"{who} takes one scan a step, set batch_size=1, got {settings.batch_size}")
    if not network.decoder.fitted:
        raise ValueError(f"{who}: the decoder knows no signals yet; call network.fit_decoder() first")
    return settings


def train_pgdnet(
    network: PGDNet,
    data: Dataset[Any],
    *,
    epochs: int,
    val: Dataset[Any] | None = None,
    loss: MapLoss | KspaceLoss = MapLoss(),
    settings: Settings | None = None,
) -> TrainingResult:
    """Train the CNN and the step sizes; the decoder must be fitted before.

    Parameters
    ----------
    network
        Changed in place.
    data, val
        Pools.
    epochs
        How often to go through the data.
    loss
        From maps or from k-space.
    settings
        Of the trainer; batches are of one scan.

    Raises
    ------
    ValueError
        Larger batches, a decoder that was not fitted, and as `train`.
    """
    settings = one_by_one("train_pgdnet", network, settings)
    return train(_Task(network, loss), data, epochs=epochs, val=val, settings=settings)


def loss_card(loss: MapLoss | KspaceLoss) -> dict[str, Any]:
    """Plain values, for a model card."""
    return {"kind": type(loss).__name__, **asdict(loss)}
