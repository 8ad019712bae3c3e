"""Other people's objects in, ours out, and back: what docs/interoperability.md shows, number by number.

SigPy and DeepInverse: tests/physics/linear/test_libraries.py; SciPy: test_interop.py beside it; more of ITK's
fields and affines: tests/io/test_itk.py.
"""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
import torch
from monai.data import MetaTensor
from monai.networks.nets import UNet
from monai.transforms import Compose, EnsureChannelFirst, LoadImage, ScaleIntensity
from scipy import ndimage
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from invlearn.io import Volume, open_stack, read_swc, write_stack, write_swc, write_volume
from invlearn.io.itk import read_field, voxels_to_millimetres, write_field
from invlearn.io.maps import read_maps, write_map
from invlearn.learning import Settings, Supervised, fit
from invlearn.neuro import simulate
from invlearn.physics import Blur, LinearOperator, OperatorFamily
from invlearn.registration import register, warp

AFFINE = np.array([[0, -2.0, 0, 10], [2.0, 0, 0, -20], [0, 0, 2.5, 5], [0, 0, 0, 1]])


@pytest.fixture(scope="module")
def head() -> np.ndarray:
    noise = np.random.default_rng(0).normal(size=(20, 22, 24))
    return ndimage.gaussian_filter(noise, 2).astype(np.float32)


