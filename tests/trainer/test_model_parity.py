"""FIT and Two-Tower on two ranks with unequal shares against one process: BatchNorm, Dice, empty histories, mean-pooled lists."""

import dataclasses
import json
from collections.abc import Callable

import pytest
import torch.distributed as dist
from model_task import (
    ADAM,
    CASES,
    EMPTY_STEP,
    FIRST_RANKS_ROWS,
    MIXED,
    MODEL_CONFIGS,
    REPLICATED,
    build_model,
    global_batch,
    losses_of,
    statistics_of,
)


@pytest.fixture(scope="module")
def trained(run_ranks: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    folder = tmp_path_factory.mktemp("model-parity")
    run_ranks("model_parity", str(folder / "results.json"), folder=folder)
    return json.loads((folder / "results.json").read_text())


@pytest.mark.parametrize("case", CASES)
def test_two_ranks_train_a_real_model_as_one_process_does(case: str, trained: dict[str, dict], one_rank: dist.ProcessGroup) -> None:
    config, _, optimizer = CASES[case]
    alone = build_model(config, sharding=REPLICATED, optimizer=optimizer, group=one_rank)
    assert trained[case]["losses"] == pytest.approx(losses_of(*alone), rel=1e-6, abs=0)
    expected, found = statistics_of(alone[0]), trained[case]["statistics"]
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name] == pytest.approx(values, rel=1e-5, abs=1e-7), name


@pytest.mark.parametrize("model", MODEL_CONFIGS)
def test_the_losses_would_show_a_model_that_learns_differently(model: str, one_rank: dist.ProcessGroup) -> None:
    slower = dataclasses.replace(ADAM, sparse_learning_rate=0.9e-3)
    runs = [build_model(MODEL_CONFIGS[model], sharding=REPLICATED, optimizer=o, group=one_rank) for o in (ADAM, slower)]
    losses = [losses_of(*run) for run in runs]
    assert losses[0][-1] != pytest.approx(losses[1][-1], rel=1e-5)


def test_the_cases_are_what_they_say(trained: dict[str, dict]) -> None:
    empty = [global_batch(EMPTY_STEP).sequence["hist_item"].lengths()[FIRST_RANKS_ROWS:].sum().item(), 0]
    assert empty == [0, 0]
    assert any(0 in global_batch(step).sequence["hist_item"].lengths()[:FIRST_RANKS_ROWS].tolist() for step in range(EMPTY_STEP))
    assert trained["fit, mixed plan"]["plan"] == dict(MIXED.types)
    dice = [name for name in trained["fit, mixed plan"]["statistics"] if "dice" in name]
    assert len(dice) == 6
