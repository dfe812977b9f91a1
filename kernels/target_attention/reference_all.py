"""The specification of the activation unit with N queries shared by all rows (FIT section 4.3.2), in plain torch that scripts."""

# B rows, J history positions of the batch, D width of a position, C hidden width, N queries, X = J·N or N·D

import torch
import torch.nn.functional as F

from kernels.target_attention.reference import activation_weights, row_index
from kernels.target_attention.types import AttentionWeights


def target_attention_all(
    history_JD: torch.Tensor, lengths_B: torch.Tensor, query_ND: torch.Tensor, weights: AttentionWeights
) -> torch.Tensor:
    """Eq. 19 of every row against every query (FIT section 4.3.2); [B, N, D]."""
    num_queries, dim = query_ND.shape
    w1_CD, w2_CD, w3_CD, w4_CD = weights.weight1_C4D.chunk(4, dim=1)
    # (W1+W3)e + W4(e∘q) is one matrix per query applied to e, so all queries are one matmul over the history
    history_part = ((w1_CD + w3_CD).unsqueeze(0) + w4_CD.unsqueeze(0) * query_ND.unsqueeze(1)).flatten(0, 1)
    query_part = F.linear(query_ND, w2_CD - w3_CD, weights.bias1_C).flatten()
    hidden_XC = F.linear(history_JD, history_part, query_part).reshape(-1, w1_CD.shape[0])
    weight_JN = activation_weights(hidden_XC, weights).reshape(-1, num_queries)
    weighted_JX = (weight_JN.unsqueeze(2) * history_JD.unsqueeze(1)).reshape(-1, num_queries * dim)
    pooled_BX = weighted_JX.new_zeros((lengths_B.shape[0], num_queries * dim))
    return pooled_BX.index_add(0, row_index(lengths_B, history_JD.shape[0]), weighted_JX).reshape(-1, num_queries, dim)
