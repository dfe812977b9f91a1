"""BERT4Rec, "BERT4Rec: Sequential Recommendation with Bidirectional Encoder Representations from Transformer" (CIKM 2019)."""

# B rows, M items, J behaviours of all histories, L places of the padded history (newest last), S = L + 1 places with that of
# the next item behind them, A places that ask, D width of a behaviour, X hidden behaviours, in forward's noise numbers of it

import statistics
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import nn

from models.layers.padding import right_aligned, valid_places
from models.layers.transformer import EncoderLayer
from models.matching_model import MatchingModel
from models.tasks import MatchingLossConfig
from models.types import InputDims, ItemInputs, MatchForward, UserInputs


@dataclass(frozen=True, kw_only=True)
class BERT4RecConfig:
    """Hyper-parameters of BERT4Rec; defaults are the paper's, and those of the authors' program for MovieLens-1M.

    Raises:
        ValueError: a field is outside its allowed range.
    """

    num_layers: int = 2
    """Transformer layers."""
    num_heads: int = 2
    """Heads of each."""
    hidden_dim: int = 128
    """Width inside the feed-forward networks; four times that of a behaviour."""
    dropout: float = 0.2
    """Share of the inputs, of attention's weights and of each sub-layer's outputs dropped in training."""
    mask_share: float = 0.2
    """ρ: how likely a behaviour is hidden in training, to be found again."""
    whole_share: float = 0.5
    """Share of the rows whose history stays whole in training, as it is served: section 3.6's samples with the last item masked."""
    loss: MatchingLossConfig = field(default_factory=MatchingLossConfig)
    """Softmax over the catalogue, which must be the full one."""

    def __post_init__(self) -> None:
        for name in ("num_layers", "num_heads", "hidden_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"BERT4RecConfig.{name}={getattr(self, name)}, expected at least 1")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"BERT4RecConfig.dropout={self.dropout}, expected 0 <= dropout < 1")
        for name in ("mask_share", "whole_share"):
            if not 0.0 < getattr(self, name) < 1.0:
                raise ValueError(f"BERT4RecConfig.{name}={getattr(self, name)}, expected 0 < {name} < 1")


class BERT4Rec(MatchingModel):
    """A transformer that looks both ways; what it says at a [mask] is to find what the mask hides.

    One [mask] stands behind the history, in the place of the next item: its output is the user vector. In training others hide some
    of the history's behaviours, whose mean loss (eq. 8) counts as much as the next item's. Items have one vector for input and
    output (section 3.5), and no b^O, which a dot product cannot have.

    Args:
        config: hyper-parameters.
        dims: widths of the inputs; pooled user and item features and the history's context are not used.
        device: where the parameters live.

    Raises:
        ValueError: the inputs lack a history, or num_heads does not divide a behaviour's width.

    Example::

        model = BERT4Rec(BERT4RecConfig(), dims=InputDims(profile=0, attributes=0, position=32, history_len=50))
        user_BD = model.user_vectors(users, torch.empty(num_users, 0))
    """

    def __init__(self, config: BERT4RecConfig, *, dims: InputDims, device: torch.device | None = None) -> None:
        super().__init__(dims)
        dim = dims.position
        self.whole_share = config.whole_share
        self.hidden_below: float = statistics.NormalDist().inv_cdf(config.mask_share)
        """Standard normals below it are the share that is hidden."""
        self.mask_D = nn.Parameter(torch.empty(dim, device=device))
        self.position_SD = nn.Parameter(torch.empty(dims.history_len + 1, dim, device=device))
        self.norm_in = nn.LayerNorm(dim, device=device)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(
            EncoderLayer(
                dim,
                num_heads=config.num_heads,
                hidden_dim=config.hidden_dim,
                dropout=config.dropout,
                activation="gelu",
                device=device,
            )
            for _ in range(config.num_layers)
        )
        self.project_out = nn.Linear(dim, dim, device=device)
        self.norm_out = nn.LayerNorm(dim, device=device)
        self.predicts_history = True
        self.training_noise_size = dims.history_len  # one number for each place
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Small positions and mask, as embeddings start."""
        nn.init.normal_(self.position_SD, std=0.02)
        nn.init.normal_(self.mask_D, std=0.02)

    def forward(self, users: UserInputs, items: ItemInputs, noise_BX: torch.Tensor, uniform_B: torch.Tensor) -> MatchForward:  # noqa: ARG002  (the contract)
        """User vectors of B rows, and what finds the behaviours that are hidden from it.

        Args:
            users: B rows.
            items: of no use to it.
            noise_BX: standard normal [B, training_noise_size]: picks the behaviours to hide.
            uniform_B: in [0, 1): picks the rows whose history stays whole.
        """
        valid_BL = valid_places(users.history_lengths_B, self.history_len)
        hidden_BL = (noise_BX < self.hidden_below) & valid_BL & (uniform_B >= self.whole_share).unsqueeze(1)
        output_BSD = self._outputs(users, valid_BL, hidden_BL, self.history_len + 1)
        place_X = hidden_BL[valid_BL].nonzero().squeeze(1)
        share_B1 = 1.0 / hidden_BL.sum(dim=1, keepdim=True).clamp(min=1)  # 1 / |S_m| of eq. 8
        weight_X = share_B1.expand(-1, self.history_len)[hidden_BL]
        return MatchForward(output_BSD[:, -1], uniform_B * 0.0, output_BSD[:, :-1][hidden_BL], place_X, weight_X)

    @torch.jit.export
    def user_vectors(self, users: UserInputs, noise_BX: torch.Tensor) -> torch.Tensor:  # noqa: ARG002  (the contract)
        """What comes out at the [mask] behind the whole history, [B, D]; the noise [B, 0] is of no use to it."""
        valid_BL = valid_places(users.history_lengths_B, self.history_len)
        return self._outputs(users, valid_BL, torch.zeros_like(valid_BL), 1).squeeze(1)

    def _outputs(self, users: UserInputs, valid_BL: torch.Tensor, hidden_BL: torch.Tensor, asking: int) -> torch.Tensor:
        """What comes out at the last `asking` places, [B, A, D], with [mask] in place of the hidden behaviours."""
        history_BLD = right_aligned(users.history_JD, users.history_lengths_B, self.history_len)
        history_BLD = torch.where(hidden_BL.unsqueeze(2), self.mask_D, history_BLD)
        sequence_BSD = torch.cat([history_BLD, self.mask_D.expand(history_BLD.shape[0], 1, -1)], dim=1)
        # v + p of section 3.4; both norms outside the layers are the authors' program's, as in BERT
        sequence_BSD = self.dropout(self.norm_in(sequence_BSD + self.position_SD))
        allowed_BS = torch.cat([valid_BL, torch.ones_like(valid_BL[:, :1])], dim=1)
        for depth, layer in enumerate(self.layers):
            last = depth == len(self.layers) - 1
            # nobody looks at more of the last layer's places
            places = asking if last else self.history_len + 1
            sequence_BSD = layer(sequence_BSD, allowed_BS.unsqueeze(1).expand(-1, places, -1))
        return self.norm_out(F.gelu(self.project_out(sequence_BSD)))  # eq. 7
