import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from benchmarks import paper
from benchmarks.paper import TABLES, Cell, is_current, render
from benchmarks.popularity import popularity_auc, popularity_row
from benchmarks.result_rows import read_rows, replace_rows
from dataloaders.parquet_reader import ParquetReader
from dataloaders.parquet_writer import split_types, write_split
from dataloaders.prepare.ml1m import Ml1mConfig, prepare_ml1m
from dataloaders.schema import Schema
from tests.dataloaders.prepare.tiny_ml1m import write_random_raw
from tests.dataloaders.small_dataset import SCHEMA, make_rows, to_columns
from trainer.cli import parse_run_config

MACHINE = {"cpu": "a cpu", "cores": "2", "gpu": "none", "torch": "2.13.0", "torchrec": "1.8.0", "commit": "abc", "dataset": "ml1m"}


def _run(recipe: str, seed: int, auc: float) -> dict[str, str]:
    figures = {"test_auc": str(auc), "test_logloss": "0.4", "test_popularity_auc": "", "test_rows": "100"}
    budget = {"num_parameters": "1000", "best_epoch": "2.0", "epochs": "4.0", "train_seconds_per_epoch": "60"}
    config = parse_run_config(["--recipe", recipe, "--seed", str(seed)]).fingerprint[:12]
    return {"recipe": recipe, "seed": str(seed), "num_ranks": "1", "config": config} | figures | budget | MACHINE


def test_a_table_shows_mean_and_spread_over_seeds_beside_the_paper():
    rows = [_run("two_tower_ml1m_adam", 0, 0.90), _run("fit_ml1m_adam", 0, 0.92), _run("fit_ml1m_adam", 1, 0.94)]
    table = render(TABLES["fit", "ml1m"], rows)
    (line,) = [line for line in table.splitlines() if line.startswith("| FIT, Adam, regularised")]
    assert "0.9300 ± 0.0141" in line
    assert "0.9225" in line
    assert "+7.50%" in line  # eq. 22: (0.93 - 0.5) / (0.90 - 0.5) - 1
    assert line.rstrip(" |").endswith("2")
    (baseline,) = [line for line in table.splitlines() if line.startswith("| Two-Tower, Adam, regularised")]
    assert "0.9000 |" in baseline


def test_a_recipe_without_runs_is_left_out():
    assert "sharded" not in render(TABLES["fit", "ml1m"], [_run("fit_ml1m_adam", 0, 0.92)])


def test_a_row_is_current_only_with_the_recipes_configuration_for_its_seed_and_the_cells_ranks() -> None:
    cells, row = TABLES["fit", "ml1m"], _run("fit_ml1m_adam", 1, 0.92)
    assert is_current(row, cells)
    assert not is_current(row | {"config": _run("fit_ml1m_adam", 0, 0.92)["config"]}, cells)
    assert not is_current(row | {"config": ""}, cells)
    assert not is_current(row | {"num_ranks": "2"}, cells)
    assert not is_current(row | {"recipe": "fit_demo"}, cells)


def test_older_rows_are_counted_and_every_machine_is_named() -> None:
    rows = [_run("fit_ml1m_adam", 0, 0.92), _run("fit_ml1m_adam", 1, 0.94) | {"cpu": "another cpu", "commit": "def"}]
    table = render(TABLES["fit", "ml1m"], rows, num_left_out=3)
    assert "Machines: a cpu, 2 cores, GPU none, torch 2.13.0, torchrec 1.8.0; another cpu, 2 cores" in table
    assert "Commits: abc, def." in table
    assert "3 older row(s) of the results file" in table
    assert "left out" not in render(TABLES["fit", "ml1m"], rows)


