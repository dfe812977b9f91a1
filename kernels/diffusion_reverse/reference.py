"""The specification of T2Diff's reverse process (Algorithm 2, eq. 16-17), in plain torch that scripts."""

# B rows, L positions (right-aligned, newest last), D width, N noise tensors, S steps, C channels

import torch
import torch.nn.functional as F

from kernels.diffusion_reverse.types import ConvWeights, ReverseSteps


def conv(
    input_BCL: torch.Tensor, mask_B1L: torch.Tensor, weights: ConvWeights, stride: int = 1, last: bool = False
) -> torch.Tensor:
    """Convolution with a zero beyond either end, LayerNorm over channels, SiLU; 0 at padding."""
    hidden_BLC = F.conv1d(input_BCL, weights.weight_OI3, weights.bias_O, stride, 1).transpose(1, 2)
    hidden_BLC = hidden_BLC if last else F.silu(F.layer_norm(hidden_BLC, hidden_BLC.shape[2:], weights.gain_O, weights.shift_O))
    return hidden_BLC.transpose(1, 2) * mask_B1L


def unet(input_BCL: torch.Tensor, mask_B1L: torch.Tensor, layers: list[ConvWeights]) -> torch.Tensor:
    """ẑ0 [B, D, L]; layers are first, then those on the way down, those on the way up, last. L is a multiple of 2^levels."""
    levels = len(layers) // 2 - 1
    masks, hidden = [mask_B1L], [conv(input_BCL * mask_B1L, mask_B1L, layers[0])]
    for level in range(levels):
        masks.append(torch.maximum(masks[-1][:, :, 0::2], masks[-1][:, :, 1::2]))
        hidden.append(conv(hidden[-1], masks[-1], layers[1 + level], stride=2))
    for level in range(levels):
        below_BCL = hidden.pop().repeat_interleave(2, dim=2)
        hidden.append(conv(torch.cat([below_BCL, hidden.pop()], dim=1), masks[levels - 1 - level], layers[1 + levels + level]))
    return conv(hidden[0], mask_B1L, layers[-1], last=True)


def diffusion_reverse(
    condition_BLD: torch.Tensor, valid_BL: torch.Tensor, noise_BNLD: torch.Tensor, layers: list[ConvWeights], steps: ReverseSteps
) -> torch.Tensor:
    """z_0 of the newest position, [B, D]."""
    missing = -condition_BLD.shape[1] % (1 << (len(layers) // 2 - 1))
    mask_B1L = F.pad(valid_BL, [missing, 0]).unsqueeze(1).to(condition_BLD.dtype)
    condition_BDL = F.pad(torch.where(valid_BL.unsqueeze(2), condition_BLD, 0.0).transpose(1, 2), [missing, 0])
    noise_BNDL = F.pad(noise_BNLD.transpose(2, 3), [missing, 0])
    (coefficient_S3, signal_SI), z_BDL = steps, noise_BNDL[:, 0]
    for step in range(coefficient_S3.shape[0]):
        input_BCL = torch.cat([z_BDL, condition_BDL], dim=1)
        if signal_SI is not None:
            input_BCL = input_BCL + signal_SI[step].unsqueeze(1)
        of_z0, of_z, of_noise = coefficient_S3[step].unbind()
        z_BDL = of_z0 * unet(input_BCL, mask_B1L, layers) + of_z * z_BDL  # eq. 16
        if step + 1 < noise_BNDL.shape[1]:
            z_BDL = z_BDL + of_noise * noise_BNDL[:, step + 1]  # eq. 17
    return z_BDL[:, :, -1]
