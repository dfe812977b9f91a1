"""Columns in memory -> the Parquet files of a prepared data set (layout: dataloaders/schema.py).

Encodings are chosen for the speed of reading histories back: list columns are PLAIN (the overlapping histories of one user then
compress across rows, which bit-packed dictionary codes prevent), scalar ids a dictionary. Every page carries a checksum,
and every column is required (non-nullable), so that a reader spends no time on missing values.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from dataloaders.errors import DataError
from dataloaders.schema import Feature, Schema

ROWS_PER_GROUP = 65_536
ROWS_PER_FILE = 16 * ROWS_PER_GROUP
_ID_LIST = pa.list_(pa.field("element", pa.int32(), nullable=False))


def feature_type(feature: Feature) -> pa.DataType:
    """Arrow type of a feature's column: int32, or a list of int32."""
    return _ID_LIST if feature.is_list else pa.int32()


def split_types(schema: Schema) -> dict[str, pa.DataType]:
    """Arrow type of every column that a split's files hold, in writing order."""
    features = {feature.name: feature_type(feature) for feature in schema.features}
    return {schema.row_id: pa.int64(), schema.label: pa.float32()} | features


def item_types(schema: Schema) -> dict[str, pa.DataType]:
    """Arrow type of every column of items.parquet, in writing order."""
    return {feature.name: feature_type(feature) for feature in schema.side("item")}


def write_split(
    folder: Path,
    schema: Schema,
    columns: Mapping[str, pa.Array | pa.ChunkedArray],
    *,
    rows_per_group: int = ROWS_PER_GROUP,
    rows_per_file: int = ROWS_PER_FILE,
    extra: Mapping[str, pa.Array | pa.ChunkedArray] | None = None,
) -> int:
    """Write one split as `folder`/part-00000.parquet, ...; an existing split of that name is replaced as a whole.

    Args:
        folder: the split's folder, e.g. DIR/train; it appears only once all files are complete.
        schema: names and types of the columns.
        columns: one array per column of the schema: ids int32 (or anything that casts to it without loss), label float32, row_id
            int64, lists where `feature.is_list`.
        rows_per_group: rows of one row group, the unit of reading and shuffling.
        rows_per_file: rows of one file, a multiple of rows_per_group.
        extra: further columns, stored as they are; the loader does not read them.

    Returns:
        The number of rows.

    Raises:
        DataError: a column is missing, unknown, of another length, of a type that does not fit, or holds nulls.
    """
    if rows_per_group < 1 or rows_per_file % rows_per_group:
        raise ValueError(f"rows_per_file={rows_per_file} must be a positive multiple of rows_per_group={rows_per_group}")
    types = split_types(schema)
    num_rows = _check_columns(folder, columns, types)
    extra = dict(extra or {})
    _check_columns(folder, extra, {name: column.type for name, column in extra.items()}, num_rows=num_rows)
    partial = folder.with_name(f"{folder.name}.tmp")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for part, start in enumerate(range(0, max(num_rows, 1), rows_per_file)):
        rows = min(rows_per_file, num_rows - start)
        every = {name: column.slice(start, rows) for name, column in {**columns, **extra}.items()}
        _write_file(partial / f"part-{part:05d}.parquet", every, types, rows_per_group=rows_per_group)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return num_rows


def write_items(folder: Path, schema: Schema, columns: Mapping[str, pa.Array | pa.ChunkedArray]) -> None:
    """Write `folder`/items.parquet: every item-side column, row i for item id i.

    Raises:
        DataError: as `write_split`, or the number of rows is not the item feature's vocab_size.
    """
    path, types = folder / "items.parquet", item_types(schema)
    num_rows = _check_columns(path, columns, types)
    expected = schema.feature(schema.item_key).vocab_size
    if num_rows != expected:
        raise DataError(f"{path}: {num_rows} rows, expected {expected}, one for each id of {schema.item_key!r}")
    _write_atomically(path, columns, types)


def write_user_items(folder: Path, users: pa.Array, items: pa.Array) -> None:
    """Write `folder`/user_items.parquet: distinct (user, item) pairs, which must come sorted by user, then by item.

    Raises:
        DataError: the two columns differ in length, do not cast to int32, or hold nulls.
    """
    path, types = folder / "user_items.parquet", {"user": pa.int32(), "item": pa.int32()}
    columns = {"user": users, "item": items}
    _check_columns(path, columns, types)
    _write_atomically(path, columns, types)


def _write_atomically(path: Path, columns: Mapping[str, pa.Array | pa.ChunkedArray], types: dict[str, pa.DataType]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.tmp")
    _write_file(partial, columns, types, rows_per_group=ROWS_PER_GROUP)
    partial.replace(path)


def _check_columns(
    where: Path,
    columns: Mapping[str, pa.Array | pa.ChunkedArray],
    types: dict[str, pa.DataType],
    *,
    num_rows: int | None = None,
) -> int:
    """Names and lengths; returns the number of rows."""
    missing, unknown = sorted(types.keys() - columns.keys()), sorted(columns.keys() - types.keys())
    if missing or unknown:
        raise DataError(f"{where}: missing columns {missing}, unknown columns {unknown}; expected {list(types)}")
    for name, column in columns.items():
        num_rows = len(column) if num_rows is None else num_rows
        if len(column) != num_rows:
            raise DataError(f"{where}: column {name!r} has {len(column)} rows, expected {num_rows} as the first column")
    return num_rows or 0


def _write_file(
    path: Path, columns: Mapping[str, pa.Array | pa.ChunkedArray], types: dict[str, pa.DataType], *, rows_per_group: int
) -> None:
    """One file, flushed to the disk; columns outside `types` keep their own type."""
    fields = [pa.field(name, types.get(name, column.type), nullable=name not in types) for name, column in columns.items()]
    arrow_schema = pa.schema(sorted(fields, key=lambda field: [*types, *columns].index(field.name)))
    num_rows = len(next(iter(columns.values())))
    writer = pq.ParquetWriter(
        path,
        arrow_schema,
        compression="zstd",
        compression_level=3,
        use_dictionary=[field.name for field in arrow_schema if not pa.types.is_list(field.type) and field.type != pa.int64()],
        write_statistics=False,
        write_page_checksum=True,
    )
    with writer:
        for start in range(0, num_rows, rows_per_group):
            rows = {name: column.slice(start, rows_per_group) for name, column in columns.items()}
            arrays = [_required(path, field, rows[field.name]) for field in arrow_schema]
            writer.write_table(pa.Table.from_arrays(arrays, schema=arrow_schema), row_group_size=rows_per_group)
    with path.open("rb") as written:
        os.fsync(written.fileno())


def _required(where: Path, field: pa.Field, column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """`column` as one array of the field's type; nulls are an error unless the field allows them."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if field.nullable:
        return array
    is_list = pa.types.is_list(array.type) or pa.types.is_large_list(array.type)
    values = array.flatten() if is_list else array
    if array.null_count or values.null_count:
        raise DataError(f"{where}: column {field.name!r} holds nulls; every row must have a value (an empty list is a value)")
    try:
        if not pa.types.is_list(field.type):
            return array.cast(field.type)
        if not is_list:
            raise pa.ArrowInvalid("it holds scalars")
        offsets = array.offsets.to_numpy() - array.offsets[0].as_py()
        return pa.ListArray.from_arrays(pa.array(offsets).cast(pa.int32()), values.cast(pa.int32()), type=field.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(f"{where}: column {field.name!r} is {array.type}, expected {field.type}: {error}") from error
