"""Whether one model's lead over another is more than chance: `python -m benchmarks.significance --paper fit --seeds 2`.

Both models of a pair are scored on the same test rows, which is far sharper than the two metrics' own errors: rows that are hard
are hard for both. AUCs are compared by the method of DeLong, DeLong and Clarke-Pearson (1988), shares of rows whose target is among
the first K by the paired standard error. Seeds share the test rows, so a mean over seeds keeps (about) one seed's error. Runs that
are missing are trained.
"""

import math
import statistics
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.distributed as dist
import tyro

from benchmarks.readme import RESULTS, ROOT, replace_section
from benchmarks.result_rows import read_rows, replace_rows
from benchmarks.trained_runs import finished_run, machine
from models.types import MatchOut, TrainOut
from trainer.build import evaluation_loader
from trainer.cli import one_screen_errors, parse_run_config
from trainer.config import RunConfig
from trainer.evaluation import evaluate, load_run
from trainer.process_group import Ranks, distributed
from trainer.provenance import provenance

CUTOFF = 20
"""K of the recall that matching models are compared by."""
KEY = ("first", "second", "seed", "config")


class Run(NamedTuple):
    """A recipe with overrides, and its name in the table."""

    label: str
    recipe: str
    overrides: tuple[str, ...] = ()
    num_ranks: int = 1


FIT_PAIRS = (
    (Run("FIT, the paper's preset", "fit_ml1m_paper"), Run("Two-Tower, the paper's preset", "two_tower_ml1m_paper")),
    (Run("FIT, sharded", "fit_ml1m", num_ranks=2), Run("Two-Tower, sharded", "two_tower_ml1m", num_ranks=2)),
)
T2DIFF_PAIRS = (
    (Run("T2Diff", "t2diff_ml1m"), Run("Mixed-attention", "mixed_attention_ml1m")),
    (Run("T2Diff", "t2diff_ml1m"), Run("W/O DP", "t2diff_no_drift_ml1m")),
)
PAIRS = {("fit", "ml1m"): FIT_PAIRS, ("t2diff", "ml1m"): T2DIFF_PAIRS}


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Compare the models of a paper, pair by pair."""

    paper: Literal["fit", "t2diff"] = "fit"
    dataset: Literal["ml1m"] = "ml1m"
    seeds: int = 2
    """Seeds 0 .. seeds - 1 of each run."""


class RowRecorder:
    """Keeps what each row of a split came to, on one rank."""

    def __init__(self) -> None:
        self.values: list[torch.Tensor] = []
        self.labels: list[torch.Tensor] = []

    def add(self, out: TrainOut | MatchOut) -> None:
        """Logit and label of each row, or whether its target is among the first K (a row of label 1)."""
        found = isinstance(out, MatchOut)
        self.values.append((out.rank_B <= CUTOFF).double() if found else out.logit_B.double())
        self.labels.append(torch.ones_like(out.rank_B) if found else out.label_B)

    def compute(self, process_group: dist.ProcessGroup | None = None) -> dict[str, float]:
        """Number of rows."""
        assert process_group is None or process_group.size() == 1, "rows are kept on one rank"
        return {"num_rows": float(sum(len(values) for values in self.values))}


class Difference(NamedTuple):
    """First minus second."""

    value: float
    standard_error: float

    @property
    def z(self) -> float:
        """Standard errors from 0."""
        return self.value / self.standard_error if self.standard_error else math.copysign(math.inf, self.value)


def main() -> None:
    """Command line."""
    arguments = tyro.cli(Arguments)
    name = f"significance_{arguments.paper}_{arguments.dataset}"
    path = RESULTS / f"{name}.csv"
    with one_screen_errors():
        for first, second in PAIRS[arguments.paper, arguments.dataset]:
            for seed in range(arguments.seeds):
                replace_rows(path, [compare(first, second, seed=seed)], key=KEY)
        table = render(read_rows(path))
        print(table)
        replace_section(ROOT / "README.md", name, table)


def compare(first: Run, second: Run, *, seed: int) -> dict[str, str]:
    """Row of the results file for one pair and seed."""
    (ours, labels, fingerprint), (theirs, other_labels, other) = (rows_of(run, seed=seed) for run in (first, second))
    if not torch.equal(labels, other_labels):
        raise ValueError(f"{first.recipe} and {second.recipe} were tested on different rows; compare runs of one data set")
    is_auc = bool((labels == 0).any())
    difference = auc_difference(ours, theirs, labels) if is_auc else mean_difference(ours, theirs)
    return {
        "first": first.label,
        "second": second.label,
        "seed": str(seed),
        "config": f"{fingerprint} {other}",
        "metric": "test AUC" if is_auc else f"test recall@{CUTOFF}",
        "difference": f"{difference.value:.6f}",
        "standard_error": f"{difference.standard_error:.6f}",
        "z": f"{difference.z:.2f}",
        "test_rows": str(len(labels)),
        **provenance(),
    }


def rows_of(run: Run, *, seed: int) -> tuple[torch.Tensor, torch.Tensor, str]:
    """Values and labels of every test row by a run's best checkpoint, and the run's fingerprint; trains it where it is missing."""
    overrides = (*run.overrides, "--seed", str(seed))
    finished_run(run.recipe, overrides=overrides, num_ranks=run.num_ranks)
    config = parse_run_config(["--recipe", run.recipe, *overrides])
    with distributed(config.loop.device) as ranks:
        values, labels = _score(config, ranks=ranks)
    return values, labels, config.fingerprint[:12]


def _score(config: RunConfig, *, ranks: Ranks) -> tuple[torch.Tensor, torch.Tensor]:
    loaded = load_run(config, run=ROOT / config.run_dir, data=ROOT / config.data, ranks=ranks)
    loader = evaluation_loader(config, folder=ROOT / config.data / "test", schema=loaded.schema, ranks=ranks)
    recorder = RowRecorder()
    evaluate(loaded.sharded, loader, ranks=ranks, recorder=recorder)
    return torch.cat(recorder.values).cpu(), torch.cat(recorder.labels).cpu()


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


def mean_difference(first: torch.Tensor, second: torch.Tensor) -> Difference:
    """Mean of `first` minus mean of `second`, float64 [R] values of the same rows, with the paired standard error."""
    difference = first - second
    return Difference(float(difference.mean()), float(difference.std()) / math.sqrt(len(difference)))


def render(rows: list[dict[str, str]]) -> str:
    """Markdown: a row per pair, its difference per seed and over seeds in standard errors."""
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
