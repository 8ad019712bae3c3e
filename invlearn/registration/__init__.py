"""Registration of volumes: fields, similarities, affine and deformable stages, metrics."""

from __future__ import annotations

from invlearn.registration.coefficients import Coefficients
from invlearn.registration.fields import (
    compose,
    exponential,
    inverse,
    jacobian_determinant,
    resize,
    warp,
)
from invlearn.registration.optimise import Deformation, Settings, optimise
from invlearn.registration.pair import Registration, register
from invlearn.registration.regularise import bending_energy, gradient_energy
from invlearn.registration.results import measure, write_results
from invlearn.registration.similarity import lncc, mind, mse, mutual_information, soft_dice
from invlearn.registration.start import predict, register_from
from invlearn.registration.transform import Transform
from invlearn.registration.winet import WiNet, load_winet

__all__ = [
    "Coefficients",
    "Deformation",
    "Registration",
    "Settings",
    "Transform",
    "WiNet",
    "bending_energy",
    "compose",
    "exponential",
    "gradient_energy",
    "inverse",
    "jacobian_determinant",
    "lncc",
    "load_winet",
    "measure",
    "mind",
    "mse",
    "mutual_information",
    "optimise",
    "predict",
    "register",
    "register_from",
    "resize",
    "soft_dice",
    "warp",
    "write_results",
]
