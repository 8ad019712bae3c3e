"""Reading arrays: what is right comes back exactly, what is wrong is named before it is read."""

from __future__ import annotations

import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from invlearn.io.arrays import (
    format_bytes,
    inspect,
    memory_limit,
    read_array,
    read_masks,
    read_matrices,
    read_measurements,
    read_signals,
)

RNG = np.random.default_rng(0)


def huge_npy(path: Path, shape: tuple[int, ...]) -> Path:
    """A file whose header claims more than it, or any machine, holds."""
    with path.open("wb") as stream:
        header = {"descr": "<f8", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, header)
    return path


@given(
    array=hnp.arrays(st.sampled_from(["f4", "f8", ">f8", "c8", "c16", "i4"]), (2, 3, 4), elements=st.just(3))
)
def test_all_formats_return_what_was_written(tmp_path_factory, array: np.ndarray) -> None:
    folder = tmp_path_factory.mktemp("formats")
    np.save(folder / "a.npy", np.asfortranarray(array))
    np.savez_compressed(folder / "a.npz", other=np.zeros(2), A=array)
    scipy.io.savemat(folder / "a.mat", {"A": array, "other": np.zeros(2)})
    for suffix in ("npy", "npz", "mat"):
        back = read_array(folder / f"a.{suffix}", ["A"])
        np.testing.assert_array_equal(back, array)
        assert back.dtype.isnative


def test_the_only_array_may_have_any_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", whatever=np.eye(3))
    np.testing.assert_array_equal(read_array(tmp_path / "a.npz", ["masks"]), np.eye(3))


