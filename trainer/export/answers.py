"""What a server answers, in plain Python: one program for the run's own modules and for an artefact's."""

# B requests, K candidates, M items, N meta queries, H heads, P and C vector width

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from models.ranking import top_items
from trainer.export.item_store import ItemStore
from trainer.export.requests import Request

Body = dict[str, Any]
"""Of a request or an answer, as JSON."""


class Answerer(NamedTuple):
    """What answers are made with."""

    users: Callable[[Sequence[Request]], torch.Tensor]
    """Requests to [B, N, H_u, P]."""
    scorer: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
    """Users, index and items to [B, K]."""
    store: ItemStore
    """The items."""


@torch.no_grad()
def answer(body: Body, answerer: Answerer) -> Body:
    """The answer's body without the artefact's id; /v1/score where requests have candidates, else /v1/retrieve."""
    requests = body["requests"]
    user_BNHP = answerer.users(requests)
    if "candidates" in requests[0]:
        return {"answers": [_score(user_BNHP[row : row + 1], request, answerer) for row, request in enumerate(requests)]}
    return {"answers": _retrieve(user_BNHP[:, 0, 0], requests, answerer.store)}


def _score(user_1NHP: torch.Tensor, request: Request, answerer: Answerer) -> Body:
    index_K, item_KHP = answerer.store.gather(request["candidates"])
    score_K = answerer.scorer(user_1NHP, index_K.unsqueeze(0), item_KHP.unsqueeze(0))[0]
    scores = shortest(score_K)
    found: Body = {"scores": scores}
    if "top_k" in request:
        order = torch.sort(score_K, descending=True, stable=True).indices[: request["top_k"]].tolist()
        found["top"] = [{"item": request["candidates"][place], "score": scores[place], "position": place} for place in order]
    return found


def _retrieve(user_BC: torch.Tensor, requests: Sequence[Request], store: ItemStore) -> list[Body]:
    item_MC = store.gather(slice(None)).item_BHP[:, 0]
    answers = []
    for row, request in enumerate(requests):
        score_1K, item_1K = top_items(user_BC[row : row + 1], item_MC, request["top_k"])
        answers.append({"items": item_1K[0].tolist(), "scores": shortest(score_1K[0])})
    return answers


def shortest(values: torch.Tensor) -> list[float]:
    """float32 [X] as the numbers whose decimal form is the shortest that reads back as the same float32."""
    return [float(text) for text in values.numpy().astype(np.float32).astype("U")]
