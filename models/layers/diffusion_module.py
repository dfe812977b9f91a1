"""T2Diff's diffusion module: from a user's history to the vector of the next behaviour (section 4.2)."""

# B rows, L history positions (right-aligned, padding on the left), D width of a position, S noise tensors of a reverse process,
# T steps of the reverse process

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from kernels.dispatch import Backend
from models.layers.diffusion import NoiseSchedule
from models.layers.diffusion_config import DiffusionConfig
from models.layers.drift_scale import DriftScale
from models.layers.fused_reverse import FusedReverse
from models.layers.unet1d import UNet1d


class DiffusionOut(NamedTuple):
    """What the module says about B rows in training."""

    loss_B: torch.Tensor
    """float32 [B]: L_KL of each row (eq. 23), in units of the drift scale; 0 for a row without history."""
    predicted_BD: torch.Tensor
    """float32 [B, D]: x̂_{n+1}; 0 for a row without history."""


class DiffusionModule(nn.Module):
    """U-Net, noise schedule and drift scale: the diffusion process (Algorithm 1) and the reverse process (Algorithm 2).

    All randomness comes in as arguments. Histories are right-aligned: position −1 is the newest. A row's results do not depend on
    how far it is padded, nor on what the padding holds.

    Args:
        config: see DiffusionConfig.
        dim: D.
        device: where parameters and buffers live.

    Example::

        module = DiffusionModule(DiffusionConfig(), dim=32)
        out = module.learn(history_BLD, next_BLD, valid_BL, r_B, noise_BLD, tower_noise_BLD)  # out.loss_B, out.predicted_BD
        predicted_BD = module.sample(history_BLD, valid_BL, torch.randn(8, module.num_noise, 50, 32))
    """

    def __init__(self, config: DiffusionConfig, *, dim: int, device: torch.device | None = None) -> None:
        super().__init__()
        self.num_noise: int = config.num_noise
        self.num_sample_steps: int = config.num_sample_steps
        self.sampler: str = config.sampler
        self.posterior_noise: str = config.posterior_noise
        self.use_drift: bool = config.use_drift
        self.weight_loss: bool = config.kl_weighting == "mu"
        self.loss: str = config.loss
        self.tower_condition: str = config.tower_condition
        self.detach_inputs: bool = config.detach_inputs
        self.detach_prediction: bool = config.detach_prediction
        self.schedule = NoiseSchedule(config.schedule, device=device)
        self.unet = UNet1d(config.unet, dim=dim, device=device)
        self.follow_scale: bool = config.drift_scale == "ema"
        self.drift_scale = DriftScale(device=device)
        self.kernel_backend: Backend = "auto"
        self._fused = FusedReverse(
            sampler=config.sampler, posterior_noise=config.posterior_noise, num_steps=config.num_sample_steps
        )

    def train(self, mode: bool = True) -> "DiffusionModule":
        """nn.Module's; weights that were kept for the kernel are packed anew."""
        self._fused.forget()
        return super().train(mode)

    @torch.jit.export
    def learn(
        self,
        history_BLD: torch.Tensor,
        next_BLD: torch.Tensor,
        valid_BL: torch.Tensor,
        r_B: torch.Tensor,
        noise_BLD: torch.Tensor,
        tower_noise_BLD: torch.Tensor,
    ) -> DiffusionOut:
        """Algorithm 1; in training mode the drift scale follows the batch.

        Args:
            history_BLD: X_{1:n}.
            next_BLD: X_{2:n+1}, aligned with the history.
            valid_BL: bool, False at padding.
            r_B: int64 in 1..T, the step up to which each row is noised (eq. 12).
            noise_BLD: ε of eq. 14.
            tower_noise_BLD: z_T for `tower_condition` `sampled` and `high_noise`; unused by `onestep`.

        Raises:
            ValueError: the shapes do not belong together.
        """
        _check_shapes(history_BLD, valid_BL, [next_BLD, noise_BLD, tower_noise_BLD])
        if self.detach_inputs:
            history_BLD, next_BLD = history_BLD.detach(), next_BLD.detach()
        history_BLD, z0_BLD = _without_padding(history_BLD, valid_BL), _without_padding(next_BLD, valid_BL)
        if self.use_drift:
            z0_BLD = z0_BLD - history_BLD  # eq. 11
        if self.training and self.follow_scale:
            self.drift_scale.observe(z0_BLD, valid_BL)
        condition_BLD, z0_BLD = self._to_unit(history_BLD), self._to_unit(z0_BLD)
        z_BLD = self.schedule.q_sample(z0_BLD, r_B, noise_BLD)  # eq. 14
        denoised_BLD = self.unet(z_BLD, condition_BLD, valid_BL, r_B)  # eq. 15
        newest_BD = _newest(denoised_BLD)
        if self.tower_condition != "onestep":
            with torch.no_grad():
                newest_BD = self._drift_from_noise(condition_BLD, valid_BL, tower_noise_BLD)
        predicted_BD = self._next_behaviour(newest_BD, history_BLD, valid_BL)
        if self.detach_prediction:
            predicted_BD = predicted_BD.detach()
        return DiffusionOut(self._loss(denoised_BLD, z0_BLD, valid_BL, r_B), predicted_BD)

    @torch.jit.export
    def sample(self, history_BLD: torch.Tensor, valid_BL: torch.Tensor, noise_BSLD: torch.Tensor) -> torch.Tensor:
        """Algorithm 2: x̂_{n+1} [B, D] from histories [B, L, D] and `num_noise` noise tensors per row, z_T first.

        Raises:
            ValueError: the shapes do not belong together.
        """
        _check_shapes(history_BLD, valid_BL, [])
        history_BLD = _without_padding(history_BLD, valid_BL)
        newest_BD = self._sampled(self._to_unit(history_BLD), valid_BL, noise_BSLD)
        return self._next_behaviour(newest_BD, history_BLD, valid_BL)

    @torch.jit.export
    def trajectory(
        self, history_BLD: torch.Tensor, valid_BL: torch.Tensor, noise_BSLD: torch.Tensor, target_BD: torch.Tensor
    ) -> torch.Tensor:
        """Fig. 4: cosine of z0 and ẑ0 at the newest position after each reverse step, [T, B]; 0 for a row without history.

        Args beyond those of `sample`: target_BD is x_{n+1}.

        Raises:
            ValueError: the shapes do not belong together.
        """
        _check_shapes(history_BLD, valid_BL, [])
        history_BLD = _without_padding(history_BLD, valid_BL)
        newest_TBD = torch.stack(self._reverse(self._to_unit(history_BLD), valid_BL, noise_BSLD))
        z0_BD = target_BD - _newest(history_BLD) if self.use_drift else target_BD
        return F.cosine_similarity(newest_TBD, z0_BD.unsqueeze(0), dim=2)

    @property
    def scale(self) -> torch.Tensor:
        """The drift scale, a float32 scalar; 1 with drift_scale='none'."""
        # cloned: a later batch moves the buffer, whose value the gradient of an earlier one may still need
        return self.drift_scale.scale.clone()

    @torch.jit.export
    def step_of(self, uniform_B: torch.Tensor) -> torch.Tensor:
        """The r of eq. 12, int64 [B] in 1..T, from uniform numbers in [0, 1)."""
        return (uniform_B * self.schedule.num_steps).long() + 1

    def _to_unit(self, vectors_BLD: torch.Tensor) -> torch.Tensor:
        """Embeddings in units of the drift scale."""
        return vectors_BLD / self.scale

    def _sampled(self, condition_BLD: torch.Tensor, valid_BL: torch.Tensor, noise_BSLD: torch.Tensor) -> torch.Tensor:
        """z_0 of the newest position, [B, D], after the reverse process: by the kernel, or step by step."""
        self._check_noise(condition_BLD, noise_BSLD)
        if not torch.jit.is_scripting():
            newest_BD = self._fused.run(
                condition_BLD, valid_BL, noise_BSLD, unet=self.unet, schedule=self.schedule, backend=self.kernel_backend
            )
            if newest_BD is not None:
                return newest_BD
        return self._reverse(condition_BLD, valid_BL, noise_BSLD)[-1]

    def _reverse(self, condition_BLD: torch.Tensor, valid_BL: torch.Tensor, noise_BSLD: torch.Tensor) -> list[torch.Tensor]:
        """ẑ0 of the newest position, [B, D], after each reverse step; the last one is the sample.

        The last step needs no position beyond the newest one's receptive field, the step before it none beyond theirs, and so on:
        each step computes what later ones will look at.
        """
        self._check_noise(condition_BLD, noise_BSLD)
        steps = self.schedule.sampled_steps(self.num_sample_steps)
        lengths = self._lengths_needed(len(steps), condition_BLD.shape[1])
        z_BLD = noise_BSLD[:, 0]
        newest: list[torch.Tensor] = []
        for index, t in enumerate(steps):
            oldest = condition_BLD.shape[1] - lengths[index]
            z_BLD = z_BLD[:, z_BLD.shape[1] - lengths[index] :]
            denoised_BLD = self.unet(z_BLD, condition_BLD[:, oldest:], valid_BL[:, oldest:], _step_of_all(t, valid_BL))  # eq. 16
            newest.append(_newest(denoised_BLD))
            if index + 1 < len(steps):  # from the last step, z_0 is ẑ0 itself
                z_BLD = self._fuse(z_BLD, denoised_BLD, steps, index, noise_BSLD[:, :, oldest:])
        return newest

    def _check_noise(self, condition_BLD: torch.Tensor, noise_BSLD: torch.Tensor) -> None:
        if noise_BSLD.shape[1] != self.num_noise or noise_BSLD.shape[2:] != condition_BLD.shape[1:]:
            raise ValueError(
                f"noise of shape {noise_BSLD.shape} for {self.num_noise} noise tensors and histories of shape "
                f"{condition_BLD.shape}; expected [rows, num_noise, positions, width]"
            )

    def _lengths_needed(self, num_steps: int, num_positions: int) -> list[int]:
        """Newest positions that each of the steps, in order, has to look at."""
        lengths: list[int] = []
        needed = 1
        for _ in range(num_steps):
            needed = min(self.unet.receptive_len(needed), num_positions)
            lengths.append(needed)
        lengths.reverse()
        return lengths

    def _fuse(
        self, z_BLD: torch.Tensor, denoised_BLD: torch.Tensor, steps: list[int], index: int, noise_BSLD: torch.Tensor
    ) -> torch.Tensor:
        """The z at the step after steps[index], from the z there and ẑ0; a noisy ancestral step takes the next noise."""
        if self.sampler == "ddim":
            return self.schedule.ddim(z_BLD, denoised_BLD, steps[index], steps[index + 1])
        mean_BLD = self.schedule.posterior_mean(z_BLD, denoised_BLD, steps[index])
        if self.posterior_noise == "none":
            return mean_BLD
        variance = self.schedule.posterior_variance(steps[index])
        amplitude = variance.sqrt() if self.posterior_noise == "sqrt" else variance
        return mean_BLD + amplitude * noise_BSLD[:, index + 1]  # eq. 17

    def _drift_from_noise(self, condition_BLD: torch.Tensor, valid_BL: torch.Tensor, noise_BLD: torch.Tensor) -> torch.Tensor:
        """ẑ0 of the newest position, [B, D], without the target: the reverse process, or one U-Net call at t = T."""
        if self.tower_condition == "sampled":
            return self._sampled(condition_BLD, valid_BL, noise_BLD.unsqueeze(1))
        oldest = valid_BL.shape[1] - self._lengths_needed(1, valid_BL.shape[1])[0]
        t_B = _step_of_all(self.schedule.num_steps, valid_BL)
        return _newest(self.unet(noise_BLD[:, oldest:], condition_BLD[:, oldest:], valid_BL[:, oldest:], t_B))

    def _next_behaviour(self, newest_BD: torch.Tensor, history_BLD: torch.Tensor, valid_BL: torch.Tensor) -> torch.Tensor:
        """x̂_{n+1} [B, D] from ẑ0 of the newest position; 0 for a row without history."""
        predicted_BD = newest_BD * self.scale
        if self.use_drift:
            predicted_BD = predicted_BD + _newest(history_BLD)  # eq. 18
        return predicted_BD * valid_BL.any(1).unsqueeze(1)

    def _loss(self, denoised_BLD: torch.Tensor, z0_BLD: torch.Tensor, valid_BL: torch.Tensor, r_B: torch.Tensor) -> torch.Tensor:
        """L_KL of each row, [B]; both arguments are 0 at padding."""
        error_BLD = denoised_BLD - z0_BLD
        if self.loss == "mse":
            total_B = error_BLD.square().sum([1, 2]) / error_BLD.shape[2]  # eq. 23
        else:
            total_B = torch.linalg.vector_norm(error_BLD, dim=2).sum(1)
        loss_B = total_B / valid_BL.sum(1).clamp(min=1)  # a row without history has a total of 0
        return loss_B * self.schedule.kl_weight(r_B) if self.weight_loss else loss_B


