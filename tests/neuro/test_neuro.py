"""The package's names: there, and imported only when they are used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import invlearn.neuro


def test_what_needs_no_network_does_without_torch() -> None:
    code = (
        "import sys, invlearn.neuro\n"
        "light = [m for m in ('torch', 'numba', 'scipy') if m in sys.modules]\n"
        "from invlearn.neuro import compare, overlap, simulate, swc_to_mask, trace, tree_distance\n"
        "sample = simulate((16, 32, 32), seed=0, noise='low')\n"
        "tree = trace(sample.mask, sample.voxel_size)\n"
        "assert compare(tree, sample.tree, voxel_size=sample.voxel_size).to_dict()['esa'] < 5\n"
        "print(light, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == "[] False"


def test_every_name_is_what_it_says() -> None:
    assert sorted(invlearn.neuro._HOMES) == sorted(invlearn.neuro.__all__) == dir(invlearn.neuro)
    for name in invlearn.neuro.__all__:
        found = getattr(invlearn.neuro, name)
        assert found.__name__ == name
        assert found.__module__ == f"invlearn.neuro.{invlearn.neuro._HOMES[name]}"
    with pytest.raises(AttributeError, match="has no attribute 'segments'"):
        invlearn.neuro.segments  # noqa: B018


def test_no_module_has_the_name_of_what_it_gives() -> None:
    files = {path.stem for path in Path(invlearn.neuro.__file__).parent.iterdir()}
    assert not files & set(invlearn.neuro.__all__)
