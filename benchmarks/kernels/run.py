"""Times of the kernels against plain PyTorch: `python -m benchmarks.kernels.run --all --out DIR`.

Each case is checked first (benchmarks.kernels.verify); a kernel that fails its check is timed, but no speed-up is told. Times are
of warm calls, on a GPU with its L2 cache emptied before each. Without a GPU the references alone are timed, which says nothing of
the kernels.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch
import triton
import tyro

from benchmarks.kernels.case import Call, Case, Shapes
from benchmarks.kernels.floor import floor_seconds
from benchmarks.kernels.registry import OPS
from benchmarks.kernels.verify import problems
from benchmarks.readme import RESULTS
from benchmarks.result_rows import append_rows
from trainer.cli import one_screen_errors
from trainer.console import console
from trainer.errors import UserError
from trainer.provenance import provenance

FILE = "kernels.csv"


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

    def __post_init__(self) -> None:
        if self.seconds <= 0:
            raise ValueError(f"seconds={self.seconds}, expected more than 0")


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
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        console.print("No GPU here: the references are timed on the CPU; the kernels are neither checked nor timed.")
    for name in [arguments.op] if arguments.op is not None else list(OPS):
        for shapes in [arguments.shapes] if arguments.shapes is not None else ("paper", "large"):
            for case in OPS[name].cases(shapes, device):
                rows = measure(case, device=device, seconds=arguments.seconds)
                append_rows(arguments.out / FILE, [{"op": name, "shapes": shapes, **row, **_origin()} for row in rows])
                for row in rows:
                    console.print(_line(name, row))


def _origin() -> dict[str, str]:
    return {**provenance(), "triton": metadata.version("triton")}


def measure(case: Case, *, device: torch.device, seconds: float) -> list[dict[str, str]]:
    """A row per variant: microseconds (20th, 50th, 80th percentile), throughputs, share of the floor, speed-up over eager."""
    on_gpu = device.type == "cuda"
    found = problems(case) if on_gpu else []
    check = "not run: no GPU" if not on_gpu else "; ".join(found) or "passed"
    floor = floor_seconds(case.work, device)
    rows: list[dict[str, str]] = []
    eager: float | None = None
    for variant, prepare in _variants(case, on_gpu=on_gpu):
        try:
            p20, p50, p80 = quantiles(prepare(), device=device, seconds=seconds)
        except Exception as error:  # one variant's failure (a capture, a compilation) must not lose the others
            torch.cuda.synchronize() if on_gpu else None
            rows.append({"case": case.label, "variant": variant, "check": f"{type(error).__name__}: {str(error)[:200]}"})
            continue
        eager = p50 if variant == "eager" else eager
        told = eager is not None and (variant != "triton" or not found)
        rows.append(
            {
                "case": case.label,
                "variant": variant,
                "p20_us": f"{1e6 * p20:.1f}",
                "p50_us": f"{1e6 * p50:.1f}",
                "p80_us": f"{1e6 * p80:.1f}",
                "gb_per_s": f"{case.work.num_bytes / p50 / 1e9:.1f}",
                "tflop_per_s": f"{case.work.flops / p50 / 1e12:.3f}",
                "floor_us": f"{1e6 * floor:.1f}" if floor is not None else "",
                "percent_of_floor": f"{100 * floor / p50:.1f}" if floor is not None else "",
                "speed_up": f"{eager / p50:.2f}" if told and eager is not None else "",
                "check": check if variant == "triton" or not on_gpu else "",
                "device": device.type,
            }
        )
    return rows


def _variants(case: Case, *, on_gpu: bool) -> Iterator[tuple[str, Callable[[], Call]]]:
    """Name -> a function that prepares the call to time."""
    yield "eager", lambda: case.reference
    if on_gpu:
        yield "compile", lambda: case.compiled or torch.compile(case.reference)
        yield "cuda_graph", lambda: case.graph or captured(case.reference)
        yield "triton", lambda: case.kernel


def captured(call: Call) -> Call:
    """A CUDA graph of `call`, whose inputs stay where they are; its replay."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = call()

    def replay() -> tuple[torch.Tensor, ...]:
        graph.replay()
        return outputs

    return replay


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
    return head + ", ".join([*parts, *([f"check: {row['check']}"] if row["check"] else [])])


if __name__ == "__main__":
    main()
