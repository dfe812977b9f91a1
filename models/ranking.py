"""Exact ranking over the whole catalogue by the dot product of user and item vectors."""

# B users, M items of the catalogue, X items of a chunk, K items per user, C vector width, J seen items of all users (jagged),
# P pairs of a user and an item that does not compete

from collections.abc import Iterator
from typing import NamedTuple

import torch

MAX_BUFFER_SCORES = 2**22
"""Scores held at once by default: 32 MiB in float64, and copies."""
_ID_BITS = 31
_ID_MASK = 2**_ID_BITS - 1
_NAN_KEY = -(2**31)
"""Below the key of -inf, and turned back into a float it is a NaN again."""


def exact_scores(user_BC: torch.Tensor, item_BKC: torch.Tensor) -> torch.Tensor:
    """Dot products of each user with items of its own, float32 [B, K].

    Like every score of this module computed in float64 and rounded to float32 once, so that equal vectors have equal scores
    whichever matrix kernel computed them, and neither autocast nor TF32 matters.
    """
    return (user_BC.double()[:, None] * item_BKC.double()).sum(2).float()


def target_ranks(
    user_BC: torch.Tensor,
    item_MC: torch.Tensor,
    target_B: torch.Tensor,
    *,
    seen_ids_J: torch.Tensor | None = None,
    seen_lengths_B: torch.Tensor | None = None,
    max_buffer_scores: int = MAX_BUFFER_SCORES,
) -> torch.Tensor:
    """Rank of each user's target: 1 + the number of other items whose score is at least the target's, exact.

    Ties count against the model, and so does an item whose score is NaN. A target whose score is NaN has rank M.

    Args:
        user_BC: user vectors, float [B, C].
        item_MC: vectors of the whole catalogue, float [M, C].
        target_B: int64 [B], rows of `item_MC`.
        seen_ids_J: int64 [J], items that do not compete, user after user; a repeated one counts once, the target competes anyway.
        seen_lengths_B: int [B], how many of `seen_ids_J` are each user's; given together with them.
        max_buffer_scores: scores held at once; at least one item per user is.

    Returns:
        int64 [B], 1 to M.

    Raises:
        ValueError: shapes disagree, or an id is out of range.
    """
    _check_vectors(user_BC, item_MC, max_buffer_scores)
    if target_B.shape != user_BC.shape[:1]:
        raise ValueError(f"{user_BC.shape[0]} users, targets {tuple(target_B.shape)}: expected [B]")
    _check_ids("target_B", target_B, item_MC.shape[0])
    left_out = _LeftOut.of_targets(target_B, *_seen_pairs(user_BC, item_MC.shape[0], seen_ids_J, seen_lengths_B))
    target_B1 = exact_scores(user_BC, item_MC[target_B][:, None])
    above_B = torch.zeros_like(target_B)
    for chunk in _chunks(user_BC, item_MC, left_out, max_buffer_scores):
        above_B += _num_not_below(chunk.score_BX, target_B1, chunk.user_P, chunk.column_P)
    return torch.where(target_B1.squeeze(1).isnan(), item_MC.shape[0], above_B + 1)


def ranks_of_scores(
    score_BM: torch.Tensor,
    target_B: torch.Tensor,
    *,
    seen_ids_J: torch.Tensor | None = None,
    seen_lengths_B: torch.Tensor | None = None,
) -> torch.Tensor:
    """`target_ranks` for whoever has the scores themselves, float [B, M], in place of vectors."""
    if score_BM.dim() != 2 or target_B.shape != score_BM.shape[:1]:
        raise ValueError(f"scores {tuple(score_BM.shape)}, targets {tuple(target_B.shape)}: expected [B, M] and [B]")
    _check_ids("target_B", target_B, score_BM.shape[1])
    left_out = _LeftOut.of_targets(target_B, *_seen_pairs(score_BM, score_BM.shape[1], seen_ids_J, seen_lengths_B))
    target_B1 = score_BM.gather(1, target_B[:, None])
    above_B = _num_not_below(score_BM, target_B1, left_out.user_P, left_out.item_P)
    return torch.where(target_B1.squeeze(1).isnan(), score_BM.shape[1], above_B + 1)


