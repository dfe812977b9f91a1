"""Inference time of T2Diff's user tower per sample, for T = 10, 50, 200: `python -m benchmarks.inference`.

What is timed is `T2Diff.user_vectors`, from looked-up embeddings of histories of 50 behaviours and from noise, both given, to the
user vector. Medians over calls; a busy machine slows one cell more than another, so look at `least` in the results file too. The
paper's figures are from five T4 GPUs and say neither the batch size nor what was included.
"""

import dataclasses
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro
from torch import nn

from benchmarks.readme import RESULTS, ROOT, replace_section
from benchmarks.result_rows import append_rows, read_rows
from benchmarks.trained_runs import machine
from models.backend import set_backend
from models.layers.diffusion import ScheduleConfig
from models.layers.diffusion_config import DiffusionConfig
from models.t2diff import T2Diff, T2DiffConfig
from models.types import InputDims, UserInputs
from trainer.cli import one_screen_errors
from trainer.console import console
from trainer.errors import UserError
from trainer.provenance import provenance

Mode = Literal["eager", "torchscript", "compile", "triton"]
PAPER_MS = {10: 0.22, 50: 0.68, 200: 2.30}
"""T -> milliseconds per sample, T2Diff Table 4."""
HISTORY_LEN = 50
NUM_TIME_LAGS = 33


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What to time."""

    steps: tuple[int, ...] = (10, 50, 200)
    """T; each with the paper's T-step ancestral process."""
    few_steps: tuple[int, ...] = (1, 5)
    """S of the deterministic sampler that is timed beside them, at T = 50; 1 is the recipes'."""
    batch_sizes: tuple[int, ...] = (1, 32, 256, 1024)
    modes: tuple[Mode, ...] = ("eager", "torchscript", "compile", "triton")
    """`compile` compiles the U-Net and the mixed attention (on a CPU by a C++ compiler); the loop over steps stays in Python.
    `triton` has the fused kernel for the reverse process, on a GPU alone; the others are plain torch."""
    dim: int = 32
    """D, width of a behaviour."""
    seconds: float = 4.0
    """Time spent on each variant and batch size, about; at least two calls."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    out: Path = RESULTS / "inference.csv"
    """Where to append the rows."""

    def __post_init__(self) -> None:
        if self.seconds <= 0 or min(self.steps + self.few_steps + self.batch_sizes) < 1:
            shown = {name: getattr(self, name) for name in ("seconds", "steps", "few_steps", "batch_sizes")}
            raise ValueError(f"{shown}: expected more than 0")


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One row of the table."""

    label: str
    num_steps: int
    """U-Net calls of one user vector; 0 without diffusion."""
    paper_ms: float | None
    config: T2DiffConfig


def main() -> None:
    """Command line."""
    arguments = tyro.cli(Arguments)
    with one_screen_errors():
        name = ("cuda" if torch.cuda.is_available() else "cpu") if arguments.device == "auto" else arguments.device
        if name == "cuda" and not torch.cuda.is_available():
            raise UserError("--device cuda, but PyTorch sees no GPU; use --device cpu")
        device = torch.device(name)
        modes = [mode for mode in arguments.modes if mode != "triton" or name == "cuda"]
        if modes != list(arguments.modes):
            console.print("mode triton is for a GPU: left out")
        for mode in modes:
            for variant in variants(arguments):
                rows = measure(variant, mode=mode, arguments=arguments, device=device)
                append_rows(arguments.out, rows)
                console.print(f"{variant.label}, {mode}: " + ", ".join(f"{r['batch_size']}: {r['ms_per_sample']} ms" for r in rows))
    if arguments.out == RESULTS / "inference.csv":
        replace_section(ROOT / "README.md", "inference", render(read_rows(arguments.out)))


def variants(arguments: Arguments) -> list[Variant]:
    """Mixed-attention, T2Diff at every T, and the few-step samplers."""
    found = [Variant(label="Mixed-attention", num_steps=0, paper_ms=0.59, config=T2DiffConfig(use_diffusion=False))]
    for steps in arguments.steps:
        diffusion = DiffusionConfig(schedule=ScheduleConfig(num_steps=steps), sampler="ancestral", num_sample_steps=steps)
        config = T2DiffConfig(diffusion=diffusion)
        found.append(Variant(label=f"T2Diff, T = {steps}", num_steps=steps, paper_ms=PAPER_MS.get(steps), config=config))
    for steps in arguments.few_steps:
        config = T2DiffConfig(diffusion=DiffusionConfig(sampler="ddim", num_sample_steps=steps))
        label = f"T2Diff, T = 50 in {steps} deterministic step{'s' if steps > 1 else ''}"
        found.append(Variant(label=label, num_steps=steps, paper_ms=None, config=config))
    return found


