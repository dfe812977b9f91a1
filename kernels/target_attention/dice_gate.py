"""Dice's gate with a backward pass of its own: it reads and writes each large tensor once."""

# X rows (history positions), C channels

import torch
from torch.autograd.function import FunctionCtx, once_differentiable

CPU_ROWS = 1024
"""Rows per step on a CPU, so that the temporaries of a step stay in the cache."""


class DiceGate(torch.autograd.Function):
    """s·(α + (1 − α)·sigmoid(n)) for s [X, C], its normalised form n [X, C] and α [C].

    Autograd's own backward takes about ten passes over [X, C]; at FIT's batch of 2048 rows of 50 behaviours those passes, not the
    matrix products, are what a training step waits for on a CPU.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, hidden_XC: torch.Tensor, normal_XC: torch.Tensor, alpha_C: torch.Tensor) -> torch.Tensor:
        """[X, C] in the type of hidden_XC."""
        gate_XC, out_XC = torch.empty_like(normal_XC), torch.empty_like(hidden_XC)
        ctx.save_for_backward(hidden_XC, gate_XC, alpha_C)
        rows = _rows_per_step(hidden_XC)
        slope_C = 1 - alpha_C
        for hidden, normal, gate, out in zip(
            hidden_XC.split(rows), normal_XC.split(rows), gate_XC.split(rows), out_XC.split(rows), strict=True
        ):
            torch.sigmoid(normal, out=gate)
            torch.mul(torch.addcmul(alpha_C, slope_C, gate), hidden, out=out)
        return out_XC

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad_XC: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Gradients of s, n and α."""
        hidden_XC, gate_XC, alpha_C = ctx.saved_tensors
        grad_hidden_XC, grad_normal_XC = torch.empty_like(hidden_XC), torch.empty_like(gate_XC)
        grad_alpha_C = torch.zeros_like(alpha_C)
        rows = _rows_per_step(hidden_XC)
        slope_C = 1 - alpha_C
        for hidden, gate, grad, grad_hidden, grad_normal in zip(
            hidden_XC.split(rows),
            gate_XC.split(rows),
            grad_XC.split(rows),
            grad_hidden_XC.split(rows),
            grad_normal_XC.split(rows),
            strict=True,
        ):
            torch.mul(torch.addcmul(alpha_C, slope_C, gate), grad, out=grad_hidden)
            inactive = grad * hidden
            inactive.addcmul_(inactive, gate, value=-1)  # g·s·(1 − p): α's share; times p·(1 − α) it is n's
            grad_alpha_C += inactive.sum(0, dtype=grad_alpha_C.dtype)
            torch.mul(inactive.mul_(gate), slope_C, out=grad_normal)
        return grad_hidden_XC, grad_normal_XC, grad_alpha_C


def _rows_per_step(hidden_XC: torch.Tensor) -> int:
    return CPU_ROWS if hidden_XC.device.type == "cpu" else max(1, hidden_XC.shape[0])
