"""The weights of the activation unit as plain tensors, so that any backend can take them."""

# D width of a history position, C and E widths of the first and second hidden layer

from typing import NamedTuple

import torch


class DiceWeights(NamedTuple):
    """Dice with fixed statistics."""

    mean_C: torch.Tensor
    """[C] running mean."""
    var_C: torch.Tensor
    """[C] running variance."""
    alpha_C: torch.Tensor
    """[C] slope of the inactive side."""
    eps: float
    """Added to the variance."""


class AttentionWeights(NamedTuple):
    """The feed-forward network a(·) of FIT eq. 19: 4D → C → E → 1 with Dice between."""

    weight1_C4D: torch.Tensor
    """[C, 4D]: columns in the order e, q, e − q, e∘q."""
    bias1_C: torch.Tensor
    """[C]."""
    dice1: DiceWeights
    """After the first layer."""
    weight2_EC: torch.Tensor
    """[E, C]."""
    bias2_E: torch.Tensor
    """[E]."""
    dice2: DiceWeights
    """After the second layer."""
    weight3_1E: torch.Tensor
    """[1, E]."""
    bias3_1: torch.Tensor
    """[1]."""
