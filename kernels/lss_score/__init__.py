"""The lightweight similarity scorer (FIT eq. 13-16): public functions, which check shapes and call a backend."""

# B any leading dimensions (score_stored, top_stored: requests), U user heads, V item heads, P head width, D scorer width,
# N user vectors of a request, K candidates of a request, M items

import torch

from kernels.dispatch import unsupported_gradient, unsupported_type, uses_triton
from kernels.lss_score import launch, reference, reference_serving
from kernels.lss_score.types import LSSWeights, StoredItems, TopCandidates

__all__ = ["LSSWeights", "StoredItems", "TopCandidates", "lss_score", "score_stored", "top_stored", "unsupported"]


def lss_score(
    user_BUP: torch.Tensor,
    item_BVP: torch.Tensor,
    weight1_DV: torch.Tensor,
    bias1_D: torch.Tensor,
    weight2_DU: torch.Tensor,
    bias2_D: torch.Tensor,
    weight3_DD: torch.Tensor,
    backend: str = "auto",
) -> torch.Tensor:
    """Score users against items by their head vectors.

    Args:
        user_BUP: [..., U, P]; leading dimensions broadcast against the item's.
        item_BVP: [..., V, P].
        weight1_DV: [D, V], W1 of eq. 14 on each row of the U×V similarity matrix.
        bias1_D: [D], b1.
        weight2_DU: [D, U], W2 of eq. 15 on each column of the U×D matrix S'.
        bias2_D: [D], b2.
        weight3_DD: [D, D], w of eq. 16 in the layout of S'': entry [i, j] weighs S''_ij.
        backend: auto, torch or triton, see kernels.dispatch.

    Returns:
        [...], one logit per pair; the kernel is once differentiable.

    Raises:
        ValueError: shapes do not fit together, or the backend cannot run.
    """
    if not torch.jit.is_scripting():
        weights = LSSWeights(weight1_DV, bias1_D, weight2_DU, bias2_D, weight3_DD)
        _check_vectors(user_BUP, item_BVP)
        _check_weights(weights, user_heads=user_BUP.shape[-2], item_heads=item_BVP.shape[-2])
        if uses_triton(backend, user_BUP, unsupported=unsupported_type(user_BUP, item_BVP, *weights)):
            return _fused(user_BUP, item_BVP, weights)
    return reference.lss_score(user_BUP, item_BVP, weight1_DV, bias1_D, weight2_DU, bias2_D, weight3_DD)


def score_stored(
    user_BNUP: torch.Tensor, items: StoredItems, candidate_BK: torch.Tensor, weights: LSSWeights, backend: str = "auto"
) -> torch.Tensor:
    """Score each request's candidates, each against the user vector that its stored index picks (FIT section 4.3.2). No gradient.

    Args:
        user_BNUP: [B, N, U, P], each request's user under every hard query.
        items: the item store.
        candidate_BK: int64 [B, K], rows of the store; -1 where a request has fewer candidates.
        weights: the scorer's.
        backend: auto, torch or triton, see kernels.dispatch.

    Returns:
        float32 [B, K]; -inf for -1. A candidate that is no row of the store, or whose index is no user vector, raises in the
        reference on a CPU and is NaN in the kernel, which would have to wait for the device.

    Raises:
        ValueError: shapes do not fit together, or the backend cannot run.
    """
    if not torch.jit.is_scripting():
        _check_store(user_BNUP, items, candidate_BK, weights)
        if uses_triton(backend, user_BNUP, unsupported=unsupported(user_BNUP, weights)):
            return launch.score_stored(*_contiguous(user_BNUP, items, candidate_BK, weights))
    return reference_serving.score_stored(user_BNUP, items, candidate_BK, weights)


def top_stored(
    user_BNUP: torch.Tensor,
    items: StoredItems,
    candidate_BK: torch.Tensor,
    weights: LSSWeights,
    num_top: int,
    backend: str = "auto",
) -> TopCandidates:
    """The best `num_top` candidates of each request by `score_stored`, whose arguments these are. No gradient.

    Returns:
        Scores and columns [B, num_top], best first, equal scores from left to right; absent candidates (-inf) come last.

    Raises:
        ValueError: as score_stored, or num_top is not in [1, K].
    """
    if not torch.jit.is_scripting():
        _check_store(user_BNUP, items, candidate_BK, weights)
        if not 1 <= num_top <= candidate_BK.shape[1]:
            raise ValueError(f"num_top={num_top} of {candidate_BK.shape[1]} candidates, expected at least 1 and at most all")
        if uses_triton(backend, user_BNUP, unsupported=unsupported(user_BNUP, weights)):
            return TopCandidates(*launch.top_stored(*_contiguous(user_BNUP, items, candidate_BK, weights), num_top))
    return reference_serving.top_stored(user_BNUP, items, candidate_BK, weights, num_top)


