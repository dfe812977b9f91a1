"""DAT+ of T2Diff's Table 2: the regular two-tower with DAT's augmented vectors and adaptive-mimic loss.

DAT is "A Dual Augmented Two-Tower Model for Online Large-Scale Recommendation" (DLP-KDD 2021): every user and every item has a
vector of its own, which learns what the other tower said about its positives and is part of its own tower's input.
"""

# B rows, M items, J history positions of the batch, D width of a behaviour, U width of the pooled user features, C width of the
# towers' outputs and of the augmented vectors

from dataclasses import dataclass, field

import torch

from models.layers.din import mean_pool
from models.layers.mlp import Tower, TowerConfig
from models.losses import adaptive_mimic
from models.matching_model import MatchingModel
from models.tasks import MatchingLossConfig
from models.types import InputDims, ItemInputs, MatchForward, UserInputs, without_cloze


@dataclass(frozen=True, kw_only=True)
class DATPlusConfig:
    """Hyper-parameters of DATPlus.

    Raises:
        ValueError: a field is outside its allowed range.
    """

    hidden_dims: tuple[int, ...] = (64,)
    """Hidden widths of both towers."""
    user_mimic_weight: float = 0.5
    """λ_1 of DAT's loss, for what users' vectors learn of items."""
    item_mimic_weight: float = 0.5
    """λ_2 of DAT's loss, for what items' vectors learn of users."""
    loss: MatchingLossConfig = field(default_factory=MatchingLossConfig)
    """Softmax over the catalogue (T2Diff eq. 24), in place of DAT's pointwise loss."""

    def __post_init__(self) -> None:
        if any(width < 1 for width in self.hidden_dims):
            raise ValueError(f"DATPlusConfig.hidden_dims={self.hidden_dims}, expected widths of at least 1")
        for name in ("user_mimic_weight", "item_mimic_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"DATPlusConfig.{name}={getattr(self, name)}, expected at least 0")


class DATPlus(MatchingModel):
    """Two multilayer perceptrons and, for each user and item, an augmented vector.

    An id's row of its table holds both of its vectors: the first C = D/2 numbers are the augmented vector, the rest is the
    embedding. So the user's id comes first among the pooled user features and the item's id first in a behaviour, and tables are
    twice as wide as those of a model without augmented vectors. A history knows the embeddings alone.

    A user who was never trained on has the augmented vector that its row started with.

    Args:
        config: hyper-parameters.
        dims: widths of the inputs.
        device: where the parameters live.

    Raises:
        ValueError: the inputs lack a history or a user's id, or a behaviour's width is odd.

    Example::

        model = DATPlus(DATPlusConfig(), dims=InputDims(profile=64, attributes=0, position=64, history_len=50))
        user_BC = model.user_vectors(users, torch.empty(num_users, 0))  # [B, 32]
    """

    def __init__(self, config: DATPlusConfig, *, dims: InputDims, device: torch.device | None = None) -> None:
        super().__init__(dims)
        if dims.position % 2 or dims.profile < dims.position // 2:
            raise ValueError(
                "DATPlus needs a history of vectors of even width, and the user's id, whose vector is at least half as wide: "
                f"name it in embeddings.features; the inputs are {dims}"
            )
        self.dim = dims.position // 2
        self.weights = (config.user_mimic_weight, config.item_mimic_weight)
        tower = TowerConfig(hidden_dims=(*config.hidden_dims, self.dim), norm="none", last_activation=False)
        self.user_mlp = Tower(tower, input_dim=dims.profile + dims.position - self.dim, device=device)
        self.item_mlp = Tower(tower, input_dim=dims.attributes + dims.position, device=device)

    def forward(self, users: UserInputs, items: ItemInputs, noise_BX: torch.Tensor, uniform_B: torch.Tensor) -> MatchForward:
        """User vectors of B rows, and how far the augmented vectors are from what the other towers say.

        Args:
            users: B rows.
            items: the target of each row, a positive.
            noise_BX: [B, 0], of no use to it.
            uniform_B: of no use to it.
        """
        user_BC, item_BC = self.user_vectors(users, noise_BX), self.item_vectors(items)
        label_B = torch.ones_like(uniform_B)
        user_loss_B = adaptive_mimic(users.profile_BU[:, : self.dim], item_BC, label_B)
        item_loss_B = adaptive_mimic(items.item_BD[:, : self.dim], user_BC, label_B)
        return without_cloze(user_BC, self.weights[0] * user_loss_B + self.weights[1] * item_loss_B)

    @torch.jit.export
    def user_vectors(self, users: UserInputs, noise_BX: torch.Tensor) -> torch.Tensor:  # noqa: ARG002  (the contract)
        """p_u of B users, [B, C]; the noise [B, 0] is of no use to it."""
        pooled_BX = mean_pool(users.history_JD[:, self.dim :], users.history_lengths_B)
        return self.user_mlp(torch.cat([users.profile_BU, pooled_BX], dim=1))  # z_u = [a_u, features]

    @torch.jit.export
    def item_vectors(self, items: ItemInputs) -> torch.Tensor:
        """p_v of M items, [M, C]."""
        return self.item_mlp(torch.cat([items.attributes_BA, items.item_BD], dim=1))  # z_v = [a_v, features]
