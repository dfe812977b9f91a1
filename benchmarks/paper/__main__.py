"""The papers' tables as one command.

    python -m benchmarks.paper table --paper t2diff --dataset ml1m --seeds 2     # trains, records, prints, updates README.md
    python -m benchmarks.paper table --paper fit --budget paper --no-train       # from benchmarks/results only
    python -m benchmarks.paper table --paper fit --dataset ml1m_last --budget paper    # Two-Tower and FIT on few training rows
    python -m benchmarks.paper times --paper fit                                 # measures the times that recorded rows lack
    python -m benchmarks.paper search --model sasrec --trials 20                 # random search, validation picks
    python -m benchmarks.paper --smoke                                           # every cell for some seconds, on tiny data

A run that was interrupted is continued, one that benchmarks/results has is not repeated, on any machine. Rows of a recipe's older
configurations stay in the results file, but not in the table. Counted baselines are counted from the data set, where that is there.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

import tyro

from benchmarks import ablation
from benchmarks.paper.cells import FIGURES_DATA, SWEEPS, TABLES, Budget, Cell, Dataset, Paper, PaperTable
from benchmarks.paper.fewer_rows import SECTION, render_by_training_rows
from benchmarks.paper.figures import draw, sweep_path
from benchmarks.paper.render import render
from benchmarks.paper.rows import config_of, count_baselines
from benchmarks.paper.search import SearchArguments, search
from benchmarks.paper.smoke import smoke
from benchmarks.paper.table import compare_recorded, fill
from benchmarks.paper.times import time_missing
from benchmarks.paper.unseen import rank_unseen
from benchmarks.readme import RESULTS, ROOT, replace_section
from benchmarks.result_rows import read_rows
from trainer.cli import one_screen_errors
from trainer.errors import UserError


@dataclass(frozen=True, kw_only=True)
class TableArguments:
    """Reproduce a table of a paper."""

    paper: Paper = "fit"
    dataset: Dataset = "ml1m"
    budget: Budget | Literal["smoke"] = "tuned"
    """The part of the table to train: every model alike, each by its own paper, or (FIT) with sharded tables; all that is recorded
    is rendered. smoke: every cell of the paper for some seconds on tiny data; nothing is recorded."""
    seeds: int = 2
    """Seeds 0 .. seeds - 1 of each cell."""
    recipes: tuple[str, ...] = ()
    """Only cells of these recipes; default: every cell of the budget."""
    sweeps: bool = False
    """FIT on ml1m_stride50 only: train the sweeps of Figs. 7 and 8 too, 14 cells, at the paper's preset."""
    times: bool = True
    """Record times; False leaves them blank, for machines that do other work too, and `times` measures them later."""
    train: bool = True
    """Train what is missing; otherwise only render what is recorded."""


@dataclass(frozen=True, kw_only=True)
class TimesArguments:
    """Measure what the rows of a table lack of seconds per epoch and milliseconds per sample; wants a machine to itself."""

    paper: Paper = "fit"
    dataset: Dataset = "ml1m"


@dataclass(frozen=True, kw_only=True)
class SmokeArguments:
    """Train every cell of every table for some seconds on tiny data; nothing is recorded."""

    papers: tuple[Paper, ...] = ("t2diff", "fit")
    """Papers whose cells are tried."""


Command = (
    Annotated[TableArguments, tyro.conf.subcommand("table")]
    | Annotated[TimesArguments, tyro.conf.subcommand("times")]
    | Annotated[SearchArguments, tyro.conf.subcommand("search")]
    | Annotated[SmokeArguments, tyro.conf.subcommand("smoke")]
)


def main() -> None:
    """Command line."""
    words = ["smoke" if word == "--smoke" else word for word in sys.argv[1:]]
    command = tyro.cli(Command, prog="python -m benchmarks.paper", args=words)
    with one_screen_errors():
        if isinstance(command, SearchArguments):
            search(command)
        elif isinstance(command, TimesArguments):
            measure_times(command)
        elif isinstance(command, SmokeArguments):
            for paper in command.papers:
                smoke(paper)
        elif command.budget == "smoke":
            smoke(command.paper)
        else:
            reproduce(command, budget=command.budget)


