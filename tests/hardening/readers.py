"""Every reader of the library, and real files for it: small ones, of the library and of others."""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

SHAPE = (5, 12, 9)


@dataclass(frozen=True)
class Reader:
    """What reads a file to its end, and what makes files for it."""

    read: Callable[[Path], Any]
    files: Callable[[Path], None]


def grey(shape: tuple[int, ...] = SHAPE, dtype: Any = np.uint8) -> np.ndarray:
    """Noise."""
    return np.random.default_rng(1).integers(0, 200, shape).astype(dtype)


def _nifti_files(folder: Path) -> None:
    affine = np.array([[2.0, 0.1, 0, -9], [0, 1.5, 0, 4], [0, 0, 3, 7], [0, 0, 0, 1]])
    nibabel.save(nibabel.Nifti1Image(grey(dtype=np.int16), affine), folder / "a.nii")
    scaled = nibabel.Nifti1Image(grey(dtype=np.int16), np.diag([1, 1, 1, 1.0]))
    scaled.header.set_slope_inter(0.5, -3)
    nibabel.save(scaled, folder / "scaled.nii")
    nibabel.save(nibabel.Nifti2Image(grey(dtype=np.float64), affine), folder / "two.nii")
    nibabel.save(nibabel.Nifti1Image(grey((*SHAPE, 1), np.float32), None), folder / "b.nii.gz")
    big = nibabel.Nifti1Image(grey(dtype=np.uint8), affine)
    big = nibabel.Nifti1Image(np.asarray(big.dataobj), affine, big.header.as_byteswapped(">"))
    nibabel.save(big, folder / "big.nii")
    data = os.environ.get("INVLEARN_DATA")
    if data:
        real = nibabel.load(Path(data, "brains", "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"))
        nibabel.save(real.slicer[90:100, 90:100, 90:100], folder / "real.nii.gz")


def _fields(folder: Path) -> None:
    import SimpleITK as sitk

    from invlearn.io.itk import write_field

    rng = np.random.default_rng(2)
    write_field(folder / "a.nii.gz", rng.normal(size=(3, 6, 5, 4)), np.diag([2, 2, 3, 1.0]))
    write_field(folder / "b.nii", rng.normal(size=(3, 6, 5, 4)), np.diag([-2, 2, 3, 1.0]))
    image = sitk.GetImageFromArray(rng.normal(size=(4, 5, 6, 3)), isVector=True)
    image.SetSpacing((1.0, 2.0, 3.0))
    sitk.WriteImage(image, str(folder / "itk.nii.gz"))


def _affines(folder: Path) -> None:
    import SimpleITK as sitk

    from invlearn.io.itk import write_affine

    matrix = np.array([[1.1, 0.1, 0, 5], [0, 0.9, 0, -3], [0, 0.2, 1, 7], [0, 0, 0, 1]])
    write_affine(folder / "a.txt", matrix)
    transform = sitk.AffineTransform(3)
    transform.Rotate(0, 1, 0.3)
    transform.SetCenter((1.0, 2.0, 3.0))
    sitk.WriteTransform(transform, str(folder / "itk.txt"))


def _tiffs(folder: Path) -> None:
    import tifffile

    from invlearn.io.stacks import write_stack

    write_stack(folder / "ours.tif", grey(), (1.5, 0.4, 0.5))
    write_stack(folder / "ours16.tif", grey(dtype=np.int32), (1.5, 0.4, 0.5))
    tifffile.imwrite(
        folder / "deflate.tif", grey(), imagej=True, metadata={"axes": "ZYX"}, compression="zlib"
    )
    tifffile.imwrite(
        folder / "tiles.ome.tif",
        grey((4, 40, 40), np.uint16),
        ome=True,
        metadata={"axes": "ZYX"},
        bigtiff=True,
        compression="zlib",
        tile=(16, 16),
    )
    tifffile.imwrite(folder / "channels.tif", grey((4, 1, 9, 8)), imagej=True, metadata={"axes": "ZCYX"})
    tifffile.imwrite(
        folder / "swapped.tif", grey(dtype=np.uint16), byteorder=">", predictor=True, compression="zlib"
    )
    tifffile.imwrite(folder / "plain.tif", grey(), photometric="minisblack", rowsperstrip=4)


