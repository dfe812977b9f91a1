"""Whether one model's lead is more than the choice of test rows.

Both models of a pair are scored on the same test rows, which is far sharper than the two metrics' own errors: rows that are hard
are hard for both. AUCs are compared by the method of DeLong, DeLong and Clarke-Pearson (1988), in the form of Obuchowski (1997)
where a user has several rows, which count together; shares of rows whose target is among the first K by the paired standard error.
Seeds share the test rows, so a mean over seeds keeps (about) one seed's error of rows; `render.lead` adds what seeds differ by.
"""

import dataclasses
import functools
import math
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
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
        self.row_ids: list[torch.Tensor] = []

    def add(self, out: TrainOut) -> None:
        """Logit, label and id of each row."""
        self.logits.append(out.logit_B.double())
        self.labels.append(out.label_B)
        self.row_ids.append(out.row_id_B)

    def compute(self, process_group: dist.ProcessGroup | None = None) -> dict[str, float]:
        """Number of rows."""
        assert process_group is None or process_group.size() == 1, "rows are kept on one rank"
        return {"num_rows": float(sum(len(logits) for logits in self.logits))}


class SplitRows(NamedTuple):
    """What a run's best checkpoint makes of the test split."""

    config: RunConfig
    value_R: torch.Tensor
    """float64 [R]: logit of each row, or 1 where its target is among the first K and else 0."""
    label_R: torch.Tensor | None = None
    """[R]; None for a matching model, which has one row a user."""
    user_R: torch.Tensor | None = None
    """int64 [R]: rows with one number are one user's; given with `label_R`."""


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
    if ours.label_R is None or ours.user_R is None:
        metric, difference = f"test recall@{CUTOFF}", mean_difference(ours.value_R, theirs.value_R)
    else:
        metric, difference = "test AUC", auc_difference(ours.value_R, theirs.value_R, label=ours.label_R, user=ours.user_R)
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
    """Whether two data sets, which may differ in training rows, have one test split, row by row, in all columns that both have."""
    if first == second:
        return True
    ours, theirs = (_test_split(ROOT / folder) for folder in (first, second))
    common = [name for name in ours.column_names if name in theirs.column_names]
    return "row_id" in common and ours.select(common).equals(theirs.select(common))


@functools.lru_cache(maxsize=2)
def _test_split(data: Path) -> pa.Table:
    return pq.read_table(data / "test")


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
            return SplitRows(config, found.found(CUTOFF))
        rows = RowRecorder()
        evaluate(loaded.sharded, loader, ranks=ranks, recorder=rows)
    logits, labels, row_ids = (torch.cat(values).cpu() for values in (rows.logits, rows.labels, rows.row_ids))
    return SplitRows(config, logits, labels, users_of(row_ids, ROOT / config.data / "test"))


def users_of(row_id_R: torch.Tensor, folder: Path) -> torch.Tensor:
    """int64 [R]: user of each row of a split's files, by its id; where they have no user, every row is somebody's own."""
    if "user" not in pq.read_schema(next(folder.glob("*.parquet"))).names:
        return torch.arange(len(row_id_R))
    table = pq.read_table(folder, columns=["row_id", "user"]).sort_by("row_id")
    known, user = (torch.tensor(table[name].to_numpy(), dtype=torch.int64) for name in ("row_id", "user"))
    place_R = torch.searchsorted(known, row_id_R)
    assert torch.equal(known[place_R], row_id_R), f"{folder} holds other rows than were scored"
    return user[place_R]


def auc_difference(first: torch.Tensor, second: torch.Tensor, *, label: torch.Tensor, user: torch.Tensor) -> Difference:
    """AUC of `first` minus that of `second`, by DeLong's method for users.

    Args:
        first: float64 [R], scores.
        second: float64 [R], other scores of the same rows.
        label: [R], 0 or 1.
        user: int64 [R], whose rows they are; those of different users are independent.
    """
    (by_positive, by_negative), other = (_placements(score, label) for score in (first, second))
    by_positive, by_negative = by_positive - other[0], by_negative - other[1]
    value = by_positive.mean()
    # how far each row moves the difference, and with it its user
    row_R = torch.empty_like(first)
    row_R[label == 1] = (by_positive - value) / len(by_positive)
    row_R[label == 0] = (by_negative - value) / len(by_negative)
    numbers_K, place_R = user.unique(return_inverse=True)
    user_K = row_R.new_zeros(len(numbers_K)).index_add(0, place_R, row_R)
    variance = user_K.square().sum() * len(user_K) / (len(user_K) - 1)
    return Difference(float(value), math.sqrt(float(variance)))


def _placements(score: torch.Tensor, label: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """For each positive the share of negatives below it, for each negative the share of positives above it; a tie counts half."""
    positive, negative = score[label == 1], score[label == 0]
    return _share_below(positive, negative), 1 - _share_below(negative, positive)


def _share_below(score: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    ordered = others.sort().values
    below, up_to = (torch.searchsorted(ordered, score, right=right) for right in (False, True))
    return (below + up_to).double() / (2 * len(others))
