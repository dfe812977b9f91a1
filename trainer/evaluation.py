"""Metrics of a split, gathered over ranks; of a module in training, or of a run's best checkpoint."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from dataloaders.loader import Dataloader
from dataloaders.schema import Schema
from dataloaders.touched_items import TouchedItems
from models.ranking import ItemsOfUsers
from models.tasks import MatchingLossConfig, MatchingTask
from trainer import checkpoint
from trainer.build import evaluation_loader, sharded_task
from trainer.config import RunConfig
from trainer.errors import CheckpointError, UserError
from trainer.process_group import Ranks
from trainer.sharding import ShardedTask, ShardingConfig
from trainer.stop_signal import StopSignal
from trainer.task_metrics import Recorder, evaluation_recorder

POLL_EVERY_BATCHES = 10


class EvaluationInterrupted(Exception):  # noqa: N818  (a signal, not an error)
    """A rank was told to stop while all ranks evaluated."""


@torch.no_grad()
def evaluate(
    sharded: ShardedTask, loader: Dataloader, *, ranks: Ranks, stop: StopSignal | None = None, recorder: Recorder | None = None
) -> dict[str, float]:
    """Metrics over every row of `loader` (one epoch); leaves the module in eval mode. A collective call.

    Args:
        sharded: the task.
        loader: of the split.
        ranks: who evaluates.
        stop: looked at now and then.
        recorder: what is measured of the task's outputs; default: the task's metrics.

    Raises:
        EvaluationInterrupted: on all ranks, where `stop` was asked to stop before the end.
    """
    sharded.module.eval()
    if isinstance(sharded.task, MatchingTask):
        sharded.task.encode_catalogue()
    recorder = recorder or evaluation_recorder(sharded.task)
    loader.seek(epoch=0)
    for index, batch in enumerate(loader):
        if stop is not None and index % POLL_EVERY_BATCHES == 0 and stop.poll().stop:
            loader.close()
            raise EvaluationInterrupted
        _, out = sharded.module(batch.to(ranks.device, non_blocking=True))
        recorder.add(out)
    return recorder.compute(ranks.host_group)


class MatchingVectors(NamedTuple):
    """What an item index is built from and asked."""

    user_BC: torch.Tensor
    """float [B, C]: e_u of every row of a split."""
    item_MC: torch.Tensor
    """float [M, C]: e_i of the catalogue."""


class LoadedRun(NamedTuple):
    """A run's best checkpoint, ready to evaluate."""

    sharded: ShardedTask
    """In eval mode, tables replicated."""
    schema: Schema
    """Of the data that it is evaluated on."""
    step: int
    """Optimizer steps of the checkpoint."""


def load_run(config: RunConfig, *, run: Path, data: Path, ranks: Ranks) -> LoadedRun:
    """Load the best checkpoint of the run in folder `run`, to evaluate on the data set in `data`.

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
    here = dataclasses.replace(config, data=data)  # items are those that are evaluated on, and the run's own data may be gone
    sharded = sharded_task(here, schema=schema, ranks=ranks, sharding=ShardingConfig(kind="replicated"))
    checkpoint.load(checkpoint.step_folder(folder, state["best_step"]), module=sharded.module, optimizer=None)
    sharded.module.eval()
    return LoadedRun(sharded, schema, state["best_step"])


def with_mask_history(config: RunConfig, *, mask_history: bool) -> RunConfig:
    """`config` of a matching model whose ranking leaves a row's own history out, or has it compete.

    Raises:
        UserError: the run's model scores given candidates, it ranks nothing.
    """
    loss = getattr(config.model, "loss", None)
    if not isinstance(loss, MatchingLossConfig):
        raise UserError(f"--mask-history: {config.recipe} scores given candidates; only matching models rank the catalogue")
    model = dataclasses.replace(config.model, loss=dataclasses.replace(loss, mask_history=mask_history))
    return dataclasses.replace(config, model=model)


def leave_out_user_items(loaded: LoadedRun, *, data: Path, ranks: Ranks) -> None:
    """Let no item compete that `data`/user_items.parquet has for a row's user, but the target.

    In the test rows of leave_one_out, whose target is the user's last item, these are the items before it, all of them: what most
    published full rankings leave out. In other rows they are later items too, without which ranks are better than they can be.

    Raises:
        UserError: the run's model scores given candidates, it ranks nothing; or the data has another split.
        DataError: the file is missing or broken.
    """
    task, schema = loaded.sharded.task, loaded.schema
    if not isinstance(task, MatchingTask):
        raise UserError(
            f"--mask-user-items: {type(task.model).__name__} scores given candidates; matching models rank the catalogue"
        )
    if not schema.name.endswith("/leave_one_out"):
        raise UserError(f"--mask-user-items: test rows of {schema.name} are not each user's last; use data of leave_one_out")
    items = ItemsOfUsers(*(torch.from_numpy(values).to(ranks.device) for values in TouchedItems.load(data, schema).jagged))
    task.seen_items = (schema.user_key, items)


def evaluate_run(
    loaded: LoadedRun, config: RunConfig, *, data: Path, splits: Sequence[str], ranks: Ranks
) -> dict[str, dict[str, float]]:
    """Split of the data set in `data` -> metrics."""
    metrics = {}
    for split in splits:
        loader = evaluation_loader(config, folder=data / split, schema=loaded.schema, ranks=ranks)
        metrics[split] = evaluate(loaded.sharded, loader, ranks=ranks)
    return metrics


@torch.no_grad()
def matching_vectors(loaded: LoadedRun, config: RunConfig, *, data: Path, split: str, ranks: Ranks) -> MatchingVectors:
    """Vectors of the catalogue and of this rank's rows of a split, by a matching model.

    Raises:
        UserError: the run's model scores given candidates and has no user vector that holds for all items.
    """
    task = loaded.sharded.task
    if not isinstance(task, MatchingTask):
        raise UserError(f"{type(task.model).__name__} scores given candidates; item indexes are for matching models")
    loader = evaluation_loader(config, folder=data / split, schema=loaded.schema, ranks=ranks)
    item_MC = task.encode_catalogue()
    batches = (batch.to(ranks.device, non_blocking=True) for batch in loader)
    return MatchingVectors(torch.cat([task.user_vectors(batch) for batch in batches]), item_MC)
