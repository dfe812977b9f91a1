"""Short runs of a pre-ranking model, to export: a few steps on the small demonstration data."""

from pathlib import Path

from trainer.cli import parse_run_config
from trainer.config import RunConfig
from trainer.export.export import ExportConfig, Exported, export_run
from trainer.process_group import distributed
from trainer.trainer import Trainer


def train(config: RunConfig) -> RunConfig:
    """Train to the end; returns the configuration."""
    with distributed("cpu") as ranks, Trainer(config, ranks=ranks) as trainer:
        assert trainer.fit()
    return config


def small_pre_ranking(recipe: str, data: Path, runs: Path, *overrides: str) -> RunConfig:
    """A run of `fit_demo` or `two_tower_demo` with narrow towers and one epoch."""
    return parse_run_config(
        [
            *("--recipe", recipe, "--data", str(data), "--runs", str(runs)),
            *("--embeddings.dim", "8", "--embeddings.init-std", "0.3", "--model.tower.hidden-dims", "24", "16"),
            *("--loop.max-epochs", "1", "--loop.tensorboard", "False"),
            *overrides,
        ]
    )


def export(run: RunConfig, out: Path, **options: object) -> Exported:
    """Export the run's best checkpoint to `out`."""
    with distributed("cpu") as ranks:
        return export_run(ExportConfig(run=run.run_dir, out=out, **options), run, ranks=ranks)
