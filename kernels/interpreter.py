"""What differs in Triton's interpreter (TRITON_INTERPRET=1, tensors on the CPU), kept out of the kernels.

Its traps: a dot of bfloat16 operands returns garbage, a cast of float32 to bfloat16 cuts digits off instead of rounding, a sum of
several tensors at once goes number by number, `triton.autotune` finds no driver, `wrap_triton` knows compiled kernels only, a dot
of less than MIN_DOT passes. So kernels use `dot`, `narrow` and `row_sums…` from here, and launchers `autotune` and `run_kernel`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import triton
import triton.language as tl

INTERPRETED: bool = triton.knobs.runtime.interpret
"""Whether kernels that are decorated in this process run in the interpreter."""
IN_INTERPRETER = tl.constexpr(INTERPRETED)
"""The same, for kernels."""
MIN_DOT = 16
"""Least extent of each side of a dot on a GPU."""


@triton.jit
def dot(a_MK, b_KN, accumulator_MN, PRECISION: tl.constexpr = "ieee"):
    """a·b + accumulator in float32; operands of one type, float32 ones multiplied with PRECISION (`ieee`, `tf32x3`, `tf32`)."""
    if IN_INTERPRETER:
        # exact: a product of two bfloat16 fits a float32
        a_MK = a_MK.to(tl.float32)
        b_KN = b_KN.to(tl.float32)
    return tl.dot(a_MK, b_KN, accumulator_MN, input_precision=PRECISION, out_dtype=tl.float32)


@triton.jit
def narrow(x, DTYPE: tl.constexpr):
    """float32 x in DTYPE, rounded to the nearest, ties to even."""
    if IN_INTERPRETER and tl.bfloat16 == DTYPE:
        bits = x.to(tl.uint32, bitcast=True)
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
        x = tl.where(x == x, bits.to(tl.float32, bitcast=True), x)
    return x.to(DTYPE)


@triton.jit
def _add2(a0, a1, b0, b1):
    return a0 + b0, a1 + b1


@triton.jit
def _add4(a0, a1, a2, a3, b0, b1, b2, b3):
    return a0 + b0, a1 + b1, a2 + b2, a3 + b3


@triton.jit
def row_sums2(x0_MN, x1_MN):
    """Sums over the second axis, [M] each, with the barriers of one sum where warps have to exchange theirs."""
    return (tl.sum(x0_MN, 1), tl.sum(x1_MN, 1)) if IN_INTERPRETER else tl.reduce((x0_MN, x1_MN), 1, _add2)


@triton.jit
def row_sums4(x0_MN, x1_MN, x2_MN, x3_MN):
    """The same of four."""
    if IN_INTERPRETER:
        sums = (tl.sum(x0_MN, 1), tl.sum(x1_MN, 1), tl.sum(x2_MN, 1), tl.sum(x3_MN, 1))
    else:
        sums = tl.reduce((x0_MN, x1_MN, x2_MN, x3_MN), 1, _add4)
    return sums


def autotune(configs: Sequence[triton.Config], key: Sequence[str]) -> Callable[[Any], Any]:
    """triton.autotune over `configs`, once per value of the arguments `key`; in the interpreter the first of them."""
    if not INTERPRETED:
        return triton.autotune(configs=list(configs), key=list(key))
    return triton.heuristics({name: _constant(value) for name, value in configs[0].kwargs.items()})


def _constant(value: object) -> Callable[[dict[str, object]], object]:
    return lambda _: value


def run_kernel(kernel: Any, grid: tuple[Any, ...], *arguments: Any, **constants: Any) -> None:
    """Launch kernel[grid] on its tensors' device, which need not be the current one, as a `torch.library.triton_op` has to."""
    form = kernel if INTERPRETED else torch.library.wrap_triton(kernel)
    with torch.cuda.device_of(next(argument for argument in arguments if isinstance(argument, torch.Tensor))):
        form[grid](*arguments, **constants)
