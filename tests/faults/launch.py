"""Start a small two-rank training run in another process, watch it, kill it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
DEADLINE_SECONDS = 150


def start(*, data: Path, runs: Path, num_ranks: int, overrides: tuple[str, ...] = ()) -> subprocess.Popen:
    """Launch `fit_demo` on `data` under torchrun."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_ranks}", "-m", "trainer.train"]
    recipe = ["--recipe", "fit_demo", "--data", str(data), "--runs", str(runs), *overrides]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *launcher, *recipe], cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(process: subprocess.Popen) -> str:
    """Wait for the end; the output. AssertionError where the exit code is not 0."""
    output, _ = process.communicate(timeout=DEADLINE_SECONDS)
    assert process.returncode == 0, output
    return output


def run_folder(runs: Path) -> Path:
    """The only run in `runs`."""
    (folder,) = runs.iterdir()
    return folder


def results(runs: Path) -> dict:
    """results.json of the only run in `runs`."""
    return json.loads((run_folder(runs) / "results.json").read_text())


def wait_for_step(runs: Path, step: int, process: subprocess.Popen) -> None:
    """Return once metrics.jsonl has a training row of `step` or later."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[0]
        for path in runs.glob("*/metrics.jsonl"):
            lines = path.read_text().splitlines()
            if lines and lines[-1].endswith("}") and json.loads(lines[-1])["step"] >= step:
                return
        time.sleep(0.01)
    raise AssertionError(f"step {step} was not reached in {DEADLINE_SECONDS} s")


def workers(process: subprocess.Popen) -> list[int]:
    """Process ids of the ranks, which are torchrun's children."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(child) for child in children if "trainer.train" in Path(f"/proc/{child}/cmdline").read_text()]


def kill_one(process: subprocess.Popen, *, rank: int) -> None:
    """kill -9 of one rank; returns when torchrun has noticed and left with an error."""
    os.kill(workers(process)[rank], signal.SIGKILL)
    output, _ = process.communicate(timeout=DEADLINE_SECONDS)
    assert process.returncode != 0, output
