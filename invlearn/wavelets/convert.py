"""Turn the down-sampling of an existing network into wavelet down-sampling, as WaveCNets define it.

==========================  =========================================================
in the given network        in the converted one
==========================  =========================================================
max-pool, average pool      low-pass (low wavelet band)
strided convolution         low-pass, then the same convolution with stride 1
strided 1 x 1 (shortcut)    low-pass, then the same 1 x 1 with stride 1
==========================  =========================================================
"""

from __future__ import annotations

import copy
import difflib
import functools
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from torch import nn

from invlearn.wavelets.filters import FilterBank, WaveletLike, filter_bank
from invlearn.wavelets.layers import WaveletDownsample

_MAX = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
_AVERAGE = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
_CONV = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_LAZY_NORM = {1: nn.LazyBatchNorm1d, 2: nn.LazyBatchNorm2d, 3: nn.LazyBatchNorm3d}
# Down-sampling that has no wavelet counterpart among the WaveCNets. Adaptive pooling is no down-sampling by
# two (it ends a network, or feeds its classifier) and stays.
_FOREIGN = (
    *(nn.LPPool1d, nn.LPPool2d, nn.LPPool3d),
    *(nn.FractionalMaxPool2d, nn.FractionalMaxPool3d, nn.PixelUnshuffle),
)

Kind = Literal["max-pool", "average-pool", "strided convolution", "strided shortcut"]


@dataclass(frozen=True)
class Replacement:
    """One replaced module.

    Attributes
    ----------
    name : str
        Its dotted name in the network, ``""`` for the network itself.
    kind : {"max-pool", "average-pool", "strided convolution", "strided shortcut"}
        What it was; a shortcut is a strided convolution of kernel 1.
    before, after : str
        The module, printed, before and after.
    """

    name: str
    kind: Kind
    before: str
    after: str


@dataclass(frozen=True)
class Conversion:
    """A converted network and what was replaced in it.

    Attributes
    ----------
    model : nn.Module
        The converted copy.
    wavelet : str
        The name of the wavelet of all replacements.
    replacements : tuple of Replacement
        One for every name, in the order of the network.
    """

    model: nn.Module
    wavelet: str
    replacements: tuple[Replacement, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return wavelet and replacements as plain data (without the network)."""
        return {"wavelet": self.wavelet, "replacements": [asdict(r) for r in self.replacements]}

    def __str__(self) -> str:
        lines = [
            f"{r.name or '(the network itself)'}: {r.kind} {r.before} -> {r.after}" for r in self.replacements
        ]
        return "\n".join([f"{len(lines)} replaced by wavelet {self.wavelet!r}", *lines])


def replace_downsampling(
    model: nn.Module,
    wavelet: WaveletLike = "haar",
    *,
    skip: str | Sequence[str] = (),
    unit_gain: bool = False,
    batch_norm: bool = False,
) -> Conversion:
    """Replace every down-sampling by two of `model` by wavelet down-sampling; `model` stays as it is.

    Pooling becomes the low band of a one-level transform, a strided convolution becomes the low band followed
    by the same convolution with stride 1; all weights are kept. Output sizes are ``ceil(n / 2)``: those of
    the given network wherever an axis is even, one more where it rounded an odd axis down.

    Parameters
    ----------
    model : nn.Module
        A network with 1D, 2D or 3D pooling and convolutions (VGG, ResNet, DenseNet, U-Net, ...).
    wavelet : str, pywt.Wavelet, FilterBank or four sequences of float
        The wavelet; periodization at the borders.
    skip : str or sequence of str
        Dotted names of modules to leave as they are, with all that is inside them (a module that is used
        under other names too is left alone there as well). The ResNets and DenseNets among the WaveCNets
        keep their strided 7 x 7 stem, for instance: ``skip=("conv1",)``.
    unit_gain : bool
        Scale the low band to the size of an average: with haar, average pools of kernel 2 then compute what
        they did. The orthonormal low band of the WaveCNets multiplies constants by 2**(ndim / 2), which
        batch normalisation learns to absorb.
    batch_norm : bool
        Follow the low band of every replaced pool by a new batch normalisation, as in the VGGs among the
        WaveCNets. It learns its number of channels from the first batch: run one before making an optimiser.

    Returns
    -------
    Conversion
        The converted copy and the list of what was replaced.

    Raises
    ------
    TypeError
        If `model` is not a module.
    ValueError
        If something in `model` halves its input in a way without wavelet counterpart (each is named, with
        the reason), if there is nothing to replace, if a name in `skip` does not exist, or for an unknown
        wavelet.

    Notes
    -----
    Only modules are seen. Down-sampling by functions inside a ``forward`` (``F.max_pool2d``, slicing) is not,
    except where a module keeps it as a ``functools.partial`` with a stride, which is refused.

    References
    ----------
    Li, Shen, Guo, Lai, "Wavelet integrated CNNs for noise-robust image classification" (CVPR 2020),
    arXiv:2005.03337.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"replace_downsampling: model must be a torch.nn.Module, got {type(model).__name__}")
    bank = filter_bank(wavelet)
    plan = _plan(model, (skip,) if isinstance(skip, str) else tuple(skip))
    model = copy.deepcopy(model)
    found = {name: model.get_submodule(name) for name in plan}
    report: list[Replacement] = []
    made: dict[int, tuple[str, nn.Module]] = {}  # a module used under two names stays one module
    for name, kind in plan.items():
        old = found[name]
        if id(old) not in made:
            made[id(old)] = str(old), _replacement(old, bank, unit_gain, batch_norm)
        before, new = made[id(old)]
        report.append(Replacement(name, kind, before, _one_line(new)))
        if name:
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, new)
        else:
            model = new
    return Conversion(model, bank.name, tuple(report))


