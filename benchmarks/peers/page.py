"""benchmarks/peers.md, of the rows that are recorded."""

import math
import statistics
from collections.abc import Sequence

from benchmarks.peers.programs import SETTINGS, THEIR_NAME, TIMED_EPOCHS
from benchmarks.trained_runs import machine, mean, spread
from trainer.paired_difference import SIGNIFICANT


def render(rows: Sequence[dict[str, str]], *, data: str) -> str:
    """The page: a line per model and program, mean ± sd over seeds.

    Args:
        rows: of the results file; those of other settings or other data are left out.
        data: first characters of the identity of the data.
    """
    current = [row for row in rows if (row["config"], row["data"]) == (SETTINGS, data)]
    lines = [
        "# Beside RecBole",
        "",
        "Made by `python -m benchmarks.peers`. MovieLens-100K (943 users, 1,682 items, 100,000 ratings), leave one out by time,",
        "the same rows for both programs: every rating after a user's first is a row with the newest 50 before it as its history;",
        "the last is the test row, the last but one the validation row. Full ranking, items of the history compete.",
        "",
        "| model | program | test HR@10 | test NDCG@10 | parameters | epochs | s/epoch | seeds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for model, program in dict.fromkeys((row["model"], row["program"]) for row in current):
        runs = [row for row in current if (row["model"], row["program"]) == (model, program)]
        shown = [spread(runs, "hr@10", 4), spread(runs, "ndcg@10", 4), f"{int(runs[0]['num_parameters']):,}"]
        shown += [spread(runs, "epochs", 0), spread(runs, "seconds_per_epoch", 1), str(len(runs))]
        lines.append(f"| {model} | {program} | {' | '.join(shown)} |")
    lines += ["", *(verdict(model, current) for model in dict.fromkeys(row["model"] for row in current))]
    timed = f"s/epoch: the mean of {TIMED_EPOCHS} epochs, the programs one after another (`--times`)."
    lines += ["", f"Both: softmax over all items, {SETTINGS} (on validation NDCG@10). {timed} {machine(current)}"]
    return "\n".join(lines) + "\n"


def verdict(model: str, rows: Sequence[dict[str, str]]) -> str:
    """Whether the two programs' HR@10 differ by more than the test rows and, from two seeds on, the seeds explain."""
    ours, theirs = ([row for row in rows if (row["model"], row["program"]) == (model, name)] for name in ("CrossTower", THEIR_NAME))
    if not ours or not theirs:
        return f"- {model}: one program alone is recorded."
    difference = mean(ours, "hr@10") - mean(theirs, "hr@10")
    error = math.sqrt(sum(_variance(runs) for runs in (ours, theirs)))
    decided = "ours is ahead" if difference > 0 else "RecBole's is ahead"
    words = decided if abs(difference) > SIGNIFICANT * error else "nothing is decided"
    return f"- {model}: {words} (HR@10 {difference:+.4f} ± {error:.4f}, standard error of unpaired rows and of seeds)."


def _variance(runs: Sequence[dict[str, str]]) -> float:
    """Of a mean over seeds, which share their test rows."""
    values, rate = [float(row["hr@10"]) for row in runs], mean(runs, "hr@10")
    of_rows = rate * (1 - rate) / float(runs[0]["test_rows"])
    return of_rows + (statistics.variance(values) / len(values) if len(values) > 1 else 0.0)
