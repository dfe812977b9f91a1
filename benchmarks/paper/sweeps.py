"""Comparisons within a paper's model: FIT's Figs. 7 and 8, T2Diff's Tables 3 and 4, its tower conditions, its authors' protocol.

Their rows are in benchmarks/results/<paper>_<dataset>_<sweep>.csv. FIT's are drawn (see figures.py), T2Diff's are README's tables.
"""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.paper.cells import (
    ALGORITHMS_1_AND_2,
    FEWER_ROWS,
    FIGURES_DATA,
    T2DIFF_TABLE_2,
    THREE_EPOCHS,
    Cell,
    Dataset,
    Paper,
    PaperTable,
)
from benchmarks.paper.rows import column_training_form
from benchmarks.paper.table import rows_by_label
from benchmarks.paper.times import NO_TIMES, SECONDS, Times, shown_time
from benchmarks.trained_runs import MATCHING_METRICS, origin, spread

HEADS = ("--model.num-user-heads", "--model.num-item-heads")
CONDITION, SAMPLE_STEPS = "--model.diffusion.tower-condition", "--model.diffusion.num-sample-steps"
SCHEDULE, STEPS = "--model.diffusion.schedule.kind", "--model.diffusion.schedule.num-steps"
# the schedule and its length say nothing to a single step from noise, so what compares them takes two
SAMPLED = (*THREE_EPOCHS, CONDITION, "sampled", SAMPLE_STEPS, "2")
HIGH_NOISE = (*THREE_EPOCHS, CONDITION, "high_noise", SAMPLE_STEPS, "1")
T2DIFF, MIXED_ATTENTION = T2DIFF_TABLE_2["t2diff"], T2DIFF_TABLE_2["mixed_attention"]


def _fit(*, label: str, flags: tuple[str, ...], values: tuple[int, ...], own: tuple[str, ...] = ()) -> list[Cell]:
    _, words = FEWER_ROWS[FIGURES_DATA]
    return [
        Cell(
            label=f"{label} {value}",
            recipe="fit_ml1m_paper",
            overrides=(*words, *own, *(word for flag in flags for word in (flag, str(value)))),
            role="ablation",
            budget="paper",
        )
        for value in values
    ]


def _t2diff(
    label: str, recipe: str = "t2diff_ml1m", overrides: tuple[str, ...] = (), printed: dict[str, float] | None = None
) -> Cell:
    return Cell(label=label, recipe=recipe, overrides=overrides, role="ablation", paper=printed or {})


def _of_fit(*cells: Cell) -> PaperTable:
    return PaperTable(cells=cells, metrics=("auc", "logloss"), headline="auc")


def _of_t2diff(*cells: Cell) -> PaperTable:
    return PaperTable(cells=cells, metrics=MATCHING_METRICS, headline="recall@20")


def _printed(recall_2: float, recall_20: float, mrr_2: float, mrr_20: float) -> dict[str, float]:
    return {"recall@2": recall_2, "recall@20": recall_20, "mrr@2": mrr_2, "mrr@20": mrr_20}