class _RefusedError(Exception):
    """Why a module that down-samples cannot be replaced."""


def _plan(model: nn.Module, skip: tuple[str, ...]) -> dict[str, Kind]:
    """Name everything to replace, or raise with everything that cannot be."""
    plan: dict[str, Kind] = {}
    refused: dict[str, str] = {}
    modules = dict(model.named_modules(remove_duplicate=False))
    seen = set(modules)
    for name, module in modules.items():
        try:
            kind = _kind(module)
        except _RefusedError as reason:
            refused[name] = f"{type(module).__name__}: {reason}"
        else:
            if kind is not None:
                plan[name] = kind
        for attribute, stride in _strided_partials(module):
            path = f"{name}.{attribute}".lstrip(".")
            seen.add(path)
            refused[path] = f"a function with stride={stride}: only modules can be replaced"
    for name in skip:
        if name not in seen:
            near = ", ".join(difflib.get_close_matches(name, seen)) or "see model.named_modules()"
            raise ValueError(f"replace_downsampling: skip has {name!r}, which is not in the model: {near}")

    def kept(name: str) -> bool:
        return any(name == s or name.startswith(f"{s}.") for s in skip)

    wrong = [f"{name or 'the model itself'} ({reason})" for name, reason in refused.items() if not kept(name)]
    if wrong:
        raise ValueError(
            f"replace_downsampling cannot replace {'; '.join(wrong)}: "
            f"change the model, or name them in skip to leave them as they are"
        )
    alone = {id(module) for name, module in modules.items() if kept(name)}
    plan = {name: kind for name, kind in plan.items() if id(modules[name]) not in alone}
    if not plan:
        raise ValueError(
            f"replace_downsampling: {type(model).__name__} has no pooling or strided convolution to replace"
        )
    return plan


def _each(value: Any, ndim: int) -> tuple[int, ...]:
    return (value,) * ndim if isinstance(value, int) else tuple(value)


def _rank(module: nn.Module) -> int:
    return next(d for d in (1, 2, 3) if isinstance(module, (_MAX[d - 1], _AVERAGE[d - 1], _CONV[d - 1])))


def _kind(module: nn.Module) -> Kind | None:
    """Classify a module: what it is to be replaced as, or ``None`` if it does not down-sample."""
    if isinstance(module, _FOREIGN):
        raise _RefusedError("has no wavelet counterpart")
    if not isinstance(module, (*_MAX, *_AVERAGE, *_CONV)):
        return None
    ndim = _rank(module)
    stride, kernel = _each(module.stride, ndim), _each(module.kernel_size, ndim)
    if set(stride) == {1}:
        return None
    if set(stride) != {2}:
        raise _RefusedError(f"has stride {stride}: one wavelet level halves every axis")
    dilation = _each(getattr(module, "dilation", 1), ndim)
    padding = (0,) * ndim if isinstance(module.padding, str) else _each(module.padding, ndim)
    # what the window reaches beyond its first sample, less what the padding adds
    excess = [d * (k - 1) - 2 * p for k, d, p in zip(kernel, dilation, padding, strict=True)]
    if isinstance(module, _CONV):
        if any(excess):
            raise _RefusedError(
                f"has kernel {kernel} with padding {padding}: at stride 1 it would change the size"
            )
        return "strided shortcut" if set(kernel) == {1} else "strided convolution"
    if getattr(module, "return_indices", False):
        raise _RefusedError("returns indices for unpooling")
    # an even n becomes n / 2 only if 0 or 1 is left over (1 or 2 if sizes are rounded up)
    if not set(excess) <= ({1, 2} if module.ceil_mode else {0, 1}):
        raise _RefusedError(f"has kernel {kernel} with padding {padding}: it does not halve an even size")
    return "max-pool" if isinstance(module, _MAX) else "average-pool"


def _strided_partials(module: nn.Module) -> Iterator[tuple[str, Any]]:
    for attribute, value in vars(module).items():
        if isinstance(value, functools.partial):
            stride = value.keywords.get("stride", 1)
            if set(_each(stride, 1)) != {1}:
                yield attribute, stride


def _replacement(old: nn.Module, bank: FilterBank, unit_gain: bool, batch_norm: bool) -> nn.Module:
    ndim = _rank(old)
    low = WaveletDownsample(bank, ndim, keep="low", unit_gain=unit_gain)
    if isinstance(old, _CONV):
        old.stride = (1,) * ndim
        return nn.Sequential(OrderedDict(low=low, conv=old))
    if batch_norm:
        with warnings.catch_warnings():  # lazy modules announce that their interface may change
            warnings.simplefilter("ignore", UserWarning)
            return nn.Sequential(OrderedDict(low=low, norm=_LAZY_NORM[ndim]()))
    return low


def _one_line(module: nn.Module) -> str:
    if isinstance(module, nn.Sequential):
        return " -> ".join(str(part) for part in module)
    return str(module)
