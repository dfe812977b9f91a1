"""The papers' accuracy tables: train what is missing, record every run, render Markdown.

    python -m benchmarks.paper --paper fit --dataset ml1m --seeds 2            # trains, records, prints, updates README.md
    python -m benchmarks.paper --paper fit --dataset ml1m --no-train           # from benchmarks/results only

A run that was interrupted is continued, one that has finished is not repeated.
"""

import csv
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import tyro

from trainer.cli import one_screen_errors, parse_run_config
from trainer.metrics import rela_impr
from trainer.results import read_results

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"


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
        Cell("two_tower_ml1m_adam", "Two-Tower, Adam", 1, 0.8695, 0.4508),
        Cell("fit_ml1m_adam", "FIT, Adam", 1, 0.9225, 0.3766),
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
        if arguments.train:
            for cell in cells:
                if not arguments.recipes or cell.recipe in arguments.recipes:
                    for seed in range(arguments.seeds):
                        _record(path, train(cell, seed=seed))
        table = render(cells, read_rows(path))
    print(table)
    _replace_section(ROOT / "README.md", name, table)


def train(cell: Cell, *, seed: int) -> dict[str, str]:
    """Train (or continue, or just read) one run; its row for the CSV file."""
    overrides = ["--seed", str(seed)]
    run_dir = parse_run_config(["--recipe", cell.recipe, *overrides]).run_dir
    if not (run_dir / "results.json").exists():
        launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={cell.num_ranks}", "-m"]
        command = [sys.executable, "-m", *launcher, "trainer.train", "--recipe", cell.recipe, *overrides]
        subprocess.run(command, check=True, cwd=ROOT)
    return _row(read_results(run_dir))


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
        "num_parameters": str(results["num_parameters"]),
        "best_epoch": f"{results['best_step'] / results['steps_per_epoch']:.2f}",
        "epochs": f"{results['steps'] / results['steps_per_epoch']:.2f}",
        "train_seconds_per_epoch": f"{results['train_seconds_per_epoch']:.1f}",
        "config": results["config_fingerprint"][:12],
        **results["provenance"],
    }


def read_rows(path: Path) -> list[dict[str, str]]:
    """Rows of a results file; none where it does not exist."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _record(path: Path, row: dict[str, str]) -> None:
    """Add a run, in place of an older one of the same recipe and seed."""
    kept = [old for old in read_rows(path) if (old["recipe"], old["seed"]) != (row["recipe"], row["seed"])]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(row), lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted([*kept, row], key=lambda r: (r["recipe"], int(r["seed"]))))


def render(cells: tuple[Cell, ...], rows: list[dict[str, str]]) -> str:
    """Markdown: mean ± sd over seeds beside the paper's figures; a recipe without runs is left out."""
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
                _spread(runs, "test_auc", 4),
                _spread(runs, "test_logloss", 4),
                improvement,
                *paper,
                _spread(runs, "test_popularity_auc", 4),
                f"{int(runs[0]['num_parameters']):,}",
                _spread(runs, "best_epoch", 1),
                _spread(runs, "train_seconds_per_epoch", 0),
                str(len(runs)),
            ]
            lines.append(f"| {' | '.join(shown)} |")
    if rows:
        commits = ", ".join(sorted({row["commit"] for row in rows}))
        machine = "{cpu}, {cores} cores, GPU {gpu}, torch {torch}, torchrec {torchrec}".format_map(rows[0])
        lines += ["", f"Data: {rows[0]['dataset']}, {rows[0]['test_rows']} test rows. Machine: {machine}. Commits: {commits}."]
    return "\n".join(lines)


def _spread(runs: list[dict[str, str]], column: str, digits: int) -> str:
    values = [float(row[column]) for row in runs if row[column]]
    if not values:
        return "–"
    mean = f"{statistics.fmean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def _replace_section(path: Path, name: str, content: str) -> None:
    """Put `content` between the markers of `name` in a Markdown file."""
    begin, end = f"<!-- results:{name} -->", f"<!-- /results:{name} -->"
    text = path.read_text()
    if begin not in text or end not in text:
        raise ValueError(f"{path.name}: expected the markers {begin} and {end} around the table")
    head, rest = text.split(begin, 1)
    path.write_text(f"{head}{begin}\n{content}\n{end}{rest.split(end, 1)[1]}")


if __name__ == "__main__":
    main()
