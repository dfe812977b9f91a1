"""Parquet row groups -> numpy views, with every page's checksum verified and every failure located."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dataloaders.errors import DataError

_PREPARE_AGAIN = "prepare the data set again, or restore the file"


@dataclass(frozen=True, kw_only=True)
class RowGroupSource:
    """Where a row group lies."""

    path: Path
    """The Parquet file."""
    index: int | None
    """Row group within the file; None: the whole file."""
    num_rows: int

    def __str__(self) -> str:
        return f"{self.path}" if self.index is None else f"{self.path}, row group {self.index}"


@dataclass(frozen=True, kw_only=True)
class ListColumn:
    """A jagged column: row i holds values[offsets[i]:offsets[i + 1]]."""

    values: np.ndarray
    """int32, all rows one after another."""
    offsets: np.ndarray
    """int32 or int64 [rows + 1], from 0; columns of one row group with equal offsets share one array object."""

    @cached_property
    def as_bytes(self) -> pa.LargeBinaryArray:
        """The same rows as byte strings (a view of the values), which Arrow moves fastest."""
        byte_offsets = self.offsets.astype(np.int64) * self.values.itemsize
        return pa.Array.from_buffers(
            pa.large_binary(), len(self.offsets) - 1, [None, pa.py_buffer(byte_offsets), pa.py_buffer(self.values)]
        )


@dataclass(frozen=True, kw_only=True)
class RowGroup:
    """Decoded rows of one source: read-only views of Arrow's buffers."""

    source: RowGroupSource
    num_rows: int
    scalars: dict[str, np.ndarray]
    """Column -> [rows]."""
    lists: dict[str, ListColumn]
    nulls: dict[tuple[str, str], np.ndarray]
    """(column, `null` or `null element`) -> int64 row numbers, ascending; absent if there are none. Their values are undefined."""

    @property
    def num_bytes(self) -> int:
        """Memory that the rows occupy, with the byte offsets of `ListColumn.as_bytes`."""
        scalars = sum(column.nbytes for column in self.scalars.values())
        offsets = {id(column.offsets): column.offsets.nbytes for column in self.lists.values()}
        return scalars + sum(offsets.values()) + sum(c.values.nbytes + 8 * len(c.offsets) for c in self.lists.values())


