"""Inputs on which SyncBatchNorm and nn.BatchNorm1d are compared."""

import torch
from torch import nn

NORM_SPLITS = {"equal": [6], "unequal": [11], "empty rank": [12], "with positions": [5], "far from zero": [4], "no momentum": [7]}
"""Name -> first row of the second rank; 12 rows."""


def norm_inputs(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows [12, 3] or [12, 3, 2], and the gradient that comes back for them."""
    random = torch.Generator().manual_seed(len(name))
    shape = (12, 3, 2) if name == "with positions" else (12, 3)
    offset = 1000.0 if name == "far from zero" else 0.5
    return torch.randn(shape, generator=random) + offset, torch.randn(shape, generator=random)


def run_norm(norm: nn.BatchNorm1d, rows: torch.Tensor, gradient: torch.Tensor) -> dict:
    """Two training steps, the second one's gradients, then eval mode."""
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([0.5, 1.0, 2.0]))
        norm.bias.copy_(torch.tensor([0.0, -1.0, 1.0]))
    norm.train()
    norm(rows * 2)
    leaf = rows.clone().requires_grad_()
    output = norm(leaf)
    output.backward(gradient)
    norm.eval()
    return {
        "output": output.detach(),
        "input_gradient": leaf.grad,
        "weight_gradient": norm.weight.grad,
        "bias_gradient": norm.bias.grad,
        "eval_output": norm(rows).detach(),
        "state": {name: value.clone() for name, value in norm.state_dict().items()},
    }
