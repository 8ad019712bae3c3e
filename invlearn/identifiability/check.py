"""Can a reconstruction be learned from these measurements alone?"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from invlearn.identifiability import bounds as conditions
from invlearn.identifiability.bounds import Bound
from invlearn.identifiability.certificates import (
    Certificate,
    GhostTest,
    completability,
    ghost_test,
    random_subspace,
    subspace_certificate,
    tangent_certificate,
)
from invlearn.identifiability.coverage import Coverage, measure_coverage
from invlearn.identifiability.dimension import (
    DimensionEstimate,
    estimate_dimension,
    estimate_dimension_from_measurements,
)
from invlearn.identifiability.evidence import Generated, Measurements, network_tangents, sample_tangents
from invlearn.identifiability.plan import plan
from invlearn.identifiability.report import Report, Verdict
from invlearn.identifiability.setting import DENSE_LIMIT, Setting
from invlearn.physics.family import OperatorFamily
from invlearn.physics.groups import Group
from invlearn.physics.operator import LinearOperator
from invlearn.physics.space import as_numbers

_POINTS = 5  # tangent certificates run at this many points of the signal set
_SWEEP = 7  # verdicts over the interval of an estimated dimension, at most


def check(
    operators: OperatorFamily | LinearOperator,
    *,
    group: Group | None = None,
    dimension: int | None = None,
    subspace: Tensor | np.ndarray | None = None,
    signals: Tensor | np.ndarray | Generated | Measurements | None = None,
    noise: float | None = None,
    certify: bool = True,
    seed: int = 0,
    device: torch.device | str | None = None,
) -> Report:
    """Decide whether signals can be learned from incomplete measurements by these operators.

    Necessary conditions are evaluated exactly for the operators at hand; then, if a signal model is
    given, a rank certificate runs for them. Theorems on almost every operator decide only for
    unstructured operators, and only without a certificate.

    Parameters
    ----------
    operators
        A family (each signal measured by one of them), or one operator.
    group
        Under which the signal set is invariant; acts on the operators' domain.
    dimension
        k, dimension of the signal set. Without anything else the certificate runs on random linear
        k-subspaces.
    subspace
        A known linear model: basis vectors `(k, *domain.shape)`. The certificate is exact for it.
    signals
        Samples `(N, *domain.shape)` (k estimated unless `dimension` is given; tangent certificate from
        local PCA), a `Generated` set (tangents from the network), or `Measurements` (k estimated from
        measurements alone, certificate on random subspaces).
    noise
        SD of white noise in `signals`, in their unit. Used by the estimates, and reported.
    certify
        False leaves the rank certificate out.
    seed
        Of random subspaces, points and probes.
    device
        Where to compute; by default where the operators are. They are copied, not moved.

    Returns
    -------
    Report

    Raises
    ------
    ValueError
        k < 1 or k > n, NaN, a zero operator, a wrong adjoint, a group or signals that do not fit the
        domain, both `subspace` and `signals`.
    TypeError
        Arguments of another kind.

    References
    ----------
    Tachella, Chen & Davies, NeurIPS 2022, arXiv:2201.12151, and JMLR 2023, arXiv:2203.12513.
    """
    if device is not None:
        try:
            operators = copy.deepcopy(operators).to(device)
        except (AssertionError, RuntimeError) as error:  # torch's words for a device it lacks
            raise ValueError(
                f"device {str(device)!r} cannot be used here: {str(error).splitlines()[0]}"
            ) from error
    setting = Setting(operators, group)
    if subspace is not None and (signals is not None or dimension is not None):
        raise ValueError("give subspace= alone: it sets the dimension, and the model")
    if noise is not None and not 0 <= noise < float("inf"):
        raise ValueError(f"noise is a standard deviation >= 0, got {noise}")
    model = _Model.of(setting, dimension, subspace, signals, noise, seed)
    coverage = measure_coverage(setting, seed)
    outcome = _decide(setting, coverage, model, model.dimension, certify)
    sweep: tuple[tuple[int, Verdict], ...] = ()
    if model.estimate is not None and model.dimension is not None:
        sweep = tuple(
            (
                k,
                outcome.verdict
                if k == model.dimension
                else _decide(setting, coverage, model, k, certify).verdict,
            )
            for k in _interval(model.estimate, model.dimension, setting)
        )
    return _report(setting, coverage, model, _hedged(setting, model, outcome), sweep, noise)


@dataclass(frozen=True, eq=False)
class _Model:
    """The signal model: a dimension, and the tangent spaces or subspace it comes with."""

    dimension: int | None
    kind: str  # "random", "subspace", "samples", "network", "none"
    seed: int
    noise: float
    basis: Tensor | None = None
    samples: Tensor | None = None
    generated: Generated | None = None
    estimate: DimensionEstimate | None = None

    def mixes(self, setting: Setting) -> bool:
        """Whether several subspaces are in play: unions of random ones, or copies under a group."""
        return self.kind == "random" or (self.kind == "subspace" and setting.group is not None)

    @classmethod
    def of(
        cls,
        setting: Setting,
        dimension: int | None,
        subspace: Any,
        signals: Any,
        noise: float | None,
        seed: int,
    ) -> _Model:
        k = None if dimension is None else _checked_dimension(dimension, setting)
        sd = noise or 0.0
        if subspace is not None:
            basis = _flat(setting, subspace, "subspace")
            rank = int(torch.linalg.matrix_rank(basis))
            if rank < len(basis):
                raise ValueError(f"the {len(basis)} vectors of subspace= span only {rank} dimensions")
            return cls(_checked_dimension(rank, setting), "subspace", seed, sd, basis=basis)
        if isinstance(signals, Generated):
            latent = _checked_dimension(signals.latent_dimension, setting)
            if k not in (None, latent):
                raise ValueError(f"dimension={k}, but the network has {latent} latents: leave dimension= out")
            return cls(latent, "network", seed, sd, generated=signals)
        if isinstance(signals, Measurements):
            signals.check_fits(setting)
            if k is not None:
                return cls(k, "random", seed, sd)
            y = signals.y
            if y.is_complex() and not setting.domain.complex:  # k counts the numbers of the domain
                y = torch.view_as_real(y.resolve_conj()).flatten(1)
            found = estimate_dimension_from_measurements(y, signals.operator_index, noise=noise, seed=seed)
            return cls(_estimated(found, setting), "random", seed, sd, estimate=found)
        if signals is not None:
            x = _flat(setting, signals, "signals")
            if k is not None:
                return cls(k, "samples", seed, sd, samples=x)
            found = estimate_dimension(x.cpu(), noise=noise, seed=seed)
            return cls(_estimated(found, setting), "samples", seed, sd, samples=x, estimate=found)
        return cls(k, "none" if k is None else "random", seed, sd)


def _checked_dimension(dimension: int, setting: Setting) -> int:
    if isinstance(dimension, bool) or int(dimension) != dimension:
        raise TypeError(f"the dimension is an integer, got {dimension!r}")
    if not 1 <= dimension <= setting.n:
        raise ValueError(f"the dimension k must be between 1 and n = {setting.n}, got {dimension}")
    return int(dimension)


def _estimated(found: DimensionEstimate, setting: Setting) -> int:
    return min(max(found.value, 1), setting.n)


def _flat(setting: Setting, x: Any, what: str) -> Tensor:
    x = setting.domain.check(as_numbers(x, f"{what}="), f"{what}=")
    if x.ndim != setting.domain.ndim + 1 or not len(x):
        raise ValueError(
            f"{what}= must be (count, {', '.join(map(str, setting.domain.shape))}), got {tuple(x.shape)}"
        )
    return setting.domain.flatten(x).to(setting.device, setting.domain.dtype(torch.float64))


@dataclass(frozen=True, eq=False)
class _Outcome:
    verdict: Verdict
    reason: str
    bounds: tuple[Bound, ...]
    certificate: Certificate | None = None
    ghosts: GhostTest | None = None
    basis: Tensor | None = None  # of the subspace that a failed certificate was computed for


_FAILURES = {
    "N1": "{unseen} of {n} directions are seen by no operator; nothing can be learned about them",
    "N2": "{unseen} of {n} directions are seen by no operator moved by the group; nothing can be learned "
    "about them",
    "N3": "the operator is equivariant: the group only shows it again what it sees already",
    "count": "the operators together have fewer measurements than unknowns",
    "multiplicity": "fewer measurements than the group's representation has generators",
    "dimension": "the signals' dimension k = {k} is not below any operator's rank (at most {m}): "
    "measurements fill the whole range and constrain nothing",
}


def _decide(setting: Setting, coverage: Coverage, model: _Model, k: int | None, certify: bool) -> _Outcome:
    listed = [conditions.stack_rank_bound(setting, coverage), conditions.count_bound(setting)]
    if setting.group is not None:
        listed += [conditions.multiplicity_bound(setting), conditions.equivariance_bound(setting, coverage)]
    if k is not None:
        listed += [
            conditions.dimension_bound(setting, k, model.basis),
            *conditions.generic_bounds(setting, k),
        ]
    if model.noise:
        listed.append(conditions.noise_bound(model.noise))
    found = tuple(listed)
    failed = [b for b in found if b.kind == "necessary" and b.applies and b.holds is False]
    if failed:
        unseen = ("" if coverage.complete else "at least ") + str(setting.n - coverage.rank)
        why = _FAILURES[failed[0].id].format(unseen=unseen, n=setting.n, k=k, m=max(setting.ranks))
        return _Outcome("impossible", why[0].upper() + why[1:] + ".", found)
    if k is None:
        why = (
            "The necessary conditions hold; a dimension, a subspace, signals or measurements would tell more."
        )
        return _Outcome("undecided", why, found)
    if not certify:
        if conditions.generic_holds(found):
            why = (
                "The operators are unstructured and the theorems for almost every operator hold, for "
                "learning and for recovery; no certificate was computed for these very operators."
            )
            return _Outcome("generic", why, found)
        why = "No theorem for almost every operator covers this case, and no certificate was computed."
        return _Outcome("undecided", why, found)
    return _certified(setting, model, k, found)


def _hedged(setting: Setting, model: _Model, outcome: _Outcome) -> _Outcome:
    """An estimated k >= m proves nothing impossible while its interval reaches below m."""
    failed = [b.id for b in outcome.bounds if b.kind == "necessary" and b.applies and b.holds is False]
    m, estimate = max(setting.ranks), model.estimate
    if estimate is None or failed != ["dimension"] or estimate.low >= m:
        return outcome
    low, high = round(estimate.low, 1), round(estimate.high, 1)
    why = (
        f"The estimated dimension, {low:g} to {high:g}, may reach the operators' rank (at most {m}): "
        "measurements would then fill the whole range and constrain nothing."
    )
    bounds = tuple(
        replace(b, holds=None, note="k is an estimate") if b.id == "dimension" else b for b in outcome.bounds
    )
    return replace(outcome, verdict="undecided", reason=why, bounds=bounds)


def _certified(setting: Setting, model: _Model, k: int, found: tuple[Bound, ...]) -> _Outcome:
    certificate, basis = _certificate(setting, model, k, found)
    ghosts = None
    tractable = setting.basis is not None or setting.n <= DENSE_LIMIT
    if certificate.passed and model.mixes(setting) and tractable:
        ghosts = ghost_test(setting, k, model.basis, seed=model.seed)
    if not certificate.passed:
        extra = certificate.nullity - certificate.expected_nullity
        if certificate.borderline:
            why = (
                "Borderline: the smallest singular value that should differ from zero is "
                f"{certificate.gap:.1e} of the largest, too close to rounding to tell."
            )
        elif extra > 0:
            why = (
                f"The rank certificate failed: {extra} direction(s) outside a {k}-dimensional model have "
                "measurements that the model explains."
            )
        else:
            why = "The rank computation did not finish: " + certificate.method + "."
        return _Outcome("undecided", why, found, certificate, ghosts, basis)
    if setting.group is not None and ghosts is not None and ghosts.ghost_dimension:
        why = (
            "The certificate passed for a subspace's copies one by one, but with measurements of "
            f"different copies mixed {ghosts.ghost_dimension} spurious direction(s) remain."
        )
        return _Outcome("undecided", why, found, certificate, ghosts, basis)
    what = {
        "subspace": f"a {k}-dimensional linear model",
        "orbit": f"a {k}-dimensional subspace and its copies under the group",
        "tangent": f"the signal set near {_POINTS} of its points",
    }[certificate.model]
    why = f"For these very operators, measurements alone fix {what}."
    return _Outcome("certified", why, found, certificate, ghosts, basis)


def _certificate(
    setting: Setting, model: _Model, k: int, found: Sequence[Bound]
) -> tuple[Certificate, Tensor | None]:
    if model.kind == "network":
        assert model.generated is not None
        tangents = network_tangents(setting, model.generated, _POINTS, model.seed)
        return tangent_certificate(setting, tangents, "the network's Jacobian", model.seed), None
    if model.kind == "samples":
        assert model.samples is not None
        tangents = sample_tangents(setting, model.samples, k, _POINTS, model.seed, model.noise)
        return tangent_certificate(setting, tangents, "local PCA of the samples", model.seed), None
    moved = setting.group is not None
    name = "orbit" if moved else "subspace"
    if model.basis is not None:
        scope = "the given subspace" + (", each of its copies under the group" if moved else "")
        return subspace_certificate(setting, model.basis, scope, model=name, seed=model.seed), model.basis
    copies = ", each of its copies under the group where the copy is known" if moved else ""
    scope = (
        f"almost every linear subspace of dimension {k}{copies}: full rank at a random one, examined here, "
        "is full rank outside a set of measure zero; unions of subspaces and curved sets are not covered"
    )
    slack = sum(max(r - k, 0) for r in setting.distinct_ranks) * setting.order
    attempts = 3 if slack >= setting.n - k and setting.n <= DENSE_LIMIT else 1
    for i in range(attempts):
        generator = torch.Generator().manual_seed(model.seed + 101 * i)
        basis = random_subspace(setting, k, generator)
        certificate = subspace_certificate(setting, basis, scope, model=name, seed=model.seed + i)
        if certificate.passed:
            break
    return certificate, basis


def _interval(estimate: DimensionEstimate, used: int, setting: Setting) -> list[int]:
    low = max(1, int(np.floor(estimate.low)))
    high = min(setting.n, max(int(np.ceil(estimate.high)), used))
    quick = setting.n <= 600 or (setting.basis is not None and setting.n <= 4096)
    most = _SWEEP if quick else 3
    return sorted({*np.unique(np.linspace(low, high, most).round().astype(int)).tolist(), used})


def _report(
    setting: Setting,
    coverage: Coverage,
    model: _Model,
    outcome: _Outcome,
    sweep: tuple[tuple[int, Verdict], ...],
    noise: float | None,
) -> Report:
    k, group = model.dimension, setting.group
    m = min(setting.distinct_ranks)
    keep = m / setting.n if setting.basis == "pixel" else None
    planned = plan(
        setting.n,
        k or 1,
        m=m,
        operators=None if group is not None else setting.effective,
        group=group,
        keep=keep,
    )
    shape = setting.domain.shape
    certificate = outcome.certificate
    unseen, what = coverage.unseen, "directions that no operator sees"
    completable: Tensor | None = None
    if certificate is not None and not certificate.passed:
        unseen, what = certificate.ghosts, "directions that the measurements do not separate from the model"
        small = setting.count * setting.n <= 2**22
        if outcome.basis is not None and group is None and small and len(certificate.ghosts):
            seen = completability(setting, outcome.basis, certificate.ghosts)
            completable = seen.double().mean(0).reshape(shape).cpu()
    shown = unseen[:8].reshape(-1, *shape).cpu() if len(unseen) else None
    return Report(
        verdict=outcome.verdict,
        reason=outcome.reason,
        n=setting.n,
        m=setting.ranks,
        operators=len(setting.family),
        group=None if group is None else group.name,
        dimension=k,
        bounds=outcome.bounds,
        certificate=certificate,
        plan=planned,
        warnings=tuple(_warnings(setting, coverage, model, outcome, noise)),
        shape=shape,
        complex=setting.domain.complex,
        ghost_test=outcome.ghosts,
        coverage=None if setting.coverage is None else setting.coverage.cpu(),
        coverage_basis=setting.basis,
        unseen=shown,
        unseen_what=what if shown is not None else "",
        completable=completable,
        dimension_estimate=model.estimate,
        sweep=sweep,
    )


def _warnings(
    setting: Setting, coverage: Coverage, model: _Model, outcome: _Outcome, noise: float | None
) -> list[str]:
    out = []
    if setting.duplicates:
        pairs = ", ".join(f"{j} repeats {i}" for i, j in setting.duplicates[:5])
        more = "" if len(setting.duplicates) <= 5 else ", ..."
        out.append(f"{setting.effective} different operators: {pairs}{more} (same row space)")
    redundant = [
        i
        for i, op in enumerate(setting.family)
        if setting.spectra[i] is None and setting.ranks[i] < setting.rows[i]
    ]
    redundant = [i for i in redundant if i not in setting.rank_unknown and setting.rows[i] <= setting.n]
    if redundant:
        i = redundant[0]
        out.append(
            f"{len(redundant)} operator(s) have redundant rows: operator {i} has {setting.rows[i]} rows "
            f"of rank {setting.ranks[i]}; the rank counts"
        )
    if setting.rank_unknown:
        out.append(f"the ranks of {len(setting.rank_unknown)} large operator(s) are upper bounds")
    if not setting.domain.complex and any(op.codomain.complex for op in setting.family):
        out.append("complex measurements of real signals count as two real ones each; the rank counts")
    k = model.dimension
    if k is not None:
        weak = [i for i, r in enumerate(setting.ranks) if r <= k < setting.n]
        if weak and len(weak) < len(setting.ranks):
            out.append(
                f"{len(weak)} operator(s) have rank <= k = {k} and constrain nothing; they are left out"
            )
        unmeasured = [b for b in outcome.bounds if b.id == "R" and b.applies and not b.holds]
        if unmeasured and outcome.verdict == "certified":
            out.append(
                "m <= 2k: a nonlinear signal set, once learned, may still not allow signals to be recovered"
            )
    if setting.family.structured:
        out.append(
            "theorems on almost every operator do not apply to these structured operators and did not decide"
        )
    if outcome.ghosts is not None and outcome.ghosts.ghost_dimension and setting.group is None:
        out.append(
            f"unions of {k}-dimensional subspaces are not fixed by these measurements: mixed assignments "
            f"leave {outcome.ghosts.ghost_dimension} spurious direction(s)"
        )
    if outcome.verdict == "certified" and outcome.ghosts is None and model.mixes(setting):
        out.append("the test of mixed assignments (unions of subspaces) was left out at this size")
    if coverage.note:
        out.append(coverage.note)
    if noise:
        out.append(f"noise of SD {noise:g}: the verdict speaks of unlimited data")
    if model.estimate is not None:
        out.extend(model.estimate.warnings)
    return out
