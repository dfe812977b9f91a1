"""The task under TorchRec's sharding and its pipeline, on one rank; the trainer's tests cover several."""

import copy
import dataclasses

import pytest
import torch
import torch.distributed as dist
from torch.distributed._shard.sharded_tensor import ShardedTensor
from torchrec.distributed.embedding import EmbeddingCollectionSharder
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.distributed.planner import EmbeddingShardingPlanner, Topology
from torchrec.distributed.planner.types import ParameterConstraints
from torchrec.distributed.train_pipeline import TrainPipelineSparseDist
from torchrec.distributed.types import ShardingEnv

from models import MODELS, build_task
from models.embeddings import EmbeddingConfig
from models.tasks import MatchingLossConfig, MatchingTask
from models.two_tower import TwoTowerConfig
from tests.models.synthetic import KINDS, SCHEMA, build, predicts_history, random_batch

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning:torch"),  # torchrec 1.8 shards through torch.distributed._shard
    pytest.mark.filterwarnings("ignore::UserWarning:torch"),
]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def process_group():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield dist.group.WORLD
    dist.destroy_process_group()


def shard(task, process_group, sharding_types):
    """`task` under DistributedModelParallel, tables loaded with the task's own weights."""
    constraints = {
        config.name: ParameterConstraints(sharding_types=[kind])
        for module, kind in ((task.embeddings.pooled, sharding_types[0]), (task.embeddings.sequence, sharding_types[1]))
        for config in (module.embedding_bag_configs if hasattr(module, "embedding_bag_configs") else module.embedding_configs)()
    }
    sharders = [EmbeddingBagCollectionSharder(), EmbeddingCollectionSharder()]
    planner = EmbeddingShardingPlanner(topology=Topology(world_size=1, compute_device="cpu"), constraints=constraints)
    weights = copy.deepcopy(task.state_dict())
    sharded = DistributedModelParallel(
        module=copy.deepcopy(task),
        env=ShardingEnv.from_process_group(process_group),
        device=CPU,
        plan=planner.collective_plan(task, sharders, process_group),
        sharders=sharders,
    )
    for name, tensor in sharded.state_dict().items():
        local = tensor.local_shards()[0].tensor if isinstance(tensor, ShardedTensor) else tensor
        local.copy_(weights[name])
    return sharded


@pytest.mark.parametrize(
    "sharding_types", [("table_wise", "table_wise"), ("column_wise", "column_wise"), ("data_parallel", "row_wise")]
)
@pytest.mark.parametrize("name", sorted(MODELS))
def test_sharded_task_equals_unsharded(process_group, name, sharding_types):
    torch.manual_seed(0)
    task = build(MODELS[name])
    sharded = shard(task, process_group, sharding_types)
    batch = KINDS[MODELS[name].task_class].batch(12)
    for module in (task, sharded):
        module.eval()
    if isinstance(task, MatchingTask):
        expected_MC, actual_MC = task.encode_catalogue(), sharded.module.encode_catalogue()
        torch.testing.assert_close(actual_MC, expected_MC, atol=1e-6, rtol=0)
    for actual, expected in zip(sharded(batch)[1], task(batch)[1], strict=True):
        torch.testing.assert_close(actual, expected, atol=2e-6, rtol=0)


def test_sparse_dist_pipeline_takes_a_schema_without_context(process_group):
    without = tuple(feature for feature in SCHEMA.features if feature.name != "hist_time_lag")
    schema = dataclasses.replace(SCHEMA, features=without)
    task = build_task(TwoTowerConfig(), schema=schema, embeddings=EmbeddingConfig(dim=4))
    sharded = shard(task, process_group, ("table_wise", "table_wise"))
    pipeline = TrainPipelineSparseDist(sharded.train(), torch.optim.SGD(sharded.parameters(), lr=0.0), CPU)
    pipeline.progress(iter([random_batch(12, schema=schema)]))
    assert len(pipeline._pipelined_modules) == 2


@pytest.mark.parametrize("name", sorted(name for name, spec in MODELS.items() if not predicts_history(spec)))
def test_sparse_dist_pipeline_starts_the_lookups_of_both_collections_ahead(process_group, name):
    torch.manual_seed(0)
    kind, matching = KINDS[MODELS[name].task_class], MODELS[name].task_class is MatchingTask
    # the full softmax looks up the catalogue in the step itself, which is for replicated tables
    task = build(MODELS[name], loss=MatchingLossConfig(item_softmax="sampled") if matching else None)
    sharded = shard(task, process_group, ("table_wise", "table_wise"))
    batches = [kind.batch(12, seed=seed, shared_items=9 if matching else 0) for seed in (1, 2, 3)]
    torch.manual_seed(1)
    expected, _ = task.train()(batches[0])
    optimizer = torch.optim.SGD(sharded.parameters(), lr=0.0)
    pipeline = TrainPipelineSparseDist(sharded.train(), optimizer, CPU)
    torch.manual_seed(1)  # the same noise in the first step
    rest = iter(batches)
    outputs = [pipeline.progress(rest) for _ in range(3)]
    assert len(pipeline._pipelined_modules) == 2
    torch.testing.assert_close(outputs[0].loss, expected.detach(), atol=1e-6, rtol=0)
