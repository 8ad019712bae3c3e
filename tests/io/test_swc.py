"""SWC files: what is read of other programs' files, what is refused, and morphio's opinion of ours."""

from __future__ import annotations

import errno
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from invlearn.io.swc import Tree, find_cycle, joined, parents_first, read_swc, write_swc

GOOD = "1 1 0 0 0 2 -1\n2 3 1 0 0 1 1\n3 3 2 0.5 0 0.5 2\n4 2 1 3 -1 0.5 2\n"


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "a.swc"
    path.write_text(text, encoding="utf-8")
    return path


def random_tree(seed: int, nodes: int = 50, roots: int = 1) -> Tree:
    """Parents in any order."""
    rng = np.random.default_rng(seed)
    parent = np.array([-1 if k < roots else int(rng.integers(k)) for k in range(nodes)])
    place = rng.permutation(nodes)
    shuffled = np.full(nodes, -1)
    shuffled[place] = np.where(parent < 0, -1, place[parent])
    return Tree(rng.normal(0, 50, (nodes, 3)), rng.random(nodes), shuffled, rng.integers(0, 4, nodes), "um")


def test_a_plain_file(tmp_path: Path) -> None:
    for strict in (False, True):
        tree = read_swc(written(tmp_path, GOOD), strict=strict)
        np.testing.assert_array_equal(tree.xyz[3], (1, 3, -1))
        np.testing.assert_array_equal(tree.radius, (2, 1, 0.5, 0.5))
        np.testing.assert_array_equal(tree.parent, (-1, 0, 1, 1))
        np.testing.assert_array_equal(tree.kind, (1, 3, 3, 2))
        assert tree.unit == "unknown"
    np.testing.assert_array_equal(tree.edges, [(1, 0), (2, 1), (3, 1)])
    np.testing.assert_array_equal(tree.roots, [0])
    np.testing.assert_array_equal(tree.branch_points, [1])
    np.testing.assert_array_equal(tree.ends, [0, 2, 3])
    assert tree.length == pytest.approx(1 + np.hypot(1, 0.5) + np.sqrt(10))
    assert tree.to_dict()["trees"] == 1


ODD = {
    "commas": GOOD.replace(" ", ","),
    "semicolons and blanks": GOOD.replace(" ", " ; "),
    "tabs": GOOD.replace(" ", "\t"),
    "windows lines": GOOD.replace("\n", "\r\n"),
    "a byte-order mark": "\ufeff" + GOOD,
    "column names": "id,type,x,y,z,r,parent\n" + GOOD.replace(" ", ","),
    "more columns": GOOD.replace("\n", " 0 7.5 12\n"),
    "whole numbers as floats": "".join(
        f"{k}.0 {rest}\n" for k, rest in (line.split(" ", 1) for line in GOOD.splitlines())
    ),
    "comments and empty lines": "# a\n\n" + GOOD.replace("\n", " # why\n"),
    "a separator at the end": GOOD.replace(" ", ",").replace("\n", ",\n"),
    "commas and blanks": GOOD.replace(" ", ", "),
    "decimal commas": GOOD.replace("0 2 -1", "0,0 2,0 -1").replace(".", ","),
    "decimal commas between semicolons": GOOD.replace(".", ",").replace(" ", ";"),
}


@pytest.mark.parametrize("case", ODD)
def test_other_forms_are_read(tmp_path: Path, case: str) -> None:
    tree = read_swc(written(tmp_path, ODD[case]))
    expected = read_swc(written(tmp_path, GOOD))
    np.testing.assert_array_equal(tree.xyz, expected.xyz)
    np.testing.assert_array_equal(tree.parent, expected.parent)


@pytest.mark.parametrize("case", ["commas", "column names", "more columns", "decimal commas"])
def test_strict_reading_refuses_them(tmp_path: Path, case: str) -> None:
    with pytest.raises(ValueError, match="line 1"):
        read_swc(written(tmp_path, ODD[case]), strict=True)


