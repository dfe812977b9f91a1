"""Seconds per row that a model takes to answer, as the tables show them."""

import statistics
import time
from collections.abc import Callable

import torch

from dataloaders.batch import Batch
from dataloaders.loader import Dataloader
from models.tasks import MatchingTask, PreRankingTask
from trainer.process_group import Ranks


@torch.no_grad()
def seconds_per_row(task: MatchingTask | PreRankingTask, loader: Dataloader, ranks: Ranks) -> float:
    """Median over a split's batches, of a task in eval mode.

    A matching model computes user vectors, since its items' are stored; embeddings are looked up, and noise is drawn, before the
    clock starts. A pre-ranking model scores pairs of users and items from their ids, both towers included.
    """
    loader.seek(epoch=0)
    seconds = []
    for batch in loader:
        call = _call(task, batch.to(ranks.device))
        if ranks.device.type == "cuda":
            torch.cuda.synchronize()
        started = time.perf_counter()
        call()
        if ranks.device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append((time.perf_counter() - started) / batch.num_rows)
    return statistics.median(seconds)


def _call(task: MatchingTask | PreRankingTask, batch: Batch) -> Callable[[], object]:
    """What is timed."""
    if not isinstance(task, MatchingTask):
        return lambda: task(batch)
    users, _ = task.embeddings(batch.pooled, batch.sequence)
    noise_BX = torch.randn(batch.num_rows, task.model.serving_noise_size, device=users.history_JD.device)
    return lambda: task.model.user_vectors(users, noise_BX)
