import sys
from pathlib import Path

import pytest
import tyro

from benchmarks import hot_operations
from benchmarks.hot_operations import render
from benchmarks.result_rows import read_rows
from tests.benchmarks.paper.recorded import MACHINE


def test_an_allocator_is_compared_once_however_the_flag_is_written(monkeypatch: pytest.MonkeyPatch):
    for word in ("--compare-allocator", "--compare_allocator"):
        started: list[list[str]] = []
        monkeypatch.setattr(hot_operations.subprocess, "run", lambda command, started=started, **_: started.append(command))
        monkeypatch.setattr(sys, "argv", ["hot_operations", "--recipes", word])
        hot_operations.main()
        ((_, _, module, *words),) = started
        assert module == "benchmarks.hot_operations"
        again = tyro.cli(hot_operations.Arguments, args=words)
        assert (again.compare_allocator, again.keep_freed_memory) == (False, False)


def test_the_table_shows_the_newest_rate_beside_that_of_the_other_allocator():
    row = {"recipe": "fit_demo", "batch_size": "256", "threads": "1", "hottest": "addmm 30%", "freed_memory": "kept"} | MACHINE
    rates = [row | {"rows_per_second": rate} for rate in ("1000", "2000")]
    text = render([*rates, row | {"rows_per_second": "500", "freed_memory": "returned"}])
    assert "| fit_demo | 256 | 1 | 2,000 | 500 | addmm 30% |\n" in text
    assert "| 2,000 | – |" in render(rates)


def test_no_steps_are_refused():
    with pytest.raises(ValueError, match="steps=0, operations=5: expected at least 1"):
        hot_operations.Arguments(steps=0)


def test_a_row_names_the_rate_and_the_hottest_operations(
    small_demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "hot.csv"
    words = ["--recipes", "two_tower_demo", "--data", str(small_demo), "--steps", "2", "--operations", "3", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["hot_operations", *words])
    hot_operations.main()
    (row,) = read_rows(out)
    assert (row["recipe"], row["freed_memory"], row["steps"]) == ("two_tower_demo", "kept", "2")
    assert float(row["rows_per_second"]) > 0
    shares = [float(part.rsplit(" ", 1)[1].rstrip("%")) for part in row["hottest"].split(", ")]
    assert len(shares) == 3
    assert 100 > shares[0] >= shares[1] >= shares[2] > 0
    assert "two_tower_demo" in capsys.readouterr().out
