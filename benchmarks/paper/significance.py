"""Whether one model's lead is more than the choice of test rows.

Both models of a pair are scored on the same test rows, which is far sharper than the two metrics' own errors: rows that are hard
are hard for both. AUCs are compared by the method of DeLong, DeLong and Clarke-Pearson (1988), shares of rows whose target is among
the first K by the paired standard error; rows count as independent, a user's too. Seeds share the test rows, so a mean over seeds
keeps (about) one seed's error.
"""

import dataclasses
import math
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq
import torch
import torch.distributed as dist

from benchmarks.paper.cells import Cell
from benchmarks.paper.rows import config_of
from benchmarks.readme import ROOT
from dataloaders.loader import LoaderConfig
from models.tasks import MatchingTask
from models.types import TrainOut
from trainer.build import evaluation_loader
from trainer.config import RunConfig
from trainer.evaluation import evaluate, load_run
from trainer.paired_difference import Difference, mean_difference
from trainer.process_group import distributed
from trainer.provenance import provenance
from trainer.task_metrics import RankRecorder

CUTOFF = 20
"""K of the recall that matching models are compared by."""
KEY = ("first", "second", "seed", "config")
"""Columns that two records of one pair have in common."""


class RowRecorder:
    """Keeps what a binary task says of each row of a split, on one rank."""

    def __init__(self) -> None:
        self.logits: list[torch.Tensor] = []
        self.labels: list[torch.Tensor] = []

    def add(self, out: TrainOut) -> None:
        """Logit and label of each row."""
        self.logits.append(out.logit_B.double())
        self.labels.append(out.label_B)

    def compute(self, process_group: dist.ProcessGroup | None = None) -> dict[str, float]:
        """Number of rows."""
        assert process_group is None or process_group.size() == 1, "rows are kept on one rank"
        return {"num_rows": float(sum(len(logits) for logits in self.logits))}


class SplitRows(NamedTuple):
    """What a run's best checkpoint makes of the test split."""

    config: RunConfig
    value_R: torch.Tensor
    """float64 [R]: logit of each row, or 1 where its target is among the first K and else 0."""
    label_R: torch.Tensor | None
    """[R]; None for a matching model."""


def difference_row(first: Cell, second: Cell, *, ours: SplitRows, theirs: SplitRows) -> dict[str, str]:
    """Row of the file of differences for one pair and seed.

    Args:
        first: a cell.
        second: what it is compared with.
        ours: what the first's run makes of the test rows.
        theirs: the same of the second's.

    Raises:
        ValueError: the two runs were tested on other rows.
    """
    if not have_same_test_rows(ours.config.data, theirs.config.data):
        raise ValueError(f"{first.recipe} and {second.recipe} differ in test data, so their rows do not lie side by side")
    if ours.label_R is None:
        metric, difference = f"test recall@{CUTOFF}", mean_difference(ours.value_R, theirs.value_R)
    else:
        metric, difference = "test AUC", auc_difference(ours.value_R, theirs.value_R, ours.label_R)
    return {
        "first": first.label,
        "second": second.label,
        "seed": str(ours.config.seed),
        "config": f"{ours.config.fingerprint[:12]} {theirs.config.fingerprint[:12]}",
        "metric": metric,
        "difference": f"{difference.value:.6f}",
        "standard_error": f"{difference.standard_error:.6f}",
        "z": f"{difference.z:.2f}",
        "test_rows": str(len(ours.value_R)),
        **provenance(),
    }


def have_same_test_rows(first: Path, second: Path) -> bool:
    """Whether two data sets, which may differ in training rows, have one test split, row by row and column by column."""
    return first == second or pq.read_table(ROOT / first / "test").equals(pq.read_table(ROOT / second / "test"))


def rows_of(cell: Cell, *, seed: int) -> SplitRows:
    """Every test row by the best checkpoint of a cell's finished run.

    Raises:
        CheckpointError: the run has no checkpoint.
    """
    config = config_of(cell, seed=seed)
    with distributed(config.loop.device) as ranks:
        loaded = load_run(config, run=ROOT / config.run_dir, data=ROOT / config.data, ranks=ranks)
        alike = dataclasses.replace(
            config, loader=LoaderConfig(bad_rows=config.loader.bad_rows)
        )  # batches decide the order of rows
        loader = evaluation_loader(alike, folder=ROOT / config.data / "test", schema=loaded.schema, ranks=ranks)
        if isinstance(loaded.sharded.task, MatchingTask):
            found = RankRecorder()
            evaluate(loaded.sharded, loader, ranks=ranks, recorder=found)
            return SplitRows(config, found.found(CUTOFF), None)
        rows = RowRecorder()
        evaluate(loaded.sharded, loader, ranks=ranks, recorder=rows)
    return SplitRows(config, torch.cat(rows.logits).cpu(), torch.cat(rows.labels).cpu())


def auc_difference(first: torch.Tensor, second: torch.Tensor, label: torch.Tensor) -> Difference:
    """AUC of `first` minus that of `second`, both float64 [R] scores of the same rows with labels 0 or 1, by DeLong's method."""
    positives, negatives = zip(*(_placements(score, label) for score in (first, second)), strict=True)
    by_positive, by_negative = positives[0] - positives[1], negatives[0] - negatives[1]
    variance = by_positive.var() / len(by_positive) + by_negative.var() / len(by_negative)
    return Difference(float(by_positive.mean()), math.sqrt(float(variance)))


def _placements(score: torch.Tensor, label: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """For each positive the share of negatives below it, for each negative the share of positives above it; a tie counts half."""
    positive, negative = score[label == 1], score[label == 0]
    return _share_below(positive, negative), 1 - _share_below(negative, positive)


def _share_below(score: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    ordered = others.sort().values
    below, up_to = (torch.searchsorted(ordered, score, right=right) for right in (False, True))
    return (below + up_to).double() / (2 * len(others))
