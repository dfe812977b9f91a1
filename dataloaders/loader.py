"""Dataloader: row order, reading, validation, negatives and collation in one iterable that can stop and resume anywhere."""

import logging
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dataloaders.batch import Batch
from dataloaders.collate import Collator, Part, gather_scalar
from dataloaders.errors import DataError
from dataloaders.negatives import NegativeConfig, draw_shared, negative_sampler
from dataloaders.prefetch import Prefetcher
from dataloaders.row_groups import RowGroupStore, SkipCounts, open_split, read_items, skip_counts_of, skip_list
from dataloaders.sampler import LaneSampler
from dataloaders.schema import Schema
from dataloaders.validation import BadRowPolicy

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class LoaderConfig:
    """How a split becomes batches.

    Raises:
        ValueError: a field is outside its allowed range.
    """

    batch_size: int = 2048
    """Most rows of a global batch, over all ranks, negatives included: with one negative each, 2048 are 1024 rows and 1024
    negatives. Every lane gives equally many, so the exact number is the next multiple of lanes below (before negatives)."""
    lanes: int = 16
    """Places of the epoch that are read side by side; a multiple of the world size. More lanes mix better and hold more row groups
    in memory."""
    bad_rows: BadRowPolicy = "raise"
    """`raise` stops at the first row that breaks the schema; `skip` leaves such rows out, and counts and reports them."""
    negatives: NegativeConfig = field(default_factory=NegativeConfig)
    """Sampled negatives, of each row or shared by the batch; for data whose rows are all positives."""
    prefetch: int = 2
    """Batches that a background thread prepares ahead; 0 prepares them in the caller."""
    cache_bytes: int = 2 * 1024**3
    """Decoded row groups are kept in memory up to this many bytes (per process), so that later epochs skip the decoding. Row groups
    being read (one or two per lane of this rank) are held besides."""

    def __post_init__(self) -> None:
        if self.bad_rows not in ("raise", "skip"):
            raise ValueError(f"bad_rows={self.bad_rows!r}, expected raise or skip")
        if self.lanes < 1:
            raise ValueError(f"lanes={self.lanes}, expected at least 1")
        if self.rows_before_negatives < self.lanes:
            raise ValueError(
                f"batch_size={self.batch_size} is {self.rows_before_negatives} rows with {self.negatives.per_row} negatives each, "
                f"expected at least lanes={self.lanes} rows: enlarge batch_size or use fewer lanes"
            )
        if self.prefetch < 0 or self.cache_bytes < 0:
            raise ValueError(f"prefetch={self.prefetch}, cache_bytes={self.cache_bytes}: expected at least 0")

    @property
    def rows_before_negatives(self) -> int:
        """Most data rows of a global batch."""
        return self.batch_size // (1 + self.negatives.per_row)


