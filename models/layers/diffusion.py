"""Noise schedules of T2Diff's diffusion and the arithmetic of its steps (sections 3.1 and 4.2)."""

# B rows, L history positions, D width of a position, T steps of the schedule; t = 0 is no noise, t = T almost nothing but noise

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import nn

ScheduleKind = Literal["exp", "linear", "log"]

REFERENCE_STEPS = 50
"""T of the paper."""
REFERENCE_ENDPOINTS = (0.01, 0.5)
"""β_1 and β_T of the exponential schedule at the paper's T; every other schedule ends at this one's ᾱ_T, about 5e-4."""
MAX_FINAL_SIGNAL = 1e-2
"""Largest ᾱ_T: the reverse process starts from pure noise, so little of z0 may be left at T."""


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """β_1 … β_T (eq. 13), by its endpoints.

    Without endpoints, β_T/β_1 = 50 and β_T is such that ᾱ_T equals the reference's (exp, T = 50, 0.01 to 0.5): schedules of every
    kind and length then destroy equally much.

    Raises:
        ValueError: a field is outside its allowed range, or too much of z0 is left at T.

    Example::

        ScheduleConfig(kind="linear", num_steps=200).betas()  # float64 [200]
    """

    kind: ScheduleKind = "exp"
    """`exp` β_1·(β_T/β_1)^((t−1)/(T−1)), eq. 13; `linear`; `log` β_1 + (β_T − β_1)·ln(t)/ln(T), the steepest start (Fig. 5)."""
    num_steps: int = 50
    """T, at least 2."""
    beta_first: float | None = None
    """β_1; None derives both endpoints."""
    beta_last: float | None = None
    """β_T; None derives both endpoints."""

    def __post_init__(self) -> None:
        if self.kind not in get_args(ScheduleKind):
            raise ValueError(f"ScheduleConfig.kind={self.kind!r}, expected one of {get_args(ScheduleKind)}")
        if self.num_steps < 2:
            raise ValueError(f"ScheduleConfig.num_steps={self.num_steps}, expected at least 2")
        if (self.beta_first is None) != (self.beta_last is None):
            raise ValueError(
                f"ScheduleConfig.beta_first={self.beta_first}, beta_last={self.beta_last}: give both, or neither to derive them"
            )
        for name in ("beta_first", "beta_last"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 1:
                raise ValueError(f"ScheduleConfig.{name}={value}, expected more than 0 and less than 1")
        first, last = self.endpoints()
        if first > last:
            raise ValueError(f"ScheduleConfig.beta_first={first} is above beta_last={last}; noise must not shrink: swap them")
        signal = math.exp(_log_signal(self.kind, self.num_steps, first, last))
        if signal > MAX_FINAL_SIGNAL:
            raise ValueError(
                f"ScheduleConfig.beta_last={last} with beta_first={first} and num_steps={self.num_steps} leaves ᾱ_T={signal:.3g} "
                f"of the signal at T, expected at most {MAX_FINAL_SIGNAL}: raise beta_last or num_steps, or derive both"
            )

    @classmethod
    def of_exponential(cls, *, a: float = 0.01, b: float = 4.5, num_steps: int = 50) -> "ScheduleConfig":
        """β_s = a·e^{b·s/T} for s = 1..T, as the authors write eq. 13; the defaults are their constants (β_T = 0.90)."""
        return cls(kind="exp", num_steps=num_steps, beta_first=a * math.exp(b / num_steps), beta_last=a * math.exp(b))

    def endpoints(self) -> tuple[float, float]:
        """β_1 and β_T, given or derived."""
        if self.beta_first is not None and self.beta_last is not None:
            return self.beta_first, self.beta_last
        return _derived_endpoints(self.kind, self.num_steps)

    def betas(self) -> torch.Tensor:
        """β_1 … β_T, float64 [T]."""
        return torch.tensor(_betas(self.kind, self.num_steps, *self.endpoints()), dtype=torch.float64)


def _betas(kind: ScheduleKind, num_steps: int, first: float, last: float) -> list[float]:
    """β of every step; t = 1 and t = T hit the endpoints exactly."""
    if kind == "exp":
        inner = [first * (last / first) ** ((t - 1) / (num_steps - 1)) for t in range(2, num_steps)]  # eq. 13
    elif kind == "linear":
        inner = [first + (last - first) * (t - 1) / (num_steps - 1) for t in range(2, num_steps)]
    else:
        inner = [first + (last - first) * math.log(t) / math.log(num_steps) for t in range(2, num_steps)]
    return [first, *inner, last]


def _log_signal(kind: ScheduleKind, num_steps: int, first: float, last: float) -> float:
    """Logarithm of ᾱ_T."""
    return math.fsum(math.log1p(-beta) for beta in _betas(kind, num_steps, first, last))


def _derived_endpoints(kind: ScheduleKind, num_steps: int) -> tuple[float, float]:
    """Endpoints of the reference's ratio and ᾱ_T, by bisection: ᾱ_T falls as β_T grows."""
    if kind == "exp" and num_steps == REFERENCE_STEPS:
        return REFERENCE_ENDPOINTS
    ratio = REFERENCE_ENDPOINTS[1] / REFERENCE_ENDPOINTS[0]
    wanted = _log_signal("exp", REFERENCE_STEPS, *REFERENCE_ENDPOINTS)
    low, high = 0.0, 1.0
    while low < (middle := (low + high) / 2) < high:
        if _log_signal(kind, num_steps, middle / ratio, middle) > wanted:
            low = middle
        else:
            high = middle
    return high / ratio, high


class NoiseSchedule(nn.Module):
    """Tables of the diffusion process, of eq. 4-6 and of a deterministic (DDIM) step.

    Tables are float32 [T + 1], computed in float64; entry t belongs to step t, entry 0 to no noise. They are persistent buffers:
    a scripted or saved model carries its schedule. The steps `t` of posterior_mean, posterior_variance and ddim are in 1..T.

    Args:
        config: see ScheduleConfig.
        device: where the tables live.

    Example::

        schedule = NoiseSchedule(ScheduleConfig())
        z_BLD = schedule.q_sample(z0_BLD, r_B, torch.randn_like(z0_BLD))
    """

    def __init__(self, config: ScheduleConfig, *, device: torch.device | None = None) -> None:
        super().__init__()
        self.num_steps: int = config.num_steps
        self._betas = config.betas().tolist()
        for name in ("signal", "noise", "mean_of_z0", "mean_of_z", "variance", "mean_weight"):
            self.register_buffer(name, torch.empty(config.num_steps + 1, device=device))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Fill the tables."""
        beta_T = torch.tensor(self._betas, dtype=torch.float64)
        one = torch.ones(1, dtype=torch.float64)
        beta = torch.cat([one * 0.0, beta_T])
        log_bar = torch.cumsum(torch.log1p(-beta), 0)
        bar, rest = log_bar.exp(), -torch.expm1(log_bar)  # ᾱ and 1 − ᾱ, the latter without cancellation
        before, rest_before = torch.cat([one, bar[:-1]]), torch.cat([one * 0.0, rest[:-1]])
        divisor = rest.clone()
        divisor[0] = 1.0  # there is no step before 0
        mean_of_z0 = before.sqrt() * beta / divisor
        self._fill(self.signal, bar.sqrt())
        self._fill(self.noise, rest.sqrt())
        self._fill(self.mean_of_z0, mean_of_z0)  # eq. 5
        self._fill(self.mean_of_z, (1.0 - beta).sqrt() * rest_before / divisor)  # eq. 5
        self._fill(self.variance, rest_before / divisor * beta)  # eq. 6
        self._fill(self.mean_weight, mean_of_z0.square() / mean_of_z0[1:].square().mean())

    @torch.no_grad()
    def _fill(self, table: torch.Tensor, values: torch.Tensor) -> None:
        table.copy_(values)

    @torch.jit.export
    def q_sample(self, z0_BLD: torch.Tensor, r_B: torch.Tensor, noise_BLD: torch.Tensor) -> torch.Tensor:
        """z_r of eq. 14, [B, L, D]: z0 after r_B (int64 [B], 0..T) steps, with standard normal noise."""
        signal_B11 = self.signal.index_select(0, r_B)[:, None, None]
        noise_B11 = self.noise.index_select(0, r_B)[:, None, None]
        return torch.addcmul(signal_B11 * z0_BLD, noise_B11, noise_BLD)  # eq. 14

    @torch.jit.export
    def posterior_mean(self, z_BLD: torch.Tensor, z0_BLD: torch.Tensor, t: int) -> torch.Tensor:
        """μ̃_t(z_t, z0) of eq. 5, the mean of z_{t−1}."""
        return self.mean_of_z0[t] * z0_BLD + self.mean_of_z[t] * z_BLD

    @torch.jit.export
    def posterior_variance(self, t: int) -> torch.Tensor:
        """β̃_t of eq. 6, a scalar; 0 at t = 1."""
        return self.variance[t]

    @torch.jit.export
    def ddim(self, z_BLD: torch.Tensor, z0_BLD: torch.Tensor, t: int, t_next: int) -> torch.Tensor:
        """The z at t_next on the path through z_t and (predicted) z0 that keeps its noise; t_next = 0 gives z0.

        The DDIM step with η = 0: ε = (z_t − √ᾱ_t·z0)/√(1 − ᾱ_t), z_next = √ᾱ_next·z0 + √(1 − ᾱ_next)·ε.
        """
        ratio = self.noise[t_next] / self.noise[t]
        return (self.signal[t_next] - ratio * self.signal[t]) * z0_BLD + ratio * z_BLD

    @torch.jit.export
    def kl_weight(self, r_B: torch.Tensor) -> torch.Tensor:
        """Squared coefficient of z0 in eq. 5 at r_B (int64 [B]), over its mean over r = 1..T; [B]."""
        return self.mean_weight.index_select(0, r_B)

    @torch.jit.export
    def sampled_steps(self, num: int) -> list[int]:
        """The steps that a sampler of `num` steps visits, descending from T; evenly spaced, the last jump ending at 0.

        Raises:
            ValueError: num is not in 1..T.
        """
        if num < 1 or num > self.num_steps:
            raise ValueError(f"sampled_steps({num}), expected 1 to {self.num_steps}")
        return [self.num_steps - index * self.num_steps // num for index in range(num)]
