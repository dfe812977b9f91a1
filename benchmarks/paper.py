"""The papers' accuracy tables: train what is missing, record every run, render Markdown.

    python -m benchmarks.paper --paper fit --dataset ml1m --seeds 2            # trains, records, prints, updates README.md
    python -m benchmarks.paper --paper fit --dataset ml1m --no-train           # from benchmarks/results only

A run that was interrupted is continued, one that benchmarks/results has is not repeated, on any machine. Rows of a recipe's older
configurations stay in the results file, but not in the table. The popularity row needs no training: it is counted from the data
set, where that is there.
"""

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import tyro

from benchmarks import popularity
from benchmarks.readme import RESULTS, ROOT, replace_section
from benchmarks.result_rows import read_rows, replace_rows
from benchmarks.trained_runs import finished_run, origin, run_columns, spread
from trainer.cli import one_screen_errors, parse_run_config
from trainer.metrics import rela_impr

KEY = ("recipe", "seed", "num_ranks", "config")
"""Columns that two records of one run have in common."""


class Cell(NamedTuple):
    """One row of a table: a recipe on a number of ranks, and what the paper prints for it."""

    recipe: str
    label: str
    num_ranks: int
    paper_auc: float | None
    paper_logloss: float | None


HEADER = (
    "model",
    "test AUC",
    "logloss",
    "RelaImpr",
    "paper AUC",
    "paper logloss",
    "AUC, popular negatives",
    "parameters",
    "epochs",
    "s/epoch",
    "seeds",
)
BASELINE = "two_tower_ml1m_adam"
TABLES: dict[tuple[str, str], tuple[Cell, ...]] = {
    ("fit", "ml1m"): (
        Cell(popularity.RECIPE, "Popularity (training counts)", 1, None, None),
        Cell("two_tower_ml1m_adam", "Two-Tower, Adam, regularised", 1, 0.8695, 0.4508),
        Cell("fit_ml1m_adam", "FIT, Adam, regularised", 1, 0.9225, 0.3766),
        Cell("two_tower_ml1m_paper", "Two-Tower, Adam, the paper's preset", 1, 0.8695, 0.4508),
        Cell("fit_ml1m_paper", "FIT, Adam, the paper's preset", 1, 0.9225, 0.3766),
        Cell("two_tower_ml1m", "Two-Tower, tables sharded over 2 ranks", 2, None, None),
        Cell("fit_ml1m", "FIT, tables sharded over 2 ranks", 2, None, None),
    ),
}


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Reproduce a table of a paper."""

    paper: Literal["fit"] = "fit"
    dataset: Literal["ml1m"] = "ml1m"
    seeds: int = 2
    """Seeds 0 .. seeds - 1 of each recipe."""
    recipes: tuple[str, ...] = ()
    """Only these recipes; default: every recipe of the table."""
    train: bool = True
    """Train what is missing; otherwise only render what is recorded."""


def main() -> None:
    """Command line."""
    arguments = tyro.cli(Arguments)
    name = f"{arguments.paper}_{arguments.dataset}"
    cells = TABLES[arguments.paper, arguments.dataset]
    path = RESULTS / f"{name}.csv"
    with one_screen_errors():
        _count_popularity(path, data=ROOT / parse_run_config(["--recipe", BASELINE]).data)
        for cell in cells:
            if arguments.train and cell.recipe != popularity.RECIPE and cell.recipe in (arguments.recipes or (cell.recipe,)):
                recorded = {row["seed"] for row in read_rows(path) if row["recipe"] == cell.recipe and is_current(row, cells)}
                for seed in range(arguments.seeds):
                    if str(seed) not in recorded:
                        replace_rows(path, [train(cell, seed=seed)], key=KEY)
        rows = read_rows(path)
        current = [row for row in rows if is_current(row, cells)]
        table = render(cells, current, num_left_out=len(rows) - len(current))
    print(table)
    replace_section(ROOT / "README.md", name, table)


def _count_popularity(path: Path, *, data: Path) -> None:
    """Record the popularity row of the data set that is in `data`, if any, unless it is recorded."""
    if not (data / "schema.json").exists():
        return
    row = popularity.popularity_row(data)
    if not any(old["recipe"] == row["recipe"] and old["config"] == row["config"] for old in read_rows(path)):
        # `config` is the identity of the data here and no part of the key: the row of other data goes
        replace_rows(path, [row], key=("recipe",))


def train(cell: Cell, *, seed: int) -> dict[str, str]:
    """Train (or continue, or just read) one run; its row for the CSV file."""
    return _row(finished_run(cell.recipe, overrides=["--seed", str(seed)], num_ranks=cell.num_ranks))


def _row(results: dict) -> dict[str, str]:
    test, popularity = results["metrics"]["test"], results["metrics"].get("test_popularity", {})
    return {
        "recipe": results["recipe"],
        "seed": str(results["seed"]),
        "dataset": results["dataset"],
        "num_ranks": str(results["world_size"]),
        "test_auc": f"{test['auc']:.6f}",
        "test_logloss": f"{test['logloss']:.6f}",
        "test_rows": f"{test['num_rows']:.0f}",
        "test_popularity_auc": f"{popularity['auc']:.6f}" if popularity else "",
        "validation_auc": f"{results['metrics']['validation']['auc']:.6f}",
        **run_columns(results),
    }


def is_current(row: dict[str, str], cells: tuple[Cell, ...]) -> bool:
    """Whether `row` is what a cell's recipe would give now: its configuration for that seed, on the cell's number of ranks."""
    if row["recipe"] == popularity.RECIPE:
        return True
    cell = next((cell for cell in cells if cell.recipe == row["recipe"]), None)
    if cell is None or row["num_ranks"] != str(cell.num_ranks):
        return False
    config = parse_run_config(["--recipe", row["recipe"], "--seed", row["seed"]])
    return row["config"] == config.fingerprint[:12]


def render(cells: tuple[Cell, ...], rows: list[dict[str, str]], *, num_left_out: int = 0) -> str:
    """Markdown: mean ± sd over seeds beside the paper's figures; a recipe without runs is left out.

    Args:
        cells: the table's rows, in order.
        rows: of the results file, those that are current.
        num_left_out: rows of the results file that are not.
    """
    lines = [f"| {' | '.join(HEADER)} |", "|---" * len(HEADER) + "|"]
    base = [float(row["test_auc"]) for row in rows if row["recipe"] == BASELINE]
    for cell in cells:
        runs = [row for row in rows if row["recipe"] == cell.recipe]
        if runs:
            auc = statistics.fmean(float(row["test_auc"]) for row in runs)
            improvement = f"{rela_impr(auc, statistics.fmean(base)):+.2%}" if base else ""
            paper = [f"{value:.4f}" if value is not None else "–" for value in (cell.paper_auc, cell.paper_logloss)]
            shown = [
                cell.label,
                spread(runs, "test_auc", 4),
                spread(runs, "test_logloss", 4),
                improvement,
                *paper,
                spread(runs, "test_popularity_auc", 4),
                f"{int(runs[0]['num_parameters']):,}",
                spread(runs, "best_epoch", 1),
                spread(runs, "train_seconds_per_epoch", 0),
                "–" if cell.recipe == popularity.RECIPE else str(len(runs)),
            ]
            lines.append(f"| {' | '.join(shown)} |")
    if rows:
        lines += ["", origin(rows)]
    if num_left_out:
        lines += [
            "",
            f"{num_left_out} older row(s) of the results file, of other configurations or ranks, are left out.",
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
