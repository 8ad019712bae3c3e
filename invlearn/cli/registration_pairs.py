"""The pairs of a CSV, one folder each; what is done is not done again."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import click

from invlearn.cli.app import FAILED, INTERRUPTED
from invlearn.cli.options import Settings
from invlearn.cli.registration import How, Pair, in_words, prepare, register_pair
from invlearn.io.runs import RECORD, hash_path, write_json
from invlearn.io.tables import Row, read_table

_NEEDED, _LABELS = ("fixed", "moving"), ("fixed_labels", "moving_labels")
_SUMMARY = "metrics.json"
_TAKEN = (_SUMMARY, RECORD)  # names of files beside the folders of the pairs


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".nii")


def read_pairs(path: Path) -> dict[str, Pair]:
    """Name to pair, in the order of the file.

    Paths are relative to the folder of the CSV, or to the current one. Without a `name`, a pair is called
    after its files.

    Raises
    ------
    FileNotFoundError
        The CSV or one of its volumes is not there.
    ValueError
        Another header, cells that are missing or too many, names that are no folder names or occur twice.
    """
    table = read_table(path)
    columns = set(table.columns)
    if not set(_NEEDED) <= columns or columns - {*_NEEDED, *_LABELS, "name"} or not table.rows:
        raise ValueError(
            f"{path} begins with {','.join(table.columns)!r} and has {len(table.rows)} pairs; its header is "
            "fixed,moving[,fixed_labels,moving_labels][,name], and a line a pair follows"
        )
    named = [_pair(row) for row in table.rows]
    twice = [name for name, count in Counter(name for name, _ in named).items() if count > 1]
    if twice:
        raise ValueError(f"{path} has several pairs called {twice[0]!r}; tell them apart in a column `name`")
    return dict(named)


def _pair(row: Row) -> tuple[str, Pair]:
    fixed, moving = row.file("fixed"), row.file("moving")
    if fixed is None or moving is None:
        raise ValueError(f"{row.where}: fixed or moving is empty")
    name = row.cells.get("name") or f"{_stem(fixed)}_{_stem(moving)}"
    if Path(name).name != name or name.startswith(".") or not name.isprintable() or name in _TAKEN:
        raise ValueError(f"{row.where}: {name!r} is no name for a folder")
    labels = [row.file(column) for column in _LABELS]
    try:
        pair = Pair(fixed, moving, *labels)
        pair.require()
    except (FileNotFoundError, ValueError) as error:
        raise type(error)(f"{row.where}: {error}") from error
    return name, pair


def finished(folder: Path, pair: Pair, how: How) -> dict[str, Any] | None:
    """The numbers of a pair that was registered already, by its run record; None if it was not.

    Raises
    ------
    FileExistsError
        It was made from other files or with other options.
    """
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        options, inputs = record["metrics"]["options"], record["inputs"]
        found = json.loads((folder / _SUMMARY).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        raise FileExistsError(f"{folder} holds something else; give --overwrite, or another place") from None
    files = [*pair.files, *([how.weights] if how.weights else [])]
    same = sorted(entry["sha256"] for entry in inputs.values()) == sorted(
        {str(f): hash_path(f) for f in files}.values()
    )
    if options != how.to_dict() or not same:
        raise FileExistsError(
            f"{folder} was made {'with other options' if same else 'from other files'}; give --overwrite to "
            "do every pair again, or another place"
        )
    return dict(found)


def register_pairs(settings: Settings, table: Path, how: How, output: Path) -> int:
    """Register all pairs; 1 if some of them could not be."""
    from invlearn.io.runs import alone

    pairs = read_pairs(table)
    if output.exists() and not output.is_dir():
        raise NotADirectoryError(f"{output} is a file; the output needs a folder")
    earlier = output / RECORD
    if earlier.exists() and not settings.overwrite and '"pairs"' not in earlier.read_text(encoding="utf-8"):
        raise FileExistsError(f"{output} holds another result; give --overwrite, or another place")
    with alone(output):
        return _register_all(settings, table, pairs, how, output)


def _register_all(settings: Settings, table: Path, pairs: dict[str, Pair], how: How, output: Path) -> int:
    from invlearn import io

    done = {} if settings.overwrite else {n: finished(output / n, pair, how) for n, pair in pairs.items()}
    with settings.progress("preparing"):
        network = prepare(how)
    run = settings.new_run()
    run.add_input(table)
    results: dict[str, dict[str, Any]] = {}
    failed: dict[str, str] = {}
    for name, pair in pairs.items():
        found = done.get(name)
        try:
            found = found or register_pair(settings, pair, how, network, output / name)
        except KeyboardInterrupt:
            click.echo(f"invlearn: interrupted during {name}; the same command goes on from there", err=True)
            return INTERRUPTED
        except (ValueError, TypeError, OSError) as error:
            failed[name] = " ".join(str(error).split())
            click.echo(f"invlearn: {name}: {failed[name]}", err=True)
            continue
        results[name] = found
        settings.note(f"{name}: {in_words(found)}{' (done before)' if done.get(name) else ''}")
    run.metrics.update(pairs=len(results), failed=failed, options=how.to_dict())
    with io.output_folder(output, run, overwrite=True) as work:
        write_json(work / _SUMMARY, {"pairs": results, "failed": failed})
    settings.note(f"{output}: {len(results)} of {len(pairs)} pairs")
    return FAILED if failed else 0
