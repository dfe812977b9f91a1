"""Compiles every kernel for sm_90 (H100, H200), which takes no GPU, and prints what its machine code needs.

`python -m tests.kernels.ahead_of_time [NAME …]`, in a process of its own: where the interpreter is on there is nothing to compile.
"""

import contextlib
import dataclasses
import importlib
import io
import json
import re
import sys
import time
from dataclasses import dataclass

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from tests.kernels.kernel_case import KernelCase
from tests.kernels.reverse_kernel_cases import REVERSE_CASES
from tests.kernels.scoring_cases import SCORING_CASES

H100 = GPUTarget("cuda", 90, 32)
CASES: dict[str, KernelCase] = {**SCORING_CASES, **REVERSE_CASES}
"""Every kernel at the shape that is served."""


@dataclass(frozen=True, kw_only=True)
class MachineCode:
    """What a thread or a program of a compiled kernel needs."""

    name: str
    registers: int
    spilled_bytes: int
    shared_bytes: int
    seconds: float
    """Of compiling."""


def compiled(name: str, case: KernelCase) -> MachineCode:
    """Compile one kernel for an H100; pointers are taken to be aligned to 16 bytes, as those of whole tensors are."""
    module, attribute = case.kernel.split(":")
    kernel = getattr(importlib.import_module(module), attribute)
    kernel = getattr(kernel, "fn", kernel) if not isinstance(kernel, triton.JITFunction) else kernel
    types = {argument: case.signature.get(argument, "constexpr") for argument in kernel.arg_names}
    aligned = {(place,): [["tt.divisibility", 16]] for place, kind in enumerate(types.values()) if kind.startswith("*")}
    source = ASTSource(fn=kernel, signature=types, constexprs=dict(case.constants), attrs=aligned)
    started, log = time.perf_counter(), io.StringIO()
    with contextlib.redirect_stdout(log), triton.knobs.nvidia.scope(), triton.knobs.compilation.scope():
        triton.knobs.nvidia.dump_ptxas_log = True
        triton.knobs.compilation.always_compile = True  # a cached kernel has no log
        code = triton.compile(source, target=H100, options={"num_warps": case.num_warps, "num_stages": case.num_stages})
    text = log.getvalue()
    return MachineCode(
        name=name,
        registers=_logged(r"Used (\d+) registers", text),
        spilled_bytes=_logged(r"(\d+) bytes spill stores", text) + _logged(r"(\d+) bytes spill loads", text),
        shared_bytes=code.metadata.shared,
        seconds=round(time.perf_counter() - started, 2),
    )


def _logged(pattern: str, text: str) -> int:
    """Largest number that the assembler's log gives; RuntimeError where it gives none."""
    found = [int(number) for number in re.findall(pattern, text)]
    if not found:
        raise RuntimeError(f"ptxas printed nothing like {pattern!r}; its log:\n{text}")
    return max(found)


def main() -> None:
    """A line of JSON per kernel."""
    names = sys.argv[1:] or list(CASES)
    for name in names:
        print(json.dumps(dataclasses.asdict(compiled(name, CASES[name]))), flush=True)


if __name__ == "__main__":
    main()
