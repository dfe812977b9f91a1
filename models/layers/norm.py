"""Batch normalisation that survives batches too small for statistics, and DIN's data-adaptive activation."""

# X any number of rows (users, items, history positions), C channels

import torch
import torch.nn.functional as F
from torch import nn

from kernels.target_attention import DiceWeights, dice_gate


class BatchNorm(nn.BatchNorm1d):
    """nn.BatchNorm1d on [X, C] that, in training, normalises fewer than two rows with the running statistics.

    One row has no variance (nn.BatchNorm1d raises) and no rows have no mean (all histories of a batch may be empty). Such a batch
    leaves the running statistics as they are. Parameters, buffers and state dict are those of nn.BatchNorm1d.

    Example::

        norm = BatchNorm(300)
        norm(torch.randn(1, 300))  # [1, 300], by the running statistics
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """[X, C] to [X, C]."""
        # not super().forward, which TorchScript cannot call
        from_batch = self.training and input.shape[0] >= 2
        if from_batch:
            self.num_batches_tracked.add_(1)
        return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, from_batch, self.momentum, self.eps)


class Dice(nn.Module):
    """Dice of DIN (section 5.3): s·(p + (1 − p)·α), p = sigmoid((s − E[s]) / sqrt(Var[s] + ε)), α learned per channel.

    Args:
        num_channels: C.
        eps: ε; the DIN paper's value.
        device: where the parameters live.

    Example::

        Dice(64)(torch.randn(1000, 64))  # [1000, 64]
    """

    def __init__(self, num_channels: int, *, eps: float = 1e-8, device: torch.device | None = None) -> None:
        super().__init__()
        self.norm = BatchNorm(num_channels, affine=False, eps=eps, device=device)
        self.alpha_C = nn.Parameter(torch.empty(num_channels, device=device))
        self.eps = eps
        self.kernel_backend: str = "auto"
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """α = 0 as in DIN; fresh statistics (here because an affine-free norm off the meta device is not reset otherwise)."""
        nn.init.zeros_(self.alpha_C)
        self.norm.reset_running_stats()

    def forward(self, hidden_XC: torch.Tensor) -> torch.Tensor:
        """[X, C] to [X, C]."""
        return dice_gate(hidden_XC, self.norm(hidden_XC), self.alpha_C, self.kernel_backend)

    def weights(self) -> DiceWeights:
        """The activation with its running statistics, for the kernel."""
        mean_C, var_C = self.norm.running_mean, self.norm.running_var
        assert mean_C is not None
        assert var_C is not None
        return DiceWeights(mean_C, var_C, self.alpha_C, self.eps)