def _lsms(folder: Path) -> None:
    """As a Zeiss microscope writes them: every picture with a small one, sizes in metres."""
    import tifffile

    fields = np.dtype(tifffile.TIFF.CZ_LSMINFO)
    for name, channels in (("one", 1), ("two", 2), ("three", 3)):
        info = np.zeros(1, fields)
        info["MagicNumber"], info["StructureSize"] = 67127628, fields.itemsize
        info["DimensionZ"], info["DimensionY"], info["DimensionX"] = SHAPE
        info["DimensionChannels"], info["DimensionTime"], info["DataType"] = channels, 1, 1
        info["VoxelSizeX"], info["VoxelSizeY"], info["VoxelSizeZ"] = 4e-7, 5e-7, 1.5e-6
        tag = (34412, "B", fields.itemsize, info.tobytes(), True)
        with tifffile.TiffWriter(folder / f"{name}.lsm", byteorder="<") as file:
            for k, picture in enumerate(grey((SHAPE[0], channels, *SHAPE[1:]))):
                common = {"photometric": "minisblack", "metadata": None, "software": False}
                planar = {"planarconfig": "separate"} if channels > 1 else {}
                file.write(
                    picture if channels > 1 else picture[0],
                    extratags=[tag] if k == 0 else [],
                    **common,
                    **planar,
                )
                file.write(picture[0, ::4, ::4], subfiletype=1, **common)
        if channels == 2:
            _bits_elsewhere(folder / f"{name}.lsm")


def _bits_elsewhere(path: Path) -> None:
    """Two numbers of bits fit into their tag, but Zeiss puts them elsewhere, as it does with three."""
    content = bytearray(path.read_bytes())
    content += bytes(len(content) % 2)
    elsewhere, at = len(content), struct.unpack_from("<I", content, 4)[0]
    while at:
        (count,) = struct.unpack_from("<H", content, at)
        for entry in range(at + 2, at + 2 + 12 * count, 12):
            if struct.unpack_from("<HHI", content, entry)[::2] == (258, 2):
                struct.pack_into("<I", content, entry + 8, elsewhere)
        (at,) = struct.unpack_from("<I", content, at + 2 + 12 * count)
    path.write_bytes(content + struct.pack("<HH", 8, 8))


def _nrrds(folder: Path) -> None:
    import nrrd

    header = {"space directions": np.diag([0.5, 0.4, 1.5]), "space": "RAS", "space units": ["microns"] * 3}
    for name, encoding in (("gzip", "gzip"), ("raw", "raw"), ("ascii", "ascii"), ("bz", "bzip2")):
        nrrd.write(str(folder / f"{name}.nrrd"), grey(), {**header, "encoding": encoding}, index_order="F")
    spaced = {"spacings": [0.5, 0.5, 1.0], "units": ["um"] * 3, "encoding": "gzip"}
    nrrd.write(str(folder / "spaced.nrrd"), grey(dtype=np.float32), spaced, index_order="F")
    nrrd.write(str(folder / "apart.nhdr"), grey(), {**header, "encoding": "raw"}, index_order="F")


def _zarrs(folder: Path) -> None:
    import zarr

    from invlearn.io.stacks import write_stack

    write_stack(folder / "ours.zarr", grey(), (1.5, 0.4, 0.5))
    plain = zarr.open_array(
        folder / "two.zarr", mode="w", shape=SHAPE, dtype="u2", chunks=(3, 6, 9), zarr_format=2
    )
    plain[...] = grey(dtype=np.uint16)
    group = zarr.open_group(folder / "old.zarr", mode="w", zarr_format=2)
    group.create_array("s0", shape=SHAPE, dtype="u1", chunks=SHAPE)[...] = grey()
    axes = [{"name": a, "type": "space", "unit": "micrometer"} for a in "zyx"]
    scale = [{"type": "scale", "scale": [1.5, 0.4, 0.5]}]
    level = {"path": "s0", "coordinateTransformations": scale}
    group.attrs["multiscales"] = [{"axes": axes, "datasets": [level], "version": "0.4"}]


