import sys
from pathlib import Path

import pytest

from benchmarks.paper import __main__ as command
from benchmarks.paper import search as paper_search
from benchmarks.paper.search import RECIPES_OF, SPACE, SearchArguments, grid, overrides, recipe_of, winner
from benchmarks.result_rows import read_rows
from tests.benchmarks.paper.recorded import MACHINE
from trainer.cli import parse_run_config
from trainer.errors import UserError
from trainer.recipes import RECIPES

MODELS = [model for models, suffix in RECIPES_OF.values() for model in models if f"{model}_{suffix}" in RECIPES]


def test_trials_are_distinct_points_of_the_grid_and_more_trials_begin_with_those_of_fewer():
    points = [tuple(point.items()) for point in grid()]
    assert len(set(points)) == len(points) == 5 * 5 * 3 * 3 * 2
    assert points[:10] == [tuple(point.items()) for point in grid()[:10]]
    assert {name for point in points for name, _ in point} == set(SPACE)


@pytest.mark.parametrize("model", MODELS)
def test_a_point_sets_the_same_fields_of_every_model_and_all_its_dropouts(model: str):
    _, recipe = recipe_of(model)
    point = {"learning_rate": "0.002", "dropout": "0.3", "weight_decay": "1e-5", "embedding_decay": "1e-6", "schedule": "constant"}
    words = overrides(point, parse_run_config(["--recipe", recipe]).model)
    config = parse_run_config(["--recipe", recipe, *words])
    optimizer = config.optimizer
    assert (optimizer.learning_rate, optimizer.sparse_learning_rate) == (0.002, 0.002)
    assert (optimizer.weight_decay, optimizer.embedding_decay, optimizer.schedule) == (1e-5, 1e-6, "constant")
    leaves = [value for name, value in _leaves(config.as_dict()["model"]) if name.endswith("dropout")]
    assert set(leaves) <= {0.3}


def _leaves(content: dict) -> list[tuple[str, object]]:
    nested = [_leaves(value) if isinstance(value, dict) else [(name, value)] for name, value in content.items()]
    return [leaf for leaves in nested for leaf in leaves]


def test_validation_picks_test_is_never_read_and_what_is_recorded_is_not_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    asked: list[list[str]] = []

    def finished_run(recipe: str, *, overrides: list[str]) -> dict:
        asked.append(overrides)
        config = parse_run_config(["--recipe", recipe, *overrides])
        return {
            "dataset": "ml1m",
            "metrics": {
                "validation": {"recall@20": 0.2 - 0.01 * (len(asked) - 2) ** 2}
            },  # the second trial is the best; no test metric
            "config_fingerprint": config.fingerprint,
            "data_identity": "d" * 64,
            "num_parameters": 1,
            "steps_per_epoch": 10,
            "best_step": 10,
            "steps": 10,
            "train_seconds_per_epoch": 1.0,
            "provenance": MACHINE,
        }

    monkeypatch.setattr(paper_search, "finished_run", finished_run)
    monkeypatch.setattr(paper_search, "RESULTS", tmp_path)
    for trials in ("2", "3"):
        monkeypatch.setattr(sys, "argv", ["paper", "search", "--model", "sasrec", "--trials", trials])
        command.main()
    assert len(asked) == 3
    rows = read_rows(tmp_path / "search_t2diff_ml1m.csv")
    assert [row["trial"] for row in rows] == ["0", "1", "2"]
    *_, headline, best = capsys.readouterr().out.splitlines()
    assert headline.startswith("best of 3 trials, by validation recall@20 0.200000")
    assert best == f"--recipe sasrec_ml1m {' '.join(asked[1][:-2])}"


def test_a_trial_that_fails_ends_no_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    def finished_run(_recipe: str, *, overrides: list[str]) -> dict:
        raise UserError(f"training ended with status 1: {len(overrides)} words")

    monkeypatch.setattr(paper_search, "finished_run", finished_run)
    monkeypatch.setattr(paper_search, "RESULTS", tmp_path)
    with pytest.raises(UserError, match="all 3 trials of sasrec_ml1m failed"):
        paper_search.search(SearchArguments(model="sasrec", trials=3))
    assert [f"trial {number} is left out: training ended with status 1" in caplog.text for number in range(4)] == [True] * 3 + [
        False
    ]
    assert not list(tmp_path.iterdir())


def test_a_smaller_logloss_wins():
    rows = [{"metric": "logloss", "validation": "0.4"}, {"metric": "logloss", "validation": "0.3"}]
    assert winner(rows) is rows[1]


def test_a_model_of_no_table_and_too_many_trials_are_refused():
    with pytest.raises(UserError, match=r"--model sasrek: no table has it, expected one of sasrec, caser"):
        recipe_of("sasrek")
    with pytest.raises(ValueError, match=r"--trials 0, expected 1 to 450"):
        SearchArguments(model="sasrec", trials=0)
