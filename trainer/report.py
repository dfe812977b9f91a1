"""report.html: the curves and tables of one run, or of several side by side, in one self-contained file."""

import io
import json
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
from jinja2 import Environment, FileSystemLoader

from trainer.results import read_results
from trainer.run_log import read_rows

matplotlib.use("Agg")
from matplotlib import pyplot

TEMPLATES = Path(__file__).parent / "report_templates"
CURVES = (
    ("auc", "AUC", ("train", "validation")),
    ("logloss", "logloss", ("validation",)),
    ("loss", "training loss", ("train",)),
    ("temperature", "softmax temperature τ (FIT eq. 23)", ("train",)),
    ("query_similarity", "query similarity QS (FIT eq. 24)", ("train",)),
    ("learning_rate", "learning rate", ("train",)),
    ("rows_per_second", "training rows per second", ("train",)),
)
LINES = {"train": ":", "validation": "-"}


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
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    page = environment.get_template("report.html.jinja").render(runs=runs, figures=figures, truth=truth)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page)


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
    if name == "auc" and truth:
        for key, style in (("bayes_auc", "--"), ("bayes_auc_without_cross", "-.")):
            reference = f"{key.replace('_', ' ')}, validation"
            axes.axhline(truth["validation"][key], linestyle=style, color="grey", linewidth=1, label=reference)
    axes.set(xlabel="optimizer step", ylabel=label)
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize="x-small")
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    pyplot.close(figure)
    svg = buffer.getvalue()
    return svg[svg.index("<svg") :]
