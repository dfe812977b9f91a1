"""Times of the kernels against plain PyTorch: `python -m benchmarks.kernels.run --all --out DIR`.

Each case is checked first (benchmarks.kernels.verify); a kernel that fails its check is timed, but no speed-up is told. Times are
of warm calls, on a GPU with its L2 cache emptied before each (but those of `…_warm`: 20 calls in one graph). Without a GPU the
references alone are timed, which says nothing of the kernels. With --all each operator has a process of its own, since a kernel
that reads where it must not ends its process's work on the GPU.
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import torch
import triton
import tyro

from benchmarks.kernels.case import Call, Case, Shapes, Tensors
from benchmarks.kernels.floor import floor_seconds
from benchmarks.kernels.registry import OPS
from benchmarks.kernels.verify import problems
from benchmarks.readme import RESULTS
from benchmarks.result_rows import append_rows
from kernels.cuda_graph import captured
from trainer.cli import one_screen_errors
from trainer.console import console
from trainer.errors import UserError
from trainer.provenance import provenance

FILE = "kernels.csv"
WARM_CALLS = 20
"""Calls in a row of which each finds in the L2 what the one before left there."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What to measure."""

    list: bool = False
    """Name the operators, measure nothing."""
    op: str | None = None
    """One operator."""
    all: bool = False
    """Every operator."""
    shapes: Shapes | None = None
    """Cases of these shapes alone; all of them by default."""
    out: Path = RESULTS
    """Folder whose kernels.csv gets a row per case and variant."""
    seconds: float = 0.3
    """Time spent on each variant, about, after its warm-up."""
    minutes: float = 8.0
    """No case is begun after them; with --all, operators share them."""

    def __post_init__(self) -> None:
        for name in ("seconds", "minutes"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}={getattr(self, name)}, expected more than 0")


def main() -> None:
    """Command line."""
    arguments = tyro.cli(Arguments)
    with one_screen_errors():
        run(arguments)


def run(arguments: Arguments) -> None:
    """Measure what is asked for.

    Raises:
        UserError: nothing is asked for, or an operator that there is not.
    """
    if arguments.list:
        for name, op in OPS.items():
            console.print(f"{name}: {op.summary}")
        return
    if arguments.op is None and not arguments.all:
        raise UserError("nothing to measure: pass --all, or --op NAME (--list names them)")
    if arguments.op is not None and arguments.op not in OPS:
        raise UserError(f"--op {arguments.op}: expected one of {', '.join(OPS)}")
    if arguments.op is None:
        _run_all(arguments)
    else:
        _run_op(arguments.op, arguments)


def _run_all(arguments: Arguments) -> None:
    """RuntimeError where an operator's process fails, after the others have run."""
    ends, failed = time.monotonic() + 60 * arguments.minutes, []
    for place, name in enumerate(OPS):
        minutes = max(0.1, (ends - time.monotonic()) / 60 / (len(OPS) - place))
        options = {"op": name, "out": arguments.out.resolve(), "seconds": arguments.seconds, "minutes": f"{minutes:.2f}"}
        if arguments.shapes is not None:
            options["shapes"] = arguments.shapes
        command = [sys.executable, "-m", "benchmarks.kernels.run", *(f"--{option}={value}" for option, value in options.items())]
        if subprocess.run(command, cwd=Path(__file__).parents[2], check=False).returncode != 0:
            failed.append(name)
    if failed:
        raise RuntimeError(f"the processes of {', '.join(failed)} failed, see above; the rows of the others are written")


def _run_op(name: str, arguments: Arguments) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        console.print("No GPU here: the references are timed on the CPU; the kernels are neither checked nor timed.")
    ends = time.monotonic() + 60 * arguments.minutes
    for shapes in [arguments.shapes] if arguments.shapes is not None else ("paper", "large"):
        for case in OPS[name].cases(shapes, device):
            if time.monotonic() > ends:
                console.print(
                    f"{name}, {case.label} and what follows: not measured, {arguments.minutes} minutes are up (--minutes)"
                )
                return
            rows = measure(case, device=device, seconds=arguments.seconds)
            append_rows(arguments.out / FILE, [{"op": name, "shapes": shapes, **row, **_origin()} for row in rows])
            for row in rows:
                console.print(_line(name, row))


def _origin() -> dict[str, str]:
    return {**provenance(), "triton": metadata.version("triton")}


