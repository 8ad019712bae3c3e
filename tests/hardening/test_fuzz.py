"""Damaged files are refused in words: a short campaign, and what long ones have found."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import resource
import runpy
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import tifffile

from invlearn.io import open_stack, read_array, read_scan, read_volume, write_scan
from invlearn.io.arrays import memory_limit, require_memory
from invlearn.io.scans import Scan
from invlearn.training import read_weights, write_weights

HERE = Path(__file__).parent


@pytest.mark.slow
def test_two_hundred_damaged_files_for_every_reader() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", HERE / "fuzz.py", "--inputs", "200", "--seed", "3"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("0 defects") >= 25


# --- nothing is ever unpickled ---


class Malicious:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".mat", ".safetensors", ".ckpt"])
def test_a_malicious_pickle_is_not_run(tmp_path: Path, suffix: str) -> None:
    from invlearn.training.checkpoint import read_checkpoint

    trace, path = tmp_path / "trace", tmp_path / f"bad{suffix}"
    bad = np.array([Malicious(trace)], object)
    if suffix == ".npy":
        np.save(path, bad, allow_pickle=True)
    elif suffix == ".npz":
        np.savez(path, y=bad)
    elif suffix == ".ckpt":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(Malicious(trace)))
            archive.writestr("archive/version", "3\n")
    else:
        path.write_bytes(pickle.dumps(Malicious(trace)))
    read = {".safetensors": read_weights, ".ckpt": read_checkpoint}.get(
        suffix, lambda p: read_array(p, ("y",))
    )
    with pytest.raises(ValueError, match="bad"):
        read(path)
    assert not trace.exists()
    if suffix in (".npy", ".npz"):
        with pytest.raises(ValueError, match="bad"):
            open_stack(path)
    assert not trace.exists()


# --- more is claimed than can be: refused before there is room for it ---


def nifti_header(shape: tuple[int, ...], dtype: type = np.float32) -> bytes:
    header = nibabel.Nifti1Header()
    header.set_data_dtype(dtype)
    header["dim"][: len(shape) + 1] = (len(shape), *shape)
    header["vox_offset"] = 352
    header["magic"] = b"n+1"
    return header.binaryblock + bytes(4)


def small_gzip(path: Path, head: bytes, zeros: int) -> Path:
    """A head and so many zeros, in about a thousandth of that."""
    with gzip.open(path, "wb", 9) as stream:
        stream.write(head)
        for _ in range(zeros >> 20):
            stream.write(bytes(1 << 20))
    return path


def bomb(path: Path, name: str) -> Path:
    path = path / name
    if name == "claims.nii.gz":
        path.write_bytes(gzip.compress(nifti_header((30000, 30000, 3000))))
    elif name == "claims.nii":
        path.write_bytes(nifti_header((30000, 30000, 3000)))
    elif name == "claims.npy":
        np.save(path, np.zeros(3))
        path.write_bytes(path.read_bytes().replace(b"(3,), }", b"(999999999999,), }"))
    elif name == "claims.npz":
        stream = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            stream, {"descr": "<f8", "fortran_order": False, "shape": (1000, 1000, 100)}
        )
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("y.npy", stream.getvalue())
    elif name == "claims.nrrd":
        head = "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 90000 90000 90000\nencoding: gzip\n\n"
        path.write_bytes(head.encode() + gzip.compress(bytes(100)))
    elif name == "holds.nrrd":  # little is claimed, and much is in it
        head = "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 4 4 4\nencoding: gzip\n\n"
        small_gzip(path, b"", 1 << 29)
        path.write_bytes(head.encode() + path.read_bytes())
    elif name == "skips.nrrd":
        head = "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 4 4 4\nencoding: raw\nline skip: 999999999999\n\n"
        path.write_bytes(head.encode() + bytes(64))
    elif name == "claims.tif":
        zeros = np.zeros((3, 64, 64), np.uint8)
        tifffile.imwrite(path, zeros, compression="zlib", photometric="minisblack", metadata=None)
        path.write_bytes(wider(path.read_bytes()))
    elif name == "claims.zarr":
        import zarr

        zarr.create_array(path, shape=(4, 4, 4), chunks=(4, 4, 4), dtype="u1")[...] = 1
        meta = json.loads((path / "zarr.json").read_text())
        meta["shape"] = [40000] * 3
        meta["chunk_grid"]["configuration"]["chunk_shape"] = [40000] * 3
        (path / "zarr.json").write_text(json.dumps(meta))
    elif name == "claims.v3draw":
        path.write_bytes(b"raw_image_stack_by_hpengL" + struct.pack("<h4i", 1, 30000, 30000, 30000, 1))
    elif name == "claims.mat":
        from scipy.io import savemat

        savemat(path, {"y": np.zeros((4, 4))}, do_compression=True)
        packed = path.read_bytes()
        inner = bytearray(zlib.decompress(packed[136:]))
        at = inner.index(struct.pack("<II", 5, 8)) + 8
        inner[at : at + 8] = struct.pack("<ii", 60000, 60000)
        again = zlib.compress(bytes(inner))
        path.write_bytes(packed[:128] + struct.pack("<II", 15, len(again)) + again)
    elif name == "claims.safetensors":
        path.write_bytes(struct.pack("<Q", 1 << 40) + b"{}")
    return path


def wider(content: bytes) -> bytes:
    """Every page of a TIFF file 65,000 by 65,000, in the same few bytes."""
    changed = bytearray(content)
    (at,) = struct.unpack_from("<I", content, 4)
    while at:
        (count,) = struct.unpack_from("<H", content, at)
        for k in range(count):
            entry = at + 2 + 12 * k
            tag, kind = struct.unpack_from("<HH", content, entry)
            if tag in (256, 257, 278):
                struct.pack_into("<H" if kind == 3 else "<I", changed, entry + 8, 65000)
        (at,) = struct.unpack_from("<I", content, at + 2 + 12 * count)
    return bytes(changed)


BOMBS = (
    "claims.nii.gz", "claims.nii", "claims.npy", "claims.npz", "claims.nrrd", "holds.nrrd", "skips.nrrd",
    "claims.tif", "claims.zarr", "claims.v3draw", "claims.mat", "claims.safetensors",
)  # fmt: skip


READ_ALL = """
import resource, sys
from pathlib import Path
import invlearn.io, invlearn.training

