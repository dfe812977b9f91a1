"""Negatives are never touched, follow their distribution exactly, and depend on (seed, epoch, row_id, draw) alone."""

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from dataloaders.errors import DataError
from dataloaders.negatives import (
    NegativeConfig,
    NegativeSampler,
    check_task,
    draw_shared,
    item_frequencies,
    log_q,
    negative_sampler,
)
from dataloaders.parquet_writer import write_user_items
from dataloaders.touched_items import TouchedItems
from tests.dataloaders.small_dataset import NUM_ITEMS, NUM_USERS, SCHEMA, SmallDataset, to_columns, write_small_dataset


def touched_items(touched: dict[int, set[int]], *, num_users: int, num_items: int) -> TouchedItems:
    pairs = sorted((user, item) for user, items in touched.items() for item in items)
    users, items = (np.array([pair[side] for pair in pairs], dtype=np.int64) for side in (0, 1))
    return TouchedItems(users, items, num_users=num_users, num_items=num_items)


touched_sets = st.dictionaries(st.integers(0, 4), st.sets(st.integers(0, 11), max_size=11))


@given(touched_sets)
def test_untouched_ranks_enumerate_exactly_the_items_never_touched(touched: dict[int, set[int]]) -> None:
    index = touched_items(touched, num_users=5, num_items=12)
    for user in range(5):
        free = sorted(set(range(12)) - touched.get(user, set()))
        users = np.full(len(free), user)
        assert index.untouched(users, np.arange(len(free))).tolist() == free
        assert index.items_of(user).tolist() == sorted(touched.get(user, set()))
        assert index.contains(np.array([user]), np.arange(12)).tolist() == [item not in free for item in range(12)]


@settings(deadline=None)
@given(touched_sets, st.booleans(), st.integers(0, 2**62))
def test_no_draw_was_ever_touched(touched: dict[int, set[int]], popularity: bool, seed: int) -> None:
    index = touched_items(touched, num_users=5, num_items=12)
    # item 3 is so popular that redraws alone would hardly ever leave it
    frequency_I = np.array([1] * 3 + [10_000_000] + [2] * 8) if popularity else None
    user_B = np.arange(20) % 5
    item_DB = NegativeSampler(index, num=6, seed=seed, frequency_I=frequency_I).draw(epoch=1, row_id_B=np.arange(20), user_B=user_B)
    assert item_DB.shape == (6, 20)
    assert not index.contains(user_B, item_DB).any()
    assert item_DB.min() >= 0
    assert item_DB.max() < 12


TOUCHED = {0: {0, 1, 5, 19}, 1: set(range(0, 20, 2)), 2: set()}


@pytest.mark.parametrize("user", [0, 1, 2])
@pytest.mark.parametrize("popularity", [False, True])
def test_draws_follow_the_distribution_over_untouched_items(user: int, popularity: bool) -> None:
    # item 0 outweighs all others, so that user 0 and 1 need the exact draw after the redraws as well
    frequency_I = np.array([2000, *range(1, 20)])
    index = touched_items(TOUCHED, num_users=3, num_items=20)
    sampler = NegativeSampler(index, num=4, seed=5, frequency_I=frequency_I if popularity else None)
    item_DB = sampler.draw(epoch=0, row_id_B=np.arange(3000), user_B=np.full(3000, user))
    weight_I = (frequency_I if popularity else np.ones(20)).astype(float)
    weight_I[sorted(TOUCHED[user])] = 0
    free = weight_I > 0
    expected = weight_I[free] / weight_I.sum() * item_DB.size
    found = np.bincount(item_DB.ravel(), minlength=20)
    assert found[~free].sum() == 0
    assert stats.chisquare(found[free], expected).pvalue > 1e-3


