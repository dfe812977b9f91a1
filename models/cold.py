"""COLD, "COLD: Towards the Next Generation of Pre-Ranking System" (DLP-KDD 2020): one network on user and item together."""

# B rows, J history positions of the batch, D width of a position, U and A widths of the pooled user and item features,
# X = U + D and Y = A + D widths of a user's and an item's fields, M fields, C width of the last layer, K candidates

from dataclasses import dataclass, field

import torch
from torch import nn

from models.layers.din import mean_pool
from models.layers.mlp import Tower, TowerConfig
from models.layers.squeeze_excitation import SqueezeExcitation
from models.types import InputDims, ItemInputs, ItemVectors, ScoreForward, UserInputs, without_auxiliary


@dataclass(frozen=True, kw_only=True)
class COLDConfig:
    """Hyper-parameters of COLD; the layers are those of FIT's towers (FIT section 5.1.4), so that the models compare.

    Raises:
        ValueError: a field is outside its allowed range.
    """

    tower: TowerConfig = field(default_factory=TowerConfig)
    """Layers of the one network; a linear map to the logit follows them."""
    num_fields: int | None = None
    """How many fields of user and item are kept, those of the largest mean weight; None: all. The first epoch trains
    on all fields and settles which; what is evaluated, and served, knows the kept ones alone from the beginning."""

    def __post_init__(self) -> None:
        if self.num_fields is not None and self.num_fields < 1:
            raise ValueError(f"COLDConfig.num_fields={self.num_fields}, expected at least 1, or None for all")


class COLD(nn.Module):
    """A multilayer perceptron on all fields of user and item, each weighted by a squeeze-and-excitation block.

    There are no towers: what could be computed before a request comes are the inputs themselves. So in the contract of the
    pre-ranking models a user's vector is the user's fields, an item's vector the item's fields, both looked up, and
    `score_candidates` is the whole network, once for each candidate. COLD's cross features are those that the data have among the
    item's or the user's features.

    Args:
        config: hyper-parameters.
        dims: widths of the inputs, with their fields.
        device: where the parameters live.

    Raises:
        ValueError: more fields are to stay than there are, or the inputs' fields are not known.

    Example::

        task = build_task(COLDConfig(), schema=Schema.load(Path("data/ml1m")))
        loss, out = task(batch)
    """

    def __init__(self, config: COLDConfig, *, dims: InputDims, device: torch.device | None = None) -> None:
        super().__init__()
        fields = (*dims.user_fields, *dims.item_fields)
        if config.num_fields is not None and config.num_fields > len(fields):
            raise ValueError(f"COLDConfig.num_fields={config.num_fields}, expected at most {len(fields)}: the inputs have {fields}")
        self.single_tower: bool = True
        """Whether a user and an item meet before anything is computed, so that all there is to store of an item are its inputs."""
        self.num_fields = config.num_fields
        self.field_names = [name for name, _ in fields]
        widths = [width for _, width in fields]
        self.excitation = SqueezeExcitation(widths, device=device)
        self.network = Tower(config.tower, input_dim=sum(widths), device=device)
        self.output = nn.Linear(config.tower.hidden_dims[-1], 1, device=device)

    def user_row(self, users: UserInputs) -> torch.Tensor:
        """A user's fields beside each other, [B, X]."""
        return torch.cat([users.profile_BU, mean_pool(users.history_JD, users.history_lengths_B)], dim=1)

    def item_row(self, items: ItemInputs) -> torch.Tensor:
        """An item's fields beside each other, [B, Y]."""
        return torch.cat([items.attributes_BA, items.item_BD], dim=1)

    def score(self, user_BX: torch.Tensor, item_BY: torch.Tensor) -> torch.Tensor:
        """Logit of each row, [B]."""
        weighted_BZ = self.excitation(torch.cat([user_BX, item_BY], dim=1))
        return self.output(self.network(weighted_BZ)).squeeze(1)

    def forward(self, users: UserInputs, items: ItemInputs, label_B: torch.Tensor) -> ScoreForward:  # noqa: ARG002  (as DAT's)
        """Logit of each row; the labels, float [B], are of no use to it."""
        return without_auxiliary(self.score(self.user_row(users), self.item_row(items)))

    @torch.jit.export
    def all_user_vectors(self, users: UserInputs) -> torch.Tensor:
        """Each user's fields in the shape that models with meta queries have, [B, 1, 1, X]."""
        return self.user_row(users)[:, None, None]

    @torch.jit.export
    def item_vectors(self, items: ItemInputs) -> ItemVectors:
        """Each item's fields, [B, 1, Y]: what the network needs of it; the index is 0."""
        item_BY = self.item_row(items)
        return ItemVectors(torch.zeros(item_BY.shape[0], dtype=torch.int64, device=item_BY.device), item_BY.unsqueeze(1))

    @torch.jit.export
    def score_candidates(
        self,
        user_B11X: torch.Tensor,
        index_BK: torch.Tensor,
        item_BK1Y: torch.Tensor,
    ) -> torch.Tensor:
        """Logits [B, K] of K candidates per user, by one pass of the whole network for each pair; index_BK is all 0."""
        user_BKX = user_B11X[:, 0].expand(-1, index_BK.shape[1], -1)
        return self.score(user_BKX.flatten(0, 1), item_BK1Y.flatten(2).flatten(0, 1)).view(index_BK.shape)

    def schedule(self, step: int, steps_per_epoch: int) -> None:
        """Select the fields as the first epoch has it so far; `step` is the global optimizer step, counted from 0."""
        if self.num_fields is not None:
            self.excitation.sees_all = step < steps_per_epoch
            if step <= steps_per_epoch:
                self.excitation.select(self.num_fields)

    def log_values(self) -> dict[str, float]:
        """Mean weight of each field, what a choice of fields goes by; 0 for one that is not kept."""
        return {f"weight of {name}": weight for name, weight in zip(self.field_names, self.excitation.mean_weights(), strict=True)}
