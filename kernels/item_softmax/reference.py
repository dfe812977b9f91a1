"""The specification of the cross-entropy over the catalogue (T2Diff eq. 24), in plain torch; a loss, so nothing scripts it."""

# B rows, M items of the catalogue, X items of a chunk, C vector width

from typing import Any

import torch


def accumulation_type(user_BC: torch.Tensor, item_MC: torch.Tensor) -> torch.dtype:
    """float32, or float64 where a vector is."""
    return torch.promote_types(torch.promote_types(user_BC.dtype, item_MC.dtype), torch.float32)


def _column_in_chunk(target_B: torch.Tensor, *, start: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Column of each target in the chunk [start, start + size), and whether it is there at all (else some valid column); [B, 1]."""
    offset_B1 = target_B[:, None] - start
    return offset_B1.clamp(0, size - 1), (offset_B1 >= 0) & (offset_B1 < size)


def forward(user_BC: torch.Tensor, item_MC: torch.Tensor, target_B: torch.Tensor, log_q_M: Any, chunk_items: int) -> Any:
    """Log-sum-exp of the scores u·v − log q and the target's score (NaN for a target out of range), both [B]."""
    wide_BC = user_BC.to(accumulation_type(user_BC, item_MC))
    positive_B, parts = torch.full_like(target_B, torch.nan, dtype=wide_BC.dtype), []
    for start in range(0, item_MC.shape[0], chunk_items):
        score_BX = wide_BC @ item_MC[start : start + chunk_items].to(wide_BC.dtype).t()
        if log_q_M is not None:
            score_BX -= log_q_M[start : start + chunk_items]
        column_B1, here_B1 = _column_in_chunk(target_B, start=start, size=score_BX.shape[1])
        positive_B = torch.where(here_B1.squeeze(1), score_BX.gather(1, column_B1).squeeze(1), positive_B)
        parts.append(score_BX.logsumexp(1))
    return torch.stack(parts).logsumexp(0), positive_B  # joined at the end: adding up chunk after chunk would round for each


def backward(inputs: Any, logsumexp_B: torch.Tensor, grad_B: torch.Tensor, chunk_items: int) -> Any:
    """Gradients of users and items; the scores are computed again, chunk by chunk. `inputs` are forward's first four."""
    user_BC, item_MC, target_B, log_q_M = inputs
    wide_BC = user_BC.to(logsumexp_B.dtype)
    scaled_BC = grad_B[:, None] * wide_BC  # the incoming gradient scales rows of width C here rather than rows of width M
    grad_user_BC, grad_item_MC = torch.zeros_like(wide_BC), torch.empty_like(item_MC)
    for start in range(0, item_MC.shape[0], chunk_items):
        item_XC = item_MC[start : start + chunk_items].to(wide_BC.dtype)
        error_BX = torch.addmm(logsumexp_B[:, None], wide_BC, item_XC.t(), beta=-1)
        error_BX = (error_BX if log_q_M is None else error_BX.sub_(log_q_M[start : start + chunk_items])).exp_()  # softmax,
        column_B1, here_B1 = _column_in_chunk(target_B, start=start, size=item_XC.shape[0])
        error_BX.scatter_(1, column_B1, error_BX.gather(1, column_B1) - here_B1.to(error_BX.dtype))  # and minus 1 at the target
        grad_user_BC.addmm_(error_BX, item_XC)
        grad_item_MC[start : start + chunk_items] = error_BX.t() @ scaled_BC
    return grad_user_BC.mul_(grad_B[:, None]).to(user_BC.dtype), grad_item_MC
