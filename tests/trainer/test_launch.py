import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RANK = """
import os, sys, time
rank = int(os.environ["RANK"])
codes = [int(code) for code in sys.argv[1:]]
print("started", flush=True)
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
