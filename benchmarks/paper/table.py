"""One table of a paper: train what is missing, compare what can be compared, sum up."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.paper import significance
from benchmarks.paper.cells import Cell, PaperTable
from benchmarks.paper.rows import KEY, cell_of, config_of, is_here, trained_row
from benchmarks.readme import ROOT
from benchmarks.result_rows import read_rows, replace_rows
from benchmarks.trained_runs import finished_run, mean
from dataloaders.schema import Schema
from trainer.errors import CheckpointError, exit_code
from trainer.results import has_results

log = logging.getLogger(__name__)
Rows = dict[str, list[dict[str, str]]]
"""Label of a cell -> its rows, a row for each seed."""


def fill(table: PaperTable, cells: Sequence[Cell], path: Path, *, seeds: int, retrain: bool = False) -> list[Exception]:
    """Bring every cell that is not recorded to its end and record it; seed by seed, so that a table is whole as soon as can be.

    Where a cell fails, the others go on; its error is logged and returned.

    Args:
        table: names the metrics.
        cells: what to train; counted ones are passed over.
        path: results file.
        seeds: 0 .. seeds - 1 of each cell.
        retrain: whether recorded cells whose run is not on this machine (see `is_here`) are trained here and recorded again.

    Raises:
        DataError: what a cell is to be trained on is missing; none has been trained then.
    """
    failed: list[Exception] = []
    runs = list(_missing(cells, read_rows(path), seeds=seeds, retrain=retrain))
    unfinished = [config for cell, seed in runs if not has_results(ROOT / (config := config_of(cell, seed=seed)).run_dir)]
    for data in dict.fromkeys(config.data for config in unfinished):
        Schema.load(ROOT / data)
    for cell, seed in runs:
        try:
            results = finished_run(cell.recipe, overrides=[*cell.overrides, "--seed", str(seed)], num_ranks=cell.num_ranks)
            replace_rows(path, [trained_row(table, cell, seed=seed, results=results)], key=KEY)
        except Exception as error:  # the other cells go on and are recorded
            log.error("%s, seed %d, failed: %s", cell.label, seed, error, exc_info=exit_code(error) == 1)
            failed.append(error)
    return failed


def _missing(cells: Sequence[Cell], rows: Sequence[dict[str, str]], *, seeds: int, retrain: bool) -> Iterator[tuple[Cell, int]]:
    trained, known = [cell for cell in cells if cell.role != "counted"], rows_by_label(cells, rows)
    for seed in range(seeds):
        for cell in trained:
            recorded = [row for row in known.get(cell.label, ()) if row["seed"] == str(seed)]
            if not any(not retrain or is_here(cell, row) for row in recorded):
                yield cell, seed


def rows_by_label(cells: Sequence[Cell], rows: Sequence[dict[str, str]]) -> Rows:
    """The current rows of each cell that has some."""
    found: Rows = {cell.label: [] for cell in cells}
    for row in rows:
        cell = cell_of(row, cells)
        if cell is not None:
            found[cell.label].append(row)
    return {label: runs for label, runs in found.items() if runs}


def best_baseline(table: PaperTable, cells: Sequence[Cell], rows: Rows) -> Cell | None:
    """The trained baseline with the best headline on the test rows, which favours the baselines; None without one."""
    trained = [cell for cell in cells if cell.role == "baseline" and cell.label in rows]
    return max(trained, key=lambda cell: mean(rows[cell.label], f"test_{table.headline}"), default=None)


class Pair(NamedTuple):
    """Two cells' runs of one seed."""

    first: Cell
    second: Cell
    seed: int


def pairs_of(table: PaperTable, cells: Sequence[Cell], rows: Rows) -> Iterator[Pair]:
    """Every trained cell against the best baseline, and the proposed ones against every other, in the seeds that both have."""
    trained = [cell for cell in cells if cell.role != "counted" and cell.label in rows]
    best = best_baseline(table, cells, rows)
    with_best = [(cell, best) for cell in trained if best is not None and cell is not best]
    proposed = [(cell, other) for cell in trained if cell.role == "proposed" for other in trained if other not in (cell, best)]
    for first, second in [*with_best, *proposed]:
        seeds = {row["seed"] for row in rows[second.label]}
        yield from (Pair(first, second, int(row["seed"])) for row in rows[first.label] if row["seed"] in seeds)


def compare_recorded(table: PaperTable, cells: Sequence[Cell], path: Path, *, differences: Path) -> None:
    """Record the pairs (see `pairs_of`) of recorded runs in the file of differences.

    A pair is left out, with a warning, where a run is not on this machine or its checkpoints are gone.
    """
    rows = rows_by_label(cells, read_rows(path))
    reached = {
        (label, int(row["seed"])): float(row[f"test_{table.headline}"])
        for label, runs in rows.items()
        for row in runs
        if row["seed"]
    }
    recorded = read_rows(differences)
    here = {(cell.label, row["seed"]) for cell in cells for row in rows.get(cell.label, ()) if is_here(cell, row)}
    pairs = list(pairs_of(table, cells, rows))
    known: dict[tuple[str, int], significance.SplitRows] = {}
    for pair in pairs:
        row = difference_of(pair, recorded)
        apart = reached[pair.first.label, pair.seed] - reached[pair.second.label, pair.seed]
        if row and abs(float(row["difference"]) - apart) < 2e-6:  # else a run was trained again since; both are rounded
            continue
        if gone := [cell.label for cell in pair[:2] if (cell.label, str(pair.seed)) not in here]:
            words = pair.first.label, pair.second.label, pair.seed, " and ".join(gone)
            log.warning("%s and %s, seed %d, are not compared: --retrain trains what is not here, %s", *words)
            continue
        try:
            for cell in pair[:2]:
                if (cell.label, pair.seed) not in known:
                    known[cell.label, pair.seed] = significance.rows_of(cell, seed=pair.seed)
        except CheckpointError as error:
            log.warning("%s and %s, seed %d, are not compared: %s", pair.first.label, pair.second.label, pair.seed, error)
            continue
        ours, theirs = (known[cell.label, pair.seed] for cell in pair[:2])
        row = significance.difference_row(*pair[:2], ours=ours, theirs=theirs)
        replace_rows(differences, [row], key=significance.KEY)


def difference_of(pair: Pair, recorded: Sequence[dict[str, str]]) -> dict[str, str] | None:
    """This pair's row of the differences, if any."""
    config = " ".join(config_of(cell, seed=pair.seed).fingerprint[:12] for cell in pair[:2])
    return next((row for row in recorded if row["config"] == config), None)
