import subprocess
from pathlib import Path

import pytest

from benchmarks import trained_runs
from dataloaders.errors import DataError
from dataloaders.prepare.synthetic import SyntheticConfig, prepare_synthetic
from trainer.cli import parse_run_config
from trainer.errors import UserError


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What fit_demo is configured with in a repository that lies elsewhere; its data is there."""
    monkeypatch.setattr(trained_runs, "ROOT", tmp_path)
    config = parse_run_config(["--recipe", "fit_demo"])
    sizes = {"num_users": 40, "num_items": 60, "train_rows": 64, "validation_rows": 64, "test_rows": 64}
    prepare_synthetic(SyntheticConfig(out=tmp_path / config.data, **sizes))
    return config


def test_a_finished_run_is_read_and_an_unfinished_one_is_launched_on_its_ranks(
    config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    launched: list[list[str]] = []

    def launch(command: list[str], *, cwd: Path) -> subprocess.CompletedProcess:
        launched.append(command)
        assert cwd == tmp_path
        (tmp_path / config.run_dir).mkdir(parents=True)
        (tmp_path / config.run_dir / "results.json").write_text('{"recipe": "fit_demo", "world_size": 2}')
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(trained_runs.subprocess, "run", launch)
    for _ in range(2):
        assert trained_runs.finished_run("fit_demo", num_ranks=2) == {"recipe": "fit_demo", "world_size": 2}
    ((*_, launcher, standalone, ranks, _, module, flag, recipe),) = launched
    assert (launcher, standalone, ranks) == ("torch.distributed.run", "--standalone", "--nproc-per-node=2")
    assert (module, flag, recipe) == ("trainer.train", "--recipe", "fit_demo")
    with pytest.raises(UserError, match=r"was trained on 2 rank\(s\), expected 1"):
        trained_runs.finished_run("fit_demo")


@pytest.mark.usefixtures("config")
def test_a_training_that_fails_is_one_message_with_its_command(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trained_runs.subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 1))
    message = r"training ended with status 1.*: python -m trainer\.train --recipe fit_demo --seed 7"
    with pytest.raises(UserError, match=message):
        trained_runs.finished_run("fit_demo", overrides=["--seed", "7"])


def test_without_its_data_nothing_is_launched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trained_runs, "ROOT", tmp_path)
    monkeypatch.setattr(trained_runs.subprocess, "run", lambda *_, **__: pytest.fail("launched"))
    with pytest.raises(DataError, match=r"prepare the data set first"):
        trained_runs.finished_run("fit_demo")


def test_spread_leaves_out_runs_without_the_figure():
    assert trained_runs.spread([{"x": "1"}, {"x": ""}, {}], "x", 1) == "1.0"
    assert trained_runs.spread([{"x": ""}], "x", 1) == "–"
