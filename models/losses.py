"""The papers' losses."""

# B rows, M items of the catalogue, X items of a chunk, K sampled candidates, C vector width

from typing import Any

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable


def binary_cross_entropy(logit_B: torch.Tensor, label_B: torch.Tensor) -> torch.Tensor:
    """FIT eq. 21 summed over the rows, not divided by their number: float [B] logits and labels in [0, 1] to a float32 scalar.

    Whoever knows the size of the global batch divides.
    """
    return F.binary_cross_entropy_with_logits(logit_B.float(), label_B, reduction="sum")


def adaptive_mimic(augmented_BC: torch.Tensor, other_BC: torch.Tensor, label_B: torch.Tensor) -> torch.Tensor:
    """DAT's adaptive-mimic loss of each row (Yu et al. 2021, section 3.2), float32 [B]: |y·a + (1 − y)·p − p|².

    A positive draws the augmented vector a of the one side to the other tower's output p, a negative leaves it alone; p is taken as
    it is, so that the mimic learns from the tower and not the tower from the mimic.

    Args:
        augmented_BC: a, float [B, C].
        other_BC: p, float [B, C]; no gradient comes back.
        label_B: y, 1 or 0, float [B].
    """
    return (label_B.unsqueeze(1) * (augmented_BC - other_BC.detach())).float().square().sum(1)


def gaussian_kl(mean_XC: torch.Tensor, log_variance_XC: torch.Tensor) -> torch.Tensor:
    """KL divergence of N(μ, diag σ²) from N(0, I), the prior term of an ELBO: float [..., C] each to [...]."""
    return 0.5 * (mean_XC.square() + log_variance_XC.exp() - 1.0 - log_variance_XC).sum(-1)


def info_nce(one_BC: torch.Tensor, other_BC: torch.Tensor, *, temperature: float) -> torch.Tensor:
    """InfoNCE (van den Oord et al. 2018) of each row, [B]: its two views are told from the other rows' by their cosine.

    The mean over both directions, each against B − 1 negatives; log B minus its mean bounds the views' mutual information from
    below. 0 for a single row.

    Args:
        one_BC: first views, float [B, C].
        other_BC: second views, float [B, C].
        temperature: what cosines are divided by.
    """
    score_BB = F.normalize(one_BC, dim=1) @ F.normalize(other_BC, dim=1).t() / temperature
    return 0.5 * (score_BB.logsumexp(0) + score_BB.logsumexp(1)) - score_BB.diagonal()


def full_softmax(user_BC: torch.Tensor, item_MC: torch.Tensor, target_B: torch.Tensor, *, chunk_items: int) -> torch.Tensor:
    """-log softmax over the whole catalogue of each row's target (T2Diff eq. 24), exact, with the dot product as the score.

    The [B, M] scores never exist as a whole: forward keeps one log-sum-exp per row and backward computes the scores again, chunk by
    chunk. Arithmetic is in float32 (float64 for float64 vectors), outside autocast; gradients come in the vectors' own types.

    Args:
        user_BC: user vectors, float [B, C].
        item_MC: vectors of the whole catalogue, float [M, C].
        target_B: int64 [B], the row of `item_MC` that each user chose. Checked on a CPU; on a GPU that would wait for the device,
            so there the loss of a row whose target is out of range is NaN.
        chunk_items: items whose scores are held at once. On a CPU 512 keeps them in the cache, which is faster than all at once;
            a GPU wants few, large chunks.

    Returns:
        float32 [B] (float64 for float64 vectors), once differentiable.

    Raises:
        ValueError: shapes disagree, chunk_items is below 1, or a target is out of range.
    """
    if user_BC.dim() != 2 or item_MC.dim() != 2 or user_BC.shape[1] != item_MC.shape[1] or target_B.shape != user_BC.shape[:1]:
        shapes = f"users {tuple(user_BC.shape)}, items {tuple(item_MC.shape)}, targets {tuple(target_B.shape)}"
        raise ValueError(f"{shapes}: expected [B, C], [M, C], [B]")
    if chunk_items < 1 or item_MC.shape[0] < 1:
        raise ValueError(f"chunk_items={chunk_items} of {item_MC.shape[0]} items, expected at least 1 of each")
    if target_B.device.type == "cpu":
        wrong_B = (target_B < 0) | (target_B >= item_MC.shape[0])
        if bool(wrong_B.any()):
            row = int(wrong_B.nonzero()[0])
            raise ValueError(f"target_B[{row}]={int(target_B[row])}, expected an item in [0, {item_MC.shape[0]})")
    return _StreamingSoftmax.apply(user_BC, item_MC, target_B, chunk_items)


