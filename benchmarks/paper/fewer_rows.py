"""FIT and what it is compared with against the amount of training data, as Markdown."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.paper.cells import TABLES, Cell, PaperTable
from benchmarks.paper.render import lead
from benchmarks.paper.table import Rows, rows_by_label
from benchmarks.result_rows import read_rows
from benchmarks.trained_runs import machine, mean, spread

SECTION = "fit_training_rows"
PROPOSED = "FIT"


class Column(NamedTuple):
    """What the paper's preset reaches on one data set."""

    table: PaperTable
    cells: dict[str, Cell]
    """By label."""
    rows: Rows
    differences: Sequence[dict[str, str]]

    def auc(self, label: str) -> str:
        """Test AUC, the best trained one in bold."""
        if label not in self.rows:
            return "–"
        trained = [one for one in self.rows if self.cells[one].role != "counted"]
        best = max(trained, key=lambda one: mean(self.rows[one], "test_auc"))
        shown = spread(self.rows[label], "test_auc", 4)
        return f"**{shown}**" if label == best else shown

    def lead(self, label: str) -> str:
        """FIT's AUC minus that of another model on the same test rows."""
        if label not in self.rows:
            return "–"
        pair = self.cells[PROPOSED], self.cells[label]
        found = lead(self.table, list(self.cells.values()), pair, self.rows, self.differences)
        return "–" if found is None else str(found)

    def seeds(self, label: str) -> int:
        """Number of runs."""
        return len(self.rows.get(label, ()))


def render_by_training_rows(results: Path) -> str:
    """Two tables, AUC and FIT's leads: a line for each model, a column for each data set where FIT and a baseline are recorded.

    Args:
        results: folder of fit_<dataset>.csv and significance_fit_<dataset>.csv.
    """
    columns = [column for column in _columns(results) if {PROPOSED, "Two-Tower"} <= set(column.rows)]
    if not columns:
        return "No run is recorded yet."
    labels = list(dict.fromkeys(label for column in columns for label in column.cells if label in column.rows))
    counted = {cell.label for column in columns for cell in column.cells.values() if cell.role == "counted"}
    others = [label for label in labels if label != PROPOSED and label not in counted]
    seeds = sorted({column.seeds(label) for column in columns for label in [PROPOSED, *others]} - {0})
    trained = [row for column in columns for label in [PROPOSED, *others] for row in column.rows.get(label, ())]
    return "\n\n".join(
        [
            _table("test AUC", columns, labels, Column.auc),
            _table(f"{PROPOSED} minus", columns, others, Column.lead),
            f"{' or '.join(str(number) for number in seeds)} seed(s); {trained[0]['test_rows']} test rows. {machine(trained)}",
        ]
    )


def _columns(results: Path) -> list[Column]:
    """Of FIT's tables, most training rows first."""
    columns = []
    for (paper, dataset), table in TABLES.items():
        if paper == "fit":
            cells = table.of_budget("paper")
            rows = rows_by_label(cells, read_rows(results / f"fit_{dataset}.csv"))
            differences = read_rows(results / f"significance_fit_{dataset}.csv")
            columns.append(Column(table, {cell.label: cell for cell in cells}, rows, differences))
    return columns


def _table(title: str, columns: Sequence[Column], labels: Sequence[str], shown: Callable[[Column, str], str]) -> str:
    lines = [f"| {title} | {' | '.join(column.table.training_rows for column in columns)} |", "|---" * (len(columns) + 1) + "|"]
    lines += [f"| {label} | {' | '.join(shown(column, label) for column in columns)} |" for label in labels]
    return "\n".join(lines)