def test_latin_comments_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.swc"
    path.write_bytes("# in \xb5m, \xe9\n".encode("latin-1") + GOOD.encode())
    assert read_swc(path).unit == "um"


UNITS = {
    "# unit um": "um",
    "# units: microns": "um",
    "# All positions and radii in microns": "um",
    "# unit = µm": "um",
    "# Unit: nanometers": "nm",
    "# units nm": "nm",
    "# unit voxel": "voxel",
    "# coordinates in pixels": "voxel",
    "# made by a program": "unknown",
    "# Voxel separation (x,y,z): 0.3, 0.3, 1": "unknown",
}


@pytest.mark.parametrize("comment", UNITS)
def test_the_unit_is_what_a_comment_says(tmp_path: Path, comment: str) -> None:
    assert read_swc(written(tmp_path, f"# ORIGINAL\n{comment}\n{GOOD}")).unit == UNITS[comment]


def test_ids_in_any_order_with_gaps(tmp_path: Path) -> None:
    path = written(tmp_path, "70 3 2 0 0 1 12\n5 1 0 0 0 1 -1\n12 3 1 0 0 1 5\n")
    tree = read_swc(path)
    np.testing.assert_array_equal(tree.parent, (2, -1, 1))
    np.testing.assert_array_equal(tree.sorted().xyz[:, 0], (0, 1, 2))
    np.testing.assert_array_equal(tree.sorted().parent, (-1, 0, 1))
    with pytest.raises(ValueError, match=r"line 1: the parent 12 stands below"):
        read_swc(path, strict=True)


def test_a_parent_that_is_missing_makes_a_root(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD + "5 3 9 9 9 1 77\n")
    with pytest.warns(UserWarning, match="line 5: node 5 has the parent 77, which does not exist"):
        tree = read_swc(path)
    np.testing.assert_array_equal(tree.roots, [0, 4])
    np.testing.assert_array_equal(tree.components(), [0, 0, 0, 0, 1])
    with pytest.raises(ValueError, match="line 5: node 5 has the parent 77"):
        read_swc(path, strict=True)


def test_a_negative_radius_becomes_zero(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD.replace("2 -1", "-1 -1"))
    with pytest.warns(UserWarning, match="line 1: the radius -1 is negative"):
        assert read_swc(path).radius[0] == 0
    with pytest.raises(ValueError, match="negative"):
        read_swc(path, strict=True)


