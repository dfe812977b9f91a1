"""Gaussians with diagonal covariances, the 2-Wasserstein distance between them, and STOSA's self-attention by that distance."""

# B rows, S places of a sequence, A places of its end that ask, D width of a mean, H heads, P = D / H, X any shape

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn


def covariance(raw_X: torch.Tensor) -> torch.Tensor:
    """ELU(x) + 1, what makes any number a variance."""
    return F.elu(raw_X) + 1.0


def deviation(raw_X: torch.Tensor) -> torch.Tensor:
    """Square root of `covariance`.

    The product of √(x + 1) over positive and e^{x/2} over negative x, whose gradient stays finite where the covariance underflows.
    """
    return (raw_X.clamp(min=0.0) + 1.0).sqrt() * (0.5 * raw_X.clamp(max=0.0)).exp()


class Gaussians(NamedTuple):
    """Independent Gaussian distributions, one for each vector."""

    mean: torch.Tensor
    """float [..., D]."""
    raw: torch.Tensor
    """float [..., D]: `covariance(raw)` is the diagonal of Σ."""


def points(gaussians: Gaussians) -> torch.Tensor:
    """[μ, Σ^{1/2}], [..., 2D]: the Euclidean distance of two such points is the 2-Wasserstein distance of their Gaussians.

    W₂² = |μ_1 − μ_2|² + |Σ_1^{1/2} − Σ_2^{1/2}|²_F for diagonal covariances (STOSA, section "Wasserstein self-attention").
    """
    return torch.cat([gaussians.mean, deviation(gaussians.raw)], dim=-1)


class WassersteinLayer(nn.Module):
    """STOSA's encoder layer: places attend to each other the more, the closer their Gaussians are; then a feed-forward network.

    Means and covariances have weights of their own throughout, and residuals and layer norms as in a transformer.

    Args:
        dim: D.
        num_heads: H, divides D.
        hidden_dim: width inside the feed-forward networks.
        dropout: share of attention's weights and of each sub-layer's outputs dropped in training.
        device: where the parameters live.

    Raises:
        ValueError: num_heads does not divide dim.

    Example::

        layer = WassersteinLayer(32, num_heads=4, hidden_dim=128)
        layer(Gaussians(torch.randn(5, 50, 32), torch.randn(5, 50, 32)), torch.ones(5, 50, 50, dtype=torch.bool))
    """

    def __init__(
        self, dim: int, *, num_heads: int, hidden_dim: int, dropout: float = 0.0, device: torch.device | None = None
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"WassersteinLayer: num_heads={num_heads} does not divide the width {dim}; choose a divisor of it")
        self.num_heads = num_heads
        self.mean_in, self.raw_in = (nn.Linear(dim, 3 * dim, device=device) for _ in range(2))
        self.mean_out, self.raw_out = (nn.Linear(dim, dim, device=device) for _ in range(2))
        self.mean_norm1, self.raw_norm1 = (nn.LayerNorm(dim, device=device) for _ in range(2))
        self.mean_feed_forward, self.raw_feed_forward = (_feed_forward(dim, hidden_dim, device) for _ in range(2))
        self.mean_norm2, self.raw_norm2 = (nn.LayerNorm(dim, device=device) for _ in range(2))
        self.dropout = nn.Dropout(dropout)

    def forward(self, gaussians: Gaussians, allowed_BAS: torch.Tensor) -> Gaussians:
        """Gaussians [B, S, D] to those of the last A places; bool `allowed_BAS` says who may ask whom, maybe nobody anybody."""
        first = gaussians.mean.shape[1] - allowed_BAS.shape[1]
        mean_query, mean_key, mean_value_BHSP = self._heads(self.mean_in(gaussians.mean), first)
        raw_query, raw_key, raw_value_BHSP = self._heads(self.raw_in(gaussians.raw), first)
        query_BHAX, key_BHSX = points(Gaussians(mean_query, raw_query)), points(Gaussians(mean_key, raw_key))
        weight_BHAS = self.dropout(self._weights(query_BHAX, key_BHSX, allowed_BAS))
        # a sum of independent Gaussians with weights a has the mean Σ aμ and the covariance Σ a²Σ
        mean_BAD = self.mean_out(_joined(torch.matmul(weight_BHAS, mean_value_BHSP)))
        raw_BAD = self.raw_out(_joined(torch.matmul(weight_BHAS.square(), covariance(raw_value_BHSP))))
        mean_BAD = self.mean_norm1(gaussians.mean[:, first:] + self.dropout(mean_BAD))
        raw_BAD = self.raw_norm1(gaussians.raw[:, first:] + self.dropout(raw_BAD))
        return Gaussians(
            self.mean_norm2(mean_BAD + self.dropout(self.mean_feed_forward(mean_BAD))),
            self.raw_norm2(raw_BAD + self.dropout(self.raw_feed_forward(raw_BAD))),
        )

    def _heads(self, projected_BSX: torch.Tensor, first: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries of the places from `first` on, keys and values of all, [B, H, ·, P] each."""
        batch, places, width = projected_BSX.shape
        shape = (batch, places, 3 * self.num_heads, width // (3 * self.num_heads))
        query, key, value = projected_BSX.reshape(shape).transpose(1, 2).chunk(3, dim=1)
        return query[:, :, first:], key, value

    def _weights(self, query_BHAX: torch.Tensor, key_BHSX: torch.Tensor, allowed_BAS: torch.Tensor) -> torch.Tensor:
        """Softmax over −W₂²/√P; all 0 where a place may attend to nothing."""
        # without the query's own norm, which is the same for all keys
        squared_BH1S = key_BHSX.square().sum(dim=3).unsqueeze(2)
        score_BHAS = 2.0 * torch.matmul(query_BHAX, key_BHSX.transpose(2, 3)) - squared_BH1S
        score_BHAS = score_BHAS * (query_BHAX.shape[3] // 2) ** -0.5
        # a softmax over nothing is NaN, in backward too: such places attend to everything, and what they find is dropped
        any_BA1 = allowed_BAS.any(dim=2, keepdim=True)
        score_BHAS = score_BHAS.masked_fill(~(allowed_BAS | ~any_BA1).unsqueeze(1), float("-inf"))
        return score_BHAS.softmax(dim=3).masked_fill(~any_BA1.unsqueeze(1), 0.0)


def _joined(value_BHAP: torch.Tensor) -> torch.Tensor:
    """The heads beside each other, [B, A, D]."""
    return value_BHAP.transpose(1, 2).flatten(2)


def _feed_forward(dim: int, hidden_dim: int, device: torch.device | None) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, hidden_dim, device=device), nn.ELU(), nn.Linear(hidden_dim, dim, device=device))
