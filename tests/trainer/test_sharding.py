import io
import json
from collections.abc import Callable

import pytest
import torch
import torch.distributed as dist
from cases import CASES
from rich.console import Console
from tiny import build, train

from trainer.checkpoint import state_sha256
from trainer.errors import UserError
from trainer.optim import OptimizerConfig
from trainer.sharding import ShardingConfig, plan_table

REPLICATED = ShardingConfig(kind="replicated")


@pytest.fixture(scope="module")
def trained(run_ranks: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """Losses, digests and plan of every case, from one launch of two ranks with unequal shares of each batch."""
    folder = tmp_path_factory.mktemp("parity")
    run_ranks("sharding_parity", str(folder / "results.json"), folder=folder)
    return json.loads((folder / "results.json").read_text())


@pytest.mark.parametrize("case", CASES)
def test_two_sharded_ranks_train_as_one_process_on_the_whole_batches(
    case: str, trained: dict[str, dict], one_rank: dist.ProcessGroup
) -> None:
    _, config = CASES[case]
    expected = train(*build(REPLICATED, config, one_rank), config)
    assert trained[case]["losses"] == pytest.approx(expected, rel=1e-6, abs=0)
    assert trained[case]["initial"] != trained[case]["final"]


def test_parity_would_notice_tables_that_do_not_learn(one_rank: dist.ProcessGroup) -> None:
    still, learning = (OptimizerConfig(sparse="sgd", sparse_learning_rate=rate) for rate in (1e-12, 0.1))
    losses = [train(*build(REPLICATED, config, one_rank), config) for config in (still, learning)]
    assert losses[0][-1] != pytest.approx(losses[1][-1], rel=1e-4)


def test_initial_weights_are_the_same_bits_for_every_plan_and_world_size_and_for_tables_on_meta(
    trained: dict[str, dict], one_rank: dist.ProcessGroup
) -> None:
    config = OptimizerConfig(sparse="adagrad")
    plans = (REPLICATED, ShardingConfig(default_type="row_wise"), ShardingConfig(default_type="column_wise"))
    alone = {
        state_sha256(build(plan, config, one_rank, table_device=device)[0].module) for plan in plans for device in ("cpu", "meta")
    }
    together = {results[kind] for results in trained.values() for kind in ("initial", "drawn")}
    assert len(alone) == 1
    assert together == alone


def test_another_seed_gives_other_initial_weights(one_rank: dist.ProcessGroup) -> None:
    config = OptimizerConfig(sparse="adagrad")
    for device in ("cpu", "meta"):
        digests = {state_sha256(build(REPLICATED, config, one_rank, table_device=device, seed=seed)[0].module) for seed in (5, 6)}
        assert len(digests) == 2


def test_a_process_may_start_with_any_of_the_seeds_that_torch_draws(one_rank: dist.ProcessGroup) -> None:
    config = OptimizerConfig(sparse="adagrad")
    alone = {
        state_sha256(build(REPLICATED, config, one_rank, table_device=device, seed=2**64 - 3)[0].module)
        for device in ("cpu", "meta")
    }
    assert len(alone) == 1


def test_requested_sharding_types_are_planned_with_a_shard_on_each_rank(trained: dict[str, dict]) -> None:
    plan = trained["row_wise+row_wise adagrad"]["plan"]
    assert plan == {name: ["row_wise", 2] for name in ("t_user", "t_genre", "t_item", "t_category")}
    assert trained["column_wise+column_wise adagrad"]["plan"]["t_item"] == ["column_wise", 2]
    assert trained["data_parallel+column_wise sgd"]["plan"]["t_user"] == ["data_parallel", 2]
    assert trained["replicated adam"]["plan"]["t_item"] == ["replicated", 2]


@pytest.mark.parametrize(
    ("sharding", "optimizer", "words"),
    [
        (ShardingConfig(), OptimizerConfig(sparse="adam"), ("sequence table t_item", "no fused Adam", "kind=replicated")),
        (
            ShardingConfig(types=(("t_user", "table_wise"),)),
            OptimizerConfig(sparse="adam", sequence_sparse="adagrad"),
            ("t_user", "table_wise", "no fused Adam"),
        ),
        (
            ShardingConfig(types=(("sequence", "data_parallel"),)),
            OptimizerConfig(sparse="sgd"),
            ("t_item", "data_parallel", "table_wise"),
        ),
        (ShardingConfig(default_type="grid_shard"), OptimizerConfig(sparse="sgd"), ("t_user", "wrong numbers", "row_wise")),
        (
            ShardingConfig(default_type="column_wise"),
            OptimizerConfig(sparse="rowwise_adagrad"),
            ("t_user", "RowWiseAdagrad", "adagrad"),
        ),
        (ShardingConfig(types=(("t_itme", "row_wise"),)), OptimizerConfig(sparse="sgd"), ("'t_itme'", "did you mean t_item")),
        (ShardingConfig(), OptimizerConfig(sparse="sgd", embedding_decay=0.1), ("embedding_decay=0.1", "t_user", "replicated")),
    ],
)
def test_what_cannot_work_is_refused_with_what_to_use_instead(
    sharding: ShardingConfig, optimizer: OptimizerConfig, words: tuple[str, ...], one_rank: dist.ProcessGroup
) -> None:
    with pytest.raises(UserError) as error:
        build(sharding, optimizer, one_rank)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"kind": "none"}, "kind='none'"),
        ({"default_type": "rows"}, "'rows'"),
        ({"types": (("t_item", "diagonal"),)}, "'diagonal'"),
        ({"types": (("t_item", "row_wise"), ("t_item", "table_wise"))}, "twice"),
        ({"kind": "replicated", "default_type": "row_wise"}, "no sharding types"),
    ],
)
def test_sharding_config_names_the_field_it_rejects(arguments: dict, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        ShardingConfig(**arguments)


def test_a_dense_parameter_on_meta_is_refused(one_rank: dist.ProcessGroup) -> None:
    with torch.device("meta"), pytest.raises(UserError, match="meta device"):
        build(REPLICATED, OptimizerConfig(), one_rank)


def test_plan_table_shows_how_every_table_is_placed_and_updated(one_rank: dist.ProcessGroup) -> None:
    config = OptimizerConfig(sparse="adam", sequence_sparse="rowwise_adagrad")
    sharding = ShardingConfig(types=(("pooled", "data_parallel"), ("t_category", "table_wise"), ("sequence", "row_wise")))
    plan = build(sharding, config, one_rank)[0].plan
    console = Console(width=200, file=io.StringIO())
    console.print(plan_table(plan))
    shown = console.file.getvalue()
    lines = {entry.table: next(line for line in shown.splitlines() if f" {entry.table} " in line) for entry in plan}
    assert all(word in lines["t_user"] for word in ("pooled", "53 × 8", "data_parallel", "dense", "adam"))
    assert all(word in lines["t_item"] for word in ("sequence", "41 × 8", "row_wise", "fused", "rowwise_adagrad"))
    assert "table_wise" in lines["t_category"]
    assert next(entry for entry in plan if entry.table == "t_user").bytes_on(0) == 53 * 8 * 4 * 3
    assert next(entry for entry in plan if entry.table == "t_item").bytes_on(0) == 41 * (8 * 4 + 4)
