"""FIT, "A Learnable Fully Interacted Two-Tower Model for Pre-Ranking System" (SIGIR 2025)."""

# B rows, J history positions of the batch, D width of a position, U and A widths of the pooled user and item features,
# C tower width, N meta queries (1 without them), H heads, P head width, K candidates

from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import nn

from models.layers.din import DinUnit, mean_pool
from models.layers.meta_query import MetaQuery, MetaQueryConfig
from models.layers.mlp import Tower, TowerConfig
from models.layers.similarity import LSS, DotProduct, FlattenFC, SumMax
from models.types import InputDims, ItemInputs, ItemVectors, ScoreForward, UserInputs, without_auxiliary

Scorer = Literal["lss", "dot", "sum_max", "fc"]


@dataclass(frozen=True, kw_only=True)
class FITConfig:
    """Hyper-parameters of FIT; defaults are section 5.1.4, switches are the ablations of section 5.4.

    Raises:
        ValueError: a field is outside its allowed range.
    """

    tower: TowerConfig = field(default_factory=TowerConfig)
    """Both towers' layers."""
    use_meta_query: bool = True
    """False is "w/o MQM": mean-pooled history and no query in the user tower."""
    meta_query: MetaQueryConfig = field(default_factory=MetaQueryConfig)
    """The item meta matrix; unused without meta queries."""
    attention_dims: tuple[int, int] = (64, 16)
    """Hidden widths of the activation unit; unused without meta queries."""
    scorer: Scorer = "lss"
    """`lss` eq. 14-16; `dot` eq. 2-3 ("w/o LSS"); `sum_max` eq. 10 ("w SumMax"); `fc` eq. 17 ("w FC")."""
    num_user_heads: int = 2
    """H_u; unused by `dot`."""
    num_item_heads: int = 2
    """H_v; unused by `dot`."""
    head_dim: int = 64
    """p of eq. 11-12; unused by `dot`."""
    scorer_dim: int = 16
    """d of eq. 14-17; unused by `dot` and `sum_max`."""

    def __post_init__(self) -> None:
        if len(self.attention_dims) != 2 or min(self.attention_dims) < 1:
            raise ValueError(f"FITConfig.attention_dims={self.attention_dims}, expected two widths, each at least 1")
        if self.scorer not in get_args(Scorer):
            raise ValueError(f"FITConfig.scorer={self.scorer!r}, expected one of {get_args(Scorer)}")
        for name in ("num_user_heads", "num_item_heads", "head_dim", "scorer_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"FITConfig.{name}={getattr(self, name)}, expected at least 1")


class FIT(nn.Module):
    """Two towers with an early interaction through meta queries (section 4.1) and a late one through LSS (section 4.2).

    Args:
        config: hyper-parameters.
        dims: widths of the inputs.
        device: where the parameters live.

    Raises:
        ValueError: meta queries are asked for, but the inputs have no history that shares a space with an item feature.

    Example::

        model = FIT(FITConfig(), dims=InputDims(profile=32, attributes=16, position=32))
        logit_B, _ = model(users, items, label_B)
    """

    def __init__(self, config: FITConfig, *, dims: InputDims, device: torch.device | None = None) -> None:
        super().__init__()
        if config.use_meta_query and dims.position == 0:
            raise ValueError(
                f"FIT needs a history whose id space an item feature shares (eq. 4), but the inputs are {dims}; "
                "set use_meta_query=False or add such a pair to the schema"
            )
        query_dim = dims.position if config.use_meta_query else 0
        self.meta_query = MetaQuery(config.meta_query, dim=query_dim, device=device) if config.use_meta_query else None
        self.interaction = DinUnit(query_dim, hidden_dims=config.attention_dims, device=device) if config.use_meta_query else None
        self.user_mlp = Tower(config.tower, input_dim=dims.profile + dims.position + query_dim, device=device)
        self.item_mlp = Tower(config.tower, input_dim=dims.attributes + dims.position, device=device)
        self.scorer = _build_scorer(config, device)

    def user_tower(self, users: UserInputs, query_BD: torch.Tensor) -> torch.Tensor:
        """h_u^L: users and one query each ([B, D]; [B, 0] without meta queries) to [B, C]."""
        if self.interaction is not None:
            pooled_BD = self.interaction(users.history_JD, users.history_lengths_B, query_BD)  # eq. 19
        else:
            pooled_BD = mean_pool(users.history_JD, users.history_lengths_B)  # eq. 18
        user_BX = torch.cat([users.profile_BU, pooled_BD, query_BD], dim=1)  # eq. 20
        return self.user_mlp(user_BX)  # eq. 1

    def item_tower(self, items: ItemInputs) -> torch.Tensor:
        """h_v^L: items to [B, C]."""
        return self.item_mlp(torch.cat([items.attributes_BA, items.item_BD], dim=1))  # eq. 1

    def forward(self, users: UserInputs, items: ItemInputs, label_B: torch.Tensor) -> ScoreForward:  # noqa: ARG002  (as DAT's)
        """Logit of each row; the labels, float [B], are of no use to it; soft queries in training, hard ones in evaluation."""
        query_BD = self.meta_query(items.item_BD).query_BD if self.meta_query is not None else items.item_BD[:, :0]  # eq. 5-8
        return without_auxiliary(self.scorer(self.user_tower(users, query_BD), self.item_tower(items)))  # eq. 11-16

    @torch.jit.export
    def all_user_vectors(self, users: UserInputs) -> torch.Tensor:
        """z_u of each user under every hard query in one pass (section 4.3.2), [B, N, H_u, P]; needs no item.

        Raises:
            RuntimeError: the model is in training mode, whose batch statistics would depend on the company a user keeps.
        """
        if self.training:
            raise RuntimeError("all_user_vectors is for evaluation mode: call eval() first")
        num_rows = users.profile_BU.shape[0]
        if self.interaction is not None and self.meta_query is not None:
            query_ND = self.meta_query.query_group()
            pooled_BND = self.interaction.all_queries(users.history_JD, users.history_lengths_B, query_ND)
            query_BND = query_ND.unsqueeze(0).expand(num_rows, -1, -1)
            profile_BNU = users.profile_BU.unsqueeze(1).expand(-1, query_ND.shape[0], -1)
            user_BNX = torch.cat([profile_BNU, pooled_BND, query_BND], dim=2)
        else:
            pooled_BD = mean_pool(users.history_JD, users.history_lengths_B)
            user_BNX = torch.cat([users.profile_BU, pooled_BD], dim=1).unsqueeze(1)
        user_XHP = self.scorer.project_user(self.user_mlp(user_BNX.flatten(0, 1)))
        return user_XHP.reshape(num_rows, user_BNX.shape[1], user_XHP.shape[1], user_XHP.shape[2])

    @torch.jit.export
    def item_vectors(self, items: ItemInputs) -> ItemVectors:
        """What the item store keeps: the query index (eq. 8) beside z_v."""
        item_BHP = self.scorer.project_item(self.item_tower(items))
        if self.meta_query is not None:
            return ItemVectors(self.meta_query(items.item_BD).index_B, item_BHP)
        return ItemVectors(torch.zeros(item_BHP.shape[0], dtype=torch.int64, device=item_BHP.device), item_BHP)

    @torch.jit.export
    def score_candidates(self, user_BNHP: torch.Tensor, index_BK: torch.Tensor, item_BKHP: torch.Tensor) -> torch.Tensor:
        """Logits [B, K] of K candidates per user, each against the user vector that its stored index picks."""
        if not torch.jit.is_scripting():
            in_kernel = isinstance(self.scorer, LSS) and self.scorer.picks_in_kernel(user_BNHP)
            if in_kernel:
                return self.scorer.score_picked(user_BNHP, index_BK, item_BKHP)
        # whole rows, as one request picks thousands: gather would go number by number
        first_B1 = user_BNHP.shape[1] * torch.arange(user_BNHP.shape[0], device=index_BK.device).unsqueeze(1)
        picked_XHP = user_BNHP.flatten(0, 1).index_select(0, (first_B1 + index_BK).flatten())
        picked_BKHP = picked_XHP.reshape(index_BK.shape[0], index_BK.shape[1], user_BNHP.shape[2], user_BNHP.shape[3])
        return self.scorer.score(picked_BKHP, item_BKHP)

    def schedule(self, step: int, steps_per_epoch: int) -> None:
        """Set the temperature (eq. 23) for the global optimizer step `step`, counted from 0."""
        if self.meta_query is not None:
            self.meta_query.set_step(step, steps_per_epoch=steps_per_epoch)

    def log_values(self) -> dict[str, float]:
        """Temperature, query similarity (eq. 24), norm of Q*; empty without meta queries."""
        return self.meta_query.log_values() if self.meta_query is not None else {}


def _build_scorer(config: FITConfig, device: torch.device | None) -> nn.Module:
    input_dim = config.tower.hidden_dims[-1]
    heads = (config.num_user_heads, config.num_item_heads, config.head_dim)
    if config.scorer == "dot":
        return DotProduct(device=device)
    if config.scorer == "sum_max":
        return SumMax(input_dim, num_user_heads=heads[0], num_item_heads=heads[1], head_dim=heads[2], device=device)
    scorer_class = {"lss": LSS, "fc": FlattenFC}[config.scorer]
    return scorer_class(
        input_dim, num_user_heads=heads[0], num_item_heads=heads[1], head_dim=heads[2], hidden_dim=config.scorer_dim, device=device
    )
