from pathlib import Path

import pytest
import torch

from benchmarks.paper import table as paper_table
from benchmarks.paper.cells import ITEM_KNN, POPULARITY, Cell
from benchmarks.paper.rows import cell_of, config_of, count_baselines
from benchmarks.paper.significance import SplitRows
from benchmarks.paper.table import best_baseline, compare_recorded, fill, pairs_of, rows_by_label
from benchmarks.result_rows import read_rows, replace_rows
from dataloaders.errors import DataError
from tests.benchmarks.paper.recorded import FIT, T2DIFF, cell, run
from trainer.errors import CheckpointError

OURS, TWO_TOWER, SASREC, CASER = cell(FIT, "FIT"), cell(FIT, "Two-Tower"), cell(T2DIFF, "SASRec"), cell(T2DIFF, "Caser")


def test_a_row_is_current_only_with_the_cells_configuration_for_its_seed_and_its_number_of_ranks():
    cells, row = FIT.of_budget("tuned"), run(FIT, OURS, 1, 0.92)
    assert cell_of(row, cells) is OURS
    assert cell_of(row | {"config": run(FIT, OURS, 0, 0.92)["config"]}, cells) is None
    assert cell_of(row | {"config": ""}, cells) is None
    assert cell_of(row | {"num_ranks": "2"}, cells) is None
    assert cell_of(row | {"recipe": "fit_demo"}, cells) is None


def test_a_row_is_told_apart_from_those_of_its_recipe_with_other_overrides():
    without = cell(FIT, "FIT w/o MQM")
    assert without.recipe == OURS.recipe
    assert cell_of(run(FIT, without, 0, 0.9), FIT.of_budget("tuned")) is without


