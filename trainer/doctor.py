"""`python -m trainer.doctor` (`make doctor`): can this machine train, and what to do if not. Exit code 0, or 2 with a red row."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterable

from trainer.stack_checks import (
    REPAIR,
    REPOSITORY,
    Finding,
    check_torchx,
    installed_packages,
    machine_findings,
    nvidia_gpus,
    stack_findings,
)

SMOKE_SECONDS = 120
SMOKE_COMMAND = (sys.executable, "-m", "trainer.smoke_step")
COLOURS = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def main() -> None:
    """Print the table; leave with 2 where a row is red."""
    gpus = nvidia_gpus()
    packages = installed_packages()
    findings = [*stack_findings(packages, gpus=gpus), check_torchx(packages), *machine_findings()]
    if any(finding.level == "fail" for finding in findings):
        mend = "mend the red rows first, then: make doctor"
        findings.append(Finding(check="smoke step", level="fail", found="not run", mend=mend))
    else:
        findings.append(smoke_finding(gpus=gpus))
    print_findings(findings)
    failed = sum(finding.level == "fail" for finding in findings)
    sys.exit(2 if failed else 0)


def require_working_stack() -> None:
    """Return where torchrec can be imported; else print what is wrong and leave with exit code 2.

    Takes some milliseconds and imports neither torch nor torchrec; call it before the first import of torchrec.

    Raises:
        SystemExit: code 2; the problem and the command that mends it are on stderr.
    """
    failed = [finding for finding in stack_findings(installed_packages(), gpus=[]) if finding.level == "fail"]
    if failed:
        lines = [f"  {finding.check}: {finding.found}\n      mend: {finding.mend}" for finding in failed]
        print("error: this Python cannot train:", *lines, "  the whole picture: make doctor", sep="\n", file=sys.stderr)
        sys.exit(2)


def smoke_finding(*, gpus: list[str], command: tuple[str, ...] = SMOKE_COMMAND, seconds: float = SMOKE_SECONDS) -> Finding:
    """Run the smoke step in a process of its own; a crash, a hang or a wrong answer is a red row.

    Args:
        gpus: what nvidia-smi lists; PyTorch must then see a GPU too, unless it is a CPU build.
        command: what to run; prints the loss per device as one JSON line.
        seconds: longest time to wait.
    """
    started = time.perf_counter()
    try:
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        found = f"no answer within {seconds:g} s"
        return Finding(check="smoke step", level="fail", found=found, mend=f"is the machine overloaded? If not: {REPAIR}")
    if done.returncode != 0:
        return Finding(check="smoke step", level="fail", found=_failure(done), mend=REPAIR)
    losses = json.loads(done.stdout.splitlines()[-1])
    found = f"forward, backward and gloo on {', '.join(losses)} in {time.perf_counter() - started:.1f} s"
    if gpus and "cuda" not in losses and "fbgemm-gpu" in installed_packages():
        mend = "update the NVIDIA driver to one that knows CUDA 13 (580 or newer)"
        return Finding(check="smoke step", level="fail", found=f"{found}; PyTorch sees no GPU", mend=mend)
    return Finding(check="smoke step", level="ok", found=found)


def _failure(done: subprocess.CompletedProcess[str]) -> str:
    """What ended the smoke step: the signal's name, or the exit code and the last line of its errors."""
    if done.returncode < 0:
        return f"killed by {signal.Signals(-done.returncode).name}"
    lines = done.stderr.strip().splitlines() or ["no message"]
    return f"exit code {done.returncode}: {lines[-1][:300]}"


def print_findings(findings: Iterable[Finding]) -> None:
    """A coloured table; plain lines where rich itself is what is missing."""
    findings = list(findings)
    try:
        from rich.console import Console
        from rich.markup import escape
        from rich.table import Table
    except ImportError:
        for finding in findings:
            print(f"{finding.level:4}  {finding.check}: {finding.found}" + (f"; mend: {finding.mend}" if finding.mend else ""))
        return
    table = Table(title="CrossTower on this machine", title_justify="left")
    for column in ("", "check", "found", "what to do"):
        table.add_column(column, overflow="fold")
    for finding in findings:
        colour = COLOURS[finding.level]
        table.add_row(f"[{colour}]{finding.level}[/]", finding.check, escape(finding.found), escape(finding.mend))
    Console().print(table)


if __name__ == "__main__":
    main()
