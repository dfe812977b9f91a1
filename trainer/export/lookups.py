"""Embedding tables as plain modules that script: one table for all of a tower's features, float or int8, and what is looked up."""

# X ids, R bags, U features of a side, H histories, J history positions of a batch, B rows, D embedding width

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from dataloaders.schema import Feature
from trainer.export.signature import InputFeature


class FloatTable(nn.Module):
    """Rows of a float table.

    Args:
        weight_RD: the rows.
    """

    def __init__(self, weight_RD: torch.Tensor) -> None:
        super().__init__()
        self.table = nn.Embedding.from_pretrained(weight_RD.detach().float().clone())

    def forward(self, id_X: torch.Tensor) -> torch.Tensor:
        """Row of each id: int64 [X] to [X, D]."""
        return self.table(id_X)

    @torch.jit.export
    def means(self, id_X: torch.Tensor, end_R: torch.Tensor) -> torch.Tensor:
        """Mean row of each bag, [R, D], 0 for an empty one; bag r is id_X[end_R[r - 1] : end_R[r]]."""
        offset_R = torch.cat([end_R.new_zeros(1), end_R])
        return F.embedding_bag(id_X, self.table.weight, offset_R, mode="mean", include_last_offset=True)


class ByteTable(nn.Module):
    """Rows of a table quantised row by row to 8 bits, in the layout of torch's own operators (FBGEMM's): the bytes, scale, offset.

    Args:
        weight_RD: the float rows.
    """

    def __init__(self, weight_RD: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("packed", torch.ops.quantized.embedding_bag_byte_prepack(weight_RD.detach().float()))

    def forward(self, id_X: torch.Tensor) -> torch.Tensor:
        """Row of each id: int64 [X] to float32 [X, D]."""
        offset_X = torch.arange(id_X.shape[0] + 1, device=id_X.device)
        return self._sums(id_X, offset_X)

    @torch.jit.export
    def means(self, id_X: torch.Tensor, end_R: torch.Tensor) -> torch.Tensor:
        """As FloatTable.means."""
        offset_R = torch.cat([end_R.new_zeros(1), end_R])
        return self._sums(id_X, offset_R) / offset_R.diff().clamp(min=1).unsqueeze(1)

    def _sums(self, id_X: torch.Tensor, offset_R: torch.Tensor) -> torch.Tensor:
        return torch.ops.quantized.embedding_bag_byte_rowwise_offsets(
            self.packed, id_X, offset_R, False, 0, False, None, None, True
        )


def rounded_to_bytes(weight_RD: torch.Tensor) -> torch.Tensor:
    """What a ByteTable's rows are as floats, [R, D]."""
    packed = torch.ops.quantized.embedding_bag_byte_prepack(weight_RD.detach().float())
    return torch.ops.quantized.embedding_bag_byte_unpack(packed)


class StackedTable(NamedTuple):
    """The tables of several features, one below the other."""

    weight_RD: torch.Tensor
    first_row_U: torch.Tensor
    """int64 [U]: where each feature's table begins."""
    num_rows_U: torch.Tensor
    """int64 [U]: rows of each feature's table."""


def stack_tables(features: Sequence[Feature | InputFeature], weights: Mapping[str, torch.Tensor], *, dim: int) -> StackedTable:
    """One table of the rows of all `features`; features that share a table share its rows.

    Args:
        features: in the order of the ids that will come.
        weights: table name to float [rows, D].
        dim: D, also of no features.
    """
    first_row: dict[str, int] = {}
    starts, total = [], 0
    for feature in features:
        assert feature.table is not None, f"{feature.name} is not looked up"
        if feature.table not in first_row:
            first_row[feature.table], total = total, total + feature.vocab_size
        starts.append(first_row[feature.table])
    parts = [weights[table] for table in first_row]
    return StackedTable(
        torch.cat(parts) if parts else torch.zeros(1, dim),
        torch.tensor(starts, dtype=torch.int64),
        torch.tensor([feature.vocab_size for feature in features], dtype=torch.int64),
    )


class PooledLookup(nn.Module):
    """Ids of several features, feature after feature as in a KeyedJaggedTensor, to the mean vector of each feature and row.

    Args:
        stacked: the features' tables.
        quantised: whether to keep 8 bits of each number.
        check_ids: whether ids outside their feature's table raise; without, they read another feature's row.
    """

    def __init__(self, stacked: StackedTable, *, quantised: bool, check_ids: bool) -> None:
        super().__init__()
        self.table = ByteTable(stacked.weight_RD) if quantised else FloatTable(stacked.weight_RD)
        self.check_ids = check_ids
        self.register_buffer("first_row_U", stacked.first_row_U)
        self.register_buffer("num_rows_U", stacked.num_rows_U)

    def forward(self, value_X: torch.Tensor, length_UB: torch.Tensor) -> torch.Tensor:
        """int64 [X] with int64 lengths [U, B] to [B, U, D].

        Raises:
            ValueError: an id is not in its feature's table.
        """
        num_values, count_U = value_X.shape[0], length_UB.sum(1)
        if self.check_ids:
            limit_X = torch.repeat_interleave(self.num_rows_U, count_U, output_size=num_values)
            if bool(((value_X < 0) | (value_X >= limit_X)).any()):
                raise ValueError("an id is outside its feature's vocabulary; see schema.json")
        row_X = value_X + torch.repeat_interleave(self.first_row_U, count_U, output_size=num_values)
        mean_XD = self.table.means(row_X, length_UB.flatten().cumsum(0))
        return mean_XD.reshape(length_UB.shape[0], length_UB.shape[1], mean_XD.shape[1]).transpose(0, 1)


class SequenceLookup(nn.Module):
    """Ids of several histories, aligned with each other, to one vector per position.

    Args as in PooledLookup.
    """

    def __init__(self, stacked: StackedTable, *, quantised: bool, check_ids: bool) -> None:
        super().__init__()
        self.table = ByteTable(stacked.weight_RD) if quantised else FloatTable(stacked.weight_RD)
        self.check_ids = check_ids
        self.register_buffer("first_row_H1", stacked.first_row_U.unsqueeze(1))
        self.register_buffer("num_rows_H1", stacked.num_rows_U.unsqueeze(1))

    def forward(self, value_HJ: torch.Tensor) -> torch.Tensor:
        """int64 [H, J] to [J, H·D].

        Raises:
            ValueError: an id is not in its feature's table.
        """
        if self.check_ids and bool(((value_HJ < 0) | (value_HJ >= self.num_rows_H1)).any()):
            raise ValueError("an id of a history is outside its feature's vocabulary; see schema.json")
        row_XD = self.table((value_HJ + self.first_row_H1).flatten())
        vector_JHD = row_XD.reshape(value_HJ.shape[0], value_HJ.shape[1], row_XD.shape[1]).transpose(0, 1)
        return vector_JHD.reshape(value_HJ.shape[1], value_HJ.shape[0] * row_XD.shape[1])
