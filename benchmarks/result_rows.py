"""Rows of benchmarks/results/*.csv."""

import csv
import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path


def read_rows(path: Path) -> list[dict[str, str]]:
    """Rows of a results file, in order; none where it does not exist."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def append_rows(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Add `rows` behind those that a results file has; see `replace_rows`."""
    replace_rows(path, rows, key=())


def replace_rows(path: Path, rows: Sequence[Mapping[str, object]], *, key: Sequence[str]) -> None:
    """Add `rows`, in place of older ones that have the same values in the columns `key`; an empty `key` replaces none.

    The file appears complete or stays as it was, whoever else writes into it. Its columns become the old ones and the new ones;
    what a row lacks stays empty.

    Raises:
        ValueError: a row lacks a column of `key`.
    """
    if not rows:
        return
    for row in rows:
        if missing := [name for name in key if name not in row]:
            raise ValueError(f"{path}: a row lacks the columns {missing} that it is known by; it has {list(row)}")
    new = {tuple(str(row[name]) for name in key) for row in rows} if key else set()
    with locked(path.parent):
        kept = [old for old in read_rows(path) if tuple(old.get(name) for name in key) not in new]
        _write(path, [*kept, *rows])


def set_columns(path: Path, row: Mapping[str, str], values: Mapping[str, str], *, key: Sequence[str]) -> None:
    """Set columns of the recorded row that has the values of `row` in the columns `key`, and leave its others as they are by then.

    Raises:
        KeyError: no row is known by these values.
    """
    with locked(path.parent):
        rows = read_rows(path)
        found = [recorded for recorded in rows if all(recorded[name] == row[name] for name in key)]
        if not found:
            raise KeyError(f"{path}: no row has {[row[name] for name in key]} in {list(key)}")
        for recorded in found:
            recorded.update(values)
        _write(path, rows)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder, which is made where it is missing, against other processes that would hold it too."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    temporary.rename(path)
