from pathlib import Path

from benchmarks.paper.cells import TABLES
from benchmarks.paper.fewer_rows import render_by_training_rows
from benchmarks.paper.rows import KEY
from benchmarks.result_rows import replace_rows
from tests.benchmarks.paper.recorded import MACHINE, cell, difference, run


def test_a_data_set_has_a_line_once_both_models_are_recorded_on_it(tmp_path: Path):
    assert render_by_training_rows(tmp_path) == "No run is recorded yet."
    for dataset, aucs in {"ml1m_last": {"Two-Tower": 0.7, "FIT": 0.8}, "ml1m_stride50": {"FIT": 0.9}}.items():
        table = TABLES["fit", dataset]
        trained = [(cell(table, label, "paper"), auc) for label, auc in aucs.items()]
        rows = [run(table, one, seed, auc + 0.02 * seed) for one, auc in trained for seed in range(2)]
        rows.append({"recipe": "popularity", "seed": "", "config": "data", "num_ranks": "", "test_auc": "0.6"} | MACHINE)
        replace_rows(tmp_path / f"fit_{dataset}.csv", rows, key=KEY)
    table = TABLES["fit", "ml1m_last"]
    text = render_by_training_rows(tmp_path)
    assert "| one, of four users in five | 0.6000 | 0.7100 ± 0.0141 | 0.8100 ± 0.0141 | – |" in text
    both = cell(table, "FIT", "paper"), cell(table, "Two-Tower", "paper")
    pairs = [difference(*both, seed, lead, error=0.02) for seed, lead in enumerate((0.08, 0.12))]
    replace_rows(tmp_path / "significance_fit_ml1m_last.csv", pairs, key=("first", "second", "seed"))
    assert "| 0.8100 ± 0.0141 | +0.1000 ± 0.0200 |" in render_by_training_rows(tmp_path)
    assert "every fiftieth" not in text
