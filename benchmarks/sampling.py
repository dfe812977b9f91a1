"""Quality against reverse steps: trained T2Diff runs, evaluated with S = 1, 2, 5, 10, 50 steps: `python -m benchmarks.sampling`.

Each seed's best checkpoint (of a run that is trained first, if it is not there) is evaluated with other samplers than it was
trained with, the deterministic one for S < T and the paper's ancestral one for S = T. Time per sample is that of the user tower
alone, embeddings looked up and noise drawn before: evaluation draws each row's noise from its own key, which costs a CPU more than
a reverse step.
"""

import dataclasses
import statistics
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from matplotlib import pyplot

from benchmarks.readme import RESULTS, ROOT, replace_section
from benchmarks.result_rows import read_rows, replace_rows
from benchmarks.row_seconds import seconds_per_row
from benchmarks.trained_runs import MATCHING_METRICS as METRICS
from benchmarks.trained_runs import finished_run, machine, spread
from trainer.build import evaluation_loader
from trainer.cli import one_screen_errors, parse_run_config
from trainer.config import RunConfig
from trainer.console import console
from trainer.evaluation import evaluate, load_run
from trainer.process_group import Ranks, distributed
from trainer.provenance import provenance

KEY = ("recipe", "seed", "sampler", "num_steps", "config", "device")
NAME = "t2diff_sampling"


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What to evaluate."""

    recipe: str = "t2diff_ml1m"
    """A T2Diff recipe; seeds that are not trained yet are."""
    seeds: int = 2
    """Seeds 0 .. seeds - 1."""
    steps: tuple[int, ...] = (1, 2, 5, 10, 50)
    """S; the schedule's T is the paper's process."""
    out: Path = RESULTS / f"{NAME}.csv"
    """Where to record the rows."""


def main() -> None:
    """Command line."""
    arguments = tyro.cli(Arguments)
    with one_screen_errors():
        for seed in range(arguments.seeds):
            overrides = ["--seed", str(seed)]
            finished_run(arguments.recipe, overrides=overrides)
            config = parse_run_config(["--recipe", arguments.recipe, *overrides])
            with distributed(config.loop.device) as ranks:
                for steps in arguments.steps:
                    row = evaluate_with(config, num_steps=steps, ranks=ranks)
                    replace_rows(arguments.out, [row], key=KEY)
                    console.print(
                        f"seed {seed}, S = {steps}: test recall@20 {row['test_recall@20']}, {row['ms_per_sample']} ms/sample"
                    )
        rows = [row for row in read_rows(arguments.out) if is_current(row, arguments.recipe)]
        draw(rows, arguments.out.with_suffix(".png"))
        if arguments.out == RESULTS / f"{NAME}.csv":
            plot = f"![Recall@20 against milliseconds per sample](benchmarks/results/{NAME}.png)"
            replace_section(ROOT / "README.md", NAME, f"{render(rows)}\n\n{plot}")


def evaluate_with(config: RunConfig, *, num_steps: int, ranks: Ranks) -> dict[str, str]:
    """Metrics and time of one run with S = num_steps."""
    sampler = "ancestral" if num_steps == config.model.diffusion.schedule.num_steps else "ddim"
    # training's condition plays no part in evaluation, and not every one goes with every sampler
    diffusion = dataclasses.replace(config.model.diffusion, sampler=sampler, num_sample_steps=num_steps, tower_condition="onestep")
    changed = dataclasses.replace(config, model=dataclasses.replace(config.model, diffusion=diffusion))
    loaded = load_run(changed, run=ROOT / config.run_dir, data=ROOT / config.data, ranks=ranks)
    loaders = {
        split: evaluation_loader(config, folder=ROOT / config.data / split, schema=loaded.schema, ranks=ranks)
        for split in ("validation", "test")
    }
    found = {split: evaluate(loaded.sharded, loader, ranks=ranks) for split, loader in loaders.items()}
    return {
        "recipe": config.recipe,
        "seed": str(config.seed),
        "sampler": sampler,
        "num_steps": str(num_steps),
        "config": config.fingerprint[:12],
        "trained_with": f"{config.model.diffusion.tower_condition}, {config.model.diffusion.num_sample_steps} step(s)",
        "dataset": loaded.schema.name,
        "test_rows": f"{found['test']['num_rows']:.0f}",
        **{f"{split}_{name}": f"{values[name]:.6f}" for split, values in found.items() for name in METRICS},
        "test_recall@20_se": f"{found['test']['recall@20_se']:.4f}",
        "ms_per_sample": f"{1000 * seconds_per_row(loaded.sharded.task, loaders['test'], ranks):.4f}",
        "batch_size": str(config.loader.batch_size),
        "threads": str(torch.get_num_threads()),
        "device": ranks.device.type,
        **provenance(),
    }


def is_current(row: dict[str, str], recipe: str) -> bool:
    """Whether `row` is of the recipe as it is now."""
    return (
        row["recipe"] == recipe and row["config"] == parse_run_config(["--recipe", recipe, "--seed", row["seed"]]).fingerprint[:12]
    )


def render(rows: list[dict[str, str]]) -> str:
    """Markdown: a row per S, mean ± sd over seeds, and recall@20 relative to the whole process."""
    lines = ["| S | sampler | " + " | ".join(f"test {name}" for name in METRICS) + " | of S = T | ms/sample | seeds |"]
    lines.append("|---" * (len(METRICS) + 5) + "|")
    whole = [float(row["test_recall@20"]) for row in rows if row["sampler"] == "ancestral"]
    for steps in sorted({int(row["num_steps"]) for row in rows}):
        runs = [row for row in rows if row["num_steps"] == str(steps)]
        by_seed = list({row["seed"]: row for row in runs}.values())  # a run's accuracy is the same on every device
        recall = statistics.fmean(float(row["test_recall@20"]) for row in by_seed)
        relative = f"{recall / statistics.fmean(whole):.1%}" if whole else "–"
        shown = " | ".join(spread(by_seed, f"test_{name}", 4) for name in METRICS)
        devices = dict.fromkeys(row["device"] for row in runs)
        times = [statistics.median(float(row["ms_per_sample"]) for row in runs if row["device"] == one) for one in devices]
        time_shown = ", ".join(f"{value:.3f} ({device})" for value, device in zip(times, devices, strict=True))
        lines.append(f"| {steps} | {runs[0]['sampler']} | {shown} | {relative} | {time_shown} | {len(by_seed)} |")
    note = (
        f"Data: {rows[0]['dataset']}, {rows[0]['test_rows']} test rows, each target ranked among all items; the standard error of "
        f"one recall@20 is {rows[0]['test_recall@20_se']}. The tower learned from `{rows[0]['trained_with']}`. {machine(rows)}"
    )
    return "\n".join([*lines, "", note])


def draw(rows: list[dict[str, str]], path: Path) -> None:
    """Recall@20 against milliseconds per sample, a point per S."""
    figure, axes = pyplot.subplots(figsize=(6.4, 3.6), layout="constrained")
    for seed, device in sorted({(row["seed"], row["device"]) for row in rows}):
        own = [row for row in rows if (row["seed"], row["device"]) == (seed, device)]
        runs = sorted(own, key=lambda row: int(row["num_steps"]))
        times, recalls = zip(*((float(row["ms_per_sample"]), float(row["test_recall@20"])) for row in runs), strict=True)
        axes.plot(times, recalls, "o-", markersize=4, label=f"seed {seed}, {device}")
        for row, x, y in zip(runs, times, recalls, strict=True):
            axes.annotate(f"S={row['num_steps']}", (x, y), textcoords="offset points", xytext=(3, 4), fontsize="x-small")
    axes.set(xscale="log", xlabel="milliseconds per sample", ylabel="test recall@20")
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize="x-small")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
