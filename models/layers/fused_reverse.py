"""T2Diff's reverse process as kernels.diffusion_reverse takes it."""

# B rows, L positions, D width, N noise tensors, S steps

from typing import Any

import torch
from torch import nn

from kernels.diffusion_reverse import ConvWeights, PackedWeights, ReverseSteps, diffusion_reverse, packed, unsupported
from kernels.dispatch import uses_triton
from models.layers.diffusion import NoiseSchedule
from models.layers.unet1d import ConvBlock, UNet1d


def reverse_layers(unet: UNet1d) -> list[ConvWeights]:
    """The weights of a `compact` U-Net, in the order that they are applied in."""
    return [_conv_weights(block) for block in (unet.first, *(level.block for level in [*unet.down, *unet.up]), unet.last)]


def _conv_weights(block: ConvBlock) -> ConvWeights:
    conv, norm = block.conv, block.norm
    gain, shift = (conv.bias, conv.bias) if norm is None else (norm.weight, norm.bias)
    return ConvWeights(conv.weight.squeeze(2), conv.bias, gain, shift)


def reverse_steps(
    schedule: NoiseSchedule, *, sampler: str, posterior_noise: str, num_steps: int, step_signal: nn.Module | None
) -> ReverseSteps:
    """What each step of the sampler does: eq. 5 and 17, or the DDIM step.

    Args:
        schedule: β of every step.
        sampler: `ancestral` or `ddim`.
        posterior_noise: `sqrt`, `literal` or `none`; of an ancestral step.
        num_steps: S.
        step_signal: the U-Net's time embedding.
    """
    steps = schedule.sampled_steps(num_steps)
    t_S, next_S = (torch.tensor(numbers, device=schedule.signal.device) for numbers in (steps, [*steps[1:], 0]))
    if sampler == "ddim":
        of_z_S = schedule.noise[next_S] / schedule.noise[t_S]
        of_z0_S = schedule.signal[next_S] - of_z_S * schedule.signal[t_S]
    else:
        of_z0_S, of_z_S = schedule.mean_of_z0[t_S], schedule.mean_of_z[t_S]  # eq. 5
    variance_S = schedule.variance[t_S]
    of_noise_S = variance_S.sqrt() if posterior_noise == "sqrt" else variance_S  # eq. 17; unused without noise
    signal_SI = None if step_signal is None else step_signal(t_S).squeeze(1)
    return ReverseSteps(torch.stack([of_z0_S, of_z_S, of_noise_S], dim=1), signal_SI)


class FusedReverse:
    """Runs the kernel where it can; keeps the packed weights of a U-Net that does not change between calls.

    Args:
        sampler: as in `reverse_steps`.
        posterior_noise: likewise.
        num_steps: S.
    """

    def __init__(self, *, sampler: str, posterior_noise: str, num_steps: int) -> None:
        self._process = {"sampler": sampler, "posterior_noise": posterior_noise, "num_steps": num_steps}
        self._kept: tuple[object, ReverseSteps, PackedWeights] | None = None

    def forget(self) -> None:
        """Pack anew at the next call: a change that PyTorch does not count (through `.data`) would go unnoticed."""
        self._kept = None

    def run(
        self,
        condition_BLD: torch.Tensor,
        valid_BL: torch.Tensor,
        noise_BNLD: torch.Tensor,
        *,
        unet: nn.Module,
        schedule: NoiseSchedule,
        backend: str,
    ) -> torch.Tensor | None:
        """z_0 of the newest position [B, D] by the kernel; None where plain torch is to compute it.

        Products are in bfloat16 under such an autocast, as the U-Net's convolutions would be, else in float32.

        Raises:
            ValueError: backend is `triton` and the kernel cannot run.
        """
        if not uses_triton(backend, condition_BLD):  # the device alone decides: nothing has to be looked at on a CPU
            return None
        reason = _unfusable(unet, condition_BLD)
        layers = [] if reason else reverse_layers(unet)
        dtype = _operand_type(condition_BLD.device.type)
        if not uses_triton(backend, condition_BLD, unsupported=reason or unsupported(condition_BLD, layers, dtype)):
            return None
        steps, weights = self._inputs(layers, unet=unet, schedule=schedule, dtype=dtype)
        return diffusion_reverse(condition_BLD, valid_BL, noise_BNLD, layers, steps, weights, backend)

    def _inputs(
        self, layers: list[ConvWeights], *, unet: nn.Module, schedule: NoiseSchedule, dtype: torch.dtype
    ) -> tuple[ReverseSteps, PackedWeights]:
        tensors = [*unet.parameters(), *schedule.buffers()]
        counted = not torch.compiler.is_compiling() and not any(tensor.is_inference() for tensor in tensors)
        key = (dtype, [(tensor.data_ptr(), tensor._version) for tensor in tensors]) if counted else None
        if self._kept is not None and key is not None and self._kept[0] == key:
            return self._kept[1:]
        with torch.autocast(schedule.signal.device.type, enabled=False):
            steps = reverse_steps(schedule, **self._process, step_signal=unet.step)
            weights = packed(layers, dtype)
        self._kept = None if key is None else (key, steps, weights)
        return steps, weights


def _unfusable(unet: Any, condition_BLD: torch.Tensor) -> str | None:
    if not isinstance(unet, UNet1d) or unet.pools:
        return "the U-Net is not of variant `compact`"
    return "histories have no positions" if condition_BLD.shape[1] == 0 else None


def _operand_type(device_type: str) -> torch.dtype:
    autocast = torch.is_autocast_enabled(device_type) and torch.get_autocast_dtype(device_type) == torch.bfloat16
    return torch.bfloat16 if autocast else torch.float32
