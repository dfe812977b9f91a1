"""Which items each user touched: what is no negative of theirs."""

from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from dataloaders.errors import DataError
from dataloaders.parquet_reader import ParquetReader
from dataloaders.parquet_writer import split_types
from dataloaders.schema import Schema
from dataloaders.validation import BadRowPolicy, check_row_group


class TouchedItems:
    """Which items each user ever touched.

    Args:
        user_T: user ids, ascending.
        item_T: item ids, ascending within a user, distinct.
        num_users: user ids are in [0, num_users).
        num_items: item ids are in [0, num_items).
        where: what messages call the source.

    Raises:
        DataError: an id is out of range, or the pairs are not sorted and distinct.
    """

    def __init__(
        self, user_T: np.ndarray, item_T: np.ndarray, *, num_users: int, num_items: int, where: str = "user_items"
    ) -> None:
        user_T, item_T = user_T.astype(np.int64), item_T.astype(np.int64)
        for name, ids, size in (("user", user_T, num_users), ("item", item_T, num_items)):
            if len(ids) and not 0 <= ids.min() <= ids.max() < size:
                row = int(np.flatnonzero((ids < 0) | (ids >= size))[0])
                raise DataError(f"{where}, row {row}, column {name!r}: id {ids[row]}, expected 0 <= id < {size}")
        pairs = user_T * num_items + item_T
        if len(pairs) and (steps := np.diff(pairs)).size and steps.min() <= 0:
            row = int(np.flatnonzero(steps <= 0)[0]) + 1
            raise DataError(f"{where}, row {row}: pairs must be distinct and sorted by user, then item; prepare the data set again")
        self.where, self.num_items = where, num_items
        self.counts_U = np.bincount(user_T, minlength=num_users)
        """Items that each user touched."""
        self._starts_U = np.cumsum(self.counts_U) - self.counts_U
        place_T = np.arange(len(item_T)) - self._starts_U[user_T]
        self._gap_keys = user_T * (num_items + 1) + item_T - place_T

    @classmethod
    def load(cls, folder: Path, schema: Schema) -> "TouchedItems":
        """Read `folder`/user_items.parquet."""
        path = folder / "user_items.parquet"
        table = ParquetReader([path], types={"user": pa.int32(), "item": pa.int32()}).read_all()
        if table.nulls:
            raise DataError(f"{path}: columns {sorted({column for column, _ in table.nulls})} hold nulls, expected ids")
        num_users, num_items = (schema.feature(key).vocab_size for key in (schema.user_key, schema.item_key))
        users, items = table.scalars["user"], table.scalars["item"]
        return cls(users, items, num_users=num_users, num_items=num_items, where=str(path))

    @classmethod
    def of_split(cls, folder: Path, schema: Schema, *, bad_rows: BadRowPolicy = "raise") -> "TouchedItems":
        """What the rows in a split's folder have of each user, as items and in histories of items; with `skip` not the bad rows."""
        user, item = schema.feature(schema.user_key), schema.feature(schema.item_key)
        histories = tuple(feature for feature in schema.side("history") if feature.space == item.space)
        reader = ParquetReader.of_split(folder, types=split_types(schema))
        parts = [np.empty(0, dtype=np.int64)]
        for position in range(len(reader.groups)):
            group = reader.read(position)
            checked = {"features": schema.features, "label": schema.label, "row_id": schema.row_id}
            bad = check_row_group(group, **checked, policy=bad_rows)
            good_B = np.ones(group.num_rows, dtype=bool) if bad is None else bad.good(np.arange(group.num_rows))
            user_B = group.scalars[user.name].astype(np.int64)
            found = [(user_B * item.vocab_size + group.scalars[item.name])[good_B]]
            for history in histories:
                length_B = np.diff(group.lists[history.name].offsets)
                pair_J = np.repeat(user_B, length_B) * item.vocab_size + group.lists[history.name].values
                found.append(pair_J[np.repeat(good_B, length_B)])
            parts.append(np.unique(np.concatenate(found)))
        pairs = np.unique(np.concatenate(parts))
        sizes = {"num_users": user.vocab_size, "num_items": item.vocab_size}
        return cls(pairs // item.vocab_size, pairs % item.vocab_size, **sizes, where=str(folder))

    @cached_property
    def _pair_keys(self) -> np.ndarray:
        user_T = np.repeat(np.arange(len(self.counts_U)), self.counts_U)
        item_T = self._gap_keys - user_T * (self.num_items + 1) + np.arange(len(user_T)) - self._starts_U[user_T]
        return user_T * self.num_items + item_T

    def contains(self, user: np.ndarray, item: np.ndarray) -> np.ndarray:
        """Whether each user touched each item; the two broadcast against each other."""
        key = np.asarray(user, dtype=np.int64) * self.num_items + item
        place = np.searchsorted(self._pair_keys, key)
        return self._pair_keys[np.minimum(place, len(self._pair_keys) - 1)] == key if len(self._pair_keys) else key < 0

    @property
    def jagged(self) -> tuple[np.ndarray, np.ndarray]:
        """Items of user 0, ascending, then those of user 1, and so on, int64 [T]; where each user's end, int64 [num_users]."""
        return self._pair_keys % self.num_items, self.counts_U.cumsum()

    def items_of(self, user: int) -> np.ndarray:
        """The user's touched items, ascending."""
        start = int(self._starts_U[user])
        return self._pair_keys[start : start + int(self.counts_U[user])] - user * self.num_items

    def untouched(self, user_B: np.ndarray, rank_DB: np.ndarray) -> np.ndarray:
        """The rank-th item (from 0, ascending) that each user never touched."""
        keys = user_B.astype(np.int64) * (self.num_items + 1) + rank_DB
        return rank_DB + np.searchsorted(self._gap_keys, keys, side="right") - self._starts_U[user_B]
