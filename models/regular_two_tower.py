"""The regular two-tower for matching, the starting point of T2Diff's paper: the towers meet in a dot product and nowhere else.

The user tower is a network on the mean of the history and the pooled user features, as in "Deep Neural Networks for YouTube
Recommendations" (RecSys 2016), section 3.2; the item tower is one on the item's features.
"""

# B rows, M items, J history positions of the batch, D width of a behaviour, U and A widths of the pooled user and item features

from dataclasses import dataclass, field

import torch

from models.layers.din import mean_pool
from models.layers.mlp import Tower, TowerConfig
from models.matching_model import MatchingModel
from models.tasks import MatchingLossConfig
from models.types import InputDims, ItemInputs, UserInputs


@dataclass(frozen=True, kw_only=True)
class RegularTwoTowerConfig:
    """Hyper-parameters of RegularTwoTower; the paper names none.

    Raises:
        ValueError: a width is below 1.
    """

    hidden_dims: tuple[int, ...] = (64,)
    """Hidden widths of both towers; their outputs have the width of a behaviour."""
    loss: MatchingLossConfig = field(default_factory=MatchingLossConfig)
    """Softmax over the catalogue (T2Diff eq. 24)."""

    def __post_init__(self) -> None:
        if any(width < 1 for width in self.hidden_dims):
            raise ValueError(f"RegularTwoTowerConfig.hidden_dims={self.hidden_dims}, expected widths of at least 1")


class RegularTwoTower(MatchingModel):
    """Two multilayer perceptrons.

    Args:
        config: hyper-parameters.
        dims: widths of the inputs.
        device: where the parameters live.

    Raises:
        ValueError: the inputs lack a history.

    Example::

        model = RegularTwoTower(RegularTwoTowerConfig(), dims=InputDims(profile=0, attributes=0, position=32, history_len=50))
        user_BD = model.user_vectors(users, torch.empty(num_users, 0))
    """

    def __init__(self, config: RegularTwoTowerConfig, *, dims: InputDims, device: torch.device | None = None) -> None:
        super().__init__(dims)
        tower = TowerConfig(hidden_dims=(*config.hidden_dims, dims.position), norm="none", last_activation=False)
        self.user_mlp = Tower(tower, input_dim=dims.profile + dims.position, device=device)
        self.item_mlp = Tower(tower, input_dim=dims.attributes + dims.position, device=device)

    @torch.jit.export
    def user_vectors(self, users: UserInputs, noise_BX: torch.Tensor) -> torch.Tensor:  # noqa: ARG002  (the contract)
        """Vectors of B users, [B, D]; the noise [B, 0] is of no use to it."""
        pooled_BD = mean_pool(users.history_JD, users.history_lengths_B)
        return self.user_mlp(torch.cat([users.profile_BU, pooled_BD], dim=1))

    @torch.jit.export
    def item_vectors(self, items: ItemInputs) -> torch.Tensor:
        """Vectors of M items, [M, D]."""
        return self.item_mlp(torch.cat([items.attributes_BA, items.item_BD], dim=1))
