import sys
from pathlib import Path

import pytest

from benchmarks import hot_operations
from benchmarks.result_rows import read_rows


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
