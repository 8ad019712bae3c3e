"""Two-channel filter banks and the border modes of the transforms."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args

import pywt

Mode: TypeAlias = Literal["periodization", "zero", "symmetric", "reflect", "periodic", "constant"]
MODES: tuple[str, ...] = get_args(Mode)


@dataclass(frozen=True)
class FilterBank:
    """The four filters of a discrete wavelet transform, all of one even length.

    The order and the alignment of the filters are those of `pywt.Wavelet.filter_bank`. Filters of odd
    length are completed with zeros, as PyWavelets does, and nothing else is asked of them: whether the
    bank reconstructs perfectly is `reconstruction_error`'s to say.

    Parameters
    ----------
    dec_lo, dec_hi : tuple of float
        Low-pass and high-pass analysis filters.
    rec_lo, rec_hi : tuple of float
        Low-pass and high-pass synthesis filters.
    name : str
        For messages and `repr` only; banks with the same filters are equal.

    Raises
    ------
    ValueError
        If a filter is empty, or the lengths differ.

    Notes
    -----
    Analysis: ``a[i] = Σ_j dec_lo[j] x[2i + s - j]`` and ``d[i]`` alike with ``dec_hi``, where ``s`` is
    half the length for `periodization` and 1 for the other modes.
    Synthesis: ``x[k] = Σ_i rec_lo[k + s' - 2i] a[i] + rec_hi[k + s' - 2i] d[i]`` with ``s'`` the length
    minus 1 minus ``s``.
    """

    dec_lo: tuple[float, ...]
    dec_hi: tuple[float, ...]
    rec_lo: tuple[float, ...]
    rec_hi: tuple[float, ...]
    name: str = field(default="custom", compare=False)

    def __post_init__(self) -> None:
        lengths = [len(f) for f in self.filters]
        if 0 in lengths or len(set(lengths)) > 1:
            raise ValueError(
                f"filter bank {self.name!r}: the four filters must have one common, non-zero length; "
                f"got {lengths}; pad the shorter ones with zeros"
            )
        for key in ("dec_lo", "dec_hi", "rec_lo", "rec_hi"):
            taps = tuple(float(tap) for tap in getattr(self, key))
            object.__setattr__(self, key, taps + (0.0,) * (len(taps) % 2))

    @property
    def filters(self) -> tuple[tuple[float, ...], ...]:
        """`(dec_lo, dec_hi, rec_lo, rec_hi)`."""
        return self.dec_lo, self.dec_hi, self.rec_lo, self.rec_hi

    @property
    def length(self) -> int:
        """Number of taps of each filter (even)."""
        return len(self.dec_lo)

    @property
    def orthogonal(self) -> bool:
        """Whether the inverse transform is also the adjoint (synthesis filters = analysis reversed)."""
        pairs = ((self.dec_lo, self.rec_lo), (self.dec_hi, self.rec_hi))
        reversed_alike = all(
            abs(d - r) < 1e-9 for dec, rec in pairs for d, r in zip(dec[::-1], rec, strict=True)
        )
        return reversed_alike and self.reconstruction_error() < 1e-6

    def reconstruction_error(self) -> float:
        """Largest deviation from perfect reconstruction, 0 for an exact bank.

        The product filter ``Σ_c rec_c * dec_c`` must be ``2 δ`` at the delay ``length - 1``, and the
        alias term ``Σ_c rec_c * (-1)^j dec_c`` must vanish (Vetterli and Herley, 1992,
        doi:10.1109/78.157221).
        """
        length = self.length
        product, alias = [0.0] * (2 * length - 1), [0.0] * (2 * length - 1)
        for dec, rec in ((self.dec_lo, self.rec_lo), (self.dec_hi, self.rec_hi)):
            for i, d in enumerate(dec):
                for j, r in enumerate(rec):
                    product[i + j] += d * r
                    alias[i + j] += -d * r if i % 2 else d * r
        product[length - 1] -= 2.0
        return max(abs(v) for v in (*product, *alias))


WaveletLike: TypeAlias = "str | pywt.Wavelet | FilterBank | Sequence[Sequence[float]]"


_KNOWN: dict[str, FilterBank] = {}


def _from_filters(filters: Iterable[Iterable[float]], name: str) -> FilterBank:
    dec_lo, dec_hi, rec_lo, rec_hi = (tuple(map(float, taps)) for taps in filters)
    return FilterBank(dec_lo, dec_hi, rec_lo, rec_hi, name)


def _named(name: str) -> FilterBank:
    if name not in _KNOWN:
        _KNOWN[name] = _look_up(name)
    return _KNOWN[name]


# PyWavelets is opaque to the compiler. This is what torch.compiler.assume_constant_result does, which would
# import the compiler: two seconds of every command.
_named._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _family(name: str) -> str:
    """A name without its order and parameters: "cmor" for "cmor1.5-1.0"."""
    return name.lower().rstrip("0123456789.-")


def _look_up(name: str) -> FilterBank:
    try:
        wavelet = pywt.Wavelet(name)
    except (ValueError, TypeError):  # the latter for an empty name
        pass
    else:
        return _from_filters(wavelet.filter_bank, name)
    if _family(name) in map(_family, pywt.wavelist(kind="continuous")):
        raise ValueError(
            f"wavelet {name!r} is continuous; this transform needs a discrete wavelet, for example "
            "'haar', 'db2' or 'bior2.2' (pywt.wavelist(kind='discrete') lists them)"
        )
    discrete = pywt.wavelist(kind="discrete")
    near = difflib.get_close_matches(name.lower(), discrete, n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(map(repr, near))}?" if near else "for example 'haar', 'db2', 'bior2.2'"
    raise ValueError(f"unknown wavelet {name!r}; {hint} (pywt.wavelist(kind='discrete') lists all)")


def filter_bank(wavelet: Any) -> FilterBank:
    """The filter bank of a wavelet.

    Parameters
    ----------
    wavelet : str, pywt.Wavelet, FilterBank or four sequences of float
        A discrete wavelet of PyWavelets by name or as an object, or a custom bank, either a
        `FilterBank` or `(dec_lo, dec_hi, rec_lo, rec_hi)`.

    Returns
    -------
    FilterBank

    Raises
    ------
    ValueError
        Unknown name (the nearest names are suggested), continuous wavelet, malformed bank.
    TypeError
        None of the accepted kinds.
    """
    if isinstance(wavelet, FilterBank):
        return wavelet
    if isinstance(wavelet, str):
        return _named(wavelet)
    if isinstance(wavelet, pywt.Wavelet):
        return _from_filters(wavelet.filter_bank, wavelet.name)
    if isinstance(wavelet, pywt.ContinuousWavelet):
        return _named(wavelet.name)
    if isinstance(wavelet, Sequence):
        if len(wavelet) != 4:
            raise ValueError(
                f"a custom filter bank is four filters (dec_lo, dec_hi, rec_lo, rec_hi); got {len(wavelet)}"
            )
        return _from_filters(wavelet, "custom")
    raise TypeError(
        "wavelet must be a name, a pywt.Wavelet, a FilterBank or four sequences of taps; "
        f"got {type(wavelet).__name__}"
    )


def check_mode(mode: str) -> Mode:
    """`mode` itself if it is one of `MODES`; else a `ValueError` that names the nearest ones."""
    if mode in MODES:
        return mode  # type: ignore[return-value]
    near = difflib.get_close_matches(str(mode), MODES, n=2, cutoff=0.4)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    raise ValueError(f"unknown mode {mode!r}; choose one of {', '.join(MODES)}{hint}")
