"""A T2Diff run from start to results, and through a crash."""

import dataclasses
import json
from pathlib import Path

import pytest

from trainer import checkpoint
from trainer.config import RunConfig
from trainer.errors import UserError
from trainer.process_group import Ranks, distributed
from trainer.results import read_results
from trainer.run_log import read_rows
from trainer.trainer import Trainer


class CrashError(Exception):
    """The machine goes down."""


class CrashingTrainer(Trainer):
    """Ends in the middle of an epoch, without a word to anyone."""

    def train_step(self, pipeline, batches):
        if self.state.step == 21:
            raise CrashError
        return super().train_step(pipeline, batches)


def test_a_run_that_crashed_continues_bit_exactly(matching_run: RunConfig, tmp_path: Path) -> None:
    runs = dataclasses.replace(matching_run, runs=tmp_path, checkpoint=dataclasses.replace(matching_run.checkpoint, every_steps=3))
    with distributed("cpu") as ranks:
        with CrashingTrainer(runs, ranks=ranks) as first, pytest.raises(CrashError):
            first.fit()
        with Trainer(runs, ranks=ranks) as again:
            assert again.state.step == 21
            scale_at_resume = again.task.model.log_values()["drift_scale"]
            assert again.fit()
            found = checkpoint.state_sha256(again.module, again.optimizer)
            assert again.task.model.log_values()["drift_scale"] != scale_at_resume != 1
            validations = [row for row in read_rows(again.run_dir) if row["split"] == "validation"]
    assert found == read_results(matching_run.run_dir)["final_state_sha256"]
    assert validations == [row for row in read_rows(matching_run.run_dir) if row["split"] == "validation"]


def test_the_drift_scale_is_part_of_the_state_that_is_compared(matching_run: RunConfig, tmp_path: Path) -> None:
    with distributed("cpu") as ranks, Trainer(dataclasses.replace(matching_run, runs=tmp_path), ranks=ranks) as trainer:
        before = checkpoint.state_sha256(trainer.module, trainer.optimizer)
        trainer.task.model.diffusion.drift_scale.scale.mul_(1.5)
        assert checkpoint.state_sha256(trainer.module, trainer.optimizer) != before


def test_results_hold_ranking_metrics_of_every_split_the_protocol_and_the_diagnostics(matching_run: RunConfig) -> None:
    results = json.loads((matching_run.run_dir / "results.json").read_text())
    assert results["model"] == "T2Diff"
    assert results["metrics"].keys() == {"validation", "test"}
    for values in results["metrics"].values():
        assert values["num_rows"] == 120
        assert {f"{name}@{k}" for name in ("recall", "hr", "mrr", "ndcg") for k in (2, 10, 20)} < values.keys()
        assert 20 / 90 + 3 * values["recall@20_se"] < values["recall@20"] < 1  # it has learned something
    for part in ("ml1m/next_item/leave_one_out", "all 90 items", "history compete", "validation 120, test 120", "standard error"):
        assert part in results["protocol"]
    assert results["diagnostics"].keys() == {"leak_check", "reverse_process"}


def test_the_best_checkpoint_is_the_one_with_the_highest_recall(matching_run: RunConfig) -> None:
    rows = [row for row in read_rows(matching_run.run_dir) if row["split"] == "validation"]
    results = read_results(matching_run.run_dir)
    best = max(rows, key=lambda row: row["recall@20"])
    assert (results["best_step"], results["metrics"]["validation"]["ndcg@10"]) == (best["step"], best["ndcg@10"])


def test_each_log_interval_tells_both_losses_and_the_drift_scale(matching_run: RunConfig) -> None:
    rows = [row for row in read_rows(matching_run.run_dir) if row["split"] == "train"]
    assert [row["step"] for row in rows] == [4, 8, 12, 16, 20, 24, 28]
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert all(row["auxiliary"] > 0 and row["drift_scale"] > 0 for row in rows)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"kind": "planner"}, "--sharding.kind replicated"),
        ({"monitor": "auc"}, "ranks items: use recall@20"),
    ],
)
def test_a_matching_run_that_cannot_work_is_refused_at_the_start(
    matching_run: RunConfig, tmp_path: Path, overrides: dict[str, str], words: str
) -> None:
    config = dataclasses.replace(matching_run, runs=tmp_path)
    for name, value in overrides.items():
        part = "sharding" if name == "kind" else "loop"
        config = dataclasses.replace(config, **{part: dataclasses.replace(getattr(config, part), **{name: value})})
    with distributed("cpu") as ranks, pytest.raises(UserError, match=words):
        Trainer(config, ranks=ranks)


def test_a_pre_ranking_data_set_is_refused(matching_run: RunConfig, small_demo: Path, tmp_path: Path) -> None:
    with distributed("cpu") as ranks, pytest.raises(UserError, match="--task next_item"):
        start_on(small_demo, matching_run, runs=tmp_path, ranks=ranks)


def start_on(data: Path, config: RunConfig, *, runs: Path, ranks: Ranks) -> None:
    with Trainer(dataclasses.replace(config, data=data, runs=runs), ranks=ranks):
        raise AssertionError("unreachable")
