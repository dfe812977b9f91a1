from pathlib import Path

from benchmarks.sampling import METRICS, draw, render

MACHINE = {"cpu": "a cpu", "cores": "2", "gpu": "none", "torch": "2.13.0", "torchrec": "1.8.0", "commit": "abc"}


def row(steps: int, recall: float, *, seed: int = 0) -> dict[str, str]:
    figures = {f"test_{name}": str(recall) for name in METRICS}
    sampler = "ancestral" if steps == 50 else "ddim"
    own = {"num_steps": str(steps), "seed": str(seed), "sampler": sampler, "ms_per_sample": str(0.1 * steps)}
    return {"dataset": "ml1m", "test_rows": "6040"} | figures | own | MACHINE


def test_recall_is_told_relative_to_the_whole_process_over_seeds():
    table = render([row(5, 0.198), row(50, 0.2), row(5, 0.198, seed=1), row(50, 0.2, seed=1)])
    five, fifty = [line for line in table.splitlines() if line.startswith(("| 5 |", "| 50 |"))]
    assert "| 99.0% | 0.500 | 2 |" in five
    assert "| 100.0% | 5.000 | 2 |" in fifty


def test_the_plot_is_a_png(tmp_path: Path):
    draw([row(1, 0.1), row(50, 0.2)], tmp_path / "sampling.png")
    assert (tmp_path / "sampling.png").read_bytes().startswith(b"\x89PNG")
