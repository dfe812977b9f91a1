"""HSTU, "Actions Speak Louder than Words: Trillion-Parameter Sequential Transducers for Generative Recommendations" (ICML 2024)."""

# B rows, M items, L places of the padded history (newest last), A places that ask, J behaviours of all histories, D width of a
# behaviour, H heads, P = D / H, V buckets of time, G buckets of the time to the next behaviour

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import nn

from models.layers.padding import right_aligned
from models.matching_model import CausalModel
from models.tasks import MatchingLossConfig
from models.types import InputDims, UserInputs

NUM_TIME_BUCKETS = 128
"""V, as in the authors' program; the last one holds 10^16 seconds and more."""


@dataclass(frozen=True, kw_only=True)
class HSTUConfig:
    """Hyper-parameters of HSTU; defaults are those of the authors' program for MovieLens-1M.

    Raises:
        ValueError: a field is outside its allowed range.
    """

    num_layers: int = 2
    """Layers; the program's large model has 8."""
    num_heads: int = 1
    """Heads of each; 2 in the large model."""
    dropout: float = 0.2
    """Share of the inputs and of what f2 is given dropped in training."""
    time_gap: str | None = "hist_time_gap"
    """History feature with the bucket of the time from each behaviour to the next one, of the newest to the request
    (`dataloaders.prepare.behaviours.time_gap_bucket`), for the relative time bias; None: no such bias."""
    all_positions: bool = False
    """Whether every behaviour of a history is predicted from those before it, as in the paper, which has one row for each user.
    False: a row teaches its own target alone, see SASRecConfig.all_positions."""
    loss: MatchingLossConfig = field(default_factory=MatchingLossConfig)
    """Softmax over the catalogue, in place of the program's: 128 negatives, cosines, a temperature of 0.05."""

    def __post_init__(self) -> None:
        for name in ("num_layers", "num_heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"HSTUConfig.{name}={getattr(self, name)}, expected at least 1")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"HSTUConfig.dropout={self.dropout}, expected 0 <= dropout < 1")


class HSTULayer(nn.Module):
    """Pointwise aggregated attention, whose weights no softmax makes compete, gated by U (section 3.2).

    Args:
        dim: D.
        num_heads: H, divides D.
        history_len: L.
        with_times: whether there is a relative time bias.
        dropout: share of what f2 is given dropped in training.
        device: where the parameters live.

    Raises:
        ValueError: num_heads does not divide dim.
    """

    def __init__(
        self, dim: int, *, num_heads: int, history_len: int, with_times: bool, dropout: float, device: torch.device | None = None
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"HSTULayer: num_heads={num_heads} does not divide the width {dim}; choose a divisor of it")
        self.num_heads, self.history_len = num_heads, history_len
        self.norm_in = nn.LayerNorm(dim, elementwise_affine=False)
        self.project_in = nn.Linear(dim, 4 * dim, bias=False, device=device)  # f1
        self.norm_attended = nn.LayerNorm(dim, elementwise_affine=False)
        self.project_out = nn.Linear(dim, dim, device=device)  # f2
        self.dropout = nn.Dropout(dropout)
        self.position_bias_L = nn.Parameter(torch.empty(history_len, device=device))
        self.time_bias_V = nn.Parameter(torch.empty(NUM_TIME_BUCKETS, device=device)) if with_times else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Small biases, and f1 small enough that its SiLU begins nearly linear, as in the authors' program."""
        nn.init.normal_(self.project_in.weight, std=0.02)
        nn.init.normal_(self.position_bias_L, std=0.02)
        if self.time_bias_V is not None:
            nn.init.normal_(self.time_bias_V, std=0.02)

    def forward(self, input_BLD: torch.Tensor, allowed_BAL: torch.Tensor, time_bucket_BAL: torch.Tensor) -> torch.Tensor:
        """The last A places, [B, A, D]; each adds up what bool `allowed_BAL` lets it see, which may be nothing.

        Args:
            input_BLD: every place.
            allowed_BAL: who sees whom.
            time_bucket_BAL: int64, from `time_buckets`; anything without times.
        """
        batch, places, dim = input_BLD.shape
        asking, head_dim = allowed_BAL.shape[1], dim // self.num_heads
        gate_BLD, value_BLD, query_BLD, key_BLD = F.silu(self.project_in(self.norm_in(input_BLD))).chunk(4, dim=2)  # eq. 1
        query_BHAP = query_BLD[:, places - asking :].reshape(batch, asking, self.num_heads, head_dim).transpose(1, 2)
        key_BHPL = key_BLD.reshape(batch, places, self.num_heads, head_dim).permute(0, 2, 3, 1)
        value_BHLP = value_BLD.reshape(batch, places, self.num_heads, head_dim).transpose(1, 2)
        bias_BAL = self._position_bias(asking)
        if self.time_bias_V is not None:
            # a copy of the table for each row: most pairs have the same few buckets, and gradients of one table's index_select add
            # up one after another in each (with it a training step of 512 rows took 80 ms on an H200, other models' 10 to 20)
            time_bias_BV = self.time_bias_V.expand(batch, -1)
            bias_BAL = bias_BAL + time_bias_BV.gather(1, time_bucket_BAL.flatten(1)).view_as(time_bucket_BAL)
        weight_BHAL = F.silu(torch.matmul(query_BHAP, key_BHPL) + bias_BAL.unsqueeze(1)) * allowed_BAL.unsqueeze(1)
        # the program divides by L, which the norm would undo
        attended_BAD = torch.matmul(weight_BHAL, value_BHLP).transpose(1, 2).reshape(batch, asking, dim)  # eq. 2
        gated_BAD = self.norm_attended(attended_BAD) * gate_BLD[:, places - asking :]
        return input_BLD[:, places - asking :] + self.project_out(self.dropout(gated_BAD))  # eq. 3

    def _position_bias(self, asking: int) -> torch.Tensor:
        """A number for each distance in places, [1, A, L]."""
        place_L = torch.arange(self.history_len, device=self.position_bias_L.device)
        # newer places are not allowed anyway
        distance_AL = (place_L[self.history_len - asking :].unsqueeze(1) - place_L).clamp(min=0)
        return self.position_bias_L[distance_AL].unsqueeze(0)


class HSTU(CausalModel):
    """A causal stack of HSTU layers; the newest behaviour's output is the user vector, the items' embeddings are theirs.

    A layer norm ends it, where the authors' program scales user and item vectors to length 1 and has a temperature.

    Args:
        config: hyper-parameters.
        dims: widths of the inputs; pooled user and item features are not used.
        device: where the parameters live.

    Raises:
        ValueError: the inputs lack a history or the time gap that the config names, or num_heads does not divide a behaviour's
            width.

    Example::

        model = HSTU(HSTUConfig(time_gap=None), dims=InputDims(profile=0, attributes=0, position=32, history_len=50))
        user_BD = model.user_vectors(users, torch.empty(num_users, 0))
    """

    def __init__(self, config: HSTUConfig, *, dims: InputDims, device: torch.device | None = None) -> None:
        super().__init__(dims, all_positions=config.all_positions)
        self.time_gap_column = dims.context_column(config.time_gap, named_by="HSTUConfig.time_gap", without="time_gap None")
        num_gaps = dims.context[self.time_gap_column][1] if self.time_gap_column >= 0 else 0
        # of the data's meaning, so no part of a checkpoint
        self.register_buffer("seconds_G", seconds_of_gaps(num_gaps).to(device or "cpu"), persistent=False)
        self.position_LD = nn.Parameter(torch.empty(dims.history_len, dims.position, device=device))
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(
            HSTULayer(
                dims.position,
                num_heads=config.num_heads,
                history_len=dims.history_len,
                with_times=num_gaps > 0,
                dropout=config.dropout,
                device=device,
            )
            for _ in range(config.num_layers)
        )
        self.norm = nn.LayerNorm(dims.position, device=device)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Positions of a length of about 1, as in the authors' program."""
        nn.init.normal_(self.position_LD, std=self.position_LD.shape[1] ** -0.5)

    def outputs(self, users: UserInputs, valid_BL: torch.Tensor, asking: int) -> torch.Tensor:
        """What comes out at the newest `asking` places, [B, A, D]."""
        history_BLD = right_aligned(users.history_JD, users.history_lengths_B, self.history_len)
        # scaled, and with positions of their own, as in the authors' program
        hidden_BLD = self.dropout(history_BLD * history_BLD.shape[2] ** 0.5 + self.position_LD)
        causal_LL = torch.ones(self.history_len, self.history_len, dtype=torch.bool, device=valid_BL.device).tril()
        allowed_BLL = causal_LL & valid_BL.unsqueeze(1)
        time_bucket_BLL = self._time_buckets(users)
        for depth, layer in enumerate(self.layers):
            # nobody looks at more of the last layer's places
            first = self.history_len - asking if depth == len(self.layers) - 1 else 0
            hidden_BLD = layer(hidden_BLD, allowed_BLL[:, first:], time_bucket_BLL[:, first:])
        return self.norm(hidden_BLD)

    def _time_buckets(self, users: UserInputs) -> torch.Tensor:
        """HSTULayer's `time_bucket_BAL` of all places; without times int64 [B, L, 0]."""
        context_BLF = right_aligned(users.context_JF, users.history_lengths_B, self.history_len)
        if self.time_gap_column < 0:
            return context_BLF[:, :, 0:0]
        # places before the history have bucket 0, which is no time
        return time_buckets(F.embedding(context_BLF[:, :, self.time_gap_column], self.seconds_G.unsqueeze(1)).squeeze(2))


def time_buckets(gap_BL: torch.Tensor, num_buckets: int = NUM_TIME_BUCKETS) -> torch.Tensor:
    """Bucket of the time from each behaviour (the last axis) to when a place asks (the middle one), int64 [B, L, L].

    A place asks at the time of what it predicts, as in the authors' program: when the next behaviour came, the newest one when the
    request does. Buckets are the program's: ⌊ln(seconds) / 0.301⌋. Behaviours after a place, which it does not see, have bucket 0.

    Args:
        gap_BL: float64, seconds from each behaviour to the next one, of the newest to the request.
        num_buckets: V; the last one holds all longer times too.
    """
    to_request_BL = gap_BL.flip(1).cumsum(1).flip(1)
    asked_at_BL = F.pad(to_request_BL[:, 1:], [0, 1])
    seconds_BLL = to_request_BL.unsqueeze(1) - asked_at_BL.unsqueeze(2)
    return (seconds_BLL.clamp(min=1.0).log() / 0.301).long().clamp(max=num_buckets - 1)


def seconds_of_gaps(num_gaps: int) -> torch.Tensor:
    """Seconds in the middle of each bucket of `dataloaders.prepare.behaviours.time_gap_bucket`, float64 [num_gaps]."""
    gap_G = torch.arange(num_gaps, dtype=torch.float64)
    return torch.where(gap_G > 0, 2.0 ** ((gap_G - 0.5) / 8.0), 0.0)
