"""results.json: what a finished run reached, with everything needed to compare it with another."""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.console import as_text, console, metrics_table
from trainer.provenance import provenance
from trainer.sharding import plan_table

if TYPE_CHECKING:
    from trainer.trainer import Trainer

FILE_NAME = "results.json"


def write_results(trainer: "Trainer", *, metrics: dict[str, dict[str, float]], final_digest: str) -> None:
    """Write the run folder's results.json; `metrics` is split -> metric -> value of the best checkpoint."""
    state = trainer.state
    content = {
        "recipe": trainer.config.recipe,
        "model": type(trainer.task.model).__name__,
        "dataset": trainer.schema.name,
        "seed": trainer.config.seed,
        "world_size": trainer.ranks.world_size,
        "config_fingerprint": trainer.config.fingerprint,
        "schema_fingerprint": trainer.schema.fingerprint,
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
        "provenance": provenance(),
    }
    temporary = trainer.run_dir / (FILE_NAME + ".tmp")
    temporary.write_text(json.dumps(content, indent=2) + "\n")
    temporary.rename(trainer.run_dir / FILE_NAME)


def read_results(run_dir: Path) -> dict[str, Any]:
    """Content of a finished run's results.json."""
    return json.loads((run_dir / FILE_NAME).read_text())


def print_results(run_dir: Path) -> None:
    """The metrics of each split as a table, and where the report is."""
    results = read_results(run_dir)
    title = f"{results['recipe']} seed {results['seed']}, checkpoint of step {results['best_step']}: {results['stopped_because']}"
    rows = {split: {k: v for k, v in values.items() if v is not None} for split, values in results["metrics"].items()}
    console.print(metrics_table(title, rows))
    console.print(f"report: {run_dir / 'report.html'}")