def reproduce(arguments: TableArguments, *, budget: Budget) -> None:
    """Train, record and compare what is missing of a budget, then print the paper's table and put it into README.md."""
    table, name = _table(arguments, budget), f"{arguments.paper}_{arguments.dataset}"
    path, differences = RESULTS / f"{name}.csv", RESULTS / f"significance_{name}.csv"
    cells = [cell for cell in table.of_budget(budget) if cell.recipe in (arguments.recipes or (cell.recipe,))]
    trained = next(cell for cell in table.cells if cell.role != "counted")
    count_baselines(table, arguments.paper, path, data=ROOT / config_of(trained, seed=0).data)
    failed = _train(arguments, table, cells, path=path) if arguments.train else []
    if arguments.train:
        rank_unseen(table, table.of_budget(budget), path)
        compare_recorded(table, table.of_budget(budget), path, differences=differences)
    text = render(table, read_rows(path), read_rows(differences))
    print(text)
    if arguments.paper == "fit":
        replace_section(ROOT / "README.md", SECTION, render_by_training_rows(RESULTS))
    replace_section(ROOT / "README.md", f"{arguments.paper}_ml1m_figures", draw(arguments.paper, RESULTS))
    if arguments.dataset == "ml1m":
        replace_section(ROOT / "README.md", name, text)
        if arguments.paper == "t2diff" and budget == "tuned" and not arguments.recipes:
            for group in ("schedules", "steps"):  # Tables 3 and 4
                ablation.reproduce(group, dataset=arguments.dataset, seeds=arguments.seeds, train=arguments.train)
    if failed:  # the first of them, when all that there is has been recorded and rendered
        raise failed[0]


def _train(arguments: TableArguments, table: PaperTable, cells: Sequence[Cell], *, path: Path) -> list[Exception]:
    """Train and record what is missing; errors of the cells that failed."""
    failed = fill(table, cells, path, seeds=arguments.seeds, times=arguments.times)
    if arguments.sweeps:
        for figure, swept in SWEEPS.items():
            failed += fill(swept, swept.cells, sweep_path(RESULTS, figure), seeds=arguments.seeds, times=arguments.times)
    return failed


def measure_times(arguments: TimesArguments) -> None:
    """Measure what a table's rows lack of times, budget by budget."""
    table = table_of(arguments.paper, arguments.dataset)
    for budget in get_args(Budget):
        time_missing(table.of_budget(budget), RESULTS / f"{arguments.paper}_{arguments.dataset}.csv")
    if (arguments.paper, arguments.dataset) == ("fit", FIGURES_DATA):
        for figure, swept in SWEEPS.items():
            time_missing(swept.cells, sweep_path(RESULTS, figure))


def table_of(paper: Paper, dataset: Dataset) -> PaperTable:
    """The paper's table on that data set.

    Raises:
        UserError: there is none.
    """
    table = TABLES.get((paper, dataset))
    if table is None:
        known = [dataset for name, dataset in TABLES if name == paper]
        raise UserError(f"--dataset {dataset}: --paper {paper} has tables on {known}")
    return table


def _table(arguments: TableArguments, budget: Budget) -> PaperTable:
    """The table that is asked for.

    Raises:
        UserError: the paper has none on that data set, none of its cells is of that budget or those recipes, or there is nothing to
            train for the seeds or sweeps that are asked for.
    """
    table = table_of(arguments.paper, arguments.dataset)
    budgets = {cell.budget for cell in table.cells if cell.role != "counted"}
    if budget not in budgets:
        raise UserError(f"--budget {budget}: the table {arguments.paper} on {arguments.dataset} has {sorted(budgets)}")
    known = {cell.recipe for cell in table.of_budget(budget)}
    if unknown := sorted(set(arguments.recipes) - known):
        raise UserError(f"--recipes {unknown}: not in the table's budget {budget}, which has {sorted(known)}")
    if arguments.sweeps and not (arguments.train and (arguments.paper, arguments.dataset) == ("fit", FIGURES_DATA)):
        raise UserError(f"--sweeps trains those of --paper fit on --dataset {FIGURES_DATA}: leave it out, or --no-train")
    if arguments.seeds < 1:
        raise UserError(f"--seeds {arguments.seeds}, expected at least 1")
    return table


if __name__ == "__main__":
    main()
