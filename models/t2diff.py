"""T2Diff, "Unleashing the Potential of Two-Tower Models: Diffusion-Based Cross-Interaction for Large-Scale Matching" (WWW 2025)."""

# B rows, J history positions of the batch, L places of the padded history (newest last), D width of a behaviour, A width of the
# pooled item features, C width of the user and item vectors, T diffusion steps, S reverse steps, X numbers of noise

import copy
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import nn

from models.layers.diffusion_config import DiffusionConfig
from models.layers.diffusion_module import DiffusionModule
from models.layers.mixed_attention import MixedAttention, MixedAttentionConfig
from models.layers.padding import right_aligned, valid_places
from models.matching_model import MatchingModel
from models.tasks import MatchingLossConfig
from models.types import InputDims, ItemInputs, MatchForward, UserInputs, without_cloze

ItemTower = Literal["embedding", "mlp"]


@dataclass(frozen=True, kw_only=True)
class T2DiffConfig:
    """Hyper-parameters of T2Diff; `use_diffusion=False` is the paper's ablation "Mixed-attention".

    Raises:
        ValueError: a field is outside its allowed range.
    """

    use_diffusion: bool = True
    """False: no diffusion module, the session has no x̂."""
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    """Schedule, U-Net and sampler (section 4.2); unused without diffusion."""
    diffusion_weight: float = 1.0
    """λ of eq. 25."""
    attention: MixedAttentionConfig = field(default_factory=MixedAttentionConfig)
    """The mixed attention (section 4.3)."""
    item_tower: ItemTower = "embedding"
    """`embedding`: e_i is the item's embedding. `mlp`: a network on the embedding and the pooled item features."""
    output_dim: int = 32
    """C; only `mlp` can differ from the width of a behaviour."""
    item_hidden_dims: tuple[int, ...] = (64,)
    """Hidden widths of the `mlp`."""
    max_norm: float | None = None
    """Longest Euclidean norm of a behaviour's vector, longer ones are scaled down to it; None: any."""
    loss: MatchingLossConfig = field(default_factory=MatchingLossConfig)
    """Softmax over the catalogue (eq. 24)."""

    def __post_init__(self) -> None:
        if self.item_tower not in get_args(ItemTower):
            raise ValueError(f"T2DiffConfig.item_tower={self.item_tower!r}, expected one of {get_args(ItemTower)}")
        if self.output_dim < 1 or any(width < 1 for width in self.item_hidden_dims):
            widths = f"output_dim={self.output_dim}, item_hidden_dims={self.item_hidden_dims}"
            raise ValueError(f"T2DiffConfig: {widths}, expected widths of at least 1")
        if self.diffusion_weight < 0:
            raise ValueError(f"T2DiffConfig.diffusion_weight={self.diffusion_weight}, expected at least 0")
        if self.max_norm is not None and self.max_norm <= 0:
            raise ValueError(f"T2DiffConfig.max_norm={self.max_norm}, expected more than 0, or None")


