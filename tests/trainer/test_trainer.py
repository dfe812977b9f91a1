"""One rank, in this process: what a run does at its edges."""

import dataclasses
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torchrec.distributed import TrainPipelineSparseDist

from dataloaders.errors import DataError
from trainer import checkpoint
from trainer.cli import parse_run_config
from trainer.config import RunConfig
from trainer.errors import CheckpointError, UserError
from trainer.evaluation import evaluate_run, load_run
from trainer.process_group import Ranks, distributed
from trainer.results import read_results
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


Start = Callable[..., Trainer]


@pytest.fixture
def start(ranks: Ranks) -> Iterator[Start]:
    """Makes a Trainer, after closing the one before, which holds the run's folder."""
    current: list[Trainer] = []

    def close() -> None:
        for trainer in current:
            trainer.close()
        current.clear()

    def make(config: RunConfig, kind: type[Trainer] = Trainer) -> Trainer:
        close()
        current.append(kind(config, ranks=ranks))
        return current[0]

    yield make
    close()


class PoisonedTrainer(Trainer):
    """A weight turns NaN before a given step."""

    poison_before = 13

    def train_step(self, pipeline, batches):
        if self.state.step + 1 == self.poison_before:
            with torch.no_grad():
                next(iter(self.task.model.parameters())).fill_(torch.nan)
        return super().train_step(pipeline, batches)


class SilentlyPoisonedTrainer(Trainer):
    """A weight turns NaN within step 13, whose loss is still finite."""

    def train_step(self, pipeline, batches):
        out = super().train_step(pipeline, batches)
        if self.state.step == 13:
            with torch.no_grad():
                next(iter(self.task.model.parameters())).fill_(torch.nan)
        return out


class SignalledTrainer(Trainer):
    """Is told to stop in the middle of a step."""

    signal_at = 0

    def train_step(self, pipeline, batches):
        out = super().train_step(pipeline, batches)
        if self.state.step == self.signal_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return out


class PipelinedTrainer(Trainer):
    """Uses the GPU's pipeline, which holds batches ready while the run evaluates."""

    def pipeline(self):
        return TrainPipelineSparseDist(self.module, self.optimizer, self.ranks.device)


def _finished(config: RunConfig, start: Start, kind: type[Trainer] = Trainer) -> tuple[str, list[dict]]:
    """Digest of the final state, and the validation rows, of an undisturbed run."""
    trainer = start(config, kind)
    assert trainer.fit()
    rows = [row for row in read_rows(trainer.run_dir) if row["split"] == "validation"]
    return checkpoint.state_sha256(trainer.module, trainer.optimizer), rows


@pytest.mark.parametrize("step", [7, 10, 20])
def test_a_signal_at_any_step_even_an_evaluated_or_the_last_one_changes_nothing_in_the_end(config, start, tmp_path, step):
    expected = _finished(dataclasses.replace(config, runs=tmp_path / "undisturbed"), start)
    first = start(config, SignalledTrainer)
    first.signal_at = step
    assert not first.fit()
    assert first.state.step == (10 if step == 7 else step)  # noticed at the next poll
    assert _finished(config, start) == expected


def test_the_pipeline_that_prefetches_trains_and_evaluates_as_the_plain_one(config, start, tmp_path):
    expected = _finished(config, start)
    assert _finished(dataclasses.replace(config, runs=tmp_path / "pipelined"), start, PipelinedTrainer) == expected


def test_weights_that_are_not_finite_are_never_saved(config, start):
    saving = dataclasses.replace(config, checkpoint=dataclasses.replace(config.checkpoint, every_steps=13))
    with pytest.raises(TrainingError, match=r"last good checkpoint: .*step-000010"):
        start(saving, SilentlyPoisonedTrainer).fit()
    assert start(saving).state.step == 10


def test_a_run_that_was_moved_is_evaluated_where_it_is_and_nothing_is_written(config, start, ranks, tmp_path):
    trainer = start(config)
    trainer.fit()
    trainer.test()
    expected = read_results(trainer.run_dir)["metrics"]
    moved = trainer.run_dir.rename(tmp_path / "moved")
    before = sorted(moved.rglob("*"))
    loaded = load_run(config, run=moved, data=config.data, ranks=ranks)
    assert loaded.step == trainer.state.best_step
    assert evaluate_run(loaded, config, data=config.data, splits=("validation", "test"), ranks=ranks) == expected
    assert sorted(moved.rglob("*")) == before


