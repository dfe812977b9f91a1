"""The cross-entropy over the catalogue as PyTorch operators: `crosstower::item_softmax` with its gradients."""

# B rows, M items of the catalogue, C vector width, S shares of the catalogue

from typing import Any

import torch
import triton
from torch.library import triton_op

from kernels.interpreter import MIN_DOT, run_kernel
from kernels.item_softmax.triton_kernel import forward_kernel, item_kernel, user_kernel

BLOCK_ROWS = 64
BLOCK_ITEMS = 64
GRADIENT_ITEMS = 32
"""Items of a tile in both gradients, and rows in the items': with 64, registers would spill."""
MAX_WIDTH = 128
"""Of the vectors: tiles of the next power of 2 would not fit an H100's shared memory."""
PROGRAMS = 264
"""Programs that keep a GPU busy, two a multiprocessor of an H100; where tiles of rows are fewer, they share the catalogue out."""
MIN_SHARE = 256
"""Items of a share, at least."""


def _constants(user_BC: torch.Tensor, item_MC: torch.Tensor) -> dict[str, object]:
    width = user_BC.shape[1]
    # TF32 holds a 16-bit number exactly; float32 in three parts keeps the reference's precision on tensor cores
    precision = "tf32x3" if torch.float32 in (user_BC.dtype, item_MC.dtype) else "tf32"
    blocks = {"BLOCK_B": BLOCK_ROWS, "BLOCK_M": BLOCK_ITEMS, "BLOCK_C": max(MIN_DOT, triton.next_power_of_2(width))}
    return {"C": width, **blocks, "PRECISION": precision}


def _shares(num_rows: int, num_items: int) -> tuple[int, int]:
    """Shares of the catalogue, and items of each."""
    tiles = max(1, (num_rows + BLOCK_ROWS - 1) // BLOCK_ROWS)
    wanted = (PROGRAMS + tiles - 1) // tiles
    size = max(MIN_SHARE, (num_items + wanted - 1) // wanted)
    size = (size + BLOCK_ITEMS - 1) // BLOCK_ITEMS * BLOCK_ITEMS
    return (num_items + size - 1) // size, size


@triton_op("crosstower::item_softmax", mutates_args={})
def cross_entropy(
    user_BC: torch.Tensor, item_MC: torch.Tensor, target_B: torch.Tensor, log_q_M: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss and log-sum-exp, float32 [B]; inputs contiguous."""
    num_rows, num_items = user_BC.shape[0], item_MC.shape[0]
    num_shares, share = _shares(num_rows, num_items)
    part_SB = user_BC.new_empty((num_shares, num_rows), dtype=torch.float32)
    positive_B = user_BC.new_full((num_rows,), torch.nan, dtype=torch.float32)
    run_kernel(
        forward_kernel,
        ((num_rows + BLOCK_ROWS - 1) // BLOCK_ROWS, num_shares),
        user_BC,
        item_MC,
        target_B,
        log_q_M,
        part_SB,
        positive_B,
        num_rows,
        num_items,
        share,
        **_constants(user_BC, item_MC),
    )
    logsumexp_B = part_SB.logsumexp(0)
    return logsumexp_B - positive_B, logsumexp_B


@triton_op("crosstower::item_softmax_user_gradient", mutates_args={})
def user_gradient(
    user_BC: torch.Tensor,
    item_MC: torch.Tensor,
    target_B: torch.Tensor,
    log_q_M: torch.Tensor | None,
    logsumexp_B: torch.Tensor,
    grad_B: torch.Tensor,
) -> torch.Tensor:
    """[B, C], summed over the shares in a fixed order."""
    num_rows, num_items = user_BC.shape[0], item_MC.shape[0]
    num_shares, share = _shares(num_rows, num_items)
    part_SBC = user_BC.new_empty((num_shares, *user_BC.shape), dtype=torch.float32)
    inputs = (user_BC, item_MC, target_B, log_q_M, logsumexp_B, grad_B)
    constants = {**_constants(user_BC, item_MC), "BLOCK_M": GRADIENT_ITEMS}
    run_kernel(
        user_kernel,
        ((num_rows + BLOCK_ROWS - 1) // BLOCK_ROWS, num_shares),
        *inputs,
        part_SBC,
        num_rows,
        num_items,
        share,
        **constants,
    )
    return part_SBC.sum(0).to(user_BC.dtype)


@triton_op("crosstower::item_softmax_item_gradient", mutates_args={})
def item_gradient(
    user_BC: torch.Tensor,
    item_MC: torch.Tensor,
    target_B: torch.Tensor,
    log_q_M: torch.Tensor | None,
    logsumexp_B: torch.Tensor,
    grad_B: torch.Tensor,
) -> torch.Tensor:
    """[M, C]."""
    num_rows, num_items = user_BC.shape[0], item_MC.shape[0]
    grad_item_MC = torch.empty_like(item_MC)
    inputs = (user_BC, item_MC, target_B, log_q_M, logsumexp_B, grad_B)
    constants = {**_constants(user_BC, item_MC), "BLOCK_B": GRADIENT_ITEMS, "BLOCK_M": GRADIENT_ITEMS}
    run_kernel(
        item_kernel, ((num_items + GRADIENT_ITEMS - 1) // GRADIENT_ITEMS,), *inputs, grad_item_MC, num_rows, num_items, **constants
    )
    return grad_item_MC


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor]) -> None:
    ctx.save_for_backward(*inputs, output[1])
    ctx.mark_non_differentiable(output[1])


def _gradients(
    ctx: Any,
    grad_B: torch.Tensor,
    _: torch.Tensor,
) -> tuple[torch.Tensor | None, torch.Tensor | None, None, None]:
    inputs = (*ctx.saved_tensors, grad_B.contiguous())
    need_user, need_item = ctx.needs_input_grad[:2]
    return user_gradient(*inputs) if need_user else None, item_gradient(*inputs) if need_item else None, None, None


cross_entropy.register_autograd(_gradients, setup_context=_save)
