"""Maps against a truth, in three numbers each."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from invlearn.io.maps import TissueMaps


@dataclass(frozen=True)
class MapError:
    """How far a map is from the truth, over the voxels of a mask; fractions of 1.

    Attributes
    ----------
    median_relative_error
        Median of \\|estimate - truth\\| / truth.
    nrmse
        ‖estimate - truth‖ / ‖truth‖.
    bias
        Mean of estimate - truth, over the mean of the truth.
    """

    median_relative_error: float
    nrmse: float
    bias: float

    @classmethod
    def of(cls, estimate: np.ndarray, truth: np.ndarray) -> MapError:
        """For values `(voxels,)` with a positive truth."""
        difference = estimate - truth
        return cls(
            float(np.median(np.abs(difference) / truth)),
            float(np.linalg.norm(difference) / np.linalg.norm(truth)),
            float(difference.mean() / truth.mean()),
        )


@dataclass(frozen=True)
class Evaluation:
    """Errors of the three maps.

    Attributes
    ----------
    t1, t2, pd
        Of each map; of \\|pd\\| after one least-squares scale, since its unit is arbitrary.
    voxels
        How many were compared.
    """

    t1: MapError
    t2: MapError
    pd: MapError
    voxels: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def pd_scale(pd: np.ndarray, truth: np.ndarray) -> float:
    """The factor on `pd` that brings it closest to `truth`."""
    energy = float(np.sum(pd**2))
    return float(np.sum(pd * truth)) / energy if energy > 0 else 0.0


def evaluate_maps(
    t1: np.ndarray, t2: np.ndarray, pd: np.ndarray, truth: TissueMaps, mask: np.ndarray | None = None
) -> Evaluation:
    """Compare maps with a truth where it has signal.

    Parameters
    ----------
    t1, t2
        In s, of the truth's shape.
    pd
        Proton density in any unit, real or complex.
    truth
        The truth; only voxels of its mask count.
    mask
        Further restriction, such as one tissue; boolean.

    Raises
    ------
    ValueError
        Another shape than the truth's, NaN or infinite values where the truth has signal, no voxel left.
    """
    where = truth.inside if mask is None else truth.inside & np.asarray(mask, bool)
    if not where.any():
        raise ValueError("no voxel of the mask has signal in the truth: nothing to compare")
    found = {}
    for name, values in (("t1", t1), ("t2", t2), ("pd", np.abs(pd))):
        if values.shape != truth.shape:
            raise ValueError(
                f"the {name} map has the shape {values.shape}, the truth {truth.shape}; "
                "bring both to one grid first"
            )
        found[name] = np.asarray(values, np.float64)[where]
        if not np.isfinite(found[name]).all():
            raise ValueError(f"the {name} map is NaN or infinite in voxels where the truth has signal")
    density = truth.pd[where]
    return Evaluation(
        MapError.of(found["t1"], truth.t1[where]),
        MapError.of(found["t2"], truth.t2[where]),
        MapError.of(pd_scale(found["pd"], density) * found["pd"], density),
        int(where.sum()),
    )
