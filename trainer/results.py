"""results.json: what a finished run reached, with everything needed to compare it with another."""

import json
import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.console import as_text, console, metrics_table
from trainer.durable_file import write_durably
from trainer.errors import UserError
from trainer.provenance import provenance
from trainer.sharding import plan_table
from trainer.task_metrics import protocol

if TYPE_CHECKING:
    from trainer.trainer import Trainer

log = logging.getLogger(__name__)
FILE_NAME = "results.json"


def write_results(
    trainer: "Trainer",
    *,
    metrics: dict[str, dict[str, float]],
    diagnostics: dict[str, Any],
    final_digest: str,
    skipped_rows: list,
) -> None:
    """Write the run folder's results.json.

    Args:
        trainer: of the finished run.
        metrics: split -> metric -> value of the best checkpoint.
        diagnostics: of the best checkpoint, see trainer.diagnostics; empty without any.
        final_digest: checkpoint.state_sha256 at the end of training.
        skipped_rows: [column, reason, rows] of the training rows that `bad_rows=skip` left out, over all ranks and epochs.
    """
    state = trainer.state
    content = {
        "recipe": trainer.config.recipe,
        "model": type(trainer.task.model).__name__,
        "dataset": trainer.schema.name,
        "seed": trainer.config.seed,
        "world_size": trainer.ranks.world_size,
        "config_fingerprint": trainer.config.fingerprint,
        "data_identity": trainer.schema.identity,
        "skipped_rows": skipped_rows,
        "num_parameters": trainer.num_parameters,
        "steps_per_epoch": trainer.steps_per_epoch,
        "steps": state.step,
        "best_step": state.best_step,
        "stopped_because": state.finished,
        "train_seconds": state.train_seconds,
        "train_seconds_per_epoch": state.train_seconds * trainer.steps_per_epoch / max(state.step, 1),
        "final_state_sha256": final_digest,
        "plan": as_text(plan_table(trainer.plan)),
        "metrics": {split: {k: v if math.isfinite(v) else None for k, v in values.items()} for split, values in metrics.items()},
        "protocol": protocol(trainer.task, source=trainer.schema.name, metrics=metrics),
        "diagnostics": diagnostics,
        "provenance": provenance(),
    }
    write_durably(trainer.run_dir / FILE_NAME, json.dumps(content, indent=2) + "\n")


def has_results(run_dir: Path) -> bool:
    """Whether the run has been tested; a results.json that is empty or can't be read counts as none, and is written again."""
    try:
        read_results(run_dir)
    except UserError as error:
        if (run_dir / FILE_NAME).exists():
            log.warning("%s", error)
        return False
    return True


def read_results(run_dir: Path) -> dict[str, Any]:
    """Content of a finished run's results.json.

    Raises:
        UserError: there is none, or it can't be read.
    """
    path = run_dir / FILE_NAME
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: no results of a finished run ({error}); start the run again to finish and test it") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: no results of a finished run (not a JSON object); start the run again to finish and test it")
    return content


def print_results(run_dir: Path) -> None:
    """The metrics of each split as a table, and where the report is."""
    results = read_results(run_dir)
    title = f"{results['recipe']} seed {results['seed']}, checkpoint of step {results['best_step']}: {results['stopped_because']}"
    rows = {split: {k: v for k, v in values.items() if v is not None} for split, values in results["metrics"].items()}
    console.print(metrics_table(title, rows))
    if "protocol" in results:  # older runs did not write it down
        console.print(results["protocol"])
    console.print(f"report: {run_dir / 'report.html'}")
