"""Cross-entropy over the whole catalogue (T2Diff eq. 24): the public function checks shapes and calls a backend."""

# B rows, M items of the catalogue, C vector width

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from kernels.dispatch import Backend, unsupported_type, uses_triton
from kernels.item_softmax import launch, reference
from kernels.item_softmax.reference import accumulation_type

__all__ = ["accumulation_type", "item_softmax"]


def item_softmax(
    user_BC: torch.Tensor,
    item_MC: torch.Tensor,
    target_B: torch.Tensor,
    *,
    chunk_items: int,
    log_q_M: torch.Tensor | None = None,
    backend: Backend = "auto",
) -> torch.Tensor:
    """-log softmax over the whole catalogue of each row's target, exact, with u·v − log q as the score.

    The [B, M] scores never exist as a whole: forward keeps one log-sum-exp per row and backward computes the scores again, chunk by
    chunk. Arithmetic is in float32 (float64 for float64 vectors), outside autocast; gradients come in the vectors' own types.

    Args:
        user_BC: user vectors, float [B, C].
        item_MC: vectors of the whole catalogue, float [M, C].
        target_B: int64 [B], the row of `item_MC` that each user chose. Checked on a CPU; on a GPU that would wait for the device,
            so there the loss of a row whose target is out of range is NaN.
        chunk_items: items whose scores the reference holds at once. On a CPU 512 keeps them in the cache, which is faster than all
            at once; a GPU wants few, large chunks. The kernel has its own tiles.
        log_q_M: float [M], subtracted from each item's scores, the target's included: log of how often the item is drawn, where
            `item_MC` are draws (Yi et al. 2019). None: no correction. It gets no gradient.
        backend: auto, torch or triton, see kernels.dispatch.

    Returns:
        float32 [B] (float64 for float64 vectors), once differentiable.

    Raises:
        ValueError: shapes disagree, chunk_items is below 1, a target is out of range, or the backend cannot run.
    """
    _check(user_BC, item_MC, target_B, log_q_M, chunk_items)
    if uses_triton(backend, user_BC, unsupported=_unsupported(user_BC, item_MC)):
        log_q_M = None if log_q_M is None else log_q_M.detach().contiguous()
        return launch.cross_entropy(user_BC.contiguous(), item_MC.contiguous(), target_B.contiguous(), log_q_M)[0]
    return _ReferenceSoftmax.apply(user_BC, item_MC, target_B, log_q_M, chunk_items)


def _unsupported(user_BC: torch.Tensor, item_MC: torch.Tensor) -> str | None:
    """Why the kernel cannot take these vectors; None where it can."""
    if user_BC.shape[1] > launch.MAX_WIDTH:
        return f"vectors have width {user_BC.shape[1]} and the kernel's have at most {launch.MAX_WIDTH}"
    return unsupported_type(user_BC, item_MC)


def _check(
    user_BC: torch.Tensor, item_MC: torch.Tensor, target_B: torch.Tensor, log_q_M: torch.Tensor | None, chunk_items: int
) -> None:
    if user_BC.dim() != 2 or item_MC.dim() != 2 or user_BC.shape[1] != item_MC.shape[1] or target_B.shape != user_BC.shape[:1]:
        shapes = f"users {tuple(user_BC.shape)}, items {tuple(item_MC.shape)}, targets {tuple(target_B.shape)}"
        raise ValueError(f"{shapes}: expected [B, C], [M, C], [B]")
    if log_q_M is not None and log_q_M.shape != item_MC.shape[:1]:
        raise ValueError(f"log_q_M has shape {tuple(log_q_M.shape)}, expected one entry per item, [{item_MC.shape[0]}]")
    if chunk_items < 1 or item_MC.shape[0] < 1:
        raise ValueError(f"chunk_items={chunk_items} of {item_MC.shape[0]} items, expected at least 1 of each")
    if target_B.device.type == "cpu":
        wrong_B = (target_B < 0) | (target_B >= item_MC.shape[0])
        if bool(wrong_B.any()):
            row = int(wrong_B.nonzero()[0])
            raise ValueError(f"target_B[{row}]={int(target_B[row])}, expected an item in [0, {item_MC.shape[0]})")


class _ReferenceSoftmax(torch.autograd.Function):
    """The reference with its gradients; autograd alone would keep the scores of every chunk."""

    @staticmethod
    def forward(
        ctx: Any,
        user_BC: torch.Tensor,
        item_MC: torch.Tensor,
        target_B: torch.Tensor,
        log_q_M: torch.Tensor | None,
        chunk_items: int,
    ) -> torch.Tensor:
        with torch.autocast(user_BC.device.type, enabled=False):
            logsumexp_B, positive_B = reference.forward(user_BC, item_MC, target_B, log_q_M, chunk_items)
        ctx.save_for_backward(user_BC, item_MC, target_B, log_q_M, logsumexp_B)
        ctx.chunk_items = chunk_items
        return logsumexp_B - positive_B

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_B: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None, None, None]:
        *inputs, logsumexp_B = ctx.saved_tensors
        need_user, need_item = ctx.needs_input_grad[:2]
        with torch.autocast(grad_B.device.type, enabled=False):
            grad_user_BC, grad_item_MC = reference.backward(tuple(inputs), logsumexp_B, grad_B, ctx.chunk_items)
        return grad_user_BC if need_user else None, grad_item_MC if need_item else None, None, None, None
