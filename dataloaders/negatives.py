"""Sampled negatives: items that the user never touched, as a function of (seed, epoch, row_id) alone.

A row's negatives do not depend on the batch, the rank or the world size that it is read with. `uniform` is exact and needs no
rejection: with the user's touched items t_0 < t_1 < ..., the r-th untouched item is r + #{j: t_j - j <= r}, one binary search.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch

from dataloaders.counter_random import below, fold_key, random_pairs
from dataloaders.errors import DataError
from dataloaders.parquet_reader import ParquetReader
from dataloaders.parquet_writer import split_types
from dataloaders.schema import Schema
from dataloaders.touched_items import TouchedItems
from dataloaders.validation import BadRowPolicy, check_row_group

_UNIFORM, _POPULARITY, _SHARED = 101, 102, 103

NegativeKind = Literal["none", "uniform", "popularity", "shared"]
Excluded = Literal["ever", "train"]
_MAX_REDRAWS = 8
# counters of one row: draw d, round q -> d * stride + q; the stride leaves room for the exact draw that ends the rounds
_ROUND_STRIDE = _MAX_REDRAWS + 1


@dataclass(frozen=True, kw_only=True)
class NegativeConfig:
    """How a training row gets its negatives.

    Raises:
        ValueError: a field is outside its allowed range.
    """

    kind: NegativeKind = "none"
    """`uniform` over the items that the user never touched; `popularity` among them in proportion to their training positives;
    `shared`: uniform over the whole catalogue, candidates of every row of the batch (item-only rows, for a sampled softmax);
    `none`: rows keep their own labels only."""
    num: int = 1
    """Negatives of each row, or what each row adds to the shared ones; not used by `none`."""
    resample: bool = True
    """True draws anew in every epoch; False keeps each row's negatives (those of epoch 0)."""
    excluded: Excluded = "ever"
    """Items that are no negatives of a user; not used by `none` and `shared`. `ever`: all that the user touched, in later splits
    too, as FIT has it; `train`: those in training rows and their histories, so that nothing tells what later rows are about."""

    def __post_init__(self) -> None:
        if self.kind not in get_args(NegativeKind):
            raise ValueError(f"negatives: kind={self.kind!r}, expected one of {get_args(NegativeKind)}")
        if self.excluded not in get_args(Excluded):
            raise ValueError(f"negatives: excluded={self.excluded!r}, expected one of {get_args(Excluded)}")
        if self.num < 1:
            raise ValueError(f"negatives: num={self.num}, expected at least 1; kind='none' turns negatives off")

    @property
    def per_row(self) -> int:
        """Negatives of each row, or what it adds to the shared ones; 0 for `none`."""
        return 0 if self.kind == "none" else self.num

    @property
    def labelled_per_row(self) -> int:
        """Labelled rows that each data row becomes: itself, and its own negatives; shared ones have no label."""
        return 1 + self.num if self.kind in ("uniform", "popularity") else 1


def check_task(schema: Schema, config: NegativeConfig) -> None:
    """For the training rows of a model that learns from labels: refuse negatives that do not go with what the labels mean.

    Not for evaluation splits, whose negatives were fixed when the data was prepared, and not for a softmax over the catalogue.

    Raises:
        ValueError: rows of next_behaviour, which are all positive, would get no negatives of their own; rows of next_item, which
            are all positive in evaluation too; or rows of another task, which have labels of both kinds, would get sampled ones.
    """
    if schema.task == "next_behaviour" and config.kind in ("none", "shared"):
        raise ValueError(
            f"{schema.name}: training rows of task next_behaviour are all positives, and a model would learn to say yes to all; "
            f"--loader.negatives.kind {config.kind} must be uniform or popularity"
        )
    if schema.task == "next_item":
        raise ValueError(
            f"{schema.name}: rows of task next_item are positives without negatives in any split, for matching models; prepare the "
            "data with --task next_behaviour for a model that learns from labels"
        )
    if schema.task != "next_behaviour" and config.kind != "none":
        raise ValueError(
            f"{schema.name}: rows of task {schema.task} have labels of both kinds, and sampled negatives would distort them; "
            f"--loader.negatives.kind {config.kind} must be none"
        )


def draw_shared(config: NegativeConfig, *, seed: int, epoch: int, row_id_B: np.ndarray, num_items: int) -> np.ndarray:
    """Items drawn uniformly from the whole catalogue, int64 [num · B]; a row's part depends on (seed, epoch, its row_id) only."""
    random_DB = random_pairs(fold_key(seed, epoch, _SHARED), row_id_B, np.arange(config.num)[:, None])
    return below(random_DB, num_items).reshape(-1)


