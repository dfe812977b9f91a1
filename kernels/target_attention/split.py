"""What the kernels take: jagged rows by their offsets, and the first layer split so that a query folds into it."""

# B rows, J history positions of the batch, D width of a position, C hidden width, Q queries: B or N

import torch
import torch.nn.functional as F

from kernels.target_attention.types import AttentionWeights


def tensors_of(weights: AttentionWeights) -> list[torch.Tensor]:
    """The network's tensors."""
    first, second = weights.dice1[:3], weights.dice2[:3]
    outside = [tensor for tensor in weights if isinstance(tensor, torch.Tensor)]
    return [*outside, *first, *second]


def kernel_inputs(
    history_JD: torch.Tensor, lengths_B: torch.Tensor, query_QD: torch.Tensor, weights: AttentionWeights
) -> tuple[list[torch.Tensor], list[float]]:
    """launch.attend's tensors, differentiable, and Dice's two ε. Autocast should be off: the kernels choose their precision."""
    offset = F.pad(lengths_B.cumsum(0), (1, 0))
    w1_CD, w2_CD, w3_CD, w4_CD = weights.weight1_C4D.chunk(4, dim=1)
    query_QD = query_QD.to(weights.weight1_C4D.dtype)
    base_QC = F.linear(query_QD, w2_CD - w3_CD, weights.bias1_C)
    first = [history_JD, offset, query_QD, base_QC, w1_CD + w3_CD, w4_CD]
    second = [*weights.dice1[:3], weights.weight2_EC, weights.bias2_E]
    third = [*weights.dice2[:3], weights.weight3_1E, weights.bias3_1]
    return [tensor.contiguous() for tensor in (*first, *second, *third)], [weights.dice1.eps, weights.dice2.eps]
