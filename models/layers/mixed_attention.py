"""T2Diff's mixed attention (section 4.3): a transformer over the session and x̂, then target attention over the older history."""

# B rows, L places of the padded history (newest last), K places of the session, S = K or K + 1 places with x̂, H older places,
# D width of a behaviour, U width of the pooled user features, C width of the user vector, E width of the time lag, X hidden width

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import nn

from models.layers.transformer import EncoderLayer

Session = Literal["last_k", "gap"]
AttentionNorm = Literal["softmax", "sum", "none"]


@dataclass(frozen=True, kw_only=True)
class MixedAttentionConfig:
    """Hyper-parameters of the mixed attention; the paper leaves all but one encoder layer and two heads open.

    Raises:
        ValueError: a field is outside its allowed range.
    """

    session_len: int = 10
    """k, behaviours of the current session at most."""
    session: Session = "last_k"
    """`last_k`: the newest k behaviours. `gap`: of these, those since the newest break (history feature `new_session`)."""
    new_session: str = "hist_new_session"
    """History feature that is 1 where a behaviour begins a session; used by `gap` alone."""
    num_heads: int = 2
    """Heads of the encoder layer."""
    encoder_hidden_dim: int = 64
    """Width inside the encoder layer's feed-forward network."""
    positions: bool = True
    """Learned position vectors in the session; without, the encoder does not know the order."""
    mask_diagonal: bool = False
    """Whether a place of the session may not attend to itself (the authors' program)."""
    attention_hidden_dim: int = 32
    """Hidden width of the activation unit (Fig. 3)."""
    attention_norm: AttentionNorm = "softmax"
    """Eq. 20: masked `softmax` of the unit's outputs; `sum` divides by their sum, literally; `none` keeps them raw."""
    time_lag: str | None = "hist_time_lag"
    """History feature with the bucket of request time minus behaviour time, for the activation unit; None: no such input."""
    time_lag_dim: int = 8
    """Width of the time lag's embedding."""
    user_hidden_dim: int = 64
    """Hidden width of eq. 22's feed-forward network."""
    dropout: float = 0.0
    """Share of activations dropped in training: inputs of the encoder, weights of its attention, its sub-layers, and eq. 22's
    hidden layer."""

    def __post_init__(self) -> None:
        dims = ("session_len", "num_heads", "encoder_hidden_dim", "attention_hidden_dim", "time_lag_dim", "user_hidden_dim")
        for name in dims:
            if getattr(self, name) < 1:
                raise ValueError(f"MixedAttentionConfig.{name}={getattr(self, name)}, expected at least 1")
        for name, allowed in (("session", get_args(Session)), ("attention_norm", get_args(AttentionNorm))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"MixedAttentionConfig.{name}={getattr(self, name)!r}, expected one of {allowed}")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"MixedAttentionConfig.dropout={self.dropout}, expected 0 <= dropout < 1")


