"""Test a run's best checkpoint again: `python -m trainer.evaluate --run DIR`, under torchrun on any number of ranks."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

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
    windows: Path | None = None
    """Rank the targets of these windows instead: a CSV file without a header, a line each: user, 50 items (oldest first, padded in
    front), target, and optionally 50 times in seconds and the time of the request; 50 is the longest history of ml1m, other data
    sets may have another. Matching models only."""
    ids: Literal["raw", "prepared"] = "raw"
    """What the numbers in `windows` are: the raw data's own (0 pads), or those of the prepared data set (-1 pads)."""
    mask_history: bool | None = None
    """Whether the items of a row's own history are left out of its ranking, as many published figures have it; default: as in the
    run's config. Matching models only."""
    mask_user_items: bool = False
    """Leave out every item that the data set has for a row's user, however long ago, but the target: the protocol of most published
    full rankings. For the test rows of leave_one_out, and matching models."""


def main() -> None:
    """Command line; works whatever hardware and plan the run was trained on, and writes nothing."""
    arguments = tyro.cli(EvaluateArguments)
    require_working_stack()
    from trainer.cli import one_screen_errors, parse_run_config
    from trainer.console import console, metrics_table
    from trainer.errors import UserError
    from trainer.evaluation import evaluate_run, leave_out_user_items, load_run, with_mask_history
    from trainer.process_group import distributed
    from trainer.task_metrics import protocol
    from trainer.windows import evaluate_windows, read_windows

    with one_screen_errors():
        if arguments.windows is not None and arguments.mask_user_items:
            raise UserError("--mask-user-items: the users of windows are not known; use --mask-history True")
        if arguments.mask_user_items and arguments.split != ("test",):
            raise UserError(f"--mask-user-items: leaves later items out of {arguments.split} too; use --split test")
        config = parse_run_config(["--config", str(arguments.run / "config.json")])
        with distributed(config.loop.device) as ranks:
            data = arguments.data or config.data
            if arguments.mask_history is not None:
                config = with_mask_history(config, mask_history=arguments.mask_history)
            loaded = load_run(config, run=arguments.run, data=data, ranks=ranks)
            if arguments.mask_user_items:
                leave_out_user_items(loaded, data=data, ranks=ranks)
            if arguments.windows is None:
                metrics = evaluate_run(loaded, config, data=data, splits=arguments.split, ranks=ranks)
            else:
                windows = read_windows(arguments.windows, data=data, ids=arguments.ids)
                metrics = {arguments.windows.name: evaluate_windows(loaded, windows, data=data, ranks=ranks)}
        if ranks.is_first:
            console.print(metrics_table(f"{arguments.run}, checkpoint of step {loaded.step}", metrics))
            source = loaded.schema.name if arguments.windows is None else f"windows of {arguments.windows}"
            console.print(protocol(loaded.sharded.task, source=source, metrics=metrics))


if __name__ == "__main__":
    main()
