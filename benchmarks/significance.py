"""Whether one model's lead is more than the choice of test rows: `python -m benchmarks.significance --paper t2diff --seeds 2`.

Both models of a pair are scored on the same test rows, which is far sharper than the two metrics' own errors: rows that are hard
are hard for both. AUCs are compared by the method of DeLong, DeLong and Clarke-Pearson (1988), shares of rows whose target is among
the first K by the paired standard error. Seeds share the test rows, so a mean over seeds keeps (about) one seed's error. Runs that
are missing are trained. The tables of `benchmarks.paper` compare every model with the best baseline by the same means.
"""

import dataclasses
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import pyarrow.parquet as pq
import torch
import torch.distributed as dist
import tyro

from benchmarks.readme import RESULTS, ROOT, replace_section
from benchmarks.result_rows import read_rows, replace_rows
from benchmarks.trained_runs import finished_run, machine
from dataloaders.loader import LoaderConfig
from models.tasks import MatchingTask
from models.types import TrainOut
from trainer.build import evaluation_loader
from trainer.cli import one_screen_errors, parse_run_config
from trainer.config import RunConfig
from trainer.evaluation import evaluate, load_run
from trainer.paired_difference import Difference, mean_difference
from trainer.process_group import distributed
from trainer.provenance import provenance
from trainer.task_metrics import RankRecorder

CUTOFF = 20
"""K of the recall that matching models are compared by."""
KEY = ("first", "second", "seed", "config")


class Run(NamedTuple):
    """A recipe with overrides on a number of ranks, and its name in the table."""

    label: str
    recipe: str
    num_ranks: int = 1
    overrides: tuple[str, ...] = ()


T2DIFF_PAIRS = (
    (Run("T2Diff", "t2diff_ml1m"), Run("Mixed-attention", "mixed_attention_ml1m")),
    (Run("T2Diff", "t2diff_ml1m"), Run("W/O DP", "t2diff_no_drift_ml1m")),
)
PAIRS = {("t2diff", "ml1m"): T2DIFF_PAIRS}


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Compare the models of a paper, pair by pair."""

    paper: Literal["t2diff"] = "t2diff"
    dataset: Literal["ml1m"] = "ml1m"
    seeds: int = 2
    """Seeds 0 .. seeds - 1 of each run."""


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


def main() -> None:
    """Command line."""
    arguments = tyro.cli(Arguments)
    name = f"significance_{arguments.paper}_{arguments.dataset}"
    path = RESULTS / f"{name}.csv"
    with one_screen_errors():
        pairs = PAIRS[arguments.paper, arguments.dataset]
        for first, second in pairs:
            for seed in range(arguments.seeds):
                replace_rows(path, [compare(first, second, seed=seed)], key=KEY)
        table = render([row for row in read_rows(path) if is_current(row, pairs)])
        print(table)
        replace_section(ROOT / "README.md", name, table)


def compare(first: Run, second: Run, *, seed: int) -> dict[str, str]:
    """Row of the results file for one pair and seed.

    Raises:
        ValueError: the two runs were tested on other rows.
    """
    ours, theirs = (rows_of(run, seed=seed) for run in (first, second))
    return difference_row(first, second, seed=seed, ours=ours, theirs=theirs)


def difference_row(first: Run, second: Run, *, seed: int, ours: SplitRows, theirs: SplitRows) -> dict[str, str]:
    """`compare`, of rows that are known."""
    if not have_same_test_rows(ours.config.data, theirs.config.data):
        raise ValueError(f"{first.recipe} and {second.recipe} differ in test data, so their rows do not lie side by side")
    if ours.label_R is None:
        metric, difference = f"test recall@{CUTOFF}", mean_difference(ours.value_R, theirs.value_R)
    else:
        metric, difference = "test AUC", auc_difference(ours.value_R, theirs.value_R, ours.label_R)
    return {
        "first": first.label,
        "second": second.label,
        "seed": str(seed),
        "config": _fingerprints(ours.config, theirs.config),
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


def rows_of(run: Run, *, seed: int) -> SplitRows:
    """Every test row by a run's best checkpoint; trains the run where it is missing."""
    config = _config(run, seed=seed)
    finished_run(run.recipe, overrides=[*run.overrides, "--seed", str(seed)], num_ranks=run.num_ranks)
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


def is_current(row: dict[str, str], pairs: Sequence[tuple[Run, Run]]) -> bool:
    """Whether `row` is of runs as their recipes are now."""
    pair = next((pair for pair in pairs if [run.label for run in pair] == [row["first"], row["second"]]), None)
    return pair is not None and row["config"] == _fingerprints(*(_config(run, seed=int(row["seed"])) for run in pair))


def _config(run: Run, *, seed: int) -> RunConfig:
    return parse_run_config(["--recipe", run.recipe, *run.overrides, "--seed", str(seed)])


def _fingerprints(first: RunConfig, second: RunConfig) -> str:
    return f"{first.fingerprint[:12]} {second.fingerprint[:12]}"


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


def render(rows: list[dict[str, str]]) -> str:
    """Markdown: a row per pair, its difference per seed and over seeds in standard errors."""
    if not rows:
        return "No pair is recorded yet."
    lines = ["| | metric | difference | standard error | z | per seed |", "|---|---|---|---|---|---|"]
    for first, second in dict.fromkeys((row["first"], row["second"]) for row in rows):
        runs = [row for row in rows if (row["first"], row["second"]) == (first, second)]
        value, error = (statistics.fmean(float(row[name]) for row in runs) for name in ("difference", "standard_error"))
        seeds = ", ".join(f"{float(row['difference']):+.4f}" for row in runs)
        shown = f"{value:+.4f} | {error:.4f} | {Difference(value, error).z:+.1f}"
        lines.append(f"| {first} − {second} | {runs[0]['metric']} | {shown} | {seeds} |")
    return "\n".join([*lines, "", f"{rows[0]['test_rows']} test rows, scored by both models of a pair. {machine(rows)}"])


if __name__ == "__main__":
    main()