def _v3draws(folder: Path) -> None:
    for name, order, dtype in (("a", "<", "u1"), ("b", ">", "u2"), ("c", "<", "f4")):
        samples = grey((1, *SHAPE)).astype(f"{order}{dtype}")
        header = b"raw_image_stack_by_hpeng" + (b"L" if order == "<" else b"B")
        header += struct.pack(f"{order}h4i", samples.itemsize, *samples.shape[::-1])
        (folder / f"{name}.v3draw").write_bytes(header + samples.tobytes())


def _v3dpbds(folder: Path) -> None:
    for name, width in (("a", 1), ("b", 2)):
        samples = grey((1, *SHAPE)).astype(f"<u{width}").ravel()
        records = [bytes([9]) + samples[k : k + 10].tobytes() for k in range(0, len(samples) - 10, 10)]
        repeat = bytes([255]) + samples[:1].tobytes()
        left = len(samples) - 10 * len(records)
        records += [bytes([left - 1]) + samples[-left:].tobytes()]
        header = b"v3d_volume_pkbitdf_encodL" + struct.pack("<h4i", width, *(1, *SHAPE)[::-1])
        (folder / f"{name}.v3dpbd").write_bytes(header + b"".join(records))
        count = 128 if width == 1 else 33
        header = b"v3d_volume_pkbitdf_encodL" + struct.pack("<h4i", width, count, 2, 2, 1)
        (folder / f"{name}{name}.v3dpbd").write_bytes(header + 4 * repeat)


def _npys(folder: Path) -> None:
    np.save(folder / "a.npy", grey(dtype=np.float32))
    np.save(folder / "b.npy", np.asfortranarray(grey(dtype=np.complex64)))
    np.save(folder / "c.npy", grey() > 100)


def _npzs(folder: Path) -> None:
    np.savez(folder / "a.npz", y=grey((6, 4), np.float64), operator_index=np.arange(6) % 2)
    np.savez_compressed(folder / "b.npz", y=grey((6, 4), np.complex64), operator_index=np.arange(6) % 2)


def _mats(folder: Path) -> None:
    from scipy.io import savemat

    held = {"y": grey((6, 4), np.float64) + 1j, "operator_index": np.arange(6) % 2}
    savemat(folder / "a.mat", held)
    savemat(folder / "b.mat", held, do_compression=True)
    savemat(folder / "c.mat", held, format="4")
    savemat(folder / "d.mat", {**held, "cell": np.array([1, "a"], object), "s": {"x": 1.0}, "text": "abc"})


def _trains(folder: Path) -> None:
    from scipy.io import savemat

    held = {"FA_all": np.arange(9.0), "TR_all": np.full(9, 0.012), "TE_all": np.full(9, 0.002)}
    savemat(folder / "a.mat", held)
    savemat(folder / "b.mat", held, do_compression=True)


def _maps(folder: Path) -> None:
    t1 = np.random.default_rng(0).uniform(0.5, 2, (6, 7))
    np.savez(folder / "a.npz", t1=t1, t2=t1 / 8, pd=np.ones_like(t1))
    extra = {"mask": t1 > 1, "b0": 10 * t1, "b1": np.ones_like(t1)}
    np.savez_compressed(folder / "b.npz", t1=t1, t2=t1 / 8, pd=np.ones_like(t1), **extra)


def _map_folders(folder: Path) -> None:
    from invlearn.io.maps import write_map

    t1 = np.random.default_rng(0).uniform(0.5, 2, (6, 7))
    for name in ("a", "b"):
        (folder / name).mkdir()
        for kind, values in (("T1map", t1), ("T2map", t1 / 8), ("PDmap", np.ones_like(t1))):
            write_map(folder / name / f"{kind}.nii.gz", values, (1.0, 1.0), "s")


