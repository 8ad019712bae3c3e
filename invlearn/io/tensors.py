"""Numpy arrays at the edges of the library, tensors inside."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor


def as_tensor(x: object, who: str) -> Tensor:
    """A tensor, or a numpy array (read-only and reversed ones too), as a tensor.

    Raises
    ------
    TypeError
        Neither of the two, or an array whose dtype torch does not have.
    """
    if isinstance(x, Tensor):
        return x
    if not isinstance(x, np.ndarray):
        raise TypeError(f"{who} expects a tensor or numpy array, got {type(x).__name__}")
    try:
        # torch refuses reversed arrays and warns of read-only ones, though it never writes here
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*not writable.*")
            return torch.from_numpy(np.ascontiguousarray(x).reshape(x.shape))
    except TypeError:
        raise TypeError(f"{who}: arrays of dtype {x.dtype} have no tensor; convert with x.astype") from None
