"""Every cell of a paper's tables for some seconds on tiny data: each must train, get its row, and stand in its table."""

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.paper.cells import TABLES, Budget, Cell, Paper, PaperTable
from benchmarks.paper.render import render
from benchmarks.paper.rows import config_of, count_baselines
from benchmarks.paper.sweeps import SWEEPS, render_sweep
from benchmarks.paper.table import compare_recorded, fill, rows_by_label
from benchmarks.paper.unseen import rank_unseen
from benchmarks.result_rows import read_rows
from dataloaders.prepare.synthetic import SyntheticConfig, prepare_synthetic
from dataloaders.prepare.synthetic_sequences import SyntheticSequencesConfig, prepare_synthetic_sequences
from trainer.config import RunConfig
from trainer.diagnostics import diagnose
from trainer.evaluation import evaluate
from trainer.process_group import Ranks, distributed
from trainer.results import write_results
from trainer.trainer import Trainer

BUDGET = (
    *("--loop.max-epochs", "1", "--loop.evals-per-epoch", "1", "--loop.patience", "1"),
    *("--loop.tensorboard", "False", "--loop.device", "cpu"),
    *("--loader.batch-size", "256", "--optimizer.warmup-steps", "0"),
)
"""An epoch of some steps; whatever else tells two cells' budgets apart is set too, so that they share a run."""
LABELLED = ("--loader.negatives.kind", "none")
"""The tiny click data has labels of its own."""


def smoke(paper: Paper) -> None:
    """Train and tabulate every cell on synthetic data in a temporary folder; print the table.

    Raises:
        RuntimeError: a cell is not in its table.
    """
    with tempfile.TemporaryDirectory() as folder:
        data, path = prepare(paper, Path(folder)), Path(folder) / "runs.csv"
        for (name, dataset), table in TABLES.items():
            if name == paper:
                print(tabulate(paper, _small(table, words_for(paper, data)), path, data=data))
                for sweep, swept in SWEEPS.get((paper, dataset), {}).items():
                    print(tabulate_sweep(_small(swept, words_for(paper, data)), path.with_name(f"{sweep}.csv")))


def prepare(paper: Paper, folder: Path) -> Path:
    """Tiny data in the form that the paper's recipes read."""
    if paper == "t2diff":
        prepare_synthetic_sequences(SyntheticSequencesConfig(out=folder / "data", num_users=32, num_items=50))
    else:
        sizes = {"num_users": 40, "num_items": 60, "train_rows": 512, "validation_rows": 64, "test_rows": 64}
        prepare_synthetic(SyntheticConfig(out=folder / "data", **sizes))
    return folder / "data"


def _small(table: PaperTable, words: tuple[str, ...]) -> PaperTable:
    """The table on tiny data."""
    cells = [dataclasses.replace(cell, overrides=(*cell.overrides, *words), num_ranks=1) for cell in table.cells]
    return dataclasses.replace(table, cells=tuple(cells))


def tabulate(paper: Paper, table: PaperTable, path: Path, *, data: Path) -> str:
    """Train, record, compare and render.

    Raises:
        RuntimeError: a cell has no row in its part of the table.
    """
    train_all(table.cells)
    differences = path.with_name("differences.csv")
    count_baselines(table, paper, path, data=data)
    for budget in dict.fromkeys(cell.budget for cell in table.cells if cell.role != "counted"):
        if failed := fill(table, table.of_budget(budget), path, seeds=1):
            raise failed[0]
        rank_unseen(table, table.of_budget(budget), path)
        compare_recorded(table, table.of_budget(budget), path, differences=differences)
        _check_rows(render(table, _rows_of(table, budget, path), read_rows(differences)), table.of_budget(budget))
    return render(table, read_rows(path), read_rows(differences))


def tabulate_sweep(table: PaperTable, path: Path) -> str:
    """Train, record and render a sweep of either paper.

    Raises:
        RuntimeError: a cell has no row.
    """
    train_all(table.cells)
    if failed := fill(table, table.cells, path, seeds=1):
        raise failed[0]
    text = render_sweep(table, read_rows(path))
    _check_rows(text, table.cells)
    return text


def _rows_of(table: PaperTable, budget: Budget, path: Path) -> list[dict[str, str]]:
    return [row for runs in rows_by_label(table.of_budget(budget), read_rows(path)).values() for row in runs]


def _check_rows(text: str, cells: Sequence[Cell]) -> None:
    if missing := [cell.label for cell in cells if f"| {cell.label} |" not in text]:
        raise RuntimeError(f"cells without a row in the table: {missing}")


def words_for(paper: Paper, data: Path) -> tuple[str, ...]:
    """Overrides for a run on tiny data beside which its folder lies."""
    return (*BUDGET, *(LABELLED if paper == "fit" else ()), "--data", str(data), "--runs", str(data.with_name("runs")))


def train_all(cells: Sequence[Cell]) -> None:
    """Train and test each run that is not finished, in this process and without a report."""
    with distributed("cpu") as ranks:
        for config in (config_of(cell, seed=0) for cell in cells if cell.role != "counted"):
            if not config.run_dir.exists():
                _finish(config, ranks)


def _finish(config: RunConfig, ranks: Ranks) -> None:
    with Trainer(config, ranks=ranks) as trainer:
        trainer.fit()
        trainer.load_best()
        metrics = {split: evaluate(trainer.sharded, loader, ranks=ranks) for split, loader in trainer.eval_loaders.items()}
        write_results(trainer, metrics=metrics, diagnostics=diagnose(trainer), final_digest="", skipped_rows=[])