def _scans(folder: Path) -> None:
    import ismrmrd

    from invlearn.io.ismrmrd import write_scan
    from invlearn.io.scans import Scan

    rng = np.random.default_rng(0)
    scan = Scan(
        rng.normal(size=(2, 40)) + 1j,
        rng.uniform(-0.5, 0.5, (40, 2)),
        np.repeat(np.arange(4), 10),
        4,
        (8, 8),
        (0.2, 0.2),
        0.005,
        np.full(4, 0.5),
        np.full(4, 0.012),
        np.full(4, 0.002),
        0.018,
    )
    write_scan(folder / "ours.h5", scan)
    with ismrmrd.Dataset(str(folder / "theirs.h5"), "dataset") as dataset:
        space = "<matrixSize><x>8</x><y>8</y><z>1</z></matrixSize>"
        dataset.write_xml_header(
            f"<ismrmrdHeader><encoding><encodedSpace>{space}</encodedSpace></encoding></ismrmrdHeader>".encode()
        )
        for k in range(3):
            samples = rng.normal(size=(2, 10)).astype(np.complex64)
            acquisition = ismrmrd.Acquisition.from_array(
                samples, rng.uniform(-0.4, 0.4, (10, 2)).astype("f4")
            )
            acquisition.idx.repetition = k
            dataset.append_acquisition(acquisition)


def _swcs(folder: Path) -> None:
    from invlearn.io.swc import Tree, write_swc

    rng = np.random.default_rng(0)
    parent = np.array([-1, *[int(rng.integers(k)) for k in range(1, 30)]])
    tree = Tree(rng.normal(size=(30, 3)), rng.uniform(0.1, 1, 30), parent, np.full(30, 3))
    write_swc(folder / "ours.swc", tree, comment="made for this")
    theirs = (
        "#name snake\n#unit: um\nid,type,x,y,z,r,pid\n1,1,0,0,0,2,-1\n5 2 1.5\t2 3 1 1 0.5\n9;3;2;3;4;.5;5\n"
    )
    (folder / "theirs.swc").write_text(theirs)
    data = os.environ.get("INVLEARN_DATA")
    if data:
        real = Path(data, "neurons", "snake_noise10.swc").read_bytes()
        (folder / "real.swc").write_bytes(real)


def _sequences(folder: Path) -> None:
    from invlearn.physics.mri import FingerprintSequence

    FingerprintSequence.default(12).to_csv(folder / "a.csv")
    (folder / "b.csv").write_text("flip_angle_deg,phase_deg,tr_s,te_s\n10,0,0.012,0.002\n20,180,0.013,0\n")


def _landmarks(folder: Path) -> None:
    (folder / "a.csv").write_text("x,y,z\n1,2,3\n4.5,-6,7e1\n")
    (folder / "b.csv").write_text('name,x,y,z,note\n"a, b",1,2,3,\nc,4,5,6,"two\nlines"\n')


def _tables(*columns: str) -> Callable[[Path], None]:
    """Tables of files that are there."""

    def write(folder: Path) -> None:
        (folder.parent / "files").mkdir(exist_ok=True)
        for name in "abcd":
            nibabel.save(nibabel.Nifti1Image(grey(), np.eye(4)), folder.parent / "files" / f"{name}.nii")
        files = [str(folder.parent / "files" / f"{name}.nii") for name in "abcd"]
        for count in (1, 2):
            rows = [
                files[2 * k : 2 * k + 2] + ["first", "second"][k : k + len(columns) - 2] for k in range(count)
            ]
            lines = [",".join(columns), *(",".join(row[: len(columns)]) for row in rows)]
            (folder / f"{count}.csv").write_text("\n".join(lines) + "\n")

    return write


def _weights(folder: Path) -> None:
    import torch

    from invlearn.training.weights import write_weights

    torch.manual_seed(0)
    state = {
        "layer.weight": torch.randn(3, 4),
        "maps": torch.randn(2, dtype=torch.complex64),
        "n": torch.tensor(7),
    }
    write_weights(folder / "a.safetensors", state, {"network": {"kind": "net", "widths": [3, 4]}, "data": {}})
    write_weights(folder / "b.safetensors", {"x": torch.zeros(0, 3)}, {})


def _networks(folder: Path) -> None:
    from invlearn.registration.winet import WiNet
    from invlearn.training import save_network

    save_network(folder / "a.safetensors", WiNet(width=1), {"task": "registration"})


def _pgdnets(folder: Path) -> None:
    import torch

    from invlearn.physics.mri import FingerprintSequence
    from invlearn.training import save_network
    from invlearn.unrolled import PGDNet

    basis = torch.linalg.qr(torch.randn(12, 3, generator=torch.Generator().manual_seed(0)))[0]
    network = PGDNet(FingerprintSequence.default(12), basis, iterations=1, width=1)
    save_network(folder / "a.safetensors", network, {"task": "fingerprinting"})