def _num_not_below(score_BX: torch.Tensor, target_B1: torch.Tensor, user_P: torch.Tensor, column_P: torch.Tensor) -> torch.Tensor:
    """Items of each row that compete and score at least the target, int64 [B]."""
    not_below_BX = ~(score_BX < target_B1)  # written so that NaN on either side counts
    not_below_BX[user_P, column_P] = False
    return not_below_BX.sum(1)


def top_items(
    user_BC: torch.Tensor,
    item_MC: torch.Tensor,
    k: int,
    *,
    seen_ids_J: torch.Tensor | None = None,
    seen_lengths_B: torch.Tensor | None = None,
    max_buffer_scores: int = MAX_BUFFER_SCORES,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Each user's `k` items of highest score, exact, best first; of equal scores the lower id first, NaN after all numbers.

    The result does not depend on how the catalogue is cut into chunks. Arguments as in `target_ranks`.

    Returns:
        Scores float32 [B, k] and ids int64 [B, k]. Where a user has fewer than `k` unseen items, the last places hold -inf and -1.

    Raises:
        ValueError: shapes disagree, an id is out of range, or k is not in 1 … M.
    """
    _check_vectors(user_BC, item_MC, max_buffer_scores)
    if not 1 <= k <= item_MC.shape[0]:
        raise ValueError(f"k={k}, expected 1 to {item_MC.shape[0]}, the number of items")
    left_out = _LeftOut.sorted_by_item(*_seen_pairs(user_BC, item_MC.shape[0], seen_ids_J, seen_lengths_B))
    nothing = torch.iinfo(torch.int64).min
    best_BK = torch.full((user_BC.shape[0], k), nothing, device=user_BC.device)
    for chunk in _chunks(user_BC, item_MC, left_out, max_buffer_scores):
        key_BX = _sort_keys(chunk.score_BX, first_item=chunk.start)
        key_BX[chunk.user_P, chunk.column_P] = nothing
        of_chunk_BK = key_BX.topk(min(k, key_BX.shape[1]), sorted=False).values
        best_BK = torch.cat([best_BK, of_chunk_BK], dim=1).topk(k).values
    is_item_BK = best_BK != nothing
    item_BK = torch.where(is_item_BK, _ID_MASK - (best_BK & _ID_MASK), -1)
    return torch.where(is_item_BK, _scores_of_keys(best_BK), -torch.inf), item_BK


class ItemsOfUsers(NamedTuple):
    """Some items of each user, one user after the other (T of all users together)."""

    item_T: torch.Tensor
    """int64 [T], user after user."""
    end_U: torch.Tensor
    """int64 [U]: where each user's items end, and the next one's begin."""

    def of(self, user_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Items of the users `user_B`, int64 [B] in [0, U): `seen_ids_J` and `seen_lengths_B` of `target_ranks`."""
        count_U = torch.diff(self.end_U, prepend=self.end_U.new_zeros(1))
        length_B = count_U[user_B]
        row_J = torch.arange(user_B.shape[0], device=user_B.device).repeat_interleave(length_B)
        place_J = torch.arange(row_J.shape[0], device=user_B.device)
        # counted from the end of a row, the places of its items are those of the user's
        to_end_J = length_B.cumsum(0)[row_J] - place_J
        return self.item_T[self.end_U[user_B][row_J] - to_end_J], length_B


class _LeftOut(NamedTuple):
    """Pairs that do not compete, in the order of the items, so that each chunk's pairs are one slice."""

    user_P: torch.Tensor
    item_P: torch.Tensor

    @classmethod
    def sorted_by_item(cls, user_P: torch.Tensor, item_P: torch.Tensor) -> "_LeftOut":
        """The pairs in the order of their items."""
        item_P, order_P = item_P.sort()
        return cls(user_P[order_P], item_P)

    @classmethod
    def of_targets(cls, target_B: torch.Tensor, user_P: torch.Tensor, item_P: torch.Tensor) -> "_LeftOut":
        """The pairs and, since a target does not compete with itself, each row's target, once whether it was seen or not."""
        every_B = torch.arange(target_B.shape[0], device=target_B.device)
        return cls.sorted_by_item(torch.cat([user_P, every_B]), torch.cat([item_P, target_B]))


class _Chunk(NamedTuple):
    """Scores of all users with X neighbouring items, and which of them do not compete."""

    start: int
    score_BX: torch.Tensor
    user_P: torch.Tensor
    column_P: torch.Tensor


def _chunks(user_BC: torch.Tensor, item_MC: torch.Tensor, left_out: _LeftOut, max_buffer_scores: int) -> Iterator[_Chunk]:
    chunk_items = max(1, max_buffer_scores // max(1, user_BC.shape[0]))
    starts = list(range(0, item_MC.shape[0], chunk_items))
    ends = torch.tensor([*starts[1:], item_MC.shape[0]], device=user_BC.device)
    first = 0
    wide_BC = user_BC.double()
    for start, last in zip(starts, torch.searchsorted(left_out.item_P, ends).tolist(), strict=True):
        with torch.autocast(user_BC.device.type, enabled=False):
            score_BX = (wide_BC @ item_MC[start : start + chunk_items].double().t()).float()
        yield _Chunk(start, score_BX, left_out.user_P[first:last], left_out.item_P[first:last] - start)
        first = last


def _sort_keys(score_BX: torch.Tensor, *, first_item: int) -> torch.Tensor:
    """int64 whose order is that of (score, -item): the float's bits as a signed number above 31 bits of the mirrored id."""
    bits_BX = (score_BX + 0.0).view(torch.int32)  # -0.0 becomes 0.0
    ordered_BX = torch.where(bits_BX >= 0, bits_BX, bits_BX ^ 0x7FFFFFFF)
    ordered_BX.masked_fill_(score_BX.isnan(), _NAN_KEY)
    item_X = torch.arange(first_item, first_item + score_BX.shape[1], device=score_BX.device)
    return (ordered_BX.long() << _ID_BITS) | (_ID_MASK - item_X)


def _scores_of_keys(key_BK: torch.Tensor) -> torch.Tensor:
    ordered_BK = (key_BK >> _ID_BITS).int()
    return torch.where(ordered_BK >= 0, ordered_BK, ordered_BK ^ 0x7FFFFFFF).view(torch.float32)


def _check_vectors(user_BC: torch.Tensor, item_MC: torch.Tensor, max_buffer_scores: int) -> None:
    if user_BC.dim() != 2 or item_MC.dim() != 2 or user_BC.shape[1] != item_MC.shape[1] or not 1 <= item_MC.shape[0] <= _ID_MASK:
        raise ValueError(
            f"users {tuple(user_BC.shape)}, items {tuple(item_MC.shape)}: expected [B, C] and [M, C], M from 1 to 2³¹ - 1"
        )
    if max_buffer_scores < 1:
        raise ValueError(f"max_buffer_scores={max_buffer_scores}, expected at least 1")


def _check_ids(name: str, ids: torch.Tensor, num_items: int) -> None:
    wrong = (ids < 0) | (ids >= num_items)
    if bool(wrong.any()):
        position = int(wrong.nonzero()[0])
        raise ValueError(f"{name}[{position}]={int(ids[position])}, expected an item in [0, {num_items})")


def _seen_pairs(
    per_user_BX: torch.Tensor, num_items: int, seen_ids_J: torch.Tensor | None, seen_lengths_B: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """User and item of each seen item, int64 [J] each; empty where nothing is masked. `per_user_BX` has a row for each user."""
    num_users, device = per_user_BX.shape[0], per_user_BX.device
    if seen_ids_J is None and seen_lengths_B is None:
        nothing = torch.empty(0, dtype=torch.int64, device=device)
        return nothing, nothing
    if seen_ids_J is None or seen_lengths_B is None:
        raise ValueError("seen_ids_J and seen_lengths_B come together; one of them is None")
    if seen_lengths_B.shape != (num_users,) or seen_ids_J.dim() != 1 or int(seen_lengths_B.sum()) != seen_ids_J.shape[0]:
        lengths = f"seen_lengths_B {tuple(seen_lengths_B.shape)} sums to {int(seen_lengths_B.sum())}"
        shapes = f"{lengths}, seen_ids_J {tuple(seen_ids_J.shape)}, {num_users} users"
        raise ValueError(f"{shapes}: expected one length per user, and as many ids as their sum")
    _check_ids("seen_ids_J", seen_ids_J, num_items)
    every_B = torch.arange(num_users, device=device)
    return every_B.repeat_interleave(seen_lengths_B.long(), output_size=seen_ids_J.shape[0]), seen_ids_J.long()
