"""Files come out whole, typed, checksummed and in the planned row groups."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataloaders.errors import DataError
from dataloaders.parquet_writer import write_items, write_split, write_user_items
from tests.dataloaders.small_dataset import SCHEMA, make_rows, to_columns

ROWS, ITEMS = make_rows(50)


def test_rows_survive_the_round_trip_in_order_across_files(tmp_path: Path) -> None:
    assert write_split(tmp_path / "train", SCHEMA, to_columns(ROWS), rows_per_group=8, rows_per_file=16) == 50
    files = sorted((tmp_path / "train").iterdir())
    assert [pq.ParquetFile(file).metadata.num_row_groups for file in files] == [2, 2, 2, 1]
    assert [row for file in files for row in pq.ParquetFile(file).read().to_pylist()] == ROWS


def test_every_column_is_required_and_of_the_schemas_type(tmp_path: Path) -> None:
    wide = {name: column.cast(pa.large_list(pa.int64())) if "hist" in name else column for name, column in to_columns(ROWS).items()}
    wide["label"], wide["user"] = wide["label"].cast(pa.float64()), wide["user"].cast(pa.int64())
    write_split(tmp_path / "train", SCHEMA, wide)
    for field in pq.read_schema(tmp_path / "train" / "part-00000.parquet"):
        assert not field.nullable
        assert not pa.types.is_list(field.type) or not field.type.value_field.nullable
    assert pq.read_table(tmp_path / "train").select(list(ROWS[0])).to_pylist() == ROWS


def test_slices_and_chunked_columns_are_written_as_they_read(tmp_path: Path) -> None:
    columns = {name: pa.chunked_array([column.slice(5, 20), column.slice(25, 7)]) for name, column in to_columns(ROWS).items()}
    write_split(tmp_path / "train", SCHEMA, columns, rows_per_group=6, rows_per_file=12)
    assert pq.read_table(tmp_path / "train").to_pylist() == ROWS[5:32]


def test_extra_columns_are_stored_beside_the_schemas(tmp_path: Path) -> None:
    write_split(tmp_path / "test", SCHEMA, to_columns(ROWS), extra={"true_logit": pa.array([0.5] * 50)})
    assert pq.read_table(tmp_path / "test")["true_logit"].to_pylist() == [0.5] * 50


def test_writing_again_replaces_the_whole_split(tmp_path: Path) -> None:
    folder = tmp_path / "train"
    write_split(folder, SCHEMA, to_columns(ROWS), rows_per_group=5, rows_per_file=5)
    write_split(folder, SCHEMA, to_columns(ROWS[:3]))
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["part-00000.parquet"]


def test_a_failed_write_leaves_the_old_split_alone(tmp_path: Path) -> None:
    folder = tmp_path / "train"
    write_split(folder, SCHEMA, to_columns(ROWS[:3]))
    broken = to_columns(ROWS) | {"item": pa.array([1] * 49 + [None], pa.int32())}
    with pytest.raises(DataError, match=r"part-00000.parquet: column 'item' holds nulls"):
        write_split(folder, SCHEMA, broken)
    assert pq.read_table(folder).num_rows == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"user": pa.array([1])}, "column 'user' has 1 rows, expected 50"),
        ({"price": pa.array([1.0] * 50)}, r"missing columns \[\], unknown columns \['price'\]"),
        ({"user": pa.array([2**40] * 50)}, "column 'user' is int64, expected int32: .*not in range"),
        ({"hist_item": pa.array([1] * 50)}, "column 'hist_item' is int64, expected list<.*it holds scalars"),
        ({"item": pa.array([[1]] * 50)}, "column 'item' is list<.*>, expected int32"),
        ({"genres": pa.array([[1, None]] * 50)}, "column 'genres' holds nulls"),
        ({"label": pa.array(["yes"] * 50)}, "column 'label' is string, expected float"),
    ],
)
def test_columns_that_do_not_fit_are_named(tmp_path: Path, change: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        write_split(tmp_path / "train", SCHEMA, to_columns(ROWS) | change)
    assert not (tmp_path / "train").exists()


def test_missing_columns_are_named(tmp_path: Path) -> None:
    columns = to_columns(ROWS)
    del columns["label"]
    with pytest.raises(DataError, match=r"missing columns \['label'\]"):
        write_split(tmp_path / "train", SCHEMA, columns)


def test_files_hold_whole_row_groups(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="rows_per_file=20 must be a positive multiple of rows_per_group=8"):
        write_split(tmp_path / "train", SCHEMA, to_columns(ROWS), rows_per_group=8, rows_per_file=20)


def test_items_need_one_row_per_id(tmp_path: Path) -> None:
    columns = {name: pa.array([item[name] for item in ITEMS]) for name in ("item", "category", "genres")}
    write_items(tmp_path, SCHEMA, columns)
    assert pq.read_table(tmp_path / "items.parquet").to_pylist() == ITEMS
    with pytest.raises(DataError, match=r"items.parquet: 39 rows, expected 40, one for each id of 'item'"):
        write_items(tmp_path, SCHEMA, {name: column.slice(1) for name, column in columns.items()})


def test_user_items_are_two_int32_columns(tmp_path: Path) -> None:
    write_user_items(tmp_path, pa.array([0, 0, 3]), pa.array([1, 5, 2]))
    table = pq.read_table(tmp_path / "user_items.parquet")
    assert table.to_pydict() == {"user": [0, 0, 3], "item": [1, 5, 2]}
    assert table.schema.types == [pa.int32(), pa.int32()]
    assert [path.name for path in tmp_path.iterdir()] == ["user_items.parquet"]
