"""A run goes on on another number of ranks."""

import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.faults import launch

OVERRIDES = ("--loop.max-epochs", "2", "--loop.patience", "9", "--loop.poll-every-steps", "1")


def _run(*, data: Path, runs: Path, notes: Path, num_ranks: int, stop_after: int) -> list[dict]:
    """Notes of each rank of one start."""
    notes.mkdir()
    launcher = ["-m", "trainer.launch", "--standalone", f"--nproc-per-node={num_ranks}", "-m", "tests.faults.record_rows"]
    recipe = ["--recipe", "fit_demo", "--data", str(data), "--runs", str(runs), *OVERRIDES]
    subprocess.run(
        [sys.executable, *launcher, str(notes), str(stop_after), *recipe],
        cwd=launch.ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=True,
        timeout=launch.DEADLINE_SECONDS,
    )
    return [json.loads((notes / f"rank{rank}.json").read_text()) for rank in range(num_ranks)]


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_a_resumed_run_sees_each_row_once_per_epoch_and_starts_from_bit_equal_state(small_demo, tmp_path, before, after):
    runs = tmp_path / "runs"
    first = _run(data=small_demo, runs=runs, notes=tmp_path / "first", num_ranks=before, stop_after=5)
    second = _run(data=small_demo, runs=runs, notes=tmp_path / "second", num_ranks=after, stop_after=0)
    assert second[0]["started_with"] == first[0]["stopped_with"]

    steps_per_epoch = first[0]["steps_per_epoch"]
    assert max(step for step, _ in first[0]["seen"]) == 5 < steps_per_epoch
    rows_of_epoch = defaultdict(list)
    for notes in (*first, *second):
        for step, rows in notes["seen"]:
            rows_of_epoch[(step - 1) // steps_per_epoch] += rows
    expected = sorted(pq.read_table(small_demo / "train", columns=["row_id"])["row_id"].to_pylist())
    assert set(rows_of_epoch) == {0, 1}
    for rows in rows_of_epoch.values():
        assert sorted(rows) == expected
