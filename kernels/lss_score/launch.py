"""The scorer's kernels as PyTorch operators: `crosstower::lss_score` with its gradient, `lss_stored_scores`, `lss_stored_top`."""

# X pairs, U user heads, V item heads, P head width, D scorer width, B requests, N user vectors of a request, M items,
# K candidates of a request, T best of them

from collections.abc import Sequence
from typing import Any

import torch
import triton
from torch.library import triton_op

from kernels.interpreter import INTERPRETED, run_kernel
from kernels.lss_score.triton_kernel import backward_kernel, forward_kernel
from kernels.lss_score.triton_serving import rank_kernel, score_kernel

SMALL_TILE = {"BLOCK_R": 16, "BLOCK_I": 16, "PIECES": 1, "num_warps": 4}
"""Pairs of a tile, rows of S'' at once and pieces whose heads are loaded in turn, where there are few pairs: one request's 2,000
then keep 125 multiprocessors busy, and all weights are on their way at the same time."""
LARGE_TILE = {"BLOCK_R": 128, "BLOCK_I": 1, "PIECES": 4, "num_warps": 4}
"""Where there are many: each thread has a pair of its own, which halves the instructions of a pair."""
SIXTEEN_BIT_TILE = {"BLOCK_R": 256, "BLOCK_I": 1, "PIECES": 4, "num_warps": 8}
"""For many stored rows of 16-bit numbers."""
STORED_TILES = {
    torch.float32: {"BLOCK_R": 64, "BLOCK_I": 1, "PIECES": 2, "num_warps": 4},
    torch.float16: SIXTEEN_BIT_TILE,
    torch.bfloat16: SIXTEEN_BIT_TILE,
}
"""Type of stored vectors -> the tile for many of them, where LARGE_TILE is slower (measured on an H100, see README.md)."""
MANY_PAIRS = 32_768
"""Pairs from which large tiles are worth while: an H100's multiprocessors then have one or two each."""
PROGRAMS = 528
"""Programs that share the large tiles of a few hundred requests, four a multiprocessor of an H100, two of which run at once."""
TILES_PER_PROGRAM = 8
"""At most, one after another: a request's user vectors then stay in L1."""
BACKWARD_PAIRS = 16
"""Backward keeps twice the matrices, and more pairs would not fit a thread's registers."""
RANK_TILE = {"BLOCK_R": 16, "num_warps": 4}
"""Candidates that one program ranks: one request's 2,000 then keep 125 multiprocessors busy."""
MAX_CHUNK = 2048
"""Scores that a program of rank_kernel compares its own with at once."""
MAX_RANKED, MAX_COMPARISONS = 8192, 2**31
"""Candidates of a request, and comparisons in all, up to which ranks are counted, each score against each; else torch sorts. An
H100 takes 250 µs for 2^30 comparisons."""
OVERLAP_OPTIONS = {"launch_pdl": True}
"""Launch option of rank_kernel: its programs are put in place while the scores are computed (programmatic dependent launch)."""


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


def _are_many(num_pairs: int) -> bool:
    """Whether large tiles are worth while; not where the number is symbolic (torch.export)."""
    return isinstance(num_pairs, int) and num_pairs >= MANY_PAIRS


def _stored_tile(num_requests: int, num_candidates: int, vector_type: torch.dtype) -> dict[str, int]:
    """The tile for stored items: a large one for many pairs, where one request's candidates fill it."""
    tile = STORED_TILES.get(vector_type, LARGE_TILE)
    return tile if _are_many(num_requests * num_candidates) and num_candidates >= tile["BLOCK_R"] else SMALL_TILE