def _newest(history_BLD: torch.Tensor) -> torch.Tensor:
    """The last position, [B, D]; 0 where there are no positions at all."""
    if history_BLD.shape[1] == 0:
        return history_BLD.sum(1)
    return history_BLD[:, -1]


def _without_padding(vectors_BLD: torch.Tensor, valid_BL: torch.Tensor) -> torch.Tensor:
    """The vectors, 0 at padding whatever it holds."""
    return torch.where(valid_BL.unsqueeze(2), vectors_BLD, 0.0)


def _step_of_all(t: int, valid_BL: torch.Tensor) -> torch.Tensor:
    """Step t for each row, int64 [B]."""
    return torch.full([valid_BL.shape[0]], t, dtype=torch.int64, device=valid_BL.device)


def _check_shapes(history_BLD: torch.Tensor, valid_BL: torch.Tensor, others: list[torch.Tensor]) -> None:
    """ValueError unless the mask, and all others, fit the histories."""
    if history_BLD.dim() != 3 or history_BLD.shape[:2] != valid_BL.shape:
        raise ValueError(f"histories of shape {history_BLD.shape}, mask of shape {valid_BL.shape}; expected [B, L, D] and [B, L]")
    for other_BLD in others:
        if other_BLD.shape != history_BLD.shape:
            raise ValueError(
                f"next behaviours or noise of shape {other_BLD.shape}, expected that of the histories, {history_BLD.shape}"
            )
