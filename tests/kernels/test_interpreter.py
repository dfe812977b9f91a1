"""The interpreter computes what a GPU computes, through the functions that step around its traps."""

import pytest
import torch
import triton
import triton.language as tl

from kernels.interpreter import INTERPRETED, autotune, dot, launchable, narrow
from tests.kernels.devices import KERNEL_DEVICE

SIZE = 16


@triton.jit
def _product(a_ptr, b_ptr, out_ptr, SIZE: tl.constexpr):
    index = tl.arange(0, SIZE)[:, None] * SIZE + tl.arange(0, SIZE)[None, :]
    a = narrow(tl.load(a_ptr + index), tl.bfloat16)
    b = narrow(tl.load(b_ptr + index), tl.bfloat16)
    tl.store(out_ptr + index, dot(a, b, tl.zeros((SIZE, SIZE), tl.float32)))


@triton.jit
def _narrowed(x_ptr, out_ptr, SIZE: tl.constexpr):
    index = tl.arange(0, SIZE)
    tl.store(out_ptr + index, narrow(tl.load(x_ptr + index), tl.bfloat16).to(tl.float32))


@autotune([triton.Config({"BLOCK": 16}), triton.Config({"BLOCK": 32})], key=["size"])
@triton.jit
def _doubled(x_ptr, out_ptr, size, BLOCK: tl.constexpr):
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out_ptr + index, 2 * tl.load(x_ptr + index, mask=index < size), mask=index < size)


def test_dot_of_bfloat16_operands_is_exact_up_to_float32_summation():
    torch.manual_seed(0)
    a, b = torch.randn(2, SIZE, SIZE, device=KERNEL_DEVICE)
    out = torch.full_like(a, torch.nan)
    _product[(1,)](a, b, out, SIZE)
    torch.testing.assert_close(out, a.bfloat16().float() @ b.bfloat16().float(), atol=1e-5, rtol=0)


def test_narrowing_rounds_to_the_nearest_and_ties_to_even():
    tie = 1 + 2.0**-8  # halfway between 1 and its neighbour
    special = [tie, tie + 2.0**-7, -tie, 0.0, -0.0, torch.inf, -torch.inf, torch.nan, 3.4e38]
    x = torch.tensor([*special, *torch.randn(32 - len(special)).tolist()], device=KERNEL_DEVICE)
    out = torch.full_like(x, torch.nan)
    _narrowed[(1,)](x, out, 32)
    torch.testing.assert_close(out, x.bfloat16().float(), rtol=0, atol=0, equal_nan=True)


def test_an_autotuned_kernel_runs():
    x = torch.randn(50, device=KERNEL_DEVICE)
    out = torch.full_like(x, torch.nan)
    _doubled[lambda meta: (triton.cdiv(50, meta["BLOCK"]),)](x, out, 50)
    assert torch.equal(out, 2 * x)


@pytest.mark.skipif(not INTERPRETED, reason="a compiled kernel is wrapped")
def test_the_interpreters_kernel_is_launched_as_it_is():
    assert launchable(_product) is _product
