"""From a RunConfig to the parts of a run: loaders and the sharded task. What doesn't fit is a UserError."""

import dataclasses
from pathlib import Path

import torch
import torch.distributed as dist

from dataloaders.catalogue import read_catalogue
from dataloaders.errors import DataError
from dataloaders.loader import Dataloader
from dataloaders.negatives import NegativeConfig, check_task
from dataloaders.row_groups import SkipCounts, skip_list
from dataloaders.schema import Schema
from models import build_task, spec_of
from models.backend import set_backend
from models.tasks import MatchingLossConfig, MatchingTask
from trainer.config import RunConfig
from trainer.console import kernel_choice
from trainer.errors import UserError
from trainer.optim import learning_rate_factor
from trainer.precision import run_under_autocast
from trainer.process_group import Ranks
from trainer.sharding import ShardedTask, ShardingConfig, shard


def training_loader(config: RunConfig, *, schema: Schema, ranks: Ranks) -> Dataloader:
    """This rank's training batches, shuffled, with sampled negatives."""
    return _loader(config, folder=config.data / "train", schema=schema, ranks=ranks, training=True)


def evaluation_loader(config: RunConfig, *, folder: Path, schema: Schema, ranks: Ranks) -> Dataloader:
    """This rank's share of an evaluation split, in file order, with the labels and negatives that the files hold."""
    return _loader(config, folder=folder, schema=schema, ranks=ranks, training=False)


def _loader(config: RunConfig, *, folder: Path, schema: Schema, ranks: Ranks, training: bool) -> Dataloader:
    loader = config.loader if training else dataclasses.replace(config.loader, negatives=NegativeConfig(kind="none"))
    try:
        if training and spec_of(config.model).task_class is MatchingTask:
            check_matching(schema, config.model.loss, loader.negatives)
        elif training:
            check_task(schema, loader.negatives)
        return Dataloader(
            schema,
            folder,
            config=loader,
            seed=config.seed,
            shuffle=training,
            rank=ranks.rank,
            world_size=ranks.world_size,
            pin_memory=ranks.device.type == "cuda",
        )
    except DataError:
        raise
    except ValueError as error:
        raise UserError(f"{folder}: {error}") from error


def check_matching(schema: Schema, loss: MatchingLossConfig, negatives: NegativeConfig) -> None:
    """ValueError where the rows or the negatives are not what a softmax over the catalogue learns from."""
    if schema.task != "next_item":
        raise ValueError(
            f"{schema.name}: rows of task {schema.task} are positives and negatives, at least in evaluation; a matching model "
            "takes each row's item for the one that was chosen: prepare the data with --task next_item"
        )
    expected = "none" if loss.item_softmax == "full" else "shared"
    if negatives.kind != expected:
        raise ValueError(
            f"--model.loss.item-softmax {loss.item_softmax} goes with --loader.negatives.kind {expected}, not {negatives.kind}"
        )


def check_schedule(config: RunConfig, *, total_steps: int) -> None:
    """UserError where the learning-rate schedule does not fit into `total_steps` optimizer steps."""
    try:
        learning_rate_factor(total_steps, total_steps=total_steps, config=config.optimizer)
    except ValueError as error:
        raise UserError(str(error)) from error


def check_monitor(config: RunConfig) -> None:
    """UserError where the monitored metric is one that the model's task does not measure."""
    binary, monitor = ("auc", "logloss"), config.loop.monitor
    matching = spec_of(config.model).task_class is MatchingTask
    if (monitor in binary) == matching:
        kind = "ranks items: use recall@20, for example" if matching else f"scores labels: use one of {binary}"
        raise UserError(f"--loop.monitor {monitor} is no metric of {type(config.model).__name__}, which {kind}")


def skipped_rows(loader: Dataloader, *, ranks: Ranks) -> list[tuple[str, str, int]]:
    """(column, reason, rows) that all ranks' loaders have left out since the run began; a collective call."""
    counts = [loader.skipped_total] * ranks.world_size
    if ranks.world_size > 1:
        dist.all_gather_object(counts, loader.skipped_total, group=ranks.host_group)
    return skip_list(sum(counts, SkipCounts()))


def sharded_task(config: RunConfig, *, schema: Schema, ranks: Ranks, sharding: ShardingConfig | None = None) -> ShardedTask:
    """The configured model with its tables, initialised from the seed and placed on the ranks.

    Args:
        config: the run.
        schema: of its data set.
        ranks: who trains.
        sharding: another placement than the configured one (evaluation on other hardware).

    Raises:
        UserError: model, data, placement, optimizer and hardware do not go together.
        DataError: the catalogue of a matching model is missing or broken.
    """
    if config.loop.precision == "bfloat16" and ranks.device.type == "cpu":
        raise UserError("loop.precision=bfloat16 needs a GPU, and this run is on a CPU: use --loop.precision float32")
    matching = spec_of(config.model).task_class is MatchingTask
    chosen = sharding or config.sharding
    if matching and chosen.kind == "planner" and config.model.loss.item_softmax == "full":
        raise UserError(
            "the full softmax looks up every item in every step, which sharded tables with fused optimizers can't: use "
            "--sharding.kind replicated, or --model.loss.item-softmax sampled --loader.negatives.kind shared"
        )
    try:
        kernel_choice(config.loop.backend, ranks.device)
        task = build_task(
            config.model,
            schema=schema,
            embeddings=config.embeddings,
            catalogue=read_catalogue(config.data, schema, bad_rows=config.loader.bad_rows) if matching else None,
            device=torch.device("cpu"),
            table_device=torch.device("meta"),  # `shard` draws each rank's parts alone; no table exists whole
            world_size=ranks.world_size,
        )
    except DataError:
        raise
    except ValueError as error:
        raise UserError(str(error)) from error
    set_backend(task, config.loop.backend)
    sharded = shard(
        task,
        config=chosen,
        optimizer=config.optimizer,
        device=ranks.device,
        process_group=ranks.group,
    )
    if config.loop.precision == "bfloat16":
        run_under_autocast(sharded.task.model, ranks.device.type)
    return sharded
