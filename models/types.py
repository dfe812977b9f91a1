"""The NamedTuples of plain tensors that cross the model boundary; they script, and export and C++ see the same shapes."""

# B rows, J all history positions of the batch (jagged), D embedding width of one position (all its attributes),
# U width of the pooled user features, A width of the pooled item features

from typing import NamedTuple

import torch


class UserInputs(NamedTuple):
    """What the user tower sees of B users, embeddings already looked up."""

    profile_BU: torch.Tensor
    """float [B, U]: pooled user features, concatenated in schema order."""
    history_JD: torch.Tensor
    """float [J, D]: one vector per past behaviour, oldest first, rows one after another."""
    history_lengths_B: torch.Tensor
    """int64 [B]: behaviours of each row; sums to J; 0 for a new user."""


class ItemInputs(NamedTuple):
    """What the item tower sees of B items, embeddings already looked up."""

    attributes_BA: torch.Tensor
    """float [B, A]: pooled item features (e.g. genres), concatenated in schema order; A may be 0."""
    item_BD: torch.Tensor
    """float [B, D]: e_c of FIT eq. 4, the item's attributes that behaviours have too, in the history's order."""


class TrainOut(NamedTuple):
    """What a task returns beside the loss; detached."""

    logit_B: torch.Tensor
    """float32 [B]."""
    label_B: torch.Tensor
    """float32 [B]."""
    row_id_B: torch.Tensor
    """int64 [B]."""
