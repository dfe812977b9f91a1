import sys
from pathlib import Path

import pytest

from benchmarks import export_accuracy
from benchmarks.export_accuracy import Form, measure, render
from benchmarks.result_rows import read_rows
from tests.trainer.export.small_runs import small_pre_ranking, train
from tests.trainer.small_matching import prepare_small_matching, small_t2diff
from trainer.config import RunConfig
from trainer.evaluation import evaluate_run, load_run
from trainer.export.golden import Shape
from trainer.process_group import distributed

FORMS = (Form("inside", "float32"), Form("quantised", "int8"))


@pytest.fixture(autouse=True)
def few_golden_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests check exports; here their artefacts are what counts."""
    monkeypatch.setattr("trainer.export.golden._shapes", lambda: [Shape(1, 9), Shape(7, 90)])


@pytest.fixture(scope="module")
def fit_run(small_demo: Path, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    return train(small_pre_ranking("fit_demo", small_demo, tmp_path_factory.mktemp("fit"), "--model.meta-query.num-queries", "6"))


@pytest.fixture(scope="module")
def t2diff_run(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    folder = tmp_path_factory.mktemp("t2diff")
    masked = ("--model.loss.mask-history", "True", "--loop.max-epochs", "1")
    return train(small_t2diff(prepare_small_matching(folder), folder / "runs", *masked))


@pytest.mark.parametrize(("fixture", "metric", "most"), [("fit_run", "auc", 0.02), ("t2diff_run", "recall@20", 0.05)])
def test_the_float32_artefact_is_as_accurate_as_the_run_and_the_8_bit_one_nearly(
    fixture: str, metric: str, most: float, request: pytest.FixtureRequest
) -> None:
    config: RunConfig = request.getfixturevalue(fixture)
    with distributed("cpu") as ranks:
        loaded = load_run(config, run=config.run_dir, data=config.data, ranks=ranks)
        (expected,) = evaluate_run(loaded, config, data=config.data, splits=("test",), ranks=ranks).values()
        exact, small = measure(config, run=config.run_dir, split="test", forms=FORMS, ranks=ranks)
    assert exact["metric"] == small["metric"] == metric
    assert float(exact["value"]) == pytest.approx(expected[metric], abs=2e-5)
    assert float(exact["loss"]) == pytest.approx(expected["loss"], abs=1e-5)
    assert float(exact["change"]) == 0
    assert float(small["value"]) == pytest.approx(float(exact["value"]) + float(small["change"]), abs=2e-6)
    assert abs(float(small["change"])) < most
    assert float(exact["max_score_error"]) == 0 < float(small["max_score_error"])
    assert float(small["bytes_per_item"]) < 0.6 * float(exact["bytes_per_item"])
    assert small["rows"] == exact["rows"] == f"{expected['num_rows']:.0f}"


def test_the_command_replaces_the_rows_of_the_same_run(
    fit_run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(export_accuracy, "FORMS", FORMS[:1])
    out = tmp_path / "export_accuracy.csv"
    monkeypatch.setattr(sys, "argv", ["export_accuracy", "--run", str(fit_run.run_dir), "--out", str(out)])
    export_accuracy.main()
    (row,) = read_rows(out)
    out.write_text(out.read_text().replace(row["value"], "0.123456"))
    export_accuracy.main()
    assert [again["value"] for again in read_rows(out)] == [row["value"]]
    assert f"| {float(row['value']):.5f} ± " in render([row])
    assert "fit_demo, seed 0" in capsys.readouterr().out