class NegativeSampler:
    """Draws negatives for rows.

    Args:
        touched: items that are never drawn, per user.
        frequency_I: int64 [num_items], training positives of each item; None draws uniformly.
        num: negatives of each row.
        seed: with the epoch and the row_id, the key of every draw.

    Example::

        sampler = NegativeSampler(TouchedItems.load(folder, schema), num=4, seed=0)
        item_DB = sampler.draw(epoch=0, row_id_B=row_id_B, user_B=user_B)  # [4, B]
    """

    def __init__(self, touched: TouchedItems, *, num: int, seed: int, frequency_I: np.ndarray | None = None) -> None:
        self._touched, self._num, self._seed = touched, num, seed
        self._popularity = None if frequency_I is None else (frequency_I, np.cumsum(frequency_I))

    def draw(self, *, epoch: int, row_id_B: np.ndarray, user_B: np.ndarray) -> np.ndarray:
        """Items that the user of each row never touched, int64 [num, B]; [d, b] depends on (seed, epoch, row_id_B[b], d) only.

        Raises:
            DataError: there is no such item for a user; names the row_id and the user.
        """
        full = self._touched.counts_U[user_B] >= self._touched.num_items
        if full.any():
            self._raise_exhausted(row_id_B, user_B, int(np.flatnonzero(full)[0]), "every item")
        if self._popularity is None:
            key = fold_key(self._seed, epoch, _UNIFORM)
            random_DB = random_pairs(key, row_id_B, np.arange(self._num)[:, None])
            left_B = self._touched.num_items - self._touched.counts_U[user_B]
            return self._touched.untouched(user_B, below(random_DB, left_B))
        return self._draw_popular(fold_key(self._seed, epoch, _POPULARITY), *self._popularity, row_id_B=row_id_B, user_B=user_B)

    def _draw_popular(
        self, key: int, frequency_I: np.ndarray, cumulative_I: np.ndarray, *, row_id_B: np.ndarray, user_B: np.ndarray
    ) -> np.ndarray:
        """Redraw what is touched a bounded number of times, then draw the few left exactly: the distribution is the exact one."""
        item_DB = np.empty((self._num, len(row_id_B)), dtype=np.int64)
        draw, row = (axis.ravel() for axis in np.indices(item_DB.shape))
        for attempt in range(_MAX_REDRAWS):
            random = random_pairs(key, row_id_B[row], draw * _ROUND_STRIDE + attempt)
            item = np.searchsorted(cumulative_I, below(random, cumulative_I[-1]), side="right")
            item_DB[draw, row] = item
            again = self._touched.contains(user_B[row], item)
            draw, row = draw[again], row[again]
            if not len(row):
                return item_DB
        random = random_pairs(key, row_id_B[row], draw * _ROUND_STRIDE + _MAX_REDRAWS)
        for d, b, number in zip(draw, row, random, strict=True):
            weight_I = frequency_I.copy()
            weight_I[self._touched.items_of(int(user_B[b]))] = 0
            left_I = np.cumsum(weight_I)
            if left_I[-1] == 0:
                self._raise_exhausted(row_id_B, user_B, int(b), "every item with a training positive")
            item_DB[d, b] = np.searchsorted(left_I, below(number, left_I[-1]), side="right")
        return item_DB

    def _raise_exhausted(self, row_id_B: np.ndarray, user_B: np.ndarray, place: int, what: str) -> None:
        raise DataError(
            f"row_id={row_id_B[place]}: user {user_B[place]} touched {what} (of {self._touched.num_items}; {self._touched.where}): "
            "no negative is left; remove such users when preparing the data, or use negatives kind='none'"
        )


def negative_sampler(
    config: NegativeConfig, schema: Schema, folder: Path, *, seed: int, bad_rows: BadRowPolicy = "raise"
) -> NegativeSampler | None:
    """The sampler of each row's own negatives, from the data in `folder` (popularity counts its train split); None without any."""
    if config.kind in ("none", "shared"):
        return None
    frequency_I = item_frequencies(folder / "train", schema, bad_rows=bad_rows) if config.kind == "popularity" else None
    if config.excluded == "ever":
        touched = TouchedItems.load(folder, schema)
    else:
        touched = TouchedItems.of_split(folder / "train", schema, bad_rows=bad_rows)
    return NegativeSampler(touched, num=config.num, seed=seed, frequency_I=frequency_I)


def item_frequencies(folder: Path, schema: Schema, *, bad_rows: BadRowPolicy = "raise") -> np.ndarray:
    """int64 [num_items]: rows with label above 0.5 of each item in a split's folder; with `skip`, bad rows count for nothing."""
    feature = schema.feature(schema.item_key)
    names = (schema.row_id, schema.label, schema.item_key)
    reader = ParquetReader.of_split(folder, types={name: split_types(schema)[name] for name in names})
    frequency_I = np.zeros(feature.vocab_size, dtype=np.int64)
    for position in range(len(reader.groups)):
        group = reader.read(position)
        bad = check_row_group(group, features=(feature,), label=schema.label, row_id=schema.row_id, policy=bad_rows)
        positive = np.flatnonzero(group.scalars[schema.label] > 0.5)
        rows = positive if bad is None else positive[bad.good(positive)]
        frequency_I += np.bincount(group.scalars[schema.item_key][rows], minlength=feature.vocab_size)
    return frequency_I


def log_q(frequency_I: np.ndarray) -> torch.Tensor:
    """Log of each item's share, float32 [num_items]: its chance of being an in-batch positive; -inf where it never is one."""
    count_I = torch.from_numpy(frequency_I).double()
    return torch.log(count_I / count_I.sum()).float()
