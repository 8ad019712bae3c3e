"""The catalogue of linear operators."""

from __future__ import annotations

from invlearn.physics.linear.dense import Dense
from invlearn.physics.linear.mask import Mask

__all__ = ["Dense", "Mask"]
