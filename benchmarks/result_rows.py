"""Rows of benchmarks/results/*.csv."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path


def append_rows(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Append `rows` to a CSV file; the first rows written fix its header.

    Raises:
        ValueError: a row's keys are not those of the file's header, in order.
    """
    if not rows:
        return
    header = list(rows[0])
    if path.exists():
        with path.open(newline="") as existing:
            header = next(csv.reader(existing), header)
    for row in rows:
        if list(row) != header:
            raise ValueError(f"{path}: the header is {header}, the row has {list(row)}; move the file away to start another one")
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists() or path.stat().st_size == 0
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=header, lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerows(rows)
