"""Tables in CSV files, and the files they name."""

from __future__ import annotations

from pathlib import Path

import pytest

from invlearn.io.tables import read_table


def test_cells_by_name_with_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(
        '\ufeff a ,b\n\n1," x, y "\n,,\n'.replace(",,\n", ",\n") + '"two\nlines",3\n', encoding="utf-8"
    )
    table = read_table(path)
    assert table.columns == ("a", "b")
    assert [row.values for row in table.rows] == [("1", "x, y"), ("two\nlines", "3")]
    assert table.rows[0].cells == {"a": "1", "b": "x, y"}
    assert [row.where.rpartition(" ")[2] for row in table.rows] == ["3", "6"]
    path.write_text("")
    assert read_table(path).columns == ()


def test_files_are_found_beside_the_table_or_from_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x").touch()
    (tmp_path / "y").touch()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in" / "t.csv").write_text(f"a,b,c,d\nx,y,,{tmp_path / 'y'}\n")
    (row,) = read_table(tmp_path / "in" / "t.csv").rows
    assert row.file("a") == tmp_path / "in" / "x"
    assert row.file("b") == Path("y")
    assert row.file("c") is None
    assert row.file("none") is None
    assert row.file("d") == tmp_path / "y"


@pytest.mark.parametrize("name", ["none.nii", "a" * 3000, "nul\0byte"])
def test_files_that_are_not_there_are_named_with_their_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "t.csv").write_text(f"a\n{name}\n")
    (row,) = read_table(tmp_path / "t.csv").rows
    with pytest.raises(FileNotFoundError, match=r"line 2: .* does not exist"):
        row.file("a")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a,b\n1\n", "line 2: 1 cells under 2 column names"),
        (b"a\n1,2\n", "line 2: 2 cells under 1 column names"),
        (b"a,b,a\n1,2,3\n", "line 1: a column is named twice"),
        (b"\xff\xfe\x00", "is no CSV file"),
        (b"a\n" + b"x" * 200_000, "is no CSV file"),
    ],
)
def test_tables_that_are_refused(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(ValueError, match=words):
        read_table(tmp_path / "t.csv")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_table(tmp_path)
