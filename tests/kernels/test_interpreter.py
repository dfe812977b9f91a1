"""The interpreter computes what a GPU computes, through the functions that step around its traps."""

import contextlib

import pytest
import torch
import triton
import triton.language as tl

from kernels.interpreter import INTERPRETED, autotune, dot, narrow, row_sums2, row_sums4, run_kernel
from tests.kernels.devices import KERNEL_DEVICE

SIZE = 16
DOT_TOLERANCE = 1e-4 if KERNEL_DEVICE.type == "cuda" else 1e-5
"""A GPU's matrix units cut a sum's last bits off."""


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


@triton.jit
def _summed(x_ptr, out_ptr, SIZE: tl.constexpr):
    row = tl.arange(0, SIZE)
    index, step = row[:, None] * 2 * SIZE + tl.arange(0, 2 * SIZE)[None, :], 2 * SIZE * SIZE
    x0, x1 = tl.load(x_ptr + index), tl.load(x_ptr + index + step)
    four = row_sums4(x0, x1, tl.load(x_ptr + index + 2 * step), tl.load(x_ptr + index + 3 * step))
    two = row_sums2(x0, x1)
    for place in tl.static_range(4):
        tl.store(out_ptr + place * SIZE + row, four[place])
    for place in tl.static_range(2):
        tl.store(out_ptr + (4 + place) * SIZE + row, two[place])


@autotune([triton.Config({"BLOCK": 16}), triton.Config({"BLOCK": 32})], key=["size"])
@triton.jit
def _doubled(x_ptr, out_ptr, size, BLOCK: tl.constexpr):
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out_ptr + index, 2 * tl.load(x_ptr + index, mask=index < size), mask=index < size)


def _product_of_bfloat16(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """On the CPU in float64, which no setting of a GPU's products changes."""
    a, b = (x.cpu().bfloat16().double() for x in (a, b))
    return (a @ b).float()


def test_dot_of_bfloat16_operands_is_exact_up_to_float32_summation():
    torch.manual_seed(0)
    a, b = torch.randn(2, SIZE, SIZE, device=KERNEL_DEVICE)
    out = torch.full_like(a, torch.nan)
    _product[(1,)](a, b, out, SIZE)
    torch.testing.assert_close(out.cpu(), _product_of_bfloat16(a, b), atol=DOT_TOLERANCE, rtol=0)


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


class Recorder:
    """Stands in for a kernel and for `torch.cuda.device_of`: writes down what happens to it."""

    def __init__(self):
        self.events = []

    def __getitem__(self, grid):
        return lambda *arguments, **constants: self.events.append((grid, arguments, constants))

    @contextlib.contextmanager
    def device_of(self, tensor):
        self.events.append(tensor)
        yield
        self.events.append("left")


@pytest.mark.skipif(not INTERPRETED, reason="a compiled kernel is wrapped")
def test_a_kernel_is_launched_on_the_device_of_its_tensors(monkeypatch):
    recorder, tensor = Recorder(), torch.zeros(3)
    monkeypatch.setattr("torch.cuda.device_of", recorder.device_of)
    run_kernel(recorder, (2,), None, tensor, 5, BLOCK=16)
    assert recorder.events == [tensor, ((2,), (None, tensor, 5), {"BLOCK": 16}), "left"]


def test_sums_of_several_tensors_are_those_of_each():
    x_4MN = torch.randn(4, SIZE, 2 * SIZE, device=KERNEL_DEVICE)
    out_6M = torch.full((6, SIZE), torch.nan, device=KERNEL_DEVICE)
    _summed[(1,)](x_4MN, out_6M, SIZE)
    torch.testing.assert_close(out_6M, torch.cat([x_4MN, x_4MN[:2]]).sum(2))


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_a_kernel_runs_where_its_tensors_are_though_another_device_is_current():
    a, b = torch.randn(2, SIZE, SIZE, device="cuda:1")
    out = torch.full_like(a, torch.nan)
    with torch.cuda.device(0):
        run_kernel(_product, (1,), a, b, out, SIZE=SIZE)
    torch.testing.assert_close(out.cpu(), _product_of_bfloat16(a, b), atol=DOT_TOLERANCE, rtol=0)
