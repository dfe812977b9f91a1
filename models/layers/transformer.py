"""A transformer encoder layer (Vaswani et al. 2017) over padded sequences, with rows that may be empty."""

# B rows, S places of a sequence, D width, H heads, P = D / H

import torch
import torch.nn.functional as F
from torch import nn


class EncoderLayer(nn.Module):
    """Self-attention and a feed-forward network, each with dropout, a residual and a layer norm after it.

    Args:
        dim: D.
        num_heads: H, divides D.
        hidden_dim: width inside the feed-forward network.
        dropout: share of each sub-layer's outputs dropped in training.
        device: where the parameters live.

    Raises:
        ValueError: num_heads does not divide dim.

    Example::

        layer = EncoderLayer(32, num_heads=2, hidden_dim=64)
        layer(torch.randn(5, 11, 32), torch.ones(5, 11, 11, dtype=torch.bool))  # [5, 11, 32]
    """

    def __init__(
        self, dim: int, *, num_heads: int, hidden_dim: int, dropout: float = 0.0, device: torch.device | None = None
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"EncoderLayer: num_heads={num_heads} does not divide the width {dim}; choose a divisor of it")
        self.num_heads = num_heads
        self.project_in = nn.Linear(dim, 3 * dim, device=device)
        self.project_out = nn.Linear(dim, dim, device=device)
        self.norm1 = nn.LayerNorm(dim, device=device)
        self.feed_forward = nn.Sequential(
            nn.Linear(dim, hidden_dim, device=device), nn.ReLU(), nn.Linear(hidden_dim, dim, device=device)
        )
        self.norm2 = nn.LayerNorm(dim, device=device)
        self.dropout = nn.Dropout(dropout)

    def forward(self, input_BSD: torch.Tensor, allowed_BSS: torch.Tensor) -> torch.Tensor:
        """Each place attends to those that bool `allowed_BSS` [B, S (asking), S (asked)] lets it, maybe to nothing."""
        batch, places, dim = input_BSD.shape
        shape = (batch, places, self.num_heads, dim // self.num_heads)
        query_BSD, key_BSD, value_BSD = self.project_in(input_BSD).chunk(3, dim=2)
        query_BHSP = query_BSD.reshape(shape).transpose(1, 2)
        key_BHSP, value_BHSP = key_BSD.reshape(shape).transpose(1, 2), value_BSD.reshape(shape).transpose(1, 2)
        # a softmax over nothing is NaN, in backward too: such places attend to everything, and what they find is dropped
        any_BS1 = allowed_BSS.any(dim=2, keepdim=True)
        mask_B1SS = (allowed_BSS | ~any_BS1).unsqueeze(1)
        mixed_BHSP = F.scaled_dot_product_attention(query_BHSP, key_BHSP, value_BHSP, attn_mask=mask_B1SS)
        mixed_BSD = mixed_BHSP.transpose(1, 2).reshape(batch, places, dim).masked_fill(~any_BS1, 0.0)
        hidden_BSD = self.norm1(input_BSD + self.dropout(self.project_out(mixed_BSD)))
        return self.norm2(hidden_BSD + self.dropout(self.feed_forward(hidden_BSD)))