class Dataloader:
    """Yields one rank's share of every global batch of a split, epoch after epoch.

    Iterating yields the batches from the current position to the end of the epoch, and leaves the position at the start of the next
    one: two `for` loops are two epochs. The position counts the batches handed to the caller, not the prefetched ones.

    Args:
        schema: of the data set.
        folder: the split's folder, e.g. DIR/train; items.parquet and user_items.parquet lie beside it.
        config: batch size and the rest.
        seed: of the row order and the negatives.
        shuffle: False reads in file order (evaluation).
        rank: of this process.
        world_size: processes that share each global batch.
        pin_memory: put batches into page-locked memory, in the background thread, so that copies to the GPU overlap.

    Raises:
        ValueError: the configuration does not fit the world size or the number of rows (LaneSampler), or pin_memory without a GPU.
        DataError: files are missing, or do not fit the schema.

    Example::

        loader = Dataloader(Schema.load(folder), folder / "train", config=LoaderConfig(), seed=0, shuffle=True)
        for batch in loader:
            ...
    """

    def __init__(
        self,
        schema: Schema,
        folder: Path,
        *,
        config: LoaderConfig,
        seed: int,
        shuffle: bool,
        rank: int = 0,
        world_size: int = 1,
        pin_memory: bool = False,
    ) -> None:
        self._schema, self._folder, self._config = schema, folder, config
        self._seed, self._shuffle, self._rank = seed, shuffle, rank
        self._pin_device = _pin_device() if pin_memory else None
        self._reader = open_split(folder, schema)
        self._sampler = LaneSampler(
            [group.num_rows for group in self._reader.groups],
            batch_rows=config.rows_before_negatives,
            lanes=config.lanes,
            seed=seed,
            shuffle=shuffle,
            rank=rank,
            world_size=world_size,
        )
        self._negatives = negative_sampler(config.negatives, schema, folder.parent, seed=seed, bad_rows=config.bad_rows)
        needs_items = config.negatives.kind != "none"
        self._collator = Collator(schema, items=read_items(folder.parent, schema) if needs_items else None)
        self._store = RowGroupStore(self._reader, schema=schema, bad_rows=config.bad_rows, cache_bytes=config.cache_bytes)
        self._epoch, self._batch = 0, 0
        self._iteration = 0
        self._source: Iterator[tuple[Batch, SkipCounts]] | None = None
        self.skipped: SkipCounts = Counter()
        """Rows that this rank left out since the start of the epoch, or since the position was last set; see BadRows.count."""
        self.skipped_total: SkipCounts = Counter()
        """Rows that this rank left out of all batches that it handed out, over epochs and resumed runs; see load_state_dict."""
        self.wait_seconds = 0.0
        """Time that callers have waited for batches, in total."""

    @property
    def num_rows(self) -> int:
        """Rows of the split, without negatives."""
        return self._sampler.num_rows

    @property
    def steps_per_epoch(self) -> int:
        """Batches of a whole epoch."""
        return self._sampler.num_batches

    def state_dict(self) -> dict[str, Any]:
        """The position after the last batch handed out, what it refers to, and `skipped_total`; values that JSON keeps.

        Everything but `skipped_total` is the same on every rank.
        """
        return {
            "epoch": self._epoch,
            "batch": self._batch,
            "seed": self._seed,
            "shuffle": self._shuffle,
            "batch_size": self._config.batch_size,
            "lanes": self._config.lanes,
            "negatives": asdict(self._config.negatives),
            "data": self._schema.identity,
            "files": self._reader.fingerprint,
            "skipped_total": skip_list(self.skipped_total),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken; rank and world size may differ.

        Rank 0 alone goes on counting from the state's `skipped_total`, the others from nothing, so that a sum over ranks counts it
        once. In a state saved for all ranks, `skipped_total` must be replaced with row_groups.skip_list of the sum over ranks.

        Raises:
            DataError: the state was taken on other data; names both.
            ValueError: the state belongs to another seed or configuration; names what differs.
        """
        own = self.state_dict()
        if state.keys() != own.keys():
            raise ValueError(
                f"loader state has the fields {sorted(state)}, expected {sorted(own)}: it is not a state of this version"
            )
        for name, what in (("data", "data set"), ("files", "files of this split")):
            if state[name] != own[name]:
                raise DataError(
                    f"{self._folder}: loader state was taken on {what} {state[name][:12]}, but found {own[name][:12]}: the data "
                    "was replaced since; restore it, or start a new run"
                )
        for name in own.keys() - {"epoch", "batch", "data", "files", "skipped_total"}:
            if state[name] != own[name]:
                raise ValueError(
                    f"loader state was taken with {name}={state[name]!r}, but this loader has {own[name]!r} ({self._folder}): its "
                    "position means other rows here; use the same data and settings, or start a new run"
                )
        self.seek(epoch=state["epoch"], batch=state["batch"])
        self.skipped_total = skip_counts_of(state["skipped_total"]) if self._rank == 0 else Counter()

    def seek(self, *, epoch: int, batch: int = 0) -> None:
        """Set the position; a running iterator ends with RuntimeError at its next use.

        Raises:
            ValueError: epoch < 0, or batch is outside [0, steps_per_epoch).
        """
        if epoch < 0 or not 0 <= batch < self.steps_per_epoch:
            raise ValueError(f"epoch={epoch}, batch={batch}: expected epoch >= 0 and 0 <= batch < {self.steps_per_epoch}")
        self.close()
        self._epoch, self._batch = epoch, batch
        self.skipped = Counter()

    def close(self) -> None:
        """Stop the background thread, if one runs; iterating again starts from the current position."""
        self._iteration += 1
        if isinstance(self._source, Prefetcher):
            self._source.close()
        self._source = None

    def __iter__(self) -> Iterator[Batch]:
        self.close()
        return self._hand_out(self._iteration)

    def _hand_out(self, iteration: int) -> Iterator[Batch]:
        first = self._batch
        try:
            for batch_index in range(first, self.steps_per_epoch):
                if iteration != self._iteration:
                    raise RuntimeError(
                        "this iterator ended when its Dataloader was iterated again, closed, or set to another position"
                    )
                began = time.perf_counter()
                if self._source is None:
                    self._source = self._start(self._epoch, first)
                batch, skipped = next(self._source)
                self.wait_seconds += time.perf_counter() - began
                self._advance(batch_index, skipped)
                yield batch
        finally:
            if iteration == self._iteration:
                self.close()

    def _start(self, epoch: int, first: int) -> Iterator[tuple[Batch, SkipCounts]]:
        produced = (self._make(epoch, batch) for batch in range(first, self.steps_per_epoch))
        return Prefetcher(produced, depth=self._config.prefetch) if self._config.prefetch else produced

    def _advance(self, batch_index: int, skipped: SkipCounts) -> None:
        """Move the position behind the batch that is about to be handed out."""
        self.skipped = skipped if batch_index == 0 else self.skipped + skipped
        self.skipped_total = self.skipped_total + skipped
        self._batch = batch_index + 1
        if self._batch < self.steps_per_epoch:
            return
        if self.skipped:
            counts = ", ".join(f"{column}: {reason}: {rows}" for (column, reason), rows in sorted(self.skipped.items()))
            logger.warning(
                "%s: epoch %d, rank %d left out %d rows: %s", self._folder, self._epoch, self._rank, self.skipped.total(), counts
            )
        self._epoch, self._batch = self._epoch + 1, 0

    def _make(self, epoch: int, batch: int) -> tuple[Batch, SkipCounts]:
        parts, skipped = self._store.fetch(self._sampler.segments(epoch=epoch, batch=batch))
        if not parts:
            raise DataError(
                f"{self._folder}: epoch {epoch}, batch {batch}: every row of rank {self._rank} breaks the schema: {dict(skipped)}; "
                "correct the data and prepare it again"
            )
        draw_epoch = epoch if self._config.negatives.resample else 0
        batch_of_rank = self._collator(
            parts,
            negative_DP=self._draw(parts, draw_epoch),
            shared_K=self._draw_shared(parts, draw_epoch),
            global_rows=self._sampler.global_rows(batch) * self._config.negatives.labelled_per_row,
        )
        if self._pin_device is not None:
            with torch.cuda.device(self._pin_device):  # a thread starts on GPU 0, and would make a context of its own there
                batch_of_rank = batch_of_rank.pin_memory()
        return batch_of_rank, skipped

    def _draw(self, parts: list[Part], epoch: int) -> np.ndarray | None:
        """int64 [D, P]: the negatives of the rows of `parts`."""
        if self._negatives is None:
            return None
        schema = self._schema
        row_id_P, user_P, item_P = (gather_scalar(parts, name) for name in (schema.row_id, schema.user_key, schema.item_key))
        negative_DP = self._negatives.draw(epoch=epoch, row_id_B=row_id_P, user_B=user_P)
        if (negative_DP == item_P).any():
            place = int(np.flatnonzero((negative_DP == item_P).any(axis=0))[0])
            raise DataError(
                f"{self._folder}: row_id={row_id_P[place]}: its own item {item_P[place]} was drawn as a negative, because "
                f"user_items.parquet does not list it for user {user_P[place]}; prepare the data set again"
            )
        return negative_DP

    def _draw_shared(self, parts: list[Part], epoch: int) -> np.ndarray | None:
        """int64 [K]: the candidates that the rows of `parts` share."""
        if self._config.negatives.kind != "shared":
            return None
        row_id_P = gather_scalar(parts, self._schema.row_id)
        num_items = self._schema.feature(self._schema.item_key).vocab_size
        return draw_shared(self._config.negatives, seed=self._seed, epoch=epoch, row_id_B=row_id_P, num_items=num_items)


def _pin_device() -> int:
    if not torch.cuda.is_available():
        raise ValueError("pin_memory=True, but PyTorch sees no GPU; expected False: page-locked memory serves copies to a GPU only")
    return torch.cuda.current_device()
