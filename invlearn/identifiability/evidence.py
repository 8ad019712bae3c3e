"""What a user has beside the operators: signals, a generator of signals, or measurements alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from invlearn.identifiability.setting import Setting


def _integral(x: Tensor) -> bool:
    return not (x.is_floating_point() or x.is_complex() or x.dtype == torch.bool)


@dataclass(frozen=True, eq=False)
class Measurements:
    """Measurements without ground truth: y_i = A_{g_i} x_i.

    Attributes
    ----------
    y
        `(N, m)` or `(N, *codomain)`. For masks, m is the number of pixels (zero-filled) or of kept
        entries.
    operator_index
        `(N,)` integers g_i; None for one operator.

    Raises
    ------
    ValueError
        An index that does not fit, or NaN and infinite entries.
    """

    y: Tensor
    operator_index: Tensor | None = None

    def __post_init__(self) -> None:
        y = torch.as_tensor(self.y)
        index = torch.zeros(len(y), dtype=torch.int64) if self.operator_index is None else self.operator_index
        index = torch.as_tensor(index)
        if y.ndim < 2 or not len(y):
            raise ValueError(f"measurements need the shape (N, m) with N > 0, got {tuple(y.shape)}")
        if index.shape != (len(y),) or not _integral(index):
            raise ValueError(
                f"operator_index must be {len(y)} integers, one a sample; got {index.dtype} "
                f"{tuple(index.shape)}"
            )
        if not bool(torch.isfinite(y).all()):
            raise ValueError("the measurements have NaN or infinite entries")
        object.__setattr__(self, "y", y)
        object.__setattr__(self, "operator_index", index.long())

    def check_fits(self, setting: Setting) -> None:
        """ValueError where these cannot be measurements of the setting's operators."""
        assert self.operator_index is not None
        low, high = int(self.operator_index.min()), int(self.operator_index.max())
        if low < 0 or high >= len(setting.family):
            raise ValueError(
                f"operator_index runs from {low} to {high}, but there are {len(setting.family)} operators "
                f"(0-based)"
            )
        width = self.y[0].numel()
        sizes = {op.codomain.size for op in setting.family}
        if width not in sizes and not max(setting.ranks) <= width <= max(sizes):
            raise ValueError(
                f"a sample of y has {width} numbers, the operators give {', '.join(map(str, sorted(sizes)))} "
                f"(of rank {max(setting.ranks)})"
            )
        if self.y.is_complex() and not any(op.codomain.complex for op in setting.family):
            raise ValueError(
                "y is complex, but these operators give real measurements; pass y.real, or complex operators"
            )


@dataclass(frozen=True, eq=False)
class Generated:
    """A signal set given by a network: x = network(z).

    Attributes
    ----------
    network
        Maps latents `(latent_dimension,)` to one signal; differentiable. A module gets latents of its
        parameters' dtype and device, anything else float64.
    latent_dimension
        Size of z.
    """

    network: Callable[[Tensor], Tensor]
    latent_dimension: int


def network_tangents(setting: Setting, signals: Generated, points: int, seed: int) -> list[Tensor]:
    """Tangent spaces `(k, n)` at random latents, from the network's Jacobian."""
    generator = torch.Generator().manual_seed(seed)
    like = torch.zeros(0, dtype=torch.float64, device=setting.device)
    if isinstance(signals.network, torch.nn.Module):
        like = next(signals.network.parameters(), like)

    def one(z: Tensor) -> Tensor:
        x = setting.domain.check(signals.network(z), "the signals' space (output of the network)")
        if x.ndim != setting.domain.ndim:
            raise ValueError(
                f"the network must give one signal {setting.domain.shape} for latents of shape "
                f"({signals.latent_dimension},), got {tuple(x.shape)}"
            )
        x = setting.domain.flatten(x)
        return torch.view_as_real(x) if x.is_complex() else x

    out = []
    for _ in range(points):
        z = torch.randn(signals.latent_dimension, dtype=torch.float64, generator=generator)
        jacobian = torch.func.jacfwd(one)(z.to(like)).detach()
        if setting.domain.complex:
            jacobian = torch.view_as_complex(jacobian.movedim(1, -1).contiguous())
        # In single precision the Jacobian's noise would pass for more dimensions.
        cut = 1e-11 if jacobian.dtype in (torch.float64, torch.complex128) else 1e-5
        u, s, _ = torch.linalg.svd(
            jacobian.to(setting.device, setting.domain.dtype(torch.float64)), full_matrices=False
        )
        out.append(u[:, s > cut * s[0]].T)
    return out


def sample_tangents(
    setting: Setting, x: Tensor, k: int, points: int, seed: int, noise: float = 0.0
) -> list[Tensor]:
    """Tangent spaces `(k, n)` at random samples: local PCA over the nearest neighbours.

    Parameters
    ----------
    x
        Signals `(N, n)`, flattened.
    k
        Dimension of the tangent spaces.
    points
        How many.
    noise
        SD of noise in the signals: neighbourhoods grow until they are wider than it.
    """
    generator = torch.Generator().manual_seed(seed)
    neighbours = min(len(x) - 1, 2 * k + 8)
    if neighbours < k:
        raise ValueError(
            f"{len(x)} signals are too few for tangent spaces of dimension {k}: at least {2 * k + 9} are "
            f"needed"
        )
    out = []
    for i in torch.randperm(len(x), generator=generator)[:points].tolist():
        difference = x - x[i]
        distance = torch.linalg.vector_norm(difference, dim=1)
        reach = 2 * noise * (2 * setting.n) ** 0.5
        width = max(neighbours, min(len(x) - 1, int((distance <= reach).sum())))
        near = distance.argsort()[1 : width + 1]
        u, s, _ = torch.linalg.svd((x[near] - x[near].mean(0)).T, full_matrices=False)
        out.append(u[:, : min(k, int((s > 1e-10 * s[0].clamp_min(1e-300)).sum()))].T)
    return out
