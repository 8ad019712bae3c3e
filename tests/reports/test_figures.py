"""Pictures and plots: what an array holds is what the image shows."""

from __future__ import annotations

import base64
import io
import sys
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import torch
from PIL import Image

from invlearn.reports import figures
from invlearn.reports.figures import Scale

RNG = np.random.default_rng(0)


def pixels(uri: str) -> np.ndarray:
    """RGB bytes of a PNG data URI."""
    head, data = uri.split(",", 1)
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))


def svg_root(uri: str) -> ET.Element:
    """The root of an SVG data URI, parsed."""
    head, data = uri.split(",", 1)
    assert head == "data:image/svg+xml;base64"
    return ET.fromstring(base64.b64decode(data))


def drawn(uri: str, group: str) -> int:
    """How many elements the SVG group whose id starts with `group` holds in all."""
    return sum(1 for e in svg_root(uri).iter() if e.get("id", "").startswith(group))


def test_a_picture_has_a_pixel_an_entry() -> None:
    array = np.array([[0.0, 1.0], [0.5, 1.0], [0.0, 0.0]])
    gray = pixels(figures.picture(array, Scale(0.0, 1.0, "gray")))
    assert gray.shape == (3, 2, 3)
    np.testing.assert_allclose(gray[..., 0] / 255, array, atol=1 / 255)


def test_the_scale_clips_and_shifts() -> None:
    array = np.array([[-5.0, 2.0, 3.0, 9.0]])
    gray = pixels(figures.picture(array, Scale(2.0, 4.0, "gray")))[0, :, 0]
    assert gray[0] == gray[1] == 0
    assert abs(int(gray[2]) - 128) <= 1
    assert gray[3] == 255


def test_a_constant_picture_is_drawn() -> None:
    assert pixels(figures.picture(np.ones((2, 2)), figures.shared_scale([np.ones((2, 2))]))).shape == (
        2,
        2,
        3,
    )


def test_colours_follow_the_named_map() -> None:
    array = np.array([[0.0, 1.0]])
    assert not np.array_equal(
        pixels(figures.picture(array, Scale(0.0, 1.0, "viridis"))),
        pixels(figures.picture(array, Scale(0.0, 1.0, "gray"))),
    )


def test_tensors_are_taken() -> None:
    tensor = torch.rand(4, 4, requires_grad=True)
    scale = figures.shared_scale([tensor])
    assert figures.picture(tensor, scale) == figures.picture(tensor.detach().numpy(), scale)


def test_a_picture_needs_two_axes() -> None:
    with pytest.raises(ValueError, match="2-D array"):
        figures.picture(np.zeros(3), Scale(0, 1))


def test_shared_scales() -> None:
    a, b = np.array([[-3.0, 1.0]]), np.array([[0.0, 2.0]])
    plain = figures.shared_scale([a, b], unit="ms")
    assert (plain.low, plain.high, plain.unit) == (-3.0, 2.0, "ms")
    signed = figures.shared_scale([a, b], signed=True)
    assert (signed.low, signed.high) == (-3.0, 3.0)
    assert signed.colors != plain.colors
    assert figures.shared_scale([np.zeros((2, 2))], signed=True).high == 1.0


def test_the_gradient_is_the_colour_map() -> None:
    stops = Scale(0, 1, "gray").gradient.split(", ")
    assert stops[0] == "#000000"
    assert stops[-1] == "#ffffff"


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((4, 5), [(4, 5)]), ((3, 4, 5), [(4, 5), (3, 5), (3, 4)]), ((2, 3, 4, 5), [(4, 5), (3, 5), (3, 4)])],
)
def test_slices_of_any_rank(shape: tuple[int, ...], expected: list[tuple[int, ...]]) -> None:
    array = RNG.random(shape)
    got = figures.slices(array)
    assert [flat.shape for _, flat in got] == expected
    if len(shape) == 3:
        np.testing.assert_array_equal(got[1][1], array[:, 2])
        assert got[1][0] == "axis 1, slice 2"


def test_slices_pass_through_an_index() -> None:
    array = np.zeros((2, 3, 4, 5))
    array[1, 0, 3, 2] = 1
    got = figures.slices(array, (1, 0, 3, 2))
    assert [flat.max() for _, flat in got] == [1, 1, 1]
    assert [label for label, _ in got] == ["axis 0, slice 0", "axis 1, slice 3", "axis 2, slice 2"]


def test_slices_need_two_axes() -> None:
    with pytest.raises(ValueError, match="two axes"):
        figures.slices(np.zeros(3))


def test_the_same_figure_gives_the_same_bytes() -> None:
    def draw() -> str:
        return figures.curve(np.sin(np.arange(9)), xlabel="entry", ylabel="amplitude", bound=1.0)

    assert draw() == draw()
    assert draw() != figures.curve(np.sin(np.arange(9)), xlabel="entry", ylabel="amplitude", bound=2.0)
    assert draw() != figures.curve(np.sin(np.arange(9)), xlabel="index", ylabel="amplitude", bound=1.0)


def test_bars_stand_where_they_are_counted() -> None:
    kwargs = {"xlabel": "operators", "ylabel": "entries"}
    plain = figures.bars([3, 0, 2], **kwargs)
    assert plain != figures.bars([3, 0, 2], start=1, **kwargs)
    marked = figures.bars([3, 0, 2], highlight=0, **kwargs)
    assert figures.ORANGE in base64.b64decode(marked.split(",")[1]).decode()
    assert figures.ORANGE not in base64.b64decode(plain.split(",")[1]).decode()


def test_a_spectrum_separates_the_null_space() -> None:
    sigma = torch.tensor([0.0, 1e-17, 0.2, 0.5, 1.0], dtype=torch.float64)
    source = figures.spectrum(sigma, expected_nullity=2, tolerance=1e-12)
    text = base64.b64decode(source.split(",")[1]).decode()
    assert figures.BLUE in text
    assert figures.GREY in text
    assert figures.ORANGE in text  # the tolerance
    assert (
        figures.ORANGE
        not in base64.b64decode(figures.spectrum(sigma, expected_nullity=2).split(",")[1]).decode()
    )
    assert source != figures.spectrum(sigma, expected_nullity=3, tolerance=1e-12)


def test_a_sweep_has_a_mark_at_each_value() -> None:
    colors = {"no": "#aa0000", "yes": "#00aa00"}
    source = figures.sweep([(3, "yes"), (4, "yes"), (5, "no")], colors, xlabel="k", mark=4.0)
    text = base64.b64decode(source.split(",")[1]).decode()
    assert text.count("fill: #00aa00; stroke") >= 2
    assert text.count("fill: #aa0000; stroke") >= 1
    assert source != figures.sweep([(3, "yes"), (4, "yes"), (5, "no")], colors, xlabel="k", mark=None)


def test_no_window_system_is_touched() -> None:
    figures.curve(np.zeros(3), xlabel="x", ylabel="y")
    assert drawn(figures.curve(np.zeros(3), xlabel="x", ylabel="y"), "axes_") == 1
    assert "matplotlib.pyplot" not in sys.modules or sys.modules["matplotlib.pyplot"].get_fignums() == []
