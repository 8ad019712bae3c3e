from __future__ import annotations

import dataclasses
import json
import zipfile

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from invlearn.physics.mri import Dictionary, Grid
from invlearn.physics.mri.bloch import simulate
from invlearn.physics.mri.fingerprint import dictionary as module

SMALL = Grid([0.5, 0.8, 1.2], [0.05, 0.1, 0.2])


def atoms_by_simulation(dictionary):
    t1, t2, b1 = dictionary.parameters.T
    return simulate(dictionary.sequence, t1, torch.minimum(t2, t1), b1)


def test_basis_is_that_of_the_singular_value_decomposition(dictionary):
    signals = atoms_by_simulation(dictionary)
    unit = signals / torch.linalg.vector_norm(signals, dim=1, keepdim=True)
    values, right = torch.linalg.svd(unit)[1:]
    k = dictionary.rank
    overlap = torch.linalg.svdvals(right[:k].conj() @ dictionary.basis.to(right.dtype))
    assert_close(overlap, torch.ones(k, dtype=torch.float64), atol=1e-9, rtol=0)
    energy = values.square()
    assert dictionary.energy == pytest.approx(float(energy[:k].sum() / energy.sum()), abs=1e-9)


def test_atoms_are_the_compressed_signals(dictionary):
    signals = atoms_by_simulation(dictionary)
    assert dictionary.atoms.shape == (dictionary.grid.size, 6)
    assert_close(dictionary.phase * dictionary.atoms, dictionary.compress(signals), atol=1e-6, rtol=0)
    restored = dictionary.phase * (dictionary.atoms @ dictionary.basis.T)
    lost = torch.linalg.vector_norm(restored - signals, dim=1) / torch.linalg.vector_norm(signals, dim=1)
    assert float(lost.square().mean()) == pytest.approx(1 - dictionary.energy, rel=1e-3)


def test_pulses_about_one_axis_give_real_atoms_and_a_phase(short, dictionary):
    assert not dictionary.basis.is_complex()
    assert not dictionary.nodes.is_complex()
    assert dictionary.phase == pytest.approx(1j, abs=1e-12)
    about_x = Dictionary.build(short, SMALL, rank=3)
    turned = dataclasses.replace(short, phase=np.full(short.frames, 0.3))
    other = Dictionary.build(turned, SMALL, rank=3)
    assert other.phase == pytest.approx(1j * np.exp(0.3j), abs=1e-6)
    assert_close(other.atoms.abs(), about_x.atoms.abs(), atol=1e-5, rtol=1e-4)


def test_pulses_about_several_axes_give_complex_atoms(short):
    spoiled = dataclasses.replace(short, phase=np.arange(short.frames) ** 2 * 0.4)
    found = Dictionary.build(spoiled, SMALL, rank=3, dtype=torch.float64)
    assert found.basis.is_complex()
    assert found.phase == 1
    assert_close(found.atoms, found.compress(atoms_by_simulation(found)), atol=1e-6, rtol=0)


def test_interpolates_signals_and_derivatives(dictionary, tissues):
    t1, t2 = tissues
    signals, slopes = simulate(dictionary.sequence, t1, t2, derivatives=("t1", "t2"))
    atoms, found = dictionary.interpolate(t1, t2)
    expected = (dictionary.compress(signals) / dictionary.phase).real
    assert_close(atoms, expected, atol=2e-5, rtol=2e-5)
    for i, t in enumerate((t1, t2)):
        by_log = (dictionary.compress(slopes[i]) / dictionary.phase).real * t[:, None]
        assert_close(found[:, i], by_log, atol=2e-4, rtol=1e-3)
    i = 40
    on_grid = dictionary.interpolate(*dictionary.parameters[i : i + 1, :2].T)[0]
    assert_close(on_grid[0], dictionary.atoms[i], atol=1e-12, rtol=1e-12)


