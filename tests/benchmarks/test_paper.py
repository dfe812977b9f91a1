import pytest

from benchmarks.paper import TABLES, _replace_section, render

MACHINE = {"cpu": "a cpu", "cores": "2", "gpu": "none", "torch": "2.13.0", "torchrec": "1.8.0", "commit": "abc", "dataset": "ml1m"}


def _run(recipe: str, seed: int, auc: float) -> dict[str, str]:
    figures = {"test_auc": str(auc), "test_logloss": "0.4", "test_popularity_auc": "", "test_rows": "100"}
    budget = {"num_parameters": "1000", "best_epoch": "2.0", "epochs": "4.0", "train_seconds_per_epoch": "60"}
    return {"recipe": recipe, "seed": str(seed)} | figures | budget | MACHINE


def test_a_table_shows_mean_and_spread_over_seeds_beside_the_paper():
    rows = [_run("two_tower_ml1m_adam", 0, 0.90), _run("fit_ml1m_adam", 0, 0.92), _run("fit_ml1m_adam", 1, 0.94)]
    table = render(TABLES["fit", "ml1m"], rows)
    (line,) = [line for line in table.splitlines() if line.startswith("| FIT, Adam")]
    assert "0.9300 ± 0.0141" in line
    assert "0.9225" in line
    assert "+7.50%" in line  # eq. 22: (0.93 - 0.5) / (0.90 - 0.5) - 1
    assert line.rstrip(" |").endswith("2")
    (baseline,) = [line for line in table.splitlines() if line.startswith("| Two-Tower, Adam")]
    assert "0.9000 |" in baseline


def test_a_recipe_without_runs_is_left_out():
    assert "sharded" not in render(TABLES["fit", "ml1m"], [_run("fit_ml1m_adam", 0, 0.92)])


def test_a_section_is_replaced_between_its_markers_and_nothing_else_changes(tmp_path):
    path = tmp_path / "README.md"
    path.write_text("before\n<!-- results:x -->\nold\n<!-- /results:x -->\nafter\n")
    _replace_section(path, "x", "new")
    assert path.read_text() == "before\n<!-- results:x -->\nnew\n<!-- /results:x -->\nafter\n"
    with pytest.raises(ValueError, match="expected the markers"):
        _replace_section(path, "y", "new")
