"""ContrastVAE, "ContrastVAE: Contrastive Variational AutoEncoder for Sequential Recommendation" (CIKM 2022)."""

# B rows, M items, J history positions of the batch, L places of the padded history (newest last), D width of a behaviour,
# V = 2 views, X numbers of noise

import math
from dataclasses import dataclass, field

import torch
from torch import nn

from models.layers.padding import right_aligned, valid_places
from models.layers.transformer import EncoderLayer
from models.losses import gaussian_kl, info_nce
from models.matching_model import MatchingModel
from models.tasks import MatchingLossConfig
from models.types import InputDims, ItemInputs, MatchForward, UserInputs


@dataclass(frozen=True, kw_only=True)
class ContrastVAEConfig:
    """Hyper-parameters of ContrastVAE; defaults are those of the authors' program.

    Raises:
        ValueError: a field is outside its allowed range.
    """

    num_layers: int = 1
    """Transformer layers of each encoder and of the decoder."""
    num_heads: int = 4
    """Heads of each."""
    hidden_dim: int = 128
    """Width inside the feed-forward networks; the program's is four times that of a behaviour."""
    dropout: float = 0.3
    """Share of the inputs, of attention's weights and of each sub-layer's outputs dropped in training."""
    augmentation_rate: float = 0.2
    """p: what the second view's Gaussian dropout starts from, α = p/(1 − p); α is learned."""
    contrastive_weight: float = 0.3
    """λ of the InfoNCE term."""
    temperature: float = 0.5
    """Of the InfoNCE term's similarities."""
    max_kl_weight: float = 0.2
    """What the weight of the KL terms rises to."""
    kl_steps: int = 10_000
    """Optimizer steps in which it would rise to 1, in a straight line from 0."""
    loss: MatchingLossConfig = field(default_factory=MatchingLossConfig)
    """Softmax over the catalogue, the paper's reconstruction; the second view's needs item_softmax full."""

    def __post_init__(self) -> None:
        for name in ("num_layers", "num_heads", "hidden_dim", "kl_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"ContrastVAEConfig.{name}={getattr(self, name)}, expected at least 1")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"ContrastVAEConfig.dropout={self.dropout}, expected 0 <= dropout < 1")
        if not 0.0 < self.augmentation_rate < 1.0:
            raise ValueError(f"ContrastVAEConfig.augmentation_rate={self.augmentation_rate}, expected 0 < augmentation_rate < 1")
        if self.temperature <= 0:
            raise ValueError(f"ContrastVAEConfig.temperature={self.temperature}, expected more than 0")
        for name in ("contrastive_weight", "max_kl_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"ContrastVAEConfig.{name}={getattr(self, name)}, expected at least 0")


class ContrastVAE(MatchingModel):
    """Two views of a history, each encoded, sampled and decoded to the next item, and drawn to each other (ContrastELBO).

    The views differ by variational augmentation: the second one's noise has a learned Gaussian dropout, read as a factor α on the
    posterior's variance, so that its KL term is that of the distribution that is sampled. At serving z is the posterior's mean.

    Args:
        config: hyper-parameters.
        dims: widths of the inputs; pooled user and item features are not used.
        device: where the parameters live.

    Raises:
        ValueError: the inputs lack a history, or num_heads does not divide a behaviour's width.

    Example::

        model = ContrastVAE(ContrastVAEConfig(), dims=InputDims(profile=0, attributes=0, position=32, history_len=50))
        user_BD = model.user_vectors(users, torch.empty(num_users, 0))
    """

    def __init__(self, config: ContrastVAEConfig, *, dims: InputDims, device: torch.device | None = None) -> None:
        super().__init__(dims)
        self.dim = dims.position
        self.contrastive_weight, self.temperature = config.contrastive_weight, config.temperature
        self.max_kl_weight, self.kl_steps = config.max_kl_weight, config.kl_steps
        self._start_log_alpha = math.log(config.augmentation_rate / (1.0 - config.augmentation_rate))
        self.position_LD = nn.Parameter(torch.empty(dims.history_len, dims.position, device=device))
        self.log_alpha_D = nn.Parameter(torch.empty(dims.position, device=device))
        self.register_buffer("kl_weight", torch.empty((), device=device))
        self.norm = nn.LayerNorm(dims.position, device=device)
        self.mean_encoder = _stack(config, dims.position, device)
        self.log_variance_encoder = _stack(config, dims.position, device)
        self.decoder = _stack(config, dims.position, device)
        self.dropout = nn.Dropout(config.dropout)
        self.predicts_history = True  # the second view, the targets once more
        self.training_noise_size = 2 * dims.history_len * dims.position  # ε of both views
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Small positions, as embeddings start; α of the config; no KL yet."""
        nn.init.normal_(self.position_LD, std=0.02)
        self.log_alpha_D.fill_(self._start_log_alpha)
        self.kl_weight.zero_()

    def forward(self, users: UserInputs, items: ItemInputs, noise_BX: torch.Tensor, uniform_B: torch.Tensor) -> MatchForward:  # noqa: ARG002  (the contract)
        """Both views' vectors of B rows, and the other terms of the negative ContrastELBO.

        Args:
            users: B rows.
            items: of no use to it.
            noise_BX: standard normal [B, training_noise_size].
            uniform_B: of no use to it.
        """
        history_BLD, allowed_BLL = self._history(users)
        valid_BL = allowed_BLL[:, -1]
        mean_BLD = self._encode_mean(history_BLD, allowed_BLL)
        log_variance_BLD = self._encode_log_variance(history_BLD, allowed_BLL)
        noise_BVLD = noise_BX.reshape(-1, 2, self.history_len, self.dim)
        latents: list[torch.Tensor] = []
        kl_B = uniform_B * 0.0
        for view in range(2):
            log_variance_of_view = log_variance_BLD if view == 0 else log_variance_BLD + self.log_alpha_D
            latents.append(mean_BLD + (0.5 * log_variance_of_view).exp() * noise_BVLD[:, view])  # z = μ + σ ε
            kl_B = kl_B + _mean_of_valid(gaussian_kl(mean_BLD, log_variance_of_view).unsqueeze(2), valid_BL).squeeze(1)
        user_BD, second_BD = self._decode(torch.cat(latents), allowed_BLL.repeat(2, 1, 1)).chunk(2)
        pooled_BD, pooled_second_BD = _mean_of_valid(latents[0], valid_BL), _mean_of_valid(latents[1], valid_BL)
        contrast_B = info_nce(pooled_BD, pooled_second_BD, temperature=self.temperature)  # bounds −I(z, z′)
        auxiliary_B = self.kl_weight * kl_B + self.contrastive_weight * contrast_B
        target_B = users.history_JD.shape[0] + torch.arange(user_BD.shape[0], device=user_BD.device)
        return MatchForward(user_BD, auxiliary_B, second_BD, target_B, torch.ones_like(uniform_B))

    @torch.jit.export
    def user_vectors(self, users: UserInputs, noise_BX: torch.Tensor) -> torch.Tensor:  # noqa: ARG002  (the contract)
        """Vectors of B users, decoded from the means, [B, D]; the noise [B, 0] is of no use to it."""
        history_BLD, allowed_BLL = self._history(users)
        return self._decode(self._encode_mean(history_BLD, allowed_BLL), allowed_BLL)

    def schedule(self, step: int, steps_per_epoch: int) -> None:  # noqa: ARG002  (the contract)
        """Set the weight of the KL terms for the global optimizer step `step`, counted from 0."""
        self.kl_weight.fill_(min(self.max_kl_weight, step / self.kl_steps))

    def log_values(self) -> dict[str, float]:
        """Weight of the KL terms, and the mean of α."""
        return {"kl_weight": self.kl_weight.item(), "augmentation_alpha": self.log_alpha_D.detach().exp().mean().item()}

    def _history(self, users: UserInputs) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs of the encoders, and bool [B, L, L]: each place may look at behaviours that are no newer."""
        history_BLD = right_aligned(users.history_JD, users.history_lengths_B, self.history_len) + self.position_LD
        valid_BL = valid_places(users.history_lengths_B, self.history_len)
        causal_LL = torch.ones(self.history_len, self.history_len, dtype=torch.bool, device=valid_BL.device).tril()
        return self.dropout(self.norm(history_BLD)), causal_LL & valid_BL.unsqueeze(1)

    def _decode(self, latent_BLD: torch.Tensor, allowed_BLL: torch.Tensor) -> torch.Tensor:
        """The decoder's output at the newest place, [B, D]."""
        for depth, layer in enumerate(self.decoder):
            # nobody looks at the last layer's older places
            first = self.history_len - 1 if depth == len(self.decoder) - 1 else 0
            latent_BLD = layer(latent_BLD, allowed_BLL[:, first:])
        return latent_BLD[:, -1]

    def _encode_mean(self, history_BLD: torch.Tensor, allowed_BLL: torch.Tensor) -> torch.Tensor:
        for layer in self.mean_encoder:
            history_BLD = layer(history_BLD, allowed_BLL)
        return history_BLD

    def _encode_log_variance(self, history_BLD: torch.Tensor, allowed_BLL: torch.Tensor) -> torch.Tensor:
        for layer in self.log_variance_encoder:
            history_BLD = layer(history_BLD, allowed_BLL)
        return history_BLD


def _stack(config: ContrastVAEConfig, dim: int, device: torch.device | None) -> nn.ModuleList:
    return nn.ModuleList(
        EncoderLayer(dim, num_heads=config.num_heads, hidden_dim=config.hidden_dim, dropout=config.dropout, device=device)
        for _ in range(config.num_layers)
    )


def _mean_of_valid(vector_BLX: torch.Tensor, valid_BL: torch.Tensor) -> torch.Tensor:
    """[B, X]; 0 where nothing is valid."""
    weight_BL = valid_BL.to(vector_BLX.dtype)
    weight_BL = weight_BL / weight_BL.sum(dim=1, keepdim=True).clamp(min=1.0)
    return torch.bmm(weight_BL.unsqueeze(1), vector_BLX).squeeze(1)
