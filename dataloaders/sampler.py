"""Row order as a function of (seed, epoch), the same for every world size, with sharded reads.

The row groups are permuted, and the rows inside each of them; the resulting sequence of all n rows is cut into K contiguous lanes,
and global batch i takes the i-th slice of every lane::

    sequence   |---- lane 0 ----|---- lane 1 ----|---- lane 2 ----|---- lane 3 ----|
    batch 0     **               **               **               **
    batch 1       **               **               **               **
                 rank 0 of 2 owns lanes 0-1        rank 1 of 2 owns lanes 2-3

A rank reads its own lanes only, about 1/W of the data, and has one or two row groups open in each. The ranks' shares, one after
another, are the global batch: the same rows in the same order for every world size that divides K.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dataloaders.counter_random import fold_key, permutation

_GROUP_ORDER, _ROW_ORDER = 1, 2


@dataclass(frozen=True, kw_only=True)
class Segment:
    """Rows of one row group that enter a batch: places [start, stop) of the epoch's order of its rows."""

    group: int
    """Position of the row group in the reader's plan."""
    order: np.ndarray
    """int64 [rows of the group]: its row numbers in the epoch's order."""
    start: int
    stop: int

    @property
    def rows(self) -> np.ndarray:
        """int64 row numbers within the row group, in batch order."""
        return self.order[self.start : self.stop]


class LaneSampler:
    """Says which rows make a batch; pure arithmetic, no reading.

    Args:
        group_rows: rows of every row group, in file order.
        batch_rows: most rows of a global batch; every lane gives at most batch_rows // lanes of them.
        lanes: K; a multiple of world_size.
        seed: with the epoch, the key of all permutations.
        shuffle: False reads rows in file order (still lane by lane).
        rank: of this process, in [0, world_size).
        world_size: number of processes that share the batch.

    Raises:
        ValueError: lanes is no multiple of world_size, batch_rows < lanes, rank out of range, or so few rows that a rank would get
            an empty share of some batch (never the case from n >= lanes and batch_rows >= 2 * lanes on).
    """

    def __init__(
        self,
        group_rows: Sequence[int],
        *,
        batch_rows: int,
        lanes: int,
        seed: int,
        shuffle: bool,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self._group_rows = np.asarray(group_rows, dtype=np.int64)
        self._seed, self._shuffle = seed, shuffle
        self.num_rows = int(self._group_rows.sum())
        _check_shape(lanes=lanes, batch_rows=batch_rows, rank=rank, world_size=world_size)
        self._lane_starts = np.arange(lanes + 1, dtype=np.int64) * self.num_rows // lanes
        lane_rows = np.diff(self._lane_starts)
        self.num_batches = max(1, -(-int(lane_rows.max()) // (batch_rows // lanes)))
        """Batches of an epoch: the fewest such that no lane gives more than its share to a batch."""
        per_rank = lanes // world_size
        self._own_lanes = range(rank * per_rank, (rank + 1) * per_rank)
        # floor(len / batches) rows is what a lane gives to batch 0, and the least that it gives to any batch
        smallest_share = (lane_rows // self.num_batches).reshape(world_size, per_rank).sum(axis=1).min()
        if smallest_share == 0:
            raise ValueError(
                f"{self.num_rows} rows are too few for {world_size} rank(s), --loader.lanes {lanes} and batches of {batch_rows} "
                f"rows before negatives: a rank would get an empty share of a batch. It fits from {lanes} rows and batches of "
                f"{2 * lanes} on: use fewer ranks, fewer lanes, or a larger --loader.batch-size"
            )
        self._epoch = -1
        self._group_order = np.empty(0, dtype=np.int64)
        self._group_starts = np.empty(0, dtype=np.int64)
        self._row_orders: dict[int, np.ndarray] = {}

    def global_rows(self, batch: int) -> int:
        """Rows of the whole global batch, over all ranks."""
        lane_rows = np.diff(self._lane_starts)
        return int(((batch + 1) * lane_rows // self.num_batches - batch * lane_rows // self.num_batches).sum())

    def segments(self, *, epoch: int, batch: int) -> list[Segment]:
        """This rank's rows of a batch, in order; every (epoch, batch) is reached directly."""
        if not 0 <= batch < self.num_batches or epoch < 0:
            raise ValueError(f"epoch={epoch}, batch={batch}: expected epoch >= 0 and 0 <= batch < {self.num_batches}")
        self._enter(epoch)
        spans = [span for lane in self._own_lanes for span in self._spans(lane, batch)]
        # only the row groups that this batch touches can be needed again soon: a lane reads its row groups one after another
        orders = {group: self._row_orders.get(group) for group, _, _ in spans}
        self._row_orders = {group: self._row_order(group) if order is None else order for group, order in orders.items()}
        return [Segment(group=group, order=self._row_orders[group], start=start, stop=stop) for group, start, stop in spans]

    def _spans(self, lane: int, batch: int) -> list[tuple[int, int, int]]:
        """(row group, first, last + 1) for a lane's slice; positions count in the group's permuted order."""
        lane_start, lane_stop = int(self._lane_starts[lane]), int(self._lane_starts[lane + 1])
        lane_rows = lane_stop - lane_start
        start = lane_start + batch * lane_rows // self.num_batches
        stop = lane_start + (batch + 1) * lane_rows // self.num_batches
        spans = []
        place = int(np.searchsorted(self._group_starts, start, side="right")) - 1
        while start < stop:
            group_start, group_stop = int(self._group_starts[place]), int(self._group_starts[place + 1])
            end = min(stop, group_stop)
            if start < end:
                spans.append((int(self._group_order[place]), start - group_start, end - group_start))
            start, place = end, place + 1
        return spans

    def _enter(self, epoch: int) -> None:
        """Set the order of the row groups for `epoch`."""
        if epoch == self._epoch:
            return
        num_groups = len(self._group_rows)
        key = fold_key(self._seed, epoch, _GROUP_ORDER)
        self._group_order = permutation(key, num_groups) if self._shuffle else np.arange(num_groups)
        self._group_starts = np.concatenate([[0], np.cumsum(self._group_rows[self._group_order])])
        self._row_orders = {}
        self._epoch = epoch

    def _row_order(self, group: int) -> np.ndarray:
        rows = int(self._group_rows[group])
        if not self._shuffle:
            return np.arange(rows)
        return permutation(fold_key(self._seed, self._epoch, _ROW_ORDER, group), rows)


def _check_shape(*, lanes: int, batch_rows: int, rank: int, world_size: int) -> None:
    if world_size < 1 or not 0 <= rank < world_size:
        raise ValueError(f"rank={rank}, world_size={world_size}: expected 0 <= rank < world_size")
    if lanes < 1 or lanes % world_size:
        fitting = max(world_size, round(lanes / world_size) * world_size)
        raise ValueError(
            f"--loader.lanes {lanes} must be a multiple of the {world_size} ranks, so that every rank owns equally many: use "
            f"--loader.lanes {fitting}"
        )
    if batch_rows < lanes:
        raise ValueError(
            f"a batch of {batch_rows} rows (before negatives) is smaller than --loader.lanes {lanes}; use fewer lanes or a larger "
            "--loader.batch-size"
        )
