"""DiffuRec, "DiffuRec: A Diffusion Model for Sequential Recommendation" (TOIS 2023): the target's vector is denoised from noise."""

# B rows, M items, J history positions of the batch, L places of the padded history (newest last), D width of a behaviour, S steps,
# X numbers of noise

from dataclasses import dataclass, field

import torch
from torch import nn

from models.layers.diffusion import NoiseSchedule, ScheduleConfig
from models.layers.padding import right_aligned, valid_places
from models.layers.step_embedding import StepEmbedding
from models.layers.transformer import EncoderLayer
from models.matching_model import MatchingModel
from models.tasks import MatchingLossConfig
from models.types import InputDims, ItemInputs, MatchForward, UserInputs, without_cloze

TRUNCATED_LINEAR = ScheduleConfig(kind="linear", num_steps=32, beta_first=0.013125, beta_last=0.635)
"""The paper's schedule, by the constants of the authors' program: 1000/T·0.0001 + 0.01 to 1000/T·0.02 + 0.01 for T = 32 steps."""


@dataclass(frozen=True, kw_only=True)
class DiffuRecConfig:
    """Hyper-parameters of DiffuRec; defaults are the paper's, or the authors' program's where the paper says nothing.

    Raises:
        ValueError: a field is outside its allowed range.
    """

    schedule: ScheduleConfig = TRUNCATED_LINEAR
    """β of every step; the reverse process visits them all."""
    uncertainty: float = 0.001
    """δ, mean and standard deviation of the λ_i that the target's distribution enters behaviour i with."""
    num_layers: int = 4
    """Transformer layers of the Approximator."""
    num_heads: int = 4
    """Heads of each."""
    hidden_dim: int = 128
    """Width inside the feed-forward networks; the program's is four times that of a behaviour."""
    dropout: float = 0.1
    """Share of attention's weights and of each sub-layer's outputs dropped in training."""
    input_dropout: float = 0.3
    """Share of the behaviours' vectors dropped in training."""
    loss: MatchingLossConfig = field(default_factory=MatchingLossConfig)
    """Softmax over the catalogue, the paper's cross-entropy."""

    def __post_init__(self) -> None:
        for name in ("num_layers", "num_heads", "hidden_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"DiffuRecConfig.{name}={getattr(self, name)}, expected at least 1")
        if self.uncertainty < 0:
            raise ValueError(f"DiffuRecConfig.uncertainty={self.uncertainty}, expected at least 0")
        for name in ("dropout", "input_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"DiffuRecConfig.{name}={getattr(self, name)}, expected 0 <= {name} < 1")


class DiffuRec(MatchingModel):
    """A transformer that tells a target's vector from the history and a noised version of it, and the process that starts at noise.

    Each behaviour is a distribution: z_i = e_i + λ_i (x_s + d_s), with the noised target x_s and its step's embedding d_s. In the
    paper's λ_i ~ N(δ, δ) the second δ is the standard deviation, as in the program, which draws one a channel; here there is one a
    behaviour. As in the program e_i is normalised, so that it is of the size of x_s, and so is the Approximator's output; the
    learned positions, which the program leaves out, are the paper's. Attention masks the padding among the places that are asked,
    where the program masks those that ask.

    Args:
        config: hyper-parameters.
        dims: widths of the inputs; pooled user and item features are not used.
        device: where the parameters live.

    Raises:
        ValueError: the inputs lack a history, or num_heads does not divide a behaviour's width.

    Example::

        model = DiffuRec(DiffuRecConfig(), dims=InputDims(profile=0, attributes=0, position=32, history_len=50))
        user_BD = model.user_vectors(users, torch.randn(num_users, model.serving_noise_size))
    """

    def __init__(self, config: DiffuRecConfig, *, dims: InputDims, device: torch.device | None = None) -> None:
        super().__init__(dims)
        self.dim, self.uncertainty = dims.position, config.uncertainty
        self.noise_schedule = NoiseSchedule(config.schedule, device=device)
        self.step_embedding = StepEmbedding(dims.position, device=device)
        self.position_LD = nn.Parameter(torch.empty(dims.history_len, dims.position, device=device))
        self.layers = nn.ModuleList(
            EncoderLayer(
                dims.position,
                num_heads=config.num_heads,
                hidden_dim=config.hidden_dim,
                dropout=config.dropout,
                norm_first=True,
                activation="gelu",
                device=device,
            )
            for _ in range(config.num_layers)
        )
        self.norm_in, self.norm_out = (nn.LayerNorm(dims.position, device=device) for _ in range(2))
        self.dropout = nn.Dropout(config.input_dropout)
        self.step_noise_size: int = dims.position + dims.history_len
        """Numbers of noise of one step: D for x, L for the λ."""
        self.serving_noise_size = config.schedule.num_steps * self.step_noise_size
        self.training_noise_size = self.step_noise_size
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Small positions, as embeddings start."""
        nn.init.normal_(self.position_LD, std=0.02)

    def forward(self, users: UserInputs, items: ItemInputs, noise_BX: torch.Tensor, uniform_B: torch.Tensor) -> MatchForward:
        """x̂_0 of B rows from their noised targets (Algorithm 1); the cross-entropy with the items is all that it learns from.

        Args:
            users: B rows.
            items: the target of each row.
            noise_BX: standard normal [B, training_noise_size].
            uniform_B: in [0, 1): picks the step s.
        """
        s_B = (uniform_B * self.noise_schedule.num_steps).long() + 1
        target_B1D, noise_B1D = items.item_BD.unsqueeze(1), noise_BX[:, : self.dim].unsqueeze(1)
        x_BD = self.noise_schedule.q_sample(target_B1D, s_B, noise_B1D).squeeze(1)  # q(x_s | x_0)
        history_BLD, valid_BL = self._history(users)
        return without_cloze(self._approximate(history_BLD, valid_BL, x_BD, s_B, noise_BX[:, self.dim :]), uniform_B * 0.0)

    @torch.jit.export
    def user_vectors(self, users: UserInputs, noise_BX: torch.Tensor) -> torch.Tensor:
        """x̂_0 of B users by the reverse process from standard normal noise [B, serving_noise_size] (Algorithm 2), [B, D].

        The paper's rounding, the item whose vector has the largest dot product with x̂_0, is left to the ranking.
        """
        history_BLD, valid_BL = self._history(users)
        noise_BSX = noise_BX.reshape(-1, self.noise_schedule.num_steps, self.step_noise_size)
        x_BD = noise_BSX[:, 0, : self.dim]
        predicted_BD = x_BD
        for index in range(self.noise_schedule.num_steps):
            step = self.noise_schedule.num_steps - index
            s_B = torch.full([x_BD.shape[0]], step, dtype=torch.int64, device=x_BD.device)
            predicted_BD = self._approximate(history_BLD, valid_BL, x_BD, s_B, noise_BSX[:, index, self.dim :])
            if step > 1:  # at the last step x̂_0 is the answer
                fresh_BD = self.noise_schedule.posterior_variance(step).sqrt() * noise_BSX[:, index + 1, : self.dim]
                x_BD = self.noise_schedule.posterior_mean(x_BD, predicted_BD, step) + fresh_BD  # p(x_{s−1} | x_s, x̂_0)
        return predicted_BD

    def _history(self, users: UserInputs) -> tuple[torch.Tensor, torch.Tensor]:
        history_BLD = right_aligned(users.history_JD, users.history_lengths_B, self.history_len) + self.position_LD
        return self.norm_in(self.dropout(history_BLD)), valid_places(users.history_lengths_B, self.history_len)

    def _approximate(
        self, history_BLD: torch.Tensor, valid_BL: torch.Tensor, x_BD: torch.Tensor, s_B: torch.Tensor, noise_BL: torch.Tensor
    ) -> torch.Tensor:
        """x̂_0 = h_n, the Approximator's output at the newest behaviour, [B, D]."""
        lambda_BL1 = (self.uncertainty * (1.0 + noise_BL)).unsqueeze(2)  # λ_i ~ N(δ, δ)
        hidden_BSD = history_BLD + lambda_BL1 * (x_BD.unsqueeze(1) + self.step_embedding(s_B))
        for depth, layer in enumerate(self.layers):
            # nobody looks at the last layer's older places
            asking = 1 if depth == len(self.layers) - 1 else self.history_len
            hidden_BSD = layer(hidden_BSD, valid_BL.unsqueeze(1).expand(-1, asking, -1))
        return self.norm_out(hidden_BSD[:, -1])
