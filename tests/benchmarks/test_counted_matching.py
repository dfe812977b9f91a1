import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from benchmarks.counted_matching import (
    Histories,
    behaviours_of_users,
    by_neighbours,
    by_popularity,
    cosines,
    counted_rows,
    history,
    measure,
    nearest,
    nothing,
    read_histories,
    touched_of,
)
from dataloaders.negatives import item_frequencies
from dataloaders.schema import Schema
from tests.trainer.small_matching import NUM_MOVIES, prepare_small_matching
from tests.trainer.small_matching import behaviours_of_users as true_behaviours


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare_small_matching(tmp_path_factory.mktemp("counted"))


@pytest.fixture(scope="module")
def users() -> list[list[int]]:
    """Items of each user, oldest first: raw movies are 7, 10, 13, … and items count from 0 in their order."""
    return [[(behaviour.movie - 7) // 3 for behaviour in behaviours] for behaviours in true_behaviours()]


def rows_of(*rows: tuple[list[int], int], num_items: int) -> Histories:
    """Histories and targets that are written out."""
    items = np.array([item for history, _ in rows for item in history], dtype=np.int64)
    offsets = np.cumsum([0, *(len(history) for history, _ in rows)])
    history_BM = sp.csr_array((np.ones(len(items)), items, offsets), shape=(len(rows), num_items))
    lengths_B = torch.tensor([len(history) for history, _ in rows])
    target_B = torch.tensor([target for _, target in rows])
    return Histories(history_BM, torch.from_numpy(items), lengths_B, target_B, torch.arange(len(rows)))


def cosines_by_loop(owners: list[set[int]]) -> np.ndarray:
    """Cosine of each two items, by the sets of users who have them; 0 on the diagonal."""
    found = np.zeros((len(owners), len(owners)))
    for one, its in enumerate(owners):
        for other, theirs in enumerate(owners):
            if one != other and its and theirs:
                found[one, other] = len(its & theirs) / math.sqrt(len(its) * len(theirs))
    return found


def test_similarities_are_cosines_of_what_training_has_of_each_user(data: Path, users: list[list[int]]) -> None:
    schema = Schema.load(data)
    owners: list[set[int]] = [set() for _ in range(NUM_MOVIES)]
    for user, items in enumerate(users):
        if len(items) > 3:  # the newest two are for test and validation, and a row is more than one behaviour
            for item in items[:-2]:
                owners[item].add(user)
    found = cosines(behaviours_of_users(data / "train", schema)).toarray()
    np.testing.assert_allclose(found[:NUM_MOVIES, :NUM_MOVIES], cosines_by_loop(owners), atol=1e-12)
    assert found.sum() == pytest.approx(found[:NUM_MOVIES, :NUM_MOVIES].sum())


def test_the_nearest_are_the_largest_of_each_row_and_of_equal_ones_the_lower_items() -> None:
    dense = np.random.default_rng(0).integers(0, 4, (9, 9)).astype(float)
    found = nearest(sp.csr_array(dense), 3).toarray()
    for row in range(9):
        best = sorted((item for item in range(9) if dense[row, item]), key=lambda item: (-dense[row, item], item))[:3]
        assert np.flatnonzero(found[row]).tolist() == sorted(best)
        assert (found[row, best] == dense[row, best]).all()


def test_an_item_scores_the_similarities_of_the_historys_items_to_it() -> None:
    similarity = np.random.default_rng(1).random((5, 5))
    rows = rows_of(([0, 3], 1), ([], 2), ([4, 4], 0), num_items=5)
    expected = np.stack([similarity[0] + similarity[3], np.zeros(5), 2 * similarity[4]])
    torch.testing.assert_close(by_neighbours(sp.csr_array(similarity))(rows), torch.from_numpy(expected).float())


def test_popularity_counts_training_targets_and_ranks_by_them(data: Path, users: list[list[int]]) -> None:
    schema = Schema.load(data)
    counts = Counter(item for items in users for item in items[1:-2])
    frequency_M = torch.from_numpy(item_frequencies(data / "train", schema)).double()
    assert frequency_M.tolist()[:NUM_MOVIES] == [counts[item] for item in range(NUM_MOVIES)]
    found = measure(by_popularity(frequency_M), read_histories(data / "test", schema), seen=nothing)
    ranks = [sum(int(count >= frequency_M[items[-1]]) for count in frequency_M) for items in users]
    assert found["num_rows"] == len(users)
    assert found["recall@10"] == pytest.approx(sum(rank <= 10 for rank in ranks) / len(users))
    assert found["mrr"] == pytest.approx(sum(1 / rank for rank in ranks) / len(users))


def test_seen_items_compete_unless_they_are_masked() -> None:
    popular = by_popularity(torch.tensor([5.0, 4.0, 3.0, 2.0]))
    rows = rows_of(([0, 1], 2), ([2], 2), num_items=4)
    assert measure(popular, rows, seen=nothing)["mrr"] == pytest.approx(1 / 3)
    assert measure(popular, rows, seen=history)["mrr"] == pytest.approx((1 + 1 / 3) / 2)  # a seen target competes itself


def test_the_parts_that_are_scored_at_once_change_nothing(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    schema = Schema.load(data)
    rows = read_histories(data / "test", schema)
    scores = by_neighbours(cosines(behaviours_of_users(data / "train", schema)))
    whole = measure(scores, rows, seen=history)
    monkeypatch.setattr("benchmarks.counted_matching.ROWS_AT_ONCE", 7)
    assert measure(scores, rows, seen=history) == whole


def test_what_a_user_ever_touched_does_not_compete(data: Path, users: list[list[int]]) -> None:
    schema = Schema.load(data)
    frequency_M = torch.from_numpy(item_frequencies(data / "train", schema)).double()
    rows = read_histories(data / "test", schema)
    found = measure(by_popularity(frequency_M), rows, seen=touched_of(data, schema))
    ranks = []
    for user, target in zip(rows.user_B.tolist(), rows.target_B.tolist(), strict=True):
        left = [item for item in range(len(frequency_M)) if item not in users[user]]
        ranks.append(1 + sum(int(frequency_M[item] >= frequency_M[target]) for item in left))
    assert found["mrr"] == pytest.approx(sum(1 / rank for rank in ranks) / len(ranks))
    assert found["mrr"] > measure(by_popularity(frequency_M), rows, seen=history)["mrr"]


def test_rows_name_both_baselines_by_what_does_not_compete_and_neighbours_find_more_than_popularity(data: Path) -> None:
    rows = counted_rows(data)
    assert [(row["recipe"], row["left_out"]) for row in rows] == [
        (recipe, left_out) for left_out in ("nothing", "history", "user items") for recipe in ("popularity", "item_knn")
    ]
    assert all(row["test_rows"] == "120" for row in rows)
    popularity, neighbours = (float(row["test_recall@20"]) for row in rows[2:4])
    assert neighbours > popularity
    assert rows[3]["neighbours"].isdigit()


def test_data_of_another_task_is_refused(data: Path, tmp_path: Path) -> None:
    content = (data / "schema.json").read_text().replace('"next_item"', '"next_behaviour"')
    (tmp_path / "schema.json").write_text(content)
    with pytest.raises(ValueError, match="prepare the data with --task next_item"):
        counted_rows(tmp_path)
