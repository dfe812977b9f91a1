"""A paper's table as Markdown: ours beside the paper's, and who is ahead of whom."""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from benchmarks.paper.cells import Budget, Cell, PaperTable
from benchmarks.paper.rows import cell_of, column_unseen, config_of
from benchmarks.paper.table import Rows, best_baseline, difference_of, pairs_of, rows_by_label
from benchmarks.paper.times import MILLISECONDS, NO_TIMES, SECONDS, Machine, Times, shown_time
from benchmarks.trained_runs import mean, origin, spread
from trainer.metrics import rela_impr
from trainer.paired_difference import SIGNIFICANT, Difference

TITLES: dict[Budget, str] = {
    "tuned": "**Tuned**: the same data, loss, width, optimizer and training budget for every model",
    "paper": "**The papers' presets**: each model's own size, regularisation, learning rate and largest number of epochs",
    "sharded": "**Tables sharded over two ranks**, RowWiseAdagrad fused into the backward pass",
}
MEASURED = (
    "s/epoch and ms/sample are measured with nothing else running on {}, and repeat to 20 %; a sample is one of 512 in a batch, "
    "from ids to scores (FIT) or from embeddings to user vectors (T2Diff). The papers' milliseconds are of their own machines and "
    "may count more."
)
NAMES = {"auc": "AUC", "popularity_auc": "AUC, popular negatives"}
SMALLER_IS_BETTER = ("logloss",)


def render(
    table: PaperTable, rows: Sequence[dict[str, str]], differences: Sequence[dict[str, str]], times: Times = NO_TIMES
) -> str:
    """Markdown of all budgets that have a trained row; a cell without runs is left out.

    Args:
        table: what stands where.
        rows: of the results file; older configurations are left out and counted.
        differences: of the file of pairs.
        times: of the cells, on any machine.
    """
    parts, shown = [], []
    for budget, title in TITLES.items():
        cells = table.of_budget(budget)
        found = rows_by_label(cells, rows)
        if any(cell.label in found for cell in cells if cell.role != "counted"):
            lines = _budget_table(table, cells, found, differences, times=times)
            words = "" if budget == "paper" else _budget_words(cells)
            parts += [f"{title}{words}.", lines, verdict(table, cells, found, differences)]
            shown += [row for runs in found.values() for row in runs if row not in shown]
    if not parts:
        return "No run is recorded yet."
    parts += ["*In italics: what the paper prints.* " + _notes(table, shown, timed_on=times.described(table.cells)), origin(shown)]
    if left_out := len([row for row in rows if row not in shown]):
        parts.append(f"{left_out} older row(s) of the results file, of other configurations or ranks, are left out.")
    return "\n\n".join(parts)


def _budget_words(cells: Sequence[Cell]) -> str:
    """The budget that all cells have."""
    run = config_of(next(cell for cell in cells if cell.role != "counted"), seed=0)
    loop, optimizer = run.loop, run.optimizer
    return f": at most {loop.max_epochs} epochs, learning rate {optimizer.learning_rate:g} ({optimizer.schedule})"