class MixedAttention(nn.Module):
    """History and the predicted next behaviour to the user vector (eq. 19-22).

    Args:
        config: hyper-parameters.
        dim: D.
        history_len: L.
        profile_dim: U, may be 0.
        output_dim: C.
        num_time_lags: ids of the time lag, 0 without one.
        with_prediction: whether x̂ is part of the session (T2Diff) or not (the ablation "Mixed-attention").
        device: where the parameters live.

    Raises:
        ValueError: the session is longer than the history, or num_heads does not divide dim.

    Example::

        attention = MixedAttention(
            MixedAttentionConfig(), dim=32, history_len=50, profile_dim=0, output_dim=32, num_time_lags=24, with_prediction=True
        )
        user_BC = attention(history_BLD, valid_BL, time_lag_BL, new_session_BL, predicted_BD, profile_BU)
    """

    def __init__(
        self,
        config: MixedAttentionConfig,
        *,
        dim: int,
        history_len: int,
        profile_dim: int,
        output_dim: int,
        num_time_lags: int,
        with_prediction: bool,
        device: torch.device | None = None,
    ) -> None:
        super().__init__()
        if config.session_len > history_len:
            raise ValueError(
                f"MixedAttentionConfig.session_len={config.session_len}, expected at most the history's {history_len} behaviours"
            )
        self.session_len, self.by_gap = config.session_len, config.session == "gap"
        self.attention_norm, self.mask_diagonal, self.with_prediction = config.attention_norm, config.mask_diagonal, with_prediction
        places = config.session_len + int(with_prediction)
        self.position_SD = nn.Parameter(torch.empty(places, dim, device=device)) if config.positions else None
        self.encoder = EncoderLayer(
            dim, num_heads=config.num_heads, hidden_dim=config.encoder_hidden_dim, dropout=config.dropout, device=device
        )
        self.dropout = nn.Dropout(config.dropout)
        hidden_dim = config.attention_hidden_dim
        self.unit_history = nn.Linear(dim, hidden_dim, bias=False, device=device)
        self.unit_product = nn.Linear(dim, hidden_dim, bias=False, device=device)
        self.unit_interest = nn.Linear(dim, hidden_dim, device=device)
        self.unit_output = nn.Linear(hidden_dim, 1, device=device)
        self.time_lag = nn.Embedding(num_time_lags, config.time_lag_dim, device=device) if num_time_lags else None
        self.unit_time_lag = nn.Linear(config.time_lag_dim, hidden_dim, bias=False, device=device) if num_time_lags else None
        self.user_hidden = nn.Linear(2 * dim + profile_dim, config.user_hidden_dim, device=device)
        self.user_output = nn.Linear(config.user_hidden_dim, output_dim, device=device)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Small positions and time lags, as embeddings start."""
        if self.position_SD is not None:
            nn.init.normal_(self.position_SD, std=0.02)
        if self.time_lag is not None:
            nn.init.normal_(self.time_lag.weight, std=0.1)

    def forward(
        self,
        history_BLD: torch.Tensor,
        valid_BL: torch.Tensor,
        time_lag_BL: torch.Tensor,
        new_session_BL: torch.Tensor,
        predicted_BD: torch.Tensor,
        profile_BU: torch.Tensor,
    ) -> torch.Tensor:
        """The user vector [B, C].

        Args:
            history_BLD: right-aligned, zeros in front.
            valid_BL: bool, where a behaviour is.
            time_lag_BL: int64 ids; [B, 0] without a time lag.
            new_session_BL: int64, 1 where a behaviour begins a session; [B, 0] where the session is the newest k.
            predicted_BD: x̂_{n+1}; [B, 0] without a prediction.
            profile_BU: pooled user features.
        """
        split = history_BLD.shape[1] - self.session_len
        in_session_BK = self._in_session(valid_BL, new_session_BL)
        interest_BD = self._interest(history_BLD[:, split:], in_session_BK, predicted_BD)  # eq. 19
        if not self.by_gap:
            history_BLD, valid_BL, time_lag_BL = history_BLD[:, :split], valid_BL[:, :split], time_lag_BL[:, :split]
        else:
            valid_BL = torch.cat([valid_BL[:, :split], valid_BL[:, split:] & ~in_session_BK], dim=1)
        older_BD = self._target_attention(history_BLD, valid_BL, time_lag_BL, interest_BD)
        user_BX = torch.relu(self.user_hidden(torch.cat([older_BD, interest_BD, profile_BU], dim=1)))
        return self.user_output(self.dropout(user_BX))  # eq. 22

    def _in_session(self, valid_BL: torch.Tensor, new_session_BL: torch.Tensor) -> torch.Tensor:
        """Bool [B, K]: which of the newest k behaviours belong to the current session."""
        valid_BK = valid_BL[:, -self.session_len :]
        if not self.by_gap:
            return valid_BK
        begins_BK = new_session_BL[:, -self.session_len :]
        breaks_after_BK = begins_BK.flip(1).cumsum(1).flip(1) - begins_BK
        return valid_BK & (breaks_after_BK == 0)

    def _interest(self, session_BKD: torch.Tensor, in_session_BK: torch.Tensor, predicted_BD: torch.Tensor) -> torch.Tensor:
        """h_s, eq. 19: mean of the encoder's outputs over the session and x̂; 0 where there is neither."""
        if self.with_prediction:
            session_BKD = torch.cat([session_BKD, predicted_BD.unsqueeze(1)], dim=1)
            in_session_BK = torch.cat([in_session_BK, in_session_BK.new_ones(in_session_BK.shape[0], 1)], dim=1)
        if self.position_SD is not None:
            session_BKD = session_BKD + self.position_SD
        allowed_BSS = in_session_BK.unsqueeze(1).expand(-1, in_session_BK.shape[1], -1)
        if self.mask_diagonal:
            allowed_BSS = allowed_BSS & ~torch.eye(in_session_BK.shape[1], dtype=torch.bool, device=in_session_BK.device)
        encoded_BSD = self.encoder(self.dropout(session_BKD), allowed_BSS)
        weight_BS = in_session_BK.to(encoded_BSD.dtype)
        weight_BS = weight_BS / weight_BS.sum(dim=1, keepdim=True).clamp(min=1.0)
        return torch.bmm(weight_BS.unsqueeze(1), encoded_BSD).squeeze(1)

    def _target_attention(
        self, history_BHD: torch.Tensor, valid_BH: torch.Tensor, time_lag_BH: torch.Tensor, interest_BD: torch.Tensor
    ) -> torch.Tensor:
        """h_l, eq. 20-21; exactly 0 without older behaviours.

        The activation unit sees [x, x − h_s, x ∘ h_s, h_s]; the weights of x − h_s are part of those of x and of h_s.
        """
        product_BHD = history_BHD * interest_BD.unsqueeze(1)
        hidden_BHX = self.unit_history(history_BHD) + self.unit_product(product_BHD) + self.unit_interest(interest_BD).unsqueeze(1)
        if self.time_lag is not None and self.unit_time_lag is not None:
            hidden_BHX = hidden_BHX + self.unit_time_lag(self.time_lag.weight)[time_lag_BH]
        score_BH = self.unit_output(torch.relu(hidden_BHX)).squeeze(2)
        if self.attention_norm == "softmax":
            # a softmax over nothing is NaN, in backward too: rows without older behaviours weigh their padding, which is dropped
            competing_BH = valid_BH | ~valid_BH.any(dim=1, keepdim=True)
            score_BH = score_BH.masked_fill(~competing_BH, float("-inf"))
            weight_BH = score_BH.softmax(dim=1).masked_fill(~valid_BH, 0.0)
        else:
            weight_BH = score_BH.masked_fill(~valid_BH, 0.0)
            if self.attention_norm == "sum":
                total_B1 = weight_BH.sum(dim=1, keepdim=True)
                weight_BH = weight_BH / torch.where(total_B1 == 0, torch.ones_like(total_B1), total_B1)
        return torch.bmm(weight_BH.unsqueeze(1), history_BHD).squeeze(1)  # eq. 21
