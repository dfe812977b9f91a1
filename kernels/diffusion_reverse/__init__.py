"""T2Diff's reverse process (Algorithm 2): public functions, which check shapes and call a backend. No gradient.

The U-Net is `compact` (models.layers.unet1d): convolutions of kernel 3 that halve the positions on the way down and read each
position twice on the way up. Positions are right-aligned, the newest last.
"""

# B rows, L positions, D width, N noise tensors, S steps, I input and O output channels of a layer

import torch

from kernels.diffusion_reverse import launch, reference
from kernels.diffusion_reverse.packing import PackedWeights, packed, signal_taps, unpackable
from kernels.diffusion_reverse.types import ConvWeights, ReverseSteps
from kernels.dispatch import unsupported_gradient, unsupported_type, uses_triton
from kernels.row_noise import normal_of_rows

__all__ = ["ConvWeights", "PackedWeights", "ReverseSteps", "diffusion_reverse", "diffusion_reverse_keyed", "packed", "unsupported"]


def diffusion_reverse(
    condition_BLD: torch.Tensor,
    valid_BL: torch.Tensor,
    noise_BNLD: torch.Tensor,
    layers: list[ConvWeights],
    steps: ReverseSteps,
    packed_weights: PackedWeights | None = None,
    backend: str = "auto",
) -> torch.Tensor:
    """The newest position's z_0, at the end of the reverse process.

    Args:
        condition_BLD: X_{1:n}, at least one position; padding may hold anything.
        valid_BL: bool, False at padding.
        noise_BNLD: standard normal; z_T first, then one more for each step but the last where the steps are noisy (N = S), else
            none (N = 1).
        layers: of the U-Net: first, one per level on the way down, as many on the way up, last.
        steps: what each step does.
        packed_weights: `packed(layers, dtype)`, of a caller that keeps it between calls; None packs in float32. Its type is that of
            the kernel's products, which are summed in float32.
        backend: auto, torch or triton, see kernels.dispatch.

    Returns:
        [B, D] in the condition's type; 0 for a row without valid positions.

    Raises:
        ValueError: shapes do not fit together, or the backend cannot run.
    """
    if not torch.jit.is_scripting():
        _check(condition_BLD, valid_BL, layers, steps)
        if noise_BNLD.dim() != 4 or noise_BNLD.shape[:1] + noise_BNLD.shape[2:] != condition_BLD.shape:
            raise ValueError(
                f"noise_BNLD has shape {tuple(noise_BNLD.shape)}, expected [B, N, L, D] of {tuple(condition_BLD.shape)}"
            )
        _check_num_noise(noise_BNLD.shape[1], steps)
        if uses_triton(backend, condition_BLD, unsupported=unsupported(condition_BLD, layers, _operand_type(packed_weights))):
            inputs = (condition_BLD.float().contiguous(), valid_BL.contiguous(), noise_BNLD.float().contiguous())
            process = _kernel_process(layers, steps, packed_weights)
            return launch.reverse_from_noise(*inputs, *process).to(condition_BLD.dtype)
    return reference.diffusion_reverse(condition_BLD, valid_BL, noise_BNLD, layers, steps)


def diffusion_reverse_keyed(
    condition_BLD: torch.Tensor,
    valid_BL: torch.Tensor,
    row_id_B: torch.Tensor,
    seed: int,
    num_noise: int,
    layers: list[ConvWeights],
    steps: ReverseSteps,
    packed_weights: PackedWeights | None = None,
    backend: str = "auto",
) -> torch.Tensor:
    """The same from the noise that kernels.row_noise gives for (seed, row id), which the kernel draws itself.

    Args beyond those of `diffusion_reverse`:
        row_id_B: int64 [B].
        seed: in [0, 2^63).
        num_noise: N.
    """
    if not torch.jit.is_scripting():
        _check(condition_BLD, valid_BL, layers, steps)
        if row_id_B.dtype != torch.int64 or row_id_B.shape != condition_BLD.shape[:1] or not 0 <= seed < 2**63:
            raise ValueError(
                f"row_id_B is {row_id_B.dtype} {tuple(row_id_B.shape)}, seed {seed}; expected int64 [{condition_BLD.shape[0]}] and "
                "a seed in [0, 2^63)"
            )
        _check_num_noise(num_noise, steps)
        if uses_triton(backend, condition_BLD, unsupported=unsupported(condition_BLD, layers, _operand_type(packed_weights))):
            inputs = (condition_BLD.float().contiguous(), valid_BL.contiguous(), row_id_B.contiguous(), seed, num_noise)
            process = _kernel_process(layers, steps, packed_weights)
            return launch.reverse_from_key(*inputs, *process).to(condition_BLD.dtype)
    num_positions, dim = condition_BLD.shape[1], condition_BLD.shape[2]
    noise_BNLD = normal_of_rows(row_id_B, num_noise * num_positions * dim, seed).view(-1, num_noise, num_positions, dim)
    return reference.diffusion_reverse(condition_BLD, valid_BL, noise_BNLD.to(condition_BLD.dtype), layers, steps)