class ParquetReader:
    """The row groups of some Parquet files, in the order of the file names.

    Args:
        paths: the files; footers are read at once, pages later.
        types: Arrow type of every column to read; other columns of the files are ignored.

    Raises:
        DataError: no files, an unreadable footer, a missing column or one of another type.
    """

    def __init__(self, paths: list[Path], *, types: Mapping[str, pa.DataType]) -> None:
        self._types = dict(types)
        self._footers: dict[Path, pq.FileMetaData] = {path: _read_footer(path, self._types) for path in sorted(paths)}
        self.groups: tuple[RowGroupSource, ...] = tuple(
            RowGroupSource(path=path, index=index, num_rows=footer.row_group(index).num_rows)
            for path, footer in self._footers.items()
            for index in range(footer.num_row_groups)
        )
        """Every row group; `read` takes a position in it."""

    @classmethod
    def of_split(cls, folder: Path, *, types: Mapping[str, pa.DataType]) -> "ParquetReader":
        """The reader of `folder`/part-*.parquet; DataError if there are none."""
        paths = sorted(folder.glob("part-*.parquet"))
        if not paths:
            raise DataError(f"{folder}: no part-*.parquet files; prepare the data set first: python -m dataloaders.prepare.<name>")
        return cls(paths, types=types)

    @property
    def num_rows(self) -> int:
        """Rows of all files."""
        return sum(group.num_rows for group in self.groups)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over file names and footers (rows, sizes, statistics of every column chunk): tells splits apart, reads no rows."""
        digest = hashlib.sha256()
        for path, footer in self._footers.items():
            with path.open("rb") as file:
                file.seek(-(footer.serialized_size + 8), os.SEEK_END)  # 8: the footer's length and the magic bytes
                digest.update(f"{path.name}\0".encode() + file.read())
        return digest.hexdigest()

    def read(self, position: int) -> RowGroup:
        """Decode the row group at `position` of `groups`.

        Raises:
            DataError: the file is gone, truncated or corrupted; names the file, row group and column.
        """
        source = self.groups[position]
        return _to_row_group(source, self._read_table(source), self._types)

    def read_all(self) -> RowGroup:
        """Decode all row groups of a single file as one (`source.index` is None); errors as `read`."""
        (path,) = self._footers
        tables = [self._read_table(source) for source in self.groups]
        whole = RowGroupSource(path=path, index=None, num_rows=self.num_rows)
        return _to_row_group(whole, pa.concat_tables(tables), self._types) if tables else _empty(whole, self._types)

    def _read_table(self, source: RowGroupSource) -> pa.Table:
        try:
            return self._read_columns(source, list(self._types))
        except (OSError, pa.ArrowException) as error:
            for name in self._types:
                self._read_one_column(source, name)
            raise DataError(f"{source}: cannot be read: {_one_line(error)}; {_PREPARE_AGAIN}") from error

    def _read_one_column(self, source: RowGroupSource, name: str) -> None:
        try:
            self._read_columns(source, [name])
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{source}, column {name!r}: cannot be read: {_one_line(error)}; {_PREPARE_AGAIN}") from error

    def _read_columns(self, source: RowGroupSource, names: list[str]) -> pa.Table:
        with pq.ParquetFile(source.path, metadata=self._footers[source.path], page_checksum_verification=True) as file:
            table = file.read_row_group(source.index, columns=names)
        if table.num_rows != source.num_rows:
            raise pa.ArrowInvalid(f"{table.num_rows} rows, expected {source.num_rows}")
        return table


def _read_footer(path: Path, types: Mapping[str, pa.DataType]) -> pq.FileMetaData:
    try:
        with pq.ParquetFile(path) as file:
            footer, found = file.metadata, file.schema_arrow
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: not a complete Parquet file: {_one_line(error)}; {_PREPARE_AGAIN}") from error
    for name, expected in types.items():
        if name not in found.names:
            raise DataError(
                f"{path}: column {name!r} is missing, expected {expected}; the file has {found.names}; {_PREPARE_AGAIN}"
            )
        if not _same_type(found.field(name).type, expected):
            raise DataError(f"{path}: column {name!r} is {found.field(name).type}, expected {expected}; {_PREPARE_AGAIN}")
    return footer


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _same_type(found: pa.DataType, expected: pa.DataType) -> bool:
    """Equal but for the name and nullability of list elements."""
    if pa.types.is_list(expected):
        return pa.types.is_list(found) and found.value_type == expected.value_type
    return found == expected


def _empty(source: RowGroupSource, types: Mapping[str, pa.DataType]) -> RowGroup:
    table = pa.Table.from_pydict({name: pa.array([], type=arrow_type) for name, arrow_type in types.items()})
    return _to_row_group(source, table, types)


def _to_row_group(source: RowGroupSource, table: pa.Table, types: Mapping[str, pa.DataType]) -> RowGroup:
    scalars: dict[str, np.ndarray] = {}
    lists: dict[str, ListColumn] = {}
    nulls: dict[tuple[str, str], np.ndarray] = {}
    for name, arrow_type in types.items():
        chunked = table.column(name)
        array = chunked.chunk(0) if chunked.num_chunks == 1 else pa.concat_arrays(chunked.chunks)
        if array.null_count:
            nulls[name, "null"] = _null_positions(array)
        if not pa.types.is_list(arrow_type):
            scalars[name] = _view(array)
            continue
        lists[name] = column = _list_view(array, [other.offsets for other in lists.values()])
        elements = array.values.slice(array.offsets[0].as_py(), len(column.values))
        if elements.null_count:
            rows = np.searchsorted(column.offsets, _null_positions(elements), side="right") - 1
            nulls[name, "null element"] = np.unique(rows)
    return RowGroup(source=source, num_rows=source.num_rows, scalars=scalars, lists=lists, nulls=nulls)


def _null_positions(array: pa.Array) -> np.ndarray:
    return np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False))


def _view(array: pa.Array) -> np.ndarray:
    """The array's values without a copy; entries that are null hold anything."""
    dtype = array.type.to_pandas_dtype()
    data = array.buffers()[1]
    if data is None:
        return np.zeros(len(array), dtype=dtype)
    view = np.frombuffer(data, dtype=dtype, count=len(array), offset=array.offset * np.dtype(dtype).itemsize)
    # a row group is shared between batches and epochs
    view.flags.writeable = False
    return view


def _list_view(array: pa.ListArray, known_offsets: list[np.ndarray]) -> ListColumn:
    offsets = _view(array.offsets)
    first, last = int(offsets[0]), int(offsets[-1])
    offsets = offsets - first if first else offsets
    shared = next((known for known in known_offsets if np.array_equal(known, offsets)), offsets)
    return ListColumn(values=_view(array.values)[first:last], offsets=shared)
