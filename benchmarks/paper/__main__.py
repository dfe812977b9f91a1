"""The papers' tables as one command.

    python -m benchmarks.paper table --paper t2diff --dataset ml1m --seeds 2     # trains, records, prints, updates README.md
    python -m benchmarks.paper table --paper fit --budget paper --no-train       # from benchmarks/results only
    python -m benchmarks.paper table --paper fit --dataset ml1m_last --budget paper    # every model on few training rows
    python -m benchmarks.paper times --paper fit                                 # measures the times that this machine lacks
    python -m benchmarks.paper search --model sasrec --trials 20                 # random search, validation picks
    python -m benchmarks.paper --smoke                                           # every cell for some seconds, on tiny data

A run that was interrupted is continued, one that benchmarks/results has is not repeated, on any machine. Rows of a recipe's older
configurations stay in the results file, but not in the table.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from benchmarks.paper.cells import TABLES, Budget, Cell, Dataset, Paper, PaperTable
from benchmarks.paper.fewer_rows import SECTION, render_by_training_rows
from benchmarks.paper.figures import draw
from benchmarks.paper.movielens import prepare_missing
from benchmarks.paper.render import render
from benchmarks.paper.rows import config_of, count_baselines
from benchmarks.paper.search import SearchArguments, search
from benchmarks.paper.smoke import smoke
from benchmarks.paper.sweeps import SWEEPS, render_sweep, sweep_path
from benchmarks.paper.table import compare_recorded, fill
from benchmarks.paper.times import TIMES_FILE, Times, time_missing
from benchmarks.paper.unseen import rank_unseen
from benchmarks.readme import RESULTS, ROOT, replace_section
from benchmarks.result_rows import read_rows
from trainer.cli import one_screen_errors
from trainer.errors import UserError
from trainer.results import has_results


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
    cells: tuple[str, ...] = ()
    """Only cells with these names or recipes, and no sweep; default: every cell of the budget."""
    sweeps: bool = True
    """Train what the paper compares within its own model too: T2Diff's Tables 3 and 4, tower conditions and authors' protocol with
    the tuned table; FIT's Figs. 7 and 8 with that of ml1m_stride50. False renders what is recorded of them."""
    retrain: bool = False
    """Train again what is recorded from another machine, so that its rows can be compared with those of the runs here."""
    times: bool = True
    """Measure the times that this machine lacks when all is trained; False where it does other work too: `times` does it later."""
    train: bool = True
    """Train what is missing; otherwise only render what is recorded."""
    raw: Path = Path("data/raw/ml-1m")
    """MovieLens-1M's files, from which data sets that are missing below data/ are prepared."""
    download: bool = False
    """Fetch those files from GroupLens where one is missing."""


@dataclass(frozen=True, kw_only=True)
class TimesArguments:
    """Measure seconds of an epoch and milliseconds of a sample for the cells that have none of this machine, which must be idle."""

    paper: Paper = "fit"
    dataset: Dataset = "ml1m"
    cells: tuple[str, ...] = ()
    """Only cells with these names or recipes, and no sweep; default: every cell of every budget."""
    again: bool = False
    """Measure those that have times of this machine too."""


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
    smoke_word = ["--budget", "smoke"] if "table" in sys.argv[1:2] else ["smoke"]
    words = [new for word in sys.argv[1:] for new in (smoke_word if word == "--smoke" else [word])]
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
    """Train, record and compare what is missing of a budget, then print the paper's table and render README.md.

    The tables of ml1m stand there as they are printed, those of fewer training rows in one table beside each other.
    """
    table, name = _table(arguments, budget), f"{arguments.paper}_{arguments.dataset}"
    path, differences = RESULTS / f"{name}.csv", RESULTS / f"significance_{name}.csv"
    failed = []
    if arguments.train:
        failed = _train(arguments, table, budget, path=path)
        rank_unseen(table, table.of_budget(budget), path)
        compare_recorded(table, table.of_budget(budget), path, differences=differences)
    publish(arguments.paper, arguments.dataset, redraw=arguments.train)
    if failed:  # the first of them, when all that there is has been recorded and rendered
        raise failed[0]


