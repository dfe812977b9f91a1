"""What a run measures, by the kind of its task: one recorder for a stretch of training steps, one for an evaluation."""

from collections.abc import Mapping
from typing import Any, Protocol

import torch
import torch.distributed as dist

from models.tasks import MatchingTask, PreRankingTask
from models.types import MatchOut, TrainOut
from trainer.metrics import BinaryMetrics
from trainer.ranking_metrics import ERROR_CUTOFF, RankingMetrics

Task = PreRankingTask | MatchingTask
Out = TrainOut | MatchOut


class Recorder(Protocol):
    """Collects a task's outputs; `compute` is a collective call and gives every rank the same values."""

    def add(self, out: Any) -> None:
        """One step's output, of the type that the task returns; waits for no GPU."""

    def compute(self, process_group: dist.ProcessGroup | None = None) -> dict[str, float]:
        """Values over all rows of all ranks, among them `num_rows`; of training steps, `loss`."""


def training_recorder(task: Task) -> Recorder:
    """For the steps between two progress lines."""
    return LossRecorder() if isinstance(task, MatchingTask) else ScoreLossRecorder()


def evaluation_recorder(task: Task) -> Recorder:
    """For one pass over a split."""
    return RankRecorder() if isinstance(task, MatchingTask) else BinaryRecorder()


def protocol(task: Task, *, source: str, metrics: Mapping[str, Mapping[str, float]]) -> str:
    """How the numbers of an evaluation (name of the rows -> metric -> value) of the data called `source` came about."""
    rows = ", ".join(f"{name} {values['num_rows']:,.0f}" for name, values in metrics.items())
    if isinstance(task, MatchingTask):
        seen = "items of the row's own history " + ("do not compete" if task.config.mask_history else "compete")
        if task.seen_items is not None:
            seen = "other items that the data set has for the row's user do not compete"
        return (
            f"{source}: each row's target ranked among all {task.num_items:,} items by exact scores, ties against the model; "
            f"{seen}; rows: {rows}; recall@{ERROR_CUTOFF}_se is the binomial standard error"
        )
    return f"{source}: one given item per row, scored against its label; rows: {rows}; auc_se is Hanley and McNeil's"


class BinaryRecorder:
    """BinaryMetrics of a pre-ranking task; the loss is the logloss."""

    def __init__(self) -> None:
        self._metrics = BinaryMetrics()

    def add(self, out: TrainOut) -> None:
        """One step's output."""
        self._metrics.update(out.logit_B, out.label_B)

    def compute(self, process_group: dist.ProcessGroup | None = None) -> dict[str, float]:
        """BinaryMetrics.compute, and the logloss as `loss`."""
        values = self._metrics.compute(process_group)
        return values | {"loss": values["logloss"]}


class ScoreLossRecorder:
    """BinaryMetrics of a pre-ranking task's training rows beside the mean of the model's further losses."""

    def __init__(self) -> None:
        self._binary, self._auxiliary = BinaryRecorder(), _RowMeans(1)

    def add(self, out: TrainOut) -> None:
        """One step's output."""
        self._binary.add(out)
        self._auxiliary.add(out.auxiliary_B)

    def compute(self, process_group: dist.ProcessGroup | None = None) -> dict[str, float]:
        """BinaryRecorder.compute, and auxiliary (the model's further losses with their weights) unless it is 0; NaN over 0 rows."""
        (auxiliary,), _ = self._auxiliary.compute(process_group)
        return self._binary.compute(process_group) | ({} if auxiliary == 0 else {"auxiliary": auxiliary})


class RankRecorder:
    """RankingMetrics of a matching task."""

    def __init__(self) -> None:
        self._metrics = RankingMetrics()

    def add(self, out: MatchOut) -> None:
        """One step's output."""
        self._metrics.update(out.rank_B, out.softmax_loss_B)

    def compute(self, process_group: dist.ProcessGroup | None = None) -> dict[str, float]:
        """RankingMetrics.compute."""
        return self._metrics.compute(process_group)

    def found(self, k: int, process_group: dist.ProcessGroup | None = None) -> torch.Tensor:
        """RankingMetrics.found."""
        return self._metrics.found(k, process_group)


class LossRecorder:
    """Mean losses of a matching task's training rows, which are not ranked."""

    def __init__(self) -> None:
        self._losses = _RowMeans(2)

    def add(self, out: MatchOut) -> None:
        """One step's output."""
        self._losses.add(out.softmax_loss_B, out.auxiliary_B)

    def compute(self, process_group: dist.ProcessGroup | None = None) -> dict[str, float]:
        """Loss (softmax), auxiliary (the model's further losses with their weights) and num_rows; over 0 rows both are NaN."""
        (loss, auxiliary), num_rows = self._losses.compute(process_group)
        return {"loss": loss, "auxiliary": auxiliary, "num_rows": num_rows}


class _RowMeans:
    """Means, in float64, of values that come as one tensor [B] each."""

    def __init__(self, num_values: int) -> None:
        self._num_values = num_values
        self._sums: list[torch.Tensor] = []

    def add(self, *value_B: torch.Tensor) -> None:
        sums = torch.stack([values.double().sum() for values in value_B])
        # filled on the device: a value of the host would make the host wait for the GPU
        self._sums.append(torch.cat([sums, sums.new_full((1,), float(value_B[0].shape[0]))]))

    def compute(self, process_group: dist.ProcessGroup | None) -> tuple[list[float], float]:
        """The means over all rows of all ranks, NaN over 0 rows, and the number of rows; a collective call."""
        nothing = torch.zeros(self._num_values + 1, dtype=torch.float64)
        totals = torch.stack(self._sums).sum(0).cpu() if self._sums else nothing
        if process_group is not None and process_group.size() > 1:
            dist.all_reduce(totals, group=process_group)
        return (totals[:-1] / totals[-1]).tolist(), totals[-1].item()