def _trajectories(folder: Path) -> None:
    from scipy.io import savemat

    from invlearn.physics.mri import trajectories

    arms = trajectories.spiral(4, 20, (8, 8)).numpy()
    np.save(folder / "a.npy", arms)
    np.save(folder / "b.npy", arms[..., 0] + 1j * arms[..., 1])
    np.savez(folder / "a.npz", trajectory=np.moveaxis(arms, -1, 0))
    savemat(folder / "a.mat", {"traj": arms.swapaxes(0, 1)})


def _checkpoints(folder: Path) -> None:
    import torch

    from invlearn.training.checkpoint import write_checkpoint

    for name in ("a", "b"):
        (folder / name).mkdir()
        write_checkpoint(folder / name, {"state": {"w": torch.randn(5)}, "epoch": 3, "history": [1.0, 2.0]})
        (folder / name / "last.ckpt").rename(folder / f"{name}.ckpt")
        (folder / name).rmdir()


def _stack(path: Path) -> Any:
    from invlearn.io.stacks import open_stack

    return open_stack(path).array()


def _read(module: str, name: str, **options: Any) -> Callable[[Path], Any]:
    import importlib

    return lambda path: getattr(importlib.import_module(f"invlearn.{module}"), name)(path, **options)


def _array(path: Path) -> Any:
    from invlearn.io.arrays import read_array

    return read_array(path, ("a", "y"))


def _swc(path: Path) -> Any:
    from invlearn.io.swc import read_swc

    with contextlib.suppress(ValueError):
        read_swc(path, strict=True)
    return read_swc(path).sorted().in_um((1, 1, 1)).to_dict()


def _sequence(path: Path) -> Any:
    from invlearn.physics.mri import FingerprintSequence

    return (FingerprintSequence.from_csv if path.suffix == ".csv" else FingerprintSequence.from_mat)(path)


READERS = {
    "nifti": Reader(_read("io.nifti", "read_volume"), _nifti_files),
    "nifti stack": Reader(_stack, _nifti_files),
    "itk field": Reader(_read("io.itk", "read_field"), _fields),
    "itk affine": Reader(_read("io.itk", "read_affine"), _affines),
    "tiff": Reader(_stack, _tiffs),
    "lsm": Reader(_stack, _lsms),
    "nrrd": Reader(_stack, _nrrds),
    "zarr": Reader(_stack, _zarrs),
    "v3draw": Reader(_stack, _v3draws),
    "v3dpbd": Reader(_stack, _v3dpbds),
    "npy stack": Reader(_stack, _npys),
    "npy": Reader(_array, _npys),
    "npz": Reader(_read("io.arrays", "read_measurements", operators=2), _npzs),
    "mat": Reader(_read("io.arrays", "read_measurements", operators=2), _mats),
    "maps": Reader(_read("io.maps", "read_maps"), _maps),
    "map folder": Reader(_read("io.maps", "read_maps"), _map_folders),
    "ismrmrd": Reader(_read("io.ismrmrd", "read_scan"), _scans),
    "swc": Reader(_swc, _swcs),
    "sequence csv": Reader(_sequence, _sequences),
    "sequence mat": Reader(_sequence, _trains),
    "landmarks": Reader(_read("io.landmarks", "read_landmarks"), _landmarks),
    "pairs csv": Reader(_read("cli.registration_pairs", "read_pairs"), _tables("fixed", "moving", "name")),
    "volumes csv": Reader(_read("registration.collection", "find_sources"), _tables("image", "labels")),
    "stacks csv": Reader(_read("neuro.collection", "find_pairs"), _tables("stack", "mask")),
    "weights": Reader(_read("training.weights", "read_weights"), _weights),
    "network": Reader(_read("registration.winet", "load_winet"), _networks),
    "pgdnet": Reader(_read("unrolled", "load_pgdnet"), _pgdnets),
    "trajectory": Reader(_read("physics.mri.trajectories", "read_trajectory"), _trajectories),
    "checkpoint": Reader(_read("training.checkpoint", "read_checkpoint"), _checkpoints),
}
