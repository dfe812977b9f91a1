"""DAT, "A Dual Augmented Two-Tower Model for Online Large-Scale Recommendation" (DLP-KDD 2021), as FIT compares it.

Every user and every item has an augmented vector, which learns what the other tower said about its positives and is part of its
own tower's input. FIT (section 5.3): augmented vectors are as wide as the towers' outputs, which are narrower than the other
models', a quarter of Two-Tower's (Table 2).
"""

# B rows, J history positions of the batch, F fields of a tensor, D width of a table's row, U and A widths of the pooled user and
# item features, C width of the towers' outputs and of the augmented vectors, E = D − C, N = H = 1, P = C, K candidates

from dataclasses import dataclass, field, replace

import torch
from torch import nn

from models.layers.mlp import TowerConfig
from models.losses import adaptive_mimic, category_alignment
from models.two_tower import TwoTower, TwoTowerConfig
from models.types import InputDims, ItemInputs, ItemVectors, ScoreForward, UserInputs, without_auxiliary


@dataclass(frozen=True, kw_only=True)
class DATConfig:
    """Hyper-parameters of DAT.

    Raises:
        ValueError: a field is outside its allowed range.
    """

    tower: TowerConfig = field(default_factory=lambda: TowerConfig(hidden_dims=(300, 300)))
    """Both towers' layers but the last, a linear map to the width of the augmented vectors: these may have either sign."""
    augmented_dim: int | None = None
    """C, less than the width of a table's row; None: half of it."""
    user_mimic_weight: float = 0.5
    """λ_1, for what users' vectors learn of items."""
    item_mimic_weight: float = 0.5
    """λ_2, for what items' vectors learn of users."""
    alignment_weight: float = 1.0
    """λ_3, of the category alignment loss."""
    user: str = "user"
    """The user feature whose rows hold users' augmented vectors; the first one of the inputs."""
    item: str = "item"
    """The item feature whose rows hold items' augmented vectors; the first one of those that the history has too."""
    category: str = "category"
    """The item feature whose ids are the categories; one that the history has too."""
    category_rows: int = 2
    """Rows of a batch that a category needs to be aligned. Two have a covariance; of fewer than C rows it is mostly chance."""

    def __post_init__(self) -> None:
        if not self.tower.last_activation:
            raise ValueError("DATConfig.tower.last_activation=False, expected True: a linear map follows these layers, as it is")
        if self.augmented_dim is not None and self.augmented_dim < 1:
            raise ValueError(f"DATConfig.augmented_dim={self.augmented_dim}, expected at least 1, or None")
        for name in ("user_mimic_weight", "item_mimic_weight", "alignment_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"DATConfig.{name}={getattr(self, name)}, expected at least 0")
        if self.category_rows < 2:
            raise ValueError(f"DATConfig.category_rows={self.category_rows}, expected at least 2")


class DAT(nn.Module):
    """Two-Tower over widened inputs, [a_u, user features] and [a_v, item features], with narrower outputs.

    An id's row of its table holds both of its vectors: the first C numbers are the augmented vector, the other E are the embedding.
    So the user's id comes first among the pooled user features and the item's id first among the features that behaviours have
    too, and `embeddings.dim` is C + E. Of the other features' rows, and of behaviours, the model knows the embeddings alone.

    The category alignment loss needs to know which rows of a batch have items of one category: those whose vectors of the feature
    `category` are equal, since they are the same row of its table.

    The alignment is that of the rows of one rank: unlike the other losses it is not the same for every number of ranks.

    A user or item that was never trained on has the augmented vector that its row started with.

    Args:
        config: hyper-parameters.
        dims: widths of the inputs, with their fields.
        device: where the parameters live.

    Raises:
        ValueError: the inputs lack the user's id, the item's id or its category, or their rows are no wider than C.

    Example::

        fields = {"profile_fields": (("user", 48),), "position_fields": (("item", 48), ("category", 48))}
        dims = InputDims(profile=48, attributes=0, position=96, **fields)
        logit_B, auxiliary_B = DAT(DATConfig(augmented_dim=32), dims=dims)(users, items, label_B)
    """

    def __init__(self, config: DATConfig, *, dims: InputDims, device: torch.device | None = None) -> None:
        super().__init__()
        self.row_dim = _row_dim(config, dims)
        self.dim = config.augmented_dim or self.row_dim // 2
        self.category = _place_of(config.category, dims)
        if not 0 < self.dim < self.row_dim:
            raise ValueError(
                f"DATConfig.augmented_dim={config.augmented_dim} leaves no embedding in rows of width {self.row_dim}: a row holds "
                "an augmented vector and then an embedding; raise embeddings.dim"
            )
        self.mimic_weights = (config.user_mimic_weight, config.item_mimic_weight)
        self.alignment_weight, self.category_rows = config.alignment_weight, config.category_rows
        profile, attributes, position = [
            total // self.row_dim * (self.row_dim - self.dim) for total in (dims.profile, dims.attributes, dims.position)
        ]
        self.towers = TwoTower(
            TwoTowerConfig(tower=replace(config.tower, hidden_dims=(*config.tower.hidden_dims, self.dim), last_activation=False)),
            dims=InputDims(profile=self.dim + profile, attributes=self.dim + attributes, position=position),
            device=device,
        )

    def forward(self, users: UserInputs, items: ItemInputs, label_B: torch.Tensor) -> ScoreForward:
        """Logit of each row, and in training λ_1·L_u + λ_2·L_v + λ_3·L_CA.

        Args:
            users: B rows.
            items: B rows.
            label_B: 1 for a positive, else 0, float [B].
        """
        scorer = self.towers.scorer
        user_B1C = scorer.project_user(self.towers.user_tower(self.tower_users(users)))  # p_u
        item_B1C = scorer.project_item(self.towers.item_tower(self.tower_items(items)))  # p_v
        logit_B = scorer.score(user_B1C, item_B1C)
        if not self.training:
            return without_auxiliary(logit_B)
        user_loss_B = adaptive_mimic(users.profile_BU[:, : self.dim], item_B1C.squeeze(1), label_B)
        item_loss_B = adaptive_mimic(items.item_BD[:, : self.dim], user_B1C.squeeze(1), label_B)
        start = self.category * self.row_dim
        category_BD = items.item_BD[:, start : start + self.row_dim].detach()
        alignment = category_alignment(item_B1C.squeeze(1), category_BD, min_rows=self.category_rows)
        mimic_B = self.mimic_weights[0] * user_loss_B + self.mimic_weights[1] * item_loss_B
        return ScoreForward(logit_B, mimic_B + self.alignment_weight * alignment)

    @torch.jit.export
    def tower_users(self, users: UserInputs) -> UserInputs:
        """z_u = [a_u, features], [B, C + F·E], and behaviours of embeddings alone."""
        profile_BU = torch.cat([users.profile_BU[:, : self.dim], self._embeddings(users.profile_BU)], dim=1)
        return UserInputs(profile_BU, self._embeddings(users.history_JD), users.history_lengths_B, users.context_JF)

    @torch.jit.export
    def tower_items(self, items: ItemInputs) -> ItemInputs:
        """z_v = [a_v, features]."""
        attributes_BA = torch.cat([items.item_BD[:, : self.dim], self._embeddings(items.attributes_BA)], dim=1)
        return ItemInputs(attributes_BA, self._embeddings(items.item_BD))

    def _embeddings(self, rows_BX: torch.Tensor) -> torch.Tensor:
        """[B, F·D] to [B, F·E]."""
        num_rows, num_fields = rows_BX.shape[0], rows_BX.shape[1] // self.row_dim
        return rows_BX.reshape(num_rows, num_fields, self.row_dim)[:, :, self.dim :].flatten(1)

    @torch.jit.export
    def all_user_vectors(self, users: UserInputs) -> torch.Tensor:
        """p_u, [B, 1, 1, C]."""
        return self.towers.all_user_vectors(self.tower_users(users))

    @torch.jit.export
    def item_vectors(self, items: ItemInputs) -> ItemVectors:
        """p_v for the item store; the index is 0."""
        return self.towers.item_vectors(self.tower_items(items))

    @torch.jit.export
    def score_candidates(self, user_BNHP: torch.Tensor, index_BK: torch.Tensor, item_BKHP: torch.Tensor) -> torch.Tensor:
        """As TwoTower.score_candidates."""
        return self.towers.score_candidates(user_BNHP, index_BK, item_BKHP)

    def schedule(self, step: int, steps_per_epoch: int) -> None:
        """Nothing of this model follows the step."""

    def log_values(self) -> dict[str, float]:
        """As TwoTower.log_values."""
        return self.towers.log_values()


def _row_dim(config: DATConfig, dims: InputDims) -> int:
    """Width of every table's row; the ids are where the model looks for them."""
    widths = {width for _, width in (*dims.profile_fields, *dims.attribute_fields, *dims.position_fields)}
    first = [fields[0][0] if fields else None for fields in (dims.profile_fields, dims.position_fields)]
    if first != [config.user, config.item] or len(widths) > 1:
        raise ValueError(
            f"DAT needs DATConfig.user={config.user!r} as the first user feature and DATConfig.item={config.item!r} as the first "
            f"item feature that behaviours have too, of tables of one width: name both in embeddings.features; inputs are {dims}"
        )
    return next(iter(widths))


def _place_of(category: str, dims: InputDims) -> int:
    """Of the category among the fields of item_BD."""
    names = [name for name, _ in dims.position_fields]
    if category not in names:
        raise ValueError(
            f"DATConfig.category={category!r} is no item feature that behaviours have too, which are {names}; name one of them"
        )
    return names.index(category)