def test_a_loss_that_is_not_finite_stops_the_run_and_the_last_good_checkpoint_stays(config, start):
    trainer = start(config, PoisonedTrainer)
    with pytest.raises(TrainingError, match=r"NaN or infinite within steps 11 to 15; last good checkpoint: .*step-000010"):
        trainer.fit()
    again = start(config)
    assert again.state.step == 10
    assert all(torch.isfinite(parameter).all() for parameter in again.task.parameters())


def test_a_finished_run_started_again_trains_nothing_and_keeps_its_results(config, start, capsys):
    trainer = start(config)
    assert trainer.fit()
    trainer.test()
    before = (trainer.run_dir / "results.json").read_text()
    steps = trainer.state.step

    again = start(config)
    assert again.fit()
    again.test()
    assert again.state.step == steps
    assert (again.run_dir / "results.json").read_text() == before
    assert "resumed from" in capsys.readouterr().out


def test_results_hold_every_evaluated_split_and_the_best_checkpoint_is_the_one_tested(config, start):
    trainer = start(config)
    trainer.fit()
    trainer.test()
    results = json.loads((trainer.run_dir / "results.json").read_text())
    validations = {row["step"]: row["auc"] for row in read_rows(trainer.run_dir) if row["split"] == "validation"}
    assert results["best_step"] == max(validations, key=validations.get)
    assert results["metrics"]["validation"]["auc"] == validations[results["best_step"]]
    assert set(results["metrics"]) == {"validation", "test"}
    assert "one given item per row" in results["protocol"]
    assert "rows: validation 1,000, test 1,000" in results["protocol"]
    assert results["diagnostics"] == {}
    assert (trainer.run_dir / "report.html").exists()


def test_a_run_stops_when_validation_has_not_improved_for_its_patience(config, start):
    loop = dataclasses.replace(config.loop, max_epochs=50, patience=2)
    stuck = dataclasses.replace(config, loop=loop, optimizer=dataclasses.replace(config.optimizer, learning_rate=1e-12))
    stuck = dataclasses.replace(stuck, optimizer=dataclasses.replace(stuck.optimizer, sparse_learning_rate=1e-12))
    trainer = start(stuck)
    trainer.fit()
    assert "has not improved for 2 evaluations" in trainer.state.finished
    assert trainer.state.step < 50 * trainer.steps_per_epoch


def test_each_log_interval_and_evaluation_is_one_row(config, start):
    trainer = start(config)
    trainer.fit()
    steps = {split: [r["step"] for r in read_rows(trainer.run_dir) if r["split"] == split] for split in ("train", "validation")}
    assert steps == {"train": [5, 10, 15, 20], "validation": [10, 20]}
    row = read_rows(trainer.run_dir)[0]
    assert row.keys() >= {"loss", "auc", "learning_rate", "rows_per_second", "data_wait"}


def test_checkpoints_of_another_configuration_are_refused(config, start):
    trainer = start(config)
    trainer.fit()
    other = dataclasses.replace(config, seed=1)
    other.run_dir.parent.mkdir(exist_ok=True)
    trainer.run_dir.rename(other.run_dir)
    with pytest.raises(CheckpointError, match="was written with config"):
        start(other)


def test_a_damaged_newest_checkpoint_is_skipped_for_the_one_before(config, start, caplog):
    trainer = start(config)
    trainer.fit()
    newest = checkpoint.latest_valid(trainer.checkpoints)
    (tensors, *_) = sorted(newest.glob("*.distcp"))
    content = bytearray(tensors.read_bytes())
    content[len(content) // 2] ^= 1
    tensors.write_bytes(bytes(content))
    again = start(config)
    assert again.state.step == 10
    assert newest.name in caplog.text


def test_bfloat16_on_a_cpu_is_refused(config, start):
    with pytest.raises(UserError, match="bfloat16 needs a GPU"):
        start(dataclasses.replace(config, loop=dataclasses.replace(config.loop, precision="bfloat16", device="auto")))


def test_a_data_set_that_is_not_there_is_a_data_error_that_says_how_to_make_it(config, start, tmp_path):
    with pytest.raises(DataError, match=r"schema\.json: no such file; prepare the data set first"):
        start(dataclasses.replace(config, data=tmp_path / "nowhere"))
