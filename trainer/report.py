"""report.html: the curves and tables of one run, or of several side by side, in one self-contained file."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader
from matplotlib import pyplot

from trainer.report_figures import RunRecord, as_svg, diffusion_figures
from trainer.results import read_results
from trainer.run_log import read_rows

TEMPLATES = Path(__file__).parent / "report_templates"
CURVES = (
    ("auc", "AUC", ("train", "validation")),
    ("recall@20", "Recall@20, full ranking", ("validation",)),
    ("ndcg@10", "NDCG@10, full ranking", ("validation",)),
    ("logloss", "logloss", ("validation",)),
    ("loss", "loss", ("train", "validation")),
    ("auxiliary", "further losses (T2Diff: λ · L_KL, DAT: mimic and alignment)", ("train",)),
    ("drift_scale", "running scale of the drifts (T2Diff)", ("train",)),
    ("temperature", "softmax temperature τ (FIT eq. 23)", ("train",)),
    ("query_similarity", "query similarity QS (FIT eq. 24)", ("train",)),
    ("learning_rate", "learning rate", ("train",)),
    ("rows_per_second", "training rows per second", ("train",)),
)
COLUMNS = (
    ("auc", "AUC"),
    ("auc_se", "± se"),
    ("logloss", "logloss"),
    ("recall@2", "Recall@2"),
    ("recall@10", "Recall@10"),
    ("recall@20", "Recall@20"),
    ("recall@20_se", "± se"),
    ("mrr@20", "MRR@20"),
    ("ndcg@10", "NDCG@10"),
)
REFERENCES = (
    (
        "the best that any model can reach",
        "--",
        {"auc": "bayes_auc", "logloss": "bayes_logloss", "recall@10": "best_recall@10", "recall@20": "best_recall@20"},
    ),
    (
        "the best without the planted structure",
        "-.",
        {"auc": "bayes_auc_without_cross"} | {f"recall@{k}": f"best_recall@{k}_without_drift" for k in (10, 20)},
    ),
    ("popularity", ":", {f"recall@{k}": f"popularity_recall@{k}" for k in (10, 20)}),
)
"""What truth.json can tell: title, line in a figure, metric -> key."""
LINES = {"train": ":", "validation": "-"}


def read_run(folder: Path) -> RunRecord:
    """The record of a finished run."""
    return RunRecord(folder, json.loads((folder / "config.json").read_text()), read_results(folder), read_rows(folder))


def read_truth(data: Path) -> dict[str, Any]:
    """Split -> what is known about its best possible metrics (truth.json of a synthetic data set); empty for real data."""
    path = data / "truth.json"
    return json.loads(path.read_text()) if path.exists() else {}


def write_report(path: Path, run_dirs: list[Path]) -> None:
    """Write an HTML report on finished runs to `path`; curves that no run has are left out."""
    runs = [read_run(folder) for folder in run_dirs]
    truth = read_truth(Path(runs[0].config["data"]))
    figures = [svg for name, label, splits in CURVES if (svg := _figure(runs, name, label, splits, truth)) is not None]
    figures += diffusion_figures(runs)
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.get_template("report.html.jinja")
    page = template.render(runs=runs, figures=figures, columns=_columns(runs), references=_references(truth))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page)


def _columns(runs: list[RunRecord]) -> list[tuple[str, str]]:
    """(metric, title) of the table's columns: those that a run has."""
    measured = {name for run in runs for values in run.results["metrics"].values() for name in values}
    return [(name, title) for name, title in COLUMNS if name in measured]


class Reference(NamedTuple):
    """What is known about one split of a synthetic data set."""

    title: str
    split: str
    values: dict[str, float]
    """Metric -> value."""


def _references(truth: dict[str, Any]) -> list[Reference]:
    """The table's last rows."""
    found = [
        Reference(title, split, {metric: truth[split][key] for metric, key in keys.items() if key in truth[split]})
        for split in ("validation", "test")
        if split in truth
        for title, _, keys in REFERENCES
    ]
    return [reference for reference in found if reference.values]


class Curve(NamedTuple):
    """One line of a figure."""

    run: int
    label: str
    split: str
    points: list[tuple[int, float]]


def _curves(runs: list[RunRecord], name: str, splits: tuple[str, ...]) -> list[Curve]:
    """What the runs logged under `name`."""
    curves = []
    for index, run in enumerate(runs):
        for split in splits:
            points = [(row["step"], row[name]) for row in run.rows if row["split"] == split and row.get(name) is not None]
            if points:
                curves.append(Curve(index, f"{run.title} {split}", split, points))
    return curves


def _figure(runs: list[RunRecord], name: str, label: str, splits: tuple[str, ...], truth: dict[str, Any]) -> str | None:
    """SVG of one quantity against optimizer steps; None where no run logged it."""
    curves = _curves(runs, name, splits)
    if not curves:
        return None
    figure, axes = pyplot.subplots(figsize=(6.4, 3.4), layout="constrained")
    for curve in curves:
        steps, values = zip(*curve.points, strict=True)
        marker = "o" if curve.split == "validation" else None
        axes.plot(steps, values, LINES[curve.split], marker=marker, markersize=3, color=f"C{curve.run}", label=curve.label)
    known = truth.get("validation", {})
    for title, style, keys in REFERENCES:
        if keys.get(name) in known:
            axes.axhline(known[keys[name]], linestyle=style, color="grey", linewidth=1, label=f"{title}, validation")
    axes.set(xlabel="optimizer step", ylabel=label)
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize="x-small")
    return as_svg(figure)
