"""What crosses from the loader to the model: jagged ids, labels, and where the rows came from.

Shape legend, used in every model file:
B rows of this rank's batch · L longest history in the batch · J all history positions of a batch (jagged)
D embedding width of one position (all its attributes) · N meta queries · H heads · P head width · K candidates
M items of the catalogue
"""

from dataclasses import dataclass

import torch
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor
from torchrec.streamable import Pipelineable


@dataclass
class Batch(Pipelineable):
    """One rank's share of a global batch.

    `pooled` and `sequence` follow the order of Schema.pooled_features and Schema.sequence_features; both hold int64 values and
    int32 lengths, B of them per key. Where rows share sampled candidates, item-only rows follow: item features and nothing else, so
    that both have more than B lengths per key.
    """

    pooled: KeyedJaggedTensor
    """Features that become one vector per row."""
    sequence: KeyedJaggedTensor
    """Features that become one vector per id: histories, and the target item's matching attributes."""
    label_B: torch.Tensor
    """float32 [B]."""
    row_id_B: torch.Tensor
    """int64 [B], the data's row_id column; a sampled negative carries its positive's id."""
    global_rows: torch.Tensor
    """int64 scalar: rows of the whole global batch, over all ranks (the loss's denominator)."""

    @property
    def num_rows(self) -> int:
        """Rows of this rank, B."""
        return self.label_B.shape[0]

    def to(self, device: torch.device, non_blocking: bool = False) -> "Batch":
        """The batch on `device`."""
        return Batch(
            pooled=self.pooled.to(device, non_blocking),
            sequence=self.sequence.to(device, non_blocking),
            label_B=self.label_B.to(device, non_blocking=non_blocking),
            row_id_B=self.row_id_B.to(device, non_blocking=non_blocking),
            global_rows=self.global_rows.to(device, non_blocking=non_blocking),
        )

    def record_stream(self, stream: torch.Stream) -> None:
        """Keep the memory alive until `stream` has used it (side-stream copies of the train pipeline)."""
        self.pooled.record_stream(stream)
        self.sequence.record_stream(stream)
        self.label_B.record_stream(stream)
        self.row_id_B.record_stream(stream)
        self.global_rows.record_stream(stream)

    def pin_memory(self) -> "Batch":
        """The batch in page-locked host memory, so that copies to a GPU can overlap."""
        return Batch(
            pooled=self.pooled.pin_memory(),
            sequence=self.sequence.pin_memory(),
            label_B=self.label_B.pin_memory(),
            row_id_B=self.row_id_B.pin_memory(),
            global_rows=self.global_rows.pin_memory(),
        )


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """The features of all items, in the order of their ids."""

    pooled: KeyedJaggedTensor
    """Schema.pooled_features of M rows; user features are empty."""
    sequence: KeyedJaggedTensor
    """Schema.sequence_features of M rows; histories are empty."""
    log_q_M: torch.Tensor
    """float32 [M]: log of each item's share of the training positives; -inf for an item that is never one."""

    @property
    def num_items(self) -> int:
        """M."""
        return self.log_q_M.shape[0]
