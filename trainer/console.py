"""What the first rank says: one aligned line per log interval, tables before and after."""

import io
import math
import sys

import torch
from rich.console import Console
from rich.table import Table

from kernels.dispatch import Backend, uses_triton

WIDTH_WITHOUT_TERMINAL = 140
MOST_COLUMNS = 10
"""Metrics beside each other in a table, at most."""
console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL)


def progress_line(*, step: int, total_steps: int, epoch: float, values: dict[str, float], eta_seconds: float) -> str:
    """One aligned line.

    Args:
        step: optimizer steps done.
        total_steps: optimizer steps at most.
        epoch: passes over the training rows, as a fraction.
        values: loss, learning_rate, rows_per_second, data_wait (share of time), and auc, auxiliary (further losses) and temperature
            where the model has them.
        eta_seconds: time left if every epoch is needed.
    """
    temperature = f"  τ {values['temperature']:5.3f}" if "temperature" in values else ""
    shown = "".join(f"  {name} {values[name]:.5f}" for name in ("loss", "auc", "auxiliary") if name in values)
    return (
        f"step {step:>{len(str(total_steps))}}/{total_steps}  epoch {epoch:6.2f}{shown}"
        f"  lr {values['learning_rate']:.2e}{temperature}  {values['rows_per_second']:>9,.0f} rows/s"
        f"  data wait {values['data_wait']:4.0%}  eta {duration(eta_seconds)}"
    )


def kernel_choice(backend: Backend, device: torch.device) -> str:
    """What computes the operators of kernels/ on this device; ValueError where the backend cannot run there."""
    computes = "Triton kernels" if uses_triton(backend, torch.empty(0, device=device)) else "plain torch"
    return f"{computes} (backend {backend})"


def evaluation_line(split: str, *, step: int, values: dict[str, float], note: str = "") -> str:
    """One line for an evaluation; `values` as BinaryMetrics or RankingMetrics computes them."""
    if "auc" in values:
        shown = f"auc {values['auc']:.5f} ± {values['auc_se']:.5f}  logloss {values['logloss']:.5f}"
    else:
        recall = f"recall@20 {values['recall@20']:.5f} ± {values['recall@20_se']:.5f}"
        shown = f"{recall}  ndcg@10 {values['ndcg@10']:.5f}  loss {values['loss']:.5f}"
    return f"{split:<12} step {step}  {shown}  rows {values['num_rows']:,.0f}{'  ' + note if note else ''}"


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
    """A row per name, a column per metric, the other way round where there are many; a metric that a row lacks is left blank."""
    metrics = list(dict.fromkeys(name for values in rows.values() for name in values))
    shown = {name: {metric: f"{value:,.5g}" for metric, value in values.items()} for name, values in rows.items()}
    if len(metrics) > MOST_COLUMNS:
        shown = {metric: {name: values.get(metric, "") for name, values in shown.items()} for metric in metrics}
    columns = list(rows) if len(metrics) > MOST_COLUMNS else metrics
    table = Table(title=title)
    table.add_column("")
    for column in columns:
        table.add_column(column, justify="right")
    for name, values in shown.items():
        table.add_row(name, *(values.get(column, "") for column in columns))
    return table


def as_text(table: Table) -> str:
    """A table as it would be printed, for a file."""
    page = Console(width=WIDTH_WITHOUT_TERMINAL, file=io.StringIO())
    with page.capture() as captured:
        page.print(table)
    return captured.get()
