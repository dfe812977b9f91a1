"""What differs in Triton's interpreter (TRITON_INTERPRET=1, tensors on the CPU), kept out of the kernels.

Its traps: a dot of bfloat16 operands returns garbage, a cast of float32 to bfloat16 cuts digits off instead of rounding,
`triton.autotune` finds no driver, `wrap_triton` knows compiled kernels only, and a dot of less than MIN_DOT passes. So kernels use
`dot` and `narrow` from here, and launchers `autotune` and `launchable`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import triton
import triton.language as tl

INTERPRETED: bool = triton.knobs.runtime.interpret
"""Whether kernels that are decorated in this process run in the interpreter."""
_IN_INTERPRETER = tl.constexpr(INTERPRETED)
MIN_DOT = 16
"""Least extent of each side of a dot on a GPU."""


@triton.jit
def dot(a_MK, b_KN, accumulator_MN, PRECISION: tl.constexpr = "ieee"):
    """a·b + accumulator in float32; operands of one type, float32 ones multiplied with PRECISION (`ieee`, `tf32x3`, `tf32`)."""
    if _IN_INTERPRETER:
        # exact: a product of two bfloat16 fits a float32
        a_MK = a_MK.to(tl.float32)
        b_KN = b_KN.to(tl.float32)
    return tl.dot(a_MK, b_KN, accumulator_MN, input_precision=PRECISION, out_dtype=tl.float32)


@triton.jit
def narrow(x, DTYPE: tl.constexpr):
    """float32 x in DTYPE, rounded to the nearest, ties to even."""
    if _IN_INTERPRETER and tl.bfloat16 == DTYPE:
        bits = x.to(tl.uint32, bitcast=True)
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
        x = tl.where(x == x, bits.to(tl.float32, bitcast=True), x)
    return x.to(DTYPE)


def autotune(configs: Sequence[triton.Config], key: Sequence[str]) -> Callable[[Any], Any]:
    """triton.autotune over `configs`, once per value of the arguments `key`; in the interpreter the first of them."""
    if not INTERPRETED:
        return triton.autotune(configs=list(configs), key=list(key))
    return triton.heuristics({name: _constant(value) for name, value in configs[0].kwargs.items()})


def _constant(value: object) -> Callable[[dict[str, object]], object]:
    return lambda _: value


def launchable(kernel: Any) -> Any:
    """The kernel in the form that a `torch.library.triton_op` launches: kernel[grid](…)."""
    return kernel if INTERPRETED else torch.library.wrap_triton(kernel)
