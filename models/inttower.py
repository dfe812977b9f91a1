"""IntTower, "IntTower: The Next Generation of Two-Tower Model for Pre-Ranking System" (CIKM 2022).

What the paper leaves open is as its authors' program has it: the item's last layer is projected once for all layers of the user,
and the logit has a bias. Two things are not: the program feeds the FE-Block each user layer's input instead of its output, and its
contrastive loss takes the label for the positive's place in the batch, and is a mean beside a sum over thousands of rows, so that
it hardly counts. Mean ratings, which know the labels of the test set, are no features here.
"""

# B rows (score: any leading dimensions, which broadcast), J history positions of the batch, D width of a position, U and A widths
# of the pooled user and item features, L layers of a tower, C width of the last one, H = L·H_u user heads, V item heads, P head
# width, K candidates

from dataclasses import dataclass, field

import torch
from torch import nn

from models.layers.din import mean_pool
from models.layers.mlp import Tower, TowerConfig
from models.layers.similarity import sum_max
from models.layers.squeeze_excitation import LightSE
from models.losses import contrastive_interaction
from models.types import InputDims, ItemInputs, ItemVectors, ScoreForward, UserInputs


@dataclass(frozen=True, kw_only=True)
class IntTowerConfig:
    """Hyper-parameters of IntTower.

    Raises:
        ValueError: a field is outside its allowed range.
    """

    tower: TowerConfig = field(default_factory=TowerConfig)
    """Both towers' layers (FIT section 5.1.4)."""
    num_user_heads: int = 16
    """H_u, for each layer of the user tower."""
    num_item_heads: int = 16
    """H_v; with head_dim 64 an item takes 8 times as many numbers as Two-Tower's 128, as FIT's Table 2 has it."""
    head_dim: int = 64
    """P."""
    contrast_weight: float = 1.0
    """Of the contrastive interaction regulariser, beside the cross-entropy; both are means over all rows, negatives too."""
    contrast_temperature: float = 0.07
    """What the regulariser's cosines are divided by; the authors' program."""

    def __post_init__(self) -> None:
        for name in ("num_user_heads", "num_item_heads", "head_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"IntTowerConfig.{name}={getattr(self, name)}, expected at least 1")
        if self.contrast_weight < 0:
            raise ValueError(f"IntTowerConfig.contrast_weight={self.contrast_weight}, expected at least 0")
        if self.contrast_temperature <= 0:
            raise ValueError(f"IntTowerConfig.contrast_temperature={self.contrast_temperature}, expected more than 0")


class IntTower(nn.Module):
    """Two towers whose fields Light-SE weights, and whose FE-Block compares each layer of the user with the item's last one.

    Args:
        config: hyper-parameters.
        dims: widths of the inputs, with their fields.
        device: where the parameters live.

    Raises:
        ValueError: the inputs' fields are not known.

    Example::

        task = build_task(IntTowerConfig(), schema=Schema.load(Path("data/ml1m")))
        loss, out = task(batch)
    """

    def __init__(self, config: IntTowerConfig, *, dims: InputDims, device: torch.device | None = None) -> None:
        super().__init__()
        user_widths, item_widths = ([width for _, width in fields] for fields in (dims.user_fields, dims.item_fields))
        hidden_dims, self.head_dim = config.tower.hidden_dims, config.head_dim
        self.user_light_se = LightSE(user_widths, device=device)
        self.item_light_se = LightSE(item_widths, device=device)
        self.user_mlp = Tower(config.tower, input_dim=sum(user_widths), device=device)
        self.item_mlp = Tower(config.tower, input_dim=sum(item_widths), device=device)
        user_heads = [nn.Linear(width, config.num_user_heads * config.head_dim, device=device) for width in hidden_dims]
        self.user_heads = nn.ModuleList(user_heads)
        self.item_heads = nn.Linear(hidden_dims[-1], config.num_item_heads * config.head_dim, device=device)
        self.bias = nn.Parameter(torch.empty((), device=device))
        self.contrast_weight, self.contrast_temperature = config.contrast_weight, config.contrast_temperature
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Projections so small that logits start near 0 with any number of heads, as the sum over all of them grows with it."""
        nn.init.zeros_(self.bias)
        num_heads = sum(project.out_features for project in self.user_heads) // self.head_dim
        for project in (*self.user_heads, self.item_heads):
            nn.init.normal_(project.weight, std=(project.in_features * num_heads * self.head_dim**0.5) ** -0.5)
            nn.init.zeros_(project.bias)

    def user_layers(self, users: UserInputs) -> list[torch.Tensor]:
        """h_u of every layer, the last one's [B, C]."""
        pooled_BD = mean_pool(users.history_JD, users.history_lengths_B)
        return self.user_mlp.every_layer(self.user_light_se(torch.cat([users.profile_BU, pooled_BD], dim=1)))

    def item_tower(self, items: ItemInputs) -> torch.Tensor:
        """h_v of the last layer, [B, C]."""
        return self.item_mlp(self.item_light_se(torch.cat([items.attributes_BA, items.item_BD], dim=1)))

    def project_user(self, layers: list[torch.Tensor]) -> torch.Tensor:
        """Each layer's heads, [B, H, P]."""
        heads = [project(layers[place]) for place, project in enumerate(self.user_heads)]
        return torch.cat(heads, dim=1).unflatten(1, (-1, self.head_dim))

    def project_item(self, item_BC: torch.Tensor) -> torch.Tensor:
        """[B, V, P]."""
        return self.item_heads(item_BC).unflatten(1, (-1, self.head_dim))

    def score(self, user_BHP: torch.Tensor, item_BVP: torch.Tensor) -> torch.Tensor:
        """FE-Block: each user head of each layer with the item head that suits it best; [..., H, P] and [..., V, P] to [...]."""
        return sum_max(user_BHP, item_BVP) + self.bias

    def forward(self, users: UserInputs, items: ItemInputs, label_B: torch.Tensor) -> ScoreForward:
        """Logit of each row and, in training, what its contrastive interaction adds to the loss; labels, 1 or 0, float [B]."""
        layers, item_BC = self.user_layers(users), self.item_tower(items)
        logit_B = self.score(self.project_user(layers), self.project_item(item_BC))
        auxiliary_B = torch.zeros_like(logit_B)
        if self.training:
            contrast_B = contrastive_interaction(layers[-1], item_BC, label_B, temperature=self.contrast_temperature)
            auxiliary_B = self.contrast_weight * contrast_B
        return ScoreForward(logit_B, auxiliary_B)

    @torch.jit.export
    def all_user_vectors(self, users: UserInputs) -> torch.Tensor:
        """The heads of all layers in the shape that models with meta queries have, [B, 1, H, P]."""
        return self.project_user(self.user_layers(users)).unsqueeze(1)

    @torch.jit.export
    def item_vectors(self, items: ItemInputs) -> ItemVectors:
        """What the item store keeps, the item's V heads; the index is 0."""
        item_BVP = self.project_item(self.item_tower(items))
        return ItemVectors(torch.zeros(item_BVP.shape[0], dtype=torch.int64, device=item_BVP.device), item_BVP)

    @torch.jit.export
    def score_candidates(
        self,
        user_B1HP: torch.Tensor,
        index_BK: torch.Tensor,  # noqa: ARG002  (as FIT's)
        item_BKVP: torch.Tensor,
    ) -> torch.Tensor:
        """Logits [B, K] of K candidates per user; index_BK, all 0, is not looked at."""
        return self.score(user_B1HP, item_BKVP)

    def schedule(self, step: int, steps_per_epoch: int) -> None:
        """Nothing of this model follows the step."""

    def log_values(self) -> dict[str, float]:
        """Bias of the logit."""
        return {"bias": self.bias.item()}
