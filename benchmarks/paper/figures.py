"""The papers' figures as PNG beside the results, of what is recorded or finished on this machine.

A figure is drawn when all that belongs to it is there: one that another machine drew is never replaced by a part of it.
"""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.paper.cells import FEWER_ROWS, FIGURES_DATA, FIT_ABLATION_LABELS, TABLES, Cell, Paper
from benchmarks.paper.item_map import draw_item_map
from benchmarks.paper.rows import config_of
from benchmarks.paper.sweeps import SWEEPS, sweep_path
from benchmarks.paper.table import Rows, rows_by_label
from benchmarks.paper.times import MILLISECONDS, TIMES_FILE, Times
from benchmarks.readme import ROOT
from benchmarks.result_rows import read_rows
from benchmarks.trained_runs import mean
from trainer.report import read_run
from trainer.report_figures import RunRecord, reverse_process_figure, schedules_figure
from trainer.results import has_results

FEWER = f"trained on {FEWER_ROWS[FIGURES_DATA][0]} row"
FIGURES: dict[Paper, dict[str, str]] = {
    "t2diff": {
        "reverse_process": "Fig. 4: cosine of z0 and its estimate along the reverse process",
        "schedules": "Fig. 5: noise schedules",
    },
    "fit": {
        "ablations": "Fig. 4: test AUC of FIT and its ablations, " + FEWER,
        "techniques": "Fig. 5: validation AUC and query similarity (eq. 24) against optimizer steps, " + FEWER,
        "item_map": "Fig. 6: item embeddings and item meta vectors, t-SNE",
        "queries": "Fig. 7: test AUC and inference time against the number of meta queries, " + FEWER,
        "heads": "Fig. 8: test AUC against the number of heads, " + FEWER,
    },
}
"""Paper -> name of a figure's file, behind `<paper>_<data set>_` -> its title."""
FROM_FEWER_ROWS = ("ablations", "techniques", "queries", "heads")
"""Figures of models that were trained on FIGURES_DATA."""
DIFFUSING = ("T2Diff", "T2Diff without drift (W/O DP)", "T2Diff, Algorithms 1 and 2")
"""What T2Diff's figures show, the run whose schedule is drawn first."""
TECHNIQUES = ("FIT", "FIT, hard query only", "FIT, soft query without temperature", "FIT w/o self-attention")


def draw(paper: Paper, results: Path, *, redraw: bool = True) -> str:
    """Draw what can be drawn into the folder `results`; Markdown with every figure that lies there, in the papers' order.

    Args:
        paper: whose figures.
        results: folder of the results files and of the figures.
        redraw: False leaves the figures as they are.
    """
    if redraw:
        for name, figure in (_t2diff_figures() if paper == "t2diff" else _fit_figures(results)).items():
            figure.savefig(_path(paper, name, results), dpi=120)
            pyplot.close(figure)
    there = {name: title for name, title in FIGURES[paper].items() if _path(paper, name, results).exists()}
    images = [f"![{title}]({_link(_path(paper, name, results))})" for name, title in there.items()]
    missing = [title.split(":")[0] for name, title in FIGURES[paper].items() if name not in there]
    return "\n\n".join([*images, *([f"Not drawn yet: {', '.join(missing)}."] if missing else [])])


def _path(paper: Paper, name: str, results: Path) -> Path:
    return results / f"{paper}_{FIGURES_DATA if name in FROM_FEWER_ROWS else 'ml1m'}_{name}.png"


