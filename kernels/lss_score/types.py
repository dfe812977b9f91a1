"""What the scorer takes: its weights, and items as a store keeps them."""

# M items, X numbers of an item's row: V item heads times head width P, D scorer width, U user heads, B requests, K candidates

from typing import NamedTuple

import torch


class LSSWeights(NamedTuple):
    """The two layers and the projection of FIT eq. 14-16."""

    weight1_DV: torch.Tensor
    """[D, V], W1 of eq. 14 on each row of the U×V similarity matrix."""
    bias1_D: torch.Tensor
    """[D], b1."""
    weight2_DU: torch.Tensor
    """[D, U], W2 of eq. 15 on each column of the U×D matrix S'."""
    bias2_D: torch.Tensor
    """[D], b2."""
    weight3_DD: torch.Tensor
    """[D, D], w of eq. 16 in the layout of S'': entry [i, j] weighs S''_ij."""


class StoredItems(NamedTuple):
    """Rows of an item store."""

    vector_MX: torch.Tensor
    """[M, V·P], z_v with its heads one after another: float32, float16, bfloat16 or int8."""
    scale_M: torch.Tensor | None
    """float32 [M], what an int8 row is multiplied by; None for the other types."""
    index_M: torch.Tensor | None
    """uint8, uint16, int32 or int64 [M], the row of the user's vectors that an item is scored against; None: row 0 for all."""


class TopCandidates(NamedTuple):
    """The best candidates of each request, best first."""

    score_BK: torch.Tensor
    """float32 [B, K]."""
    position_BK: torch.Tensor
    """int64 [B, K], columns of the candidates that were given; the smaller column first among equal scores."""
