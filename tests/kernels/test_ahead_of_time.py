"""Every kernel compiles for sm_90 without a GPU, within its bounds of registers, spills and shared memory."""

import json
import re

import pytest

from tests.kernels.ahead_of_time import CASES, KernelCase
from tests.kernels.devices import ROOT, printed_without_interpreter

pytestmark = pytest.mark.timeout(1800)  # compiling all kernels takes a busy core many minutes


@pytest.fixture(scope="module")
def machine_code():
    """Kernel's name -> what its machine code needs."""
    lines = printed_without_interpreter("tests.kernels.ahead_of_time").splitlines()
    return {line["name"]: line for line in map(json.loads, lines)}


@pytest.mark.parametrize(("name", "case"), CASES.items(), ids=list(CASES))
def test_a_kernel_compiles_for_sm_90_within_its_bounds(name: str, case: KernelCase, machine_code):
    found = machine_code[name]
    print(found)
    assert found["registers"] <= case.max_registers
    assert found["spilled_bytes"] <= case.max_spilled_bytes
    assert found["shared_bytes"] <= case.max_shared_bytes


def test_no_kernel_is_left_out():
    written = {
        f"{'.'.join(path.relative_to(ROOT).with_suffix('').parts)}:{name}"
        for path in ROOT.glob("kernels/*/triton_*.py")
        for name in re.findall(r"^def (\w+_kernel)\(", path.read_text(), flags=re.MULTILINE)
    }
    assert len(written) > 5
    assert written == {case.kernel for case in CASES.values()}


def test_export_carries_the_reverse_process_as_an_operator_for_batches_of_any_size():
    assert "crosstower.diffusion_reverse.default" in printed_without_interpreter("tests.kernels.exported_reverse")
