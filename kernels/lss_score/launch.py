"""The scorer's kernels as PyTorch operators: `crosstower::lss_score` with its gradient, `lss_stored_scores`, `lss_stored_top`."""

# X pairs, U user heads, V item heads, P head width, D scorer width, B requests, N user vectors of a request, M items,
# K candidates of a request, T best of them

from collections.abc import Sequence
from typing import Any

import torch
import triton
from torch.library import triton_op

from kernels.interpreter import launchable
from kernels.lss_score.triton_kernel import backward_kernel, forward_kernel
from kernels.lss_score.triton_serving import score_kernel, top_kernel

FORWARD_PAIRS = 32
BACKWARD_PAIRS = 16
"""Pairs of a tile; backward keeps twice the matrices, and more pairs would not fit a thread's registers."""
STORED_PAIRS = 16
"""Candidates of a tile: few, so that one request's 2,000 keep a GPU's 132 multiprocessors busy."""
MAX_CHUNK = 2048
"""Scores that one program sorts at once."""


def _constants(user_XUP: torch.Tensor, num_item_heads: int, dim: int) -> dict[str, int]:
    _, num_user_heads, width = user_XUP.shape[-3:]
    return {
        "U": num_user_heads,
        "V": num_item_heads,
        "P": width,
        "D": dim,
        "BLOCK_P": triton.next_power_of_2(width),
        "BLOCK_D": triton.next_power_of_2(dim),
    }


@triton_op("crosstower::lss_score", mutates_args={})
def score_pairs(
    user_XUP: torch.Tensor,
    item_XVP: torch.Tensor,
    weight1_DV: torch.Tensor,
    bias1_D: torch.Tensor,
    weight2_DU: torch.Tensor,
    bias2_D: torch.Tensor,
    weight3_DD: torch.Tensor,
) -> torch.Tensor:
    """[X] logits of contiguous head vectors, in their type."""
    num_pairs = user_XUP.shape[0]
    out_X = user_XUP.new_empty(num_pairs)
    launchable(forward_kernel)[((num_pairs + FORWARD_PAIRS - 1) // FORWARD_PAIRS,)](
        user_XUP,
        item_XVP,
        weight1_DV,
        bias1_D,
        weight2_DU,
        bias2_D,
        weight3_DD,
        out_X,
        num_pairs,
        **_constants(user_XUP, item_XVP.shape[1], weight3_DD.shape[0]),
        BLOCK_R=FORWARD_PAIRS,
    )
    return out_X


@triton_op("crosstower::lss_score_backward", mutates_args={})
def score_pairs_backward(
    user_XUP: torch.Tensor,
    item_XVP: torch.Tensor,
    weight1_DV: torch.Tensor,
    bias1_D: torch.Tensor,
    weight2_DU: torch.Tensor,
    bias2_D: torch.Tensor,
    weight3_DD: torch.Tensor,
    grad_X: torch.Tensor,
) -> list[torch.Tensor]:
    """Gradients of both vectors and of each weight. A weight's is summed over the tiles in a fixed order, so it is reproducible."""
    num_pairs, weights = user_XUP.shape[0], [weight1_DV, bias1_D, weight2_DU, bias2_D, weight3_DD]
    num_tiles = (num_pairs + BACKWARD_PAIRS - 1) // BACKWARD_PAIRS
    grad_user_XUP, grad_item_XVP = torch.empty_like(user_XUP), torch.empty_like(item_XVP)
    parts = [weight.new_empty((num_tiles, *weight.shape), dtype=torch.float32) for weight in weights]
    launchable(backward_kernel)[(num_tiles,)](
        user_XUP,
        item_XVP,
        *weights,
        grad_X,
        grad_user_XUP,
        grad_item_XVP,
        *parts,
        num_pairs,
        **_constants(user_XUP, item_XVP.shape[1], weight3_DD.shape[0]),
        BLOCK_R=BACKWARD_PAIRS,
    )
    summed = [part.sum(0).to(weight.dtype) for part, weight in zip(parts, weights, strict=True)]
    return [grad_user_XUP, grad_item_XVP, *summed]


def _save_inputs(ctx: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:  # noqa: ARG001 - PyTorch passes it
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad_X: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return tuple(score_pairs_backward(*ctx.saved_tensors, grad_X.contiguous()))


score_pairs.register_autograd(_backward, setup_context=_save_inputs)


@triton_op("crosstower::lss_stored_scores", mutates_args={})
def score_stored(
    user_BNUP: torch.Tensor,
    vector_MX: torch.Tensor,
    scale_M: torch.Tensor | None,
    index_M: torch.Tensor | None,
    candidate_BK: torch.Tensor,
    weights: Sequence[torch.Tensor],
) -> torch.Tensor:
    """float32 [B, K]; all tensors contiguous, the weights in LSSWeights' order."""
    num_requests, num_candidates = candidate_BK.shape
    score_BK = candidate_BK.new_empty(candidate_BK.shape, dtype=torch.float32)
    launchable(score_kernel)[(num_requests * ((num_candidates + STORED_PAIRS - 1) // STORED_PAIRS),)](
        user_BNUP,
        vector_MX,
        scale_M,
        index_M,
        candidate_BK,
        *weights,
        score_BK,
        num_candidates,
        vector_MX.shape[0],
        user_BNUP.shape[1],
        **_constants(user_BNUP, weights[0].shape[1], weights[1].shape[0]),
        BLOCK_R=STORED_PAIRS,
    )
    return score_BK


@triton_op("crosstower::lss_stored_top", mutates_args={})
def top_stored(
    user_BNUP: torch.Tensor,
    vector_MX: torch.Tensor,
    scale_M: torch.Tensor | None,
    index_M: torch.Tensor | None,
    candidate_BK: torch.Tensor,
    weights: Sequence[torch.Tensor],
    num_top: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """float32 and int64 [B, T], scores and columns of the best."""
    num_requests, num_candidates = candidate_BK.shape
    score_BK = candidate_BK.new_empty(candidate_BK.shape, dtype=torch.float32)
    arrived_B = candidate_BK.new_zeros(num_requests, dtype=torch.int32)
    top_score_BT = candidate_BK.new_empty((num_requests, num_top), dtype=torch.float32)
    top_column_BT = candidate_BK.new_empty((num_requests, num_top), dtype=torch.int64)
    top = max(triton.next_power_of_2(num_top), 2)
    chunk = max(min(triton.next_power_of_2(num_candidates), MAX_CHUNK), top)
    launchable(top_kernel)[(num_requests * ((num_candidates + STORED_PAIRS - 1) // STORED_PAIRS),)](
        user_BNUP,
        vector_MX,
        scale_M,
        index_M,
        candidate_BK,
        *weights,
        score_BK,
        arrived_B,
        top_score_BT,
        top_column_BT,
        num_candidates,
        vector_MX.shape[0],
        user_BNUP.shape[1],
        num_top,
        **_constants(user_BNUP, weights[0].shape[1], weights[1].shape[0]),
        BLOCK_R=STORED_PAIRS,
        CHUNK=chunk,
        TOP=top,
        ONE_CHUNK=chunk >= num_candidates,
    )
    return top_score_BT, top_column_BT
