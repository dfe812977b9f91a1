"""A run that is killed, told to stop, or started on another number of ranks ends as if nothing had happened."""

import random
import signal
from pathlib import Path

import pytest

from tests.faults import launch

OVERRIDES = ("--loop.max-epochs", "2", "--loop.log-every-steps", "1", "--checkpoint.every-steps", "3", "--loop.patience", "9")


@pytest.fixture(scope="module")
def uninterrupted(small_demo: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """results.json of a run on two ranks that nothing disturbed."""
    runs = tmp_path_factory.mktemp("uninterrupted")
    launch.finish(launch.start(data=small_demo, runs=runs, num_ranks=2, overrides=OVERRIDES))
    return launch.results(runs)


@pytest.mark.timeout(600)
def test_killing_a_random_rank_at_five_random_steps_changes_no_bit_of_the_final_state(
    small_demo: Path, tmp_path: Path, uninterrupted: dict
) -> None:
    choose = random.Random(20)
    for step in sorted(choose.sample(range(2, uninterrupted["steps"] - 2), 5)):
        process = launch.start(data=small_demo, runs=tmp_path, num_ranks=2, overrides=OVERRIDES)
        launch.wait_for_step(tmp_path, step, process)
        launch.kill_one(process, rank=choose.randrange(2))
    launch.finish(launch.start(data=small_demo, runs=tmp_path, num_ranks=2, overrides=OVERRIDES))
    assert launch.results(tmp_path)["final_state_sha256"] == uninterrupted["final_state_sha256"]
    assert launch.results(tmp_path)["metrics"] == uninterrupted["metrics"]


@pytest.mark.timeout(300)
def test_sigterm_saves_and_leaves_cleanly_and_the_same_command_ends_with_the_same_state(
    small_demo: Path, tmp_path: Path, uninterrupted: dict
) -> None:
    process = launch.start(data=small_demo, runs=tmp_path, num_ranks=2, overrides=OVERRIDES)
    launch.wait_for_step(tmp_path, 4, process)
    for pid in launch.workers(process):
        launch.os.kill(pid, signal.SIGTERM)
    assert "saved; the same command continues this run" in launch.finish(process)
    assert not (launch.run_folder(tmp_path) / "results.json").exists()
    output = launch.finish(launch.start(data=small_demo, runs=tmp_path, num_ranks=2, overrides=OVERRIDES))
    assert "resumed from" in output
    assert launch.results(tmp_path)["final_state_sha256"] == uninterrupted["final_state_sha256"]