def measure(variant: Variant, *, mode: Mode, arguments: Arguments, device: torch.device) -> list[dict[str, str]]:
    """A row per batch size: milliseconds per sample, median and range over calls."""
    torch.manual_seed(0)
    dims = InputDims(
        profile=0, attributes=0, position=arguments.dim, history_len=HISTORY_LEN, context=(("hist_time_lag", NUM_TIME_LAGS),)
    )
    model = T2Diff(dataclasses.replace(variant.config, output_dim=arguments.dim), dims=dims).to(device).eval()
    call = _prepared(model, mode)
    rows = []
    for batch_size in arguments.batch_sizes:
        with torch.inference_mode():
            users, noise_BX = _inputs(batch_size, dim=arguments.dim, noise_size=model.serving_noise_size, device=device)
            seconds = _seconds(
                lambda users=users, noise_BX=noise_BX: call(users, noise_BX), budget=arguments.seconds, device=device
            )
        per_sample = [1000 * value / batch_size for value in seconds]
        rows.append(
            {
                "variant": variant.label,
                "mode": mode,
                "num_steps": str(variant.num_steps),
                "batch_size": str(batch_size),
                "ms_per_sample": f"{statistics.median(per_sample):.4f}",
                "least": f"{min(per_sample):.4f}",
                "most": f"{max(per_sample):.4f}",
                "calls": str(len(seconds)),
                "dim": str(arguments.dim),
                "history_len": str(HISTORY_LEN),
                "device": device.type,
                "threads": str(torch.get_num_threads()),
                "paper_ms": "" if variant.paper_ms is None else str(variant.paper_ms),
                **provenance(),
            }
        )
    return rows


def _prepared(model: T2Diff, mode: Mode) -> Callable[[UserInputs, torch.Tensor], torch.Tensor]:
    """`user_vectors` in the given mode."""
    set_backend(model, "triton" if mode == "triton" else "torch")
    if mode == "torchscript":
        scripted = torch.jit.script(model)
        return scripted.user_vectors
    if mode == "compile":
        modules: list[nn.Module] = [model.attention]
        if model.diffusion is not None:
            modules.append(model.diffusion.unet)
        for module in modules:
            module.compile(dynamic=True)
    return model.user_vectors


def _inputs(batch_size: int, *, dim: int, noise_size: int, device: torch.device) -> tuple[UserInputs, torch.Tensor]:
    """Full histories and noise."""
    positions = batch_size * HISTORY_LEN
    users = UserInputs(
        torch.empty(batch_size, 0, device=device),
        0.1 * torch.randn(positions, dim, device=device),
        torch.full((batch_size,), HISTORY_LEN, device=device),
        torch.randint(0, NUM_TIME_LAGS, (positions, 1), device=device),
    )
    return users, torch.randn(batch_size, noise_size, device=device)


def _seconds(call: Callable[[], torch.Tensor], *, budget: float, device: torch.device) -> list[float]:
    """Seconds of each call after a warm-up of one call, or three where they are short."""

    def once() -> float:
        started = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    first = min(once(), once()) if (warm := once()) < budget / 4 else warm
    return [once() for _ in range(max(2, min(200, math.ceil(budget / max(first, 1e-6)))))]


def render(rows: list[dict[str, str]]) -> str:
    """Markdown: milliseconds per sample of the newest measurement of each variant and width, by mode and batch size."""
    if not rows:
        return "Nothing is measured yet."
    newest = {(row["variant"], row["dim"], row["mode"], row["device"], row["batch_size"]): row for row in rows}
    sizes = list(dict.fromkeys(row["batch_size"] for row in newest.values()))
    lines = [
        f"| user tower | D | mode | {' | '.join(f'batch {size}' for size in sizes)} | the paper |",
        "|---" * (len(sizes) + 4) + "|",
    ]
    for variant, dim, mode, device in dict.fromkeys(key[:4] for key in newest):
        cells = [newest.get((variant, dim, mode, device, size)) for size in sizes]
        paper = next((cell["paper_ms"] for cell in cells if cell and cell["paper_ms"]), "–")
        shown = [f"{float(cell['ms_per_sample']):.3f}" if cell else "–" for cell in cells]
        lines.append(f"| {variant} | {dim} | {mode}, {device} | {' | '.join(shown)} | {paper} |")
    return "\n".join([*lines, "", f"Milliseconds per sample, medians. {machine(list(newest.values()))}"])


if __name__ == "__main__":
    main()
