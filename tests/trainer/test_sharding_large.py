"""Tables that a rank must never hold whole."""

import json
from collections.abc import Callable

import pytest
import torch
import torch.distributed as dist
from large_tables import PLANS, USERS
from tiny import build
from torch import nn
from torchrec import EmbeddingBagCollection, EmbeddingBagConfig

from models.embeddings import INIT_BLOCK_ROWS
from trainer import placement
from trainer.errors import UserError
from trainer.memory import RankMemory
from trainer.optim import OptimizerConfig
from trainer.sharding import ShardingConfig, shard

SGD = OptimizerConfig(sparse="sgd")


@pytest.fixture(scope="module")
def large(run_ranks: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> dict:
    folder = tmp_path_factory.mktemp("large")
    run_ranks("large_tables", str(folder / "results.json"), folder=folder)
    return json.loads((folder / "results.json").read_text())


@pytest.mark.parametrize("plan", ["row_wise", "column_wise"])
@pytest.mark.parametrize("phase", ["built", "hashed"])
def test_a_rank_makes_no_tensor_larger_than_its_shard(plan: str, phase: str, large: dict) -> None:
    assert large[plan]["held"] < 0.51 * large["whole"]
    assert large[plan][phase] < 1.01 * large[plan]["held"]


def test_the_watch_on_tensors_sees_a_whole_table_where_there_is_one(large: dict) -> None:
    assert large["replicated"]["built"] >= large["whole"]


def test_a_table_of_several_blocks_starts_as_the_same_bits_for_every_plan_and_device(large: dict) -> None:
    assert USERS > 4 * INIT_BLOCK_ROWS
    assert len({digest for plan in PLANS for digest in large[plan]["digests"]}) == 1


@pytest.mark.parametrize("sharding", [ShardingConfig(), ShardingConfig(kind="replicated")])
def test_tables_that_do_not_fit_are_refused_with_what_they_take_and_what_there_is(
    sharding: ShardingConfig, one_rank: dist.ProcessGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placement, "rank_memory", lambda *_, **__: RankMemory(gpu=0, host=2**30))
    with pytest.raises(
        UserError, match=r"the tables do not fit into memory: .*t_user, 3\.0 GiB.*each rank has 1\.0 GiB of host memory"
    ):
        build(sharding, SGD, one_rank, table_device="meta", num_users=100_000_000)


@pytest.mark.parametrize("sharding", [ShardingConfig(), ShardingConfig(kind="replicated")])
def test_optimizer_state_counts_as_memory(
    sharding: ShardingConfig, one_rank: dist.ProcessGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placement, "rank_memory", lambda *_, **__: RankMemory(gpu=0, host=6 * 2**20))
    build(sharding, SGD, one_rank, table_device="meta", num_users=100_000)
    with pytest.raises(UserError, match="do not fit into memory"):
        build(sharding, OptimizerConfig(sparse="adagrad"), one_rank, table_device="meta", num_users=100_000)


def test_a_table_on_meta_that_cannot_be_drawn_in_parts_is_refused(one_rank: dist.ProcessGroup) -> None:
    table = EmbeddingBagConfig(name="t_odd", embedding_dim=4, num_embeddings=5, feature_names=["odd"])
    task = nn.ModuleDict({"pooled": EmbeddingBagCollection(tables=[table], device=torch.device("meta"))})
    with pytest.raises(UserError, match=r"t_odd is on the meta device.*TableInit"):
        shard(task, config=ShardingConfig(), optimizer=SGD, device=torch.device("cpu"), process_group=one_rank)
