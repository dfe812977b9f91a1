"""FIT's lead over Two-Tower against the amount of training data, as Markdown."""

from collections.abc import Iterator
from pathlib import Path

from benchmarks.paper.cells import TABLES, PaperTable
from benchmarks.paper.render import lead
from benchmarks.paper.table import rows_by_label
from benchmarks.result_rows import read_rows
from benchmarks.trained_runs import origin, spread

SECTION = "fit_training_rows"
HEADER = (
    "training rows of a user",
    "popularity, test AUC",
    "Two-Tower, test AUC",
    "FIT, test AUC",
    "FIT − Two-Tower, same test rows",
    "best epochs",
    "seeds",
)


def render_by_training_rows(results: Path) -> str:
    """A row for each data set on which both models are recorded by the paper's preset.

    Args:
        results: folder of fit_<dataset>.csv and significance_fit_<dataset>.csv.
    """
    lines, shown = [f"| {' | '.join(HEADER)} |", "|---" * len(HEADER) + "|"], []
    for dataset, table in _tables():
        rows, differences = read_rows(results / f"fit_{dataset}.csv"), read_rows(results / f"significance_fit_{dataset}.csv")
        cells = [cell for cell in table.of_budget("paper") if cell.role == "counted" or cell.label in ("Two-Tower", "FIT")]
        found = rows_by_label(cells, rows)
        if len(found) == len(cells) == 3:
            counted, two_tower, fit = (found[cell.label] for cell in cells)
            ahead = lead(table, cells, cells[2], found, differences)
            values = [table.training_rows, *(spread(runs, "test_auc", 4) for runs in (counted, two_tower, fit))]
            values.append("–" if ahead is None else f"{ahead.value:+.4f} ± {ahead.standard_error:.4f}")
            epochs = f"{spread(two_tower, 'best_epoch', 0)}; {spread(fit, 'best_epoch', 0)}"
            lines.append(f"| {' | '.join([*values, epochs, str(min(len(two_tower), len(fit)))])} |")
            shown += [*two_tower, *fit]
    return "\n".join([*lines, "", origin(shown)]) if shown else "No run is recorded yet."


def _tables() -> Iterator[tuple[str, PaperTable]]:
    """FIT's tables, most training rows first."""
    return ((dataset, table) for (paper, dataset), table in TABLES.items() if paper == "fit")