def _link(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def finished(cells: Sequence[Cell]) -> dict[str, RunRecord]:
    """Label -> the record of seed 0, of cells whose run is on this machine."""
    folders = {cell.label: ROOT / config_of(cell, seed=0).run_dir for cell in cells if cell.role != "counted"}
    return {label: read_run(folder) for label, folder in folders.items() if folder.exists() and has_results(folder)}


def _t2diff_figures() -> dict[str, Figure]:
    runs = finished(TABLES["t2diff", "ml1m"].cells)
    followed = [(label, runs[label]) for label in DIFFUSING if label in runs]
    if len(followed) < len(DIFFUSING):
        return {}
    return {"reverse_process": reverse_process_figure(followed), "schedules": schedules_figure(followed[0][1])}


def _fit_figures(results: Path) -> dict[str, Figure]:
    cells = TABLES["fit", FIGURES_DATA].of_budget("paper")
    rows = rows_by_label(cells, read_rows(results / f"fit_{FIGURES_DATA}.csv"))
    runs, shown = finished(cells), ("FIT", *(label for label, _ in FIT_ABLATION_LABELS.values()))
    figures: dict[str, Figure | None] = {
        "ablations": ablation_figure({label: rows[label] for label in shown}) if rows.keys() >= set(shown) else None,
        "techniques": technique_figure([(label, runs[label]) for label in TECHNIQUES]) if runs.keys() >= set(TECHNIQUES) else None,
        "queries": _queries_figure(results),
        "heads": None if (heads := _swept("heads", results)) is None else draw_heads(heads),
    }
    every_row = [cell for cell in TABLES["fit", "ml1m"].of_budget("paper") if cell.label == "FIT"]
    if finished(every_row):
        figures["item_map"] = draw_item_map(config_of(every_row[0], seed=0))
    return {name: figure for name, figure in figures.items() if figure is not None}


def ablation_figure(rows: Rows) -> Figure:
    """FIT Fig. 4: a bar for each, the mean, and a dot for each seed."""
    figure, axes = pyplot.subplots(figsize=(6.4, 3.6), layout="constrained")
    axes.barh(
        list(rows), [mean(runs, "test_auc") for runs in rows.values()], color=["C3" if one == "FIT" else "C0" for one in rows]
    )
    seeds = [(float(row["test_auc"]), label) for label, runs in rows.items() for row in runs]
    values = [value for value, _ in seeds]
    axes.plot(*zip(*seeds, strict=True), "k.")
    axes.invert_yaxis()
    margin = 0.2 * (max(values) - min(values)) + 1e-4
    axes.set(xlabel="test AUC (FIT Fig. 4)", xlim=(min(values) - margin, max(values) + margin))
    axes.grid(visible=True, axis="x", alpha=0.3)
    return figure


def technique_figure(runs: Sequence[tuple[str, RunRecord]]) -> Figure:
    """FIT Fig. 5: validation AUC, and the similarity of soft and hard queries in training, against steps."""
    figure, both = pyplot.subplots(1, 2, figsize=(9.6, 3.6), layout="constrained")
    curves = (("validation", "auc", "validation AUC (FIT Fig. 5)"), ("train", "query_similarity", "QS (FIT eq. 24)"))
    for axes, (split, name, title) in zip(both, curves, strict=True):
        for label, run in runs:
            points = [(row["step"], row[name]) for row in run.rows if row["split"] == split and row.get(name) is not None]
            if points:
                axes.plot(*zip(*points, strict=True), label=label)
        axes.set(xlabel="optimizer step", ylabel=title)
        axes.locator_params(axis="x", nbins=6)
        axes.grid(visible=True, alpha=0.3)
        axes.legend(fontsize="x-small")
    return figure


def _swept(name: str, results: Path) -> Rows | None:
    """Rows of one of FIT's sweeps; None where a cell has none."""
    table = SWEEPS["fit", FIGURES_DATA][name]
    rows = rows_by_label(table.cells, read_rows(sweep_path(results, "fit", FIGURES_DATA, name)))
    return rows if len(rows) == len(table.cells) else None


def _queries_figure(results: Path) -> Figure | None:
    cells, times = SWEEPS["fit", FIGURES_DATA]["queries"].cells, Times(read_rows(results / TIMES_FILE.name))
    rows = _swept("queries", results)
    for machine in times.machines(cells):
        measured = [times.of(cell, machine) for cell in cells]
        if rows is not None and all(measured):
            return draw_queries(rows, [float(row[MILLISECONDS]) for row in measured], timed_on=machine.kind)
    return None


def draw_queries(rows: Rows, milliseconds: Sequence[float], *, timed_on: str) -> Figure:
    """FIT Fig. 7: test AUC, and inference time of a sample, against the number of meta queries."""
    figure, axes = pyplot.subplots(figsize=(6.4, 3.6), layout="constrained")
    numbers = [int(label.rsplit(" ", 1)[1]) for label in rows]
    _line(axes, dict(zip(numbers, rows.values(), strict=True)), color="C0")
    axes.set(xlabel="number of meta queries N (FIT Fig. 7)", ylabel="test AUC")
    times = axes.twinx()
    times.plot(numbers, milliseconds, "s--", color="C1")
    times.set(ylabel=f"inference on a {timed_on}, ms per sample (dashed)")
    axes.grid(visible=True, alpha=0.3)
    return figure


def _line(axes: Axes, runs: dict[int, list[dict[str, str]]], *, color: str, label: str | None = None) -> None:
    """Mean test AUC over a number, on a logarithmic scale whose ticks are the numbers, and a dot for each seed."""
    axes.plot(list(runs), [mean(own, "test_auc") for own in runs.values()], "-", color=color, label=label)
    seeds = [(number, float(row["test_auc"])) for number, own in runs.items() for row in own]
    axes.plot(*zip(*seeds, strict=True), ".", color=color)
    axes.set(xscale="log")
    axes.minorticks_off()
    axes.set_xticks(list(runs), [str(number) for number in runs])


def draw_heads(rows: Rows) -> Figure:
    """FIT Fig. 8."""
    figure, axes = pyplot.subplots(figsize=(6.4, 3.6), layout="constrained")
    for place, scorer in enumerate(dict.fromkeys(label.split(",")[0] for label in rows)):
        own = {int(label.rsplit(" ", 1)[1]): runs for label, runs in rows.items() if label.split(",")[0] == scorer}
        _line(axes, own, color=f"C{place}", label=scorer)
    axes.set(xlabel="heads of users and of items (FIT Fig. 8)", ylabel="test AUC")
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize="x-small")
    return figure
