"""Start a small training run as torchx does, in another process; watch it, stop it, kill it."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from torchx.specs import macros

from torchx_specs.train import train

ROOT = Path(__file__).parents[2]
DEADLINE_SECONDS = 150


@dataclass(frozen=True, kw_only=True)
class Start:
    """One start of the only run in `runs`; what it finds there is noted before, so that nothing old is taken for its work."""

    process: subprocess.Popen
    runs: Path
    num_ranks: int
    old_log: int
    """Inode of the metrics.jsonl of the start before; 0: none."""
    resume_step: int
    """Newest checkpoint that it finds; 0: none."""

    def wait_for_step(self, step: int) -> None:
        """Return once this start has logged a training step of its own, `step` or a later one."""
        for _ in self._until_deadline(f"step {step}"):
            path = run_folder(self.runs) / "metrics.jsonl"
            if inode(path) in (0, self.old_log):
                continue
            lines = [line for line in path.read_text().splitlines() if line.endswith("}")]
            rows = [row for row in map(json.loads, lines) if row["split"] == "train"]
            if any(row["step"] > self.resume_step and row["step"] >= step for row in rows):
                return

    def kill_one(self, *, rank: int) -> None:
        """kill -9 of one rank; returns when the launcher has noticed and left with the exit code of a lost machine."""
        os.kill(self.workers()[rank], signal.SIGKILL)
        self._wait_for_loss()

    def kill_one_in_a_save(self, *, rank: int) -> None:
        """kill -9 of one rank while a checkpoint is being written, which then lies there unfinished."""
        for _ in self._until_deadline("a save"):
            partial = self._partial()
            if partial is None:
                continue
            workers = self.workers()
            os.kill(workers[0], signal.SIGSTOP)  # the rank that commits: what is unfinished now stays so
            caught = partial.exists()
            if caught:
                os.kill(workers[rank], signal.SIGKILL)
            os.kill(workers[0], signal.SIGCONT)
            if caught:
                break
        self._wait_for_loss()
        assert partial.exists()

    def workers(self) -> list[int]:
        """Process ids of the ranks, in order; returns when all of them are there."""
        for _ in self._until_deadline(f"{self.num_ranks} ranks"):
            found = dict(self._ranks())
            if len(found) == self.num_ranks:
                return [found[rank] for rank in range(self.num_ranks)]
        raise AssertionError("unreachable")

    def finish(self, *, exit_code: int = 0) -> str:
        """Wait for the end; the output. AssertionError where the exit code is another."""
        output, _ = self.process.communicate(timeout=DEADLINE_SECONDS)
        assert self.process.returncode == exit_code, output
        return output

    def _wait_for_loss(self) -> None:
        self.finish(exit_code=1)

    def _until_deadline(self, what: str) -> Iterator[None]:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.process.communicate()[0]
            yield
            time.sleep(0.002)
        raise AssertionError(f"{what}: not seen in {DEADLINE_SECONDS} s")

    def _ranks(self) -> Iterator[tuple[int, int]]:
        """Rank and process id of the launcher's children."""
        launcher = self.process.pid
        for child in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split():
            environment = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
            ranks = [int(entry.removeprefix(b"RANK=")) for entry in environment if entry.startswith(b"RANK=")]
            yield from ((rank, int(child)) for rank in ranks)

    def _partial(self) -> Path | None:
        """The checkpoint being written; not one left by a crash before, nor one being removed."""
        steps = checkpoint_steps(self.runs)
        newest = max(steps, default=self.resume_step)
        for path in self.runs.glob("*/checkpoints/step-*.tmp"):
            if int(path.stem.removeprefix("step-")) > newest:
                return path
        return None


def start(*, data: Path, runs: Path, num_ranks: int, overrides: tuple[str, ...] = ()) -> Start:
    """Launch `fit_demo` on `data` with the command that torchx runs."""
    old_log = inode(run_folder(runs) / "metrics.jsonl")
    resume_step = max(checkpoint_steps(runs), default=0)
    (role,) = train("--data", str(data), "--runs", str(runs), *overrides, recipe="fit_demo", nproc=num_ranks).roles
    role = macros.Values(img_root="", app_id="faults", replica_id="0", rank0_env="").apply(role)
    logs = runs.with_name(f"{runs.name}-logs")
    logs.mkdir(exist_ok=True)
    process = subprocess.Popen(
        [role.entrypoint, *role.args],
        cwd=ROOT,
        env=os.environ | role.env | {"OMP_NUM_THREADS": "1", "TMPDIR": str(logs)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return Start(process=process, runs=runs, num_ranks=num_ranks, old_log=old_log, resume_step=resume_step)


def inode(path: Path) -> int:
    """Number of the file behind a name: a log that is written anew is another file; 0 where there is none."""
    return path.stat().st_ino if path.exists() else 0


def run_folder(runs: Path) -> Path:
    """The only run in `runs`; a name that does not exist where there is none yet."""
    return next(iter(runs.iterdir()), runs / "none")


def checkpoint_steps(runs: Path) -> list[int]:
    """Steps of the complete checkpoints of the only run in `runs`."""
    names = [path.name.removeprefix("step-") for path in runs.glob("*/checkpoints/step-*")]
    return [int(name) for name in names if name.isdecimal()]


def results(runs: Path) -> dict:
    """results.json of the only run in `runs`."""
    return json.loads((run_folder(runs) / "results.json").read_text())
