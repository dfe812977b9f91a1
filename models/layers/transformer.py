"""A transformer encoder layer (Vaswani et al. 2017) over padded sequences, with rows that may be empty."""

# B rows, S places of a sequence, A places of its end that ask, D width, H heads, P = D / H

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import nn

Activation = Literal["relu", "gelu"]


class EncoderLayer(nn.Module):
    """Self-attention and a feed-forward network, each with dropout, a residual, and a layer norm after it or before it.

    Args:
        dim: D.
        num_heads: H, divides D.
        hidden_dim: width inside the feed-forward network.
        dropout: share of attention's weights and of each sub-layer's outputs dropped in training.
        norm_first: whether a norm is on the way into its sub-layer alone, past which the residual goes.
        activation: inside the feed-forward network.
        device: where the parameters live.

    Raises:
        ValueError: num_heads does not divide dim, or the activation is unknown.

    Example::

        layer = EncoderLayer(32, num_heads=2, hidden_dim=64)
        layer(torch.randn(5, 11, 32), torch.ones(5, 11, 11, dtype=torch.bool))  # [5, 11, 32]
    """

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        hidden_dim: int,
        dropout: float = 0.0,
        norm_first: bool = False,
        activation: Activation = "relu",
        device: torch.device | None = None,
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"EncoderLayer: num_heads={num_heads} does not divide the width {dim}; choose a divisor of it")
        if activation not in get_args(Activation):
            raise ValueError(f"EncoderLayer: activation={activation!r}, expected one of {get_args(Activation)}")
        self.num_heads, self.norm_first = num_heads, norm_first
        self.project_in = nn.Linear(dim, 3 * dim, device=device)
        self.project_out = nn.Linear(dim, dim, device=device)
        self.norm1 = nn.LayerNorm(dim, device=device)
        self.feed_forward = nn.Sequential(
            nn.Linear(dim, hidden_dim, device=device),
            nn.ReLU() if activation == "relu" else nn.GELU(),
            nn.Linear(hidden_dim, dim, device=device),
        )
        self.norm2 = nn.LayerNorm(dim, device=device)
        self.dropout = nn.Dropout(dropout)

    def forward(self, input_BSD: torch.Tensor, allowed_BAS: torch.Tensor) -> torch.Tensor:
        """The last A places, [B, A, D]; each attends to those that bool `allowed_BAS` lets it, maybe to nothing.

        A = S gives all places. A last layer of whose outputs the newest alone is used needs A = 1.
        """
        batch, places, dim = input_BSD.shape
        asking = allowed_BAS.shape[1]
        head_dim = dim // self.num_heads
        attended_BSD = self.norm1(input_BSD) if self.norm_first else input_BSD
        query_BSD, key_BSD, value_BSD = self.project_in(attended_BSD).chunk(3, dim=2)
        query_BHAP = query_BSD[:, places - asking :].reshape(batch, asking, self.num_heads, head_dim).transpose(1, 2)
        key_BHSP = key_BSD.reshape(batch, places, self.num_heads, head_dim).transpose(1, 2)
        value_BHSP = value_BSD.reshape(batch, places, self.num_heads, head_dim).transpose(1, 2)
        # a softmax over nothing is NaN, in backward too: such places attend to everything, and what they find is dropped
        any_BA1 = allowed_BAS.any(dim=2, keepdim=True)
        mask_B1AS = (allowed_BAS | ~any_BA1).unsqueeze(1)
        drop = self.dropout.p if self.training else 0.0
        mixed_BHAP = F.scaled_dot_product_attention(query_BHAP, key_BHSP, value_BHSP, attn_mask=mask_B1AS, dropout_p=drop)
        mixed_BAD = mixed_BHAP.transpose(1, 2).reshape(batch, asking, dim).masked_fill(~any_BA1, 0.0)
        hidden_BAD = input_BSD[:, places - asking :] + self.dropout(self.project_out(mixed_BAD))
        if self.norm_first:
            return hidden_BAD + self.dropout(self.feed_forward(self.norm2(hidden_BAD)))
        hidden_BAD = self.norm1(hidden_BAD)
        return self.norm2(hidden_BAD + self.dropout(self.feed_forward(hidden_BAD)))
