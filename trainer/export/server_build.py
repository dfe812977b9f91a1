"""Builds the C++ server against the installed torch wheel's libtorch: `make server`, or `python -m trainer.export.server_build`."""

import os
import shutil
import subprocess
from pathlib import Path

import torch

from trainer.cli import one_screen_errors
from trainer.console import console
from trainer.errors import UserError

SOURCES = Path(__file__).parent / "server"
BUILD = Path(__file__).parents[2] / "build" / "server"
PACKAGES = "g++ make cmake libcpp-httplib-dev nlohmann-json3-dev libssl-dev"
"""What Debian and Ubuntu call everything that a build needs beside the torch wheel."""
INSTALL = f"apt-get install --no-install-recommends {PACKAGES}"


def build_server(folder: Path = BUILD, *, target: str = "crosstower_server", sanitize: bool = False) -> Path:
    """Build what has changed since the last time; the program.

    Args:
        folder: where CMake keeps what it builds.
        target: `crosstower_server`, or `unit_tests`, which need no libtorch.
        sanitize: with address and undefined-behaviour sanitizers; wants a folder of its own.

    Raises:
        UserError: the compiler, CMake or a package is missing; the message has the command that installs them.
        RuntimeError: the sources don't compile.
    """
    absent = [program for program in ("cmake", "make", "c++") if shutil.which(program) is None]
    if absent:
        raise UserError(f"the C++ server can't be built: {', '.join(absent)} not found; run: {INSTALL}")
    # every core, but where the caller's environment says otherwise
    environment = {"CMAKE_BUILD_PARALLEL_LEVEL": str(os.cpu_count() or 1)} | os.environ
    options = [f"-DCMAKE_PREFIX_PATH={torch.utils.cmake_prefix_path}", f"-DCROSSTOWER_SANITIZE={'ON' if sanitize else 'OFF'}"]
    for command in (
        ["cmake", "-G", "Unix Makefiles", "-S", str(SOURCES), "-B", str(folder), *options],
        ["cmake", "--build", str(folder), "--target", target],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        missing = [line.strip() for line in done.stderr.splitlines() if "not found: install" in line]
        if missing:
            raise UserError(f"the C++ server can't be built: {' '.join(missing)}; run: {INSTALL}")
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{(done.stdout + done.stderr)[-8000:]}")
    return folder / target


if __name__ == "__main__":
    with one_screen_errors():
        console.print(f"building in {BUILD}; the first time takes about a minute")
        console.print(f"built {build_server()}")
