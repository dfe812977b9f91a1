"""Where a training step's time goes: rows per second and the hottest operations, `python -m benchmarks.hot_operations`.

Steps are timed without the profiler, then as many again are profiled. With --compare-allocator the same is done in a second process
whose freed memory goes back to the system, as it would without `trainer.host_allocator`.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import tyro
from torch.profiler import ProfilerActivity, profile

from benchmarks.readme import RESULTS, ROOT, replace_section
from benchmarks.result_rows import append_rows, read_rows
from benchmarks.trained_runs import machine
from trainer import process_group
from trainer.cli import one_screen_errors, parse_run_config
from trainer.config import RunConfig
from trainer.console import console
from trainer.process_group import Ranks, distributed
from trainer.provenance import provenance
from trainer.trainer import Trainer


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What to time."""

    recipes: tuple[str, ...] = ("t2diff_ml1m", "mixed_attention_ml1m", "fit_ml1m_adam", "two_tower_ml1m_adam")
    """One row each."""
    data: Path | None = None
    """Another data set than the recipe's."""
    steps: int = 20
    """Optimizer steps that are timed, after half as many to warm up."""
    operations: int = 5
    """Hottest operations that are named."""
    keep_freed_memory: bool = True
    """False: freed memory goes back to the system."""
    compare_allocator: bool = False
    """Measure a second time with keep_freed_memory False."""
    out: Path = RESULTS / "hot_operations.csv"
    """Where to append the rows."""

    def __post_init__(self) -> None:
        if self.steps < 1 or self.operations < 1:
            raise ValueError(f"steps={self.steps}, operations={self.operations}: expected at least 1 of each")


class Measured(NamedTuple):
    """Of one recipe."""

    rows_per_second: float
    operations: list[tuple[str, float]]
    """Name, and its share of the profiled time, hottest first."""


def main() -> None:
    """Command line."""
    arguments = tyro.cli(Arguments)
    if not arguments.keep_freed_memory:
        process_group.keep_freed_memory = lambda: False
    with one_screen_errors():
        for recipe in arguments.recipes:
            with tempfile.TemporaryDirectory() as folder, distributed() as ranks:
                words = ["--recipe", recipe, "--runs", folder]
                config = parse_run_config([*words, "--data", str(arguments.data)] if arguments.data else words)
                append_rows(arguments.out, [_row(config, measure(config, arguments=arguments, ranks=ranks), arguments=arguments)])
    if arguments.out == RESULTS / "hot_operations.csv":
        replace_section(ROOT / "README.md", "hot_operations", render(read_rows(arguments.out)))
    if arguments.compare_allocator:
        other = [*sys.argv[1:], "--no-keep-freed-memory", "--no-compare-allocator"]  # of a repeated option the last holds
        subprocess.run([sys.executable, "-m", "benchmarks.hot_operations", *other], check=True)


def measure(config: RunConfig, *, arguments: Arguments, ranks: Ranks) -> Measured:
    """Rows per second of one recipe's training step on this rank, and its hottest operations."""
    activities = [ProfilerActivity.CUDA if ranks.device.type == "cuda" else ProfilerActivity.CPU]
    with Trainer(config, ranks=ranks) as trainer:
        pipeline, batches = trainer.pipeline(), trainer.batches()

        def train(steps: int) -> float:
            started = time.perf_counter()
            for _ in range(steps):
                trainer.train_step(pipeline, batches)
            if ranks.device.type == "cuda":
                torch.cuda.synchronize()
            return time.perf_counter() - started

        train(arguments.steps // 2 + 1)
        seconds = train(arguments.steps)
        with profile(activities=activities) as profiler:
            train(arguments.steps)
        batches.close()
    spent = {event.key: event.self_device_time_total + event.self_cpu_time_total for event in profiler.key_averages()}
    total = sum(spent.values())
    hottest = sorted(spent, key=lambda name: spent[name], reverse=True)[: arguments.operations]
    rate = arguments.steps * config.loader.batch_size / seconds
    return Measured(rate, [(name, spent[name] / total) for name in hottest])


def _row(config: RunConfig, measured: Measured, *, arguments: Arguments) -> dict[str, str]:
    shown = ", ".join(f"{name} {share:.0%}" for name, share in measured.operations)
    memory = "kept" if arguments.keep_freed_memory else "returned"
    console.print(f"{config.recipe}: {measured.rows_per_second:,.0f} rows/s, freed memory {memory}; {shown}")
    return {
        "recipe": config.recipe,
        "batch_size": str(config.loader.batch_size),
        "threads": str(torch.get_num_threads()),
        "freed_memory": memory,
        "rows_per_second": f"{measured.rows_per_second:.0f}",
        "hottest": shown,
        "steps": str(arguments.steps),
        **provenance(),
    }


def render(rows: Sequence[dict[str, str]]) -> str:
    """Markdown: a line for each recipe and machine, of its newest measurement with freed memory kept, beside the one without."""
    if not rows:
        return "Nothing is measured yet."
    newest = {(row["recipe"], row["cpu"], row["gpu"], row["freed_memory"]): row for row in rows}
    lines = ["| recipe | batch | threads | rows/s | freed memory returned | hottest operations of a step |", "|---" * 6 + "|"]
    shown = []
    for (recipe, cpu, gpu, memory), row in newest.items():
        if memory == "kept":
            returned = newest.get((recipe, cpu, gpu, "returned"))
            shown += [row, *([] if returned is None else [returned])]
            rates = [f"{float(one['rows_per_second']):,.0f}" if one else "–" for one in (row, returned)]
            lines.append(f"| {recipe} | {row['batch_size']} | {row['threads']} | {' | '.join(rates)} | {row['hottest']} |")
    return "\n".join([*lines, "", machine(shown)])


if __name__ == "__main__":
    main()
