import logging
from pathlib import Path

import pytest

from benchmarks.paper import unseen
from benchmarks.paper.render import render
from benchmarks.result_rows import read_rows, replace_rows
from tests.benchmarks.paper.recorded import FIT, T2DIFF, cell, run
from trainer.config import RunConfig
from trainer.errors import CheckpointError
from trainer.results import read_results

SASREC, CASER = cell(T2DIFF, "SASRec"), cell(T2DIFF, "Caser")
COLUMN = "test_hr@10_unseen"


def test_runs_that_are_here_are_ranked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    ranked: list[tuple[str, int]] = []

    def metrics_unseen(config: RunConfig) -> dict[str, float]:
        ranked.append((config.recipe, config.seed))
        return {"hr@10": 0.28}

    path = tmp_path / "runs.csv"
    replace_rows(path, [run(T2DIFF, SASREC, seed, 0.2) for seed in (0, 1)] + [run(T2DIFF, CASER, 0, 0.1)], key=unseen.KEY)
    monkeypatch.setattr(unseen, "metrics_unseen", metrics_unseen)
    monkeypatch.setattr(unseen, "is_here", lambda cell, _row: cell is SASREC)
    for _ in range(2):
        unseen.rank_unseen(T2DIFF, T2DIFF.of_budget("tuned"), path)
    assert ranked == [("sasrec_ml1m", 0), ("sasrec_ml1m", 1)]
    assert sorted(row[COLUMN] for row in read_rows(path)) == ["", "0.280000", "0.280000"]
    lines = render(T2DIFF, read_rows(path), []).splitlines()
    place = next(line for line in lines if line.startswith("| model |")).split(" | ").index("test hr@10, seen items left out")
    shown = {line.split(" | ")[0].removeprefix("| "): line.split(" | ")[place] for line in lines if line.startswith("| ")}
    assert (shown["SASRec"], shown["Caser"]) == ("0.2800 ± 0.0000", "–")


def test_a_run_without_checkpoints_is_left_out_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def metrics_unseen(config: RunConfig) -> dict[str, float]:
        raise CheckpointError(f"{config.run_dir}: no evaluated checkpoint")

    replace_rows(tmp_path / "runs.csv", [run(T2DIFF, SASREC, 0, 0.2)], key=unseen.KEY)
    monkeypatch.setattr(unseen, "metrics_unseen", metrics_unseen)
    monkeypatch.setattr(unseen, "is_here", lambda *_: True)
    with caplog.at_level(logging.WARNING):
        unseen.rank_unseen(T2DIFF, [SASREC], tmp_path / "runs.csv")
    assert "SASRec, seed 0, is not ranked among unseen items: " in caplog.text
    assert COLUMN not in read_rows(tmp_path / "runs.csv")[0]


def test_scores_of_given_items_have_no_such_column(tmp_path: Path):
    replace_rows(tmp_path / "runs.csv", [run(FIT, cell(FIT, "FIT"), 0, 0.9)], key=unseen.KEY)
    unseen.rank_unseen(FIT, FIT.of_budget("tuned"), tmp_path / "runs.csv")
    assert not any(name.endswith("_unseen") for name in read_rows(tmp_path / "runs.csv")[0])
    assert "seen items" not in render(FIT, read_rows(tmp_path / "runs.csv"), [])


def test_fewer_competitors_make_ranks_no_worse(matching_run: RunConfig):
    found, recorded = unseen.metrics_unseen(matching_run), read_results(matching_run.run_dir)["metrics"]["test"]
    assert found["num_rows"] == recorded["num_rows"]
    assert found["mrr"] > recorded["mrr"]
    assert found["loss"] == recorded["loss"]
