"""The body of an HTTP request, to the tensors that an artefact's towers take."""

# B requests, X ids, U user features, H histories, J history positions of all requests, F context features, D embedding width

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from trainer.export.signature import InputFeature, UserSignature

Request = dict[str, Any]
"""One entry of a body's "requests": user, history, candidates or top_k, row_id."""


class UserTensors(NamedTuple):
    """The users of several requests, as UserTower takes them."""

    user_values: torch.Tensor
    """int64 [X]."""
    user_lengths: torch.Tensor
    """int64 [U, B]."""
    history_values: torch.Tensor
    """int64 [H, J]."""
    history_lengths: torch.Tensor
    """int64 [B]."""
    row_id: torch.Tensor
    """int64 [B]."""


def user_tensors(requests: Sequence[Request], signature: UserSignature) -> UserTensors:
    """The users of valid requests; a server checks them first.

    Raises:
        KeyError: a request lacks a feature.
    """
    users = [[_ids(request["user"][feature.name]) for request in requests] for feature in signature.features]
    histories = [[request["history"][feature.name] for request in requests] for feature in signature.history]
    lengths = [len(history) for history in histories[0]] if histories else [0] * len(requests)
    return UserTensors(
        torch.tensor([number for rows in users for ids in rows for number in ids], dtype=torch.int64),
        torch.tensor([[len(ids) for ids in rows] for rows in users], dtype=torch.int64).reshape(len(users), len(requests)),
        torch.tensor([[number for ids in rows for number in ids] for rows in histories], dtype=torch.int64).reshape(
            len(histories), sum(lengths)
        ),
        torch.tensor(lengths, dtype=torch.int64),
        torch.tensor([request.get("row_id", 0) for request in requests], dtype=torch.int64),
    )


def draw_requests(
    count: int, *, signature: UserSignature, max_history: int, history_lengths: Sequence[int], generator: torch.Generator
) -> list[Request]:
    """Random valid users, every id equally likely, with histories of these lengths (cut to what is allowed)."""
    fewest = max((feature.min_len for feature in signature.history), default=0)
    requests = []
    for number in range(count):
        length = min(max(history_lengths[number], fewest), max_history) if signature.history else 0
        request: Request = {
            "user": {feature.name: _draw_user(feature, generator) for feature in signature.features},
            "history": {feature.name: _draw(length, feature.vocab_size, generator) for feature in signature.history},
        }
        if number % 2 == 1:
            request["row_id"] = int(torch.randint(2**62, (), generator=generator))
        requests.append(request)
    return requests


def _ids(value: int | list[int]) -> list[int]:
    return value if isinstance(value, list) else [value]


def _draw_user(feature: InputFeature, generator: torch.Generator) -> int | list[int]:
    if not feature.is_list:
        return _draw(1, feature.vocab_size, generator)[0]
    length = int(torch.randint(feature.min_len, feature.max_len + 1, (), generator=generator))
    return _draw(length, feature.vocab_size, generator)


def _draw(count: int, num_ids: int, generator: torch.Generator) -> list[int]:
    return torch.randint(num_ids, (count,), generator=generator).tolist()
