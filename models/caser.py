"""Caser, "Personalized Top-N Sequential Recommendation via Convolutional Sequence Embedding" (WSDM 2018)."""

# B rows, M items, J behaviours of all histories, W newest behaviours that are looked at (the paper's L), D width of a behaviour,
# U width of the pooled user features, N filters of a height, V vertical filters

from dataclasses import dataclass, field

import torch
from torch import nn

from models.layers.padding import right_aligned
from models.matching_model import MatchingModel
from models.tasks import MatchingLossConfig
from models.types import InputDims, UserInputs


@dataclass(frozen=True, kw_only=True)
class CaserConfig:
    """Hyper-parameters of Caser; defaults are those of the authors' program for MovieLens-1M.

    Raises:
        ValueError: a field is outside its allowed range.
    """

    window: int = 5
    """L, the newest behaviours that it looks at; zeros stand for those that a row lacks."""
    num_horizontal: int = 16
    """n / L, horizontal filters of each height from 1 to L."""
    num_vertical: int = 4
    """ñ, vertical filters."""
    dropout: float = 0.5
    """Share of the filters' outputs dropped in training."""
    loss: MatchingLossConfig = field(default_factory=MatchingLossConfig)
    """Softmax over the catalogue of the next item, in place of the paper's binary cross-entropy of the next T items."""

    def __post_init__(self) -> None:
        for name in ("window", "num_horizontal", "num_vertical"):
            if getattr(self, name) < 1:
                raise ValueError(f"CaserConfig.{name}={getattr(self, name)}, expected at least 1")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"CaserConfig.dropout={self.dropout}, expected 0 <= dropout < 1")


class Caser(MatchingModel):
    """Convolutions over the newest behaviours as an image of W × D, beside the user's own vector.

    Items have one vector, as input and as what is found, and W′ maps [z, P_u] to its width; the paper's output layer has another
    vector, of twice the width, and a bias for each item.

    Args:
        config: hyper-parameters.
        dims: widths of the inputs; the pooled user features are P_u, without any a user is the history alone; pooled item
            features and the history's context are not used.
        device: where the parameters live.

    Raises:
        ValueError: the inputs lack a history, or one as long as the window.

    Example::

        model = Caser(CaserConfig(), dims=InputDims(profile=32, attributes=0, position=32, history_len=50))
        user_BD = model.user_vectors(users, torch.empty(num_users, 0))
    """

    def __init__(self, config: CaserConfig, *, dims: InputDims, device: torch.device | None = None) -> None:
        super().__init__(dims)
        if dims.history_len < config.window:
            raise ValueError(
                f"CaserConfig.window={config.window} is longer than a history, {dims.history_len}; choose a shorter one"
            )
        dim = dims.position
        self.window = config.window
        self.horizontal = nn.ModuleList(
            nn.Conv1d(dim, config.num_horizontal, height, device=device) for height in range(1, config.window + 1)
        )
        self.vertical = nn.Linear(config.window, config.num_vertical, bias=False, device=device)
        self.dropout = nn.Dropout(config.dropout)
        width = config.window * config.num_horizontal + config.num_vertical * dim
        self.hidden = nn.Linear(width, dim, device=device)
        self.output = nn.Linear(dim + dims.profile, dim, device=device)

    @torch.jit.export
    def user_vectors(self, users: UserInputs, noise_BX: torch.Tensor) -> torch.Tensor:  # noqa: ARG002  (the contract)
        """User vectors of B users, [B, D]; the noise [B, 0] is of no use to it."""
        history_BLD = right_aligned(users.history_JD, users.history_lengths_B, self.history_len)
        newest_BDW = history_BLD[:, -self.window :].transpose(1, 2)  # eq. 3
        found: list[torch.Tensor] = []
        for filters in self.horizontal:
            found.append(torch.relu(filters(newest_BDW)).amax(dim=2))  # eq. 4-6
        found.append(self.vertical(newest_BDW).flatten(1))  # eq. 7-9
        z_BD = torch.relu(self.hidden(self.dropout(torch.cat(found, dim=1))))  # eq. 10
        return self.output(torch.cat([z_BD, users.profile_BU], dim=1))  # eq. 11