@pytest.mark.parametrize("popularity", [False, True])
def test_a_draw_depends_on_seed_epoch_row_and_draw_but_not_on_its_neighbours(popularity: bool) -> None:
    index = touched_items(TOUCHED, num_users=3, num_items=20)
    frequency_I = np.arange(1, 21) if popularity else None
    row_id_B, user_B = np.arange(300) * 17 - 40, np.arange(300) % 3

    def draw(rows: slice, *, seed: int = 1, epoch: int = 2, num: int = 3) -> np.ndarray:
        sampler = NegativeSampler(index, num=num, seed=seed, frequency_I=frequency_I)
        return sampler.draw(epoch=epoch, row_id_B=row_id_B[rows], user_B=user_B[rows])

    whole = draw(slice(None))
    assert np.array_equal(whole, draw(slice(None)))
    assert np.array_equal(whole[:, ::-1], draw(slice(None, None, -1)))
    assert np.array_equal(whole[:, 7:9], draw(slice(7, 9)))
    assert np.array_equal(whole[:2], draw(slice(None), num=2))
    for other in (draw(slice(None), seed=2), draw(slice(None), epoch=3), np.roll(whole, 1, axis=0)):
        assert (whole == other).mean() < 0.3


def test_shared_draws_depend_on_seed_epoch_row_and_draw_but_not_on_their_neighbours() -> None:
    row_id_B = np.arange(300) * 17 - 40

    def draw(rows: slice, *, seed: int = 1, epoch: int = 2, num: int = 3) -> np.ndarray:
        config = NegativeConfig(kind="shared", num=num)
        return draw_shared(config, seed=seed, epoch=epoch, row_id_B=row_id_B[rows], num_items=50).reshape(num, -1)

    whole = draw(slice(None))
    assert whole.shape == (3, 300)
    assert np.array_equal(whole[:, ::-1], draw(slice(None, None, -1)))
    assert np.array_equal(whole[:, 7:9], draw(slice(7, 9)))
    assert np.array_equal(whole[:2], draw(slice(None), num=2))
    for other in (draw(slice(None), seed=2), draw(slice(None), epoch=3), np.roll(whole, 1, axis=0), np.roll(whole, 1, axis=1)):
        assert (whole == other).mean() < 0.1


def test_shared_draws_are_uniform_over_all_items() -> None:
    config = NegativeConfig(kind="shared", num=4)
    item_K = draw_shared(config, seed=5, epoch=0, row_id_B=np.arange(3000), num_items=37)
    assert stats.chisquare(np.bincount(item_K, minlength=37)).pvalue > 1e-3


def test_shared_draws_are_not_those_of_a_rows_own_negatives() -> None:
    index = touched_items({}, num_users=1, num_items=50)
    own = NegativeSampler(index, num=1, seed=5).draw(epoch=0, row_id_B=np.arange(1000), user_B=np.zeros(1000, np.int64))[0]
    shared = draw_shared(NegativeConfig(kind="shared"), seed=5, epoch=0, row_id_B=np.arange(1000), num_items=50)
    assert (own == shared).mean() < 0.1


@pytest.mark.parametrize(
    ("kind", "per_row", "labelled"), [("none", 0, 1), ("uniform", 3, 4), ("popularity", 3, 4), ("shared", 3, 1)]
)
def test_only_a_rows_own_negatives_are_labelled(kind: str, per_row: int, labelled: int) -> None:
    config = NegativeConfig(kind=kind, num=3)
    assert (config.per_row, config.labelled_per_row) == (per_row, labelled)


def test_a_user_without_untouched_items_is_an_error_with_row_and_user() -> None:
    index = touched_items({0: {1}, 1: set(range(5))}, num_users=2, num_items=5)
    with pytest.raises(DataError, match=r"row_id=71: user 1 touched every item \(of 5; user_items\): no negative is left"):
        NegativeSampler(index, num=1, seed=0).draw(epoch=0, row_id_B=np.array([70, 71]), user_B=np.array([0, 1]))


def test_popularity_with_nothing_popular_left_is_an_error() -> None:
    index = touched_items({0: {1, 2}}, num_users=1, num_items=5)
    sampler = NegativeSampler(index, num=1, seed=0, frequency_I=np.array([0, 3, 4, 0, 0]))
    with pytest.raises(DataError, match=r"row_id=9: user 0 touched every item with a training positive"):
        sampler.draw(epoch=0, row_id_B=np.array([9]), user_B=np.array([0]))


