"""Runs behind the accuracy tables: train what is missing, continue what was interrupted, sum up over seeds."""

import math
import shlex
import statistics
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from benchmarks.readme import ROOT
from dataloaders.schema import Schema
from trainer.cli import parse_run_config
from trainer.errors import UserError
from trainer.results import has_results, read_results

MATCHING_METRICS = ("recall@2", "recall@10", "recall@20", "mrr@2", "mrr@20", "ndcg@10")
"""What tables of matching models show."""


def finished_run(recipe: str, *, overrides: Sequence[str] = (), num_ranks: int = 1) -> dict[str, Any]:
    """results.json of a recipe with `--field value` overrides; trains it to the end unless it has been.

    Raises:
        DataError: there is no such data set.
        UserError: training failed, or the run was trained on another number of ranks, which its name does not tell.
    """
    arguments = ["--recipe", recipe, *overrides]
    config = parse_run_config(arguments)
    run_dir = ROOT / config.run_dir
    if not has_results(run_dir):
        Schema.load(ROOT / config.data)
        launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={num_ranks}", "-m"]
        ended = subprocess.run([sys.executable, "-m", *launcher, "trainer.train", *arguments], cwd=ROOT)
        if ended.returncode:
            command = shlex.join(["python", "-m", "trainer.train", *arguments])
            raise UserError(f"training ended with status {ended.returncode}, for what its messages above say; it was: {command}")
    results = read_results(run_dir)
    if results["world_size"] != num_ranks:
        ranks = results["world_size"]
        raise UserError(f"{run_dir} was trained on {ranks} rank(s), expected {num_ranks}: move it away, or train elsewhere")
    return results


def run_columns(results: dict[str, Any]) -> dict[str, str]:
    """What every results file says about a run beside its metrics."""
    per_epoch = results["steps_per_epoch"]
    return {
        "num_parameters": str(results["num_parameters"]),
        "best_epoch": f"{results['best_step'] / per_epoch:.2f}",
        "epochs": f"{results['steps'] / per_epoch:.2f}",
        "config": results["config_fingerprint"][:12],
        "data": results["data_identity"][:12],
        **results["provenance"],
    }


def mean(runs: Sequence[dict[str, str]], column: str) -> float:
    """Mean of a column over runs that have it; NaN without any."""
    values = _numbers(runs, column)
    return statistics.fmean(values) if values else math.nan


def spread(runs: Sequence[dict[str, str]], column: str, digits: int) -> str:
    """Mean ± standard deviation of a column over runs that have it; – without any."""
    values = _numbers(runs, column)
    if not values:
        return "–"
    shown = f"{statistics.fmean(values):.{digits}f}"
    return f"{shown} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else shown


def _numbers(runs: Sequence[dict[str, str]], column: str) -> list[float]:
    return [float(row[column]) for row in runs if row.get(column)]


def origin(rows: Sequence[dict[str, str]]) -> str:
    """Every data set, machine and commit that occurs in `rows`."""
    return f"Data: {'; '.join(_distinct(rows, '{dataset}, {test_rows} test rows'))}. {machine(rows)}"


def machine(rows: Sequence[dict[str, str]]) -> str:
    """Every machine and commit that occurs in `rows`."""
    machines = _distinct(rows, "{cpu}, {cores} cores, GPU {gpu}, torch {torch}, torchrec {torchrec}")
    commits = ", ".join(sorted(_distinct(rows, "{commit}")))
    return f"Machine{'s' if len(machines) > 1 else ''}: {'; '.join(machines)}. Commits: {commits}."


def _distinct(rows: Sequence[dict[str, str]], pattern: str) -> list[str]:
    return list(dict.fromkeys(pattern.format_map(row) for row in rows))