@pytest.fixture
def with_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if every data set were there."""
    monkeypatch.setattr(paper_table.Schema, "load", lambda folder: folder)


@pytest.mark.usefixtures("with_data")
def test_only_what_is_not_recorded_is_trained_seed_by_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    trained: list[tuple[str, str]] = []

    def finished_run(recipe: str, *, overrides: list[str], num_ranks: int) -> dict:
        assert num_ranks == 1
        trained.append((recipe, overrides[-1]))
        return {}

    monkeypatch.setattr(paper_table, "finished_run", finished_run)
    monkeypatch.setattr(paper_table, "trained_row", lambda table, cell, seed, results, **_: run(table, cell, seed, 0.9) | results)
    older = run(FIT, OURS, 1, 0.5) | {"config": "older"}
    replace_rows(tmp_path / "runs.csv", [run(FIT, OURS, 0, 0.92), older], key=paper_table.KEY)
    for _ in range(2):
        fill(FIT, [TWO_TOWER, OURS], tmp_path / "runs.csv", seeds=2)
    assert trained == [("two_tower_ml1m_adam", "0"), ("two_tower_ml1m_adam", "1"), ("fit_ml1m_adam", "1")]
    assert len(read_rows(tmp_path / "runs.csv")) == 5  # the older one stays
    monkeypatch.setattr(paper_table, "is_here", lambda cell, _row: cell is OURS)
    trained.clear()
    fill(FIT, [TWO_TOWER, OURS], tmp_path / "runs.csv", seeds=2, retrain=True)
    assert trained == [("two_tower_ml1m_adam", "0"), ("two_tower_ml1m_adam", "1")]
    assert len(read_rows(tmp_path / "runs.csv")) == 5


def test_nothing_is_trained_where_data_of_a_cell_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(paper_table, "finished_run", lambda *_, **__: pytest.fail("trained"))
    monkeypatch.setattr(paper_table, "ROOT", tmp_path)
    with pytest.raises(DataError, match=r"data/ml1m/schema\.json: no such file; prepare the data set first"):
        fill(FIT, [TWO_TOWER, OURS], tmp_path / "runs.csv", seeds=2)
    assert fill(FIT, [], tmp_path / "runs.csv", seeds=2) == []


@pytest.mark.usefixtures("with_data")
def test_where_a_cell_fails_the_others_are_recorded_and_the_errors_are_returned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def finished_run(recipe: str, **_words: object) -> dict:
        if recipe == TWO_TOWER.recipe:
            raise RuntimeError("the loss is NaN")
        return {}

    monkeypatch.setattr(paper_table, "finished_run", finished_run)
    monkeypatch.setattr(paper_table, "trained_row", lambda table, cell, seed, results, **_: run(table, cell, seed, 0.9) | results)
    failed = fill(FIT, [TWO_TOWER, OURS], tmp_path / "runs.csv", seeds=2)
    assert [str(error) for error in failed] == ["the loss is NaN"] * 2
    assert [(row["recipe"], row["seed"]) for row in read_rows(tmp_path / "runs.csv")] == [(OURS.recipe, "0"), (OURS.recipe, "1")]


def test_the_best_baseline_has_the_best_headline_and_is_no_ablation():
    ablation = cell(T2DIFF, "Mixed-attention")
    rows = {
        SASREC.label: [{"test_recall@20": "0.2"}],
        CASER.label: [{"test_recall@20": "0.3"}],
        ablation.label: [{"test_recall@20": "1"}],
    }
    assert best_baseline(T2DIFF, [SASREC, CASER, ablation], rows) is CASER
    assert best_baseline(T2DIFF, [ablation], rows) is None


def test_every_trained_cell_is_paired_with_the_best_baseline_in_the_seeds_that_both_have():
    rows = rows_by_label([SASREC, CASER], [run(T2DIFF, SASREC, seed, 0.3) for seed in (0, 1)] + [run(T2DIFF, CASER, 1, 0.2)])
    assert [(pair.first, pair.second, pair.seed) for pair in pairs_of(T2DIFF, [SASREC, CASER], rows)] == [(CASER, SASREC, 1)]


def test_the_proposed_model_is_paired_with_every_other():
    proposed, ablation = cell(T2DIFF, "T2Diff"), cell(T2DIFF, "Mixed-attention")
    cells = [SASREC, CASER, ablation, proposed]
    rows = rows_by_label(cells, [run(T2DIFF, one, 0, value) for one, value in zip(cells, (0.3, 0.2, 0.5, 0.4), strict=True)])
    pairs = [(pair.first.label, pair.second.label) for pair in pairs_of(T2DIFF, cells, rows)]
    against_best = [(one, "SASRec") for one in ("Caser", "Mixed-attention", "T2Diff")]
    assert pairs == [*against_best, ("T2Diff", "Caser"), ("T2Diff", "Mixed-attention")]


def test_pairs_are_compared_once_and_only_where_both_runs_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    scored: list[str] = []

    def rows_of(cell: Cell, *, seed: int) -> SplitRows:
        scored.append(cell.label)
        config = config_of(cell, seed=seed)
        return SplitRows(config, torch.tensor([1.0, 0.0, float(cell.label == "SASRec")]).double())

    monkeypatch.setattr(paper_table.significance, "rows_of", rows_of)
    monkeypatch.setattr(paper_table, "is_here", lambda _cell, row: row["seed"] != "1")
    runs, differences = tmp_path / "runs.csv", tmp_path / "differences.csv"
    replace_rows(
        runs, [run(T2DIFF, one, seed, value) for one, value in ((SASREC, 2 / 3), (CASER, 1 / 3)) for seed in (0, 1)], key=()
    )
    for _ in range(2):
        compare_recorded(T2DIFF, [SASREC, CASER], runs, differences=differences)
    assert scored == ["Caser", "SASRec"]
    assert caplog.text.count("Caser and SASRec, seed 1, are not compared: --retrain trains what is not here, Caser and SASRec") == 2
    (row,) = read_rows(differences)
    assert (row["first"], row["second"], row["seed"]) == ("Caser", "SASRec", "0")
    assert float(row["difference"]) == pytest.approx(-1 / 3, abs=1e-6)
    replace_rows(runs, [run(T2DIFF, CASER, 0, 0.5)], key=paper_table.KEY)  # trained again, to another end
    compare_recorded(T2DIFF, [SASREC, CASER], runs, differences=differences)
    assert scored == ["Caser", "SASRec"] * 2


def test_a_pair_whose_checkpoints_are_gone_is_left_out_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    proposed = cell(T2DIFF, "T2Diff")

    def rows_of(cell: Cell, *, seed: int) -> SplitRows:
        if cell.label == "Caser":
            raise CheckpointError("runs/caser: holds no valid checkpoint")
        config = config_of(cell, seed=seed)
        return SplitRows(config, torch.tensor([1.0, 0.0, float(cell.label == "SASRec")]).double())

    monkeypatch.setattr(paper_table.significance, "rows_of", rows_of)
    monkeypatch.setattr(paper_table, "is_here", lambda *_: True)
    runs, differences = tmp_path / "runs.csv", tmp_path / "differences.csv"
    recorded = ((SASREC, 0.3), (CASER, 0.2), (proposed, 0.1))
    replace_rows(runs, [run(T2DIFF, one, 0, value) for one, value in recorded], key=())
    compare_recorded(T2DIFF, [SASREC, CASER, proposed], runs, differences=differences)
    assert [(row["first"], row["second"]) for row in read_rows(differences)] == [(proposed.label, SASREC.label)]
    assert "Caser and SASRec, seed 0, are not compared: runs/caser" in caplog.text


def test_counted_baselines_are_counted_where_one_of_them_is_missing(small_matching: Path, tmp_path: Path):
    path = tmp_path / "runs.csv"
    count_baselines(T2DIFF, "t2diff", path, data=small_matching)
    both = read_rows(path)
    assert {row["recipe"] for row in both} == {POPULARITY, ITEM_KNN}
    path.unlink()
    replace_rows(path, [row for row in both if row["recipe"] == POPULARITY], key=())
    count_baselines(T2DIFF, "t2diff", path, data=small_matching)
    assert [row["recipe"] for row in read_rows(path)] == [row["recipe"] for row in both]
