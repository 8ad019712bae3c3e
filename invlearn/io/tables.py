"""Tables in CSV files: a line with the names of the columns, and a line a row."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """A row and where it stands.

    Attributes
    ----------
    where
        File and line, for messages.
    values
        The cells in the order of the columns, blanks at their ends taken off.
    cells
        The same by the names of the columns.
    folder
        Of the table.
    """

    where: str
    values: tuple[str, ...]
    cells: Mapping[str, str]
    folder: Path

    def file(self, column: str) -> Path | None:
        """The file that a cell names, from the folder of the table or from the current one; None if empty.

        Raises
        ------
        FileNotFoundError
            It does not exist.
        """
        name = self.cells.get(column)
        if not name:
            return None
        for path in (self.folder / name, Path(name)):
            if _exists(path):
                return path
        raise FileNotFoundError(f"{self.where}: {self.folder / name} does not exist")


@dataclass(frozen=True)
class Table:
    """Names of the columns, and the rows that are not empty."""

    columns: tuple[str, ...]
    rows: tuple[Row, ...]


def read_table(path: str | os.PathLike[str]) -> Table:
    """Read a CSV file, in UTF-8.

    Raises
    ------
    FileNotFoundError
        No such file.
    ValueError
        No text, a column named twice, or a row with more or fewer cells than there are columns.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist, or is no file")
    lines = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream)
            for line in reader:
                lines.append((reader.line_num, tuple(cell.strip() for cell in line)))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is no CSV file ({error}); save the table as CSV in UTF-8") from error
    columns = lines[0][1] if lines else ()
    named = [name for name in columns if name]
    if len(set(named)) < len(named):
        raise ValueError(f"{path}, line 1: a column is named twice in {','.join(columns)!r}")
    rows = []
    for number, values in lines[1:]:
        where = f"{path}, line {number}"
        if not any(values):
            continue
        if len(values) != len(columns):
            raise ValueError(f"{where}: {len(values)} cells under {len(columns)} column names")
        rows.append(Row(where, values, dict(zip(columns, values, strict=True)), path.parent))
    return Table(columns, tuple(rows))


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # such as a name that is too long for one
        return False
