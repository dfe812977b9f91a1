from pathlib import Path

from benchmarks.paper.cells import TABLES
from benchmarks.paper.fewer_rows import render_by_training_rows
from benchmarks.paper.rows import KEY
from benchmarks.result_rows import replace_rows
from benchmarks.trained_runs import machine
from tests.benchmarks.paper.recorded import MACHINE, cell, difference, run


def test_a_data_set_has_a_line_once_both_models_are_recorded_on_it(tmp_path: Path):
    assert render_by_training_rows(tmp_path) == "No run is recorded yet."
    for dataset, aucs in {"ml1m_last": {"Two-Tower": 0.7, "FIT": 0.8}, "ml1m_stride50": {"FIT": 0.9}}.items():
        table = TABLES["fit", dataset]
        trained = [(cell(table, label, "paper"), auc) for label, auc in aucs.items()]
        rows = [run(table, one, seed, auc + 0.02 * seed) for one, auc in trained for seed in range(2)]
        rows.append({"recipe": "popularity", "seed": "", "config": "data", "num_ranks": "", "test_auc": "0.6"} | MACHINE)
        replace_rows(tmp_path / f"fit_{dataset}.csv", rows, key=KEY)
    text = render_by_training_rows(tmp_path)
    assert "| test AUC | one, of four users in five |\n" in text
    assert "| Popularity (training counts) | 0.6000 |\n" in text
    assert "| Two-Tower | 0.7100 ± 0.0141 |\n" in text
    assert "| FIT | **0.8100 ± 0.0141** |\n" in text
    assert "| FIT minus | one, of four users in five |\n|---|---|\n| Two-Tower | – |\n" in text
    table = TABLES["fit", "ml1m_last"]
    both = cell(table, "FIT", "paper"), cell(table, "Two-Tower", "paper")
    pairs = [difference(*both, seed, lead, error=0.02) for seed, lead in enumerate((0.08, 0.12))]
    replace_rows(tmp_path / "significance_fit_ml1m_last.csv", pairs, key=("first", "second", "seed"))
    assert "| Two-Tower | +0.1000 ± 0.0283 |\n" in render_by_training_rows(tmp_path)
    assert "every fiftieth" not in text


def test_models_that_a_data_set_has_no_runs_of_have_a_dash_there(tmp_path: Path):
    for dataset, labels in {"ml1m_stride10": ("Two-Tower", "FIT"), "ml1m_last": ("Two-Tower", "FIT", "FIT w/o MQM")}.items():
        table = TABLES["fit", dataset]
        cells = {label: cell(table, label, "paper") for label in labels}
        rows = [run(table, one, 0, 0.7 + 0.1 * place) for place, one in enumerate(cells.values())]
        replace_rows(tmp_path / f"fit_{dataset}.csv", rows, key=KEY)
        pairs = [difference(cells["FIT"], cells[label], 0, 0.05, error=0.02) for label in labels if label != "FIT"]
        replace_rows(tmp_path / f"significance_fit_{dataset}.csv", pairs, key=("first", "second", "seed"))
    text = render_by_training_rows(tmp_path)
    assert "| FIT | **0.8000** | 0.8000 |\n" in text
    assert "| FIT w/o MQM | – | **0.9000** |" in text
    assert "| Two-Tower | +0.0500 ± 0.0200 | +0.0500 ± 0.0200 |\n" in text
    assert "| FIT w/o MQM | – | +0.0500 ± 0.0200 |" in text
    assert text.endswith(f"1 seed(s); 100 test rows. {machine([MACHINE])}")
