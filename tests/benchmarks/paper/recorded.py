"""Rows of the papers' results files as runs would leave them."""

from benchmarks.paper.cells import TABLES, Cell, PaperTable
from benchmarks.paper.rows import config_of
from benchmarks.paper.times import timed_config

MACHINE = {"cpu": "a cpu", "cores": "2", "gpu": "none", "torch": "2.13.0", "torchrec": "1.8.0", "commit": "abc", "dataset": "ml1m"}
FIT: PaperTable = TABLES["fit", "ml1m"]
T2DIFF: PaperTable = TABLES["t2diff", "ml1m"]


def cell(table: PaperTable, label: str, budget: str = "tuned") -> Cell:
    """A table's cell."""
    return next(cell for cell in table.cells if (cell.label, cell.budget) == (label, budget))


def run(table: PaperTable, cell: Cell, seed: int, value: float) -> dict[str, str]:
    """A current row of a cell whose test metrics are all `value`."""
    figures = {f"test_{name}": str(value) for name in table.metrics} | {f"test_{table.headline}_se": "0.005", "test_rows": "100"}
    budget = {"num_parameters": "1000", "best_epoch": "2.0", "epochs": "4.0"}
    own = {"recipe": cell.recipe, "seed": str(seed), "num_ranks": str(cell.num_ranks)}
    return (
        own | {"config": config_of(cell, seed=seed).fingerprint[:12], "protocol": "ranked among all"} | figures | budget | MACHINE
    )


def timed(cell: Cell, seconds: float, milliseconds: float, *, gpu: str = "none") -> dict[str, str]:
    """A cell's row of times."""
    times = {"train_seconds_per_epoch": str(seconds), "inference_ms_per_sample": str(milliseconds)}
    return {"recipe": cell.recipe, "config": timed_config(cell)} | times | MACHINE | {"gpu": gpu}


def difference(first: Cell, second: Cell, seed: int, value: float, *, error: float = 0.001) -> dict[str, str]:
    """A row of the differences between two cells' runs."""
    config = " ".join(config_of(one, seed=seed).fingerprint[:12] for one in (first, second))
    figures = {"difference": str(value), "standard_error": str(error)}
    return {"first": first.label, "second": second.label, "seed": str(seed), "config": config} | figures