def test_interpolates_along_b1(with_b1):
    t1, t2, b1 = torch.tensor([[0.9, 1.4], [0.09, 0.21], [0.93, 1.12]], dtype=torch.float64)
    signals, slopes = simulate(with_b1.sequence, t1, t2, b1, derivatives=("b1",))
    atoms, found = with_b1.interpolate(t1, t2, b1)
    assert_close(atoms, (with_b1.compress(signals) / with_b1.phase).real, atol=2e-4, rtol=0)
    assert_close(found[:, 2], (with_b1.compress(slopes[0]) / with_b1.phase).real, atol=5e-3, rtol=0)


def test_rank_or_energy(short):
    assert Dictionary.build(short, SMALL, rank=3).rank == 3
    shares = [Dictionary.build(short, SMALL, rank=k).energy for k in (1, 2, 3, 4)]
    assert shares == sorted(shares)
    by_energy = Dictionary.build(short, SMALL, energy=shares[1] * (1 - 1e-6))
    assert by_energy.rank == 2
    by_energy = Dictionary.build(short, SMALL, energy=shares[1] * (1 + 1e-6))
    assert by_energy.rank == 3
    chosen = Dictionary.build(short, SMALL)
    assert chosen.energy >= 0.9999 > Dictionary.build(short, SMALL, rank=chosen.rank - 1).energy


def test_precision_of_the_simulation(short):
    single, double = (
        Dictionary.build(short, SMALL, rank=3, dtype=dtype) for dtype in (torch.float32, torch.float64)
    )
    assert single.nodes.dtype == torch.float64
    gap = (single.basis @ single.atoms.T - double.basis @ double.atoms.T).abs().max()
    assert 0 < float(gap) < 2e-6
    with pytest.raises(TypeError, match="float32 or float64"):
        Dictionary.build(short, SMALL, dtype=torch.float16)


def test_sequence_and_default_grid_matter(short):
    shorter = short.truncated(6)
    assert Dictionary.build(shorter, rank=2).grid.size == Grid.logarithmic().size
    assert Dictionary.build(shorter, SMALL, rank=2).basis.shape == (6, 2)
    longer = Dictionary.build(short, SMALL, rank=2).atoms
    assert not torch.allclose(Dictionary.build(shorter, SMALL, rank=2).atoms, longer, atol=1e-2)


def test_signals_are_simulated_in_chunks(short, grid, monkeypatch):
    whole = Dictionary.build(short, grid, rank=4)
    monkeypatch.setattr(module, "_CHUNK_BYTES", 1)
    parts = Dictionary.build(short, grid, rank=4)
    assert_close(parts.basis @ parts.atoms.T, whole.basis @ whole.atoms.T, atol=2e-6, rtol=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rank": 41}, "rank 41 is not between 1 and the sequence's 40 frames"),
        ({"rank": 0}, "rank 0 is not between"),
        ({"rank": 3, "energy": 0.9}, "rank or energy, not both"),
        ({"energy": 1.0}, "share between 0 and 1"),
        ({"energy": float("nan")}, "share between 0 and 1"),
    ],
)
def test_bad_requests(sequence, grid, arguments, message):
    with pytest.raises(ValueError, match=message):
        Dictionary.build(sequence, grid, **arguments)


def test_a_grid_beyond_memory_is_refused_with_its_size(sequence):
    fine = Grid.logarithmic(step=0.002, b1=np.linspace(0.5, 1.5, 101))
    with pytest.raises(ValueError, match=r"need [\d.,]+ [TG]B of memory, more than"):
        Dictionary.build(sequence, fine)


def test_bad_points_and_signals(dictionary, with_b1):
    one = torch.ones(1, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"t1 lies outside the grid, 0.3 to 3"):
        dictionary.interpolate(9 * one, 0.1 * one)
    with pytest.raises(ValueError, match="T2 > T1"):
        dictionary.interpolate(0.5 * one, 0.6 * one)
    with pytest.raises(ValueError, match="b1 lies outside the grid"):
        with_b1.interpolate(one, 0.1 * one, 1.5)
    with pytest.raises(ValueError, match="has a B1 axis; give b1"):
        with_b1.interpolate(one, 0.1 * one)
    with pytest.raises(ValueError, match=r"expects signals \(..., 40\)"):
        dictionary.compress(torch.ones(3, 39))
    with pytest.raises(ValueError, match="NaN"):
        dictionary.compress(torch.full((3, 40), float("nan")))


