"""Make a virtual environment and install the pinned stack into it; run again, it completes what is missing.

Usage: python3 requirements/install.py [--stack auto|cpu|cuda] [--venv .venv] [--recreate]

Needs Python 3.11 to 3.13 with venv, and nothing else. Exit codes: 0 ready, 2 something that only the user can mend.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

LOCKS = Path(__file__).resolve().parent
ROOT = LOCKS.parent
NO_CPU_WHEEL = re.compile(r"(No matching distribution found for|Cannot install) torch==")
"""pip's words for it; the second where a constraint file names torch too."""
FREE_GB = {"cpu": 4, "cpu-default-index": 9, "cuda": 12}


class SetupError(Exception):
    """Something that only the user can mend; printed as one line."""


def main() -> None:
    """Parse the command line and make the environment ready."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--stack", choices=["auto", "cpu", "cuda"], default="auto", help="auto: the installed, or by nvidia-smi")
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv")
    parser.add_argument("--recreate", action="store_true", help="empty the environment first")
    arguments = parser.parse_args()
    try:
        with Path(__file__).open() as script:
            fcntl.flock(script, fcntl.LOCK_EX)  # two `make` commands at once: the second waits, then finds everything done
            make_ready(arguments.venv, stack=arguments.stack, recreate=arguments.recreate)
    except SetupError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(130)


def make_ready(venv: Path, *, stack: str, recreate: bool) -> None:
    """Create and fill `venv` unless its stamp says that exactly this has been done; SetupError says what the user can do."""
    stack = choose_stack(venv, recreate=recreate) if stack == "auto" else stack
    stamp = venv / "crosstower-stack"
    content = f"{stack} {fingerprint()}\n"
    if not recreate and stamp.exists() and stamp.read_text() == content and (venv / "bin" / "python").exists():
        return
    prepare_venv(venv, stack=stack, recreate=recreate)
    stamp.unlink(missing_ok=True)
    install(venv, stack=stack)
    stamp.write_text(content)
    print(f"{venv} is ready.", flush=True)


def choose_stack(venv: Path, *, recreate: bool) -> str:
    """The stack that `venv` holds, whatever nvidia-smi says today; `detect_stack` where it holds none or is made again."""
    detected, installed = detect_stack(), "" if recreate else installed_stack(venv)
    if installed and installed != detected:
        found = "lists a GPU" if detected == "cuda" else "lists no GPU"
        print(
            f"nvidia-smi {found}, but {venv} holds the {installed} stack: it is kept. To change it: make repair STACK={detected}",
            flush=True,
        )
    return installed or detected


def installed_stack(venv: Path) -> str:
    """`cpu` or `cuda`, by the stamp of a finished install or the fbgemm build of an unfinished one; empty where neither tells."""
    stamp = venv / "crosstower-stack"
    word = stamp.read_text().split(" ")[0] if stamp.exists() else ""
    if word in ("cpu", "cuda"):
        return word
    builds = {"cpu": "fbgemm_gpu_cpu-*.dist-info", "cuda": "fbgemm_gpu-*.dist-info"}
    found = [stack for stack, name in builds.items() if any(venv.glob(f"lib/python3.*/site-packages/{name}"))]
    return found[0] if len(found) == 1 else ""


def detect_stack() -> str:
    """`cuda` where nvidia-smi answers, else `cpu`."""
    program = shutil.which("nvidia-smi")
    return "cuda" if program and subprocess.run([program, "-L"], capture_output=True).returncode == 0 else "cpu"


def fingerprint() -> str:
    """sha256 over the lock files, names and contents."""
    digest = hashlib.sha256()
    for path in sorted(LOCKS.glob("*.txt")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def prepare_venv(venv: Path, *, stack: str, recreate: bool) -> None:
    """Leave a working `venv` with pip and no package of the other stack; emptied where Python fails or a package clashes."""
    python = venv / "bin" / "python"
    if python.exists() and not recreate:
        reason = f"{python} does not run" if run_quietly(python, "-c", "") else clashing_package(venv, stack=stack)
        if not reason:
            ensure_pip(python)
            return
        print(f"{reason}: making {venv} again.", flush=True)
    if not (3, 11) <= sys.version_info[:2] < (3, 14):
        found = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise SetupError(f"{sys.executable} is Python {found}; 3.11, 3.12 or 3.13 is needed: install it, run this script with it")
    made = subprocess.run([sys.executable, "-m", "venv", "--clear", str(venv)], capture_output=True, text=True)
    if made.returncode != 0:
        name = f"python3.{sys.version_info.minor}-venv"
        detail = (made.stderr or made.stdout).strip().splitlines()[-1:] or ["no message"]
        raise SetupError(f"{sys.executable} cannot make {venv} ({detail[0]}). On Debian and Ubuntu: apt install {name}")


def ensure_pip(python: Path) -> None:
    """Give an environment that was made without pip (by uv, say) one; SetupError where that fails. Nothing is removed."""
    if not run_quietly(python, "-m", "pip", "--version"):
        return
    problem = run_quietly(python, "-m", "ensurepip", "--upgrade") or run_quietly(python, "-m", "pip", "--version")
    if problem:
        raise SetupError(
            f"{python} has no working pip, and ensurepip cannot mend that ({problem}). Put pip into it (uv pip install --python "
            f"{python} pip), or empty the environment and install again: make repair"
        )
    print(f"{python} had no pip: added the one that Python brings along.", flush=True)


def run_quietly(python: Path, *arguments: str) -> str:
    """Empty where `python` with `arguments` succeeds; else the last line of what it says."""
    try:
        done = subprocess.run([str(python), *arguments], capture_output=True, text=True)
    except OSError as error:
        return str(error)
    lines = (done.stderr or done.stdout).strip().splitlines() or [f"exit code {done.returncode}"]
    return "" if done.returncode == 0 else lines[-1]


def clashing_package(venv: Path, *, stack: str) -> str:
    """What in `venv` pip would wrongly keep when asked for `stack`; empty if nothing.

    Both fbgemm builds fill one folder, so removing either breaks the other; and `torch==2.13.0` is satisfied by 2.13.0+cpu.
    """
    pattern = {"cpu": r"fbgemm_gpu-\d", "cuda": r"fbgemm_gpu_cpu-|torch-[^-]*\+cpu\."}[stack]
    names = sorted(path.name for path in venv.glob("lib/python3.*/site-packages/*.dist-info"))
    found = [name.removesuffix(".dist-info") for name in names if re.match(pattern, name)]
    return f"{found[0]} is not part of the {stack} stack" if found else ""


def install(venv: Path, *, stack: str) -> None:
    """Install the lock of `stack`; on a CPU without PyTorch's CPU wheels, say so once and take the default build of torch."""
    print(f"Installing the {stack} stack into {venv} (once; one to three minutes on a fast line).", flush=True)
    status, output = run_pip(venv, lock=stack)
    if status != 0 and stack == "cpu" and NO_CPU_WHEEL.search(output):
        print(
            "pip finds no CPU build of torch where it is configured to look: taking the default build, about 3 GB more of CUDA\n"
            "libraries. To save them, put the CPU wheel index named on PyTorch's Get Started page into PIP_EXTRA_INDEX_URL,\n"
            "then: make repair",
            flush=True,
        )
        status, output = run_pip(venv, lock="cpu-default-index")
    if status != 0:
        print(output[-3000:], file=sys.stderr)
        raise SetupError("pip failed as above (no network? disk full?). Run the same command again: it goes on where it stopped.")


def run_pip(venv: Path, *, lock: str) -> tuple[int, str]:
    """Install one lock file, showing the large downloads as they start; return pip's exit status and all of its output."""
    free_gb = shutil.disk_usage(venv).free / 1e9
    if free_gb < FREE_GB[lock]:
        raise SetupError(f"{venv} is on a disk with {free_gb:.1f} GB free; the install needs about {FREE_GB[lock]} GB. Free some.")
    options = ["--no-deps", "--no-input", "--no-warn-conflicts", "--disable-pip-version-check", "--progress-bar", "off"]
    command = [str(venv / "bin" / "python"), "-m", "pip", "install", *options, "-r", str(LOCKS / f"{lock}.txt")]
    lines = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            large = re.match(r"\s*Downloading (\S+).* \((\d+\.\d+ [MG]B)\)", line)
            if large and float(large[2].split()[0]) >= 20:
                print(f"  {large[1].rpartition('/')[2]} ({large[2]})", flush=True)
            elif line.startswith("Installing collected packages"):
                print(f"  unpacking {line.count(',') + 1} packages", flush=True)
    return process.returncode, "".join(lines)


if __name__ == "__main__":
    main()
