import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks.paper import times
from benchmarks.paper.rows import KEY, TIMES
from benchmarks.paper.times import seconds_per_epoch, time_missing
from benchmarks.result_rows import read_rows, replace_rows
from tests.benchmarks.paper.recorded import FIT, cell, run
from trainer.config import RunConfig
from trainer.provenance import provenance

HERE = {name: provenance()[name] for name in times.MACHINE}
NO_TIMES = dict.fromkeys(TIMES, "")


@pytest.fixture
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, int]]:
    """Metric, recipe and seed of what is measured, on a machine that has the data of MovieLens-1M."""
    (tmp_path / "data" / "ml1m").mkdir(parents=True)
    (tmp_path / "data" / "ml1m" / "schema.json").touch()
    calls = []

    def measure(name: str, config: RunConfig) -> float | None:
        calls.append((name, config.recipe, config.seed))
        return 12.345678 if name == "train_seconds_per_epoch" else None

    monkeypatch.setattr(times, "ROOT", tmp_path)
    monkeypatch.setattr(times, "measured", measure)
    return calls


def test_what_a_cell_lacks_is_measured_once_and_recorded(tmp_path: Path, measured: list[tuple[str, str, int]]):
    path, fit = tmp_path / "runs.csv", cell(FIT, "FIT")
    rows = [run(FIT, fit, seed, 0.9) | HERE | NO_TIMES | {"inference_ms_per_sample": "0.5"} for seed in (0, 1)]
    replace_rows(path, rows, key=KEY)
    for _ in range(2):
        time_missing(FIT.of_budget("tuned"), path)
    assert measured == [("train_seconds_per_epoch", "fit_ml1m_adam", 0)]
    assert sorted(row["train_seconds_per_epoch"] for row in read_rows(path)) == ["", "12.346"]


def test_a_time_of_another_machine_is_no_time_of_this_one(tmp_path: Path, measured: list[tuple[str, str, int]]):
    path, fit = tmp_path / "runs.csv", cell(FIT, "FIT")
    elsewhere = run(FIT, fit, 0, 0.9) | HERE | {"cpu": "another"}
    replace_rows(path, [elsewhere, run(FIT, fit, 1, 0.9) | HERE | {"train_seconds_per_epoch": ""}], key=KEY)
    time_missing(FIT.of_budget("tuned"), path)
    assert measured == [("train_seconds_per_epoch", "fit_ml1m_adam", 1)]


def test_runs_of_other_machines_or_of_several_ranks_are_left_alone(tmp_path: Path, measured: list[tuple[str, str, int]]):
    path = tmp_path / "runs.csv"
    elsewhere = run(FIT, cell(FIT, "FIT"), 0, 0.9) | HERE | NO_TIMES | {"cpu": "another"}
    sharded = run(FIT, cell(FIT, "FIT", "sharded"), 0, 0.9) | HERE | NO_TIMES
    replace_rows(path, [elsewhere, sharded], key=KEY)
    for budget in ("tuned", "sharded"):
        time_missing(FIT.of_budget(budget), path)
    assert measured == []


def test_an_epoch_takes_its_steps_and_leaves_the_run_alone(matching_run: RunConfig, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(times, "STEPS", 1)
    monkeypatch.setattr(times, "ROUNDS", 1)
    finished = matching_run.run_dir / "results.json"
    before = finished.read_bytes()
    ticks = iter(range(100))
    monkeypatch.setattr(times, "time", SimpleNamespace(perf_counter=lambda: float(next(ticks))))
    assert seconds_per_epoch(matching_run) == json.loads(before)["steps_per_epoch"]  # each step between two ticks
    assert finished.read_bytes() == before
