import argparse
import inspect
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from torch.distributed.elastic.multiprocessing.api import PContext
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.run import config_from_args, parse_args

from trainer import launch as launcher

ROOT = Path(__file__).parents[2]
needs_the_option = pytest.mark.skipif(
    not hasattr(parse_args(["script.py"]), "shutdown_timeout"), reason="torch 2.11 has no --shutdown-timeout"
)
RANK = """
import os, sys, time
rank = int(os.environ["RANK"])
codes = [int(code) for code in sys.argv[1:]]
os.write(1, b"started\\n")  # at once, where print would let two ranks mix
if codes[rank] == 0 and sum(codes) > 0 or codes[rank] == 99:
    time.sleep(60)
if codes[rank] == 1:
    raise RuntimeError("a bug in rank 1")
sys.exit(codes[rank])
"""


def start(script: Path, *codes: str) -> subprocess.Popen[str]:
    """Two ranks that end with the given exit codes; 99, or 0 beside a failure, waits to be stopped."""
    script.write_text(RANK)
    options = ["--nproc-per-node", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    command = [sys.executable, "-m", "trainer.launch", *options, str(script), *codes]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def launch(script: Path, *codes: str) -> subprocess.CompletedProcess[str]:
    process = start(script, *codes)
    output, errors = process.communicate(timeout=100)
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def test_ranks_that_all_succeed_end_with_0(tmp_path: Path) -> None:
    assert launch(tmp_path / "rank.py", "0", "0").returncode == 0


@pytest.mark.parametrize(("code", "meaning"), [("3", "bad data"), ("4", "bad checkpoint")])
def test_an_explained_exit_code_comes_through_without_a_traceback(tmp_path: Path, code: str, meaning: str) -> None:
    done = launch(tmp_path / "rank.py", "0", code)
    assert done.returncode == int(code), done.stderr
    assert f"rank 1 ended with exit code {code} ({meaning}" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_bug_ends_with_1_and_names_the_rank(tmp_path: Path) -> None:
    done = launch(tmp_path / "rank.py", "0", "1")
    assert done.returncode == 1
    assert "a bug in rank 1" in done.stderr
    assert "rank      : 1" in done.stderr


def test_a_signal_stops_the_ranks_and_is_told_without_a_traceback(tmp_path: Path) -> None:
    process = start(tmp_path / "rank.py", "99", "99")
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(2)] == ["started\n"] * 2
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 128 + signal.SIGTERM
    assert "stopped by SIGTERM" in errors
    assert "Traceback" not in errors


@needs_the_option
@pytest.mark.parametrize(("arguments", "seconds"), [([], 120), (["--shutdown-timeout", "7"], 7)])
def test_ranks_have_two_minutes_to_save_after_a_signal_or_what_the_command_line_says(arguments: list[str], seconds: int) -> None:
    options = parse_args([*arguments, "script.py"])
    launcher.allow_time_to_save(options)
    config, _, _ = config_from_args(options)
    assert config.shutdown_timeout == seconds


def test_ranks_have_two_minutes_where_torchrun_does_not_know_the_option(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PContext.close, "__defaults__", PContext.close.__defaults__)
    launcher.allow_time_to_save(argparse.Namespace())
    assert inspect.signature(PContext.close).parameters["timeout"].default == 120


def test_a_killed_rank_explains_more_than_what_the_other_one_says_about_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    def lose_a_rank(_options: argparse.Namespace) -> None:
        ends = {0: 4, 1: -signal.SIGKILL}
        raise ChildFailedError(
            "train", {rank: ProcessFailure(rank, 1, code, str(tmp_path / "none")) for rank, code in ends.items()}
        )

    monkeypatch.setattr(PContext.close, "__defaults__", PContext.close.__defaults__)
    monkeypatch.setattr(launcher, "run", lose_a_rank)
    assert launcher.main(["script.py"]) == 1
    assert "SIGKILL" in capsys.readouterr().err
