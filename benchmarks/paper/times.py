"""Seconds of a training epoch and milliseconds of a sample, by cell and machine: benchmarks/results/times.csv.

Measured one by one with fresh weights, on a machine that does nothing else: runs share theirs with other work, and are continued on
others. A row is known by the configuration, but for the seed and when training ends; `--again` measures anew what the code changed.
"""

import dataclasses
import logging
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torchrec.distributed import TrainPipelineSparseDist

from benchmarks.paper.cells import Cell
from benchmarks.paper.rows import config_of
from benchmarks.readme import RESULTS, ROOT
from benchmarks.result_rows import read_rows, replace_rows
from benchmarks.row_seconds import seconds_per_row
from dataloaders.loader import LoaderConfig
from trainer.build import evaluation_loader
from trainer.config import LoopConfig, RunConfig
from trainer.errors import exit_code
from trainer.process_group import Ranks, distributed
from trainer.provenance import provenance
from trainer.trainer import Trainer

log = logging.getLogger(__name__)
TIMES_FILE = RESULTS / "times.csv"
MACHINE = ("cpu", "cores", "gpu")
KEY = ("config", *MACHINE)
SECONDS, MILLISECONDS = "train_seconds_per_epoch", "inference_ms_per_sample"
WHEN_TRAINING_ENDS = ("max_epochs", "evals_per_epoch", "patience", "monitor")
"""Fields of LoopConfig that say nothing of an epoch's time."""
STEPS, ROUNDS = 10, 3
"""Optimizer steps of a round, and rounds that count; one more warms up."""
UNSTEADY = 1.5
"""The slowest round may take so many times the fastest one; more says that the machine did other work."""
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
        """What models run on there, unless they are told otherwise."""
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
        timed = Counter(_machine(row) for row in self._of(cells))
        best = {machine.kind: machine for machine, _ in reversed(timed.most_common())}
        return [best[kind] for kind in sorted(best)]

    def of(self, cell: Cell, machine: Machine) -> dict[str, str]:
        """A cell's row of that machine; empty where it was not timed there."""
        return next((row for row in self._of([cell]) if _machine(row) == machine), {})

    def described(self, cells: Sequence[Cell]) -> str:
        """The machines of `machines`, with the versions and commits that the cells were timed with."""
        parts = []
        for machine in self.machines(cells):
            rows = [row for row in self._of(cells) if _machine(row) == machine]
            torch_versions, commits = (", ".join(sorted({row[name] for row in rows})) for name in ("torch", "commit"))
            parts.append(f"{machine} (torch {torch_versions}; commits {commits})")
        return " and on ".join(parts)

    def _of(self, cells: Sequence[Cell]) -> list[dict[str, str]]:
        wanted = {timed_config(cell) for cell in cells if cell.role != "counted"}
        return [row for row in self._rows if row["config"] in wanted]


NO_TIMES = Times()


def timed_config(cell: Cell) -> str:
    """Fingerprint of a cell's configuration without what times do not depend on: the seed, and when training ends."""
    config = config_of(cell, seed=0)
    loop = dataclasses.replace(config.loop, **{name: getattr(LoopConfig(), name) for name in WHEN_TRAINING_ENDS})
    return dataclasses.replace(config, loop=loop).fingerprint[:12]


def shown_time(row: dict[str, str], column: str) -> str:
    """A time as tables show it, whole from 10 and with two digits below; – where it was not measured."""
    if not row.get(column):
        return "–"
    value = float(row[column])
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def time_missing(cells: Sequence[Cell], path: Path = TIMES_FILE, *, again: bool = False) -> list[Exception]:
    """Measure and record the cells that this machine has not been timed with; says which it leaves out.

    Left out are those that are counted, that several ranks train, or whose data is not here. Where a cell fails, the others go on;
    its error is logged and returned.

    Args:
        cells: what is timed.
        path: results file.
        again: whether cells that have times of this machine are measured anew.
    """
    here, failed = Machine(*(provenance()[name] for name in MACHINE)), []
    done: set[str] = set()
    for cell in cells:
        if cell.role == "counted" or (config := timed_config(cell)) in done:
            continue
        done.add(config)
        try:
            if reason := _reason_to_skip(cell, path, here, again=again):
                print(f"{cell.label}, {cell.budget}: {reason}", flush=True)
                continue
            seconds, milliseconds = measured(config_of(cell, seed=0))
            times = {SECONDS: f"{seconds:.5g}", MILLISECONDS: f"{milliseconds:.4g}"}
            own = {"recipe": cell.recipe, "overrides": " ".join(cell.overrides), "config": config}
            replace_rows(path, [own | times | provenance()], key=KEY)
            print(f"{cell.label}, {cell.budget}: {seconds:.5g} s/epoch, {milliseconds:.4g} ms/sample", flush=True)
        except Exception as error:  # the other cells go on and are recorded
            log.error("%s is not timed: %s", cell.label, error, exc_info=exit_code(error) == 1)
            failed.append(error)
    return failed


def _reason_to_skip(cell: Cell, path: Path, here: Machine, *, again: bool) -> str | None:
    if cell.num_ranks > 1:
        return "not timed, several ranks train it"
    if not again and Times(read_rows(path)).of(cell, here):
        return "timed on this machine before; --again measures anew"
    data = config_of(cell, seed=0).data
    return None if (ROOT / data / "schema.json").exists() else f"not timed, {data} is not here"


def measured(config: RunConfig) -> tuple[float, float]:
    """Seconds of an epoch, without validation, and milliseconds of a sample, of a model that begins to be trained."""
    with tempfile.TemporaryDirectory() as folder, distributed(config.loop.device) as ranks:
        fresh = dataclasses.replace(config, data=ROOT / config.data, runs=Path(folder))
        with Trainer(fresh, ranks=ranks) as trainer:
            return _seconds_per_step(trainer, ranks) * trainer.steps_per_epoch, 1000 * _seconds_per_row(trainer, ranks)


def _seconds_per_step(trainer: Trainer, ranks: Ranks) -> float:
    pipeline, batches, seconds = trainer.pipeline(), trainer.batches(), []
    for _ in range(1 + ROUNDS):
        started = time.perf_counter()
        for _ in range(STEPS):
            trainer.train_step(pipeline, batches)
        if ranks.device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append((time.perf_counter() - started) / STEPS)
    if isinstance(pipeline, TrainPipelineSparseDist):
        pipeline.detach()  # inference must not look up the batches that the pipeline holds ready
    if max(seconds[1:]) > UNSTEADY * min(seconds[1:]):
        log.warning(
            "steps took %.3g to %.3g s: the machine does other work too; measure again (--again)",
            min(seconds[1:]),
            max(seconds[1:]),
        )
    return statistics.median(seconds[1:])


def _seconds_per_row(trainer: Trainer, ranks: Ranks) -> float:
    config = trainer.config
    alike = RunConfig(recipe=config.recipe, data=config.data, model=config.model, loader=TIMED)
    loader = evaluation_loader(alike, folder=config.data / "test", schema=trainer.schema, ranks=ranks)
    trainer.module.eval()
    return seconds_per_row(trainer.task, loader, ranks)


def _machine(row: dict[str, str]) -> Machine:
    return Machine(*(row[name] for name in MACHINE))
