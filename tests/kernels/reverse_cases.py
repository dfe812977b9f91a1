"""Small reverse processes for the tests of kernels.diffusion_reverse."""

# B rows, L positions, D width, S steps

import torch

from kernels.diffusion_reverse import ConvWeights, ReverseSteps


def random_conv(input_dim, output_dim):
    scale = (3 * input_dim) ** -0.5
    return ConvWeights(
        scale * torch.randn(output_dim, input_dim, 3),
        0.3 * torch.randn(output_dim),
        1 + 0.3 * torch.randn(output_dim),
        0.3 * torch.randn(output_dim),
    )


def random_layers(dim, widths=None):
    """A U-Net of three levels."""
    first, second, third = widths or (dim, 2 * dim, 2 * dim)
    pairs = [(2 * dim, first), (first, second), (second, third), (third + second, second), (second + first, first), (first, dim)]
    return [random_conv(*pair) for pair in pairs]


def random_steps(num_steps, *, signal_dim=None):
    coefficient_S3 = torch.rand(num_steps, 3)
    coefficient_S3[-1] = torch.tensor([1.0, 0.0, 0.0])
    return ReverseSteps(coefficient_S3, None if signal_dim is None else torch.randn(num_steps, signal_dim))


def random_rows(num_rows, num_positions, dim, num_noise, *, lengths_B=None):
    """Condition, validity (the last row is empty where there are several, the first one full) and noise; padding holds NaN."""
    if lengths_B is None:
        lengths_B = torch.randint(0, num_positions + 1, (num_rows,))
        lengths_B[-1], lengths_B[0] = 0, num_positions
    valid_BL = torch.arange(num_positions) >= (num_positions - lengths_B).unsqueeze(1)
    condition_BLD = torch.where(valid_BL.unsqueeze(2), torch.randn(num_rows, num_positions, dim), torch.nan)
    return condition_BLD, valid_BL, torch.randn(num_rows, num_noise, num_positions, dim)


def on(device, *arguments):
    """The arguments with all their tensors on a device."""

    def moved(value):
        if isinstance(value, torch.Tensor):
            return value.to(device)
        if isinstance(value, list):
            return [moved(item) for item in value]
        return type(value)(*map(moved, value)) if isinstance(value, tuple) else value

    return [moved(argument) for argument in arguments]
