"""The U-Net's weights as the kernel reads them."""

# I input and O output channels of a layer, D width of a position, S steps; layers: first, two down, two up, last

from typing import NamedTuple

import torch

from kernels.diffusion_reverse.types import ConvWeights

NUM_LAYERS = 6


class PackedWeights(NamedTuple):
    """Tiles [I, O] of single taps, one after another, and the vectors beside them."""

    tiles: torch.Tensor
    """[X], the operands' type. First layer: three taps on the condition, three on z. Each layer down: three. Each layer up: four on
    the up-sampled channels (tap 0; taps 1 + 2; taps 0 + 1; tap 2), three on the skip connection. Last layer: three."""
    vectors: torch.Tensor
    """float32 [Y]: bias, gain and shift of each layer but the last, whose bias is alone."""
    widths: tuple[int, int, int, int]
    """D, and the channels of the three levels."""


def unpackable(layers: list[ConvWeights]) -> str | None:
    """Why the kernel cannot compute this U-Net; None where it can."""
    if len(layers) != NUM_LAYERS:
        return f"the U-Net has {len(layers)} convolutions and the kernel {NUM_LAYERS}, those of three levels"
    widths = _widths(layers)
    if any(width < 16 or width & (width - 1) for width in widths):
        return f"the U-Net has widths {widths}, and the kernel's are powers of 2 of at least 16"
    return None


def packed(layers: list[ConvWeights], dtype: torch.dtype) -> PackedWeights:
    """Weights for the kernel, tiles in `dtype`.

    A LayerNorm follows every convolution but the last, and is blind to what all channels have in common: taking the mean over
    output channels off weights and bias changes nothing, and leaves the kernel a mean of 0.
    """
    dim = layers[-1].weight_OI3.shape[0]
    tiles: list[torch.Tensor] = []
    vectors: list[torch.Tensor] = []
    for place, layer in enumerate(layers):
        taps_3IO, bias_O = layer.weight_OI3.float().permute(2, 1, 0), layer.bias_O.float()
        if place == len(layers) - 1:
            tiles.append(taps_3IO)
            vectors.append(bias_O)
            break
        taps_3IO, bias_O = taps_3IO - taps_3IO.mean(2, keepdim=True), bias_O - bias_O.mean()
        vectors += [bias_O, layer.gain_O.float(), layer.shift_O.float()]
        if place == 0:
            tiles += [taps_3IO[:, dim:], taps_3IO[:, :dim]]
        elif place in (1, 2):
            tiles.append(taps_3IO)
        else:
            skip_dim = taps_3IO.shape[2]
            tap0_IO, tap1_IO, tap2_IO = taps_3IO[:, :-skip_dim].unbind()
            tiles += [torch.stack([tap0_IO, tap1_IO + tap2_IO, tap0_IO + tap1_IO, tap2_IO]), taps_3IO[:, -skip_dim:]]
    return PackedWeights(
        torch.cat([tile.reshape(-1) for tile in tiles]).to(dtype),
        torch.cat([vector.reshape(-1) for vector in vectors]),
        _widths(layers),
    )


def signal_taps(layers: list[ConvWeights], signal_SI: torch.Tensor) -> torch.Tensor:
    """What each tap of the first layer makes of the steps' signals, float32 [S, 3, O], mean over channels 0."""
    taps_S3O = torch.einsum("oik,si->sko", layers[0].weight_OI3.float(), signal_SI.float())
    return (taps_S3O - taps_S3O.mean(2, keepdim=True)).contiguous()


def _widths(layers: list[ConvWeights]) -> tuple[int, int, int, int]:
    first, down1, down2 = (layer.weight_OI3.shape[0] for layer in layers[:3])
    return layers[-1].weight_OI3.shape[0], first, down1, down2
