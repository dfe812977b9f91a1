"""What a reverse process is made of, as plain tensors, so that any backend can take it."""

# S steps, I input and O output channels of a layer, D width of a position

from typing import NamedTuple

import torch


class ConvWeights(NamedTuple):
    """A convolution of kernel 3 over positions and the LayerNorm behind it."""

    weight_OI3: torch.Tensor
    """[O, I, 3]: tap 0 weighs the older neighbour, tap 2 the newer one."""
    bias_O: torch.Tensor
    """[O]."""
    gain_O: torch.Tensor
    """[O] of the LayerNorm; unused by the last layer, which has none."""
    shift_O: torch.Tensor
    """[O], likewise."""


class ReverseSteps(NamedTuple):
    """z of the next step as a linear function of the step's ẑ0, z and noise, for the steps in their order."""

    coefficient_S3: torch.Tensor
    """float32 [S, 3]: of ẑ0, of z, of a standard normal; the last step is (1, 0, 0), which makes z_0 the ẑ0."""
    signal_SI: torch.Tensor | None
    """float32 [S, 2D], added to the U-Net's input at the step; None: it is not told the step."""
