"""The running scale of T2Diff's z0: what makes a unit of noise (eq. 14) a unit of signal."""

# B rows, L history positions, D width of a position

import torch
from torch import nn


class DriftScale(nn.Module):
    """Running standard deviation of z0 over all valid positions and channels; 1 before the first batch.

    The first batch sets it, later ones pull it towards theirs by `momentum`. A batch without valid positions, one whose values are
    all the same, or one that is not finite leaves it alone.

    The standard deviation is a function of three sums, `moments`, so that ranks can add theirs up before they `absorb` them.

    Example::

        scale = DriftScale()
        scale.observe(torch.randn(512, 50, 32), torch.ones(512, 50, dtype=torch.bool))
        scale.scale  # close to 1
    """

    def __init__(self, *, momentum: float = 0.01, device: torch.device | None = None) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("scale", torch.empty((), device=device))
        self.register_buffer("num_batches", torch.empty((), dtype=torch.int64, device=device))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Scale 1, no batch seen."""
        nn.init.ones_(self.scale)
        nn.init.zeros_(self.num_batches)

    @torch.jit.export
    def moments(self, z0_BLD: torch.Tensor, valid_BL: torch.Tensor) -> torch.Tensor:
        """float64 [3]: number, sum and sum of squares of the values of z0 [B, L, D], which is 0 where valid [B, L] is False."""
        z0_BLD = z0_BLD.detach()
        count_B = valid_BL.sum(1) * z0_BLD.shape[2]
        # float64 only over rows: a row's own sums are short
        return torch.stack([count_B, z0_BLD.sum([1, 2]), z0_BLD.square().sum([1, 2])]).double().sum(1)

    @torch.jit.export
    def absorb(self, moments_3: torch.Tensor) -> None:
        """Move the scale towards the standard deviation of these moments; reads nothing back from the device."""
        divisor = moments_3[0].clamp(min=1.0)  # no values have no variance: `usable` is False then
        variance = moments_3[2] / divisor - (moments_3[1] / divisor).square()
        std = variance.clamp(min=0.0).sqrt().to(self.scale.dtype)  # rounding may leave a variance of 0 slightly below it
        usable = (std > 0) & torch.isfinite(std)
        step = torch.where(self.num_batches > 0, self.momentum, 1.0)
        self.scale.copy_(torch.where(usable, self.scale + step * (std - self.scale), self.scale))
        self.num_batches.add_(usable)

    @torch.jit.export
    def observe(self, z0_BLD: torch.Tensor, valid_BL: torch.Tensor) -> None:
        """Take in a batch: z0 [B, L, D], 0 at padding, and valid [B, L]."""
        self.absorb(self.moments(z0_BLD, valid_BL))
