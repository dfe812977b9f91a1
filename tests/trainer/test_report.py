import json
from pathlib import Path

import pytest

from trainer.cli import parse_run_config
from trainer.report import write_report

RESULTS = {
    "recipe": "fit_demo",
    "seed": 3,
    "dataset": "demo <b>click</b>",
    "world_size": 2,
    "num_parameters": 12345,
    "steps": 20,
    "best_step": 10,
    "stopped_because": "trained for 2 epochs",
    "train_seconds_per_epoch": 1.5,
    "plan": "t_item row_wise",
    "metrics": {"test": {"auc": 0.8125, "auc_se": 0.01, "logloss": 0.4, "num_rows": 1000.0}},
    "provenance": {"commit": "abc1234"},
}


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A finished run with two evaluations, on data whose Bayes AUC is known."""
    data = tmp_path / "data"
    data.mkdir()
    known = {"bayes_auc": 0.9, "bayes_auc_without_cross": 0.65, "bayes_logloss": 0.38}
    (data / "truth.json").write_text(json.dumps({"validation": known, "test": known}))
    run = tmp_path / "run"
    run.mkdir()
    config = parse_run_config(["--recipe", "fit_demo", "--data", str(data)])
    (run / "config.json").write_text(json.dumps(config.as_dict()))
    (run / "results.json").write_text(json.dumps(RESULTS))
    rows = [
        {"step": 5, "split": "train", "auc": 0.7, "loss": 0.6},
        {"step": 10, "split": "validation", "auc": 0.8, "logloss": None},
        {"step": 20, "split": "validation", "auc": 0.79, "logloss": 0.5},
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return run


def test_a_report_is_one_file_with_figures_metrics_and_the_best_possible_auc(run_dir, tmp_path):
    write_report(tmp_path / "out" / "report.html", [run_dir])
    page = (tmp_path / "out" / "report.html").read_text()
    for part in ("0.81250", "0.90000", "0.65000", "12,345", "10 of 20", "t_item row_wise", "abc1234", "trained for 2 epochs"):
        assert part in page
    assert page.count("<svg") == 3  # auc, logloss, loss; no temperature was logged
    assert "http-equiv" not in page
    assert "<script" not in page


def test_text_from_the_run_is_escaped(run_dir, tmp_path):
    write_report(tmp_path / "report.html", [run_dir])
    assert "demo &lt;b&gt;click&lt;/b&gt;" in (tmp_path / "report.html").read_text()


def test_several_runs_share_their_figures(run_dir, tmp_path):
    write_report(tmp_path / "one.html", [run_dir])
    write_report(tmp_path / "two.html", [run_dir, run_dir])
    one, two = ((tmp_path / name).read_text() for name in ("one.html", "two.html"))
    assert two.count("<svg") == one.count("<svg")
    assert two.count("0.81250") == 2 * one.count("0.81250")
