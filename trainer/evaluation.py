"""Metrics of a split, gathered over ranks; of a module in training, or of a run's best checkpoint."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from dataloaders.loader import Dataloader
from dataloaders.schema import Schema
from trainer import checkpoint
from trainer.build import evaluation_loader, sharded_task
from trainer.config import RunConfig
from trainer.errors import CheckpointError, UserError
from trainer.metrics import BinaryMetrics
from trainer.process_group import Ranks
from trainer.sharding import ShardingConfig
from trainer.stop_signal import StopSignal

POLL_EVERY_BATCHES = 10


class EvaluationInterrupted(Exception):  # noqa: N818  (a signal, not an error)
    """A rank was told to stop while all ranks evaluated."""


@torch.no_grad()
def evaluate(module: nn.Module, loader: Dataloader, *, ranks: Ranks, stop: StopSignal | None = None) -> dict[str, float]:
    """BinaryMetrics over every row of `loader` (one epoch); leaves `module` in eval mode. A collective call.

    Raises:
        EvaluationInterrupted: on all ranks, where `stop` was asked to stop before the end.
    """
    module.eval()
    metrics = BinaryMetrics()
    loader.seek(epoch=0)
    for index, batch in enumerate(loader):
        if stop is not None and index % POLL_EVERY_BATCHES == 0 and stop.poll().stop:
            loader.close()
            raise EvaluationInterrupted
        _, out = module(batch.to(ranks.device, non_blocking=True))
        metrics.update(out.logit_B, out.label_B)
    return metrics.compute(ranks.host_group)


def evaluate_run(
    config: RunConfig, *, run: Path, data: Path, splits: Sequence[str], ranks: Ranks
) -> tuple[int, dict[str, dict[str, float]]]:
    """Step of the run's best checkpoint, and split -> metrics.

    Tables are replicated: weights alone are read, so any plan, optimizer or device that trained them will do.

    Raises:
        CheckpointError: the folder holds no evaluated checkpoint.
        UserError: the data set's schema is not the one that the run was trained on.
    """
    folder = run / "checkpoints"
    newest = checkpoint.latest_valid(folder)
    state = checkpoint.read_extra(newest)["state"] if newest else {}
    if newest is None or not state["best_step"]:
        raise CheckpointError(f"{folder}: no evaluated checkpoint; train the run first (python -m trainer.train)")
    schema = Schema.load(data)
    if schema.fingerprint != checkpoint.read_extra(newest)["schema"]:
        raise UserError(f"{data}: its schema is not the one that {run} was trained on; prepare it with the same options")
    module = sharded_task(config, schema=schema, ranks=ranks, sharding=ShardingConfig(kind="replicated")).module
    checkpoint.load(checkpoint.step_folder(folder, state["best_step"]), module=module, optimizer=None)
    metrics = {}
    for split in splits:
        loader = evaluation_loader(config, folder=data / split, schema=schema, ranks=ranks)
        metrics[split] = evaluate(module, loader, ranks=ranks)
    return state["best_step"], metrics