def _budget_table(
    table: PaperTable, cells: Sequence[Cell], rows: Rows, differences: Sequence[dict[str, str]], *, times: Times
) -> str:
    machines = times.machines(table.cells)
    relative, headline = ["RelaImpr"] if table.base else [], NAMES.get(table.headline, table.headline)
    proposed = next((cell for cell in cells if cell.role == "proposed" and cell.label in rows), None)
    names = [f"test {NAMES.get(name, name)}" for name in table.metrics]
    names += ([] if table.unseen is None else [f"test {table.unseen}, seen items left out"]) + relative
    names += [
        f"− best baseline, {headline}",
        *([] if proposed is None else [f"{proposed.label} − it, {headline}"]),
        "parameters",
        "best epoch",
        *(f"{unit}, {machine.kind}" for machine in machines for unit in ("s/epoch", "ms/sample")),
        "seeds",
    ]
    lines = [f"| model | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    base = next((cell for cell in cells if cell.label == table.base), None)
    for cell in cells:
        if cell.label in rows:
            runs = rows[cell.label]
            values = [_beside(spread(runs, f"test_{name}", 4), cell.paper.get(name), 4) for name in table.metrics]
            if table.unseen:
                values.append(spread(runs, column_unseen(table.unseen), 4))
            if table.base:
                values.append(_improvement(table, cell, base, rows))
            values.append(_lead(table, cells, cell, rows, differences))
            if proposed is not None:
                found = lead(table, cells, (proposed, cell), rows, differences)
                values.append("–" if found is None else str(found))
            values += _costs(cell, runs, times=times, machines=machines)
            lines.append(f"| {cell.label} | {' | '.join(values)} |")
    return "\n".join(lines)


def _costs(cell: Cell, runs: Sequence[dict[str, str]], *, times: Times, machines: Sequence[Machine]) -> list[str]:
    """Parameters, epochs, on each machine seconds of an epoch and milliseconds of a sample, number of seeds."""
    millions = cell.paper.get("parameters")
    costs = [f"{int(runs[0]['num_parameters']):,}" + ("" if millions is None else f" *{millions}M*")]
    if cell.role == "counted":
        return [*costs, *["–"] * (2 + 2 * len(machines))]
    costs.append(spread(runs, "best_epoch", 1))
    for machine in machines:
        measured = times.of(cell, machine)
        milliseconds = shown_time(measured, MILLISECONDS)
        if machine == machines[-1]:  # the papers' machines are GPUs, so theirs stands beside ours where there is one
            milliseconds = _beside(milliseconds, cell.paper.get("ms"), 2)
        costs += [shown_time(measured, SECONDS), milliseconds]
    return [*costs, str(len(runs))]


def _beside(ours: str, printed: float | None, digits: int) -> str:
    return ours if printed is None else f"{ours} *{printed:.{digits}f}*"


def _improvement(table: PaperTable, cell: Cell, base: Cell | None, rows: Rows) -> str:
    """FIT eq. 22, ours beside what follows from the paper's figures."""
    if base is None or base.label not in rows:
        return "–"
    ours = rela_impr(mean(rows[cell.label], f"test_{table.headline}"), mean(rows[base.label], f"test_{table.headline}"))
    printed, printed_base = cell.paper.get(table.headline), base.paper.get(table.headline)
    if printed is None or printed_base is None:
        return f"{ours:+.2%}"
    return f"{ours:+.2%} *{rela_impr(printed, printed_base):+.2%}*"


class Lead(NamedTuple):
    """How far a cell is ahead of another one on the same test rows."""

    difference: Difference
    """Mean over seeds; its error is that of rows and, where a cell has two seeds, of seeds."""
    seeds: int
    """Those that both cells have and that were compared."""
    all_seeds: int
    """The most that one of the two has."""

    @property
    def is_of_rows_alone(self) -> bool:
        """Whether nothing is known of how seeds differ."""
        return self.all_seeds == 1

    def __str__(self) -> str:
        shown = f"{self.difference.value:+.4f} ± {self.difference.standard_error:.4f}"
        return shown if self.seeds == self.all_seeds else f"{shown} ({self.seeds} of {self.all_seeds} seeds)"


def lead(
    table: PaperTable, cells: Sequence[Cell], pair: tuple[Cell, Cell], rows: Rows, differences: Sequence[dict[str, str]]
) -> Lead | None:
    """Headline of a pair's first cell minus that of its second; None where no difference is recorded.

    Seeds share the test rows, so the mean over seeds keeps (about) one seed's error of rows; how seeds differ adds to it. Where one
    seed was compared, that is how the seeds of the cells that have more differ, which is the least it can be.
    """
    pairs = [one for one in pairs_of(table, cells, rows) if one[:2] == pair]
    found = [row for one in pairs if (row := difference_of(one, differences))]
    if not found:
        return None
    values = [float(row["difference"]) for row in found]
    if len(values) > 1:
        of_seeds = statistics.variance(values) / len(values)
    else:
        reached = [[float(row[f"test_{table.headline}"]) for row in rows[cell.label]] for cell in pair]
        of_seeds = sum(statistics.variance(of_cell) for of_cell in reached if len(of_cell) > 1)
    error = math.sqrt(mean(found, "standard_error") ** 2 + of_seeds)
    return Lead(Difference(statistics.fmean(values), error), len(found), max(len(rows[cell.label]) for cell in pair))


def _lead(table: PaperTable, cells: Sequence[Cell], cell: Cell, rows: Rows, differences: Sequence[dict[str, str]]) -> str:
    best = best_baseline(table, cells, rows)
    if cell is best:
        return "best baseline"
    found = None if best is None else lead(table, cells, (cell, best), rows, differences)
    return "–" if found is None else str(found)


def verdict(table: PaperTable, cells: Sequence[Cell], rows: Rows, differences: Sequence[dict[str, str]]) -> str:
    """Who wins where, in words."""
    trained = [cell for cell in cells if cell.label in rows and cell.role != "counted"]
    if len(trained) < 2:
        return f"Only {trained[0].label} is trained yet."
    firsts: dict[str, list[str]] = {}
    for name in table.metrics:
        sign = -1 if name in SMALLER_IS_BETTER else 1
        scored = [(sign * mean(rows[cell.label], f"test_{name}"), cell.label) for cell in trained]
        best = max((pair for pair in scored if not math.isnan(pair[0])), default=None)
        if best is not None:
            firsts.setdefault(best[1], []).append(NAMES.get(name, name))
    ahead = [f"**{label}** in {', '.join(names)}" for label, names in firsts.items()]
    sentences = [f"Best means: {'; '.join(ahead)}."]
    baseline = best_baseline(table, cells, rows)
    for cell in trained:
        if cell.role == "proposed" and baseline is not None:
            found = lead(table, cells, (cell, baseline), rows, differences)
            sentences.append(_against(cell, baseline, found, NAMES.get(table.headline, table.headline)))
    return " ".join(sentences)


def _against(cell: Cell, baseline: Cell, found: Lead | None, metric: str) -> str:
    if found is None:
        return f"{cell.label} and the best baseline, {baseline.label}, are not compared row by row yet."
    of_rows = ", of rows alone: one seed" if found.is_of_rows_alone else ""
    value, z = found.difference.value, abs(found.difference.z)
    figures = f"{value:+.4f} {metric}, {z:.1f} standard errors{of_rows}"
    if z < SIGNIFICANT:
        return f"Between {cell.label} and the best baseline, {baseline.label}, nothing is decided ({figures})."
    return f"{cell.label} is {'ahead of' if value > 0 else 'behind'} the best baseline, {baseline.label} ({figures})."


def _mixed_data(table: PaperTable, rows: Sequence[dict[str, str]]) -> list[str]:
    """A warning for each folder of data that the rows' runs found different data in."""
    found: dict[str, set[str]] = {}
    counted_in = config_of(next(cell for cell in table.cells if cell.role != "counted"), seed=0).data
    for row in rows:
        cell = cell_of(row, table.cells)
        if cell is not None and cell.role != "counted" and row.get("data"):
            found.setdefault(str(config_of(cell, seed=int(row["seed"])).data), set()).add(row["data"])
        elif cell is not None and cell.role == "counted":  # `config` is the identity of the data that was counted
            found.setdefault(str(counted_in), set()).add(row["config"])
    return [
        f"**Not comparable: rows of {folder} come from different preparations of it ({', '.join(sorted(identities))}).**"
        for folder, identities in found.items()
        if len(identities) > 1
    ]


def _notes(table: PaperTable, rows: Sequence[dict[str, str]], *, timed_on: str) -> str:
    error = max(float(row.get(f"test_{table.headline}_se") or 0) for row in rows)
    notes = ["± over seeds is the standard deviation.", *_mixed_data(table, rows)]
    if error:
        notes.append(f"The standard error of one test {NAMES.get(table.headline, table.headline)} is up to {error:.4f}.")
    notes += [
        "The best baseline is the one with the best mean on the test rows, which favours baselines; differences from it are on the "
        "same test rows, mean over seeds ± its standard error, of rows (paired, `benchmarks.paper.significance`) and of seeds.",
        *([] if table.unseen is None else ["Seen items: all that the user touched before, as in most published full rankings."]),
        *([MEASURED.format(timed_on)] if timed_on else []),
        *([table.note] if table.note else []),
        *(f"{protocol}." for protocol in dict.fromkeys(row["protocol"] for row in rows if row.get("protocol"))),
    ]
    return " ".join(notes)
