"""The lightweight similarity scorer (FIT eq. 13-16): the public function checks shapes and calls a backend."""

# B any leading dimensions, U user heads, V item heads, P head width, D scorer width

import torch

from kernels.lss_score import reference

__all__ = ["lss_score"]


def lss_score(
    user_BUP: torch.Tensor,
    item_BVP: torch.Tensor,
    weight1_DV: torch.Tensor,
    bias1_D: torch.Tensor,
    weight2_DU: torch.Tensor,
    bias2_D: torch.Tensor,
    weight3_DD: torch.Tensor,
) -> torch.Tensor:
    """Score users against items by their head vectors.

    Args:
        user_BUP: [..., U, P]; leading dimensions broadcast against the item's.
        item_BVP: [..., V, P].
        weight1_DV: [D, V], W1 of eq. 14 on each row of the U×V similarity matrix.
        bias1_D: [D], b1.
        weight2_DU: [D, U], W2 of eq. 15 on each column of the U×D matrix S'.
        bias2_D: [D], b2.
        weight3_DD: [D, D], w of eq. 16 in the layout of S'': entry [i, j] weighs S''_ij.

    Returns:
        [...], one logit per pair.

    Raises:
        ValueError: shapes do not fit together.
    """
    if not torch.jit.is_scripting():
        _check_shapes(user_BUP, item_BVP, weight1_DV, bias1_D, weight2_DU, bias2_D, weight3_DD)
    return reference.lss_score(user_BUP, item_BVP, weight1_DV, bias1_D, weight2_DU, bias2_D, weight3_DD)


def _check_shapes(
    user_BUP: torch.Tensor,
    item_BVP: torch.Tensor,
    weight1_DV: torch.Tensor,
    bias1_D: torch.Tensor,
    weight2_DU: torch.Tensor,
    bias2_D: torch.Tensor,
    weight3_DD: torch.Tensor,
) -> None:
    if user_BUP.dim() < 2 or item_BVP.dim() < 2 or user_BUP.shape[-1] != item_BVP.shape[-1]:
        raise ValueError(
            f"user_BUP has shape {tuple(user_BUP.shape)} and item_BVP {tuple(item_BVP.shape)}, expected [..., U, P] and [..., V, P]"
        )
    dim, user_heads, item_heads = weight3_DD.shape[0], user_BUP.shape[-2], item_BVP.shape[-2]
    expected = (
        ("weight1_DV", weight1_DV, (dim, item_heads)),
        ("bias1_D", bias1_D, (dim,)),
        ("weight2_DU", weight2_DU, (dim, user_heads)),
        ("bias2_D", bias2_D, (dim,)),
        ("weight3_DD", weight3_DD, (dim, dim)),
    )
    for name, tensor, shape in expected:
        if tuple(tensor.shape) != shape:
            raise ValueError(
                f"{name} has shape {tuple(tensor.shape)}, expected {shape}: {user_heads} user heads, {item_heads} item heads"
            )