class _StreamingSoftmax(torch.autograd.Function):
    """Log-sum-exp minus the target's score."""

    @staticmethod
    def forward(ctx: Any, user_BC: torch.Tensor, item_MC: torch.Tensor, target_B: torch.Tensor, chunk_items: int) -> torch.Tensor:
        with torch.autocast(user_BC.device.type, enabled=False):
            dtype = _accumulation_type(user_BC, item_MC)
            wide_BC = user_BC.to(dtype)
            positive_B = torch.full_like(target_B, torch.nan, dtype=dtype)
            parts = []
            for start in range(0, item_MC.shape[0], chunk_items):
                score_BX = wide_BC @ item_MC[start : start + chunk_items].to(dtype).t()
                column_B1, here_B1 = _column_in_chunk(target_B, start=start, size=score_BX.shape[1])
                positive_B = torch.where(here_B1.squeeze(1), score_BX.gather(1, column_B1).squeeze(1), positive_B)
                parts.append(score_BX.logsumexp(1))
            # joined at the end: adding up chunk after chunk would round once for each
            logsumexp_B = torch.stack(parts).logsumexp(0)
        ctx.save_for_backward(user_BC, item_MC, target_B, logsumexp_B)
        ctx.chunk_items = chunk_items
        return logsumexp_B - positive_B

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_B: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None, None]:
        user_BC, item_MC, target_B, logsumexp_B = ctx.saved_tensors
        need_user, need_item = ctx.needs_input_grad[:2]
        with torch.autocast(user_BC.device.type, enabled=False):
            wide_BC = user_BC.to(logsumexp_B.dtype)
            # the incoming gradient scales rows of width C here rather than rows of width M
            scaled_BC = grad_B[:, None] * wide_BC
            grad_user_BC = torch.zeros_like(wide_BC)
            grad_item_MC = torch.empty_like(item_MC) if need_item else None
            for start in range(0, item_MC.shape[0], ctx.chunk_items):
                item_XC = item_MC[start : start + ctx.chunk_items].to(logsumexp_B.dtype)
                error_BX = torch.addmm(
                    logsumexp_B[:, None], wide_BC, item_XC.t(), beta=-1
                ).exp_()  # softmax, and minus 1 at the target
                column_B1, here_B1 = _column_in_chunk(target_B, start=start, size=item_XC.shape[0])
                error_BX.scatter_(1, column_B1, error_BX.gather(1, column_B1) - here_B1.to(error_BX.dtype))
                if need_user:
                    grad_user_BC.addmm_(error_BX, item_XC)
                if grad_item_MC is not None:
                    grad_item_MC[start : start + ctx.chunk_items] = error_BX.t() @ scaled_BC
            grad_user_BC *= grad_B[:, None]
        return grad_user_BC.to(user_BC.dtype) if need_user else None, grad_item_MC, None, None


def _accumulation_type(user_BC: torch.Tensor, item_MC: torch.Tensor) -> torch.dtype:
    return torch.promote_types(torch.promote_types(user_BC.dtype, item_MC.dtype), torch.float32)


