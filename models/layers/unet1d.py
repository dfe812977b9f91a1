"""T2Diff's approximator f_θ: a 1-D U-Net over the positions of a history (eq. 15-16, section 3.2)."""

# B rows, L positions (right-aligned), D width of a position, C channels, I input and O output channels of a layer

import itertools
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import nn

from models.layers.step_embedding import StepEmbedding, StepSignal

UNetVariant = Literal["compact", "authors"]
TimeEmbedding = Literal["none", "sinusoidal"]

AUTHORS_WIDTHS = (1, 2, 4, 8)
"""Levels of the authors' program, as multiples of D."""


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """Shape of the U-Net.

    Both variants are convolutions of kernel 3, each followed by LayerNorm over channels and SiLU, one per level on the way down,
    one on the way up (after the skip connection's concatenation), and a last linear one. `compact` halves the length by convolving
    with stride 2; `authors` by max-pooling, up-samples with a 1×1 convolution, and mirrors the newest end where `compact` sees 0.

    Raises:
        ValueError: a field is outside its allowed range.
    """

    variant: UNetVariant = "compact"
    """`compact` has 62,240 parameters at D = 32, about what the paper's Table 2 implies; `authors` what their program builds."""
    time_embedding: TimeEmbedding = "none"
    """How the U-Net learns of the step t: `none` not at all (Algorithms 1 and 2); `sinusoidal` adds to the input a learned
    linear map of sines and cosines of t (`compact`), or sin(t/2^f)·0.01 at channel f (`authors`)."""
    widths: tuple[int, ...] = (1, 2, 2)
    """Channels of each level as multiples of D; each level has half the positions of the one before. Unused by `authors`."""

    def __post_init__(self) -> None:
        if self.variant not in get_args(UNetVariant):
            raise ValueError(f"UNetConfig.variant={self.variant!r}, expected one of {get_args(UNetVariant)}")
        if self.time_embedding not in get_args(TimeEmbedding):
            raise ValueError(f"UNetConfig.time_embedding={self.time_embedding!r}, expected one of {get_args(TimeEmbedding)}")
        if not self.widths or min(self.widths) < 1:
            raise ValueError(f"UNetConfig.widths={self.widths}, expected at least one level, each at least 1")


class ConvBlock(nn.Module):
    """Convolution of kernel 3 over positions, LayerNorm over channels, SiLU; padding positions come out as 0.

    LayerNorm looks at one position at a time, so that neither padding nor other rows touch it.

    Args:
        input_dim: I.
        output_dim: O.
        stride: 1, or 2 to halve the positions: each output sees its pair and the position before.
        mirrored: whether the newest position's missing neighbour is its other neighbour; else it is 0.
        activate: False ends in the bare convolution.
        device: where the parameters live.
    """

    def __init__(
        self,
        input_dim: int,
        *,
        output_dim: int,
        stride: int = 1,
        mirrored: bool = False,
        activate: bool = True,
        device: torch.device | None = None,
    ) -> None:
        super().__init__()
        self.mirrored = mirrored
        # A 2-D convolution of height 1: [B, L, C] is its channels-last layout, which needs no transposition, and oneDNN's
        # kernels for it are the fastest of all forms tried on a CPU (1-D convolution, matmul over shifted views, sum of matmuls).
        self.conv = nn.Conv2d(input_dim, output_dim, (1, 3), stride=(1, stride), padding=(0, 0 if mirrored else 1), device=device)
        self.norm = nn.LayerNorm(output_dim, device=device) if activate else None

    def forward(self, input_BLI: torch.Tensor, mask_BL1: torch.Tensor) -> torch.Tensor:
        """[B, L, I] with the mask of its output positions (1 valid, 0 padding) to [B, L or L/2, O]."""
        if self.mirrored:
            # The far end is padded first: a lone position's other neighbour is padding, as it is in a row that is padded further.
            input_BLI = F.pad(input_BLI, [0, 0, 1, 0])
            input_BLI = torch.cat([input_BLI, input_BLI[:, -2:-1]], dim=1)
        hidden_BLO = self.conv(input_BLI.transpose(1, 2).unsqueeze(2)).squeeze(2).transpose(1, 2)
        if self.norm is not None:
            hidden_BLO = F.silu(self.norm(hidden_BLO))
        return hidden_BLO.mul_(mask_BL1)


class Down(nn.Module):
    """One level down: half the positions, more channels.

    Args:
        input_dim: I.
        output_dim: O.
        pool: True max-pools and convolves mirrored (`authors`); False convolves with stride 2 (`compact`).
        device: where the parameters live.
    """

    def __init__(self, input_dim: int, *, output_dim: int, pool: bool, device: torch.device | None = None) -> None:
        super().__init__()
        self.pool = pool
        self.block = ConvBlock(input_dim, output_dim=output_dim, stride=1 if pool else 2, mirrored=pool, device=device)

    def forward(self, input_BLI: torch.Tensor, mask_BL1: torch.Tensor, half_mask_BL1: torch.Tensor) -> torch.Tensor:
        """[B, L, I] with its mask and the mask of half its positions to [B, L/2, O]."""
        if self.pool:
            older_BLI, newer_BLI = input_BLI[:, 0::2], input_BLI[:, 1::2]
            # the older one of a pair may be padding, the newer one only if both are
            input_BLI = torch.where(mask_BL1[:, 0::2] > 0, torch.maximum(older_BLI, newer_BLI), newer_BLI)
        return self.block(input_BLI, half_mask_BL1)


