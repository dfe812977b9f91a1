from collections.abc import Sequence

import numpy as np
import torch

from models.types import ItemVectors
from trainer.export.answers import Answerer, answer, shortest
from trainer.export.item_store import store_in_memory
from trainer.export.requests import Request
from trainer.export.towers import DotScorer

ITEMS = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0], [3.0, 0.0], [-1.0, -1.0]])


def dot_answerer() -> Answerer:
    """A request's user is its own vector."""

    def users(requests: Sequence[Request]) -> torch.Tensor:
        return torch.tensor([request["user"]["vector"] for request in requests])[:, None, None]

    store = store_in_memory(ItemVectors(torch.zeros(5, dtype=torch.int64), ITEMS.unsqueeze(1)), num_queries=1)
    return Answerer(users, DotScorer(), store)


def test_scores_follow_the_candidates_and_the_first_of_equal_ones_comes_first() -> None:
    first = {"user": {"vector": [1.0, 0.5]}, "candidates": [3, 1, 2, 3], "top_k": 3}
    second = {"user": {"vector": [-1.0, 0.0]}, "candidates": [0]}
    answers = answer({"requests": [first, second]}, dot_answerer())["answers"]
    assert answers[0]["scores"] == [3.0, 1.0, 3.0, 3.0]
    assert [(top["item"], top["position"], top["score"]) for top in answers[0]["top"]] == [(3, 0, 3.0), (2, 2, 3.0), (3, 3, 3.0)]
    assert answers[1] == {"scores": [-1.0]}


def test_retrieval_ranks_all_items_and_the_lower_of_equal_ids_comes_first() -> None:
    requests = [{"user": {"vector": [1.0, 0.0]}, "top_k": 4}, {"user": {"vector": [0.0, 1.0]}, "top_k": 1}]
    answers = answer({"requests": requests}, dot_answerer())["answers"]
    assert answers[0] == {"items": [2, 3, 0, 1], "scores": [3.0, 3.0, 1.0, 0.0]}
    assert answers[1] == {"items": [1], "scores": [2.0]}


def test_scores_are_written_as_the_shortest_decimals_that_read_back_as_the_same_float32() -> None:
    values = torch.cat([torch.randn(1000), torch.tensor([0.1, 1e-30, 3e30, -0.0, 16_777_217.0])])
    written = shortest(values)
    assert np.array_equal(np.array(written, dtype=np.float32), values.numpy())
    assert repr(written[1000]) == "0.1"
    assert max(len(repr(value).lstrip("-")) for value in written) <= len("1.2345678e-10")
