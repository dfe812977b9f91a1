"""A kernel is checked before it is timed, and a floor is the larger of its two bounds."""

import subprocess

import pytest
import torch

from benchmarks.kernels import run as benchmark
from benchmarks.kernels.case import Case, Op, Work
from benchmarks.kernels.diffusion_reverse import products_of_step
from benchmarks.kernels.floor import Peak, floor_of
from benchmarks.kernels.registry import OPS
from benchmarks.kernels.verify import problems
from benchmarks.result_rows import read_rows
from models.layers.unet1d import UNet1d, UNetConfig
from trainer.errors import UserError

EXPECTED = torch.tensor([1.0, -4.0])
WORK = Work(num_bytes=1000, flops=3000, precision="float32", num_programs=2)
CPU = torch.device("cpu")


def case(kernel, **fields):
    tensors = {"reference": lambda: (EXPECTED,), "kernel": kernel, "tolerance": 0.01}
    return Case(**{"label": "a case", "work": WORK} | tensors | fields)


def failing():
    raise RuntimeError("out of resource: shared memory")


def test_a_kernel_within_its_tolerance_of_the_largest_magnitude_passes():
    assert problems(case(lambda: (EXPECTED + 0.039,))) == []


@pytest.mark.parametrize(
    ("kernel", "problem"),
    [
        (lambda: (EXPECTED + 0.041,), "tensor 0 is off by 0.01"),
        (lambda: (EXPECTED[:1],), "tensor 0 has shape (1,), expected (2,)"),
        (lambda: (torch.tensor([1.0, torch.nan]),), "tensor 0 has entries that are not finite"),
        (lambda: (EXPECTED, EXPECTED), "2 tensors, expected 1"),
        (failing, "RuntimeError: out of resource"),
    ],
)
def test_a_kernel_that_is_wrong_is_described(kernel, problem):
    (found,) = problems(case(kernel))
    assert problem in found


def test_a_reference_that_fails_is_described_too():
    assert problems(case(lambda: (EXPECTED,), reference=failing)) == ["RuntimeError: out of resource: shared memory"]


def test_a_floor_is_the_larger_of_memory_and_arithmetic_on_the_units_that_can_share_the_work():
    memory_bound, one_unit = Peak(1e3, {"float32": 1e9}), Peak(1e9, {"float32": 1e4})
    assert floor_of(WORK, memory_bound, num_units=2) == pytest.approx(1.0)
    assert floor_of(WORK, one_unit, num_units=2) == pytest.approx(0.3)
    assert floor_of(WORK, one_unit, num_units=8) == pytest.approx(1.2)  # two programs keep a quarter of the units busy


def test_no_speed_up_is_told_of_a_kernel_that_fails_its_check():
    times = (0.001, 0.002, 0.004)
    told = benchmark.figures(case(failing), times, floor=0.0005, eager=0.006)
    assert (told["p20_us"], told["p50_us"], told["p80_us"]) == ("1000.0", "2000.0", "4000.0")
    assert (told["percent_of_floor"], told["speed_up"]) == ("25.0", "3.00")
    silent = benchmark.figures(case(failing), times, floor=None, eager=None)
    assert (silent["percent_of_floor"], silent["speed_up"]) == ("", "")


@pytest.mark.skipif(torch.cuda.is_available(), reason="what a machine without a GPU does")
def test_without_a_gpu_references_are_timed_and_the_rows_say_so(tmp_path, monkeypatch, capsys):
    op = Op(summary="an operator", cases=lambda _shapes, _device: iter([case(failing)]))
    monkeypatch.setattr(benchmark, "OPS", {"an_op": op})
    for _ in range(2):
        benchmark.run(benchmark.Arguments(op="an_op", shapes="paper", out=tmp_path, seconds=0.01))
    rows = read_rows(tmp_path / "kernels.csv")
    assert [(row["op"], row["variant"], row["gpu"], row["check"]) for row in rows] == [
        ("an_op", "eager", "none", "not run: no GPU")
    ] * 2
    assert all(float(row["p50_us"]) >= 0 and row["speed_up"] == "" and row["commit"] and row["triton"] for row in rows)
    assert "No GPU here" in capsys.readouterr().out


def test_a_variant_of_several_calls_tells_the_time_of_one(monkeypatch):
    calls = []

    def kernel():
        calls.append(1)
        return (EXPECTED,)

    twice = benchmark.Variant("twice", lambda: lambda: benchmark._repeated(kernel), benchmark.WARM_CALLS)
    monkeypatch.setattr(benchmark, "_variants", lambda _case, **_options: [twice])
    monkeypatch.setattr(benchmark, "quantiles", lambda call, **_options: call() and (20e-6, 40e-6, 60e-6))
    (row,) = benchmark.measure(case(kernel), device=CPU, seconds=0.01)
    assert len(calls) == benchmark.WARM_CALLS
    assert (row["variant"], row["p50_us"]) == ("twice", f"{40 / benchmark.WARM_CALLS:.1f}")


def test_no_case_is_begun_when_the_minutes_are_up(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        benchmark, "OPS", {"an_op": Op(summary="an operator", cases=lambda _shapes, _device: iter([case(failing)]))}
    )
    benchmark.run(benchmark.Arguments(op="an_op", shapes="paper", out=tmp_path, minutes=1e-9))
    assert read_rows(tmp_path / "kernels.csv") == []
    assert "a case and what follows: not measured" in capsys.readouterr().out


def test_every_operator_has_its_own_process_and_one_that_fails_leaves_the_others_theirs(tmp_path, monkeypatch):
    started = []

    def run(command, **_options):
        started.append(command[3:])
        return subprocess.CompletedProcess(command, returncode=int("--op=lss_score" in command))

    monkeypatch.setattr(benchmark.subprocess, "run", run)
    with pytest.raises(RuntimeError, match="the processes of lss_score failed"):
        benchmark.run(benchmark.Arguments(all=True, shapes="paper", out=tmp_path, minutes=4.0))
    assert [command[0] for command in started] == [f"--op={name}" for name in OPS]
    assert started[0][1:] == [f"--out={tmp_path}", "--seconds=0.3", "--minutes=1.00", "--shapes=paper"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="what a machine without a GPU does")
@pytest.mark.parametrize("name", OPS)
def test_every_operators_first_case_has_a_reference_that_runs(name):
    first = next(OPS[name].cases("paper", CPU))
    assert all(torch.isfinite(tensor).all() for tensor in first.reference())
    assert first.work.num_bytes > 0
    assert first.work.flops > 0


@pytest.mark.parametrize(("arguments", "message"), [({}, "pass --all, or --op NAME"), ({"op": "lss"}, "--op lss: expected one of")])
def test_a_benchmark_of_nothing_is_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        benchmark.run(benchmark.Arguments(**arguments))


def test_the_reverse_process_counts_no_more_products_than_the_plain_unet_does():
    dim, positions = 32, 52
    unet, counted = UNet1d(UNetConfig(), dim=dim), []
    for block in unet.modules():
        if hasattr(block, "conv"):
            block.conv.register_forward_hook(lambda conv, _inputs, output: counted.append(conv.weight.numel() * output.shape[-1]))
    unet(*torch.zeros(2, 1, positions, dim), torch.ones(1, positions, dtype=torch.bool), torch.ones(1, dtype=torch.int64))
    shared_condition = 3 * positions * dim * dim
    twice_read = (positions // 2) * 64 * 64 + positions * 64 * 32  # of three taps on an up-sampled level, two are one
    assert products_of_step(positions, dim) == sum(counted) - shared_condition - twice_read
