"""A run that is killed or told to stop, and then started again, ends as if nothing had happened."""

import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults import launch

OVERRIDES = (
    *("--loop.max-epochs", "2", "--loop.evals-per-epoch", "2", "--loop.patience", "9"),
    *("--loop.log-every-steps", "1", "--checkpoint.every-steps", "3"),
)


@pytest.fixture(scope="module")
def start(small_demo: Path) -> Callable[[Path], launch.Start]:
    """Starts a run on two ranks in a given folder."""
    return lambda runs: launch.start(data=small_demo, runs=runs, num_ranks=2, overrides=OVERRIDES)


@pytest.fixture(scope="module")
def uninterrupted(start: Callable[[Path], launch.Start], tmp_path_factory: pytest.TempPathFactory) -> dict:
    """results.json of a run that nothing disturbed."""
    runs = tmp_path_factory.mktemp("uninterrupted") / "runs"
    runs.mkdir()
    start(runs).finish()
    return launch.results(runs)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Folder of the run to disturb."""
    (tmp_path / "runs").mkdir()
    return tmp_path / "runs"


@pytest.mark.timeout(600)
def test_killing_a_rank_at_random_and_at_awkward_moments_changes_no_bit_of_the_final_state(start, runs, uninterrupted):
    choose = random.Random(20)
    evaluation, epoch_end, end = uninterrupted["steps_per_epoch"] // 2, uninterrupted["steps_per_epoch"], uninterrupted["steps"]
    assert (evaluation, end) == (5, 2 * epoch_end), "the moments below are laid out for ten steps an epoch"
    others = [step for step in range(1, end - 2) if step not in (evaluation, epoch_end)]
    steps = sorted([*choose.sample(others, 5), evaluation, epoch_end])
    moments = [*steps[:3], "save", *steps[3:]]
    for moment in moments:
        started = start(runs)
        if moment == "save":
            started.kill_one_in_a_save(rank=choose.randrange(2))
        else:
            started.wait_for_step(moment)
            started.kill_one(rank=choose.randrange(2))
    start(runs).finish()
    assert launch.results(runs)["final_state_sha256"] == uninterrupted["final_state_sha256"]
    assert launch.results(runs)["metrics"] == uninterrupted["metrics"]


@pytest.mark.timeout(300)
def test_sigterm_to_the_launcher_saves_and_the_same_command_ends_with_the_same_state(start, runs, uninterrupted):
    started = start(runs)
    started.wait_for_step(4)
    started.process.send_signal(signal.SIGTERM)
    assert "saved; the same command continues this run" in started.finish(exit_code=128 + signal.SIGTERM)
    assert not (launch.run_folder(runs) / "results.json").exists()
    assert "resumed from" in start(runs).finish()
    assert launch.results(runs)["final_state_sha256"] == uninterrupted["final_state_sha256"]
