"""PGD-Net: proximal steps whose proximal operator is a network that goes through T1, T2 and density.

Iteration t of T, with the same weights in all:

    s = x + (AᴴA + σ² C⁻¹)⁻¹ Aᴴ(y - A x)   a step towards the data, by the covariance C of tissues' signals
    m = encoder(s)                          T1, T2 and ρ of every voxel: its inverse, then corrected by a CNN
    x = ρ a(T1, T2)                         the signals of these tissues, and no others: the decoder

The encoder begins with the exact inverse of the decoder (the best T1, T2, ρ for the coefficients of a voxel),
and the CNN adds what neighbours tell: log T1, log T2 and ρ change by its output, and log T1 and log T2 become
means over those neighbours that it takes for the same tissue (`NonLocalMeans`). Without it this is projection
onto the data and onto what tissues can give, in turns (BLIP, with a better step). All that the CNN sees is in
units of the object's signal, turned by the smoothed phase of ρ, beside the standard deviation of what is not
yet explained: so the weights know neither the unit of the data nor their noise, matrix, coils or trajectory.
They know the sequence and the basis of its signals.

D. Chen, M. Davies, M. Golbabaee, MICCAI 2020, arXiv:2006.15271. There the data are real, on a Cartesian grid
and of one coil, the encoder ends in a pixelwise network instead of beginning with the inverse, and the step
is s = x + a Aᴴ(y - A x) with a learned number a.
M. Davies et al., SIAM J. Imaging Sci. 7 (2014) 2623, doi:10.1137/130947246 (BLIP).
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from invlearn.physics.mri.sequence import FingerprintSequence
from invlearn.physics.nufft import apply_toeplitz
from invlearn.unrolled.neighbours import NonLocalMeans
from invlearn.unrolled.networks import UNet
from invlearn.unrolled.pixelwise import ExactSignals, PixelwiseInverse, SignalNetwork, Signals, amplitude
from invlearn.unrolled.subspace import SubspaceProblem
from invlearn.unrolled.wiener import Wiener, real_dot

TRAINS = ("flip_angle", "phase", "tr", "te")
OUTPUTS = 5  # log T1, log T2, gain and both parts of ρ
_FEATURES, _RADIUS = 6, 3  # for each of log T1 and log T2, to tell neighbours apart; pixels to each side
_TYPICAL = (1.0, 0.08)  # T1, T2 (s) of what signals are compared with
_SEEN = 0.02  # of the object's signal: below it a voxel is not inverted
_LARGEST = 6.0  # density in units of the object's
_PHASE = (5, 3)  # side of the boxes, and their number, that smooth the phase
_TINY = 1e-30
_BODY = ((0.5, 2.5), (0.03, 0.18))  # T1, T2 (s) of most tissues
_TISSUES = 40  # values of each, for the covariance
TRUST = 10.0  # how much smaller the variance of tissues is around an iterate than around zero
_ROUGH = 3  # conjugate-gradient steps that show the object's density and the noise
_SHY = 0.02  # standard deviation of the weights of features before training
_LEVEL = 0.1  # the CNN sees 1 + log10 of noise over signal / this


class Start(NamedTuple):
    """Before the first iteration.

    Attributes
    ----------
    images
        The Wiener estimate from zero, `(K, *image)`.
    noise
        Standard deviation of what it leaves unexplained of the samples.
    scale
        The object's density.
    """

    images: Tensor
    noise: float
    scale: Tensor


@dataclass(frozen=True, eq=False)
class Measured:
    """What PGD-Net needs to know of a scan.

    Attributes
    ----------
    kernel
        Transfer functions `(K, K, *grid)` of the normal operator, `FingerprintOperator.transfer`.
    coil_maps
        `(C, *image)`, complex64.
    back_projection
        Aᴴy `(K, *image)`, complex64.
    gain
        Diagonal of AᴴA, `(*image)`.
    energy
        ‖y‖².
    samples
        Number of complex samples of all coils.
    b1
        Factor on the flip angles `(*image)`; None for 1.
    start
        What the network would begin with, when it is known already.
    """

    kernel: Tensor
    coil_maps: Tensor
    back_projection: Tensor
    gain: Tensor
    energy: float
    samples: int
    b1: Tensor | None = None
    start: Start | None = None

    @classmethod
    def of(cls, problem: SubspaceProblem, b1: Tensor | None = None) -> Measured:
        """A scan's data and model; the basis must be the network's."""
        operator = problem.operator
        maps = operator.coil_maps
        return cls(
            operator.transfer(torch.float32),
            torch.ones(1, *operator.domain.shape[1:]).to(problem.gain) if maps is None else maps,
            problem.back_projection,
            problem.gain,
            problem.energy,
            problem.kspace.numel(),
            b1,
        )

    def normal(self, x: Tensor) -> Tensor:
        """AᴴA x."""
        total = torch.zeros_like(x)
        for s in self.coil_maps:
            total = total + s.conj() * apply_toeplitz(self.kernel, s * x, mixing=True)
        return total

    def noise(self, x: Tensor, normal: Tensor) -> float:
        """Standard deviation of what x leaves unexplained of the samples, given AᴴA x."""
        misfit = self.energy + float(real_dot(x, normal - 2 * self.back_projection))
        freedom = max(self.samples - x.numel(), self.samples // 2)
        return math.sqrt(max(misfit, 1e-8 * self.energy) / freedom)


@dataclass(frozen=True, eq=False)
class Estimate:
    """One iterate.

    Attributes
    ----------
    point
        log T1, log T2 (s), `(2, *image)`.
    density
        ρ `(*image)`, complex.
    images
        ρ a(T1, T2), `(K, *image)`.
    gradient
        s, from which it was found, `(K, *image)`.
    noise
        Standard deviation of what the images before left unexplained of the samples.
    """

    point: Tensor
    density: Tensor
    images: Tensor
    gradient: Tensor
    noise: float

    def detached(self) -> Estimate:
        """The same as a constant to automatic differentiation."""
        return Estimate(
            self.point.detach(),
            self.density.detach(),
            self.images.detach(),
            self.gradient.detach(),
            self.noise,
        )


class Scene(NamedTuple):
    """What the encoder is given in an iteration.

    Attributes
    ----------
    images
        s `(K, *image)`.
    point, density
        The tissue that fits each voxel of it best: log T1 and log T2 (s) `(2, *image)`, ρ `(*image)`.
    gain
        As in `Measured`.
    noise, scale
        As in `Estimate` and `Start`, of no axes.
    b1
        As in `Measured`.
    last_images, last_point, last_density
        Of the iterate before; None in the first iteration.
    """

    images: Tensor
    point: Tensor
    density: Tensor
    gain: Tensor
    noise: Tensor
    scale: Tensor
    b1: Tensor | None = None
    last_images: Tensor | None = None
    last_point: Tensor | None = None
    last_density: Tensor | None = None

    def after(self, before: Estimate | None) -> Scene:
        """The same, with the iterate before."""
        if before is None:
            return self
        return self._replace(last_images=before.images, last_point=before.point, last_density=before.density)


class PGDNet(nn.Module):
    """The network.

    Parameters
    ----------
    sequence
        What is played; the weights are for nothing else.
    basis
        `(frames, K)`, orthonormal columns.
    phase
        The phase that all signals share, as in `Dictionary`.
    decoder
        Gives the signal of a voxel: a `SignalNetwork` for this basis, by default with 128 units and for a B1
        of 1, or `ExactSignals`.
    iterations
        T.
    start, steps
        Conjugate-gradient steps towards the data: from zero, and in later iterations.
    width, levels
        Of the U-Net.

    Raises
    ------
    ValueError
        A basis of other frames than the sequence's, a decoder of another rank or kind of numbers, counts
        below 1.
    """

    basis: Tensor
    trains: Tensor

    def __init__(
        self,
        sequence: FingerprintSequence,
        basis: Tensor,
        phase: complex = 1.0,
        decoder: Signals | None = None,
        *,
        iterations: int = 3,
        start: int = 8,
        steps: int = 3,
        width: int = 24,
        levels: int = 3,
    ) -> None:
        super().__init__()
        if basis.ndim != 2 or len(basis) != sequence.frames:
            raise ValueError(
                f"PGDNet: the basis {tuple(basis.shape)} must be (frames, K) with the sequence's "
                f"{sequence.frames} frames"
            )
        if min(iterations, start, steps) < 1:
            raise ValueError(
                "PGDNet: iterations, start and steps must be at least 1, got "
                f"{iterations}, {start} and {steps}"
            )
        self.sequence, self.phase = sequence, complex(phase)
        self.iterations, self.start, self.steps = iterations, start, steps
        self.register_buffer("basis", basis.to(torch.complex64 if basis.is_complex() else torch.float32))
        trains = [getattr(sequence, name) for name in TRAINS]
        self.register_buffer("trains", torch.from_numpy(np.stack(trains).astype(np.float64)))
        rank = basis.shape[1]
        decoder = SignalNetwork(rank, complex=basis.is_complex()) if decoder is None else decoder
        made = decoder.to_dict()
        if (made["rank"], made["complex"]) != (rank, basis.is_complex()):
            raise ValueError(
                f"PGDNet: the decoder must give {rank} {'complex' if basis.is_complex() else 'real'} "
                f"coefficients as the basis does, got {decoder.to_dict()}"
            )
        self.decoder = decoder
        self.inverse = PixelwiseInverse(self.decoder)
        channels = 3 * rank + 9
        self.unet = UNet(width, levels)
        self.encoder = self.unet.build(channels, 2)
        for layer in self.encoder.modules():
            if isinstance(
                layer, nn.Conv2d
            ):  # as large behind ten layers without normalisation as before them
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        self.neighbours = NonLocalMeans(2, _FEATURES, _RADIUS)
        # corrections, the logarithm of how noisy log T1 and log T2 are, features
        head = nn.Conv2d(width, OUTPUTS + 2 + 2 * _FEATURES, 1)
        nn.init.zeros_(head.bias)  # type: ignore[arg-type]
        nn.init.normal_(head.weight, std=_SHY)  # distances of features are squared: zeros would stay zeros
        nn.init.zeros_(head.weight[: OUTPUTS + 2])
        self.encoder.head = head

    @property
    def rank(self) -> int:
        """K."""
        return self.basis.shape[1]

    def digest(self) -> str:
        """Of the sequence and the basis."""
        found = hashlib.sha256(repr(self.sequence.to_dict()).encode())
        found.update(self.basis.resolve_conj().cpu().contiguous().numpy().tobytes())
        return found.hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """All that rebuilds it but the tensors."""
        return {
            "kind": type(self).__name__,
            "sequence": {
                name: value for name, value in self.sequence.to_dict().items() if name not in TRAINS
            },
            "frames": self.sequence.frames,
            "iterations": self.iterations,
            "start": self.start,
            "steps": self.steps,
            "width": self.unet.width,
            "levels": self.unet.levels,
            "phase": [self.phase.real, self.phase.imag],
            "decoder": self.decoder.to_dict(),
        }

    def fit_decoder(self, *, atoms: int = 12000, seed: int = 1) -> float:
        """Fit the decoder to simulations of the sequence; its relative error, see `SignalNetwork.fit`."""
        if isinstance(self.decoder, ExactSignals):
            return 0.0
        return self.decoder.fit(self.sequence, self.basis, self.phase, atoms=atoms, seed=seed)

    def with_exact_signals(self) -> PGDNet:
        """The same network on exact Bloch simulations instead of those of its decoder; much slower."""
        exact = copy.deepcopy(self)
        exact.decoder = ExactSignals(self.sequence, self.basis, self.phase).to(self.basis.device)
        exact.inverse = PixelwiseInverse(exact.decoder, self.inverse.steps)
        return exact

    def forward(self, scan: Measured, *, learned: bool = True, detach: bool = False) -> list[Estimate]:
        """All T iterates.

        Parameters
        ----------
        scan
            The data.
        learned
            Whether the CNN is asked, or taken to be zero.
        detach
            Whether every iterate is a constant to those after it: gradients of the iterates' losses
            then need the memory of one iteration.
        """
        found: list[Estimate] = []
        for scene in self._scenes(scan, found, detach):
            found.append(self.encode(scene, learned=learned))
        return found

    @torch.no_grad()
    def scenes(self, scan: Measured) -> list[Scene]:
        """What the encoder meets in all T iterations, to learn from without going through them again."""
        found: list[Estimate] = []
        met = []
        for scene in self._scenes(scan, found, True):
            met.append(scene)
            found.append(self.encode(scene))
        return met

    def _scenes(self, scan: Measured, found: list[Estimate], detach: bool) -> Iterator[Scene]:
        """Iteration after iteration, each from the estimate that was added to `found` last."""
        wiener = Wiener(scan, self._covariance(scan.gain.device))
        s, noise, scale = scan.start or self.first(scan, wiener)
        before = None
        for _ in range(self.iterations):
            if found:
                before = found[-1].detached() if detach else found[-1]
                normal = scan.normal(before.images)
                noise = scan.noise(before.images.detach(), normal.detach())
                variance = TRUST * (noise / float(scale)) ** 2
                residual = scan.back_projection - normal
                s = before.images + wiener.correction(residual, variance, self.steps).images
            point, rho = self._inverted(s, scan, scale, before)
            level = torch.tensor(noise, device=s.device)
            yield Scene(s, point, rho, scan.gain, level, scale, scan.b1).after(before)

    def require_b1(self, b1: Tensor | None) -> None:
        """Refuse a B1 map that the decoder was not fitted for.

        Raises
        ------
        ValueError
            Values outside its range.
        """
        if b1 is None:
            return
        low, high = (float(self.decoder.b1[end]) for end in (0, -1))
        if not bool(((b1 >= low - 1e-6) & (b1 <= high + 1e-6)).all()):
            raise ValueError(
                f"the B1 map runs from {float(b1.min()):.3g} to {float(b1.max()):.3g}, the weights know "
                f"{low:g} to {high:g}; use --method subspace for such a field"
            )

    @torch.no_grad()
    def first(self, scan: Measured, wiener: Wiener | None = None) -> Start:
        """What the iterations begin with."""
        wiener = Wiener(scan, self._covariance(scan.gain.device)) if wiener is None else wiener
        b = scan.back_projection
        rough = wiener.correction(b, 0.0, _ROUGH)
        scale = self._scale(rough.images)
        noise = scan.noise(*rough)
        s = wiener.correction(b, (noise / float(scale)) ** 2, self.start)
        return Start(s.images, scan.noise(*s), scale)

    # --- what tissues have in common ---

    @torch.no_grad()
    def _covariance(self, device: torch.device) -> Tensor:
        """E a aᴴ `(K, K)` over tissues."""
        axes = (torch.linspace(math.log(low), math.log(high), _TISSUES, device=device) for low, high in _BODY)
        t1, t2 = (v.flatten() for v in torch.meshgrid(*axes, indexing="ij"))
        atoms = self.decoder(torch.stack([t1, torch.minimum(t1, t2)], 1))
        return atoms.mT @ atoms.conj() / len(atoms)

    def _scale(self, s: Tensor) -> Tensor:
        """The object's density: the strength of the signal where it is, over that of a typical tissue."""
        power = s.abs().square().sum(0)
        strength = (power.square().sum() / power.sum().clamp_min(_TINY)).sqrt()
        return strength / torch.linalg.vector_norm(self._typical(s)[1])

    def _typical(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """log T1 and log T2 `(2,)` of a typical tissue, and its coefficients `(K,)`."""
        point = torch.tensor(_TYPICAL, device=like.device).log()
        return point, self.decoder(point[None])[0]

    # --- the proximal operator ---

    def encode(self, scene: Scene, *, learned: bool = True) -> Estimate:
        """T1, T2 and ρ from s, and the images they make.

        Parameters
        ----------
        scene
            What is known.
        learned
            See `forward`.
        """
        s, point = scene.images, scene.point
        output = torch.zeros(OUTPUTS, *point.shape[1:], device=s.device)
        turn = _smooth_phase(scene.density.detach())
        if learned:
            output = self._correction(scene, turn)
            noise = _level(scene) * output[OUTPUTS : OUTPUTS + 2].exp()
            point = self.neighbours(point + output[:2], noise, output[OUTPUTS + 2 :], scene.density != 0)
        point = self._inside(point)
        b1 = None if scene.b1 is None else scene.b1.flatten()
        atoms = self.decoder(point.flatten(1).T, b1)
        rho = _limited(amplitude(atoms, s.flatten(1).T), _LARGEST * scene.scale).reshape(turn.shape)
        rho = (1 + output[2]) * rho + scene.scale * turn * torch.complex(output[3], output[4])
        images = (atoms * rho.flatten()[:, None]).T.reshape(s.shape)
        return Estimate(point, rho, images, s, float(scene.noise))

    def _inverted(
        self, s: Tensor, scan: Measured, scale: Tensor, before: Estimate | None
    ) -> tuple[Tensor, Tensor]:
        """The tissue and ρ that fit each voxel best; a typical tissue and ρ = 0 where there is little."""
        typical, signal = self._typical(s)
        least = _SEEN * scale * torch.linalg.vector_norm(signal)
        seen = torch.linalg.vector_norm(s.detach(), dim=0) > least
        b1 = None if scan.b1 is None else scan.b1[seen]
        start = None if before is None else before.point[:, seen].T.detach()
        fitted = self.inverse(s[:, seen].T, b1, start)
        point = _column(typical, s).expand(2, *seen.shape).clone()
        rho = torch.zeros_like(s[0])
        point[:, seen] = fitted.point.T
        rho[seen] = _limited(fitted.density, _LARGEST * scale)
        return point, rho

    def _inside(self, point: Tensor) -> Tensor:
        """The point brought into the decoder's range."""
        low, high = (_column(limit, point) for limit in self.decoder.limits.T)
        point = torch.maximum(torch.minimum(point, high), low)
        return torch.stack([point[0], torch.minimum(point[1], point[0])])

    def _correction(self, scene: Scene, turn: Tensor) -> Tensor:
        """The CNN's output `(channels, *image)`, for images turned by the smooth phase."""
        s, scale = scene.images, scene.scale
        typical, signal = self._typical(s)
        level = _level(scene)
        power = signal.abs().square()
        # coefficients that are small in all tissues are mostly noise
        size = scale * (power / 4 + power.mean() / 100 + level.square().mean()).sqrt()
        middle, unit = _column(typical, s), turn.conj() / _column(size, s)
        turned = s * unit
        if scene.last_images is None or scene.last_point is None or scene.last_density is None:
            last = torch.zeros(self.rank + 3, *level.shape, device=s.device)
        else:
            density = (scene.last_density * turn.conj()).real[None] / scale
            last = torch.cat([(scene.last_images * unit).real, scene.last_point - middle, density])
        flat = torch.zeros_like(level)
        channels = [
            turned.real,
            turned.imag,
            last,
            scene.point - middle,
            (scene.density * turn.conj()).real[None] / scale,
            1 + torch.log10(level / _LEVEL)[None],
            10 * (flat if scene.b1 is None else scene.b1 - 1)[None],
            (flat + float(scene.last_images is None))[None],
        ]
        stacked = torch.cat(channels)
        planes = stacked.movedim(0, -3).reshape(-1, *stacked.shape[:1], *stacked.shape[-2:])
        output = self.encoder(planes)
        return output.reshape(*s.shape[1:-2], -1, *s.shape[-2:]).movedim(-3, 0)


def _level(scene: Scene) -> Tensor:
    """Standard deviation of a coefficient without folding, over the object's density, `(*image)`."""
    gain = scene.gain.clamp_min(1e-3 * scene.gain.max())
    return scene.noise / (gain.sqrt() * scene.scale)


def _column(values: Tensor, image: Tensor) -> Tensor:
    """`(n,)` as `(n, 1, ...)` beside `(n, *image)`."""
    return values.to(image.device).reshape(-1, *[1] * (image.ndim - 1))


def _limited(rho: Tensor, largest: Tensor) -> Tensor:
    return rho * (largest / rho.detach().abs().clamp_min(_TINY)).clamp_max(1)


def _smooth_phase(rho: Tensor) -> Tensor:
    """exp(i arg) of ρ `(*image)` smoothed in its planes."""
    size, times = _PHASE
    parts = torch.view_as_real(rho).movedim(-1, 0).reshape(-1, 1, *rho.shape[-2:])
    for _ in range(times):
        padded = functional.pad(parts, [size // 2] * 4, mode="replicate")
        parts = functional.avg_pool2d(padded, size, stride=1)
    smooth = torch.view_as_complex(parts.reshape(2, *rho.shape).movedim(0, -1).contiguous())
    return torch.where(smooth == 0, torch.ones_like(smooth), torch.sgn(smooth))
