import numpy as np
import pyarrow as pa
import pytest

from dataloaders.errors import DataError
from dataloaders.prepare import behaviours as module
from dataloaders.prepare.behaviours import (
    TIME_GAP_VOCAB,
    Behaviours,
    RowBuilder,
    distinct_pairs,
    time_gap_bucket,
    time_lag_bucket,
    window_positions,
)
from models.hstu import seconds_of_gaps


def make_behaviours(*, by: str = "time") -> Behaviours:
    """Three users, mixed in the file; user 0's times are 30, 10, 10, 20 in file order."""
    return Behaviours.from_events(
        np.array([0, 2, 0, 1, 0, 0, 2], np.int32),
        item_N=np.array([5, 6, 7, 8, 9, 4, 3], np.int32),
        time_N=np.array([30, 50, 10, 5, 10, 20, 40], np.int64),
        label_N=np.linspace(0, 1, 7).astype(np.float32),
        source_N=np.arange(7),
        by=by,
    )


def make_builder(*, by: str = "time", max_len: int = 50) -> RowBuilder:
    behaviours = make_behaviours(by=by)
    return RowBuilder(
        behaviours=behaviours,
        user_columns={"user": pa.array(np.arange(3, dtype=np.int32))},
        item_columns={"item": pa.array(np.arange(10, dtype=np.int32))},
        history_columns={"hist_item": behaviours.item_N},
        time_lag="hist_time_lag",
        max_len=max_len,
    )


def test_events_are_ordered_by_user_then_time_and_ties_keep_file_order() -> None:
    behaviours = make_behaviours()
    assert behaviours.source_N.tolist() == [2, 4, 5, 0, 3, 6, 1]
    assert behaviours.user_N.tolist() == [0, 0, 0, 0, 1, 2, 2]
    assert behaviours.start_N.tolist() == [0, 0, 0, 0, 4, 5, 5]
    assert behaviours.num_earlier().tolist() == [0, 1, 2, 3, 0, 0, 1]
    assert behaviours.is_last().tolist() == [False, False, False, True, True, False, True]


def test_file_order_ignores_times() -> None:
    assert make_behaviours(by="file").source_N.tolist() == [0, 2, 4, 5, 3, 1, 6]


def test_a_session_begins_with_a_user_and_after_a_longer_silence_than_the_gap() -> None:
    behaviours = make_behaviours()  # times 10 10 20 30 | 5 | 40 50
    assert behaviours.begins_session(gap_seconds=9).tolist() == [1, 0, 1, 1, 1, 1, 1]
    assert behaviours.begins_session(gap_seconds=10).tolist() == [1, 0, 0, 0, 1, 1, 0]
    assert behaviours.begins_session(gap_seconds=0).tolist() == [1, 0, 1, 1, 1, 1, 1]
    assert behaviours.begins_session(gap_seconds=9).dtype == np.int32


def test_going_back_in_time_begins_no_session() -> None:
    behaviours = make_behaviours(by="file")  # times 30 10 10 20 | 5 | 50 40
    assert behaviours.begins_session(gap_seconds=9).tolist() == [1, 0, 0, 1, 1, 1, 0]


def test_a_gap_lasts_to_the_same_users_next_behaviour() -> None:
    assert make_behaviours().gap_to_next().tolist() == [0, 10, 10, 0, 0, 10, 0]  # times 10 10 20 30 | 5 | 40 50
    assert make_behaviours(by="file").gap_to_next().tolist() == [-20, 0, 10, 0, 0, -10, 0]


def test_the_middle_of_a_gaps_bucket_is_within_a_twentieth_of_it() -> None:
    gap_N = np.concatenate([np.arange(1, 2_000), np.random.default_rng(0).integers(1, 2**32, 5_000)])
    bucket_N = time_gap_bucket(gap_N)
    middle_N = seconds_of_gaps(TIME_GAP_VOCAB).numpy()[bucket_N]  # as HSTU reads them
    np.testing.assert_allclose(middle_N, gap_N, rtol=0.05)
    assert (bucket_N.min(), bucket_N.dtype) == (1, np.int32)
    assert time_gap_bucket(np.array([0, -5, 1, 2, 2**32 - 1])).tolist() == [0, 0, 1, 9, TIME_GAP_VOCAB - 1]
    with pytest.raises(DataError, match="a time gap of 4294967296 s exceeds"):
        time_gap_bucket(np.array([3, 2**32]))


def test_no_behaviours_begin_no_session() -> None:
    nothing = np.array([], np.int64)
    behaviours = Behaviours.from_events(nothing, item_N=nothing, time_N=nothing, label_N=nothing, source_N=nothing, by="time")
    assert behaviours.begins_session(gap_seconds=9).tolist() == []


def test_a_window_ends_just_before_its_target() -> None:
    behaviour_J, row_J = window_positions(np.array([3, 4, 9]), np.array([2, 0, 3]))
    assert behaviour_J.tolist() == [1, 2, 6, 7, 8]
    assert row_J.tolist() == [0, 0, 2, 2, 2]


def test_histories_are_oldest_first_and_never_hold_the_target_or_another_user() -> None:
    columns = make_builder().columns(np.arange(7), item_R=np.zeros(7, np.int32))
    assert columns["hist_item"].to_pylist() == [[], [7], [7, 9], [7, 9, 4], [], [], [3]]
    assert columns["hist_time_lag"].to_pylist() == [[], [0], [4, 4], [5, 5, 4], [], [], [4]]
    assert columns["user"].to_pylist() == [0, 0, 0, 0, 1, 2, 2]


def test_a_long_history_keeps_its_newest_behaviours() -> None:
    columns = make_builder(max_len=2).columns(np.array([3, 1]), item_R=np.zeros(2, np.int32))
    assert columns["hist_item"].to_pylist() == [[9, 4], [7]]


def test_building_in_chunks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = make_builder().columns(np.arange(7), item_R=np.zeros(7, np.int32))
    monkeypatch.setattr(module, "ROWS_PER_CHUNK", 2)
    chunked = make_builder().columns(np.arange(7), item_R=np.zeros(7, np.int32))
    assert whole.keys() == chunked.keys()
    assert all(whole[name].equals(chunked[name]) for name in whole)


def test_labelled_rows_carry_the_behaviours_label_item_and_source_row() -> None:
    columns = make_builder().labelled(np.array([3, 6]))
    assert columns["item"].to_pylist() == [5, 6]
    assert columns["row_id"].to_pylist() == [0, 1]
    assert columns["label"].to_pylist() == pytest.approx([0, 1 / 6])


def test_lag_buckets_are_bit_lengths_and_file_order_may_go_back_in_time() -> None:
    lag_J = np.array([-7, 0, 1, 2, 3, 4, 7, 8, 86_400, 2**31, 2**32 - 1])
    assert time_lag_bucket(lag_J).tolist() == [0, 0, *(int(lag).bit_length() for lag in lag_J[2:])]
    assert time_lag_bucket(lag_J).max() == module.TIME_LAG_VOCAB - 1


def test_a_lag_beyond_the_last_bucket_is_refused() -> None:
    with pytest.raises(DataError, match=r"time lag of 4294967296 s exceeds 2\^32 s; expected time stamps in seconds"):
        time_lag_bucket(np.array([2**32]))


def test_distinct_pairs_are_sorted_and_unrepeated() -> None:
    user_P, item_P = distinct_pairs(np.array([2, 0, 2, 0, 2], np.int32), np.array([1, 9, 0, 3, 1], np.int32))
    assert list(zip(user_P.tolist(), item_P.tolist(), strict=True)) == [(0, 3), (0, 9), (2, 0), (2, 1)]