def publish(paper: Paper, dataset: Dataset, *, redraw: bool) -> None:
    """Print a table as it is recorded, and bring README.md's sections of the paper to what is.

    Args:
        paper: whose table.
        dataset: the table's.
        redraw: whether figures are drawn anew.
    """
    table, name, times = table_of(paper, dataset), f"{paper}_{dataset}", Times(read_rows(TIMES_FILE))
    text = render(table, read_rows(RESULTS / f"{name}.csv"), read_rows(RESULTS / f"significance_{name}.csv"), times)
    print(text)
    if dataset == "ml1m":
        replace_section(ROOT / "README.md", name, text)
    if paper == "fit":
        replace_section(ROOT / "README.md", SECTION, render_by_training_rows(RESULTS))
    else:
        for sweep, swept in SWEEPS["t2diff", "ml1m"].items():
            text = render_sweep(swept, read_rows(sweep_path(RESULTS, "t2diff", "ml1m", sweep)), times)
            replace_section(ROOT / "README.md", f"t2diff_ml1m_{sweep}", text)
    replace_section(ROOT / "README.md", f"{paper}_ml1m_figures", draw(paper, RESULTS, redraw=redraw))


def _train(arguments: TableArguments, table: PaperTable, budget: Budget, *, path: Path) -> list[Exception]:
    """Count, train and record what is missing; errors of the cells that failed."""
    cells = _chosen(table.of_budget(budget), arguments.cells, of=f"budget {budget}")
    sweeps = SWEEPS.get((arguments.paper, arguments.dataset), {}) if arguments.sweeps and not arguments.cells else {}
    sweeps = {name: swept for name, swept in sweeps.items() if swept.cells[0].budget == budget}
    every = [*cells, *(cell for swept in sweeps.values() for cell in swept.cells)]
    trained = [cell for cell in every if cell.role != "counted"]
    prepare_missing((config_of(cell, seed=0).data for cell in trained), raw=arguments.raw, download=arguments.download)
    count_baselines(table, arguments.paper, path, data=ROOT / config_of(trained[0], seed=0).data)
    how = {"seeds": arguments.seeds, "retrain": arguments.retrain}
    failed = fill(table, cells, path, **how)
    for name, swept in sweeps.items():
        failed += fill(swept, swept.cells, sweep_path(RESULTS, arguments.paper, arguments.dataset, name), **how)
    if arguments.times:
        failed += time_missing([cell for cell in trained if has_results(ROOT / config_of(cell, seed=0).run_dir)])
    return failed


def measure_times(arguments: TimesArguments) -> None:
    """Measure what this machine lacks of a table's times, then print and render as `reproduce` does."""
    table = table_of(arguments.paper, arguments.dataset)
    sweeps = SWEEPS.get((arguments.paper, arguments.dataset), {}).values()
    every = [*table.cells, *(cell for swept in sweeps for cell in swept.cells)]
    cells = _chosen(table.cells, arguments.cells, of="any budget") if arguments.cells else every
    failed = time_missing(cells, again=arguments.again)
    publish(arguments.paper, arguments.dataset, redraw=True)
    if failed:
        raise failed[0]


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
        UserError: the paper has none on that data set, none of its cells is of that budget, one of the cells that are asked for is
            not in it, or there is nothing to train for that number of seeds.
    """
    table = table_of(arguments.paper, arguments.dataset)
    budgets = {cell.budget for cell in table.cells if cell.role != "counted"}
    if budget not in budgets:
        raise UserError(f"--budget {budget}: the table {arguments.paper} on {arguments.dataset} has {sorted(budgets)}")
    _chosen(table.of_budget(budget), arguments.cells, of=f"budget {budget}")
    if arguments.seeds < 1:
        raise UserError(f"--seeds {arguments.seeds}, expected at least 1")
    return table


def _chosen(cells: Sequence[Cell], names: Sequence[str], *, of: str) -> list[Cell]:
    """Cells with one of these names or recipes; all without any. `of` names the cells in errors.

    Raises:
        UserError: there is none of a name.
    """
    known = {name for cell in cells if cell.role != "counted" for name in (cell.label, cell.recipe)}
    if unknown := sorted(set(names) - known):
        raise UserError(f"--cells {unknown}: not in the table's {of}, which has {sorted(known)}")
    return [cell for cell in cells if not names or {cell.label, cell.recipe} & set(names)]


if __name__ == "__main__":
    main()