def test_compress_keeps_numpy_and_precision(dictionary):
    signals = np.random.default_rng(0).standard_normal((2, 3, 40))
    found = dictionary.compress(signals)
    np.testing.assert_allclose(found, signals @ dictionary.basis.numpy())
    assert dictionary.compress(torch.ones(40, dtype=torch.complex64)).dtype == torch.complex64


def test_save_and_load(with_b1, tmp_path):
    path = tmp_path / "dictionary.npz"
    with_b1.save(path)
    again = Dictionary.load(path)
    assert list(tmp_path.iterdir()) == [path]
    assert again.sequence == with_b1.sequence
    assert (again.phase, again.energy, again.rank) == (with_b1.phase, with_b1.energy, with_b1.rank)
    for one, other in (
        (again.basis, with_b1.basis),
        (again.nodes, with_b1.nodes),
        (again.parameters, with_b1.parameters),
    ):
        assert torch.equal(one, other)
    with pytest.raises(ValueError, match=r"writes \.npz files"):
        with_b1.save(tmp_path / "dictionary.h5")


def test_nothing_half_written_stays(dictionary, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array", full)
    with pytest.raises(OSError, match="No space left"):
        dictionary.save(tmp_path / "dictionary.npz")
    assert list(tmp_path.iterdir()) == []


def rewritten(source, target, **changes):
    with np.load(source) as archive:
        content = {name: archive[name] for name in archive.files}
    np.savez(target, **{k: v for k, v in {**content, **changes}.items() if v is not None})


def test_bad_files(dictionary, tmp_path):
    good, bad = tmp_path / "good.npz", tmp_path / "bad.npz"
    dictionary.save(good)
    about = json.loads(str(np.load(good)["about"]))
    with pytest.raises(FileNotFoundError, match="no such dictionary file"):
        Dictionary.load(bad)
    bad.write_bytes(good.read_bytes()[:-200])
    with pytest.raises(ValueError, match="truncated or damaged"):
        Dictionary.load(bad)
    damaged = bytearray(good.read_bytes())
    with zipfile.ZipFile(good) as archive:
        start = archive.getinfo("nodes.npy").header_offset
    damaged[start + 3000] ^= 255
    bad.write_bytes(damaged)
    with pytest.raises(ValueError, match="truncated or damaged"):
        Dictionary.load(bad)
    np.savez(bad, image=np.ones(3))
    with pytest.raises(ValueError, match="holds no fingerprint dictionary"):
        Dictionary.load(bad)
    np.savez(bad, about=np.array([{"format": "pickled"}], dtype=object))
    with pytest.raises(ValueError, match="truncated or damaged"):
        Dictionary.load(bad)
    for changes, message in (
        ({"about": np.array(json.dumps({**about, "version": 99}))}, "version 99, this release reads 1"),
        ({"about": np.array(json.dumps({**about, "format": "other"}))}, "holds no fingerprint dictionary"),
        ({"about": np.array(json.dumps({**about, "sequence": {}}))}, "is damaged"),
        ({"nodes": None}, "holds no fingerprint dictionary"),
        ({"nodes": np.ones((1, 2, 3, 6))}, r"nodes \(1, 2, 3, 6\) .* do not fit"),
        ({"basis": np.full((40, 6), np.nan)}, "NaN"),
        ({"t1": np.array([2.0, 1.0])}, "is damaged: Grid: t1"),
    ):
        rewritten(good, bad, **changes)
        with pytest.raises(ValueError, match=message):
            Dictionary.load(bad)
