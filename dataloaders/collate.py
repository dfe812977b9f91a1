"""Rows of decoded row groups -> Batch, without a Python loop over rows.

Two steps: `take_rows` copies shuffled rows next to each other, one memory copy a row; `Collator` puts runs of such rows into the
batch's tensors, one memory copy a run. Where P rows get D negatives each, the batch has B = P * (1 + D) rows: first the P rows
themselves, then for every draw d the same P rows with their d-th negative item and label 0. So `batch.label_B.view(1 + D, P)` lines
each row up with its negatives.

Candidates that all rows share (and a whole catalogue) are item-only rows: behind the P rows stand K rows with the item's features
and nothing else, so that no history is repeated. They have no label and no row_id.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from dataloaders.batch import Batch
from dataloaders.parquet_reader import ListColumn, RowGroup
from dataloaders.schema import Feature, Schema

# P rows before negatives, D negatives of each, B = P * (1 + D), K item-only rows, J ids of a jagged column


class Part(NamedTuple):
    """Consecutive rows [start, stop) of decoded rows."""

    group: RowGroup
    start: int
    stop: int


def take_rows(group: RowGroup, rows: np.ndarray) -> RowGroup:
    """`rows` (int64 row numbers, any order, repeats allowed) of `group`, next to each other; they hold no nulls.

    Columns of `group` that share their offsets share them in the result.
    """
    scalars = {name: column[rows] for name, column in group.scalars.items()}
    indices = pa.array(rows, type=pa.int64())
    lists: dict[str, ListColumn] = {}
    offsets_of: dict[int, np.ndarray] = {}
    for name, column in group.lists.items():
        # Arrow takes byte strings with one memcpy a row, but lists of numbers id by id
        taken = pc.take(column.as_bytes, indices, boundscheck=False)
        _, byte_offsets, data = taken.buffers()
        key = id(column.offsets)
        if key not in offsets_of:
            offsets_of[key] = np.frombuffer(byte_offsets, dtype=np.int64, count=len(rows) + 1) // column.values.itemsize
        total = int(offsets_of[key][-1])
        values = np.frombuffer(data, dtype=column.values.dtype, count=total) if total else column.values[:0]
        lists[name] = ListColumn(values=values, offsets=offsets_of[key])
    return RowGroup(source=group.source, num_rows=len(rows), scalars=scalars, lists=lists, nulls={})


def gather_scalar(parts: Sequence[Part], name: str) -> np.ndarray:
    """A scalar column of the rows of `parts`, [P]."""
    return np.concatenate([group.scalars[name][start:stop] for group, start, stop in parts])


@dataclass(frozen=True, kw_only=True)
class _Column:
    """One feature of some rows, ready to be written."""

    feature: Feature
    parts: Sequence[Part]
    total: int
    """Ids of all rows."""

    def write(self, lengths_P: np.ndarray, value_J: np.ndarray) -> None:
        name = self.feature.name
        if not self.parts:
            return
        if not self.feature.is_list:
            lengths_P[:] = 1
            np.concatenate([group.scalars[name][start:stop] for group, start, stop in self.parts], out=value_J)
            return
        columns = [(group.lists[name], start, stop) for group, start, stop in self.parts]
        np.concatenate(
            [column.values[column.offsets[start] : column.offsets[stop]] for column, start, stop in columns], out=value_J
        )
        first = 0
        for column, start, stop in columns:
            np.subtract(
                column.offsets[start + 1 : stop + 1],
                column.offsets[start:stop],
                out=lengths_P[first : first + stop - start],
                casting="same_kind",
            )
            first += stop - start


class Collator:
    """Builds batches of one schema.

    Args:
        schema: names and order of the features.
        items: all rows of items.parquet, row i for item id i; needed where batches get negatives.
    """

    def __init__(self, schema: Schema, *, items: RowGroup | None = None) -> None:
        self._schema, self._items = schema, items

    def __call__(
        self,
        parts: Sequence[Part],
        *,
        negative_DP: np.ndarray | None = None,
        shared_K: np.ndarray | None = None,
        global_rows: int,
    ) -> Batch:
        """The batch of all rows of `parts`, in order, and their negatives.

        Args:
            parts: at least one; the rows are valid.
            negative_DP: int64 [D, P] item ids, negatives of one row each.
            shared_K: int64 [K] item ids that become item-only rows; not together with negative_DP.
            global_rows: what Batch.global_rows says.
        """
        assert negative_DP is None or shared_K is None, "a batch has negatives of each row or shared ones"
        row_id_P = gather_scalar(parts, self._schema.row_id)
        num_rows = len(row_id_P)
        blocks = 1 if negative_DP is None else 1 + len(negative_DP)
        label_B = np.zeros(blocks * num_rows, dtype=np.float32)
        label_B[:num_rows] = gather_scalar(parts, self._schema.label)
        if shared_K is not None:
            pooled, sequence = self._jagged(parts, _Added(self._item_parts(shared_K), rows=len(shared_K), item_only=True), num_rows)
        elif negative_DP is not None:
            added = _Added(self._item_parts(negative_DP.reshape(-1)), rows=negative_DP.size, item_only=False)
            pooled, sequence = self._jagged(parts, added, num_rows)
        else:
            pooled, sequence = self._jagged(parts, _Added((), rows=0, item_only=True), num_rows)
        return Batch(
            pooled=pooled,
            sequence=sequence,
            label_B=torch.from_numpy(label_B),
            row_id_B=torch.from_numpy(np.tile(row_id_P, blocks)),
            global_rows=torch.tensor(global_rows, dtype=torch.int64),
        )

    def items_only(self, item_K: np.ndarray) -> tuple[KeyedJaggedTensor, KeyedJaggedTensor]:
        """(pooled, sequence) of K item-only rows, for int64 item ids [K]."""
        return self._jagged((), _Added(self._item_parts(item_K), rows=len(item_K), item_only=True), 0)

    def _item_parts(self, item_K: np.ndarray) -> list[Part]:
        if self._items is None:
            raise ValueError("batches with negatives need the items table: pass items= to Collator")
        taken = take_rows(self._items, item_K)
        return [Part(taken, 0, taken.num_rows)]

    def _jagged(self, parts: Sequence[Part], added: "_Added", num_rows: int) -> tuple[KeyedJaggedTensor, KeyedJaggedTensor]:
        schema = self._schema
        return _keyed(schema.pooled_features, parts, added, num_rows), _keyed(schema.sequence_features, parts, added, num_rows)


class _Added(NamedTuple):
    """Rows that follow the data's own."""

    items: Sequence[Part]
    """Their item features."""
    rows: int
    item_only: bool
    """Whether all other features are empty, or repeat those of the data's own rows, again and again."""


