"""How a denoiser learns which step it is at."""

# B rows, C channels

import math

import torch
from torch import nn


class StepSignal(nn.Module):
    """The authors' signal of T2Diff, without parameters: amplitude·sin(t/2^f) for channel f.

    Example::

        StepSignal(64)(torch.tensor([1, 50]))  # [2, 1, 64]
    """

    def __init__(self, dim: int, *, amplitude: float = 0.01) -> None:
        super().__init__()
        self.dim = dim
        self.amplitude = amplitude

    def forward(self, t_B: torch.Tensor) -> torch.Tensor:
        """Steps int64 [B] to [B, 1, C]."""
        channel_C = torch.arange(self.dim, dtype=torch.float32, device=t_B.device)
        return self.amplitude * torch.sin(t_B[:, None, None] * torch.exp2(-channel_C))


class StepEmbedding(nn.Module):
    """A learned linear map of sines and cosines of t, whose periods are those of the transformer's positions.

    Args:
        dim: C, even.
        max_period: the slowest sine's period is 2π times nearly this.
        device: where the parameters live.

    Example::

        StepEmbedding(64)(torch.tensor([1, 50]))  # [2, 1, 64]
    """

    def __init__(self, dim: int, *, max_period: float = 10_000.0, device: torch.device | None = None) -> None:
        super().__init__()
        self.half_dim = dim // 2
        self.exponent = -math.log(max_period) / self.half_dim
        self.linear = nn.Linear(2 * self.half_dim, dim, device=device)

    def forward(self, t_B: torch.Tensor) -> torch.Tensor:
        """Steps int64 [B] to [B, 1, C]."""
        frequency_C = torch.exp(torch.arange(self.half_dim, dtype=torch.float32, device=t_B.device) * self.exponent)
        angle_B1C = t_B[:, None, None] * frequency_C
        return self.linear(torch.cat([angle_B1C.sin(), angle_B1C.cos()], dim=2))
