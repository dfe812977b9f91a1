"""The two-tower baseline (DSSM) of FIT's tables: mean-pooled history, no early interaction, scaled cosine (eq. 1-3, 18)."""

# B rows, J history positions of the batch, D width of a position, U and A widths of the pooled user and item features,
# C tower width, N = 1 vectors per user, H = 1 heads, P = C

from dataclasses import dataclass, field

import torch
from torch import nn

from models.layers.din import mean_pool
from models.layers.mlp import Tower, TowerConfig
from models.layers.similarity import DotProduct
from models.types import InputDims, ItemInputs, ItemVectors, ScoreForward, UserInputs, without_auxiliary


@dataclass(frozen=True, kw_only=True)
class TwoTowerConfig:
    """Hyper-parameters of TwoTower; defaults are FIT section 5.1.4."""

    tower: TowerConfig = field(default_factory=TowerConfig)
    """Both towers' layers."""


class TwoTower(nn.Module):
    """Two towers that meet in a dot product.

    Args:
        config: hyper-parameters.
        dims: widths of the inputs.
        scorer: another late interaction than the dot product, one of models.layers.similarity's kind.
        device: where the parameters live.

    Example::

        model = TwoTower(TwoTowerConfig(), dims=InputDims(profile=32, attributes=16, position=32))
        logit_B, _ = model(users, items, label_B)
    """

    def __init__(
        self,
        config: TwoTowerConfig,
        *,
        dims: InputDims,
        scorer: nn.Module | None = None,
        device: torch.device | None = None,
    ) -> None:
        super().__init__()
        self.user_mlp = Tower(config.tower, input_dim=dims.profile + dims.position, device=device)
        self.item_mlp = Tower(config.tower, input_dim=dims.attributes + dims.position, device=device)
        start_cosine = 0.5 if config.tower.last_activation else 0.0
        self.scorer = DotProduct(start_cosine=start_cosine, device=device) if scorer is None else scorer

    def user_tower(self, users: UserInputs) -> torch.Tensor:
        """h_u before its L2 norm, [B, C]."""
        pooled_BD = mean_pool(users.history_JD, users.history_lengths_B)  # eq. 18
        return self.user_mlp(torch.cat([users.profile_BU, pooled_BD], dim=1))  # eq. 1

    def item_tower(self, items: ItemInputs) -> torch.Tensor:
        """h_v before its L2 norm, [B, C]."""
        return self.item_mlp(torch.cat([items.attributes_BA, items.item_BD], dim=1))  # eq. 1

    def forward(self, users: UserInputs, items: ItemInputs, label_B: torch.Tensor) -> ScoreForward:  # noqa: ARG002  (as DAT's)
        """Logit of each row; the labels, float [B], are of no use to it."""
        return without_auxiliary(self.scorer(self.user_tower(users), self.item_tower(items)))  # eq. 2, 3

    @torch.jit.export
    def all_user_vectors(self, users: UserInputs) -> torch.Tensor:
        """The user's vector in the shape that models with meta queries have, [B, 1, H, P]."""
        return self.scorer.project_user(self.user_tower(users)).unsqueeze(1)

    @torch.jit.export
    def item_vectors(self, items: ItemInputs) -> ItemVectors:
        """What the item store keeps; the index is 0."""
        item_BHP = self.scorer.project_item(self.item_tower(items))
        return ItemVectors(torch.zeros(item_BHP.shape[0], dtype=torch.int64, device=item_BHP.device), item_BHP)

    @torch.jit.export
    def score_candidates(
        self,
        user_BNHP: torch.Tensor,
        index_BK: torch.Tensor,  # noqa: ARG002  (as FIT's)
        item_BKHP: torch.Tensor,
    ) -> torch.Tensor:
        """Logits [B, K] of K candidates per user; index_BK, all 0, is not looked at, as a user has one vector for all of them."""
        return self.scorer.score(user_BNHP, item_BKHP)

    def schedule(self, step: int, steps_per_epoch: int) -> None:
        """Nothing of this model follows the step."""

    def log_values(self) -> dict[str, float]:
        """Scale and bias of the dot product."""
        return self.scorer.log_values()
