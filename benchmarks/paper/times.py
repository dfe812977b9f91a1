"""Seconds of a training epoch and milliseconds of a sample, by cell and machine: benchmarks/results/times.csv.

Measured one by one with fresh weights, on a machine that does nothing else: runs share theirs with other work, and are continued on
others.
"""

import dataclasses
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.paper.cells import Cell
from benchmarks.paper.rows import config_of
from benchmarks.readme import RESULTS, ROOT
from benchmarks.result_rows import read_rows, replace_rows
from benchmarks.row_seconds import seconds_per_row
from benchmarks.training import trainer_loop
from dataloaders.loader import LoaderConfig
from trainer.build import evaluation_loader
from trainer.config import RunConfig
from trainer.process_group import Ranks, distributed
from trainer.provenance import provenance
from trainer.trainer import Trainer

TIMES_FILE = RESULTS / "times.csv"
MACHINE = ("cpu", "cores", "gpu")
KEY = ("recipe", "overrides", *MACHINE)
SECONDS, MILLISECONDS = "train_seconds_per_epoch", "inference_ms_per_sample"
STEPS, ROUNDS = 10, 3
"""Optimizer steps of a round, and rounds that count; one more warms up."""
TIMED = LoaderConfig(batch_size=512)
"""Batches whose inference is timed: alike for all models."""


class Machine(NamedTuple):
    """What times are compared on."""

    cpu: str
    cores: str
    gpu: str
    """Name, or none."""

    @property
    def kind(self) -> str:
        """Where models run there."""
        return "CPU" if self.gpu == "none" else "GPU"

    def __str__(self) -> str:
        return f"{self.cpu}, {self.cores} cores" + ("" if self.gpu == "none" else f", {self.gpu}")


class Times:
    """The measured rows.

    Args:
        rows: of times.csv.
    """

    def __init__(self, rows: Sequence[dict[str, str]] = ()) -> None:
        self._rows = rows

    def machines(self, cells: Sequence[Cell]) -> list[Machine]:
        """Of either kind the one that most of the cells were timed on, the CPU first."""
        timed = Counter(_machine(row) for row in self._rows if any(_is_of(cell, row) for cell in cells))
        best = {machine.kind: machine for machine, _ in reversed(timed.most_common())}
        return [best[kind] for kind in sorted(best)]

    def of(self, cell: Cell, machine: Machine) -> dict[str, str]:
        """A cell's row of that machine; empty where it was not timed there."""
        return next((row for row in self._rows if _machine(row) == machine and _is_of(cell, row)), {})


NO_TIMES = Times()


def shown_time(row: dict[str, str], column: str) -> str:
    """A time with two digits, as tables show it; – where it was not measured."""
    if not row.get(column):
        return "–"
    value = float(row[column])
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def time_missing(cells: Sequence[Cell], path: Path = TIMES_FILE) -> None:
    """Measure and record the cells that this machine has not been timed with.

    Left out are those that are counted, that several ranks train, or whose data is not here.

    Args:
        cells: what is timed.
        path: results file.
    """
    here = Machine(*(provenance()[name] for name in MACHINE))
    for cell in cells:
        if cell.role == "counted" or cell.num_ranks > 1 or Times(read_rows(path)).of(cell, here):
            continue
        config = config_of(cell, seed=0)
        if (ROOT / config.data / "schema.json").exists():
            seconds, milliseconds = measured(config)
            times = {SECONDS: f"{seconds:.5g}", MILLISECONDS: f"{milliseconds:.4g}"}
            own = {"recipe": cell.recipe, "overrides": words(cell)}
            replace_rows(path, [own | times | provenance()], key=KEY)
            print(f"{cell.label}: {seconds:.5g} s/epoch, {milliseconds:.4g} ms/sample", flush=True)


def measured(config: RunConfig) -> tuple[float, float]:
    """Seconds of an epoch, without validation, and milliseconds of a sample, of a model that begins to be trained."""
    with tempfile.TemporaryDirectory() as folder, distributed(config.loop.device) as ranks:
        fresh = dataclasses.replace(config, data=ROOT / config.data, runs=Path(folder))
        with Trainer(fresh, ranks=ranks) as trainer:
            return _seconds_per_step(trainer, ranks) * trainer.steps_per_epoch, 1000 * _seconds_per_row(trainer, ranks)


def _seconds_per_step(trainer: Trainer, ranks: Ranks) -> float:
    steps, seconds = trainer_loop(trainer), []
    for _ in range(1 + ROUNDS):
        started = time.perf_counter()
        for _ in range(STEPS):
            next(steps)
        if ranks.device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append((time.perf_counter() - started) / STEPS)
    return statistics.median(seconds[1:])


def _seconds_per_row(trainer: Trainer, ranks: Ranks) -> float:
    config = trainer.config
    alike = RunConfig(recipe=config.recipe, data=config.data, model=config.model, loader=TIMED)
    trainer.sharded.module.eval()
    return seconds_per_row(
        trainer.task, evaluation_loader(alike, folder=config.data / "test", schema=trainer.schema, ranks=ranks), ranks
    )


def words(cell: Cell) -> str:
    """What a cell overrides of its recipe that an epoch's time depends on: not how many epochs there are."""
    pairs = zip(cell.overrides[::2], cell.overrides[1::2], strict=True)
    return " ".join(f"{flag} {value}" for flag, value in pairs if not flag.startswith("--loop."))


def _is_of(cell: Cell, row: dict[str, str]) -> bool:
    return (row["recipe"], row["overrides"]) == (cell.recipe, words(cell))


def _machine(row: dict[str, str]) -> Machine:
    return Machine(*(row[name] for name in MACHINE))