def test_popularity_auc_is_that_of_scikit_learn_over_all_row_groups_ties_included(tmp_path: Path) -> None:
    rows, _ = make_rows(300)
    write_split(tmp_path / "test", SCHEMA, to_columns(rows), rows_per_group=64, rows_per_file=128)
    frequency_I = np.random.default_rng(0).integers(0, 5, SCHEMA.feature("item").vocab_size)
    expected = roc_auc_score([row["label"] for row in rows], [frequency_I[row["item"]] for row in rows])
    assert popularity_auc(tmp_path / "test", SCHEMA, frequency_I=frequency_I) == pytest.approx(expected, abs=1e-12)


def test_the_command_counts_popularity_keeps_old_rows_and_leaves_them_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare_ml1m(Ml1mConfig(raw=write_random_raw(tmp_path / "raw"), out=tmp_path / "data" / "ml1m"))
    readme = tmp_path / "README.md"
    readme.write_text("<!-- results:fit_ml1m -->\n<!-- /results:fit_ml1m -->\n")
    monkeypatch.setattr(paper, "ROOT", tmp_path)
    monkeypatch.setattr(paper, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(sys, "argv", ["paper", "--no-train"])
    path = tmp_path / "results" / "fit_ml1m.csv"
    current = _run("fit_ml1m_adam", 0, 0.92)
    replace_rows(path, [current, current | {"config": "older", "test_auc": "0.5"}], key=paper.KEY)
    for _ in range(2):
        paper.main()
    capsys.readouterr()
    rows = read_rows(path)
    assert [row["recipe"] for row in rows] == ["fit_ml1m_adam", "fit_ml1m_adam", "popularity"]
    expected = popularity_row(tmp_path / "data" / "ml1m")
    assert {name: rows[-1][name] for name in expected} | {"date": ""} == expected | {"date": ""}
    (line,) = [line for line in readme.read_text().splitlines() if line.startswith("| Popularity")]
    auc, popular = float(expected["test_auc"]), float(expected["test_popularity_auc"])
    assert line.startswith(f"| Popularity (training counts) | {auc:.4f} | – |")
    assert f"| {popular:.4f} | 0 |" in line
    assert "| FIT, Adam, regularised | 0.9200 |" in readme.read_text()
    assert "1 older row(s)" in readme.read_text()


def test_a_seed_that_is_recorded_is_not_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "README.md").write_text("<!-- results:fit_ml1m -->\n<!-- /results:fit_ml1m -->\n")
    trained: list[int] = []

    def train(cell: Cell, *, seed: int) -> dict[str, str]:
        trained.append(seed)
        return _run(cell.recipe, seed, 0.9)

    monkeypatch.setattr(paper, "ROOT", tmp_path)
    monkeypatch.setattr(paper, "RESULTS", tmp_path)
    monkeypatch.setattr(paper, "train", train)
    monkeypatch.setattr(sys, "argv", ["paper", "--recipes", "fit_ml1m_adam", "--seeds", "3"])
    older = _run("fit_ml1m_adam", 1, 0.5) | {"config": "older"}
    replace_rows(tmp_path / "fit_ml1m.csv", [_run("fit_ml1m_adam", 0, 0.92), older], key=paper.KEY)
    for _ in range(2):
        paper.main()
    assert trained == [1, 2]


def test_popularity_counts_training_positives_only(tmp_path: Path) -> None:
    prepare_ml1m(Ml1mConfig(raw=write_random_raw(tmp_path / "raw"), out=tmp_path / "ml1m"))
    schema = Schema.load(tmp_path / "ml1m")

    def items_and_labels(split: str) -> tuple[np.ndarray, np.ndarray]:
        reader = ParquetReader.of_split(tmp_path / "ml1m" / split, types=split_types(schema))
        groups = [reader.read(position).scalars for position in range(len(reader.groups))]
        return tuple(np.concatenate([group[name] for group in groups]) for name in ("item", "label"))

    counts = np.bincount(items_and_labels("train")[0], minlength=schema.feature("item").vocab_size)
    item, label = items_and_labels("test")
    assert float(popularity_row(tmp_path / "ml1m")["test_auc"]) == pytest.approx(roc_auc_score(label, counts[item]), abs=1e-6)
