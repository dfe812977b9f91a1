"""Decoded row groups equal what was written; anything broken on disk is found and located."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataloaders.errors import DataError
from dataloaders.parquet_reader import ParquetReader, RowGroup
from dataloaders.parquet_writer import split_types
from tests.dataloaders.small_dataset import SCHEMA, SmallDataset, make_rows, to_columns, write_small_dataset

TYPES = split_types(SCHEMA)


@pytest.fixture
def dataset(tmp_path: Path) -> SmallDataset:
    return write_small_dataset(tmp_path, 300)


def to_rows(group: RowGroup) -> list[dict]:
    columns = {name: column.tolist() for name, column in group.scalars.items()}
    for name, column in group.lists.items():
        columns[name] = [part.tolist() for part in np.split(column.values, column.offsets[1:-1])]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def test_row_groups_of_all_files_come_in_file_order_with_every_value(dataset: SmallDataset) -> None:
    reader = ParquetReader.of_split(dataset.train, types=TYPES)
    assert [(group.path.name, group.index, group.num_rows) for group in reader.groups] == [
        ("part-00000.parquet", 0, 64),
        ("part-00000.parquet", 1, 64),
        ("part-00000.parquet", 2, 64),
        ("part-00001.parquet", 0, 64),
        ("part-00001.parquet", 1, 44),
    ]
    rows = [row for position in range(5) for row in to_rows(reader.read(position))]
    assert rows == list(dataset.rows.values())
    assert reader.num_rows == 300


def test_columns_are_read_only_views_and_aligned_histories_share_their_offsets(dataset: SmallDataset) -> None:
    group = ParquetReader.of_split(dataset.train, types=TYPES).read(1)
    for column in (group.scalars["item"], group.lists["hist_item"].values, group.lists["hist_item"].offsets):
        assert not column.flags.owndata
        assert not column.flags.writeable
    assert group.lists["hist_item"].offsets is group.lists["hist_category"].offsets
    assert group.lists["hist_item"].offsets is not group.lists["genres"].offsets
    assert group.num_bytes > group.lists["hist_item"].values.nbytes


def test_only_the_named_columns_are_read(dataset: SmallDataset) -> None:
    group = ParquetReader.of_split(dataset.train, types={"item": pa.int32()}).read(0)
    assert list(group.scalars) == ["item"]
    assert not group.lists


def test_nulls_are_located_by_row(tmp_path: Path) -> None:
    table = pa.table(
        {
            "label": pa.array([None, 1.0, 0.0, None], pa.float32()),
            "hist_item": pa.array([[1], None, [2, None, None], [None]], pa.list_(pa.int32())),
        }
    )
    pq.write_table(table, tmp_path / "part-0.parquet")
    group = ParquetReader.of_split(tmp_path, types={name: TYPES[name] for name in table.column_names}).read(0)
    found = {key: rows.tolist() for key, rows in group.nulls.items()}
    assert found == {("label", "null"): [0, 3], ("hist_item", "null"): [1], ("hist_item", "null element"): [2, 3]}
    assert group.lists["hist_item"].offsets.tolist() == [0, 1, 1, 4, 5]


def test_a_whole_file_reads_as_one_group(dataset: SmallDataset) -> None:
    path = dataset.train / "part-00000.parquet"
    whole = ParquetReader([path], types=TYPES).read_all()
    assert to_rows(whole) == list(dataset.rows.values())[:192]
    assert str(whole.source) == str(path)


def test_an_empty_file_reads_as_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "empty.parquet"
    pq.write_table(pa.table({name: pa.array([], arrow_type) for name, arrow_type in TYPES.items()}), path)
    whole = ParquetReader([path], types=TYPES).read_all()
    assert whole.num_rows == 0
    assert whole.lists["genres"].offsets.tolist() == [0]


@pytest.mark.parametrize("column", ["hist_item", "label", "genres", "row_id"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.99])
def test_a_flipped_byte_in_a_data_page_is_found_and_located(dataset: SmallDataset, column: str, share: float) -> None:
    path = dataset.train / "part-00001.parquet"
    chunk, start, size = column_chunk(path, row_group=1, column=column)
    # the page's body is the end of the chunk: flip a bit of its compressed bytes, not of the page's header
    body = size - chunk.total_compressed_size // 2
    damaged = bytearray(path.read_bytes())
    damaged[start + body + int(share * (size - body - 1))] ^= 0x10
    path.write_bytes(damaged)
    reader = ParquetReader.of_split(dataset.train, types=TYPES)
    reader.read(3)
    with pytest.raises(DataError, match=rf"part-00001.parquet, row group 1, column '{column}': cannot be read: .*prepare the data"):
        reader.read(4)


def test_no_flipped_bit_anywhere_in_a_histories_pages_goes_unnoticed(dataset: SmallDataset) -> None:
    path = dataset.train / "part-00001.parquet"
    _, start, size = column_chunk(path, row_group=0, column="hist_item")
    intact = path.read_bytes()
    expected = to_rows(ParquetReader([path], types=TYPES).read(0))
    for place in range(start, start + size, 7):
        damaged = bytearray(intact)
        damaged[place] ^= 1 << (place % 8)
        path.write_bytes(damaged)
        # a flip may hit a byte that means nothing, such as unused statistics: then the rows must be right
        found = rows_or_error(path)
        assert found == expected or "row group 0, column 'hist_item': cannot be read" in found


def rows_or_error(path: Path) -> list[dict] | str:
    try:
        return to_rows(ParquetReader([path], types=TYPES).read(0))
    except DataError as error:
        return str(error)


def column_chunk(path: Path, *, row_group: int, column: str) -> tuple[pq.ColumnChunkMetaData, int, int]:
    footer = pq.ParquetFile(path).metadata.row_group(row_group)
    chunk = next(footer.column(i) for i in range(footer.num_columns) if footer.column(i).path_in_schema.split(".")[0] == column)
    start = chunk.dictionary_page_offset if chunk.has_dictionary_page else chunk.data_page_offset
    return chunk, start, chunk.total_compressed_size


def test_a_truncated_file_is_found_when_the_plan_is_made(dataset: SmallDataset) -> None:
    path = dataset.train / "part-00001.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"part-00001.parquet: not a complete Parquet file"):
        ParquetReader.of_split(dataset.train, types=TYPES)


def test_a_file_that_shrinks_after_planning_is_found_when_it_is_read(dataset: SmallDataset) -> None:
    reader = ParquetReader.of_split(dataset.train, types=TYPES)
    path = dataset.train / "part-00000.parquet"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DataError, match=r"part-00000.parquet, row group 2, column '\w+': cannot be read"):
        reader.read(2)
    path.unlink()
    with pytest.raises(DataError, match=r"part-00000.parquet, row group 0, column 'row_id': cannot be read"):
        reader.read(0)


def test_a_missing_column_is_named(dataset: SmallDataset) -> None:
    with pytest.raises(DataError, match=r"part-00000.parquet: column 'price' is missing, expected int32; the file has \['row_id'"):
        ParquetReader.of_split(dataset.train, types={"item": pa.int32(), "price": pa.int32()})


@pytest.mark.parametrize(
    ("column", "wrong", "message"),
    [
        ("item", pa.int64(), "column 'item' is int64, expected int32"),
        ("label", pa.float64(), "column 'label' is double, expected float"),
        ("hist_item", pa.list_(pa.int64()), "column 'hist_item' is list<element: int64>, expected list<element: int32"),
    ],
)
def test_a_column_of_another_type_is_named(tmp_path: Path, column: str, wrong: pa.DataType, message: str) -> None:
    columns = to_columns(make_rows(5)[0])
    table = pa.table(columns | {column: columns[column].cast(wrong)})
    pq.write_table(table, tmp_path / "part-0.parquet")
    with pytest.raises(DataError, match=message):
        ParquetReader.of_split(tmp_path, types=TYPES)


def test_a_folder_without_files_says_how_to_prepare_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no part-.*files; prepare the data set first"):
        ParquetReader.of_split(tmp_path / "train", types=TYPES)


def test_fingerprint_tells_splits_apart(dataset: SmallDataset, tmp_path: Path) -> None:
    other = write_small_dataset(tmp_path / "other", 299)
    fingerprints = {ParquetReader.of_split(data.train, types=TYPES).fingerprint for data in (dataset, dataset, other)}
    assert len(fingerprints) == 2
