"""Behaviours in order, and the rows built from them: history windows by index arithmetic, fixed negatives, time lags."""

# N behaviours, R rows of a split, T target behaviours, J history positions of R rows (jagged), P distinct (user, item) pairs

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa

from dataloaders.errors import DataError
from dataloaders.negatives import NegativeSampler

TIME_LAG_VOCAB = 33
"""Buckets of time_lag_bucket: 0 for no or negative lag, b for [2^(b-1), 2^b) seconds."""
TIME_GAP_BUCKETS_PER_OCTAVE = 8
TIME_GAP_VOCAB = TIME_GAP_BUCKETS_PER_OCTAVE * (TIME_LAG_VOCAB - 1) + 1
"""Buckets of time_gap_bucket."""
ROWS_PER_CHUNK = 65_536
"""Rows whose history positions are computed at once: bounds memory at about 100 MB of indices for histories of 50."""


@dataclass(frozen=True, kw_only=True)
class Behaviours:
    """All behaviours, users one after another, each user's oldest first: index arithmetic finds every history."""

    user_N: np.ndarray
    """int32 [N], ascending."""
    item_N: np.ndarray
    """int32 [N]."""
    time_N: np.ndarray
    """int64 [N], seconds."""
    label_N: np.ndarray
    """float32 [N] in [0, 1]."""
    source_N: np.ndarray
    """int64 [N], row of the raw file (from 0): becomes row_id."""
    start_N: np.ndarray
    """int64 [N], index of the first behaviour of the same user."""

    @classmethod
    def from_events(
        cls,
        user_N: np.ndarray,
        *,
        item_N: np.ndarray,
        time_N: np.ndarray,
        label_N: np.ndarray,
        source_N: np.ndarray,
        by: Literal["time", "file"],
    ) -> "Behaviours":
        """Order events in file order by user and then `by` time (ties keep file order) or file order alone."""
        order_N = np.lexsort((time_N, user_N)) if by == "time" else np.argsort(user_N, kind="stable")
        user_N = user_N[order_N]
        return cls(
            user_N=user_N,
            item_N=item_N[order_N],
            time_N=time_N[order_N],
            label_N=label_N[order_N],
            source_N=source_N[order_N],
            start_N=np.searchsorted(user_N, user_N, side="left"),
        )

    def num_earlier(self) -> np.ndarray:
        """Behaviours of the same user before each one, int64 [N]."""
        return np.arange(len(self.user_N)) - self.start_N

    def begins_session(self, *, gap_seconds: int) -> np.ndarray:
        """int32 [N]: 1 for a user's first behaviour and for one that follows the last after more than `gap_seconds`, else 0."""
        silence_N = np.diff(self.time_N, prepend=self.time_N[:1])
        return ((silence_N > gap_seconds) | (self.num_earlier() == 0)).astype(np.int32)

    def gap_to_next(self) -> np.ndarray:
        """Seconds from each behaviour to the same user's next one, int64 [N]; 0 for the user's last."""
        return np.where(self.is_last(), 0, np.diff(self.time_N, append=self.time_N[-1:]))

    def is_last(self) -> np.ndarray:
        """Whether each behaviour is its user's last, bool [N]."""
        return np.append(self.user_N[1:] != self.user_N[:-1], [True] * bool(len(self.user_N)))


