"""RankTower, "A Synergistic Framework for Enhancing Two-Tower Pre-Ranking Model" (Yan and Li 2024), as FIT compares it.

Its three parts: a multi-head gated network takes several vectors out of each tower, a gated cross-attention network lets the
vectors of a user and an item look at each other, and a maximum similarity layer scores what comes out. The first is part of the
towers, so item vectors are stored as any other model's; the other two run for every candidate, which makes it the slowest of FIT's
Table 2 to serve. Its hybrid loss needs a ranking model's scores and samples of all stages; here it learns from the labels, as FIT.

The paper has no public program. Read here: a gate is a sigmoid of the vector whose values it scales, residuals go around the
cross-attention, whose two directions have weights of their own, and both see the towers' vectors.
"""

# B rows (score: any leading dimensions, which broadcast), C tower width, U user heads, V item heads, H either, X heads that ask,
# Y heads that are asked, P head width, K candidates

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import nn

from models.layers.mlp import TowerConfig
from models.layers.similarity import MultiHead, ScaledCosine, sum_max
from models.two_tower import TwoTower, TwoTowerConfig
from models.types import InputDims


@dataclass(frozen=True, kw_only=True)
class RankTowerConfig:
    """Hyper-parameters of RankTower.

    Raises:
        ValueError: a field is outside its allowed range.
    """

    tower: TowerConfig = field(default_factory=TowerConfig)
    """Both towers' layers."""
    num_user_heads: int = 2
    """U, vectors of a user."""
    num_item_heads: int = 2
    """V, vectors of an item; with head_dim, what the store keeps: as much as Two-Tower's (FIT Table 2)."""
    head_dim: int = 64
    """P."""

    def __post_init__(self) -> None:
        for name in ("num_user_heads", "num_item_heads", "head_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"RankTowerConfig.{name}={getattr(self, name)}, expected at least 1")


class GatedCrossAttention(nn.Module):
    """One direction: each of X vectors takes, by its gate, what attention finds for it among Y vectors of the other side.

    x + σ(W_g·x) ∘ softmax(W_q·x (W_k·y)ᵀ / √P) W_v·y

    Args:
        dim: P.
        device: where the parameters live.

    Example::

        GatedCrossAttention(64)(torch.randn(8, 2, 64), torch.randn(8, 3, 64))  # [8, 2, 64]
    """

    def __init__(self, dim: int, *, device: torch.device | None = None) -> None:
        super().__init__()
        self.query = nn.Linear(dim, dim, bias=False, device=device)
        self.key = nn.Linear(dim, dim, bias=False, device=device)
        self.value = nn.Linear(dim, dim, bias=False, device=device)
        self.gate = nn.Linear(dim, dim, device=device)
        self.scale = 1.0 / math.sqrt(dim)

    def forward(self, asking_BXP: torch.Tensor, asked_BYP: torch.Tensor) -> torch.Tensor:
        """[..., X, P] and [..., Y, P] to [..., X, P]."""
        score_BXY = torch.matmul(self.query(asking_BXP), self.key(asked_BYP).transpose(-1, -2)) * self.scale
        found_BXP = torch.matmul(score_BXY.softmax(-1), self.value(asked_BYP))
        return asking_BXP + torch.sigmoid(self.gate(asking_BXP)) * found_BXP


class CrossAttentionScorer(MultiHead):
    """Gated heads of each tower, cross-attention in both directions, and the sum over user heads of the largest cosine.

    The sum is divided by the number of user heads, so that the learned scale and bias start where a single cosine's do.

    Args as those of MultiHead.

    Example::

        scorer = CrossAttentionScorer(128)
        scorer(torch.randn(8, 128), torch.randn(8, 128))  # [8]
    """

    def __init__(
        self,
        input_dim: int,
        *,
        num_user_heads: int = 2,
        num_item_heads: int = 2,
        head_dim: int = 64,
        device: torch.device | None = None,
    ) -> None:
        super().__init__(input_dim, num_user_heads=num_user_heads, num_item_heads=num_item_heads, head_dim=head_dim, device=device)
        self.user_gates = nn.Linear(input_dim, num_user_heads * head_dim, device=device)
        self.item_gates = nn.Linear(input_dim, num_item_heads * head_dim, device=device)
        self.user_attention = GatedCrossAttention(head_dim, device=device)
        self.item_attention = GatedCrossAttention(head_dim, device=device)
        self.cosine = ScaledCosine(start_cosine=0.0, device=device)

    @torch.jit.export
    def project_user(self, user_BC: torch.Tensor) -> torch.Tensor:
        """[B, C] to [B, U, P]: each head's values by its gate."""
        return (self.user_heads(user_BC) * torch.sigmoid(self.user_gates(user_BC))).unflatten(1, (-1, self.head_dim))

    @torch.jit.export
    def project_item(self, item_BC: torch.Tensor) -> torch.Tensor:
        """[B, C] to [B, V, P]: each head's values by its gate."""
        return (self.item_heads(item_BC) * torch.sigmoid(self.item_gates(item_BC))).unflatten(1, (-1, self.head_dim))

    @torch.jit.export
    def score(self, user_BUP: torch.Tensor, item_BVP: torch.Tensor) -> torch.Tensor:
        """[..., U, P] and [..., V, P] to [...] logits."""
        attentive_user_BUP = self.user_attention(user_BUP, item_BVP)
        attentive_item_BVP = self.item_attention(item_BVP, user_BUP)
        similarity_B = sum_max(F.normalize(attentive_user_BUP, dim=-1, eps=1e-6), F.normalize(attentive_item_BVP, dim=-1, eps=1e-6))
        return self.cosine.scaled(similarity_B / user_BUP.shape[-2])

    def forward(self, user_BC: torch.Tensor, item_BC: torch.Tensor) -> torch.Tensor:
        """[B, C] twice to [B] logits."""
        return self.score(self.project_user(user_BC), self.project_item(item_BC))


class RankTower(TwoTower):
    """Two-Tower with cross-attention between the towers' heads in place of the dot product.

    Args:
        config: hyper-parameters.
        dims: widths of the inputs.
        device: where the parameters live.

    Example::

        model = RankTower(RankTowerConfig(), dims=InputDims(profile=32, attributes=16, position=32))
        logit_B, _ = model(users, items, label_B)
    """

    def __init__(self, config: RankTowerConfig, *, dims: InputDims, device: torch.device | None = None) -> None:
        scorer = CrossAttentionScorer(
            config.tower.hidden_dims[-1],
            num_user_heads=config.num_user_heads,
            num_item_heads=config.num_item_heads,
            head_dim=config.head_dim,
            device=device,
        )
        super().__init__(TwoTowerConfig(tower=config.tower), dims=dims, scorer=scorer, device=device)

    def log_values(self) -> dict[str, float]:
        """Scale and bias of the similarity."""
        return self.scorer.cosine.log_values()