def unsupported(user_BNUP: torch.Tensor, weights: LSSWeights) -> str | None:
    """Why the kernels for stored items cannot take these; None where they can."""
    return unsupported_gradient(user_BNUP, *weights) or unsupported_type(user_BNUP, *weights)


def _fused(user_BUP: torch.Tensor, item_BVP: torch.Tensor, weights: LSSWeights) -> torch.Tensor:
    dtype = torch.promote_types(user_BUP.dtype, item_BVP.dtype)
    leading = torch.broadcast_shapes(user_BUP.shape[:-2], item_BVP.shape[:-2])
    flat = [
        tensor.to(dtype).expand(*leading, *tensor.shape[-2:]).reshape(-1, *tensor.shape[-2:]).contiguous()
        for tensor in (user_BUP, item_BVP)
    ]
    return launch.score_pairs(*flat, *[weight.contiguous() for weight in weights]).reshape(leading)


def _contiguous(
    user_BNUP: torch.Tensor, items: StoredItems, candidate_BK: torch.Tensor, weights: LSSWeights
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor | None, torch.Tensor, list[torch.Tensor]]:
    scale_M, index_M = (None if tensor is None else tensor.contiguous() for tensor in (items.scale_M, items.index_M))
    flat = [weight.contiguous() for weight in weights]
    return user_BNUP.contiguous(), items.vector_MX.contiguous(), scale_M, index_M, candidate_BK.contiguous(), flat


def _check_vectors(user_BUP: torch.Tensor, item_BVP: torch.Tensor) -> None:
    if user_BUP.dim() < 2 or item_BVP.dim() < 2 or user_BUP.shape[-1] != item_BVP.shape[-1]:
        raise ValueError(
            f"user_BUP has shape {tuple(user_BUP.shape)} and item_BVP {tuple(item_BVP.shape)}, expected [..., U, P] and [..., V, P]"
        )


def _check_weights(weights: LSSWeights, *, user_heads: int, item_heads: int) -> None:
    dim = weights.weight3_DD.shape[0]
    shapes = ((dim, item_heads), (dim,), (dim, user_heads), (dim,), (dim, dim))
    for name, tensor, shape in zip(LSSWeights._fields, weights, shapes, strict=True):
        if tuple(tensor.shape) != shape:
            raise ValueError(
                f"{name} has shape {tuple(tensor.shape)}, expected {shape}: {user_heads} user heads, {item_heads} item heads"
            )


def _check_store(user_BNUP: torch.Tensor, items: StoredItems, candidate_BK: torch.Tensor, weights: LSSWeights) -> None:
    vector_MX = items.vector_MX
    if user_BNUP.dim() != 4 or vector_MX.dim() != 2 or vector_MX.shape[1] % user_BNUP.shape[3] != 0:
        raise ValueError(
            f"user_BNUP has shape {tuple(user_BNUP.shape)} and vector_MX {tuple(vector_MX.shape)}, "
            "expected [B, N, U, P] and [M, V·P]"
        )
    if candidate_BK.dim() != 2 or candidate_BK.shape[0] != user_BNUP.shape[0]:
        raise ValueError(f"candidate_BK has shape {tuple(candidate_BK.shape)}, expected [{user_BNUP.shape[0]}, K]")
    if (vector_MX.dtype == torch.int8) != (items.scale_M is not None):
        raise ValueError(
            f"rows of {vector_MX.dtype} {'with' if items.scale_M is not None else 'without'} scales: int8 alone has them"
        )
    for name, tensor in (("scale_M", items.scale_M), ("index_M", items.index_M)):
        if tensor is not None and tensor.shape != vector_MX.shape[:1]:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected one entry per item, [{vector_MX.shape[0]}]")
    _check_weights(weights, user_heads=user_BNUP.shape[2], item_heads=vector_MX.shape[1] // user_BNUP.shape[3])
