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


def matching_results(**others: object) -> dict:
    """Results of a T2Diff run whose recall is known."""
    metrics = {"test": {"recall@20": 0.3125, "recall@20_se": 0.01, "ndcg@10": 0.2, "loss": 7.0, "num_rows": 500.0}}
    return RESULTS | {"recipe": "t2diff_demo", "metrics": metrics, "protocol": "among all <90> items"} | others


@pytest.fixture
def matching_dir(tmp_path: Path) -> Path:
    """A finished T2Diff run on data whose best recall is known; its results are for the test to write."""
    data = tmp_path / "matching_data"
    data.mkdir()
    known = {"best_recall@20": 0.4375, "best_recall@20_without_drift": 0.28125, "popularity_recall@20": 0.0625}
    (data / "truth.json").write_text(json.dumps({"config": {}, "validation": known, "test": known}))
    run = tmp_path / "matching_run"
    run.mkdir()
    config = parse_run_config(["--recipe", "t2diff_demo", "--data", str(data)])
    (run / "config.json").write_text(json.dumps(config.as_dict()))
    rows = [{"step": 5, "split": "train", "auxiliary": 0.7}, {"step": 10, "split": "validation", "recall@20": 0.3}]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return run


def page_of(run: Path, results: dict, *others: Path) -> str:
    (run / "results.json").write_text(json.dumps(results))
    write_report(run / "report.html", [run, *others])
    return (run / "report.html").read_text()


def test_a_matching_report_has_its_metrics_the_best_possible_ones_and_the_protocol_once(matching_dir: Path) -> None:
    page = page_of(matching_dir, matching_results(), matching_dir)
    for part in ("Recall@20", "0.31250", "0.43750", "0.28125", "0.06250", "NDCG@10", "± se"):
        assert part in page
    assert page.count("among all &lt;90&gt; items") == 1
    assert ">AUC<" not in page
    assert "Leak check" not in page
    assert page.count("<svg") == 2  # recall@20 and further losses; without diagnostics no Figs. 4 and 5


def test_a_table_row_has_as_many_cells_as_the_header(matching_dir: Path) -> None:
    page = page_of(matching_dir, matching_results())
    table = page[page.index("<table>") : page.index("</table>")].split("<tr>")[1:]
    spare = [4 - 1 if 'colspan="4"' in row else 0 for row in table]
    counts = [row.count("<th>") + row.count("<td") + more for row, more in zip(table, spare, strict=True)]
    assert counts == [counts[0]] * len(table)
    assert len(table) == 1 + 1 + 2 * 3  # header, test, what is known about both splits


REVERSE = {"step": [3, 2, 1], "mean": [0.1, 0.2, 0.3], "p10": [0.0, 0.1, 0.2], "p90": [0.2, 0.3, 0.4]}


@pytest.mark.parametrize(
    ("verdict", "said", "not_said"),
    [
        ({"parted": True, "leaks": True}, "relies on a target", "another model"),
        ({"parted": True, "leaks": False}, "another model", "relies on a target"),
        ({"parted": False, "leaks": False}, "as served (± 0.0312)", "They part"),
    ],
)
def test_the_leak_check_says_whether_the_forms_part(matching_dir: Path, verdict: dict, said: str, not_said: str) -> None:
    forms = {"training_form": {"recall@20": 0.75}, "serving_form": {"recall@20": 0.25}}
    leak = {"metric": "recall@20", "standard_error": 0.03125, **forms, **verdict}
    page = page_of(matching_dir, matching_results(diagnostics={"leak_check": leak, "reverse_process": REVERSE}))
    for part in ("Leak check", "0.7500", "0.2500", said):
        assert part in page
    assert not_said not in page
    assert page.count("<svg") == 2 + 2


def test_figures_4_and_5_are_those_of_the_run(matching_dir: Path) -> None:
    page = page_of(matching_dir, matching_results(diagnostics={"reverse_process": REVERSE}))
    for part in ("T2Diff Fig. 4", "T2Diff Fig. 5", "exp", "linear", "log"):
        assert f"<!-- {part} -->" in page or f"({part}) -->" in page


def test_a_schedule_whose_endpoints_suit_no_other_kind_is_drawn_beside_the_others(matching_dir: Path) -> None:
    config = json.loads((matching_dir / "config.json").read_text())
    # as linear or exp, these endpoints would leave too much of the signal
    config["model"]["diffusion"]["schedule"] = {"kind": "log", "num_steps": 20, "beta_first": 0.001, "beta_last": 0.3}
    (matching_dir / "config.json").write_text(json.dumps(config))
    page = page_of(matching_dir, matching_results(diagnostics={"reverse_process": REVERSE}))
    assert page.count("<svg") == 2 + 2


def test_a_pre_ranking_and_a_matching_run_share_a_report(run_dir: Path, matching_dir: Path) -> None:
    page = page_of(matching_dir, matching_results(), run_dir)
    for part in ("0.31250", "0.81250", ">AUC<", ">Recall@20<"):
        assert part in page
