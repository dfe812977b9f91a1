"""One rank, in this process: what a run does at its edges."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from dataloaders.errors import DataError
from trainer import checkpoint
from trainer.cli import parse_run_config
from trainer.config import RunConfig
from trainer.errors import CheckpointError, UserError
from trainer.process_group import Ranks, distributed
from trainer.run_log import read_rows
from trainer.train_state import TrainingError
from trainer.trainer import Trainer


@pytest.fixture
def ranks() -> Iterator[Ranks]:
    """This process as the only rank."""
    with distributed("cpu") as joined:
        yield joined


@pytest.fixture
def config(small_demo: Path, tmp_path: Path) -> RunConfig:
    """A short Two-Tower run: 10 steps an epoch."""
    paths = ["--data", str(small_demo), "--runs", str(tmp_path / "runs")]
    short = ["--loop.max-epochs", "2", "--loop.log-every-steps", "5", "--loop.tensorboard", "False"]
    return parse_run_config(["--recipe", "two_tower_demo", *paths, *short])


class PoisonedTrainer(Trainer):
    """A weight turns NaN before a given step."""

    poison_before = 13

    def train_step(self, pipeline, batches):
        if self.state.step + 1 == self.poison_before:
            with torch.no_grad():
                next(iter(self.task.model.parameters())).fill_(torch.nan)
        return super().train_step(pipeline, batches)


def test_a_loss_that_is_not_finite_stops_the_run_and_the_last_good_checkpoint_stays(config, ranks):
    trainer = PoisonedTrainer(config, ranks=ranks)
    with pytest.raises(TrainingError, match=r"NaN or infinite within steps 11 to 15; last good checkpoint: .*step-000010"):
        trainer.fit()
    again = Trainer(config, ranks=ranks)
    assert again.state.step == 10
    assert all(torch.isfinite(parameter).all() for parameter in again.task.parameters())


def test_a_finished_run_started_again_trains_nothing_and_keeps_its_results(config, ranks, capsys):
    trainer = Trainer(config, ranks=ranks)
    assert trainer.fit()
    trainer.test()
    before = (trainer.run_dir / "results.json").read_text()
    steps = trainer.state.step

    again = Trainer(config, ranks=ranks)
    assert again.fit()
    again.test()
    assert again.state.step == steps
    assert (again.run_dir / "results.json").read_text() == before
    assert "resumed from" in capsys.readouterr().out


def test_results_hold_every_evaluated_split_and_the_best_checkpoint_is_the_one_tested(config, ranks):
    trainer = Trainer(config, ranks=ranks)
    trainer.fit()
    trainer.test()
    results = json.loads((trainer.run_dir / "results.json").read_text())
    validations = {row["step"]: row["auc"] for row in read_rows(trainer.run_dir) if row["split"] == "validation"}
    assert results["best_step"] == max(validations, key=validations.get)
    assert results["metrics"]["validation"]["auc"] == validations[results["best_step"]]
    assert set(results["metrics"]) == {"validation", "test"}
    assert (trainer.run_dir / "report.html").exists()


def test_a_run_stops_when_validation_has_not_improved_for_its_patience(config, ranks):
    loop = dataclasses.replace(config.loop, max_epochs=50, patience=2)
    stuck = dataclasses.replace(config, loop=loop, optimizer=dataclasses.replace(config.optimizer, learning_rate=1e-12))
    stuck = dataclasses.replace(stuck, optimizer=dataclasses.replace(stuck.optimizer, sparse_learning_rate=1e-12))
    trainer = Trainer(stuck, ranks=ranks)
    trainer.fit()
    assert "has not improved for 2 evaluations" in trainer.state.finished
    assert trainer.state.step < 50 * trainer.steps_per_epoch


def test_each_log_interval_and_evaluation_is_one_row(config, ranks):
    trainer = Trainer(config, ranks=ranks)
    trainer.fit()
    steps = {split: [r["step"] for r in read_rows(trainer.run_dir) if r["split"] == split] for split in ("train", "validation")}
    assert steps == {"train": [5, 10, 15, 20], "validation": [10, 20]}
    row = read_rows(trainer.run_dir)[0]
    assert row.keys() >= {"loss", "auc", "learning_rate", "rows_per_second", "data_wait"}


def test_checkpoints_of_another_configuration_are_refused(config, ranks):
    trainer = Trainer(config, ranks=ranks)
    trainer.fit()
    other = dataclasses.replace(config, seed=1)
    other.run_dir.parent.mkdir(exist_ok=True)
    trainer.run_dir.rename(other.run_dir)
    with pytest.raises(CheckpointError, match="was written with config"):
        Trainer(other, ranks=ranks)


def test_a_damaged_newest_checkpoint_is_skipped_for_the_one_before(config, ranks, caplog):
    trainer = Trainer(config, ranks=ranks)
    trainer.fit()
    newest = checkpoint.latest_valid(trainer.checkpoints)
    (tensors, *_) = sorted(newest.glob("*.distcp"))
    content = bytearray(tensors.read_bytes())
    content[len(content) // 2] ^= 1
    tensors.write_bytes(bytes(content))
    again = Trainer(config, ranks=ranks)
    assert again.state.step == 10
    assert newest.name in caplog.text


def test_bfloat16_on_a_cpu_is_refused(config, ranks):
    with pytest.raises(UserError, match="bfloat16 needs a GPU"):
        Trainer(dataclasses.replace(config, loop=dataclasses.replace(config.loop, precision="bfloat16")), ranks=ranks)


def test_a_data_set_that_is_not_there_is_a_data_error_that_says_how_to_make_it(config, ranks, tmp_path):
    with pytest.raises(DataError, match=r"schema\.json: no such file; prepare the data set first"):
        Trainer(dataclasses.replace(config, data=tmp_path / "nowhere"), ranks=ranks)
