"""The specification of DIN's activation unit on jagged histories (FIT eq. 19), in plain torch that scripts."""

# B rows, J history positions of the batch, D width of a position, C and E hidden widths, N queries

import torch
import torch.nn.functional as F

from kernels.target_attention.types import AttentionWeights, DiceWeights


def row_index(lengths_B: torch.Tensor, num_positions: int) -> torch.Tensor:
    """int64 [J]: the row that each history position belongs to."""
    rows_B = torch.arange(lengths_B.shape[0], device=lengths_B.device)
    return torch.repeat_interleave(rows_B, lengths_B, output_size=num_positions)


def first_layer(
    history_JD: torch.Tensor, query_BD: torch.Tensor, row_J: torch.Tensor, weight_C4D: torch.Tensor, bias_C: torch.Tensor
) -> torch.Tensor:
    """W·[e, q, e−q, e∘q] + b as (W1+W3)e + (W2−W3)q + W4(e∘q): the q part once per row, no [J, 4D] tensor. Returns [J, C]."""
    w1_CD, w2_CD, w3_CD, w4_CD = weight_C4D.chunk(4, dim=1)
    query_part_BC = F.linear(query_BD, w2_CD - w3_CD, bias_C)
    hidden_JC = query_part_BC.index_select(0, row_J)
    product_JD = history_JD * query_BD.index_select(0, row_J)
    # in place, because addmm would first copy [J, C]; casts, because autocast leaves in-place operations alone
    hidden_JC = hidden_JC.addmm_(history_JD.to(hidden_JC.dtype), (w1_CD + w3_CD).t().to(hidden_JC.dtype))
    return hidden_JC.addmm_(product_JD.to(hidden_JC.dtype), w4_CD.t().to(hidden_JC.dtype))


def weighted_sum(history_JD: torch.Tensor, weight_J: torch.Tensor, row_J: torch.Tensor, num_rows: int) -> torch.Tensor:
    """Σ_j a_j e_j of each row, [num_rows, D]; exactly 0 for a row without history."""
    weighted_JD = history_JD * weight_J.unsqueeze(1)
    return weighted_JD.new_zeros((num_rows, history_JD.shape[1])).index_add(0, row_J, weighted_JD)


def dice_gate(hidden_XC: torch.Tensor, normal_XC: torch.Tensor, alpha_C: torch.Tensor) -> torch.Tensor:
    """s·(p + (1 − p)·α) with p = sigmoid of the normalised s (DIN section 5.3)."""
    return hidden_XC * torch.addcmul(alpha_C, 1 - alpha_C, torch.sigmoid(normal_XC))


def dice(hidden_XC: torch.Tensor, weights: DiceWeights) -> torch.Tensor:
    """Dice with given statistics."""
    normal_XC = F.batch_norm(hidden_XC, weights.mean_C, weights.var_C, None, None, False, 0.0, weights.eps)
    return dice_gate(hidden_XC, normal_XC, weights.alpha_C)


def activation_weights(hidden_XC: torch.Tensor, weights: AttentionWeights) -> torch.Tensor:
    """The rest of the feed-forward network a(·) after its first layer; [X], not normalised."""
    hidden_XE = F.linear(dice(hidden_XC, weights.dice1), weights.weight2_EC, weights.bias2_E)
    return F.linear(dice(hidden_XE, weights.dice2), weights.weight3_1E, weights.bias3_1).squeeze(1)


def target_attention(
    history_JD: torch.Tensor, lengths_B: torch.Tensor, query_BD: torch.Tensor, weights: AttentionWeights
) -> torch.Tensor:
    """Eq. 19 with one query per row; [B, D]."""
    row_J = row_index(lengths_B, history_JD.shape[0])
    hidden_JC = first_layer(history_JD, query_BD, row_J, weights.weight1_C4D, weights.bias1_C)
    return weighted_sum(history_JD, activation_weights(hidden_JC, weights), row_J, lengths_B.shape[0])
