"""A learned reconstruction on disk: all of it comes back, and only for its own physics."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from invlearn.physics import Dense, Mask, OperatorFamily
from invlearn.physics.mri import CartesianMRI
from invlearn.unrolled import (
    ADMM,
    HQS,
    L1,
    PGD,
    Iteration,
    Learned,
    LearnedReconstruction,
    LocallyLowRank,
    UNet,
    Unrolled,
    UnrolledHQS,
    UnrolledPGD,
    WaveletUNet,
    data_hash,
    physics_card,
)


def noise(*shape: int, complex: bool = False, seed: int = 0) -> Tensor:
    kind = torch.complex64 if complex else torch.float32
    return torch.randn(shape, dtype=kind, generator=torch.Generator().manual_seed(seed))


def mri(seed: int = 0) -> CartesianMRI:
    generator = torch.Generator().manual_seed(seed)
    return CartesianMRI(torch.rand(8, 8, generator=generator) < 0.5, noise(2, 8, 8, complex=True))


def trained(prior=None, **settings) -> LearnedReconstruction:
    model = UnrolledPGD(prior or Learned(UNet(4, 1), complex=True), 2, **settings)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1)
    return LearnedReconstruction(
        model, physics_card(mri()), data_hash(noise(5)), "certified", {"epochs": 3, "psnr_db": 31.5}
    )


def test_all_of_it_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "mri.safetensors"
    reconstruction = trained(tied=True, start="adjoint", norm=2.0, checkpoint=True)
    reconstruction.save(path)
    again = LearnedReconstruction.load(path, mri())
    y = noise(3, 2, 8, 8, complex=True)
    assert torch.equal(again(y, mri()), reconstruction(y, mri()))
    assert not again(y, mri()).requires_grad
    assert again.to_dict() == reconstruction.to_dict()
    assert isinstance(again(y.numpy(), mri()), np.ndarray)
    card = json.loads(path.with_suffix(".json").read_text())
    assert card == reconstruction.to_dict()
    assert card["verdict"] == "certified"
    assert card["training_data"] == data_hash(noise(5))
    assert card["details"] == {"epochs": 3, "psnr_db": 31.5}
    assert card["architecture"]["prior"]["network"] == {"kind": "UNet", "width": 4, "levels": 1}
    with pytest.raises(FileExistsError, match="exists already"):
        reconstruction.save(path)
    reconstruction.save(path, overwrite=True)


def test_settings_of_the_iteration_come_back(tmp_path: Path) -> None:
    model = Unrolled(HQS(data_last=True, tolerance=1e-2), L1(0.1), 2, step=5.0)
    kept = LearnedReconstruction(model, physics_card(mri()))
    kept.save(tmp_path / "hqs.safetensors")
    again = LearnedReconstruction.load(tmp_path / "hqs.safetensors").model
    assert again.iteration == HQS(data_last=True, tolerance=1e-2)
    y = noise(1, 2, 8, 8, complex=True)
    assert torch.equal(again(y, mri()), model(y, mri()))
    assert not torch.equal(again(y, mri()), UnrolledHQS(L1(0.1), 2, step=5.0)(y, mri()))


@pytest.mark.parametrize(
    "prior", [L1(0.3), LocallyLowRank(0.1, (2, 2), 2), Learned(WaveletUNet(4, 1, "db2"))], ids=repr
)
@pytest.mark.parametrize("kind", [UnrolledHQS, UnrolledPGD])
def test_every_architecture_is_rebuilt(prior, kind, tmp_path: Path) -> None:
    operator = Dense(noise(9, 3 * 8 * 8), shape=(3, 8, 8))
    model = kind(prior, 2, step=0.5)
    reconstruction = LearnedReconstruction(model, physics_card(operator))
    reconstruction.save(tmp_path / "w.safetensors")
    again = LearnedReconstruction.load(tmp_path / "w.safetensors")
    assert again.model.iteration == model.iteration
    assert again.model.regulariser == model.regulariser
    y = noise(2, 9)
    assert_close(again(y, operator), reconstruction(y, operator))


@pytest.mark.parametrize(
    ("other", "differs"),
    [
        (mri(seed=1), "physics.numbers"),
        (CartesianMRI(torch.ones(8, 8, dtype=torch.bool)), r"codomain is \"C\[2, 8, 8\]\" in the file"),
        (Mask(torch.ones(8, 8, dtype=torch.bool)), r"operator is \"CartesianMRI\" in .* and \"Mask\" here"),
        (OperatorFamily([mri(), mri(seed=1)]), "physics.operators is 1 in the file and 2 here"),
    ],
)  # fmt: skip
def test_weights_for_another_physics_are_refused(other, differs: str, tmp_path: Path) -> None:
    trained().save(tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=differs):
        LearnedReconstruction.load(tmp_path / "w.safetensors", other)


def test_operators_of_another_kind_are_refused_on_a_call() -> None:
    with pytest.raises(
        ValueError, match=r"learned for operator CartesianMRI, domain C\[8, 8\], not for Mask"
    ):
        trained()(noise(8, 8), Mask(torch.ones(8, 8, dtype=torch.bool)))
    # another mask is another measurement of the same kind
    assert trained()(noise(2, 8, 8, complex=True), mri(seed=1)).shape == (8, 8)


def test_damaged_and_foreign_files(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    with pytest.raises(FileNotFoundError, match="no weights at"):
        LearnedReconstruction.load(path)
    trained().save(path)
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="is damaged"):
        LearnedReconstruction.load(path)
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match="damaged one"):
        LearnedReconstruction.load(path)
    from invlearn.training import write_weights

    write_weights(path, nn.Linear(2, 2), {"kind": "classifier"}, overwrite=True)
    with pytest.raises(ValueError, match="holds classifier of format None, not a LearnedReconstruction"):
        LearnedReconstruction.load(path)


def test_what_has_no_name_is_not_saved(tmp_path: Path) -> None:
    class Mine(PGD):
        pass

    def save(model: Unrolled) -> None:
        LearnedReconstruction(model, physics_card(mri())).save(tmp_path / "w.safetensors")

    mine: Iteration = Mine()
    for model, message in (
        (UnrolledPGD(nn.Identity()), "the prior Identity cannot be rebuilt"),
        (UnrolledPGD(L1(), start=lambda y, A: A.adjoint(y)), "a start that is a function"),
        (Unrolled(mine, L1()), "the iteration Mine"),
    ):
        with pytest.raises(ValueError, match=message):
            save(model)
    assert not list(tmp_path.iterdir())
    save(Unrolled(ADMM(), L1()))
