"""Row groups decoded and checked once, and kept while they are needed or fit into memory."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataloaders.collate import Part, take_rows
from dataloaders.errors import DataError
from dataloaders.parquet_reader import ParquetReader, RowGroup
from dataloaders.parquet_writer import item_types, split_types
from dataloaders.sampler import Segment
from dataloaders.schema import Schema
from dataloaders.validation import BadRowPolicy, BadRows, check_row_group

SkipCounts = Counter[tuple[str, str]]
"""(column, reason) -> rows left out."""


def skip_list(counts: SkipCounts) -> list[tuple[str, str, int]]:
    """(column, reason, rows), in order: `counts` as JSON can hold it."""
    return [(column, reason, rows) for (column, reason), rows in sorted(counts.items())]


def skip_counts_of(listed: Iterable[tuple[str, str, int]]) -> SkipCounts:
    """The counts that `skip_list` listed."""
    return SkipCounts({(column, reason): rows for column, reason, rows in listed})


BLOCK_ROWS = 2048
"""Rows that are brought into the epoch's order at once: enough to spread the cost of a call, few enough to hold for every lane."""


@dataclass(frozen=True, kw_only=True)
class _Block:
    """BLOCK_ROWS places of a row group's order, their good rows next to each other."""

    order: np.ndarray
    """The order that the block belongs to."""
    rows: RowGroup
    good_before: np.ndarray | None
    """int64 [places + 1]: good rows before each place; None: all are good."""

    def part(self, start: int, stop: int) -> Part:
        """The good rows at places [start, stop) of the block."""
        if self.good_before is None:
            return Part(self.rows, start, stop)
        return Part(self.rows, int(self.good_before[start]), int(self.good_before[stop]))


class RowGroupStore:
    """Turns a sampler's segments into decoded rows.

    A row group stays open while consecutive batches use it. Beyond that the first ones decoded are kept for later epochs, up to
    `cache_bytes`: every epoch reads every row group once, so keeping the newest ones instead would never hit.

    Args:
        reader: of the split.
        schema: what the rows must satisfy.
        bad_rows: policy for rows that do not.
        cache_bytes: memory for row groups that are not open.
    """

    def __init__(self, reader: ParquetReader, *, schema: Schema, bad_rows: BadRowPolicy, cache_bytes: int) -> None:
        self._reader, self._schema, self._bad_rows = reader, schema, bad_rows
        self._room = cache_bytes
        self._cached: dict[int, tuple[RowGroup, BadRows | None]] = {}
        self._open: dict[int, tuple[RowGroup, BadRows | None]] = {}
        self._blocks: dict[tuple[int, int], _Block] = {}

    def fetch(self, segments: Sequence[Segment]) -> tuple[list[Part], SkipCounts]:
        """The good rows of `segments`, in order, and how many bad ones were left out.

        Raises:
            DataError: a row group cannot be read, or holds a bad row and the policy is `raise`.
        """
        self._open = {group: self._decoded(group) for group in dict.fromkeys(segment.group for segment in segments)}
        blocks: dict[tuple[int, int], _Block] = {}
        parts, skipped = [], SkipCounts()
        for segment in segments:
            _, bad = self._open[segment.group]
            if bad is not None:
                skipped.update(bad.count(segment.rows))
            for number in range(segment.start // BLOCK_ROWS, -(-segment.stop // BLOCK_ROWS)):
                place, first = (segment.group, number), number * BLOCK_ROWS
                block = blocks[place] = blocks.get(place) or self._block(segment, number)
                part = block.part(max(segment.start - first, 0), min(segment.stop - first, BLOCK_ROWS))
                if part.start < part.stop:
                    parts.append(part)
        self._blocks = blocks
        return parts, skipped

    def _block(self, segment: Segment, number: int) -> _Block:
        known = self._blocks.get((segment.group, number))
        if known is not None and known.order is segment.order:
            return known
        group, bad = self._open[segment.group]
        rows = segment.order[number * BLOCK_ROWS : (number + 1) * BLOCK_ROWS]
        if bad is None:
            return _Block(order=segment.order, rows=take_rows(group, rows), good_before=None)
        good = bad.good(rows)
        good_before = np.concatenate([[0], np.cumsum(good)])
        return _Block(order=segment.order, rows=take_rows(group, rows[good]), good_before=good_before)

    def _decoded(self, position: int) -> tuple[RowGroup, BadRows | None]:
        known = self._open.get(position) or self._cached.get(position)
        if known is not None:
            return known
        group = self._reader.read(position)
        bad = check_row_group(
            group, features=self._schema.features, label=self._schema.label, row_id=self._schema.row_id, policy=self._bad_rows
        )
        if group.num_bytes <= self._room:
            self._room -= group.num_bytes
            self._cached[position] = group, bad
        return group, bad


def open_split(folder: Path, schema: Schema) -> ParquetReader:
    """The reader of a split's folder.

    Raises:
        DataError: files are missing or do not fit the schema, or hold another number of rows than it counts.
    """
    reader = ParquetReader.of_split(folder, types=split_types(schema))
    expected = schema.num_rows.get(folder.name, reader.num_rows)
    if reader.num_rows != expected:
        raise DataError(
            f"{folder}: {reader.num_rows} rows in {len(reader.groups)} row groups, but schema.json counts {expected}; a file is "
            "missing or of another version: prepare the data set again"
        )
    return reader


def read_items(folder: Path, schema: Schema) -> RowGroup:
    """All of `folder`/items.parquet, checked: row i describes item id i.

    Raises:
        DataError: the file cannot be read, breaks the schema, or its rows are not the item ids in order.
    """
    path = folder / "items.parquet"
    items = ParquetReader([path], types=item_types(schema)).read_all()
    key = schema.feature(schema.item_key)
    if items.num_rows != key.vocab_size:
        raise DataError(
            f"{path}: {items.num_rows} rows, expected vocab_size={key.vocab_size} of {key.name!r}; prepare the data set again"
        )
    check_row_group(items, features=schema.side("item"))
    misplaced = np.flatnonzero(items.scalars[key.name] != np.arange(items.num_rows))
    if len(misplaced):
        row = int(misplaced[0])
        raise DataError(
            f"{path}, row {row}, column {key.name!r}: id {items.scalars[key.name][row]}, expected {row}: row i is item id i"
        )
    return items
