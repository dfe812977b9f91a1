"""Times that a table's rows lack, measured one by one: for runs that were trained beside other work, or on another machine."""

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.paper.cells import Cell
from benchmarks.paper.rows import KEY, TIMES, config_of, milliseconds_per_sample
from benchmarks.paper.table import rows_by_label
from benchmarks.readme import ROOT
from benchmarks.result_rows import read_rows, set_columns
from benchmarks.training import trainer_loop
from trainer.config import RunConfig
from trainer.process_group import distributed
from trainer.provenance import provenance
from trainer.trainer import Trainer

STEPS, ROUNDS = 10, 3
"""Optimizer steps of a round, and rounds that count; one more warms up."""
MACHINE = ("cpu", "cores", "gpu")
"""Columns that tell what a run was trained on."""


def time_missing(cells: Sequence[Cell], path: Path) -> None:
    """Measure what each cell's rows lack of TIMES, for the first that was trained on a machine like this, and record it.

    One row is enough, since a cell's seeds take equally long. Runs on several ranks are left out, and those whose data or
    checkpoints are not here.

    Args:
        cells: whose rows are looked at.
        path: results file.
    """
    here = {name: provenance()[name] for name in MACHINE}
    for label, rows in rows_by_label(cells, read_rows(path)).items():
        cell = next(cell for cell in cells if cell.label == label)
        own = [row for row in rows if cell.role != "counted" and cell.num_ranks == 1 and row.items() >= here.items()]
        for name in TIMES:
            if not own or any(row.get(name) for row in own):
                continue
            config = config_of(cell, seed=int(own[0]["seed"]))
            if (ROOT / config.data / "schema.json").exists() and (value := measured(name, config)) is not None:
                set_columns(path, own[0], {name: f"{value:.5g}"}, key=KEY)
                print(f"{label}: {name} {value:.5g}", flush=True)


def measured(name: str, config: RunConfig) -> float | None:
    """One of TIMES on this machine; None where the run's checkpoints are needed and gone."""
    return seconds_per_epoch(config) if name == "train_seconds_per_epoch" else milliseconds_per_sample(config)


def seconds_per_epoch(config: RunConfig) -> float:
    """Median step of a training that begins, times the steps of an epoch; validation is not in it."""
    with tempfile.TemporaryDirectory() as folder, distributed(config.loop.device) as ranks:
        fresh = dataclasses.replace(config, data=ROOT / config.data, runs=Path(folder))
        with Trainer(fresh, ranks=ranks) as trainer:
            steps, seconds = trainer_loop(trainer), []
            for _ in range(1 + ROUNDS):
                started = time.perf_counter()
                for _ in range(STEPS):
                    next(steps)
                if ranks.device.type == "cuda":
                    torch.cuda.synchronize()
                seconds.append((time.perf_counter() - started) / STEPS)
            return statistics.median(seconds[1:]) * trainer.steps_per_epoch
