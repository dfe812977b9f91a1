import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks.paper import times
from benchmarks.paper.sweeps import SWEEPS
from benchmarks.paper.times import KEY, MILLISECONDS, SECONDS, Machine, Times, measured, shown_time, time_missing, timed_config
from benchmarks.result_rows import read_rows, replace_rows
from tests.benchmarks.paper.recorded import FIT, T2DIFF, cell, timed
from trainer.config import RunConfig
from trainer.provenance import provenance

OURS, TWO_TOWER = cell(FIT, "FIT"), cell(FIT, "Two-Tower")
HERE = {name: provenance()[name] for name in times.MACHINE}


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Recipes that are measured, on a machine that has the data of MovieLens-1M."""
    (tmp_path / "data" / "ml1m").mkdir(parents=True)
    (tmp_path / "data" / "ml1m" / "schema.json").touch()
    recipes = []

    def measure(config: RunConfig) -> tuple[float, float]:
        recipes.append(config.recipe)
        return 12.345678, 0.0123456

    monkeypatch.setattr(times, "ROOT", tmp_path)
    monkeypatch.setattr(times, "measured", measure)
    return recipes


def test_a_cell_is_measured_once_on_each_machine(tmp_path: Path, asked: list[str]):
    path = tmp_path / "times.csv"
    elsewhere = timed(OURS, 60, 0.5)
    replace_rows(path, [elsewhere, timed(TWO_TOWER, 60, 0.5) | HERE], key=KEY)
    for _ in range(2):
        assert time_missing([OURS, TWO_TOWER], path) == []
    assert asked == ["fit_ml1m_adam"]
    recorded = read_rows(path)[-1]
    assert (recorded[SECONDS], recorded[MILLISECONDS], recorded["overrides"]) == ("12.346", "0.01235", "")
    assert recorded.items() >= HERE.items()
    assert len(read_rows(path)) == 3
    time_missing([TWO_TOWER], path, again=True)
    assert asked == ["fit_ml1m_adam", "two_tower_ml1m_adam"]
    assert [row[SECONDS] for row in read_rows(path)] == ["60", "12.346", "12.346"]


def test_where_a_cell_fails_the_others_are_timed(tmp_path: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch):
    working, error = times.measured, RuntimeError("out of memory")

    def measure(config: RunConfig) -> tuple[float, float]:
        if config.recipe == OURS.recipe:
            raise error
        return working(config)

    monkeypatch.setattr(times, "measured", measure)
    assert time_missing([OURS, TWO_TOWER], tmp_path / "times.csv") == [error]
    assert asked == ["two_tower_ml1m_adam"]


def test_counted_and_sharded_cells_and_those_without_data_are_left_out(
    tmp_path: Path, asked: list[str], capsys: pytest.CaptureFixture[str]
):
    counted, sharded, without_data = FIT.cells[0], cell(FIT, "FIT", "sharded"), cell(T2DIFF, "SASRec")
    time_missing([counted, sharded, without_data], tmp_path / "times.csv")
    assert (counted.role, asked) == ("counted", [])
    assert capsys.readouterr().out.splitlines() == [
        "FIT, sharded: not timed, several ranks train it",
        "SASRec, tuned: not timed, data/ml1m_next_item is not here",
    ]


def test_of_either_kind_the_machine_that_timed_most_is_shown_the_cpu_first():
    rows = [timed(OURS, 1, 1) | {"cpu": "rare"}, timed(OURS, 2, 2, gpu="a gpu"), timed(OURS, 3, 3), timed(TWO_TOWER, 4, 4)]
    found = Times(rows)
    cpu, gpu = Machine("a cpu", "2", "none"), Machine("a cpu", "2", "a gpu")
    assert found.machines([OURS, TWO_TOWER]) == [cpu, gpu]
    assert found.machines([cell(FIT, "COLD")]) == []
    assert [found.of(OURS, machine)[SECONDS] for machine in (cpu, gpu)] == ["3", "2"]
    assert found.of(TWO_TOWER, gpu) == {}


def test_cells_that_differ_by_their_number_of_epochs_share_their_times():
    longer = dataclasses.replace(OURS, overrides=("--loop.max-epochs", "60", "--loop.patience", "6"))
    wider = dataclasses.replace(OURS, overrides=("--embeddings.dim", "64"))
    found = Times([timed(OURS, 60, 0.5)])
    (machine,) = found.machines([OURS])
    assert (found.of(longer, machine)[SECONDS], found.of(wider, machine)) == ("60", {})
    assert found.described([OURS]) == "a cpu, 2 cores (torch 2.13.0; commits abc)"
    assert found.described([wider]) == ""


def test_a_configuration_that_is_spelled_out_is_the_recipes_own():
    by_name = {one.label: one for one in SWEEPS["t2diff", "ml1m"]["conditions"].cells}
    ours = cell(T2DIFF, "T2Diff")
    assert timed_config(by_name["T2Diff, `high_noise`: 1 step from noise, served with 1"]) == timed_config(ours)
    assert timed_config(by_name["T2Diff, `sampled`: tower learns from 2 reverse steps, served with 2"]) != timed_config(ours)


@pytest.mark.parametrize(("value", "expected"), [("634.77", "635"), ("9.96", "10"), ("4.04", "4"), ("0.0413", "0.041"), ("", "–")])
def test_a_time_is_shown_with_two_digits(value: str, expected: str):
    assert shown_time({SECONDS: value}, SECONDS) == expected


def test_rounds_that_differ_tell_of_a_machine_at_work(
    matching_run: RunConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(times, "STEPS", 1)
    ticks = iter([0.0, 1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.4, 5.0, 6.0, 6.0, 7.0, 7.0, 8.0, 8.0, 9.6])
    monkeypatch.setattr(times, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    measured(matching_run)  # of 1.4, and of 1.6 times the fastest
    assert "other work" not in caplog.text
    measured(matching_run)
    assert "steps took 1 to 1.6 s: the machine does other work too" in caplog.text


def test_an_epoch_takes_its_steps_and_leaves_the_run_alone(matching_run: RunConfig, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(times, "STEPS", 1)
    monkeypatch.setattr(times, "ROUNDS", 1)
    finished = matching_run.run_dir / "results.json"
    before = finished.read_bytes()
    ticks = iter(range(100))
    monkeypatch.setattr(times, "time", SimpleNamespace(perf_counter=lambda: float(next(ticks))))
    seconds, milliseconds = measured(matching_run)
    assert seconds == json.loads(before)["steps_per_epoch"]  # each step between two ticks
    assert 0 < milliseconds < 1000
    assert finished.read_bytes() == before