def test_names_are_tried_in_order(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", masks=np.zeros((1, 2)), kspace_masks=np.ones((1, 2)))
    assert read_array(tmp_path / "a.npz", ["kspace_masks", "masks"]).all()
    assert not read_array(tmp_path / "a.npz", ["masks", "kspace_masks"]).any()


def test_inspect_reads_headers_alone(tmp_path: Path) -> None:
    path = huge_npy(tmp_path / "a.npy", (10**9, 1000))
    info = inspect(path)[""]
    assert info.shape == (10**9, 1000)
    assert info.nbytes == 8 * 10**12


@pytest.mark.parametrize("shape", [(1, 10**9, 1000), (10**9, 10**9, 10**9)])
def test_a_billion_rows_are_refused_with_the_memory_needed(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = huge_npy(tmp_path / "A.npy", shape)
    with pytest.raises(ValueError, match=r"would need [\d.,]+ [TP]B of memory, more than") as caught:
        read_matrices(path)
    if shape[0] == 1:
        assert "8.0 TB" in str(caught.value)


def test_a_decompression_bomb_is_refused_by_its_claim(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, masks=np.zeros((1, 2000, 2000)))
    assert path.stat().st_size < 100_000
    with pytest.raises(ValueError, match=r"32\.0 MB of memory, more than the 1\.0 MB"):
        read_masks(path, limit=10**6)


def test_a_mat_file_is_refused_by_its_claim(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "a.mat", {"matrices": np.zeros((10, 50, 50))}, do_compression=True)
    with pytest.raises(ValueError, match=r"would need 200\.0 kB"):
        read_matrices(tmp_path / "a.mat", limit=10**5)


def test_memory_counts_the_numbers_the_entries_become(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((10, 10), np.int8))
    np.save(tmp_path / "m.npy", np.zeros((10, 10), bool))
    with pytest.raises(ValueError, match="800 bytes"):
        read_array(tmp_path / "a.npy", ["a"], limit=500)
    assert read_masks(tmp_path / "m.npy", limit=500).shape == (10, 10)


def test_the_copies_that_a_computation_holds_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "a.npy", np.ones((10, 10)))
    monkeypatch.setattr("invlearn.io.arrays.memory_limit", lambda: 3200)
    assert read_array(tmp_path / "a.npy", ["a"]).shape == (10, 10)
    monkeypatch.setattr("invlearn.io.arrays.memory_limit", lambda: 3100)
    with pytest.raises(ValueError, match=r"800 bytes of memory, more than the 775 bytes there is room for"):
        read_array(tmp_path / "a.npy", ["a"])


def test_the_machine_has_memory() -> None:
    assert 2**28 < memory_limit() < 2**50


@pytest.mark.parametrize(
    ("count", "text"),
    [(999, "999 bytes"), (1500, "1.5 kB"), (8 * 10**12, "8.0 TB"), (10**20, "100,000.0 PB")],
)
def test_bytes_in_words(count: int, text: str) -> None:
    assert format_bytes(count) == text


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".mat"])
def test_missing_empty_and_truncated_files(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    with pytest.raises(FileNotFoundError, match=r"a\.n?.*does not exist"):
        read_array(path, ["a"])
    path.touch()
    with pytest.raises(ValueError, match=r"is empty \(0 bytes\)"):
        read_array(path, ["a"])
    array = RNG.standard_normal((100, 100))
    if suffix == ".npy":
        np.save(path, array)
    elif suffix == ".npz":
        np.savez(path, a=array)
    else:
        scipy.io.savemat(path, {"a": array})
    whole = path.read_bytes()
    for keep in (len(whole) // 2, 60, 5):
        path.write_bytes(whole[:keep])
        with pytest.raises(ValueError, match=r"truncated|damaged"):
            read_array(path, ["a"])


def test_a_flipped_byte_in_an_archive_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, a=np.arange(1000.0))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(ValueError, match="truncated or damaged"):
        read_array(path, ["a"])


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".mat"])
def test_other_contents_under_a_known_extension(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_text("1 2 3\n" * 100)
    with pytest.raises(ValueError, match=r"damaged|no readable"):
        read_array(path, ["a"])


def test_unknown_extension_and_folder(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("1,2")
    with pytest.raises(ValueError, match=r"\.npy, \.npz, \.mat files, not \.csv"):
        read_array(tmp_path / "a.csv", ["a"])
    with pytest.raises(ValueError, match="is a folder"):
        read_array(tmp_path, ["a"])


def test_wrong_keys_lists_found_and_expected(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", foo=np.eye(2), bar=np.eye(2))
    with pytest.raises(ValueError, match="found the keys foo, bar, expected masks or mask"):
        read_masks(tmp_path / "a.npz")


def test_an_archive_without_arrays(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("readme.txt", "nothing")
    with pytest.raises(ValueError, match="holds no arrays"):
        read_array(tmp_path / "a.npz", ["a"])


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "sprung",))

    trap = np.array([Trap()], dtype=object)
    np.save(tmp_path / "a.npy", trap, allow_pickle=True)
    np.savez(tmp_path / "a.npz", a=trap)
    for name in ("a.npy", "a.npz"):
        with pytest.raises(ValueError, match="pickled Python objects"):
            read_array(tmp_path / name, ["a"])
    assert not (tmp_path / "sprung").exists()


def test_mat_73_says_how_to_save(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.mat", "w", userblock_size=512) as file:
        file["A"] = np.eye(3)
    with pytest.raises(ValueError, match=r"7\.3 .*'-v7'"):
        read_array(tmp_path / "a.mat", ["A"])


@pytest.mark.parametrize("value", [np.array([1, "a"], dtype=object), {"x": 1}, scipy.sparse.eye(3)])
def test_mat_variables_that_are_no_arrays(tmp_path: Path, value: object) -> None:
    scipy.io.savemat(tmp_path / "a.mat", {"A": value})
    with pytest.raises(ValueError, match="cell, struct, text or sparse"):
        read_array(tmp_path / "a.mat", ["A"])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_named_with_their_position(tmp_path: Path, bad: float) -> None:
    array = np.zeros((3, 4, 5))
    array[1, 2, 3] = array[2, 0, 0] = bad
    np.savez(tmp_path / "a.npz", matrices=array)
    with pytest.raises(ValueError, match=r"matrices has 2 NaN or infinite values, .* at index \(1, 2, 3\)"):
        read_matrices(tmp_path / "a.npz")


@pytest.mark.parametrize("dtype", [np.float16, np.longdouble])
def test_odd_precisions_are_refused(tmp_path: Path, dtype: type) -> None:
    np.save(tmp_path / "a.npy", np.ones((2, 3, 3), dtype))
    with pytest.raises(TypeError, match="save it as float32 or float64"):
        read_matrices(tmp_path / "a.npy")


@pytest.mark.parametrize("array", [np.array(["a", "b"]), np.zeros(3, "datetime64[s]"), np.zeros(2, "f8,i4")])
def test_entries_that_are_no_numbers(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(ValueError, match="not numbers"):
        read_array(tmp_path / "a.npy", ["a"])


def test_an_array_without_entries(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((0, 8, 8)))
    with pytest.raises(ValueError, match=r"is empty, its shape is \(0, 8, 8\)"):
        read_masks(tmp_path / "a.npy")


# --- masks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.float32, np.float64])
def test_masks_of_zero_and_one_in_any_dtype(tmp_path: Path, dtype: type) -> None:
    masks = RNG.random((3, 4, 5)) < 0.5
    np.save(tmp_path / "m.npy", masks.astype(dtype))
    back = read_masks(tmp_path / "m.npy")
    assert back.dtype == bool
    np.testing.assert_array_equal(back, masks)


def test_masks_are_read_as_count_first(tmp_path: Path) -> None:
    masks = RNG.random((6, 8)) < 0.5
    np.save(tmp_path / "m.npy", masks)
    assert read_masks(tmp_path / "m.npy").shape == (6, 8)  # six masks of eight entries
    assert read_masks(tmp_path / "m.npy", shape=(6, 8)).shape == (1, 6, 8)  # one image
    flat = read_masks(tmp_path / "m.npy", shape=(2, 4))  # six flattened images
    np.testing.assert_array_equal(flat, masks.reshape(6, 2, 4))


def test_masks_that_do_not_fit_the_shape(tmp_path: Path) -> None:
    np.save(tmp_path / "m.npy", np.ones((2, 4, 4)))
    with pytest.raises(ValueError, match=r"\(2, 4, 4\), expected \(G, 5, 5\) by --shape"):
        read_masks(tmp_path / "m.npy", shape=(5, 5))
    np.save(tmp_path / "v.npy", np.ones(4))
    with pytest.raises(ValueError, match=r"expected \(G, \*image\); for a single one save array\[None\]"):
        read_masks(tmp_path / "v.npy")


def test_masks_with_other_values(tmp_path: Path) -> None:
    masks = np.ones((2, 3))
    masks[1, 2] = 0.5
    np.save(tmp_path / "m.npy", masks)
    with pytest.raises(ValueError, match=r"found 0\.5 at index \(1, 2\)"):
        read_masks(tmp_path / "m.npy")


# --- matrices, signals ---------------------------------------------------------------------------


def test_matrices_keep_precision_and_take_one_matrix(tmp_path: Path) -> None:
    np.save(tmp_path / "A.npy", np.eye(3, dtype=np.float32))
    assert read_matrices(tmp_path / "A.npy").shape == (1, 3, 3)
    assert read_matrices(tmp_path / "A.npy").dtype == np.float32
    np.save(tmp_path / "B.npy", np.ones((2, 3, 3), np.int16))
    assert read_matrices(tmp_path / "B.npy").dtype == np.float64
    np.save(tmp_path / "C.npy", np.ones((2, 3, 3, 3)))
    with pytest.raises(ValueError, match=r"expected matrices \(G, m, n\) or one \(m, n\)"):
        read_matrices(tmp_path / "C.npy")


def test_signals_are_brought_to_the_shape_of_the_domain(tmp_path: Path) -> None:
    x = RNG.integers(0, 255, (7, 12)).astype(np.uint8)
    np.save(tmp_path / "x.npy", x)
    back = read_signals(tmp_path / "x.npy", (3, 4))
    assert back.dtype == np.float64
    np.testing.assert_array_equal(back, x.reshape(7, 3, 4))
    with pytest.raises(ValueError, match=r"expected \(N, 5, 4\)"):
        read_signals(tmp_path / "x.npy", (5, 4))


# --- measurements --------------------------------------------------------------------------------


def test_measurements_from_npz_and_matlab(tmp_path: Path) -> None:
    y, index = RNG.standard_normal((6, 4)).astype(np.float32), np.array([0, 1, 2, 0, 1, 2])
    np.savez(tmp_path / "y.npz", y=y, operator_index=index)
    scipy.io.savemat(tmp_path / "y.mat", {"y": y, "operator_index": index.astype(float)})
    for name in ("y.npz", "y.mat"):
        got, where = read_measurements(tmp_path / name, operators=3)
        np.testing.assert_array_equal(got, y)
        np.testing.assert_array_equal(where, index)
        assert where.shape == (6,)
        assert where.dtype == np.int64


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.ones((3, 2)), "operator_index": [0, 0, 1]}, "found the keys x, operator_index, expected y"),
        ({"y": np.ones((3, 2))}, "operator_index missing"),
        ({"y": np.ones(3), "operator_index": [0, 0, 1]}, r"expected \(N, m\)"),
        ({"y": np.ones((3, 2)), "operator_index": [0, 1]}, r"expected \(3,\), one for each row of y"),
        ({"y": np.ones((4, 2)), "operator_index": [[0, 1], [0, 1]]}, r"expected \(4,\)"),
        ({"y": np.ones((3, 2)), "operator_index": [0.5, 0, 1]}, "not whole"),
        ({"y": np.ones((3, 2)), "operator_index": [0, 1, 2]}, "2 operators count from 0 to 1$"),
        ({"y": np.ones((3, 2)), "operator_index": [1, 1, 2]}, "seem to count from 1"),
        ({"y": np.ones((3, 2)), "operator_index": [-1, 0, 1]}, "runs from -1 to 1"),
        ({"y": np.full((3, 2), np.nan), "operator_index": [0, 0, 1]}, "y has 6 NaN or infinite values"),
    ],
)
def test_measurements_that_do_not_fit(tmp_path: Path, arrays: dict, message: str) -> None:
    np.savez(tmp_path / "y.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        read_measurements(tmp_path / "y.npz", operators=2)


def test_measurements_need_named_arrays(tmp_path: Path) -> None:
    np.save(tmp_path / "y.npy", np.ones((3, 2)))
    with pytest.raises(ValueError, match=r"an \.npz with y \(N, m\) and operator_index"):
        read_measurements(tmp_path / "y.npy", operators=2)
