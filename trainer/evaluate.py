"""Test a run's best checkpoint again: `python -m trainer.evaluate --run DIR`, under torchrun on any number of ranks."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from trainer.doctor import require_working_stack


@dataclass(frozen=True, kw_only=True)
class EvaluateArguments:
    """Score a split with the best checkpoint of a run."""

    run: Path
    """Folder of the run (holds config.json and checkpoints/)."""
    split: tuple[str, ...] = ("validation", "test")
    """Splits of the run's data set, or of --data."""
    data: Path | None = None
    """Another prepared data set with the same schema; default: the run's own."""


def main() -> None:
    """Command line; works whatever hardware and plan the run was trained on, and writes nothing."""
    arguments = tyro.cli(EvaluateArguments)
    require_working_stack()
    from trainer.cli import one_screen_errors, parse_run_config
    from trainer.console import console, metrics_table
    from trainer.evaluation import evaluate_run
    from trainer.process_group import distributed

    with one_screen_errors():
        config = parse_run_config(["--config", str(arguments.run / "config.json")])
        with distributed(config.loop.device) as ranks:
            data = arguments.data or config.data
            step, metrics = evaluate_run(config, run=arguments.run, data=data, splits=arguments.split, ranks=ranks)
        if ranks.is_first:
            console.print(metrics_table(f"{arguments.run}, checkpoint of step {step}", metrics))


if __name__ == "__main__":
    main()
