"""T2Diff's ablations on real data: train every cell that is missing, record it, render the tables.

    python -m benchmarks.ablation t2diff --dataset ml1m --seeds 2                          # every table
    python -m benchmarks.ablation t2diff --seeds 2 --groups conditions windows --jobs 2    # two tables, two cells at a time
    python -m benchmarks.ablation t2diff --no-train                                        # from benchmarks/results only

An interrupted cell is continued, one that benchmarks/results has is not repeated: stop and start as you like, on any machine.
Validation picks each run's checkpoint (and the reader's favourite cell), test reports it.
"""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple, get_args

import tyro

from benchmarks.paper.cells import ALGORITHMS_1_AND_2, T2DIFF_TABLE_2
from benchmarks.readme import RESULTS, ROOT, replace_section
from benchmarks.result_rows import read_rows, replace_rows
from benchmarks.trained_runs import MATCHING_METRICS as METRICS
from benchmarks.trained_runs import finished_run, origin, run_columns, spread
from trainer.cli import one_screen_errors, parse_run_config

log = logging.getLogger(__name__)
Group = Literal["conditions", "windows", "schedules", "steps"]
PAPER_METRICS = ("recall@2", "recall@20", "mrr@2", "mrr@20")
KEY = ("label", "seed", "config")
"""Columns that two records of one run have in common."""


class Cell(NamedTuple):
    """One row of a table."""

    label: str
    recipe: str
    overrides: tuple[str, ...] = ()
    paper: tuple[float, float, float, float] | None = None
    """Recall@2, Recall@20, MRR@2, MRR@20 as the paper prints them."""


T2DIFF, MIXED_ATTENTION = (
    (printed["recall@2"], printed["recall@20"], printed["mrr@2"], printed["mrr@20"])
    for printed in (T2DIFF_TABLE_2["t2diff"], T2DIFF_TABLE_2["mixed_attention"])
)
CONDITION, SAMPLE_STEPS = "--model.diffusion.tower-condition", "--model.diffusion.num-sample-steps"
SCHEDULE, STEPS = "--model.diffusion.schedule.kind", "--model.diffusion.schedule.num-steps"
# the schedule and its length say nothing to a single step from noise, so what compares them takes two
SAMPLED = (CONDITION, "sampled", SAMPLE_STEPS, "2")
HIGH_NOISE = (CONDITION, "high_noise", SAMPLE_STEPS, "1")
CELLS: dict[Group, tuple[Cell, ...]] = {
    "conditions": (
        Cell("T2Diff, `sampled`: tower learns from 2 reverse steps, served with 2", "t2diff_ml1m", SAMPLED),
        Cell("T2Diff, `onestep`: Algorithm 1, served with Algorithm 2 (T = 50)", "t2diff_ml1m", ALGORITHMS_1_AND_2),
        Cell("T2Diff, `high_noise`: 1 step from noise, served with 1", "t2diff_ml1m", HIGH_NOISE),
        Cell("T2Diff without drift (W/O DP), `sampled`", "t2diff_no_drift_ml1m", SAMPLED),
        Cell("T2Diff without drift (W/O DP), `high_noise`", "t2diff_no_drift_ml1m", HIGH_NOISE),
        Cell("Mixed-attention", "mixed_attention_ml1m"),
    ),
    "windows": (
        Cell("T2Diff, width 32", "t2diff_ml1m_windows", paper=T2DIFF),
        Cell("Mixed-attention, width 32", "mixed_attention_ml1m_windows", paper=MIXED_ATTENTION),
        Cell("T2Diff, the authors' constants, width 4", "t2diff_ml1m_authors", paper=T2DIFF),
        Cell("Mixed-attention, the authors' constants, width 4", "mixed_attention_ml1m_authors", paper=MIXED_ATTENTION),
    ),
    "schedules": (
        Cell("exponential", "t2diff_ml1m", SAMPLED, T2DIFF),
        Cell("linear", "t2diff_ml1m", (*SAMPLED, SCHEDULE, "linear"), (0.07686, 0.27519, 0.05950, 0.08677)),
        Cell("logarithmic", "t2diff_ml1m", (*SAMPLED, SCHEDULE, "log"), (0.07256, 0.25151, 0.05767, 0.08137)),
    ),
    "steps": (
        Cell("T = 10, `sampled`, served with 2 steps", "t2diff_ml1m", (*SAMPLED, STEPS, "10"), (0.0769, 0.2724, 0.0592, 0.0852)),
        Cell("T = 50, `sampled`, served with 2 steps", "t2diff_ml1m", SAMPLED, T2DIFF),
        Cell("T = 200, `sampled`, served with 2 steps", "t2diff_ml1m", (*SAMPLED, STEPS, "200"), (0.0771, 0.2715, 0.0623, 0.0885)),
    ),
}


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Train and tabulate T2Diff's ablations."""

    model: Annotated[Literal["t2diff"], tyro.conf.Positional] = "t2diff"
    dataset: Literal["ml1m"] = "ml1m"
    seeds: int = 2
    """Seeds 0 .. seeds - 1 of each cell."""
    groups: tuple[Group, ...] = get_args(Group)
    """Tables to fill; the others are rendered from what is recorded."""
    jobs: int = 1
    """Cells trained at the same time; give each its cores with OMP_NUM_THREADS."""
    train: bool = True
    """Train what is missing; otherwise only render what is recorded."""