BAD = {
    "an id below 0": ("-5 1 0 0 0 1 -1\n", "line 1: the id -5 is negative; number nodes from 1"),
    "a cycle": (GOOD.replace("2 3 1 0 0 1 1", "2 3 1 0 0 1 4"), r"line [24]: node [24] is its own ancestor"),
    "its own parent": (GOOD.replace("-1\n2", "1\n2"), "line 1: node 1 is its own ancestor"),
    "no nodes": ("# nothing\n", "has no nodes"),
    "an id twice": (GOOD + "2 3 0 0 0 1 1\n", "line 5: the id 2 was already given in line 2"),
    "not a number": (GOOD.replace("0.5", "nan"), "line 3: .* not finite"),
    "words": (GOOD + "six 3 0 0 0 1 1\n", "line 5: 'six 3 0 0 0 1 1' are not the numbers id, type"),
    "too few columns": (GOOD + "6 3 0 0 0 1\n", "line 5: 6 numbers, where a node has id"),
    "half ids": (GOOD + "6.5 3 0 0 0 1 1\n", "line 5: id, type and parent are whole"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("strict", [False, True])
def test_what_is_no_tree_is_refused_with_its_line(tmp_path: Path, case: str, strict: bool) -> None:
    text, message = BAD[case]
    with pytest.raises(ValueError, match=message) as caught:
        read_swc(written(tmp_path, text), strict=strict)
    assert "\n" not in str(caught.value)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_swc(tmp_path / "absent.swc")
    (tmp_path / "a.swc").write_bytes(b"II*\0\1\2\3")
    with pytest.raises(ValueError, match="no text file"):
        read_swc(tmp_path / "a.swc")


@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(1, 5))
def test_what_was_written_comes_back_sorted(
    tmp_path_factory: pytest.TempPathFactory, seed: int, nodes: int, roots: int
) -> None:
    tree = random_tree(seed, nodes, min(roots, nodes))
    path = tmp_path_factory.mktemp("swc") / "a.swc"
    write_swc(path, tree, comment="a line\nanother")
    back, ordered = read_swc(path, strict=True), tree.sorted()
    assert back.unit == "um"
    np.testing.assert_allclose(back.xyz, ordered.xyz, atol=1e-5)
    np.testing.assert_allclose(back.radius, ordered.radius, atol=1e-5)
    np.testing.assert_array_equal(back.parent, ordered.parent)
    np.testing.assert_array_equal(back.kind, ordered.kind)
    assert back.length == pytest.approx(tree.length, abs=1e-3)
    assert path.read_text().startswith("# a line\n# another\n# unit um\n")


CELL = """1 1 0 0 0 4 -1
2 3 5 0 0 1 1
3 3 9 0 0 .8 2
4 3 9 3 1 .5 3
5 3 12 0 1 .4 3
6 2 -5 0 0 .7 1
7 2 -9 1 2 .6 6
"""


def test_morphio_reads_the_same_tree(tmp_path: Path) -> None:
    morphio = pytest.importorskip("morphio")
    tree = read_swc(
        written(
            tmp_path,
            CELL,
        )
    )
    write_swc(tmp_path / "b.swc", tree)
    theirs = morphio.Morphology(tmp_path / "b.swc")
    np.testing.assert_allclose(theirs.soma.points, tree.xyz[:1], atol=1e-5)
    assert len(theirs.sections) == 4
    assert len(theirs.root_sections) == 2
    length = sum(np.linalg.norm(np.diff(s.points, axis=0), axis=1).sum() for s in theirs.sections)
    first = np.linalg.norm(tree.xyz[[1, 5]] - tree.xyz[0], axis=1).sum()  # soma to neurite: no section there
    assert length + first == pytest.approx(tree.length, rel=1e-5)


@pytest.mark.parametrize("name", ["OP_1-gs.swc", "snudda_WT-P270-20-15ak-cor.swc"])
def test_morphio_reads_real_trees_of_ours(data_folder: Path, tmp_path: Path, name: str) -> None:
    morphio = pytest.importorskip("morphio")
    tree = read_swc(data_folder / "neurons" / name)
    write_swc(tmp_path / "a.swc", tree)
    theirs = morphio.Morphology(tmp_path / "a.swc")
    before = morphio.Morphology(data_folder / "neurons" / name)
    assert len(theirs.sections) == len(before.sections)
    np.testing.assert_allclose(np.sort(theirs.points[:, 0]), np.sort(before.points[:, 0]), atol=1e-4)
    assert find_cycle(tree.parent) is None


def test_the_unit_of_real_files(data_folder: Path) -> None:
    assert read_swc(data_folder / "neurons" / "OP_1-gs.swc").unit == "um"
    assert read_swc(data_folder / "neurons" / "snake_noise10.swc").unit == "unknown"


@given(st.integers(0, 10_000), st.integers(1, 60), st.integers(1, 6))
def test_parents_come_first_and_all_nodes_once(seed: int, nodes: int, roots: int) -> None:
    tree = random_tree(seed, nodes, min(roots, nodes))
    order = parents_first(tree.parent)
    assert sorted(order) == list(range(nodes))
    place = np.argsort(order)
    has = tree.parent >= 0
    assert (place[tree.parent[has]] < place[has]).all()
    label = tree.components()
    assert len(np.unique(label)) == len(tree.roots)
    assert (label[tree.parent[has]] == label[has]).all()
    assert (np.diff(label[order]) >= 0).all()  # each tree in one piece


def test_cycles_are_found_wherever_they_hang() -> None:
    assert find_cycle(np.array([-1, 0, 1])) is None
    assert find_cycle(np.array([-1, 2, 3, 1, 3])) in (1, 2, 3)
    assert find_cycle(np.array([1, 0])) in (0, 1)


def lone(xyz: np.ndarray, unit: str) -> Tree:
    return Tree(xyz, np.array([1.5]), np.array([-1]), np.array([0]), unit)


def test_units_and_voxels() -> None:
    tree = lone(np.array([(2, 4, 9)]), "um")
    np.testing.assert_array_equal(tree.zyx((3, 2, 1)), [(3, 2, 2)])
    in_voxels = lone(tree.zyx((3, 2, 1))[:, ::-1], "voxel")
    np.testing.assert_array_equal(in_voxels.in_um((3, 2, 1)).xyz, tree.xyz)
    np.testing.assert_array_equal(in_voxels.zyx((3, 2, 1)), [(3, 2, 2)])
    nm = tree.scaled((1000, 1000, 1000), "nm")
    np.testing.assert_allclose(nm.in_um().xyz, tree.xyz)
    np.testing.assert_allclose(nm.in_um().radius, tree.radius)
    np.testing.assert_array_equal(tree.flipped_y(10.0).xyz, [(2, 6, 9)])
    assert tree.scaled((4, 1, 7), "um").radius[0] == 3
    with pytest.raises(ValueError, match="give the voxel size"):
        in_voxels.in_um()
    with pytest.raises(ValueError, match="three positive numbers"):
        tree.scaled((1, 0, 1), "um")


def test_forests_are_joined_and_taken_apart() -> None:
    one, two = random_tree(1, 10), random_tree(2, 7, 2)
    both = joined([one, two])
    assert len(both.roots) == 3
    assert both.length == pytest.approx(one.length + two.length)
    back = both.take(np.arange(10, 17))
    np.testing.assert_array_equal(back.parent, two.parent)
    with pytest.raises(ValueError, match="one unit, got um, voxel"):
        joined([one, Tree(two.xyz, two.radius, two.parent, two.kind, "voxel")])
    with pytest.raises(ValueError, match="no tree"):
        joined([])


WRONG = {
    "no nodes": ((np.empty((0, 3)), [], [], [], "um"), "at least 1"),
    "plane": ((np.ones((2, 2)), [1, 1], [-1, 0], [0, 0], "um"), "nodes .N, 3."),
    "radii": ((np.ones((2, 3)), [1], [-1, 0], [0, 0], "um"), "entries in radius"),
    "negative": ((np.ones((2, 3)), [1, -1], [-1, 0], [0, 0], "um"), "at least 0, got -1"),
    "nan": ((np.full((2, 3), np.nan), [1, 1], [-1, 0], [0, 0], "um"), "finite"),
    "parent": ((np.ones((2, 3)), [1, 1], [-1, 2], [0, 0], "um"), "parents of a tree of 2 nodes are -1 to 1"),
    "cycle": ((np.ones((2, 3)), [1, 1], [1, 0], [0, 0], "um"), "its own ancestor"),
    "unit": ((np.ones((2, 3)), [1, 1], [-1, 0], [0, 0], "inch"), "one of um, nm, voxel, unknown"),
}


@pytest.mark.parametrize("case", WRONG)
def test_arrays_that_are_no_tree_are_refused(case: str) -> None:
    (xyz, *rest, unit), message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        Tree(xyz, *map(np.array, rest), unit)  # type: ignore[arg-type]


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, GOOD)

    def full(*args: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    tree = random_tree(0)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(OSError, match="nothing was written") as caught:
            write_swc(path, tree)
    assert caught.value.filename == str(path)
    assert path.read_text() == GOOD
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(FileNotFoundError, match="cannot be written there"):
        write_swc(tmp_path / "absent" / "a.swc", tree)


def test_good_files_give_no_warning(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_swc(written(tmp_path, GOOD))
