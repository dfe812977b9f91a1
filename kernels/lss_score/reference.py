"""The specification of the lightweight similarity scorer (FIT eq. 13-16), in plain torch that scripts."""

# B any leading dimensions, U user heads, V item heads, P head width, D scorer width

import torch
import torch.nn.functional as F


def lss_score(
    user_BUP: torch.Tensor,
    item_BVP: torch.Tensor,
    weight1_DV: torch.Tensor,
    bias1_D: torch.Tensor,
    weight2_DU: torch.Tensor,
    bias2_D: torch.Tensor,
    weight3_DD: torch.Tensor,
) -> torch.Tensor:
    """Row-wise layer, column-wise layer, projection; leading dimensions broadcast; returns [B]."""
    similarity_BUV = torch.matmul(user_BUP, item_BVP.transpose(-1, -2))  # eq. 13
    row_BUD = torch.relu(F.linear(similarity_BUV, weight1_DV, bias1_D))  # eq. 14
    # eq. 15, S'' transposed: the columns of S' are the rows of its transpose, which is what a linear layer takes; contiguous, as it
    # would multiply a view item by item
    column_BDD = torch.relu(F.linear(row_BUD.transpose(-1, -2).contiguous(), weight2_DU, bias2_D))
    return torch.matmul(column_BDD.flatten(-2), weight3_DD.t().flatten())  # eq. 16
