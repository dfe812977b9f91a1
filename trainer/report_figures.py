"""Figures of report.html that come from a run's configuration and diagnostics: T2Diff's Figs. 4 and 5."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

import matplotlib

from models.layers.diffusion import ScheduleConfig, ScheduleKind

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.figure import Figure


class RunRecord(NamedTuple):
    """What a run's folder holds."""

    folder: Path
    config: dict[str, Any]
    results: dict[str, Any]
    rows: list[dict[str, Any]]

    @property
    def title(self) -> str:
        """Recipe and seed."""
        return f"{self.results['recipe']} (seed {self.results['seed']})"


def diffusion_figures(runs: list[RunRecord]) -> list[str]:
    """SVGs of the reverse processes that the runs followed, and of the first diffusion model's schedule; none without diffusion."""
    diffusing = [run for run in runs if run.results.get("diagnostics")]
    followed = [run for run in diffusing if run.results["diagnostics"].get("reverse_process")]
    figures = [reverse_process_figure([(run.title, run) for run in followed])] if followed else []
    return [as_svg(figure) for figure in [*figures, *(schedules_figure(run) for run in diffusing[:1])]]


def reverse_process_figure(runs: Sequence[tuple[str, RunRecord]]) -> Figure:
    """Fig. 4: how ẑ0 nears z0 from step T to step 1; the band holds 80 % of the rows.

    Args:
        runs: a name for the legend and the record, of each run.
    """
    figure, axes = pyplot.subplots(figsize=(6.4, 3.4), layout="constrained")
    for index, (name, run) in enumerate(runs):
        found = run.results["diagnostics"]["reverse_process"]
        axes.plot(found["step"], found["mean"], color=f"C{index}", label=name)
        axes.fill_between(found["step"], found["p10"], found["p90"], color=f"C{index}", alpha=0.15, linewidth=0)
    axes.invert_xaxis()
    axes.set(xlabel="step of the reverse process", ylabel="cosine of z0 and ẑ0 (T2Diff Fig. 4)")
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize="x-small")
    return figure


def schedules_figure(run: RunRecord) -> Figure:
    """Fig. 5: the run's noise schedule, drawn through, beside those of the other kinds that have as many steps and derive their
    endpoints (see ScheduleConfig).
    """
    used = ScheduleConfig(**run.config["model"]["diffusion"]["schedule"])
    figure, (beta_axes, signal_axes) = pyplot.subplots(1, 2, figsize=(6.4, 3.4), layout="constrained")
    steps = range(1, used.num_steps + 1)
    for index, kind in enumerate(get_args(ScheduleKind)):
        betas = (used if kind == used.kind else ScheduleConfig(kind=kind, num_steps=used.num_steps)).betas()
        line = "-" if kind == used.kind else "--"
        beta_axes.plot(steps, betas, line, color=f"C{index}", label=kind)
        signal_axes.plot(steps, (1 - betas).cumprod(0), line, color=f"C{index}", label=kind)
    beta_axes.set(xlabel="step r", ylabel="β_r (T2Diff Fig. 5)")
    signal_axes.set(xlabel="step r", ylabel="ᾱ_r")
    beta_axes.legend(fontsize="x-small")
    return figure


def as_svg(figure: Figure) -> str:
    """The figure as an <svg> element; closes it."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    pyplot.close(figure)
    svg = buffer.getvalue()
    return svg[svg.index("<svg") :]
