"""Rows of benchmarks/results/<paper>_<dataset>.csv: what a finished run, or a baseline that is counted, reached."""

import functools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import counted_matching, popularity
from benchmarks.paper.cells import Cell, Paper, PaperTable
from benchmarks.readme import ROOT
from benchmarks.result_rows import read_rows, replace_rows
from benchmarks.trained_runs import run_columns
from dataloaders.schema import Schema
from trainer.cli import parse_run_config
from trainer.config import RunConfig
from trainer.results import has_results, read_results

log = logging.getLogger(__name__)
KEY = ("recipe", "seed", "num_ranks", "config")
"""Columns that two records of one run have in common."""


def column_unseen(metric: str) -> str:
    """Where the results file has a test metric of rankings without the items that a user touched before."""
    return f"test_{metric}_unseen"


def column_training_form(metric: str) -> str:
    """Where the results file has a validation metric of T2Diff with x̂ as in training."""
    return f"validation_{metric}_training_form"


def config_of(cell: Cell, *, seed: int) -> RunConfig:
    """What a cell's run is configured with."""
    return _config(cell.recipe, cell.overrides, seed)


@functools.cache
def _config(recipe: str, overrides: tuple[str, ...], seed: int) -> RunConfig:
    return parse_run_config(["--recipe", recipe, *overrides, "--seed", str(seed)])


def is_here(cell: Cell, row: dict[str, str]) -> bool:
    """Whether the run of a cell's row and the data it was trained on are on this machine; no if others with their names are.

    A run that was trained again elsewhere has other metrics, by which it is told from the recorded one.
    """
    if cell.role == "counted":
        return False
    config = config_of(cell, seed=int(row["seed"]))
    run, folder = ROOT / config.run_dir, ROOT / config.data
    if not has_results(run) or not (folder / "schema.json").exists():
        return False
    identity, results = Schema.load(folder).identity, read_results(run)
    # rows without `data` are older than that column; the metrics tell them from those of a run that has taken their run's place
    same_data = results["data_identity"] == identity and row.get("data") in (None, "", identity[:12])
    test = results["metrics"]["test"]
    return same_data and all(row[f"test_{name}"] == f"{value:.6f}" for name, value in test.items() if row.get(f"test_{name}"))


def trained_row(table: PaperTable, cell: Cell, *, seed: int, results: dict[str, Any]) -> dict[str, str]:
    """The row of a finished run.

    Args:
        table: names the metrics.
        cell: what was trained.
        seed: of the run.
        results: its results.json.
    """
    metrics = results["metrics"]
    test = metrics["test"] | {f"popularity_{name}": value for name, value in metrics.get("test_popularity", {}).items()}
    leak = results["diagnostics"].get("leak_check")
    return {
        "recipe": cell.recipe,
        "overrides": " ".join(cell.overrides),
        "seed": str(seed),
        "dataset": results["dataset"],
        "protocol": results["protocol"],
        "num_ranks": str(results["world_size"]),
        **{f"test_{name}": f"{test[name]:.6f}" if name in test else "" for name in table.metrics},
        f"test_{table.headline}_se": f"{test[f'{table.headline}_se']:.6f}",
        "test_rows": f"{test['num_rows']:.0f}",
        f"validation_{table.headline}": f"{metrics['validation'][table.headline]:.6f}",
        **({column_training_form(table.headline): f"{leak['training_form'][table.headline]:.6f}"} if leak else {}),
        **run_columns(results),
    }


def count_baselines(table: PaperTable, paper: Paper, path: Path, *, data: Path) -> None:
    """Record a table's baselines that are counted from the data set in `data`, if it is there and one of them is not recorded."""
    if not (data / "schema.json").exists():
        return
    identity = Schema.load(data).identity[:12]
    recorded = {row["recipe"] for row in read_rows(path) if row["config"] == identity}
    if not recorded.issuperset(cell.recipe for cell in table.cells if cell.role == "counted"):
        # `config` is the identity of the data here and no part of the key: the rows of other data go
        replace_rows(path, _counted_rows(paper, data), key=("recipe",))


def _counted_rows(paper: Paper, data: Path) -> Sequence[dict[str, str]]:
    if paper == "fit":
        return [popularity.popularity_row(data)]
    counted = counted_matching.counted_rows(data)
    unseen = {row["recipe"]: row["test_recall@10"] for row in counted if row["left_out"] == "user items"}
    # all items compete, as they do for the models; with one target a row hr@10 is recall@10
    return [
        row | {"seed": "", "num_ranks": "", column_unseen("hr@10"): unseen[row["recipe"]]}
        for row in counted
        if row["left_out"] == "nothing"
    ]


def cell_of(row: dict[str, str], cells: Sequence[Cell]) -> Cell | None:
    """The cell that would give this row now: by its configuration for that seed, on that number of ranks; None for older rows."""
    for cell in cells:
        if cell.recipe != row["recipe"]:
            continue
        if cell.role == "counted":
            return cell
        if row["num_ranks"] == str(cell.num_ranks) and row["config"] == config_of(cell, seed=int(row["seed"])).fingerprint[:12]:
            return cell
    return None