def _tiles_per_program(num_requests: int, num_candidates: int, tile: dict[str, int]) -> int:
    """Tiles of one request that a program scores: 1 of small ones, of large ones so many that PROGRAMS do them all, if allowed."""
    if tile is SMALL_TILE:
        return 1
    num_tiles = -(-num_candidates // tile["BLOCK_R"])
    return min(TILES_PER_PROGRAM, -(-num_tiles // max(1, PROGRAMS // num_requests)))


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
    tile = LARGE_TILE if _are_many(num_pairs) else SMALL_TILE
    out_X = user_XUP.new_empty(num_pairs)
    run_kernel(
        forward_kernel,
        ((num_pairs + tile["BLOCK_R"] - 1) // tile["BLOCK_R"],),
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
        **tile,
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
    run_kernel(
        backward_kernel,
        (num_tiles,),
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
    return _scores(user_BNUP, vector_MX, scale_M, index_M, candidate_BK, weights, keys=False, overlap=False)


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
    ranked = _ranked(num_requests, num_candidates)
    overlap = ranked and _overlaps(candidate_BK)
    score_BK = _scores(user_BNUP, vector_MX, scale_M, index_M, candidate_BK, weights, keys=ranked, overlap=overlap)
    if not ranked:
        sorted_BK, column_BK = torch.sort(score_BK, dim=1, descending=True, stable=True)
        return sorted_BK[:, :num_top].contiguous(), column_BK[:, :num_top].contiguous()
    top_score_BT = candidate_BK.new_empty((num_requests, num_top), dtype=torch.float32)
    top_column_BT = candidate_BK.new_empty((num_requests, num_top), dtype=torch.int64)
    run_kernel(
        rank_kernel,
        (num_requests * ((num_candidates + RANK_TILE["BLOCK_R"] - 1) // RANK_TILE["BLOCK_R"]),),
        score_BK,
        top_score_BT,
        top_column_BT,
        num_candidates,
        num_top,
        **RANK_TILE,
        CHUNK=min(triton.next_power_of_2(num_candidates), MAX_CHUNK) if isinstance(num_candidates, int) else MAX_CHUNK,
        OVERLAP=overlap,
        **(OVERLAP_OPTIONS if overlap else {}),
    )
    return top_score_BT, top_column_BT


def _ranked(num_requests: int, num_candidates: int) -> bool:
    """Whether ranks are counted; always where a size is symbolic (torch.export)."""
    if not (isinstance(num_requests, int) and isinstance(num_candidates, int)):
        return True
    return num_candidates <= MAX_RANKED and num_requests * num_candidates**2 <= MAX_COMPARISONS


def _overlaps(candidate_BK: torch.Tensor) -> bool:
    """Whether rank_kernel's programs may be put in place while the scores are computed.

    Not before Hopper, which has the instructions, and only in a plain call: a traced one (torch.export, torch.compile), whose
    tensors are of other types, cannot carry the launch option.
    """
    plain = type(candidate_BK) is torch.Tensor and candidate_BK.is_cuda and not INTERPRETED
    return plain and torch.cuda.get_device_capability(candidate_BK.device) >= (9, 0)


def _scores(
    user_BNUP: torch.Tensor,
    vector_MX: torch.Tensor,
    scale_M: torch.Tensor | None,
    index_M: torch.Tensor | None,
    candidate_BK: torch.Tensor,
    weights: Sequence[torch.Tensor],
    *,
    keys: bool,
    overlap: bool,
) -> torch.Tensor:
    """float32 [B, K], or their int32 order; `overlap`: rank_kernel follows, and its programs may be put in place."""
    num_requests, num_candidates = candidate_BK.shape
    tile = _stored_tile(num_requests, num_candidates, vector_MX.dtype)
    num_tiles = _tiles_per_program(num_requests, num_candidates, tile)
    share = tile["BLOCK_R"] * num_tiles
    score_BK = candidate_BK.new_empty(candidate_BK.shape, dtype=torch.int32 if keys else torch.float32)
    run_kernel(
        score_kernel,
        (num_requests * ((num_candidates + share - 1) // share),),
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
        num_tiles,
        **_constants(user_BNUP, weights[0].shape[1], weights[1].shape[0]),
        **tile,
        KEYS=keys,
        OVERLAP=overlap,
    )
    return score_BK