class FromAdjoint(nn.Module):
    """A network of images as a reconstruction from measurements."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, y: Tensor, A: LinearOperator) -> Tensor:
        seen = A.adjoint(y)
        return seen + self.network(seen[:, None])[:, 0]


def test_a_network_of_monai_is_trained_by_fit() -> None:
    generator = torch.Generator().manual_seed(0)
    basis = torch.randn(2, 64, generator=generator)
    x = (torch.randn(40, 2, generator=generator) @ basis).reshape(40, 8, 8)
    masks = OperatorFamily.from_masks(torch.rand(4, 8, 8, generator=generator) < 0.7)
    index = torch.arange(40) % 4
    torch.manual_seed(0)
    model = FromAdjoint(UNet(2, 1, 1, channels=(4, 8), strides=(2,)))
    before = [p.detach().clone() for p in model.parameters()]
    settings = Settings(batch_size=20, accelerator="cpu", progress=False, learning_rate=1e-2)
    data = TensorDataset(masks(x, index), index, x)
    history = fit(model, masks, data, losses=[Supervised()], epochs=6, settings=settings).training.history
    assert history[-1]["train/loss"] < 0.9 * history[0]["train/loss"]
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_the_output_of_monai_transforms_goes_into_ours(head: np.ndarray, tmp_path: Path) -> None:
    write_volume(tmp_path / "head.nii.gz", Volume(head, AFFINE))
    load = Compose([LoadImage(image_only=True), EnsureChannelFirst(), ScaleIntensity()])
    image = load(tmp_path / "head.nii.gz")
    assert isinstance(image, MetaTensor)
    np.testing.assert_allclose(image.affine.numpy(), AFFINE)  # RAS, mm, as ours
    plain = image.as_tensor()
    blur = Blur(torch.rand(3, 3, 3), head.shape)
    torch.testing.assert_close(torch.as_tensor(blur(image)).as_subclass(Tensor), blur(plain))
    np.testing.assert_array_equal(open_stack(image[0]).array(), plain[0].numpy())
    pair = (image[0], image.affine), (image[0].roll(1, 0), image.affine)
    found = register(*pair, affine="none", similarity="mse", iterations=5)
    np.testing.assert_allclose(found.warped.affine, AFFINE)
    back = MetaTensor(found.warped.data[None], affine=found.warped.affine)
    assert tuple(back.shape) == (1, *head.shape)


def test_simpleitk_warps_by_our_field_and_we_read_it_back(head: np.ndarray, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    field = 3 * ndimage.gaussian_filter(rng.normal(size=(3, *head.shape)), (0, 4, 4, 4)).astype(np.float32)
    write_volume(tmp_path / "head.nii.gz", Volume(head, AFFINE))
    write_field(tmp_path / "field.nii.gz", voxels_to_millimetres(field, AFFINE), AFFINE)
    image = sitk.ReadImage(str(tmp_path / "head.nii.gz"))
    displacement = sitk.ReadImage(str(tmp_path / "field.nii.gz"), sitk.sitkVectorFloat64)
    transform = sitk.DisplacementFieldTransform(displacement)
    theirs = sitk.GetArrayFromImage(sitk.Resample(image, image, transform)).T
    inner = (slice(3, -3),) * 3
    np.testing.assert_allclose(theirs[inner], warp(head, field)[inner], atol=1e-4)
    millimetres, grid = read_field(tmp_path / "field.nii.gz")
    np.testing.assert_allclose(grid, AFFINE)
    np.testing.assert_allclose(millimetres, voxels_to_millimetres(field, AFFINE), atol=1e-5)


def test_maps_with_bids_names(tmp_path: Path) -> None:
    disc = (np.hypot(*np.mgrid[-8:8, -6:6]) < 5).astype(float)
    for name, value, unit in (("T1map", 1.1, "s"), ("T2map", 0.08, "s"), ("PDmap", 2.0, "arbitrary")):
        write_map(tmp_path / f"sub-01_ses-2_{name}.nii.gz", value * disc, (1.5, 2.0), unit)
    found = read_maps(tmp_path)
    np.testing.assert_allclose(found.t1, 1.1 * disc, rtol=1e-6)
    assert found.voxel_size == (1.5, 2.0)
    sidecar = json.loads((tmp_path / "sub-01_ses-2_T1map.json").read_text(encoding="utf-8"))
    assert sidecar["Units"] == "s"
    write_map(tmp_path / "sub-02_T1map.nii.gz", disc, (1.5, 2.0), "s")
    with pytest.raises(ValueError, match="which one is meant"):
        read_maps(tmp_path)


SIZE = (1.2, 0.4, 0.3)  # z, y, x, µm


def test_viewers_find_the_scale_in_a_tiff(tmp_path: Path) -> None:
    stack = np.random.default_rng(0).integers(0, 255, (5, 12, 10), dtype=np.uint8)
    write_stack(tmp_path / "a.tif", stack, SIZE)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:  # what napari and Fiji read it by
        assert file.is_imagej
        assert file.imagej_metadata is not None
        assert file.series[0].axes == "ZYX"
        assert file.imagej_metadata["spacing"] == pytest.approx(SIZE[0])
        pixels, units = file.pages[0].tags["XResolution"].value
        assert units / pixels == pytest.approx(SIZE[2], rel=1e-5)
        np.testing.assert_array_equal(file.asarray(), stack)
    write_stack(tmp_path / "b.tif", stack.astype(np.float64), SIZE)
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        assert file.ome_metadata is not None
        pixels = next(e for e in ElementTree.fromstring(file.ome_metadata).iter() if e.tag.endswith("Pixels"))
        assert float(pixels.get("PhysicalSizeZ", 0)) == pytest.approx(SIZE[0])
        assert pixels.get("PhysicalSizeXUnit") == "µm"


def test_viewers_find_the_scale_in_a_zarr(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    stack = np.random.default_rng(0).integers(0, 255, (5, 12, 10), dtype=np.uint8)
    write_stack(tmp_path / "a.zarr", stack, SIZE)
    group = zarr.open_group(tmp_path / "a.zarr", mode="r")
    (image,) = group.attrs["ome"]["multiscales"]
    assert [(axis["name"], axis["unit"]) for axis in image["axes"]] == [(a, "micrometer") for a in "zyx"]
    assert image["datasets"][0]["coordinateTransformations"] == [{"type": "scale", "scale": list(SIZE)}]
    np.testing.assert_array_equal(group["0"][:], stack)
    assert open_stack(tmp_path / "a.zarr").voxel_size == SIZE


def test_a_tree_lies_on_the_stack_in_the_axes_of_a_viewer(tmp_path: Path) -> None:
    sample = simulate((24, 48, 48), seed=1, noise="low")
    write_swc(tmp_path / "neuron.swc", sample.tree)
    points = read_swc(tmp_path / "neuron.swc").xyz[:, ::-1]  # (z, y, x), µm: napari's order
    at = np.rint(points / np.array(sample.voxel_size)).astype(int)
    inside = np.all((at >= 0) & (at < sample.mask.shape), axis=1)
    assert inside.mean() > 0.9
    assert sample.mask[tuple(at[inside].T)].mean() > 0.9


@pytest.mark.filterwarnings("ignore")
def test_napari_lays_the_tree_onto_the_mask(tmp_path: Path) -> None:
    components = pytest.importorskip("napari.components", reason="needs napari, no window")
    sample = simulate((24, 48, 48), seed=1, noise="low")
    write_swc(tmp_path / "neuron.swc", sample.tree)
    write_stack(tmp_path / "mask.tif", sample.mask, sample.voxel_size)
    mask, tree = open_stack(tmp_path / "mask.tif"), read_swc(tmp_path / "neuron.swc")
    points, (child, parent) = tree.xyz[:, ::-1], tree.edges.T
    viewer = components.ViewerModel()
    labels = viewer.add_labels(mask.array() > 0, scale=mask.voxel_size, units="um")
    viewer.add_points(points, size=2 * tree.radius, units="um")
    viewer.add_vectors(np.stack([points[child], points[parent] - points[child]], 1), units="um")
    at = np.rint([labels.world_to_data(point) for point in points]).astype(int)
    inside = np.all((at >= 0) & (at < sample.mask.shape), axis=1)
    assert sample.mask[tuple(at[inside].T)].mean() > 0.9
    extent = np.array(mask.shape) * mask.voxel_size
    assert (np.ptp(viewer.layers.extent.world, axis=0) <= 1.2 * extent).all()


def test_stacks_of_vaa3d(tmp_path: Path) -> None:
    stack = np.random.default_rng(0).integers(0, 4000, (5, 12, 10)).astype(">u2")
    header = b"raw_image_stack_by_hpeng" + b"B" + np.array([2], ">i2").tobytes()
    header += np.array([10, 12, 5, 1], ">i4").tobytes()  # x, y, z, channels
    (tmp_path / "a.v3draw").write_bytes(header + stack.tobytes())
    found = open_stack(tmp_path / "a.v3draw", voxel_size=SIZE)
    np.testing.assert_array_equal(found.array(), stack)
    assert found.voxel_size == SIZE
