"""Metrics of one split, gathered over ranks; as a program, of a run's best checkpoint: `python -m trainer.evaluate --run DIR`."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from torch import nn
from torch.distributed.elastic.multiprocessing.errors import record

from dataloaders.loader import Dataloader
from trainer.console import console, metrics_table
from trainer.metrics import BinaryMetrics
from trainer.process_group import Ranks


@torch.no_grad()
def evaluate(module: nn.Module, loader: Dataloader, *, ranks: Ranks) -> dict[str, float]:
    """BinaryMetrics over every row of `loader` (one epoch); leaves `module` in eval mode. A collective call."""
    module.eval()
    metrics = BinaryMetrics()
    for batch in loader:
        _, out = module(batch.to(ranks.device, non_blocking=True))
        metrics.update(out.logit_B, out.label_B)
    return metrics.compute(ranks.host_group)


@dataclass(frozen=True, kw_only=True)
class EvaluateArguments:
    """Score a split with the best checkpoint of a run."""

    run: Path
    """Folder of the run (holds config.json and checkpoints/)."""
    split: tuple[str, ...] = ("validation", "test")
    """Splits of the run's data set, or of --data."""
    data: Path | None = None
    """Another prepared data set with the same schema; default: the run's own."""


@record
def main() -> None:
    """Command line; works under torchrun on any number of ranks."""
    from trainer.cli import one_screen_errors, parse_run_config
    from trainer.process_group import distributed
    from trainer.trainer import Trainer

    arguments = tyro.cli(EvaluateArguments)
    with one_screen_errors():
        config = parse_run_config(["--config", str(arguments.run / "config.json")])
        with distributed(config.loop.device) as ranks:
            trainer = Trainer(dataclasses.replace(config, runs=arguments.run.parent), ranks=ranks)
            trainer.load_best()
            metrics = {split: trainer.evaluate(split, data=arguments.data) for split in arguments.split}
        if ranks.is_first:
            console.print(metrics_table(f"{arguments.run}, step {trainer.state.best_step}", metrics))


if __name__ == "__main__":
    main()