class Variant(NamedTuple):
    """One way to compute a case."""

    name: str
    prepare: Callable[[], Call]
    """Makes the call to time."""
    calls: int = 1
    """Of the case in one such call."""


def measure(case: Case, *, device: torch.device, seconds: float) -> list[dict[str, str]]:
    """A row per variant; a variant that cannot run (a capture, a compilation) leaves its error and the others alone."""
    on_gpu = device.type == "cuda"
    found = problems(case) if on_gpu else ["not run: no GPU"]
    rows: list[dict[str, str]] = []
    eager = None
    for variant in _variants(case, on_gpu=on_gpu):
        row = {"case": case.label, "variant": variant.name, "device": device.type, "check": "; ".join(found) or "passed"}
        try:
            p20, p50, p80 = quantiles(variant.prepare(), device=device, seconds=seconds)
        except Exception as error:
            rows.append(row | {"check": f"{type(error).__name__}: {str(error)[:200]}"})
            continue
        times = p20 / variant.calls, p50 / variant.calls, p80 / variant.calls
        eager = times[1] if variant.name == "eager" else eager
        rows.append(row | figures(case, times, floor=floor_seconds(case.work, device), eager=None if found else eager))
    return rows


def figures(case: Case, times: tuple[float, float, float], *, floor: float | None, eager: float | None) -> dict[str, str]:
    """A row's numbers.

    Args:
        case: what was timed.
        times: seconds, 20th, 50th and 80th percentile.
        floor: seconds that the work takes at least; None where that is unknown.
        eager: the reference's median; None tells no speed-up.
    """
    p20, p50, p80 = times
    return {
        "p20_us": f"{1e6 * p20:.1f}",
        "p50_us": f"{1e6 * p50:.1f}",
        "p80_us": f"{1e6 * p80:.1f}",
        "gb_per_s": f"{case.work.num_bytes / p50 / 1e9:.1f}",
        "tflop_per_s": f"{case.work.flops / p50 / 1e12:.3f}",
        "floor_us": "" if floor is None else f"{1e6 * floor:.1f}",
        "percent_of_floor": "" if floor is None else f"{100 * floor / p50:.1f}",
        "speed_up": "" if eager is None else f"{eager / p50:.2f}",
    }


def _variants(case: Case, *, on_gpu: bool) -> Iterator[Variant]:
    yield Variant("eager", lambda: case.reference)
    if on_gpu:
        yield Variant("triton", lambda: case.kernel)
        yield Variant("triton_graph", lambda: captured(case.kernel))
        yield Variant("triton_graph_warm", lambda: captured(lambda: _repeated(case.kernel)), WARM_CALLS)
        yield Variant("cuda_graph", lambda: case.graph or captured(case.reference))
        yield Variant("compile", lambda: _compiled(case))


def _repeated(call: Call) -> Tensors:
    """The last of WARM_CALLS calls' tensors."""
    for _ in range(WARM_CALLS - 1):
        call()
    return call()


def _compiled(case: Case) -> Call:
    torch.compiler.reset()  # what other cases compiled counts towards the limit after which code runs uncompiled
    return case.compiled or torch.compile(case.reference)


def quantiles(call: Call, *, device: torch.device, seconds: float) -> tuple[float, float, float]:
    """Seconds of a warm call: 20th, 50th and 80th percentile."""
    if device.type == "cuda":
        call()
        milliseconds = triton.testing.do_bench(call, warmup=50, rep=int(1000 * seconds), quantiles=[0.2, 0.5, 0.8])
        return milliseconds[0] / 1e3, milliseconds[1] / 1e3, milliseconds[2] / 1e3
    call()
    times: list[float] = []
    until = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < until:
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    cuts = statistics.quantiles(times, n=5, method="inclusive")
    return cuts[0], statistics.median(times), cuts[3]


def _line(name: str, row: dict[str, str]) -> str:
    head = f"{name}, {row['case']}, {row['variant']}: "
    if "p50_us" not in row:
        return head + row["check"]
    parts = [f"{row['p50_us']} µs ({row['p20_us']} .. {row['p80_us']})", f"{row['gb_per_s']} GB/s", f"{row['tflop_per_s']} TFLOP/s"]
    if row["percent_of_floor"]:
        parts.append(f"{row['percent_of_floor']} % of the floor")
    if row["speed_up"]:
        parts.append(f"{row['speed_up']} × eager")
    return head + ", ".join([*parts, f"check: {row['check']}"])


if __name__ == "__main__":
    main()