@pytest.mark.parametrize(
    ("users", "items", "message"),
    [
        ([0, 2], [1, 1], "user_items, row 1, column 'user': id 2, expected 0 <= id < 2"),
        ([0, 1], [-1, 1], "user_items, row 0, column 'item': id -1, expected 0 <= id < 5"),
        ([0, 1, 0], [1, 1, 2], "user_items, row 2: pairs must be distinct and sorted"),
        ([0, 0], [3, 3], "user_items, row 1: pairs must be distinct and sorted"),
    ],
)
def test_pairs_out_of_range_or_order_are_located(users: list[int], items: list[int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        TouchedItems(np.array(users), np.array(items), num_users=2, num_items=5)


@pytest.fixture
def dataset(tmp_path: Path) -> SmallDataset:
    return write_small_dataset(tmp_path, 300)


def test_touched_items_load_from_the_data_set(dataset: SmallDataset) -> None:
    index = TouchedItems.load(dataset.folder, SCHEMA)
    assert {user: set(index.items_of(user).tolist()) for user in range(NUM_USERS)} == dataset.touched


def test_nulls_in_user_items_are_an_error(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"user": pa.array([None], pa.int32()), "item": pa.array([1], pa.int32())}), tmp_path / "user_items.parquet"
    )
    with pytest.raises(DataError, match=r"user_items.parquet: columns \['user'\] hold nulls"):
        TouchedItems.load(tmp_path, SCHEMA)


def test_item_frequencies_count_positives_only(dataset: SmallDataset) -> None:
    frequency_I = item_frequencies(dataset.train, SCHEMA)
    expected = np.zeros(NUM_ITEMS, dtype=np.int64)
    for row in dataset.rows.values():
        expected[row["item"]] += row["label"] == 1
    assert np.array_equal(frequency_I, expected)
    assert 0 < expected.sum() < 300


def test_bad_rows_count_for_nothing_when_skipped_and_raise_otherwise(dataset: SmallDataset) -> None:
    rows = [row | {"label": 1.0} for row in list(dataset.rows.values())[:10]]
    rows[4]["item"] = 400
    for path in dataset.train.iterdir():
        path.unlink()
    pq.write_table(pa.table(to_columns(rows)), dataset.train / "part-0.parquet")
    assert item_frequencies(dataset.train, SCHEMA, bad_rows="skip").sum() == 9
    with pytest.raises(DataError, match=r"row 4 .*column 'item': id too large: 400"):
        item_frequencies(dataset.train, SCHEMA)


def test_the_sampler_that_a_config_asks_for_is_built(dataset: SmallDataset) -> None:
    assert negative_sampler(NegativeConfig(), SCHEMA, dataset.folder, seed=0) is None
    assert negative_sampler(NegativeConfig(kind="shared"), SCHEMA, dataset.folder, seed=0) is None
    row_id_B, user_B = np.arange(200), np.zeros(200, dtype=np.int64)
    drawn = {
        kind: negative_sampler(NegativeConfig(kind=kind, num=5), SCHEMA, dataset.folder, seed=0).draw(
            epoch=0, row_id_B=row_id_B, user_B=user_B
        )
        for kind in ("uniform", "popularity")
    }
    # training positives are in the lower half of the catalogue only
    assert drawn["uniform"].max() >= NUM_ITEMS // 2 > drawn["popularity"].max()
    assert not set(drawn["uniform"].ravel()) & dataset.touched[0]