def _column_in_chunk(target_B: torch.Tensor, *, start: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Column of each target in the chunk [start, start + size), and whether it is there at all (else some valid column); [B, 1]."""
    offset_B1 = target_B[:, None] - start
    return offset_B1.clamp(0, size - 1), (offset_B1 >= 0) & (offset_B1 < size)


def sampled_softmax(
    user_BC: torch.Tensor,
    target_item_BC: torch.Tensor,
    candidate_item_KC: torch.Tensor,
    *,
    target_B: torch.Tensor,
    candidate_K: torch.Tensor,
    log_expected_count_K: torch.Tensor,
) -> torch.Tensor:
    """-log softmax of each row's target where the normaliser Z of T2Diff eq. 24 is estimated from sampled items.

    Z is exp(s⁺) + Σ_k exp(s_k - log E[count of item k among the candidates]) over the candidates that are not the row's target. The
    target's own score is not corrected, since it is always there; then E[Z estimate] = Z whatever the candidates are drawn from, as
    long as every item can be drawn. The loss and its gradients approach `full_softmax` as candidates grow.

    The rows share the candidates. With in-batch negatives (Yi et al. 2019) the batch's targets are among them: a row's own is
    masked, as is any other candidate that is its target, so each row sees the other rows' positives alone.

    Args:
        user_BC: user vectors, float [B, C].
        target_item_BC: vectors of the rows' targets, float [B, C].
        candidate_item_KC: vectors of the candidates, float [K, C].
        target_B: int64 [B], the targets' item ids.
        candidate_K: int64 [K], the candidates' item ids; an id may occur several times, and each time counts.
        log_expected_count_K: float [K], log of how often the candidate's item is expected among those that a row sees
            (`mixed_log_expected_count`).

    Returns:
        float32 [B] (float64 for float64 vectors); arithmetic in that type, outside autocast.

    Raises:
        ValueError: shapes disagree, or there are no candidates.
    """
    num_rows, num_candidates = user_BC.shape[0], candidate_item_KC.shape[0]
    if target_item_BC.shape != user_BC.shape or candidate_item_KC.shape[1:] != user_BC.shape[1:] or target_B.shape != (num_rows,):
        raise ValueError(
            f"users {tuple(user_BC.shape)}, targets {tuple(target_item_BC.shape)}, candidates {tuple(candidate_item_KC.shape)}, "
            f"target ids {tuple(target_B.shape)}: expected [B, C], [B, C], [K, C], [B]"
        )
    if num_candidates < 1 or not candidate_K.shape == log_expected_count_K.shape == (num_candidates,):
        shapes = f"ids {tuple(candidate_K.shape)}, expected counts {tuple(log_expected_count_K.shape)}"
        raise ValueError(f"{num_candidates} candidate vectors, {shapes}: expected the same number of each, at least 1")
    with torch.autocast(user_BC.device.type, enabled=False):
        dtype = _accumulation_type(user_BC, candidate_item_KC)
        positive_B1 = (user_BC.to(dtype) * target_item_BC.to(dtype)).sum(1, keepdim=True)
        score_BK = user_BC.to(dtype) @ candidate_item_KC.to(dtype).t() - log_expected_count_K.to(dtype)
        score_BK = score_BK.masked_fill(candidate_K == target_B[:, None], -torch.inf)
        return (torch.cat([positive_B1, score_BK], dim=1).logsumexp(1, keepdim=True) - positive_B1).squeeze(1)


def mixed_log_expected_count(
    candidate_K: torch.Tensor, log_q_M: torch.Tensor, *, num_in_batch: int, num_uniform: int
) -> torch.Tensor:
    """log(num_in_batch·q(item) + num_uniform/M): how often an item is expected among mixed negatives (Yang et al. 2020).

    Args:
        candidate_K: int64 [K], item ids.
        log_q_M: float [M], log of the share of training rows whose target is the item; -inf for items that are never a target.
        num_in_batch: other rows whose positives a row takes as negatives: rows of the batch minus 1, since its own is masked.
        num_uniform: draws from the whole catalogue, with replacement, all items alike.

    Returns:
        float32 [K]. An item that can't occur (q = 0 and no uniform draws) has -inf: such a candidate contradicts `log_q_M`, and its
        loss is infinite.

    Raises:
        ValueError: a number is negative or both are 0, or `log_q_M` is not one-dimensional.
    """
    if log_q_M.dim() != 1:
        raise ValueError(f"log_q_M has shape {tuple(log_q_M.shape)}, expected [M]")
    if min(num_in_batch, num_uniform) < 0 or num_in_batch + num_uniform == 0:
        raise ValueError(f"num_in_batch={num_in_batch}, num_uniform={num_uniform}, expected at least 0 each and 1 together")
    return torch.log(num_in_batch * log_q_M[candidate_K].float().exp() + num_uniform / log_q_M.shape[0])
