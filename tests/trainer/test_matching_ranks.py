"""Matching models on two ranks against one process."""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from matching_task import ADAGRAD, MIXED_ATTENTION, SAMPLED, STEPS, build_matching, full_batch, observed, sampled_batch, take_step

from models.layers.drift_scale import DriftScale
from tests.trainer.small_matching import windows_of_test_split, write_windows
from trainer.cli import parse_run_config
from trainer.config import RunConfig
from trainer.evaluation import evaluate_run, load_run
from trainer.process_group import Ranks, distributed
from trainer.results import read_results
from trainer.sharding import ShardingConfig


@pytest.fixture(scope="module")
def on_two(matching_run: RunConfig, run_ranks: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> dict:
    """Results of ranks/matching.py."""
    folder = tmp_path_factory.mktemp("matching_ranks")
    lines = windows_of_test_split(item=lambda movie: (movie - 7) // 3, padding=-1, times=True)
    windows = write_windows(folder / "windows.csv", lines[:117])
    run_ranks("matching", str(folder), str(matching_run.run_dir), str(windows), folder=folder)
    return json.loads((folder / "results.json").read_text())


@pytest.fixture
def ranks() -> Iterator[Ranks]:
    with distributed("cpu") as here:
        yield here


def test_the_drift_scale_follows_the_rows_of_all_ranks(on_two: dict) -> None:
    expected = observed(DriftScale(), ranks=(0, 1))
    assert len({*expected}) == 3  # the last batch has no rows, and leaves it
    for found in on_two["scales"]:
        assert found == pytest.approx(expected, rel=1e-6)
    assert observed(DriftScale(), ranks=(0,)) != pytest.approx(expected, rel=1e-3)


def test_a_full_softmax_on_replicated_tables_trains_as_one_process_does(on_two: dict, one_rank: dist.ProcessGroup) -> None:
    assert one_rank.size() == 1
    sharded, optimizer = build_matching(MIXED_ATTENTION)
    alone = [take_step(sharded, optimizer, full_batch(step)) for step in range(STEPS)]
    assert on_two["mixed_attention"] == pytest.approx(alone, rel=1e-5, abs=0)
    assert min(abs(a - b) for a, b in zip(alone[1:], alone, strict=False)) > 1e-4  # batches that can be told apart


def test_t2diff_trains_on_two_ranks_with_one_drift_scale(on_two: dict) -> None:
    losses, (first, second) = on_two["t2diff"]["losses"], on_two["t2diff"]["scales"]
    assert all(map(math.isfinite, losses))
    assert first == second
    assert 0 < first < 1


def test_a_sampled_softmax_trains_sharded_tables(on_two: dict) -> None:
    assert on_two["sampled"]["plan"] == {"t_item": "fused", "t_category": "fused"}
    losses = on_two["sampled"]["losses"]
    assert all(map(math.isfinite, losses))
    assert losses[-1] < 0.9 * losses[0]


def test_a_sampled_loss_is_the_mean_over_the_rows_of_ranks_with_candidates_of_their_own(
    on_two: dict, one_rank: dist.ProcessGroup
) -> None:
    assert one_rank.size() == 1
    sharded, _ = build_matching(SAMPLED, sharding=ShardingConfig(), optimizer=ADAGRAD)
    with torch.no_grad():
        # each is that rank's sum over the global number of rows
        parts = [sharded.module.train()(sampled_batch(rank))[0].item() for rank in (0, 1)]
    assert on_two["sampled"]["losses"][0] == pytest.approx(sum(parts), rel=1e-6)
    assert parts[0] / 19 != pytest.approx(parts[1] / 13, rel=1e-3)


def test_two_ranks_evaluate_a_run_exactly_as_one(on_two: dict, matching_run: RunConfig) -> None:
    first, second = on_two["evaluations"]
    assert first == second
    alone = read_results(matching_run.run_dir)["metrics"]
    for split, expected in alone.items():
        found = first[split]
        assert found.pop("loss") == pytest.approx(expected.pop("loss"), rel=1e-6)  # float32 of other batches
        assert found == expected


def test_windows_are_dealt_out_over_ranks(on_two: dict, matching_run: RunConfig) -> None:
    found = on_two["evaluations"][0]["windows"]
    assert found["num_rows"] == 117
    test = read_results(matching_run.run_dir)["metrics"]["test"]
    assert abs(117 * found["recall@20"] - 120 * test["recall@20"]) <= 3 + 1e-9
    assert found["loss"] == pytest.approx(test["loss"], rel=0.05)


def test_a_sampled_run_on_sharded_tables_is_tested_and_diagnosed_as_one_process_does(on_two: dict, ranks: Ranks) -> None:
    run = Path(on_two["whole_run"])
    recorded = read_results(run)
    assert recorded["world_size"] == 2
    assert recorded["diagnostics"]["leak_check"]["metric"] == "recall@20"
    assert len(recorded["diagnostics"]["reverse_process"]["mean"]) == 8
    config = parse_run_config(["--config", str(run / "config.json")])
    loaded = load_run(config, run=run, data=config.data, ranks=ranks)
    alone = evaluate_run(loaded, config, data=config.data, splits=("validation", "test"), ranks=ranks)
    for split, expected in recorded["metrics"].items():
        assert alone[split].pop("loss") == pytest.approx(expected.pop("loss"), rel=1e-5)
        assert alone[split] == expected
