import dataclasses
import shutil
import sys
from pathlib import Path

import pytest

from trainer import evaluate as evaluate_command
from trainer.config import RunConfig
from trainer.errors import UserError
from trainer.evaluation import evaluate_run, load_run, with_mask_history
from trainer.process_group import distributed
from trainer.recipes import RECIPES
from trainer.results import read_results


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["evaluate", *arguments])
    evaluate_command.main()


def table_of(printed: str) -> dict[str, list[str]]:
    """Metric -> its values, one a split."""
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in printed.splitlines() if line.startswith("│")]
    return {name: values for name, *values in rows}


def test_the_command_prints_what_the_run_recorded_and_the_protocol(
    matching_run: RunConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command(monkeypatch, "--run", str(matching_run.run_dir))
    printed, recorded = capsys.readouterr().out, read_results(matching_run.run_dir)
    validation, test = recorded["metrics"]["validation"], recorded["metrics"]["test"]
    assert table_of(printed) == {name: [f"{validation[name]:,.5g}", f"{test[name]:,.5g}"] for name in validation}
    assert recorded["protocol"] in printed
    assert f"step {recorded['best_step']}" in printed


def test_a_rows_own_history_can_be_left_out(
    matching_run: RunConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command(monkeypatch, "--run", str(matching_run.run_dir), "--split", "test", "--mask-history", "True")
    printed, recorded = capsys.readouterr().out, read_results(matching_run.run_dir)["metrics"]["test"]
    assert "items of the row's own history do not compete" in printed
    (mrr,) = table_of(printed)["mrr"]
    assert float(mrr) > recorded["mrr"]  # fewer items before the target


def test_only_matching_models_leave_histories_out() -> None:
    with pytest.raises(UserError, match="--mask-history: fit_demo scores given candidates"):
        with_mask_history(RECIPES["fit_demo"](), mask_history=True)


def test_a_run_and_data_that_were_moved_are_evaluated_where_they_are(matching_run: RunConfig, tmp_path: Path) -> None:
    run = shutil.copytree(matching_run.run_dir, tmp_path / "run")
    data = shutil.copytree(matching_run.data, tmp_path / "data")
    with distributed("cpu") as ranks:
        gone = dataclasses.replace(matching_run, data=tmp_path / "gone")
        loaded = load_run(gone, run=run, data=data, ranks=ranks)
        found = evaluate_run(loaded, gone, data=data, splits=("test",), ranks=ranks)
    recorded = read_results(matching_run.run_dir)
    assert loaded.step == recorded["best_step"]
    assert found["test"] == recorded["metrics"]["test"]


@pytest.mark.parametrize(
    ("data", "code", "words"), [("small_demo", 2, "its schema is not the one"), (None, 4, "no evaluated checkpoint")]
)
def test_what_cannot_be_evaluated_ends_with_its_exit_code(
    matching_run: RunConfig,
    small_demo: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    data: str | None,
    code: int,
    words: str,
) -> None:
    arguments = ["--run", str(matching_run.run_dir), "--data", str(small_demo)]
    if data is None:
        shutil.copy(matching_run.run_dir / "config.json", tmp_path)
        arguments = ["--run", str(tmp_path)]
    with pytest.raises(SystemExit) as left:
        command(monkeypatch, *arguments)
    assert left.value.code == code
    assert words in capsys.readouterr().err
