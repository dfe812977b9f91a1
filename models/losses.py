"""The papers' losses."""

# B rows

import torch
import torch.nn.functional as F


def binary_cross_entropy(logit_B: torch.Tensor, label_B: torch.Tensor) -> torch.Tensor:
    """FIT eq. 21 summed over the rows, not divided by their number: float [B] logits and labels in [0, 1] to a float32 scalar.

    Whoever knows the size of the global batch divides.
    """
    return F.binary_cross_entropy_with_logits(logit_B.float(), label_B, reduction="sum")
