"""Runs to export: a few steps of a pre-ranking model on the small demonstration data, and models that have not been trained."""

from pathlib import Path

import torch

from dataloaders.schema import Schema
from trainer.build import sharded_task
from trainer.cli import parse_run_config
from trainer.config import RunConfig
from trainer.evaluation import LoadedRun, load_run
from trainer.export.config import ExportConfig
from trainer.export.export import Exported, export_run
from trainer.export.run_parts import RunParts, run_parts
from trainer.process_group import distributed
from trainer.sharding import ShardingConfig
from trainer.trainer import Trainer


def train(config: RunConfig) -> RunConfig:
    """Train to the end; returns the configuration."""
    with distributed("cpu") as ranks, Trainer(config, ranks=ranks) as trainer:
        assert trainer.fit()
    return config


def small_pre_ranking(recipe: str, data: Path, runs: Path, *overrides: str) -> RunConfig:
    """A run of a pre-ranking recipe with narrow towers and one epoch."""
    return parse_run_config(
        [
            *("--recipe", recipe, "--data", str(data), "--runs", str(runs)),
            *("--embeddings.dim", "8", "--embeddings.init-std", "0.3", "--model.tower.hidden-dims", "24", "16"),
            *("--loop.max-epochs", "1", "--loop.tensorboard", "False"),
            *overrides,
        ]
    )


FEW_STEPS = {"diffurec_ml1m": ("--model.schedule.num-steps", "4", "--model.schedule.beta-last", "0.99")}
"""Recipes whose reverse process visits every step, and how it is made short."""


def small_matching_model(recipe: str, data: Path, runs: Path) -> RunConfig:
    """A run of a matching recipe as it is, but for one short epoch and FEW_STEPS."""
    return parse_run_config(
        [
            *("--recipe", recipe, "--data", str(data), "--runs", str(runs), "--loader.batch-size", "128"),
            *("--loop.max-epochs", "1", "--loop.evals-per-epoch", "1", "--loop.tensorboard", "False", "--loop.device", "cpu"),
            *FEW_STEPS.get(recipe, ()),
        ]
    )


def export(run: RunConfig, out: Path, **options: object) -> Exported:
    """Export the run's best checkpoint to `out`."""
    with distributed("cpu") as ranks:
        return export_run(ExportConfig(run=run.run_dir, out=out, **options), run, ranks=ranks)


def trained_parts(config: RunConfig) -> RunParts:
    """The parts of a run that has a checkpoint."""
    with distributed("cpu") as ranks:
        return run_parts(load_run(config, run=config.run_dir, data=config.data, ranks=ranks))


def untrained_parts(config: RunConfig) -> RunParts:
    """The parts of a run that has just begun, with norms that have seen something."""
    schema = Schema.load(config.data)
    with distributed("cpu") as ranks:
        sharded = sharded_task(config, schema=schema, ranks=ranks, sharding=ShardingConfig(kind="replicated"))
    generator = torch.Generator().manual_seed(1)
    for name, buffer in sharded.task.named_buffers():
        if "running_mean" in name:
            buffer.normal_(generator=generator)
        elif "running_var" in name:
            buffer.uniform_(0.5, 2, generator=generator)
    sharded.module.eval()
    return run_parts(LoadedRun(sharded, schema, 0))