@dataclass(frozen=True, kw_only=True)
class RowBuilder:
    """Turns target behaviours into feature columns: user and item columns by id, histories from what came before the target."""

    behaviours: Behaviours
    user_columns: dict[str, pa.Array]
    """User features; row u describes user u."""
    item_columns: dict[str, pa.Array]
    """Item features; row i describes item i."""
    history_columns: dict[str, np.ndarray]
    """History features, int32 [N]: the value that each behaviour adds to later histories."""
    time_lag: str
    """Name of the history feature that buckets target time minus behaviour time."""
    max_len: int = 50
    """Newest behaviours kept in a history."""

    def columns(self, target_R: np.ndarray, *, item_R: np.ndarray) -> dict[str, pa.Array]:
        """Feature columns of R rows: row r pairs `item_R[r]` with the behaviours before behaviour `target_R[r]`, at its time."""
        user_R = pa.array(self.behaviours.user_N[target_R])
        item_R = pa.array(item_R)
        columns = {name: column.take(user_R) for name, column in self.user_columns.items()}
        columns |= self._histories(target_R)
        return columns | {name: column.take(item_R) for name, column in self.item_columns.items()}

    def labelled(self, target_T: np.ndarray) -> dict[str, pa.Array]:
        """One row per target behaviour, with its own label and row_id; all columns of the split."""
        behaviours = self.behaviours
        columns = self.columns(target_T, item_R=behaviours.item_N[target_T])
        return columns | {"label": pa.array(behaviours.label_N[target_T]), "row_id": pa.array(behaviours.source_N[target_T])}

    def paired(self, target_T: np.ndarray, *, sampler: NegativeSampler, negative_row_id: int) -> dict[str, pa.Array]:
        """Two rows per target behaviour: label 1, then label 0 with a sampled item; the same user, time and history.

        The negative is the sampler's draw of epoch 0; its row_id is its positive's plus `negative_row_id`.
        """
        behaviours = self.behaviours
        item_T, source_T = behaviours.item_N[target_T], behaviours.source_N[target_T]
        negative_T = sampler.draw(epoch=0, row_id_B=source_T, user_B=behaviours.user_N[target_T])[0].astype(np.int32)
        columns = self.columns(np.repeat(target_T, 2), item_R=np.stack([item_T, negative_T], axis=1).ravel())
        return columns | {
            "label": pa.array(np.tile(np.array([1, 0], np.float32), len(target_T))),
            "row_id": pa.array(np.stack([source_T, source_T + negative_row_id], axis=1).ravel()),
        }

    def _histories(self, target_R: np.ndarray) -> dict[str, pa.Array]:
        """The history columns, oldest behaviour first; all lists of a row have one length."""
        length_R = np.minimum(target_R - self.behaviours.start_N[target_R], self.max_len)
        offset_R = np.concatenate([[0], np.cumsum(length_R)])
        if offset_R[-1] > np.iinfo(np.int32).max:
            raise DataError(
                f"{len(target_R)} rows hold {offset_R[-1]} history ids, expected below 2^31 in one split; cut the data in parts"
            )
        values = {name: np.empty(offset_R[-1], np.int32) for name in [*self.history_columns, self.time_lag]}
        for begin in range(0, len(target_R), ROWS_PER_CHUNK):
            rows = slice(begin, begin + ROWS_PER_CHUNK)
            behaviour_J, row_J = window_positions(target_R[rows], length_R[rows])
            chunk = slice(offset_R[begin], offset_R[begin] + len(behaviour_J))
            for name, value_N in self.history_columns.items():
                values[name][chunk] = value_N[behaviour_J]
            lag_J = self.behaviours.time_N[target_R[rows]][row_J] - self.behaviours.time_N[behaviour_J]
            values[self.time_lag][chunk] = time_lag_bucket(lag_J)
        offsets = pa.array(offset_R, pa.int32())
        return {name: pa.ListArray.from_arrays(offsets, pa.array(value_J)) for name, value_J in values.items()}


def window_positions(target_R: np.ndarray, length_R: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index of every behaviour in the windows of `length_R` behaviours that end just before each target.

    Returns:
        (behaviour_J, row_J): the behaviour and the row of each history position, rows one after another, oldest first.
    """
    end_R = np.cumsum(length_R)
    row_J = np.repeat(np.arange(len(target_R)), length_R)
    return np.arange(len(row_J)) + (target_R - end_R)[row_J], row_J


def time_lag_bucket(lag_J: np.ndarray) -> np.ndarray:
    """Bucket of a lag in seconds, int32 in [0, TIME_LAG_VOCAB): 0 where lag <= 0, else 1 + floor(log2(lag)).

    Lags below 0 exist in file order only, where a history can hold behaviours with later time stamps than the target.

    Raises:
        DataError: a lag reaches 2^32 seconds (136 years), so the times are not in seconds.
    """
    _check_seconds(lag_J, "lag")
    # frexp's exponent of a positive integer is its bit length, exactly
    return np.where(lag_J > 0, np.frexp(lag_J.astype(np.float64))[1], 0).astype(np.int32)


def time_gap_bucket(gap_N: np.ndarray) -> np.ndarray:
    """Bucket of a gap in seconds, int32 in [0, TIME_GAP_VOCAB): 0 where gap <= 0, else 1 + floor(8 log2(gap)).

    Its middle is within 5 % of the gap, so that sums of gaps tell how far apart any two behaviours of a history are.

    Raises:
        DataError: a gap reaches 2^32 seconds (136 years), so the times are not in seconds.
    """
    _check_seconds(gap_N, "gap")
    octaves_N = np.log2(np.maximum(gap_N, 1).astype(np.float64))
    return np.where(gap_N > 0, 1 + np.floor(TIME_GAP_BUCKETS_PER_OCTAVE * octaves_N), 0).astype(np.int32)


def _check_seconds(time_N: np.ndarray, name: str) -> None:
    longest = time_N.max(initial=0)
    if longest >= 2 ** (TIME_LAG_VOCAB - 1):
        raise DataError(
            f"a time {name} of {longest} s exceeds 2^{TIME_LAG_VOCAB - 1} s; expected time stamps in seconds; convert them"
        )


def distinct_pairs(user_N: np.ndarray, item_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct (user, item) pairs, int32 [P] each, sorted by user, then item: the columns of user_items.parquet."""
    num_items = int(item_N.max(initial=0)) + 1
    pair_P = np.unique(user_N.astype(np.int64) * num_items + item_N)
    return (pair_P // num_items).astype(np.int32), (pair_P % num_items).astype(np.int32)
