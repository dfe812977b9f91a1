"""The activation unit's kernels as PyTorch operators: `crosstower::target_attention` with its gradient, `…_all`, `dice_gate`."""

# B rows, J history positions of the batch, D width of a position, C and E hidden widths, N queries, X activations, Y programs

from collections.abc import Sequence
from typing import Any

import torch
import triton
from torch.library import triton_op

from kernels.interpreter import MIN_DOT, run_kernel
from kernels.target_attention.triton_dice import gate_backward_kernel, gate_kernel
from kernels.target_attention.triton_kernel import backward_kernel, forward_kernel

FORWARD = {"BLOCK_L": 32, "ROWS": 4, "num_warps": 8}
BACKWARD = {"BLOCK_L": 16, "ROWS": 16, "num_warps": 8, "num_stages": 1}
"""Positions of a tile, as many as registers hold, and rows of a program: weights are loaded once for all of them, and backward
writes one share of their gradients for all."""
MAX_WEIGHTS = 128 * 64 + 64 * 16
"""Numbers in the tiles of W4 and W2: with D = 128, C = 64, E = 16 backward takes 168 KB of an H100's 227 KB of shared memory."""
GATE_NUMBERS = 4096
"""Activations of a tile of the gate."""


def _blocks(dim: int, hidden1_dim: int, hidden2_dim: int) -> dict[str, int]:
    sizes = {"D": dim, "C": hidden1_dim, "E": hidden2_dim}
    return {f"BLOCK_{name}": max(MIN_DOT, triton.next_power_of_2(size)) for name, size in sizes.items()}


def too_wide(dim: int, hidden1_dim: int, hidden2_dim: int) -> str | None:
    """Why the kernel cannot take these widths D, C and E; None where it can."""
    block_d, block_c, block_e = _blocks(dim, hidden1_dim, hidden2_dim).values()
    if block_c * (block_d + block_e) > MAX_WEIGHTS:
        return f"its widths D={dim}, C={hidden1_dim}, E={hidden2_dim} are too large for the kernel: {MAX_WEIGHTS} weights at most"
    return None


def _constants(history_JD: torch.Tensor, hidden1_C: torch.Tensor, hidden2_E: torch.Tensor) -> dict[str, object]:
    widths = history_JD.shape[1], hidden1_C.shape[0], hidden2_E.shape[0]
    # TF32 holds a 16-bit number exactly; float32 in three parts keeps the reference's precision on tensor cores
    precision = "tf32x3" if history_JD.dtype == torch.float32 else "tf32"
    return {**dict(zip("DCE", widths, strict=True)), **_blocks(*widths), "PRECISION": precision}