SWEEPS: dict[tuple[Paper, Dataset], dict[str, PaperTable]] = {
    ("fit", FIGURES_DATA): {
        "queries": _of_fit(*_fit(label="N =", flags=("--model.meta-query.num-queries",), values=(16, 32, 64, 128, 256, 512))),
        "heads": _of_fit(
            *_fit(label="LSS, heads:", flags=HEADS, values=(1, 2, 4, 8)),
            *_fit(label="SumMax, heads:", flags=HEADS, values=(1, 2, 4, 8), own=("--model.scorer", "sum_max")),
        ),
    },
    ("t2diff", "ml1m"): {
        "conditions": _of_t2diff(
            _t2diff("T2Diff, `sampled`: tower learns from 2 reverse steps, served with 2", overrides=SAMPLED),
            _t2diff("T2Diff, `onestep`: Algorithm 1, served with Algorithm 2 (T = 50)", overrides=ALGORITHMS_1_AND_2),
            _t2diff("T2Diff, `high_noise`: 1 step from noise, served with 1", overrides=HIGH_NOISE),
            _t2diff("T2Diff without drift (W/O DP), `sampled`", "t2diff_no_drift_ml1m", SAMPLED),
            _t2diff("T2Diff without drift (W/O DP), `high_noise`", "t2diff_no_drift_ml1m", HIGH_NOISE),
            _t2diff("Mixed-attention", "mixed_attention_ml1m", THREE_EPOCHS),
        ),
        "windows": _of_t2diff(
            _t2diff("T2Diff, width 32", "t2diff_ml1m_windows", printed=T2DIFF),
            _t2diff("Mixed-attention, width 32", "mixed_attention_ml1m_windows", printed=MIXED_ATTENTION),
            _t2diff("T2Diff, the authors' constants, width 4", "t2diff_ml1m_authors", printed=T2DIFF),
            _t2diff("Mixed-attention, the authors' constants, width 4", "mixed_attention_ml1m_authors", printed=MIXED_ATTENTION),
        ),
        "schedules": _of_t2diff(
            _t2diff("exponential", overrides=SAMPLED, printed=T2DIFF),
            _t2diff("linear", overrides=(*SAMPLED, SCHEDULE, "linear"), printed=_printed(0.07686, 0.27519, 0.05950, 0.08677)),
            _t2diff("logarithmic", overrides=(*SAMPLED, SCHEDULE, "log"), printed=_printed(0.07256, 0.25151, 0.05767, 0.08137)),
        ),
        "steps": _of_t2diff(
            _t2diff(
                "T = 10, `sampled`, served with 2 steps",
                overrides=(*SAMPLED, STEPS, "10"),
                printed=_printed(0.0769, 0.2724, 0.0592, 0.0852),
            ),
            _t2diff("T = 50, `sampled`, served with 2 steps", overrides=SAMPLED, printed=T2DIFF),
            _t2diff(
                "T = 200, `sampled`, served with 2 steps",
                overrides=(*SAMPLED, STEPS, "200"),
                printed=_printed(0.0771, 0.2715, 0.0623, 0.0885),
            ),
        ),
    },
}
"""Paper and data set -> sweep -> its cells. FIT: queries (Fig. 7), heads (Fig. 8: as many of users as of items). T2Diff: schedules
(Table 3), steps (Table 4), tower conditions of our default, and the protocol of the paper's authors."""


def sweep_path(results: Path, paper: Paper, dataset: Dataset, sweep: str) -> Path:
    """Results file of a sweep."""
    return results / f"{paper}_{dataset}_{sweep}.csv"


def render_sweep(table: PaperTable, rows: Sequence[dict[str, str]], times: Times = NO_TIMES) -> str:
    """Markdown of a sweep of T2Diff: mean ± sd over seeds, the paper's figures below ours where it prints the cell.

    Older configurations and cells without runs are left out.
    """
    validation, found = f"validation_{table.headline}", rows_by_label(table.cells, rows)
    names = [f"validation {table.headline}", *(f"test {name}" for name in table.metrics)]
    machines = times.machines(table.cells)
    names += ["leak check", "parameters", "epochs", "best epoch", *(f"s/epoch, {machine.kind}" for machine in machines), "seeds"]
    lines = [f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for cell in table.cells:
        if cell.label not in found:
            continue
        runs = found[cell.label]
        shown = [spread(runs, validation, 4), *(spread(runs, f"test_{name}", 4) for name in table.metrics)]
        shown += [spread(runs, column_training_form(table.headline), 4), f"{int(runs[0]['num_parameters']):,}"]
        seconds = [shown_time(times.of(cell, machine), SECONDS) for machine in machines]
        shown += [spread(runs, "epochs", 0), spread(runs, "best_epoch", 1), *seconds, str(len(runs))]
        lines.append(f"| {cell.label} | {' | '.join(shown)} |")
        if cell.paper:
            figures = [f"{cell.paper[name]:.4f}" if name in cell.paper else "–" for name in table.metrics]
            lines.append(f"| *the paper* | – | {' | '.join([*figures, *['–'] * (5 + len(machines))])} |")
    current = [row for runs in found.values() for row in runs]
    if not current:
        return "No run is recorded yet."
    protocols = "; ".join(dict.fromkeys(row["protocol"] for row in current))
    error = max(float(row[f"test_{table.headline}_se"]) for row in current)
    note = f"Leak check: validation {table.headline} with x̂ as in training (see the second column for x̂ as served)."
    notes = f"{protocols}. Standard error of one test {table.headline}: at most {error:.4f}. {note}"
    timed = f" Timed on {times.described(table.cells)}." if machines else ""
    return "\n".join([*lines, "", notes + timed, "", origin(current)])
