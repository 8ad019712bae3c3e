"""The XML header of ISMRMRD files: what it says of the image and the sequence.

Files have milliseconds, degrees and millimetres; here everything is in seconds, radians and metres.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from invlearn.io.scans import Scan

_MILLI = 1e-3
_DEGREE = math.pi / 180


@dataclass(frozen=True)
class EncodedSpace:
    """The encoded space of a header: what is known of it, in the units of `Scan`."""

    shape: tuple[int, ...] | None = None
    field_of_view: tuple[float, ...] | None = None
    slice_thickness: float | None = None


@dataclass(frozen=True)
class Header:
    """The XML header, any part of which may be missing."""

    root: ElementTree.Element
    path: Path

    @staticmethod
    def parse(group: Any, path: Path) -> Header:
        if "xml" not in group:
            return Header(ElementTree.Element("ismrmrdHeader"), path)
        text = np.asarray(group["xml"][()]).reshape(-1)
        raw = text[0] if len(text) else b"<ismrmrdHeader/>"
        try:
            return Header(ElementTree.fromstring(raw), path)
        except ElementTree.ParseError as error:
            raise ValueError(f"{path}: its XML header is damaged ({error})") from error

    def _numbers(self, parent: ElementTree.Element, names: str) -> list[float]:
        found = parent.findall("/".join(f"{{*}}{name}" for name in names.split("/")))
        try:
            return [float(element.text or "") for element in found]
        except ValueError:
            raise ValueError(
                f"{self.path}: the {names} of its header is no number ({found[0].text!r})"
            ) from None

    def space(self, number: int) -> EncodedSpace:
        """The encoded space `number`."""
        encodings = self.root.findall("{*}encoding")
        if number >= len(encodings):
            return EncodedSpace()
        matrix, extent = (
            [self._numbers(encodings[number], f"encodedSpace/{name}/{axis}") for axis in "zyx"]
            for name in ("matrixSize", "fieldOfView_mm")
        )
        if not (matrix[1] and matrix[2]) or min(matrix[1][0], matrix[2][0]) < 1:
            return EncodedSpace()
        sizes = [int(m[0]) if m and m[0] >= 1 else 1 for m in matrix]
        metres = [e[0] * 1e-3 if e and e[0] > 0 else None for e in extent]
        flat = sizes[0] == 1
        shape, sides = (sizes[1:], metres[1:]) if flat else (sizes, metres)
        known = [side for side in sides if side is not None]
        return EncodedSpace(
            tuple(shape), tuple(known) if len(known) == len(sides) else None, metres[0] if flat else None
        )

    @property
    def repetitions(self) -> tuple[int, int] | None:
        """First and last repetition of the encoding limits."""
        limits = [
            self._numbers(self.root, f"encoding/encodingLimits/repetition/{end}")
            for end in ("minimum", "maximum")
        ]
        if not all(limits) or limits[1][0] == 0:  # a maximum of 0 is what writers leave who do not say
            return None
        return int(limits[0][0]), int(limits[1][0])

    def _list(self, name: str) -> list[float]:
        return self._numbers(self.root, f"sequenceParameters/{name}")

    @property
    def frames(self) -> int | None:
        """The length of the lists of the sequence, where they are lists."""
        longest = max(len(self._list(name)) for name in ("flipAngle_deg", "TR", "TE"))
        return longest if longest > 1 else None

    def per_frame(self, name: str, frames: int) -> np.ndarray | None:
        """A list of the sequence in SI units: `(frames,)`, `(1,)`, or None where it says nothing."""
        values = np.array(self._list(name)) * (_DEGREE if name == "flipAngle_deg" else _MILLI)
        if not values.any():
            return None
        if len(values) in (1, frames):
            return values
        warnings.warn(
            f"{self.path}: its header lists {len(values)} {name} for {frames} frames; they are not used",
            stacklevel=5,
        )
        return None

    def inversion_time(self) -> float | None:
        """The inversion time in seconds, where there is exactly one."""
        values = [value for value in self._list("TI") if value > 0]
        if len(values) > 1:
            warnings.warn(
                f"{self.path}: its header lists {len(values)} inversion times; none is used", stacklevel=5
            )
        return values[0] * 1e-3 if len(values) == 1 else None


def _in_units(values: np.ndarray | float | None, unit: float) -> list[float]:
    return [] if values is None else [float(value) / unit for value in np.atleast_1d(values)]


def xml_of(scan: Scan) -> bytes:
    """The header of a scan that has a field of view."""
    from ismrmrd import xsd

    assert scan.field_of_view is not None
    millimetres = [1e3 * f for f in scan.field_of_view]
    if len(scan.shape) == 2:
        millimetres.insert(0, 1e3 * (scan.slice_thickness or 0.0))
    depth, height, width = (1, *scan.shape) if len(scan.shape) == 2 else scan.shape
    space = xsd.encodingSpaceType(
        matrixSize=xsd.matrixSizeType(x=width, y=height, z=depth),
        fieldOfView_mm=xsd.fieldOfViewMm(x=millimetres[2], y=millimetres[1], z=millimetres[0]),
    )
    limits = xsd.encodingLimitsType(repetition=xsd.limitType(minimum=0, maximum=scan.frames - 1, center=0))
    sequence = xsd.sequenceParametersType(
        TR=_in_units(scan.tr, _MILLI),
        TE=_in_units(scan.te, _MILLI),
        TI=_in_units(scan.inversion_time, _MILLI),
        flipAngle_deg=_in_units(scan.flip_angle, _DEGREE),
    )
    header = xsd.ismrmrdHeader(
        # the schema demands a frequency; 0 says that nobody measured at one
        experimentalConditions=xsd.experimentalConditionsType(H1resonanceFrequency_Hz=0),
        acquisitionSystemInformation=xsd.acquisitionSystemInformationType(receiverChannels=scan.coils),
        encoding=[
            xsd.encodingType(
                encodedSpace=space,
                reconSpace=space,
                encodingLimits=limits,
                trajectory=xsd.trajectoryType.OTHER,
            )
        ],
        sequenceParameters=sequence,
    )
    return xsd.ToXML(header).encode()