def test_items_of_later_splits_are_negatives_where_only_training_rows_exclude_any(tmp_path: Path) -> None:
    dataset = write_small_dataset(tmp_path, 200)
    known: dict[int, set[int]] = {}
    for row in dataset.rows.values():
        known.setdefault(row["user"], set()).update([row["item"], *row["hist_item"]])
    touched = TouchedItems.of_split(dataset.train, SCHEMA)
    assert {user: set(touched.items_of(user).tolist()) for user in known} == known
    # half of the catalogue is in no training row's item, so that what it has of a user can be of later splits alone
    later = {user: {item for item in range(NUM_ITEMS // 2, NUM_ITEMS) if item not in items} for user, items in known.items()}
    pairs = sorted((user, item) for user in known for item in known[user] | later[user])
    write_user_items(tmp_path, pa.array([user for user, _ in pairs]), pa.array([item for _, item in pairs]))
    row_id_B, user_B = np.arange(400), np.repeat(sorted(known)[:4], 100)
    drawn = {}
    for excluded in ("ever", "train"):
        config = NegativeConfig(kind="uniform", num=5, excluded=excluded)
        item_DB = negative_sampler(config, SCHEMA, tmp_path, seed=0).draw(epoch=0, row_id_B=row_id_B, user_B=user_B)
        drawn[excluded] = {(user, item) for user, item in zip(np.tile(user_B, 5).tolist(), item_DB.ravel().tolist(), strict=True)}
    assert not any(item in known[user] for pairs in drawn.values() for user, item in pairs)
    assert not any(item in later[user] for user, item in drawn["ever"])
    assert any(item in later[user] for user, item in drawn["train"])


def test_bad_rows_of_the_split_exclude_nothing(tmp_path: Path) -> None:
    dataset = write_small_dataset(tmp_path, 10)
    rows = list(dataset.rows.values())
    rows[4] = rows[4] | {"hist_item": [NUM_ITEMS] * len(rows[4]["hist_item"]), "item": NUM_ITEMS}
    for path in dataset.train.iterdir():
        path.unlink()
    pq.write_table(pa.table(to_columns(rows)), dataset.train / "part-0.parquet")
    good = {(row["user"], item) for row in [*rows[:4], *rows[5:]] for item in [row["item"], *row["hist_item"]]}
    touched = TouchedItems.of_split(dataset.train, SCHEMA, bad_rows="skip")
    assert {(user, item) for user in range(NUM_USERS) for item in touched.items_of(user).tolist()} == good
    with pytest.raises(DataError, match=r"row 4 .*id too large: 40"):
        TouchedItems.of_split(dataset.train, SCHEMA)


def test_log_q_is_the_log_of_the_share() -> None:
    torch.testing.assert_close(log_q(np.array([3, 0, 1])).exp(), torch.tensor([0.75, 0.0, 0.25]))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "hard"}, "kind='hard', expected one of"),
        ({"num": 0}, "num=0, expected at least 1"),
        ({"excluded": "test"}, "excluded='test'"),
    ],
)
def test_config_names_the_field_that_is_out_of_range(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NegativeConfig(**fields)


@pytest.mark.parametrize(
    ("task", "kind", "message"),
    [
        ("next_behaviour", "none", "all positives.*--loader.negatives.kind none must be uniform or popularity"),
        ("next_behaviour", "shared", "all positives.*--loader.negatives.kind shared must be uniform or popularity"),
        ("next_item", "none", "task next_item are positives without negatives in any split.*--task next_behaviour"),
        ("next_item", "uniform", "task next_item are positives without negatives in any split.*--task next_behaviour"),
        ("click", "shared", "task click have labels of both kinds.*--loader.negatives.kind shared must be none"),
        ("rating", "uniform", "task rating have labels of both kinds.*--loader.negatives.kind uniform must be none"),
        ("click", "popularity", "task click have labels of both kinds.*--loader.negatives.kind popularity must be none"),
    ],
)
def test_negatives_that_do_not_go_with_the_task_are_refused_with_the_option_to_set(task: str, kind: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_task(dataclasses.replace(SCHEMA, task=task), NegativeConfig(kind=kind))


@pytest.mark.parametrize(
    ("task", "kind"), [("next_behaviour", "uniform"), ("next_behaviour", "popularity"), ("rating", "none"), ("click", "none")]
)
def test_negatives_that_go_with_the_task_pass(task: str, kind: str) -> None:
    check_task(dataclasses.replace(SCHEMA, task=task), NegativeConfig(kind=kind))
