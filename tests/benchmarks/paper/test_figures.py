from pathlib import Path

import numpy as np
import pytest
from matplotlib import pyplot

from benchmarks.paper import figures
from benchmarks.paper.cells import FIGURES_DATA, TABLES
from benchmarks.paper.figures import DIFFUSING, FIGURES, ablation_figure, draw, draw_heads, draw_queries, technique_figure
from benchmarks.paper.rows import KEY
from benchmarks.paper.sweeps import SWEEPS, sweep_path
from benchmarks.paper.times import KEY as TIMES_KEY
from benchmarks.paper.times import TIMES_FILE
from benchmarks.result_rows import replace_rows
from tests.benchmarks.paper.recorded import run, timed
from trainer.config import RunConfig
from trainer.report import read_run
from trainer.report_figures import RunRecord, reverse_process_figure


def test_what_can_be_drawn_is_linked_and_what_cannot_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(figures, "finished", lambda cells: {} if cells else None)
    sweep, file = SWEEPS["fit", FIGURES_DATA]["heads"], sweep_path(tmp_path, "fit", FIGURES_DATA, "heads")
    rows = [run(sweep, cell, 0, 0.9 + 0.001 * place) for place, cell in enumerate(sweep.cells)]
    replace_rows(file, rows[:-1], key=KEY)
    assert draw("fit", tmp_path) == "Not drawn yet: Fig. 4, Fig. 5, Fig. 6, Fig. 7, Fig. 8."  # a part of a sweep is no figure
    replace_rows(file, rows[-1:], key=KEY)
    assert "Fig. 8" in draw("fit", tmp_path, redraw=False)
    text, path = draw("fit", tmp_path), tmp_path / "fit_ml1m_stride50_heads.png"
    assert text == f"![{FIGURES['fit']['heads']}]({path})\n\nNot drawn yet: Fig. 4, Fig. 5, Fig. 6, Fig. 7."
    assert path.read_bytes().startswith(b"\x89PNG")


def test_t2diffs_figures_show_every_diffusion_by_its_name(tmp_path: Path, matching_run: RunConfig, monkeypatch: pytest.MonkeyPatch):
    finished = dict.fromkeys(DIFFUSING, read_run(matching_run.run_dir))
    monkeypatch.setattr(figures, "finished", lambda _cells: dict(list(finished.items())[1:]))
    assert draw("t2diff", tmp_path) == "Not drawn yet: Fig. 4, Fig. 5."
    monkeypatch.setattr(figures, "finished", lambda _cells: finished)
    assert "Not drawn" not in draw("t2diff", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t2diff_ml1m_reverse_process.png", "t2diff_ml1m_schedules.png"]
    legend = reverse_process_figure(list(finished.items())).axes[0].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == list(DIFFUSING)
    assert set(DIFFUSING) <= {cell.label for cell in TABLES["t2diff", "ml1m"].cells}
    pyplot.close("all")


def test_every_scorer_has_a_line_over_its_numbers_of_heads_and_a_dot_for_each_seed():
    seeds = {heads: [{"test_auc": str(0.8 + 0.01 * heads)}, {"test_auc": str(0.82 + 0.01 * heads)}] for heads in (1, 2, 4)}
    figure = draw_heads({f"{scorer}, heads: {heads}": runs for scorer in ("LSS", "SumMax") for heads, runs in seeds.items()})
    for place, scorer in enumerate(("LSS", "SumMax")):
        means, dots = figure.axes[0].lines[2 * place : 2 * place + 2]
        assert means.get_label() == scorer
        np.testing.assert_allclose(means.get_data(), [(1, 2, 4), (0.82, 0.83, 0.85)])
        np.testing.assert_allclose(dots.get_data(), [(1, 1, 2, 2, 4, 4), (0.81, 0.83, 0.82, 0.84, 0.84, 0.86)])
    pyplot.close(figure)


def test_every_ablation_has_a_bar_of_its_mean_and_a_dot_for_each_seed():
    figure = ablation_figure({"FIT": [{"test_auc": "0.85"}, {"test_auc": "0.87"}], "FIT w/o MQM": [{"test_auc": "0.83"}]})
    (axes,) = figure.axes
    np.testing.assert_allclose([bar.get_width() for bar in axes.patches], [0.86, 0.83])
    (dots,) = axes.lines
    np.testing.assert_allclose(dots.get_xdata(), [0.85, 0.87, 0.83])
    assert list(dots.get_ydata()) == ["FIT", "FIT", "FIT w/o MQM"]
    pyplot.close(figure)


def test_auc_and_time_stand_over_the_number_of_meta_queries():
    rows = {f"N = {number}": [{"test_auc": "0.9"}] for number in (16, 32)}
    figure = draw_queries(rows, [0.016, 0.032], timed_on="GPU")
    assert [list(axes.lines[0].get_xdata()) for axes in figure.axes] == [[16, 32], [16, 32]]
    assert list(figure.axes[1].lines[0].get_ydata()) == [0.016, 0.032]
    assert figure.axes[1].get_ylabel() == "inference on a GPU, ms per sample (dashed)"
    pyplot.close(figure)


@pytest.mark.parametrize("of_a_gpu", [False, True])
def test_the_figure_of_meta_queries_waits_for_all_runs_and_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, of_a_gpu: bool
):
    monkeypatch.setattr(figures, "finished", lambda _cells: {})
    sweep = SWEEPS["fit", FIGURES_DATA]["queries"]
    rows = [run(sweep, cell, 0, 0.9) for cell in sweep.cells]
    replace_rows(sweep_path(tmp_path, "fit", FIGURES_DATA, "queries"), rows, key=KEY)
    *most, last = [timed(cell, 60, 0.1) for cell in sweep.cells]
    replace_rows(tmp_path / TIMES_FILE.name, most, key=TIMES_KEY)
    assert "Fig. 7" in draw("fit", tmp_path).split("Not drawn yet")[1]
    on_a_gpu = [timed(cell, 10, 0.01, gpu="a gpu") for cell in sweep.cells]
    replace_rows(tmp_path / TIMES_FILE.name, on_a_gpu if of_a_gpu else [last], key=TIMES_KEY)
    assert "Fig. 7" in draw("fit", tmp_path).split("Not drawn yet")[0]


def test_auc_is_validations_and_query_similarity_trainings():
    rows = [
        {"step": 1, "split": "train", "query_similarity": 0.5, "auc": 0.6},
        {"step": 2, "split": "validation", "auc": 0.8},
        {"step": 3, "split": "train", "query_similarity": 0.9, "auc": 0.7},
    ]
    figure = technique_figure([("FIT", RunRecord(Path(), {}, {}, rows))])
    curves = [list(zip(*axes.lines[0].get_data(), strict=True)) for axes in figure.axes]
    assert curves == [[(2, 0.8)], [(1, 0.5), (3, 0.9)]]
    pyplot.close(figure)