def _keyed(features: tuple[Feature, ...], parts: Sequence[Part], added: _Added, num_rows: int) -> KeyedJaggedTensor:
    """The features of all rows: an item feature of an added row is its own."""
    blocks = 1 if added.item_only else 1 + added.rows // num_rows
    own = [_column(feature, parts) for feature in features]
    other = [_column(f, added.items) if added.items and f.side == "item" else None for f in features]
    totals = [a.total * blocks if b is None else a.total + b.total for a, b in zip(own, other, strict=True)]
    stops = np.cumsum(totals, dtype=np.int64)
    stride = num_rows + added.rows
    values = torch.empty(sum(totals), dtype=torch.int64)
    lengths = torch.empty(len(features), stride, dtype=torch.int32)
    value_view, lengths_view = values.numpy(), lengths.numpy()
    for place, (column, item) in enumerate(zip(own, other, strict=True)):
        value_J, lengths_B = value_view[stops[place] - totals[place] : stops[place]], lengths_view[place]
        column.write(lengths_B[:num_rows], value_J[: column.total])
        if item is not None:
            item.write(lengths_B[num_rows:], value_J[column.total :])
        elif added.item_only:
            lengths_B[num_rows:] = 0
        else:
            lengths_B.reshape(blocks, num_rows)[1:] = lengths_B[:num_rows]
            value_J.reshape(blocks, column.total)[1:] = value_J[: column.total]
    return KeyedJaggedTensor(keys=[f.name for f in features], values=values, lengths=lengths.view(-1), stride=stride)


def _column(feature: Feature, parts: Sequence[Part]) -> _Column:
    if not feature.is_list:
        return _Column(feature=feature, parts=parts, total=sum(stop - start for _, start, stop in parts))
    offsets = [(group.lists[feature.name].offsets, start, stop) for group, start, stop in parts]
    return _Column(feature=feature, parts=parts, total=sum(int(part[stop] - part[start]) for part, start, stop in offsets))
