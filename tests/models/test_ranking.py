import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.ranking import ItemsOfUsers, exact_scores, ranks_of_scores, target_ranks, top_items


def small_integers(rows: int, items: int, *, seed: int = 0, dim: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Vectors whose scores tie often, and are exact."""
    random = torch.Generator().manual_seed(seed)
    user_BC, item_MC = (torch.randint(-2, 3, (n, dim), generator=random).float() for n in (rows, items))
    return user_BC, item_MC, torch.randint(items, (rows,), generator=random)


def jagged(seen: list[list[int]]) -> dict[str, torch.Tensor]:
    ids = torch.tensor([item for row in seen for item in row], dtype=torch.int64)
    return {"seen_ids_J": ids, "seen_lengths_B": torch.tensor([len(row) for row in seen])}


def rank_by_loop(scores: list[float], target: int, seen: set[int]) -> int:
    rank = 1
    for item, score in enumerate(scores):
        if item != target and item not in seen and not score < scores[target]:
            rank += 1
    return rank


def top_by_sort(scores: list[float], k: int, seen: set[int]) -> list[int]:
    best = sorted((item for item in range(len(scores)) if item not in seen), key=lambda item: (-scores[item], item))[:k]
    return best + [-1] * (k - len(best))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_ranks_and_top_items_are_those_of_a_loop_with_ties_and_repeated_seen_items(data: st.DataObject) -> None:
    rows, items = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 12))
    user_BC, item_MC, target_B = small_integers(rows, items, seed=data.draw(st.integers(0, 99)))
    seen = data.draw(st.lists(st.lists(st.integers(0, items - 1), max_size=8), min_size=rows, max_size=rows))
    k, buffer = data.draw(st.integers(1, items)), data.draw(st.integers(1, 80))
    scores = (user_BC @ item_MC.t()).tolist()
    found = target_ranks(user_BC, item_MC, target_B, **jagged(seen), max_buffer_scores=buffer)
    targets = target_B.tolist()
    assert torch.equal(ranks_of_scores(user_BC @ item_MC.t(), target_B, **jagged(seen)), found)
    assert found.tolist() == [rank_by_loop(scores[b], targets[b], set(seen[b])) for b in range(rows)]
    score_BK, item_BK = top_items(user_BC, item_MC, k, **jagged(seen), max_buffer_scores=buffer)
    assert item_BK.tolist() == [top_by_sort(scores[b], k, set(seen[b])) for b in range(rows)]
    assert score_BK.tolist() == [[scores[b][i] if i >= 0 else -math.inf for i in item_BK[b].tolist()] for b in range(rows)]


@pytest.mark.parametrize("items", [1, 63, 100])
def test_without_seen_items_ranks_are_positions_in_a_sort(items: int) -> None:
    random = torch.Generator().manual_seed(items)
    user_BC, item_MC = torch.randn(30, 8, generator=random), torch.randn(items, 8, generator=random)
    target_B = torch.randint(items, (30,), generator=random)
    order_BM = (user_BC.double() @ item_MC.double().t()).argsort(1, descending=True)
    expected_B = (order_BM == target_B[:, None]).int().argmax(1) + 1
    for buffer in (1, 1000, 10**6):
        assert torch.equal(target_ranks(user_BC, item_MC, target_B, max_buffer_scores=buffer), expected_B)
    assert torch.equal(top_items(user_BC, item_MC, items, max_buffer_scores=400)[1], order_BM)


def test_items_with_equal_vectors_tie_wherever_they_stand_in_the_catalogue() -> None:
    """Matrix kernels may round the same product differently in different columns; the rank must not show it."""
    random = torch.Generator().manual_seed(1)
    for items in (5, 17, 130):
        user_BC, one_1C = torch.randn(50, 37, generator=random), torch.randn(1, 37, generator=random)
        item_MC = one_1C.repeat(items, 1)
        ranks = target_ranks(user_BC, item_MC, torch.arange(50) % items, max_buffer_scores=50 * 7)
        assert bool((ranks == items).all())
        assert bool((top_items(user_BC, item_MC, 3)[1] == torch.arange(3)).all())
        torch.testing.assert_close(
            exact_scores(user_BC, item_MC.expand(50, -1, -1)), top_items(user_BC, item_MC, items)[0], rtol=0, atol=0
        )


def test_scores_that_are_not_numbers_are_ranked_as_those_of_vectors_are() -> None:
    score_BM = torch.tensor([[math.nan, 1.0, 2.0], [math.nan, 1.0, 2.0], [3.0, 3.0, -math.inf]])
    assert ranks_of_scores(score_BM, torch.tensor([0, 2, 1])).tolist() == [3, 2, 2]


def test_a_target_that_scores_nan_has_the_last_rank_even_where_everything_else_was_seen() -> None:
    user_BC, item_MC = torch.tensor([[math.nan], [1.0]]), torch.tensor([[1.0], [2.0], [3.0]])
    assert target_ranks(user_BC, item_MC, torch.tensor([2, 2])).tolist() == [3, 1]
    assert target_ranks(user_BC, item_MC, torch.tensor([2, 2]), **jagged([[0, 1], []])).tolist() == [3, 1]


def test_another_item_that_scores_nan_counts_against_the_model() -> None:
    item_MC = torch.tensor([[math.nan], [1.0], [2.0], [0.0]])
    assert target_ranks(torch.ones(1, 1), item_MC, torch.tensor([2])).tolist() == [2]
    score_BK, item_BK = top_items(torch.ones(1, 1), item_MC, 4)
    assert item_BK.tolist() == [[2, 1, 3, 0]]
    assert score_BK[0, :3].tolist() == [2.0, 1.0, 0.0]
    assert math.isnan(score_BK[0, 3])


@pytest.mark.parametrize("nan", [math.nan, -math.nan])
def test_infinite_scores_and_zeros_of_both_signs_are_ordered_as_numbers(nan: float) -> None:
    item_MC = torch.tensor([[-math.inf], [0.0], [-0.0], [1e-45], [-1e-45], [math.inf], [nan], [3e38], [-3e38], [0.0]])
    score_BK, item_BK = top_items(torch.ones(1, 1), item_MC, 10, max_buffer_scores=3)
    assert item_BK.tolist() == [[5, 7, 3, 1, 2, 9, 4, 8, 0, 6]]
    torch.testing.assert_close(score_BK[0], item_MC[item_BK[0], 0], rtol=0, atol=0, equal_nan=True)


def test_a_seen_target_competes_all_the_same() -> None:
    user_BC, item_MC = torch.ones(1, 1), torch.tensor([[3.0], [2.0], [1.0]])
    assert target_ranks(user_BC, item_MC, torch.tensor([1]), **jagged([[1, 1]])).tolist() == [2]
    assert target_ranks(user_BC, item_MC, torch.tensor([1]), **jagged([[0, 1, 0]])).tolist() == [1]


def test_no_users_give_no_ranks() -> None:
    user_BC, item_MC, target_B = small_integers(0, 5)
    assert target_ranks(user_BC, item_MC, target_B, **jagged([])).shape == (0,)
    assert top_items(user_BC, item_MC, 2)[0].shape == (0, 2)


def test_arguments_that_make_no_sense_are_refused() -> None:
    user_BC, item_MC, target_B = small_integers(2, 5)
    for k in (0, 6):
        with pytest.raises(ValueError, match=f"k={k}, expected 1 to 5"):
            top_items(user_BC, item_MC, k)
    with pytest.raises(ValueError, match=r"target_B\[1\]=5, expected an item in \[0, 5\)"):
        target_ranks(user_BC, item_MC, torch.tensor([0, 5]))
    with pytest.raises(ValueError, match=r"seen_ids_J\[0\]=-1"):
        target_ranks(user_BC, item_MC, target_B, **jagged([[-1], []]))
    with pytest.raises(ValueError, match="come together"):
        top_items(user_BC, item_MC, 1, seen_ids_J=target_B)
    with pytest.raises(ValueError, match="one length per user"):
        target_ranks(user_BC, item_MC, target_B, seen_ids_J=target_B, seen_lengths_B=torch.tensor([1, 2]))
    with pytest.raises(ValueError, match="expected \\[B, C\\] and \\[M, C\\]"):
        target_ranks(user_BC, item_MC[:, :1], target_B)
    with pytest.raises(ValueError, match="targets \\(1,\\)"):
        target_ranks(user_BC, item_MC, target_B[:1])
    with pytest.raises(ValueError, match=r"scores \(2, 5\), targets \(1,\): expected \[B, M\] and \[B\]"):
        ranks_of_scores(user_BC @ item_MC.t(), target_B[:1])
    with pytest.raises(ValueError, match="max_buffer_scores=0"):
        target_ranks(user_BC, item_MC, target_B, max_buffer_scores=0)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 8), max_size=4), min_size=1, max_size=5).flatmap(
        lambda items: st.tuples(st.just(items), st.lists(st.integers(0, len(items) - 1), max_size=7))
    )
)
def test_items_of_users_are_those_of_a_loop(drawn: tuple[list[list[int]], list[int]]) -> None:
    item_UX, users = drawn
    every = jagged(item_UX)
    items = ItemsOfUsers(every["seen_ids_J"], every["seen_lengths_B"].cumsum(0))
    found_J, length_B = items.of(torch.tensor(users, dtype=torch.int64))
    assert [part.tolist() for part in found_J.split(length_B.tolist())] == [item_UX[user] for user in users]
