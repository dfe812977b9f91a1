"""The papers' losses."""

# B rows, M items of the catalogue, K sampled candidates, C vector width, D width of a category's vector, G categories of a batch

import torch
import torch.nn.functional as F

from kernels.dispatch import Backend
from kernels.item_softmax import accumulation_type, item_softmax


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


def category_alignment(item_BC: torch.Tensor, category_BD: torch.Tensor, *, min_rows: int) -> torch.Tensor:
    """DAT's category alignment loss (Yu et al. 2021, section 3.3), a float32 scalar: Σ_g |C(S_major) − C(S_g)|², Frobenius.

    C(S_g) is the covariance of the item tower's outputs for the batch's rows of category g; the major category is the one with the
    most rows, the others are drawn to its distribution and it to theirs.

    Args:
        item_BC: the item tower's outputs, float [B, C].
        category_BD: [B, D]; rows are of one category where they are equal.
        min_rows: rows that a category needs, at least 2; one with fewer is left out. 0 is the loss without two such categories.
    """
    _, group_B, count_G = torch.unique(category_BD, dim=0, return_inverse=True, return_counts=True)
    item_BC = item_BC.float()
    num_groups, width = count_G.shape[0], item_BC.shape[1]
    mean_GC = item_BC.new_zeros(num_groups, width).index_add(0, group_B, item_BC) / count_G.unsqueeze(1)
    centred_BC = item_BC - mean_GC.index_select(0, group_B)
    product_BX = (centred_BC.unsqueeze(2) * centred_BC.unsqueeze(1)).flatten(1)
    sum_GX = item_BC.new_zeros(num_groups, width * width).index_add(0, group_B, product_BX)
    covariance_GX = sum_GX / (count_G - 1).clamp(min=1).unsqueeze(1)
    distance_G = (covariance_GX - covariance_GX[count_G.argmax()]).square().sum(1)
    return distance_G.masked_fill(count_G < min_rows, 0.0).sum()


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


def contrastive_interaction(
    user_BC: torch.Tensor, item_BC: torch.Tensor, label_B: torch.Tensor, *, temperature: float
) -> torch.Tensor:
    """IntTower's contrastive interaction regulariser (CIR, Li et al. 2022) of each row, [B]; 0 for a negative.

    InfoNCE from user to item: a positive's item is told from the items of all the other rows, positives and negatives alike, by its
    cosine with the user. An item that occurs twice is not masked. The rows are one rank's: more ranks, fewer negatives.

    Args:
        user_BC: the user tower's output, float [B, C].
        item_BC: the item tower's output, float [B, C].
        label_B: 1 or 0, float [B].
        temperature: what cosines are divided by.
    """
    score_BB = F.normalize(user_BC, dim=1) @ F.normalize(item_BC, dim=1).t() / temperature
    return label_B * (score_BB.logsumexp(1) - score_BB.diagonal())


def full_softmax(
    user_BC: torch.Tensor, item_MC: torch.Tensor, target_B: torch.Tensor, *, chunk_items: int, backend: Backend = "auto"
) -> torch.Tensor:
    """-log softmax over the whole catalogue of each row's target (T2Diff eq. 24), with the dot product as the score.

    Arguments, result and errors are those of kernels.item_softmax.item_softmax without a correction.
    """
    return item_softmax(user_BC, item_MC, target_B, chunk_items=chunk_items, backend=backend)


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
        dtype = accumulation_type(user_BC, candidate_item_KC)
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
