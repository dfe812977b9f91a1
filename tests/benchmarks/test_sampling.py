from pathlib import Path

import pytest

from benchmarks import sampling
from benchmarks.sampling import METRICS, draw, evaluate_with, is_current, render
from trainer.cli import parse_run_config
from trainer.config import RunConfig
from trainer.process_group import distributed
from trainer.results import read_results

MACHINE = {"cpu": "a cpu", "cores": "2", "gpu": "none", "torch": "2.13.0", "torchrec": "1.8.0", "commit": "abc"}


def row(steps: int, recall: float, *, seed: int = 0) -> dict[str, str]:
    figures = {f"test_{name}": str(recall) for name in METRICS}
    sampler = "ancestral" if steps == 50 else "ddim"
    own = {"num_steps": str(steps), "seed": str(seed), "sampler": sampler, "ms_per_sample": str(0.1 * steps), "device": "cpu"}
    known = {"dataset": "ml1m", "test_rows": "6040", "test_recall@20_se": "0.0060", "trained_with": "high_noise, 1 step(s)"}
    return known | figures | own | MACHINE


def test_recall_is_told_relative_to_the_whole_process_over_seeds():
    table = render([row(5, 0.198), row(50, 0.2), row(5, 0.198, seed=1), row(50, 0.2, seed=1)])
    five, fifty = [line for line in table.splitlines() if line.startswith(("| 5 |", "| 50 |"))]
    assert "| 99.0% | 0.500 (cpu) | 2 |" in five
    assert "| 100.0% | 5.000 (cpu) | 2 |" in fifty
    assert "The tower learned from `high_noise, 1 step(s)`." in table


def test_another_sampler_at_the_trained_number_of_steps_gives_what_the_run_recorded(
    matching_run: RunConfig, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sampling, "ROOT", Path("/"))
    steps = matching_run.model.diffusion.num_sample_steps
    with distributed("cpu") as ranks:
        found = evaluate_with(matching_run, num_steps=steps, ranks=ranks)
    recorded = read_results(matching_run.run_dir)["metrics"]["test"]
    assert float(found["test_recall@20"]) == pytest.approx(recorded["recall@20"], abs=1e-6)
    assert float(found["ms_per_sample"]) > 0
    assert (found["sampler"], found["config"]) == ("ddim", matching_run.fingerprint[:12])
    assert found["trained_with"] == f"{matching_run.model.diffusion.tower_condition}, {steps} step(s)"


def test_times_of_a_cpu_and_of_a_gpu_stand_apart():
    on_gpu = row(5, 0.2) | {"device": "cuda", "ms_per_sample": "0.01"}
    table = render([row(5, 0.2), on_gpu, row(5, 0.4, seed=1), row(50, 0.2)])
    assert "| 0.3000 ± 0.1414 | 150.0% | 0.500 (cpu), 0.010 (cuda) | 2 |" in table  # not 0.2 twice


def test_as_many_steps_as_the_schedule_are_the_papers_noisy_ones(matching_run: RunConfig, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sampling, "ROOT", Path("/"))
    steps = matching_run.model.diffusion.schedule.num_steps
    with distributed("cpu") as ranks:
        found = evaluate_with(matching_run, num_steps=steps, ranks=ranks)
    assert (found["sampler"], found["num_steps"]) == ("ancestral", str(steps))
    recorded = read_results(matching_run.run_dir)["metrics"]["validation"]
    assert any(float(found[f"validation_{name}"]) != pytest.approx(recorded[name], abs=1e-6) for name in METRICS)


def test_rows_of_a_recipes_older_configuration_are_not_current():
    config = parse_run_config(["--recipe", "t2diff_ml1m", "--seed", "1"]).fingerprint[:12]
    current = {"recipe": "t2diff_ml1m", "seed": "1", "config": config}
    assert is_current(current, "t2diff_ml1m")
    assert not is_current(current | {"config": "older"}, "t2diff_ml1m")
    assert not is_current(current, "t2diff_demo")


def test_the_plot_is_a_png(tmp_path: Path):
    draw([row(1, 0.1), row(50, 0.2)], tmp_path / "sampling.png")
    assert (tmp_path / "sampling.png").read_bytes().startswith(b"\x89PNG")
