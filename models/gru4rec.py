"""GRU4Rec, "Session-based Recommendations with Recurrent Neural Networks" (ICLR 2016), and its softmax loss (CIKM 2018)."""

# B rows, M items, L places of the padded history (oldest first), J behaviours of all histories, D width of a behaviour,
# H units of the recurrent layer

from dataclasses import dataclass, field

import torch
from torch import nn

from models.layers.every_position import at_every_position
from models.layers.padding import left_aligned
from models.matching_model import MatchingModel
from models.tasks import MatchingLossConfig
from models.types import InputDims, ItemInputs, MatchForward, UserInputs, without_cloze


@dataclass(frozen=True, kw_only=True)
class GRU4RecConfig:
    """Hyper-parameters of GRU4Rec.

    Raises:
        ValueError: a field is outside its allowed range.
    """

    num_layers: int = 1
    """GRU layers; the paper found one to be best."""
    hidden_dim: int = 100
    """H; the paper tries 100 and 1000."""
    dropout: float = 0.5
    """Share of the states dropped in training before the output layer, and between layers; the paper's for its TOP1 loss."""
    all_positions: bool = False
    """Whether every behaviour of a history is predicted from those before it, as in the paper, which has one row for each session.
    False: a row teaches its own target alone, see SASRecConfig.all_positions."""
    loss: MatchingLossConfig = field(default_factory=MatchingLossConfig)
    """Softmax over the catalogue: GRU4Rec+'s cross-entropy with every item as a negative, not a sample of them."""

    def __post_init__(self) -> None:
        for name in ("num_layers", "hidden_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"GRU4RecConfig.{name}={getattr(self, name)}, expected at least 1")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"GRU4RecConfig.dropout={self.dropout}, expected 0 <= dropout < 1")


class GRU4Rec(MatchingModel):
    """Gated recurrent units over the history, and a feed-forward layer from the last state to the user vector (Fig. 1).

    As GRU4Rec+'s "constrained embedding", an item has one vector, as input and as what is found.

    Args:
        config: hyper-parameters.
        dims: widths of the inputs; pooled user and item features and the history's context are not used.
        device: where the parameters live.

    Raises:
        ValueError: the inputs lack a history.

    Example::

        model = GRU4Rec(GRU4RecConfig(), dims=InputDims(profile=0, attributes=0, position=32, history_len=50))
        user_BD = model.user_vectors(users, torch.empty(num_users, 0))
    """

    def __init__(self, config: GRU4RecConfig, *, dims: InputDims, device: torch.device | None = None) -> None:
        super().__init__(dims)
        self.hidden_dim = config.hidden_dim
        self.gru = nn.GRU(
            dims.position,
            config.hidden_dim,
            config.num_layers,
            batch_first=True,
            dropout=config.dropout if config.num_layers > 1 else 0.0,
            device=device,
        )
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(config.hidden_dim, dims.position, device=device)
        self.predicts_history = config.all_positions

    def forward(self, users: UserInputs, items: ItemInputs, noise_BX: torch.Tensor, uniform_B: torch.Tensor) -> MatchForward:  # noqa: ARG002  (the contract)
        """User vectors of B rows, and with `all_positions` what finds the behaviours of their histories.

        Args:
            users: B rows.
            items: of no use to it.
            noise_BX: [B, 0], of no use to it.
            uniform_B: of no use to it.
        """
        if not self.predicts_history:
            return without_cloze(self.user_vectors(users, noise_BX), uniform_B * 0.0)
        lengths_B = users.history_lengths_B
        state_BLH = self._states(users)
        valid_BL = torch.arange(self.history_len, device=lengths_B.device) < lengths_B.unsqueeze(1)
        return at_every_position(
            self.output(self.dropout(self._newest(state_BLH, lengths_B))), self.output(self.dropout(state_BLH[valid_BL])), lengths_B
        )

    @torch.jit.export
    def user_vectors(self, users: UserInputs, noise_BX: torch.Tensor) -> torch.Tensor:  # noqa: ARG002  (the contract)
        """User vectors of B users, [B, D]; the noise [B, 0] is of no use to it."""
        return self.output(self.dropout(self._newest(self._states(users), users.history_lengths_B)))

    def _states(self, users: UserInputs) -> torch.Tensor:
        """h_t of the last layer after each behaviour, [B, L, H]; the states after the newest one have no meaning.

        PyTorch's unit is eq. 2-5 but for two details: its z is the paper's 1 − z, and r gates U h rather than h.
        """
        history_BLD = left_aligned(users.history_JD, users.history_lengths_B, self.history_len)
        state_BLH, _ = self.gru(history_BLD)
        return state_BLH

    def _newest(self, state_BLH: torch.Tensor, lengths_B: torch.Tensor) -> torch.Tensor:
        """The state h after the newest behaviour, [B, H]; the initial 0 without a history."""
        index_B1H = (lengths_B - 1).clamp(min=0).reshape(-1, 1, 1).expand(-1, 1, self.hidden_dim)
        return state_BLH.gather(1, index_B1H).squeeze(1).masked_fill((lengths_B == 0).unsqueeze(1), 0.0)
