"""Dice in Triton: with fixed statistics inside other kernels, and the gate that training puts behind a batch norm."""

# X rows (activations of a tile), C channels, Y tiles

import triton
import triton.language as tl

from kernels.interpreter import narrow


@triton.jit
def load_dice(mean, var, alpha, c, C: tl.constexpr, eps):
    """Mean, 1/standard deviation and α as float32 [C]; what is outside C keeps 0 at 0."""
    mean_C = tl.load(mean + c, mask=c < C, other=0.0).to(tl.float32)
    scale_C = 1.0 / tl.sqrt(tl.load(var + c, mask=c < C, other=1.0).to(tl.float32) + eps)
    return mean_C, scale_C, tl.load(alpha + c, mask=c < C, other=0.0).to(tl.float32)


@triton.jit
def gate(normal_XC, alpha_C):
    """α + (1 − α)·p."""
    return alpha_C[None, :] + (1.0 - alpha_C[None, :]) * tl.sigmoid(normal_XC)


@triton.jit
def dice(hidden_XC, weights):
    """s·(p + (1 − p)·α)."""
    mean_C, scale_C, alpha_C = weights
    return hidden_XC * gate((hidden_XC - mean_C[None, :]) * scale_C[None, :], alpha_C)


@triton.jit
def dice_backward(hidden_XC, grad_XC, weights):
    """Gradient of s, and what α's sums up, both [X, C]."""
    mean_C, scale_C, alpha_C = weights
    p_XC = tl.sigmoid((hidden_XC - mean_C[None, :]) * scale_C[None, :])
    through_gate_XC = hidden_XC * (1.0 - alpha_C[None, :]) * p_XC * (1.0 - p_XC) * scale_C[None, :]
    slope_XC = alpha_C[None, :] + (1.0 - alpha_C[None, :]) * p_XC + through_gate_XC
    return grad_XC * slope_XC, grad_XC * hidden_XC * (1.0 - p_XC)


@triton.jit
def gate_kernel(hidden, normal, alpha, out, num_rows, C: tl.constexpr, BLOCK_X: tl.constexpr, BLOCK_C: tl.constexpr):
    """One program per BLOCK_X rows: `hidden` and `normal` [X, C] to `out`."""
    row_X = tl.program_id(0).to(tl.int64) * BLOCK_X + tl.arange(0, BLOCK_X)
    c = tl.arange(0, BLOCK_C)
    offset_XC = row_X[:, None] * C + c[None, :]
    mask_XC = (row_X < num_rows)[:, None] & (c < C)[None, :]
    hidden_XC = tl.load(hidden + offset_XC, mask=mask_XC, other=0.0).to(tl.float32)
    normal_XC = tl.load(normal + offset_XC, mask=mask_XC, other=0.0).to(tl.float32)
    alpha_C = tl.load(alpha + c, mask=c < C, other=0.0).to(tl.float32)
    tl.store(out + offset_XC, narrow(hidden_XC * gate(normal_XC, alpha_C), out.dtype.element_ty), mask=mask_XC)


@triton.jit
def gate_backward_kernel(
    hidden, normal, alpha, grad, grad_hidden, grad_normal, part_alpha, num_rows,
    C: tl.constexpr, BLOCK_X: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Gradients of a tile's rows, and its share of α's, `part_alpha` [Y, C]."""
    row_X = tl.program_id(0).to(tl.int64) * BLOCK_X + tl.arange(0, BLOCK_X)
    c = tl.arange(0, BLOCK_C)
    offset_XC = row_X[:, None] * C + c[None, :]
    mask_XC = (row_X < num_rows)[:, None] & (c < C)[None, :]
    hidden_XC = tl.load(hidden + offset_XC, mask=mask_XC, other=0.0).to(tl.float32)
    p_XC = tl.sigmoid(tl.load(normal + offset_XC, mask=mask_XC, other=0.0).to(tl.float32))
    grad_XC = tl.load(grad + offset_XC, mask=mask_XC, other=0.0).to(tl.float32)
    alpha_C = tl.load(alpha + c, mask=c < C, other=0.0).to(tl.float32)
    closed_XC = grad_XC * (1.0 - alpha_C[None, :])
    grad_hidden_XC = grad_XC * alpha_C[None, :] + closed_XC * p_XC
    grad_normal_XC = closed_XC * hidden_XC * p_XC * (1.0 - p_XC)
    tl.store(grad_hidden + offset_XC, narrow(grad_hidden_XC, grad_hidden.dtype.element_ty), mask=mask_XC)
    tl.store(grad_normal + offset_XC, narrow(grad_normal_XC, grad_normal.dtype.element_ty), mask=mask_XC)
    tl.store(part_alpha + tl.program_id(0) * C + c, tl.sum(grad_XC * hidden_XC * (1.0 - p_XC), 0), mask=c < C)
