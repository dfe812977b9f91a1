"""STOSA, "Sequential Recommendation via Stochastic Self-Attention" (WWW 2022): items are Gaussians, ranked by their distance."""

# B rows, M items, J history positions of the batch, L places of the padded history (newest last), A places that ask, D width of a
# behaviour, half of it a mean and half a covariance

from dataclasses import dataclass, field

import torch
from torch import nn

from models.layers.padding import right_aligned, valid_places
from models.layers.wasserstein import Gaussians, WassersteinLayer, points
from models.matching_model import MatchingModel
from models.tasks import MatchingLossConfig
from models.types import InputDims, ItemInputs, MatchForward, UserInputs, without_cloze


@dataclass(frozen=True, kw_only=True)
class STOSAConfig:
    """Hyper-parameters of STOSA; defaults are those of the authors' program where nothing else is said.

    Raises:
        ValueError: a field is outside its allowed range.
    """

    num_layers: int = 1
    """Wasserstein self-attention layers."""
    num_heads: int = 4
    """Heads of each."""
    hidden_dim: int = 128
    """Width inside the feed-forward networks; the program's is four times that of a mean."""
    dropout: float = 0.3
    """Share of the inputs, of attention's weights and of each sub-layer's outputs dropped in training."""
    margin_weight: float = 0.005
    """λ of the loss: how much it counts where a target is closer to another row's target than to the user."""
    loss: MatchingLossConfig = field(default_factory=MatchingLossConfig)
    """Softmax over the catalogue of −W₂², in place of the paper's pairwise loss."""

    def __post_init__(self) -> None:
        for name in ("num_layers", "num_heads", "hidden_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"STOSAConfig.{name}={getattr(self, name)}, expected at least 1")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"STOSAConfig.dropout={self.dropout}, expected 0 <= dropout < 1")
        if self.margin_weight < 0:
            raise ValueError(f"STOSAConfig.margin_weight={self.margin_weight}, expected at least 0")


class STOSA(MatchingModel):
    """A causal stack of Wasserstein self-attention over Gaussians.

    The first half of a behaviour's vector is its mean μ, the second its covariance Σ = diag(ELU(·) + 1): the item's id is meant to
    be the only feature, looked up at twice the width of a mean.

    The paper ranks items v by the distance W₂²(u, v) = |x_u − x_v|² with x = [μ, Σ^{1/2}]. User vectors [2x_u, −1] and item vectors
    [x_v, |x_v|²] have the dot product |x_u|² − W₂²(u, v), the same order and the same softmax.

    Args:
        config: hyper-parameters.
        dims: widths of the inputs; pooled user and item features are not used.
        device: where the parameters live.

    Raises:
        ValueError: the inputs lack a history, a behaviour's width is odd, or num_heads does not divide half of it.

    Example::

        model = STOSA(STOSAConfig(), dims=InputDims(profile=0, attributes=0, position=64, history_len=50))
        user_BC = model.user_vectors(users, torch.empty(num_users, 0))  # [B, 65]
    """

    def __init__(self, config: STOSAConfig, *, dims: InputDims, device: torch.device | None = None) -> None:
        super().__init__(dims)
        if dims.position % 2:
            raise ValueError(f"STOSA needs a history of vectors of even width, a mean and a covariance, but the inputs are {dims}")
        dim = dims.position // 2
        self.margin_weight = config.margin_weight
        self.position_LD = nn.Parameter(torch.empty(dims.history_len, dims.position, device=device))
        self.mean_norm, self.raw_norm = nn.LayerNorm(dim, device=device), nn.LayerNorm(dim, device=device)
        self.layers = nn.ModuleList(
            WassersteinLayer(dim, num_heads=config.num_heads, hidden_dim=config.hidden_dim, dropout=config.dropout, device=device)
            for _ in range(config.num_layers)
        )
        self.dropout = nn.Dropout(config.dropout)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Small positions, as embeddings start."""
        nn.init.normal_(self.position_LD, std=0.02)

    def forward(self, users: UserInputs, items: ItemInputs, noise_BX: torch.Tensor, uniform_B: torch.Tensor) -> MatchForward:  # noqa: ARG002  (the contract)
        """User vectors of B rows, and how far each target's distances are from what the paper's regulariser asks for.

        Args:
            users: B rows.
            items: the target of each row.
            noise_BX: [B, 0], of no use to it.
            uniform_B: of no use to it.
        """
        user_BD, target_BD = self._user_points(users), points(_halves(items.item_BD))
        # the next row's target stands for a sampled negative
        negative_BD = target_BD.roll(1, 0)
        apart_B = (target_BD - negative_BD).square().sum(1)
        excess_B = torch.relu((user_BD - target_BD).square().sum(1) - apart_B)  # [d(s, j⁺) − d(j⁺, j⁻)]₊
        excess_B = excess_B.masked_fill(apart_B == 0, 0.0)  # the next row has the same target
        return without_cloze(_asking(user_BD), self.margin_weight * excess_B)

    @torch.jit.export
    def user_vectors(self, users: UserInputs, noise_BX: torch.Tensor) -> torch.Tensor:  # noqa: ARG002  (the contract)
        """Vectors of B users, [B, D + 1]; the noise [B, 0] is of no use to it."""
        return _asking(self._user_points(users))

    @torch.jit.export
    def item_vectors(self, items: ItemInputs) -> torch.Tensor:
        """Vectors of M items, [M, D + 1]."""
        point_MD = points(_halves(items.item_BD))
        return torch.cat([point_MD, point_MD.square().sum(dim=1, keepdim=True)], dim=1)

    def _user_points(self, users: UserInputs) -> torch.Tensor:
        """[μ, Σ^{1/2}] of the newest place, [B, D]."""
        history_BLD = right_aligned(users.history_JD, users.history_lengths_B, self.history_len) + self.position_LD
        valid_BL = valid_places(users.history_lengths_B, self.history_len)
        mean_BLD, raw_BLD = history_BLD.chunk(2, dim=2)
        hidden = Gaussians(self.dropout(self.mean_norm(mean_BLD)), self.dropout(self.raw_norm(raw_BLD)))
        causal_LL = torch.ones(self.history_len, self.history_len, dtype=torch.bool, device=valid_BL.device).tril()
        allowed_BLL = causal_LL & valid_BL.unsqueeze(1)
        for depth, layer in enumerate(self.layers):
            # nobody looks at the last layer's older places
            first = self.history_len - 1 if depth == len(self.layers) - 1 else 0
            hidden = layer(hidden, allowed_BLL[:, first:])
        return points(Gaussians(hidden.mean[:, -1], hidden.raw[:, -1]))


def _halves(vector_XD: torch.Tensor) -> Gaussians:
    mean, raw = vector_XD.chunk(2, dim=1)
    return Gaussians(mean, raw)


def _asking(point_BD: torch.Tensor) -> torch.Tensor:
    """[2x, −1], whose dot product with [y, |y|²] is |x|² − |x − y|²."""
    return torch.cat([2.0 * point_BD, torch.full_like(point_BD[:, :1], -1.0)], dim=1)
