"""Every kernel compiles for sm_90 without a GPU, within its bounds of registers, spills and shared memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernels.ahead_of_time import CASES, KernelCase

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def machine_code():
    """Kernel's name -> what its machine code needs; one process without the interpreter compiles them all."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    process = subprocess.run(
        [sys.executable, "-m", "tests.kernels.ahead_of_time"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr[-4000:]
    return {line["name"]: line for line in map(json.loads, process.stdout.splitlines())}


@pytest.mark.parametrize(("name", "case"), CASES.items(), ids=list(CASES))
def test_a_kernel_compiles_for_sm_90_within_its_bounds(name: str, case: KernelCase, machine_code):
    found = machine_code[name]
    print(found)
    assert found["registers"] <= case.max_registers
    assert found["spilled_bytes"] <= case.max_spilled_bytes
    assert found["shared_bytes"] <= case.max_shared_bytes
