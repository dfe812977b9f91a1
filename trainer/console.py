"""What the first rank says: one aligned line per log interval, tables before and after."""

import io
import math
import sys

from rich.console import Console
from rich.table import Table

WIDTH_WITHOUT_TERMINAL = 140
console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL)


def progress_line(*, step: int, total_steps: int, epoch: float, values: dict[str, float], eta_seconds: float) -> str:
    """One aligned line.

    Args:
        step: optimizer steps done.
        total_steps: optimizer steps at most.
        epoch: passes over the training rows, as a fraction.
        values: loss, auc, learning_rate, rows_per_second, data_wait (share of time), and temperature where the model has one.
        eta_seconds: time left if every epoch is needed.
    """
    temperature = f"  τ {values['temperature']:5.3f}" if "temperature" in values else ""
    return (
        f"step {step:>{len(str(total_steps))}}/{total_steps}  epoch {epoch:6.2f}"
        f"  loss {values['loss']:.5f}  auc {values['auc']:.5f}"
        f"  lr {values['learning_rate']:.2e}{temperature}  {values['rows_per_second']:>9,.0f} rows/s"
        f"  data wait {values['data_wait']:4.0%}  eta {duration(eta_seconds)}"
    )


def evaluation_line(split: str, *, step: int, values: dict[str, float], note: str = "") -> str:
    """One line for an evaluation; `values` as BinaryMetrics computes them."""
    shown = f"auc {values['auc']:.5f} ± {values['auc_se']:.5f}  logloss {values['logloss']:.5f}  rows {values['num_rows']:,.0f}"
    return f"{split:<12} step {step}  {shown}{'  ' + note if note else ''}"


def duration(seconds: float) -> str:
    """Seconds as 4s, 3m05s or 2h07m."""
    if not math.isfinite(seconds):
        return "?"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def metrics_table(title: str, rows: dict[str, dict[str, float]]) -> Table:
    """A row per name, a column per metric; a metric that a row lacks is left blank."""
    columns = list(dict.fromkeys(name for values in rows.values() for name in values))
    table = Table(title=title)
    table.add_column("")
    for column in columns:
        table.add_column(column, justify="right")
    for name, values in rows.items():
        table.add_row(name, *(f"{values[c]:,.5g}" if c in values else "" for c in columns))
    return table


def as_text(table: Table) -> str:
    """A table as it would be printed, for a file."""
    page = Console(width=WIDTH_WITHOUT_TERMINAL, file=io.StringIO())
    with page.capture() as captured:
        page.print(table)
    return captured.get()
