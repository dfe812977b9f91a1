"""Row order is a function of (seed, epoch) alone, and every rank's share is local."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataloaders.sampler import LaneSampler


def make_sampler(group_rows: list[int], **changes: object) -> LaneSampler:
    return LaneSampler(group_rows, **({"batch_rows": 16, "lanes": 4, "seed": 0, "shuffle": True} | changes))


def taken(sampler: LaneSampler, batch: int, *, epoch: int = 0) -> list[tuple[int, int]]:
    return [(segment.group, int(row)) for segment in sampler.segments(epoch=epoch, batch=batch) for row in segment.rows]


def epoch_rows(sampler: LaneSampler, *, epoch: int = 0) -> list[list[tuple[int, int]]]:
    return [taken(sampler, batch, epoch=epoch) for batch in range(sampler.num_batches)]


@settings(max_examples=60, deadline=None)
@given(
    group_rows=st.lists(st.integers(0, 40), min_size=1, max_size=12).filter(lambda rows: sum(rows) >= 8),
    lanes=st.sampled_from([1, 2, 4, 8]),
    factor=st.integers(2, 9),
    epoch=st.integers(0, 3),
    shuffle=st.booleans(),
)
def test_every_world_size_takes_the_same_rows_in_the_same_order(
    group_rows: list[int], lanes: int, factor: int, epoch: int, shuffle: bool
) -> None:
    shape = {"batch_rows": factor * lanes + 1, "lanes": lanes, "shuffle": shuffle}
    whole = make_sampler(group_rows, **shape)
    expected = epoch_rows(whole, epoch=epoch)
    every = [place for batch in expected for place in batch]
    assert sorted(every) == [(group, row) for group, rows in enumerate(group_rows) for row in range(rows)]
    assert [len(batch) for batch in expected] == [whole.global_rows(batch) for batch in range(whole.num_batches)]
    assert max(map(len, expected)) <= shape["batch_rows"] // lanes * lanes
    for world_size in (size for size in (2, 4, 8) if lanes % size == 0):
        ranks = [make_sampler(group_rows, rank=rank, world_size=world_size, **shape) for rank in range(world_size)]
        for batch in range(whole.num_batches):
            shares = [taken(rank, batch, epoch=epoch) for rank in ranks]
            assert [place for share in shares for place in share] == expected[batch]
            assert min(map(len, shares)) >= 1


def test_any_position_is_reached_without_replaying() -> None:
    sampler, other = make_sampler([50, 20, 31]), make_sampler([50, 20, 31])
    epochs = [epoch_rows(sampler, epoch=epoch) for epoch in range(3)]
    for epoch, batch in [(2, 5), (0, 1), (2, 0), (1, 6)]:
        assert taken(other, batch, epoch=epoch) == epochs[epoch][batch]


def test_order_changes_with_seed_and_epoch_within_and_between_row_groups() -> None:
    sampler = make_sampler([30] * 6, lanes=1)
    first, second = epoch_rows(sampler, epoch=0), epoch_rows(sampler, epoch=1)
    assert first != second
    assert first != epoch_rows(make_sampler([30] * 6, lanes=1, seed=1))
    groups = [group for batch in first for group, _ in batch]
    assert groups != sorted(groups)
    rows = [row for batch in first for group, row in batch if group == 0]
    assert rows != sorted(rows)


def test_without_shuffling_a_lane_reads_in_file_order() -> None:
    sampler = make_sampler([5, 7], lanes=1, batch_rows=4, shuffle=False)
    assert [place for batch in epoch_rows(sampler) for place in batch] == [(0, row) for row in range(5)] + [
        (1, row) for row in range(7)
    ]


def test_a_rank_touches_only_the_row_groups_of_its_lanes() -> None:
    groups = [
        {group for batch in epoch_rows(make_sampler([8] * 32, rank=rank, world_size=4)) for group, _ in batch} for rank in range(4)
    ]
    assert sum(map(len, groups)) == 32


def test_batches_are_of_equal_size_up_to_one_row_a_lane() -> None:
    sizes = {len(batch) for batch in epoch_rows(make_sampler([1000], batch_rows=100, lanes=16))}
    assert max(sizes) - min(sizes) <= 16
    assert max(sizes) <= 96


def test_a_batch_spreads_over_the_whole_data() -> None:
    groups = [{group for group, _ in batch} for batch in epoch_rows(make_sampler([64] * 16, batch_rows=32, lanes=16))]
    assert min(map(len, groups)) == 16


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lanes": 4, "world_size": 3}, "--loader.lanes 4 must be a multiple of the 3 ranks.*use --loader.lanes 3$"),
        ({"lanes": 16, "world_size": 3}, "--loader.lanes 16 must be .* use --loader.lanes 15$"),
        ({"lanes": 2, "world_size": 8}, "--loader.lanes 2 must be .* use --loader.lanes 8$"),
        ({"rank": 2, "world_size": 2}, "rank=2, world_size=2: expected 0 <= rank < world_size"),
        ({"batch_rows": 3}, r"a batch of 3 rows \(before negatives\) is smaller than --loader.lanes 4"),
        ({"world_size": 4, "group_rows": [3]}, r"3 rows are too few for 4 rank\(s\), --loader.lanes 4"),
        (
            {"world_size": 4, "group_rows": [5], "batch_rows": 4},
            "fits from 4 rows and batches of 8 on: .* a larger --loader.batch-size",
        ),
        ({"group_rows": []}, "0 rows are too few"),
    ],
)
def test_shapes_that_cannot_work_are_errors(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_sampler(changes.pop("group_rows", [50]), **changes)


@pytest.mark.parametrize(("epoch", "batch"), [(-1, 0), (0, -1), (0, 4)])
def test_positions_outside_the_epoch_are_errors(epoch: int, batch: int) -> None:
    with pytest.raises(ValueError, match=f"epoch={epoch}, batch={batch}: expected epoch >= 0 and 0 <= batch < 4"):
        make_sampler([50]).segments(epoch=epoch, batch=batch)


def test_row_numbers_are_a_permutation_of_each_row_group() -> None:
    sampler = make_sampler([100], lanes=1, batch_rows=100)
    (segment,) = sampler.segments(epoch=0, batch=0)
    assert np.array_equal(np.sort(segment.order), np.arange(100))
