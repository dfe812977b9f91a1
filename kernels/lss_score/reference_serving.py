"""The specification of scoring stored items (FIT section 4.3.2), in plain torch that scripts."""

# B requests, N user vectors of a request, K candidates of a request, M items, U user heads, V item heads, P head width

import torch

from kernels.lss_score.reference import lss_score
from kernels.lss_score.types import LSSWeights, StoredItems, TopCandidates


def score_stored(user_BNUP: torch.Tensor, items: StoredItems, candidate_BK: torch.Tensor, weights: LSSWeights) -> torch.Tensor:
    """Logits of each request's candidates against the user vector that each one's index picks, [B, K]; -inf for -1."""
    num_requests, num_candidates = candidate_BK.shape
    absent_BK = candidate_BK == -1
    row_X = candidate_BK.masked_fill(absent_BK, 0).flatten()
    item_XY = items.vector_MX.index_select(0, row_X).float()
    scale_M, index_M = items.scale_M, items.index_M
    if scale_M is not None:
        item_XY = item_XY * scale_M.index_select(0, row_X).unsqueeze(1)
    request_X = torch.arange(num_requests, device=row_X.device).repeat_interleave(num_candidates)
    user_X = request_X * user_BNUP.shape[1]
    if index_M is not None:
        user_X = user_X + index_M.to(torch.int64).index_select(0, row_X)
    user_XUP = user_BNUP.flatten(0, 1).index_select(0, user_X).float()
    item_XVP = item_XY.unflatten(1, (-1, user_BNUP.shape[3]))
    score_X = lss_score(
        user_XUP, item_XVP, weights.weight1_DV, weights.bias1_D, weights.weight2_DU, weights.bias2_D, weights.weight3_DD
    )
    return score_X.reshape(candidate_BK.shape).masked_fill(absent_BK, -torch.inf)


def top_stored(
    user_BNUP: torch.Tensor, items: StoredItems, candidate_BK: torch.Tensor, weights: LSSWeights, num_top: int
) -> TopCandidates:
    """The best of `score_stored`, equal scores from left to right."""
    score_BK, column_BK = torch.sort(score_stored(user_BNUP, items, candidate_BK, weights), stable=True, dim=1, descending=True)
    return TopCandidates(score_BK[:, :num_top], column_BK[:, :num_top])
