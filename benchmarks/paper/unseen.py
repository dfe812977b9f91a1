"""What models reach by the protocol of most published full rankings, in which nothing that a user ever touched competes."""

import logging
from collections.abc import Sequence
from pathlib import Path

from benchmarks.paper.cells import Cell, PaperTable
from benchmarks.paper.rows import KEY, column_unseen, config_of, is_here
from benchmarks.paper.table import rows_by_label
from benchmarks.readme import ROOT
from benchmarks.result_rows import read_rows, set_columns
from trainer.config import RunConfig
from trainer.errors import CheckpointError
from trainer.evaluation import evaluate_run, leave_out_user_items, load_run
from trainer.process_group import distributed

log = logging.getLogger(__name__)


def rank_unseen(table: PaperTable, cells: Sequence[Cell], path: Path) -> None:
    """Record `table.unseen` of the recorded runs that lack it and are on this machine.

    A run is left out, with a warning, where its checkpoints are gone.
    """
    metric = table.unseen
    if metric is None:
        return
    for label, rows in rows_by_label(cells, read_rows(path)).items():
        cell = next(cell for cell in cells if cell.label == label)
        for row in rows:
            if row.get(column_unseen(metric)) or not is_here(cell, row):
                continue
            try:
                found = metrics_unseen(config_of(cell, seed=int(row["seed"])))[metric]
            except CheckpointError as error:
                log.warning("%s, seed %s, is not ranked among unseen items: %s", label, row["seed"], error)
                continue
            set_columns(path, row, {column_unseen(metric): f"{found:.6f}"}, key=KEY)


def metrics_unseen(config: RunConfig) -> dict[str, float]:
    """Test metrics of a finished run's best checkpoint; of all that a row's user touched, the target alone competes.

    Raises:
        CheckpointError: the run has no checkpoint.
    """
    data = ROOT / config.data
    with distributed(config.loop.device) as ranks:
        loaded = load_run(config, run=ROOT / config.run_dir, data=data, ranks=ranks)
        leave_out_user_items(loaded, data=data, ranks=ranks)
        return evaluate_run(loaded, config, data=data, splits=("test",), ranks=ranks)["test"]
