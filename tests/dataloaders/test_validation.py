"""Every kind of bad row, under both policies, with every part of the message."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataloaders.errors import DataError
from dataloaders.parquet_reader import ParquetReader, RowGroup
from dataloaders.parquet_writer import split_types
from dataloaders.validation import BadRowPolicy, BadRows, check_row_group
from tests.dataloaders.small_dataset import SCHEMA, make_rows, to_columns

NAN, INF = float("nan"), float("inf")
BAD = 7

CASES = [
    ("user", -1, "negative id", "negative id: -1, expected 0 <= id < vocab_size=60"),
    ("item", 40, "id too large", "id too large: 40, expected 0 <= id < vocab_size=40"),
    ("item", None, "null", "null: null, expected a value"),
    ("row_id", None, "null", "null: null, expected a value"),
    ("label", None, "null", "null: null, expected a value"),
    ("label", NAN, "NaN", r"NaN: nan, expected a finite label in \[0, 1\]"),
    ("label", INF, "infinite", r"infinite: inf, expected a finite label in \[0, 1\]"),
    ("label", -INF, "infinite", r"infinite: -inf, expected a finite label in \[0, 1\]"),
    ("label", 1.5, "outside [0, 1]", r"outside \[0, 1\]: 1.5, expected a finite label in \[0, 1\]"),
    ("label", -0.5, "outside [0, 1]", r"outside \[0, 1\]: -0.5, expected a finite label in \[0, 1\]"),
    ("hist_item", None, "null", "null: null, expected a value"),
    ("hist_item", [3, None], "null element", "null element: null, expected an id in every place of the list"),
    ("hist_item", [1, -5, 2, -6], "negative id", "negative id: -5, expected 0 <= id < vocab_size=40"),
    ("hist_category", [1, 4, 5], "id too large", "id too large: 5, expected 0 <= id < vocab_size=5"),
    ("hist_item", [1] * 7, "too long", "too long: 7 ids, expected min_len=0 to max_len=6 ids"),
    ("interests", [], "too short", "too short: 0 ids, expected min_len=1 to max_len=3 ids"),
    ("hist_category", [1, 1, 1], "unaligned history", "unaligned history: 3 ids, expected as many ids as 'hist_item' has, 2"),
]


def read_back(folder: Path, rows: list[dict]) -> RowGroup:
    pq.write_table(pa.table(to_columns(rows)), folder / "part-0.parquet", write_page_checksum=True)
    return ParquetReader.of_split(folder, types=split_types(SCHEMA)).read(0)


def check(group: RowGroup, policy: BadRowPolicy) -> BadRows | None:
    return check_row_group(group, features=SCHEMA.features, label=SCHEMA.label, row_id=SCHEMA.row_id, policy=policy)


def rows_with(*changes: tuple[int, str, object]) -> list[dict]:
    rows, _ = make_rows(20)
    for row in (BAD, 11):
        rows[row] |= {"hist_item": [4, 9], "hist_category": [1, 2]}
    for row, column, value in changes:
        rows[row] = rows[row] | {column: value}
        if column == "hist_item" and isinstance(value, list):
            rows[row]["hist_category"] = [0] * len(value)
    return rows


@pytest.mark.parametrize("policy", ["raise", "skip"])
def test_good_rows_pass(tmp_path: Path, policy: BadRowPolicy) -> None:
    assert check(read_back(tmp_path, rows_with()), policy) is None


@pytest.mark.parametrize(("column", "value", "message"), [(column, value, message) for column, value, _, message in CASES])
def test_raise_names_file_row_group_row_row_id_column_value_rule_and_remedy(
    tmp_path: Path, column: str, value: object, message: str
) -> None:
    rows = rows_with((BAD, column, value))
    where = rf"part-0.parquet, row group 0, row {BAD} \(row_id={rows[BAD]['row_id']}\), "
    where = where if column != "row_id" else f"part-0.parquet, row group 0, row {BAD}, "
    remedy = "; correct the data and prepare it again, or set bad_rows='skip'"
    with pytest.raises(DataError, match=f"{where}column '{column}': {message}{remedy}"):
        check(read_back(tmp_path, rows), "raise")


@pytest.mark.parametrize(("column", "value", "reason"), [case[:3] for case in CASES])
def test_skip_leaves_out_exactly_the_bad_row_and_counts_it(tmp_path: Path, column: str, value: object, reason: str) -> None:
    bad = check(read_back(tmp_path, rows_with((BAD, column, value))), "skip")
    order = np.arange(20)[::-1].copy()
    assert order[bad.good(order)].tolist() == [row for row in range(19, -1, -1) if row != BAD]
    assert bad.count(order) == {(column, reason): 1}
    assert bad.count(np.array([1, 2])) == {}


def test_the_number_of_further_bad_rows_is_told(tmp_path: Path) -> None:
    rows = rows_with((BAD, "item", 99), (11, "item", 98), (15, "item", 97))
    with pytest.raises(DataError, match=f"row {BAD} .*id too large: 99, .* and 2 more rows of this row group"):
        check(read_back(tmp_path, rows), "raise")


def test_a_row_with_several_defects_counts_once_under_the_first(tmp_path: Path) -> None:
    rows = rows_with((BAD, "label", NAN), (BAD, "item", 99), (11, "item", -3), (11, "hist_item", [1] * 9), (3, "item", 41))
    bad = check(read_back(tmp_path, rows), "skip")
    assert bad.count(np.arange(20)) == {("label", "NaN"): 1, ("hist_item", "too long"): 1, ("item", "id too large"): 1}
    assert np.flatnonzero(~bad.good(np.arange(20))).tolist() == [3, BAD, 11]


def test_the_value_quoted_belongs_to_the_row_quoted(tmp_path: Path) -> None:
    # row 5 is null and its list's bytes mean nothing: the first bad id is that of row 9
    rows = rows_with((5, "hist_item", [1, None]), (9, "hist_item", [2, 77, 88]))
    bad_first, message = check(read_back(tmp_path, rows), "skip"), "row 9 .*: id too large: 77"
    assert bad_first.count(np.arange(20)) == {("hist_item", "null element"): 1, ("hist_item", "id too large"): 1}
    rows[5] = rows[4]
    with pytest.raises(DataError, match=message):
        check(read_back(tmp_path, rows), "raise")
