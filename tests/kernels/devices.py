"""Where tests run Triton kernels: on the GPU, or on the CPU in the interpreter, which tests/conftest.py turns on without a GPU."""

import os
import subprocess
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]
KERNEL_DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def printed_without_interpreter(module: str) -> str:
    """What `python -m module` prints in a process where kernels are compiled; AssertionError with its last words where it fails."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", module]
    process = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr[-4000:]
    return process.stdout
