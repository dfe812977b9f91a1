"""A task is what the trainer steps: embeddings, model and loss in one module."""

# B rows of this rank's batch

import torch
from torch import nn

from dataloaders.batch import Batch
from models.embeddings import FeatureEmbeddings
from models.losses import binary_cross_entropy
from models.types import TrainOut


class PreRankingTask(nn.Module):
    """Score one item per row and learn from its label (FIT eq. 21).

    The loss is the sum over this rank's rows times world_size over the rows of the global batch, so that averaging gradients over
    ranks gives the mean over the global batch even where ranks have unequal shares, and world size 1 gives the plain mean.

    Args:
        embeddings: ids to vectors.
        model: `forward(users, items) -> logit_B`, `schedule`, `log_values`.
        world_size: ranks whose gradients are averaged.

    Raises:
        ValueError: world_size is below 1.

    Example::

        task = build_task(FITConfig(), schema=schema)
        loss, out = task(batch)
    """

    def __init__(self, embeddings: FeatureEmbeddings, *, model: nn.Module, world_size: int = 1) -> None:
        super().__init__()
        if world_size < 1:
            raise ValueError(f"PreRankingTask(world_size={world_size}), expected at least 1")
        self.embeddings = embeddings
        self.model = model
        self.world_size = world_size

    def forward(self, batch: Batch) -> tuple[torch.Tensor, TrainOut]:
        """The loss (scalar, see above) and the detached outputs."""
        users, items = self.embeddings(batch.pooled, batch.sequence)
        logit_B = self.model(users, items)
        loss = binary_cross_entropy(logit_B, batch.label_B) * (self.world_size / batch.global_rows)
        return loss, TrainOut(loss.detach(), logit_B.detach().float(), batch.label_B, batch.row_id_B)