def read(path):
    if path.suffix == ".safetensors":
        return invlearn.training.read_weights(path)
    if path.suffix in (".npz", ".mat"):
        return invlearn.io.read_array(path, ("y",))
    return invlearn.io.read_volume(path) if path.suffix == ".gz" else invlearn.io.open_stack(path).array()

def memory():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kB

for path in map(Path, sys.argv[1:]):
    before = memory()
    try:
        read(path)
        print(f"{path} was read")
    except ValueError as error:
        print(error)
    assert memory() - before < 200e3, (path, memory() - before)
"""


def test_bombs_are_refused_with_little_memory(tmp_path: Path) -> None:
    paths = [bomb(tmp_path, name) for name in BOMBS]
    done = subprocess.run(
        [sys.executable, "-c", READ_ALL, *paths], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [path for path, line in zip(paths, lines, strict=True) if str(path) not in line] == []
    assert [line for line in lines if line.endswith("was read")] == []


def test_a_limit_of_the_process_is_a_limit_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = memory_limit()
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    monkeypatch.setattr(resource, "getrlimit", lambda what: (used + (64 << 20), resource.RLIM_INFINITY))
    assert 0 <= memory_limit() <= 64 << 20 < whole
    with pytest.raises(ValueError, match=r"a\.npy: an array would need 33\.6 MB of memory, more than"):
        require_memory(1 << 25, "an array", "a.npy")
    require_memory(1 << 25, "an array", "a.npy", limit=1 << 26)


# --- found by long campaigns ---


def test_lsm_files_are_read_between_their_small_pictures(tmp_path: Path) -> None:
    made = runpy.run_path(str(HERE / "readers.py"))
    made["READERS"]["lsm"].files(tmp_path)
    shape = made["SHAPE"]
    for name, channels in (("one", 1), ("two", 2), ("three", 3)):
        path, truth = tmp_path / f"{name}.lsm", made["grey"]((shape[0], channels, *shape[1:]))
        for k in range(channels):
            stack = open_stack(path, channel=k if channels > 1 else None)
            assert np.array_equal(stack.array(), truth[:, k])
            assert stack.voxel_size == pytest.approx((1.5, 0.5, 0.4))
        if channels > 1:
            with pytest.raises(ValueError, match=f"holds {channels} channels"):
                open_stack(path)


def test_a_tiff_whose_pages_run_in_a_circle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "circle.tif"
    tifffile.imwrite(path, np.zeros((3, 8, 8), np.uint8), photometric="minisblack", metadata=None)
    content = bytearray(path.read_bytes())
    (first,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, first)
    struct.pack_into("<I", content, first + 2 + 12 * count, first)
    path.write_bytes(content)
    with pytest.raises(ValueError, match="run in a circle"):
        open_stack(path)


def scan_file(path: Path) -> bytearray:
    rng = np.random.default_rng(0)
    points = rng.uniform(-0.5, 0.5, (40, 2))
    scan = Scan(rng.normal(size=(2, 40)), points, np.repeat(np.arange(4), 10), 4, (8, 8), (0.2, 0.2), 0.005)
    write_scan(path, scan)
    return bytearray(path.read_bytes())


def test_a_heap_that_hdf5_would_search_for_ever_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "scan.h5"
    content = scan_file(path)
    heap = content.index(b"GCOL")
    size = struct.unpack_from("<Q", content, heap + 8)[0]
    content[heap + 16 : heap + size] = bytes(size - 16)  # free space of no length
    path.write_bytes(content)
    with pytest.raises(ValueError, match="heap"):
        read_scan(path)


def test_records_whose_members_overlap_are_refused(tmp_path: Path) -> None:
    import h5py

    fields = [("head", "<u8", (3,)), ("traj", "<f4"), ("data", "<f4")]
    path = tmp_path / "scan.h5"
    scan_file(path)
    from invlearn.io.hdf5 import require_layout

    with h5py.File(path) as file:
        require_layout(file["dataset/data"].dtype, path)
    require_layout(np.dtype(fields), path)
    offsets = {"names": ["a", "b"], "formats": [("<f8", (3,)), "<u2"], "offsets": [0, 12], "itemsize": 24}
    for dtype in (np.dtype(offsets), np.dtype([("x", np.dtype(offsets), (2,))])):
        with pytest.raises(ValueError, match="the member b of its records overlaps"):
            require_layout(dtype, path)


@pytest.mark.parametrize(("at", "value"), [(123, 7), (108, 12), (70, 99)])
def test_damaged_nifti_headers_are_named(tmp_path: Path, at: int, value: int) -> None:
    """A unit that is none, samples within the header, an unknown type."""
    path = tmp_path / "v.nii"
    nibabel.save(nibabel.Nifti1Image(np.zeros((3, 4, 5), np.float32), np.eye(4)), path)
    content = bytearray(path.read_bytes())
    content[at : at + 4] = (
        struct.pack("<f", value) if at == 108 else bytes([value]) + content[at + 1 : at + 4]
    )
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"v\.nii"):
        read_volume(path)


@pytest.mark.parametrize("kind", ["codec", "chunk", "unreadable", "metadata"])
def test_damaged_zarr_stores_are_named(tmp_path: Path, kind: str) -> None:
    import zarr

    path = tmp_path / "s.zarr"
    zarr.create_array(path, shape=(4, 4, 4), chunks=(4, 4, 4), dtype="u1")[...] = 1
    chunk, meta = (
        next(p for p in path.rglob("*") if p.is_file() and p.name != "zarr.json"),
        path / "zarr.json",
    )
    if kind == "codec":
        meta.write_text(meta.read_text().replace("zstd", "nothing"))
    elif kind == "chunk":
        chunk.write_bytes(chunk.read_bytes()[:-3])
    elif kind == "unreadable":
        chunk.write_bytes(b"not compressed")
    else:
        meta.write_bytes(b"\xa8" + meta.read_bytes())
    with pytest.raises(ValueError, match=r"s\.zarr"):
        open_stack(path).array()


def test_a_model_card_that_is_no_mapping_is_refused(tmp_path: Path) -> None:
    import torch

    path = tmp_path / "w.safetensors"
    write_weights(path, {"a": torch.zeros(2)}, {})
    content = path.read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + size])
    for text in ("1.5", "[]", '{"sha256": "x", "card": 3, "complex": []}', "{"):
        header["__metadata__"]["invlearn"] = text
        new = json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(new)) + new + content[8 + size :])
        with pytest.raises(ValueError, match="damaged model card"):
            read_weights(path)


def test_names_of_files_that_are_too_long_are_said_to_be_missing(tmp_path: Path) -> None:
    from invlearn.neuro.collection import find_pairs
    from invlearn.registration.collection import find_sources

    for header, read in (("stack,mask", find_pairs), ("image,labels", find_sources)):
        (tmp_path / "t.csv").write_text(f"{header}\n{'a' * 3000},b\n")
        with pytest.raises(FileNotFoundError, match="line 2"):
            read(tmp_path / "t.csv")


def test_xml_that_explodes_is_refused(tmp_path: Path) -> None:
    entities = "".join(f'<!ENTITY a{k} "{f"&a{k - 1};" * 10}">' for k in range(1, 10))
    text = f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a0 "lol">{entities}]><x>&a9;</x>'
    path = tmp_path / "scan.h5"
    scan_file(path)
    import h5py

    with h5py.File(path, "r+") as file:
        file["dataset/xml"][0] = text
    with pytest.raises(ValueError, match="XML header is damaged"):
        read_scan(path)