def unsupported(condition_BLD: torch.Tensor, layers: list[ConvWeights], dtype: torch.dtype) -> str | None:
    """Why the kernel, with products of this type, cannot take these inputs; None where it can."""
    num_positions, most = condition_BLD.shape[1], launch.MAX_POSITIONS[dtype]
    if num_positions > most:
        return f"histories have {num_positions} positions and the kernel takes {most} with {dtype} products"
    weights = [tensor for layer in layers for tensor in layer]
    return unpackable(layers) or unsupported_type(condition_BLD) or unsupported_gradient(condition_BLD, *weights)


def _operand_type(packed_weights: PackedWeights | None) -> torch.dtype:
    return torch.float32 if packed_weights is None else packed_weights.tiles.dtype


def _kernel_process(
    layers: list[ConvWeights], steps: ReverseSteps, weights: PackedWeights | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None, tuple[int, int, int, int]]:
    """Tiles, vectors, coefficients, signals and widths."""
    tiles, vectors, widths = weights or packed(layers, torch.float32)
    signal_S3O = None if steps.signal_SI is None else signal_taps(layers, steps.signal_SI)
    return tiles, vectors, steps.coefficient_S3.float().contiguous(), signal_S3O, widths


def _check(condition_BLD: torch.Tensor, valid_BL: torch.Tensor, layers: list[ConvWeights], steps: ReverseSteps) -> None:
    if condition_BLD.dim() != 3 or condition_BLD.shape[1] < 1 or valid_BL.shape != condition_BLD.shape[:2]:
        shapes = f"condition_BLD has shape {tuple(condition_BLD.shape)} and valid_BL {tuple(valid_BL.shape)}"
        raise ValueError(f"{shapes}, expected [B, L, D] and [B, L] with at least one position")
    if valid_BL.dtype != torch.bool:
        raise ValueError(f"valid_BL is {valid_BL.dtype}, expected bool")
    dim, widths = condition_BLD.shape[2], [tuple(layer.weight_OI3.shape) for layer in layers]
    if len(layers) < 2 or len(layers) % 2 or widths[0][1] != 2 * dim or widths[-1][0] != dim:
        raise ValueError(
            f"layers have weights {widths}, expected an even number, the first of 2·{dim} inputs, the last of {dim} outputs"
        )
    if steps.coefficient_S3.dim() != 2 or steps.coefficient_S3.shape[0] < 1 or steps.coefficient_S3.shape[1] != 3:
        raise ValueError(f"coefficient_S3 has shape {tuple(steps.coefficient_S3.shape)}, expected [S, 3] with at least one step")
    expected = (steps.coefficient_S3.shape[0], 2 * dim)
    if steps.signal_SI is not None and tuple(steps.signal_SI.shape) != expected:
        raise ValueError(f"signal_SI has shape {tuple(steps.signal_SI.shape)}, expected {expected}")


def _check_num_noise(num_noise: int, steps: ReverseSteps) -> None:
    num_steps = steps.coefficient_S3.shape[0]
    if num_noise not in (1, num_steps):
        raise ValueError(f"{num_noise} noise tensors for {num_steps} steps, expected 1, or one per step")