class Up(nn.Module):
    """One level up: nearest up-sampling, the skip connection's concatenation, a convolution.

    Args:
        input_dim: I, channels from below.
        skip_dim: O, channels of the skip connection and of the output.
        project: whether a 1×1 convolution takes I to O channels before the concatenation, and convolutions mirror (`authors`).
        device: where the parameters live.
    """

    def __init__(self, input_dim: int, *, skip_dim: int, project: bool, device: torch.device | None = None) -> None:
        super().__init__()
        self.project = nn.Linear(input_dim, skip_dim, device=device) if project else None
        joined_dim = skip_dim + (skip_dim if project else input_dim)
        self.block = ConvBlock(joined_dim, output_dim=skip_dim, mirrored=project, device=device)

    def forward(
        self, below_BLI: torch.Tensor, half_mask_BL1: torch.Tensor, skip_BLO: torch.Tensor, mask_BL1: torch.Tensor
    ) -> torch.Tensor:
        """[B, L/2, I] and the skip connection [B, L, O], each with its mask, to [B, L, O]."""
        if self.project is not None:
            below_BLI = self.project(below_BLI).mul_(half_mask_BL1)  # before the up-sampling, with which it commutes
        # one copy does both: every position below, twice, beside the pair of positions it stands for
        twice_BL2I = below_BLI.unsqueeze(2).expand(-1, -1, 2, -1)
        joined_BL2C = torch.cat([twice_BL2I, skip_BLO.unflatten(1, (-1, 2))], dim=3)
        return self.block(joined_BL2C.flatten(1, 2), mask_BL1)


class UNet1d(nn.Module):
    """ẑ0 from z_t and the history it is conditioned on, concatenated on the channel axis (eq. 15).

    Positions are right-aligned and padded on the left; padding is 0 after every layer, so a row's result depends neither on how far
    it is padded nor on what (finite) values the padding holds.

    Args:
        config: see UNetConfig.
        dim: D.
        device: where the parameters live.

    Example::

        unet = UNet1d(UNetConfig(), dim=32)
        unet(torch.randn(8, 50, 32), torch.randn(8, 50, 32), torch.ones(8, 50, dtype=torch.bool), torch.full((8,), 50))
    """

    def __init__(self, config: UNetConfig, *, dim: int, device: torch.device | None = None) -> None:
        super().__init__()
        authors = config.variant == "authors"
        widths = [dim * width for width in (AUTHORS_WIDTHS if authors else config.widths)]
        pairs = list(itertools.pairwise(widths))
        self.block_len: int = 2 ** len(pairs)
        self.pools: bool = authors
        self.first = ConvBlock(2 * dim, output_dim=widths[0], mirrored=authors, device=device)
        self.down = nn.ModuleList([Down(wide, output_dim=wider, pool=authors, device=device) for wide, wider in pairs])
        self.up = nn.ModuleList([Up(wider, skip_dim=wide, project=authors, device=device) for wide, wider in reversed(pairs)])
        self.last = ConvBlock(widths[0], output_dim=dim, mirrored=authors, activate=False, device=device)
        self.step: nn.Module | None = None
        if config.time_embedding == "sinusoidal":
            self.step = StepSignal(2 * dim) if authors else StepEmbedding(2 * dim, device=device)

    def forward(self, z_BLD: torch.Tensor, condition_BLD: torch.Tensor, valid_BL: torch.Tensor, t_B: torch.Tensor) -> torch.Tensor:
        """ẑ0 [B, L, D], 0 at padding, from z_t and X_{1:n}, both [B, L, D].

        Args:
            z_BLD: z_t.
            condition_BLD: X_{1:n}.
            valid_BL: bool, False at padding.
            t_B: int64, each row's step in 1..T; unused without a time embedding.
        """
        num_positions = z_BLD.shape[1]
        missing = max(-num_positions % self.block_len, self.block_len - num_positions)
        input_BLC = torch.cat([z_BLD, condition_BLD], dim=2)
        if self.step is not None:
            input_BLC = input_BLC + self.step(t_B)
        if missing > 0:
            input_BLC, valid_BL = F.pad(input_BLC, [0, 0, missing, 0]), F.pad(valid_BL, [missing, 0])
        masks = [valid_BL.unsqueeze(2).to(input_BLC.dtype)]
        input_BLC = input_BLC * masks[0]
        hidden = [self.first(input_BLC, masks[0])]
        for down in self.down:
            masks.append(torch.maximum(masks[-1][:, 0::2], masks[-1][:, 1::2]))
            hidden.append(down(hidden[-1], masks[-2], masks[-1]))
        result_BLC = hidden.pop()
        for up in self.up:
            half_mask_BL1, skip_BLC = masks.pop(), hidden.pop()
            result_BLC = up(result_BLC, half_mask_BL1, skip_BLC, masks[-1])
        return self.last(result_BLC, masks[0])[:, missing:].to(z_BLD.dtype)  # autocast would leave bfloat16

    @torch.jit.export
    def receptive_len(self, num_newest: int) -> int:
        """Newest input positions that the `num_newest` newest output positions depend on; 12 for one of `compact`.

        Older ones change nothing there, so that a caller who wants the newest alone can leave them out.
        """
        reach = num_newest  # how far back (the newest position is 0) the last convolution looks
        skipped: list[int] = []
        for _ in range(len(self.down)):
            skipped.append(reach + 1)  # the convolution after the skip connection
            reach = skipped[-1] // 2  # up-sampled: two positions share one
        for level in range(len(self.down)):
            # stride 2: a pair and the position before; pooling: the pairs of a convolution at half the length
            reach = 2 * reach + (3 if self.pools else 2)
            reach = max(reach, skipped[len(self.down) - 1 - level])
        return reach + 2  # the first convolution, and position 0 counts
