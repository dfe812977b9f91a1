"""From jagged histories to padded ones, newest behaviour last or oldest first, and back."""

# B rows, J all history positions of the batch (jagged), L padded length, X any width

import torch

from kernels.target_attention import row_index


def right_aligned(value_JX: torch.Tensor, lengths_B: torch.Tensor, max_len: int) -> torch.Tensor:
    """[J, X] with int64 lengths [B] to [B, L, X]: row b's values fill its last places, zeros the first ones (T2Diff eq. 18).

    No length may exceed `max_len`, which the loader has checked against the schema.
    """
    return _padded(value_JX, lengths_B, max_len, max_len - lengths_B)


def left_aligned(value_JX: torch.Tensor, lengths_B: torch.Tensor, max_len: int) -> torch.Tensor:
    """As `right_aligned`, but row b's values fill its first places: what runs from left to right sees no padding before them."""
    return _padded(value_JX, lengths_B, max_len, torch.zeros_like(lengths_B))


def _padded(value_JX: torch.Tensor, lengths_B: torch.Tensor, max_len: int, first_B: torch.Tensor) -> torch.Tensor:
    """Row b's values from its place first_B[b] on."""
    row_J = row_index(lengths_B, value_JX.shape[0])
    start_B = torch.cumsum(lengths_B, 0) - lengths_B
    shift_J = row_J * max_len + (first_B - start_B).index_select(0, row_J)
    place_J = torch.arange(value_JX.shape[0], device=value_JX.device) + shift_J
    padded_XX = value_JX.new_zeros(lengths_B.shape[0] * max_len, value_JX.shape[1])
    return padded_XX.index_copy(0, place_J, value_JX).reshape(lengths_B.shape[0], max_len, value_JX.shape[1])


def valid_places(lengths_B: torch.Tensor, max_len: int) -> torch.Tensor:
    """Bool [B, L]: which places of `right_aligned` hold a value."""
    return torch.arange(max_len, device=lengths_B.device) >= (max_len - lengths_B).unsqueeze(1)
