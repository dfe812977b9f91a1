"""Taking and collating rows equals a loop over rows."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dataloaders.collate import Collator, Part, take_rows
from dataloaders.parquet_reader import ListColumn, RowGroup, RowGroupSource
from dataloaders.schema import Feature
from tests.dataloaders.small_dataset import SCHEMA, batch_rows, key_values, make_rows

ROWS, ITEMS = make_rows(60)


def decoded(rows: list[dict], columns: list[str]) -> RowGroup:
    """A row group of plain arrays; the two history columns share their offsets, as the reader makes them."""
    scalars, lists = {}, {}
    for name in columns:
        values = [row[name] for row in rows]
        if isinstance(values[0], list):
            offsets = np.concatenate([[0], np.cumsum([len(ids) for ids in values])]).astype(np.int32)
            offsets = lists["hist_item"].offsets if name == "hist_category" else offsets
            lists[name] = ListColumn(values=np.array([i for ids in values for i in ids], dtype=np.int32), offsets=offsets)
        else:
            scalars[name] = np.array(values, dtype={"row_id": np.int64, "label": np.float32}.get(name, np.int32))
    source = RowGroupSource(path=None, index=0, num_rows=len(rows))
    return RowGroup(source=source, num_rows=len(rows), scalars=scalars, lists=lists, nulls={})


GROUP, ITEM_TABLE = decoded(ROWS, list(ROWS[0])), decoded(ITEMS, list(ITEMS[0]))


@settings(deadline=None)
@given(
    lists=st.lists(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=5), min_size=1, max_size=20),
    choice=st.lists(st.integers(0, 10**6), max_size=30),
)
def test_taken_rows_equal_a_loop_over_rows(lists: list[list[int]], choice: list[int]) -> None:
    rows = np.array([number % len(lists) for number in choice], dtype=np.int64)
    group = decoded(
        [{"hist_item": ids, "hist_category": ids[::-1], "user": len(ids)} for ids in lists], ["hist_item", "hist_category", "user"]
    )
    taken = take_rows(group, rows)
    assert taken.num_rows == len(rows)
    assert taken.scalars["user"].tolist() == [len(lists[row]) for row in rows]
    assert taken.lists["hist_item"].offsets is taken.lists["hist_category"].offsets
    for name, step in (("hist_item", 1), ("hist_category", -1)):
        column = taken.lists[name]
        assert column.values.dtype == np.int32
        parts = [column.values[a:b].tolist() for a, b in zip(column.offsets[:-1], column.offsets[1:], strict=True)]
        assert parts == [lists[row][::step] for row in rows]


def test_rows_taken_from_taken_rows_are_right_too() -> None:
    twice = take_rows(take_rows(GROUP, np.arange(50, 10, -1)), np.array([3, 3, 0]))
    assert twice.scalars["row_id"].tolist() == [ROWS[47]["row_id"], ROWS[47]["row_id"], ROWS[50]["row_id"]]
    assert twice.lists["genres"].values.tolist() == ROWS[47]["genres"] * 2 + ROWS[50]["genres"]


ranges = st.tuples(st.integers(0, 60), st.integers(0, 60)).map(sorted)


@settings(deadline=None)
@given(st.lists(ranges, min_size=1, max_size=6).filter(lambda parts: any(a < b for a, b in parts)))
def test_parts_are_joined_in_order(parts: list[list[int]]) -> None:
    batch = Collator(SCHEMA)([Part(GROUP, start, stop) for start, stop in parts], global_rows=77)
    assert batch_rows(batch) == [row for start, stop in parts for row in ROWS[start:stop]]
    assert batch.global_rows.item() == 77


@settings(deadline=None)
@given(
    st.integers(1, 3).flatmap(
        lambda num: st.lists(st.lists(st.integers(0, 39), min_size=num, max_size=num), min_size=1, max_size=9)
    )
)
def test_negatives_repeat_their_rows_with_other_items(drawn: list[list[int]]) -> None:
    rows = ROWS[20 : 20 + len(drawn)]
    negative_DP = np.array(drawn).T
    batch = Collator(SCHEMA, items=ITEM_TABLE)([Part(GROUP, 20, 20 + len(rows))], negative_DP=negative_DP, global_rows=1)
    blocks = [[row | ITEMS[item] | {"label": 0.0} for row, item in zip(rows, block, strict=True)] for block in negative_DP.tolist()]
    assert batch_rows(batch) == rows + [row for block in blocks for row in block]
    assert torch.equal(batch.row_id_B.view(len(blocks) + 1, -1), batch.row_id_B[: len(rows)].expand(len(blocks) + 1, -1))


def as_ids(row: dict, feature: Feature) -> list[int]:
    return row[feature.name] if feature.is_list else [row[feature.name]]


@settings(deadline=None)
@given(st.integers(1, 9), st.lists(st.integers(0, 39), max_size=12))
def test_item_only_rows_have_their_item_features_alone_and_no_label(num_rows: int, shared: list[int]) -> None:
    collator = Collator(SCHEMA, items=ITEM_TABLE)
    batch = collator([Part(GROUP, 30, 30 + num_rows)], shared_K=np.array(shared, dtype=np.int64), global_rows=num_rows)
    rows = ROWS[30 : 30 + num_rows]
    assert batch.num_rows == num_rows
    assert batch.label_B.tolist() == [row["label"] for row in rows]
    assert batch.row_id_B.tolist() == [row["row_id"] for row in rows]
    alone = dict(zip(("pooled", "sequence"), collator.items_only(np.array(shared, dtype=np.int64)), strict=True))
    for part, features in (("pooled", SCHEMA.pooled_features), ("sequence", SCHEMA.sequence_features)):
        assert getattr(batch, part).stride() == num_rows + len(shared)
        assert alone[part].stride() == len(shared)
        for feature in features:
            added = [as_ids(ITEMS[item], feature) if feature.side == "item" else [] for item in shared]
            assert key_values(getattr(batch, part), feature.name) == [as_ids(row, feature) for row in rows] + added
            assert key_values(alone[part], feature.name) == added


def test_a_batch_has_its_rows_own_negatives_or_shared_ones() -> None:
    with pytest.raises(AssertionError, match="negatives of each row or shared ones"):
        Collator(SCHEMA, items=ITEM_TABLE)(
            [Part(GROUP, 0, 2)], negative_DP=np.array([[1, 2]]), shared_K=np.array([3]), global_rows=2
        )


@pytest.mark.parametrize("drawn", [{"negative_DP": np.array([[1, 2]])}, {"shared_K": np.array([1, 2])}])
def test_negatives_without_an_items_table_are_an_error(drawn: dict) -> None:
    with pytest.raises(ValueError, match="batches with negatives need the items table"):
        Collator(SCHEMA)([Part(GROUP, 0, 2)], **drawn, global_rows=4)


def test_batches_own_their_memory() -> None:
    before = GROUP.scalars["label"].copy()
    batch = Collator(SCHEMA)([Part(GROUP, 0, 60)], global_rows=60)
    for tensor in (batch.pooled.values(), batch.sequence.values(), batch.label_B, batch.row_id_B):
        tensor.fill_(5)
    assert np.array_equal(GROUP.scalars["label"], before)
    assert GROUP.lists["hist_item"].values.tolist() == [i for row in ROWS for i in row["hist_item"]]


def test_a_batch_survives_moving_and_its_jagged_parts_line_up() -> None:
    batch = Collator(SCHEMA)([Part(GROUP, 5, 9)], global_rows=4).to(torch.device("cpu"), non_blocking=True)
    assert batch.num_rows == 4
    item = batch.sequence["hist_item"]
    assert torch.equal(item.lengths(), batch.sequence["hist_category"].lengths())
    assert item.offsets().tolist() == np.cumsum([0] + [len(row["hist_item"]) for row in ROWS[5:9]]).tolist()