class T2Diff(MatchingModel):
    """A user tower that predicts the next behaviour by diffusion and lets it attend to the history, and an item tower.

    Args:
        config: hyper-parameters.
        dims: widths of the inputs.
        device: where the parameters live.

    Raises:
        ValueError: the inputs lack a history, or a history feature that the config names; or item_tower=embedding cannot give
            vectors of output_dim from these inputs.

    Example::

        model = T2Diff(T2DiffConfig(), dims=InputDims(profile=0, attributes=0, position=32, history_len=50))
        user_BC = model.user_vectors(users, torch.randn(num_users, model.serving_noise_size))
        item_MC = model.item_vectors(items)
    """

    def __init__(self, config: T2DiffConfig, *, dims: InputDims, device: torch.device | None = None) -> None:
        super().__init__(dims)
        self.dim, self.max_norm = dims.position, config.max_norm
        self.diffusion_weight = config.diffusion_weight
        lag, session = config.attention.time_lag, config.attention.new_session if config.attention.session == "gap" else None
        without = "time_lag None, session last_k"
        self.time_lag_column = dims.context_column(lag, named_by="T2DiffConfig.attention.time_lag", without=without)
        self.new_session_column = dims.context_column(session, named_by="T2DiffConfig.attention.new_session", without=without)
        self.diffusion = DiffusionModule(config.diffusion, dim=self.dim, device=device) if config.use_diffusion else None
        self.attention = MixedAttention(
            config.attention,
            dim=self.dim,
            history_len=dims.history_len,
            profile_dim=dims.profile,
            output_dim=config.output_dim,
            num_time_lags=dims.context[self.time_lag_column][1] if self.time_lag_column >= 0 else 0,
            with_prediction=config.use_diffusion,
            device=device,
        )
        self.item_mlp = _item_tower(config, dims, device)
        self.predicts_history: bool = False
        """Whether `forward` makes cloze predictions, as every matching model says."""
        num_noise = self.diffusion.num_noise if self.diffusion is not None else 0
        self.serving_noise_size = num_noise * self.history_len * self.dim
        from_noise = config.diffusion.tower_condition != "onestep"
        num_noise = 1 + int(from_noise) if config.use_diffusion else 0
        self.training_noise_size = num_noise * self.history_len * self.dim

    def forward(self, users: UserInputs, items: ItemInputs, noise_BX: torch.Tensor, uniform_B: torch.Tensor) -> MatchForward:
        """User vectors and L_KL for rows whose next behaviour is known (Algorithm 1).

        Args:
            users: B rows.
            items: the target of each row.
            noise_BX: standard normal [B, training_noise_size]: ε of eq. 14, and z_T of the tower's own reverse steps, if any.
            uniform_B: in [0, 1): picks r of eq. 12.
        """
        history_BLD, valid_BL = self._history(users)
        predicted_BD = history_BLD[:, 0, :0]
        auxiliary_B = uniform_B * 0.0
        if self.diffusion is not None:
            target_B1D = self._clip(items.item_BD).unsqueeze(1)
            noise_BSLD = noise_BX.unflatten(1, [-1, self.history_len, self.dim])
            out = self.diffusion.learn(
                history_BLD,
                torch.cat([history_BLD[:, 1:], target_B1D], dim=1),  # X_{2:n+1} of eq. 11
                valid_BL,
                self.diffusion.step_of(uniform_B),  # eq. 12
                noise_BSLD[:, 0],
                noise_BSLD[:, -1],
            )
            predicted_BD, auxiliary_B = out.predicted_BD, self.diffusion_weight * out.loss_B  # eq. 25
        return without_cloze(self._tower(users, history_BLD, valid_BL, predicted_BD), auxiliary_B)

    @torch.jit.export
    def user_vectors(self, users: UserInputs, noise_BX: torch.Tensor) -> torch.Tensor:
        """e_u of B users, [B, C]; x̂ comes from standard normal noise [B, serving_noise_size] (Algorithm 2)."""
        history_BLD, valid_BL = self._history(users)
        predicted_BD = history_BLD[:, 0, :0]
        if self.diffusion is not None:
            noise_BSLD = noise_BX.reshape(-1, self.diffusion.num_noise, self.history_len, self.dim)
            predicted_BD = self.diffusion.sample(history_BLD, valid_BL, noise_BSLD)
        return self._tower(users, history_BLD, valid_BL, predicted_BD)

    @torch.jit.export
    def item_vectors(self, items: ItemInputs) -> torch.Tensor:
        """e_i of M items, [M, C]."""
        item_MD = self._clip(items.item_BD)
        return item_MD if self.item_mlp is None else self.item_mlp(torch.cat([items.attributes_BA, item_MD], dim=1))

    def reverse_cosines(self, users: UserInputs, items: ItemInputs, noise_BX: torch.Tensor) -> torch.Tensor:
        """Fig. 4: cosine of the newest z0 and ẑ0 after each step of the serving form's reverse process, [S, B]."""
        assert self.diffusion is not None, "without diffusion there is no reverse process"
        history_BLD, valid_BL = self._history(users)
        noise_BSLD = noise_BX.unflatten(1, [-1, self.history_len, self.dim])
        return self.diffusion.trajectory(history_BLD, valid_BL, noise_BSLD, self._clip(items.item_BD))

    def with_diffusion(self, diffusion: DiffusionModule) -> "T2Diff":
        """This model, sharing all other weights, with another diffusion module of the same width (another sampler)."""
        other = copy.copy(self)
        other._modules = dict(self._modules)
        other.diffusion = diffusion
        other.serving_noise_size = diffusion.num_noise * self.history_len * self.dim
        return other

    def schedule(self, step: int, steps_per_epoch: int) -> None:
        """Nothing of this model follows the step."""

    def log_values(self) -> dict[str, float]:
        """The running scale of the drifts."""
        return {"drift_scale": self.diffusion.scale.item()} if self.diffusion is not None else {}

    def _history(self, users: UserInputs) -> tuple[torch.Tensor, torch.Tensor]:
        history_BLD = right_aligned(self._clip(users.history_JD), users.history_lengths_B, self.history_len)
        return history_BLD, valid_places(users.history_lengths_B, self.history_len)

    def _tower(
        self, users: UserInputs, history_BLD: torch.Tensor, valid_BL: torch.Tensor, predicted_BD: torch.Tensor
    ) -> torch.Tensor:
        context_BLF = right_aligned(users.context_JF, users.history_lengths_B, self.history_len)
        nothing_BL = context_BLF[:, :, 0:0].flatten(1)
        lag_BL = context_BLF[:, :, self.time_lag_column] if self.time_lag_column >= 0 else nothing_BL
        session_BL = context_BLF[:, :, self.new_session_column] if self.new_session_column >= 0 else nothing_BL
        return self.attention(history_BLD, valid_BL, lag_BL, session_BL, predicted_BD, users.profile_BU)

    def _clip(self, vector_XD: torch.Tensor) -> torch.Tensor:
        if self.max_norm is None:
            return vector_XD
        norm_X1 = torch.linalg.vector_norm(vector_XD, dim=1, keepdim=True)
        return vector_XD * (self.max_norm / norm_X1.clamp(min=self.max_norm))


def _item_tower(config: T2DiffConfig, dims: InputDims, device: torch.device | None) -> nn.Sequential | None:
    if config.item_tower == "embedding":
        if dims.attributes or dims.position != config.output_dim:
            raise ValueError(
                f"item_tower=embedding gives vectors of width {dims.position} and uses no pooled item features (width "
                f"{dims.attributes}), but output_dim={config.output_dim}: choose embeddings.features and embeddings.dim to match, "
                "or item_tower mlp"
            )
        return None
    layers: list[nn.Module] = []
    width = dims.attributes + dims.position
    for hidden_dim in config.item_hidden_dims:
        layers += [nn.Linear(width, hidden_dim, device=device), nn.ReLU()]
        width = hidden_dim
    return nn.Sequential(*layers, nn.Linear(width, config.output_dim, device=device))
