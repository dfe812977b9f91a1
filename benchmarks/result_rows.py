"""Rows of benchmarks/results/*.csv."""

import csv
import os
from collections.abc import Mapping, Sequence
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

    The file appears complete or stays as it was. Its columns become the old ones and the new ones; what a row lacks stays empty.

    Raises:
        ValueError: a row lacks a column of `key`.
    """
    if not rows:
        return
    for row in rows:
        if missing := [name for name in key if name not in row]:
            raise ValueError(f"{path}: a row lacks the columns {missing} that it is known by; it has {list(row)}")
    new = {tuple(str(row[name]) for name in key) for row in rows} if key else set()
    kept = [old for old in read_rows(path) if tuple(old.get(name) for name in key) not in new]
    every: list[Mapping[str, object]] = [*kept, *rows]
    columns = list(dict.fromkeys(name for row in every for name in row))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(every)
    temporary.rename(path)
