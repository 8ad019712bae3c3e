"""Stacks in Zarr: arrays, and OME-Zarr images with their axes and scale. Needs the package zarr."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from invlearn.io.arrays import require_memory
from invlearn.io.damage import damage_named
from invlearn.io.stack_source import Source, micrometres, plausible
from invlearn.io.voxels import VoxelSize

_CHUNK = 64


def _zarr() -> Any:
    try:
        import zarr
    except ImportError as error:
        raise ValueError("Zarr stacks need the package zarr: pip install invlearn[big]") from error
    return zarr


def read_zarr(path: Path) -> Source:
    """An array, or the finest level of an OME-Zarr image.

    Raises
    ------
    FileNotFoundError
        No such folder.
    ValueError
        No Zarr store, a group without an image, or axes that are none of a stack.
    """
    zarr = _zarr()
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    with damage_named(path, "is no Zarr array or group, or a damaged one"):
        node = zarr.open(path, mode="r")
    if hasattr(node, "dtype"):
        return from_array(_checked(node, path), str(path))
    with damage_named(path, "is damaged: its OME metadata (multiscales) cannot be read", "write it again"):
        attributes = dict(node.attrs)
        images = attributes.get("ome", attributes).get("multiscales")
        if not images:
            inside = ", ".join(sorted(node.keys())) or "nothing"
            raise ValueError(
                f"{path} is a Zarr group without an OME image; it holds {inside}: name one of its arrays"
            )
        return _image(node, images[0], path)


def _checked(array: Any, path: Path) -> Any:
    """The array, if there is memory for one of its chunks: it is unpacked whole."""
    chunk = math.prod(int(n) for n in getattr(array, "shards", None) or array.chunks)
    require_memory(chunk * np.dtype(array.dtype).itemsize, f"one chunk {tuple(array.chunks)}", path)
    return array


def _image(group: Any, image: Mapping[str, Any], path: Path) -> Source:
    """The finest level."""
    finest = image["datasets"][0]
    samples = _checked(group[finest["path"]], path)
    axes = image.get("axes", ["t", "c", "z", "y", "x"][-samples.ndim :])
    named = [axis if isinstance(axis, Mapping) else {"name": axis} for axis in axes]
    scale = np.ones(samples.ndim)
    for transform in [
        *finest.get("coordinateTransformations", []),
        *image.get("coordinateTransformations", []),
    ]:
        scale = scale * np.asarray(transform.get("scale", 1.0), dtype=np.float64)
    letters = "".join(str(axis["name"])[0].upper() for axis in named)
    sizes: list[float | None] = []
    for axis in "ZYX":
        at = letters.find(axis)
        unit = None if at < 0 else micrometres(named[at].get("unit"))
        sizes.append(None if unit is None else float(scale[at]) * unit)
    return Source(samples, letters, *plausible(sizes, "OME-Zarr metadata"))


def from_array(samples: Any, name: str) -> Source:
    """Any array of three axes, as it is.

    Raises
    ------
    ValueError
        Another number of axes.
    """
    if len(samples.shape) != 3:
        colours = len(samples.shape) == 4 and samples.shape[-1] in (3, 4)
        hint = "pick one channel, such as array[..., 0]" if colours else "pick one channel and one time"
        raise ValueError(f"{name} has the shape {tuple(samples.shape)}, where a stack is (z, y, x); {hint}")
    return Source(samples, "ZYX", None, "an array has no voxel size")


def new_zarr(
    path: Path,
    shape: Sequence[int],
    dtype: np.dtype,
    voxel_size: VoxelSize,
    chunks: Sequence[int] | None = None,
) -> Any:
    """An empty OME-Zarr image (0.5, Zarr 3) of one level; its array, to write to."""
    zarr = _zarr()
    group = zarr.open_group(path, mode="w", zarr_format=3)
    axes = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "zyx"]
    scale = {"type": "scale", "scale": [float(s) for s in voxel_size]}
    level = {"path": "0", "coordinateTransformations": [scale]}
    image = {"name": path.stem, "axes": axes, "datasets": [level]}
    group.attrs["ome"] = {"version": "0.5", "multiscales": [image]}
    parts = tuple(min(int(c), int(n)) for c, n in zip(chunks or (_CHUNK,) * 3, shape, strict=True))
    return group.create_array("0", shape=tuple(shape), dtype=dtype, chunks=parts, dimension_names=list("zyx"))