def _forward(
    history_JD: torch.Tensor,
    offset: torch.Tensor,
    query: torch.Tensor,
    weights: Sequence[torch.Tensor],
    eps: Sequence[float],
    *,
    every: bool,
) -> torch.Tensor:
    """`weights` in the order of the kernel's arguments, from the first layer's base on."""
    num_rows, num_queries = offset.shape[0] - 1, query.shape[0] if every else 1
    out = history_JD.new_empty((num_rows, num_queries, history_JD.shape[1]) if every else (num_rows, history_JD.shape[1]))
    run_kernel(
        forward_kernel,
        ((num_rows + FORWARD["ROWS"] - 1) // FORWARD["ROWS"], num_queries),
        history_JD,
        offset,
        query,
        *weights,
        out,
        num_rows,
        num_queries,
        *eps,
        **_constants(history_JD, weights[3], weights[7]),
        **FORWARD,
        EVERY=every,
    )
    return out


@triton_op("crosstower::target_attention", mutates_args={})
def attend(
    history_JD: torch.Tensor,
    offset: torch.Tensor,
    query_BD: torch.Tensor,
    base_BC: torch.Tensor,
    history_weight_CD: torch.Tensor,
    product_weight_CD: torch.Tensor,
    mean1_C: torch.Tensor,
    var1_C: torch.Tensor,
    alpha1_C: torch.Tensor,
    weight2_EC: torch.Tensor,
    bias2_E: torch.Tensor,
    mean2_E: torch.Tensor,
    var2_E: torch.Tensor,
    alpha2_E: torch.Tensor,
    weight3_1E: torch.Tensor,
    bias3_1: torch.Tensor,
    eps1: float,
    eps2: float,
) -> torch.Tensor:
    """[B, D] in the history's type. `offset` int64 [B + 1]; base is (W2 − W3)·q + b1; history_weight W1 + W3; product_weight W4."""
    dice1, dice2 = (mean1_C, var1_C, alpha1_C), (mean2_E, var2_E, alpha2_E)
    first, rest = (base_BC, history_weight_CD, product_weight_CD), (weight3_1E, bias3_1)
    weights = (*first, *dice1, weight2_EC, bias2_E, *dice2, *rest)
    return _forward(history_JD, offset, query_BD, weights, (eps1, eps2), every=False)


@triton_op("crosstower::target_attention_all", mutates_args={})
def attend_all(
    history_JD: torch.Tensor, offset: torch.Tensor, query_ND: torch.Tensor, weights: Sequence[torch.Tensor], eps: Sequence[float]
) -> torch.Tensor:
    """[B, N, D]: every row by every query; `weights` are attend's, base [N, C] first. No gradient."""
    return _forward(history_JD, offset, query_ND, weights, eps, every=True)


@triton_op("crosstower::target_attention_backward", mutates_args={})
def attend_backward(
    history_JD: torch.Tensor,
    offset: torch.Tensor,
    query_BD: torch.Tensor,
    weights: Sequence[torch.Tensor],
    eps: Sequence[float],
    grad_BD: torch.Tensor,
) -> list[torch.Tensor]:
    """Gradients of history, query, base and of the weights that are learned, summed over the programs in a fixed order."""
    base_BC, history_weight_CD, product_weight_CD, _, _, alpha1_C, weight2_EC, bias2_E, _, _, alpha2_E, weight3_1E, bias3_1 = (
        weights
    )
    learned = (history_weight_CD, product_weight_CD, alpha1_C, weight2_EC, bias2_E, alpha2_E, weight3_1E, bias3_1)
    num_rows = offset.shape[0] - 1
    num_programs = (num_rows + BACKWARD["ROWS"] - 1) // BACKWARD["ROWS"]
    grads = [torch.empty_like(tensor) for tensor in (history_JD, query_BD, base_BC)]
    parts = [weight.new_empty((num_programs, *weight.shape), dtype=torch.float32) for weight in learned]
    run_kernel(
        backward_kernel,
        (num_programs,),
        history_JD,
        offset,
        query_BD,
        *weights,
        grad_BD,
        *grads,
        *parts,
        num_rows,
        *eps,
        **_constants(history_JD, alpha1_C, alpha2_E),
        **BACKWARD,
    )
    return [*grads, *[part.sum(0).to(weight.dtype) for part, weight in zip(parts, learned, strict=True)]]


def _save_inputs(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:  # noqa: ARG001 - PyTorch passes it
    ctx.save_for_backward(*inputs[:16])
    ctx.eps = inputs[16:]


def _attend_gradient(ctx: Any, grad_BD: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    history_JD, offset, query_BD, *weights = ctx.saved_tensors
    grads = attend_backward(history_JD, offset, query_BD, weights, list(ctx.eps), grad_BD.contiguous())
    history, query, base, history_weight, product_weight, alpha1, weight2, bias2, alpha2, weight3, bias3 = grads
    first, second = (base, history_weight, product_weight, None, None, alpha1), (weight2, bias2, None, None, alpha2)
    return history, None, query, *first, *second, weight3, bias3, None, None


attend.register_autograd(_attend_gradient, setup_context=_save_inputs)


def _gate_blocks(num_channels: int) -> dict[str, int]:
    width = triton.next_power_of_2(num_channels)
    return {"C": num_channels, "BLOCK_X": max(1, GATE_NUMBERS // width), "BLOCK_C": width}


@triton_op("crosstower::dice_gate", mutates_args={})
def gate(hidden_XC: torch.Tensor, normal_XC: torch.Tensor, alpha_C: torch.Tensor) -> torch.Tensor:
    """[X, C]; inputs contiguous and of one type but for α."""
    blocks = _gate_blocks(hidden_XC.shape[1])
    out_XC = torch.empty_like(hidden_XC)
    grid = ((hidden_XC.shape[0] + blocks["BLOCK_X"] - 1) // blocks["BLOCK_X"],)
    run_kernel(gate_kernel, grid, hidden_XC, normal_XC, alpha_C, out_XC, hidden_XC.shape[0], **blocks)
    return out_XC


@triton_op("crosstower::dice_gate_backward", mutates_args={})
def gate_backward(
    hidden_XC: torch.Tensor, normal_XC: torch.Tensor, alpha_C: torch.Tensor, grad_XC: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of all three inputs."""
    blocks = _gate_blocks(hidden_XC.shape[1])
    num_programs = (hidden_XC.shape[0] + blocks["BLOCK_X"] - 1) // blocks["BLOCK_X"]
    grad_hidden_XC, grad_normal_XC = torch.empty_like(hidden_XC), torch.empty_like(normal_XC)
    part_YC = alpha_C.new_empty((num_programs, alpha_C.shape[0]), dtype=torch.float32)
    grads = (grad_hidden_XC, grad_normal_XC, part_YC)
    run_kernel(gate_backward_kernel, (num_programs,), hidden_XC, normal_XC, alpha_C, grad_XC, *grads, hidden_XC.shape[0], **blocks)
    return grad_hidden_XC, grad_normal_XC, part_YC.sum(0).to(alpha_C.dtype)


def _save_gate(ctx: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:  # noqa: ARG001 - PyTorch passes it
    ctx.save_for_backward(*inputs)


def _gate_gradient(ctx: Any, grad_XC: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return gate_backward(*ctx.saved_tensors, grad_XC.contiguous())


gate.register_autograd(_gate_gradient, setup_context=_save_gate)
