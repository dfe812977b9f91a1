"""SASRec, "Self-Attentive Sequential Recommendation" (ICDM 2018)."""

# B rows, M items, L places of the padded history (newest last), A places that ask, J behaviours of all histories, D width of a
# behaviour

from dataclasses import dataclass, field

import torch
from torch import nn

from models.layers.padding import right_aligned
from models.layers.transformer import EncoderLayer
from models.matching_model import CausalModel
from models.tasks import MatchingLossConfig
from models.types import InputDims, UserInputs


@dataclass(frozen=True, kw_only=True)
class SASRecConfig:
    """Hyper-parameters of SASRec; the defaults are the paper's (section IV-D).

    Raises:
        ValueError: a field is outside its allowed range.
    """

    num_layers: int = 2
    """b, self-attention blocks."""
    num_heads: int = 1
    """Heads of each; the paper found no gain in two."""
    dropout: float = 0.2
    """Share of the inputs, of attention's weights and of each sub-layer's outputs dropped in training; the
    paper's on ML-1M, on sparser data 0.5."""
    all_positions: bool = False
    """Whether every behaviour of a history is predicted from those before it, as in the paper, which has one row for each user.
    False: a row teaches its own target alone. Where every prefix of a history is a row, that is each behaviour once an epoch, as
    for all other models, and True would be up to L times as much."""
    loss: MatchingLossConfig = field(default_factory=MatchingLossConfig)
    """Softmax over the catalogue, in place of the paper's binary cross-entropy with one negative."""

    def __post_init__(self) -> None:
        for name in ("num_layers", "num_heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"SASRecConfig.{name}={getattr(self, name)}, expected at least 1")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"SASRecConfig.dropout={self.dropout}, expected 0 <= dropout < 1")


class SASRec(CausalModel):
    """A stack of causal self-attention; the newest behaviour's output is the user vector, the items' embeddings are theirs.

    Args:
        config: hyper-parameters.
        dims: widths of the inputs; pooled user and item features and the history's context are not used.
        device: where the parameters live.

    Raises:
        ValueError: the inputs lack a history, or num_heads does not divide a behaviour's width.

    Example::

        model = SASRec(SASRecConfig(), dims=InputDims(profile=0, attributes=0, position=32, history_len=50))
        user_BD = model.user_vectors(users, torch.empty(num_users, 0))
    """

    def __init__(self, config: SASRecConfig, *, dims: InputDims, device: torch.device | None = None) -> None:
        super().__init__(dims, all_positions=config.all_positions)
        dim = dims.position
        self.position_LD = nn.Parameter(torch.empty(dims.history_len, dim, device=device))
        self.dropout = nn.Dropout(config.dropout)
        # the paper's g(x) = x + Dropout(f(LayerNorm(x))) of section III-C, and as wide inside as outside
        self.layers = nn.ModuleList(
            EncoderLayer(dim, num_heads=config.num_heads, hidden_dim=dim, dropout=config.dropout, norm_first=True, device=device)
            for _ in range(config.num_layers)
        )
        self.norm = nn.LayerNorm(dim, device=device)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Small positions, as embeddings start."""
        nn.init.normal_(self.position_LD, std=0.02)

    def outputs(self, users: UserInputs, valid_BL: torch.Tensor, asking: int) -> torch.Tensor:
        """F^(b) of the newest `asking` places, [B, A, D]."""
        history_BLD = right_aligned(users.history_JD, users.history_lengths_B, self.history_len)
        # eq. 1, scaled as in the authors' program
        hidden_BLD = self.dropout(history_BLD * history_BLD.shape[2] ** 0.5 + self.position_LD)
        # causality of section III-B: a place sees itself and what is older
        causal_LL = torch.ones(self.history_len, self.history_len, dtype=torch.bool, device=valid_BL.device).tril()
        allowed_BLL = causal_LL & valid_BL.unsqueeze(1)
        for depth, layer in enumerate(self.layers):  # eq. 5
            last = depth == len(self.layers) - 1
            # nobody looks at more of the last block's places
            hidden_BLD = layer(hidden_BLD, allowed_BLL[:, -asking:] if last else allowed_BLL)
        return self.norm(hidden_BLD)