def main() -> None:
    """Command line."""
    arguments = tyro.cli(Arguments)
    with one_screen_errors():
        for group in CELLS:
            train = arguments.train and group in arguments.groups
            reproduce(group, dataset=arguments.dataset, seeds=arguments.seeds, jobs=arguments.jobs, train=train)


def reproduce(group: Group, *, dataset: Literal["ml1m"], seeds: int, train: bool, jobs: int = 1) -> None:
    """Fill a table unless `train` is off, print it and put it into README.md."""
    name = f"t2diff_{dataset}_{group}"
    if train:
        fill(name, CELLS[group], seeds=seeds, jobs=jobs)
    rows = [row for row in read_rows(RESULTS / f"{name}.csv") if is_current(row, CELLS[group])]
    table = render(CELLS[group], rows)
    print(f"{name}\n{table}\n")
    replace_section(ROOT / "README.md", name, table)


def fill(name: str, cells: Sequence[Cell], *, seeds: int, jobs: int) -> None:
    """Bring every cell that is not recorded to its end and record it at once; seed by seed, so that a table is whole early.

    Where a cell fails, the first error is raised once the others have ended.
    """
    recorded = {(row["label"], row["seed"]) for row in read_rows(RESULTS / f"{name}.csv") if is_current(row, cells)}
    runs = [(cell, seed) for seed in range(seeds) for cell in cells if (cell.label, str(seed)) not in recorded]
    failed: list[Exception] = []
    with ThreadPoolExecutor(max_workers=jobs) as pool:
        for done in as_completed([pool.submit(record, *run) for run in runs]):
            try:
                replace_rows(RESULTS / f"{name}.csv", [done.result()], key=KEY)
            except Exception as error:  # the other cells go on and are recorded
                log.exception("a cell of %s failed", name)
                failed.append(error)
    if failed:
        raise failed[0]


def record(cell: Cell, seed: int) -> dict[str, str]:
    """Train (or continue, or just read) one run; its row for the CSV file."""
    results = finished_run(cell.recipe, overrides=[*cell.overrides, "--seed", str(seed)])
    test, validation = results["metrics"]["test"], results["metrics"]["validation"]
    leak = results["diagnostics"].get("leak_check")
    return {
        "label": cell.label,
        "recipe": cell.recipe,
        "overrides": " ".join(cell.overrides),
        "seed": str(seed),
        "dataset": results["dataset"],
        "protocol": results["protocol"],
        **{f"test_{name}": f"{test[name]:.6f}" for name in METRICS},
        "test_recall@20_se": f"{test['recall@20_se']:.6f}",
        "test_rows": f"{test['num_rows']:.0f}",
        "validation_recall@20": f"{validation['recall@20']:.6f}",
        "validation_recall@20_training_form": f"{leak['training_form']['recall@20']:.6f}" if leak else "",
        **run_columns(results),
    }


def is_current(row: dict[str, str], cells: Sequence[Cell]) -> bool:
    """Whether `row` is what its cell would give now."""
    cell = next((cell for cell in cells if cell.label == row["label"]), None)
    if cell is None:
        return False
    return row["config"] == parse_run_config(["--recipe", cell.recipe, *cell.overrides, "--seed", row["seed"]]).fingerprint[:12]


def render(cells: Sequence[Cell], rows: Sequence[dict[str, str]]) -> str:
    """Markdown: mean ± sd over seeds, the paper's figures below ours where it prints the cell; empty cells are left out."""
    names = (
        "validation recall@20",
        *(f"test {name}" for name in METRICS),
        "leak check",
        "parameters",
        "best epoch",
        "s/epoch",
        "seeds",
    )
    lines = [f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for cell in cells:
        runs = [row for row in rows if row["label"] == cell.label]
        if not runs:
            continue
        shown = [spread(runs, "validation_recall@20", 4), *(spread(runs, f"test_{name}", 4) for name in METRICS)]
        shown += [spread(runs, "validation_recall@20_training_form", 4), f"{int(runs[0]['num_parameters']):,}"]
        shown += [spread(runs, "best_epoch", 1), spread(runs, "train_seconds_per_epoch", 0), str(len(runs))]
        lines.append(f"| {cell.label} | {' | '.join(shown)} |")
        if cell.paper is not None:
            printed = dict(zip(PAPER_METRICS, cell.paper, strict=True))
            figures = [f"{printed[name]:.4f}" if name in printed else "–" for name in METRICS]
            lines.append(f"| *the paper* | – | {' | '.join(figures)} | – | – | – | – | – |")
    if not rows:
        return "No run is recorded yet."
    protocols = "; ".join(dict.fromkeys(row["protocol"] for row in rows))
    error = max(float(row["test_recall@20_se"]) for row in rows)
    note = "Leak check: validation recall@20 with x̂ as in training (see the second column for x̂ as served)."
    return "\n".join(
        [*lines, "", f"{protocols}. Standard error of one test recall@20: at most {error:.4f}. {note}", "", origin(rows)]
    )


if __name__ == "__main__":
    main()
