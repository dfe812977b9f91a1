"""The task under TorchRec's sharding and its pipeline, on one rank; the trainer's tests cover several."""

import copy

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
from tests.models.synthetic import SCHEMA, random_batch

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
    task = build_task(MODELS[name].config_class(), schema=SCHEMA, embeddings=EmbeddingConfig(dim=4))
    sharded = shard(task, process_group, sharding_types)
    batch = random_batch(12)
    for module in (task, sharded):
        module.eval()
    expected, actual = task(batch), sharded(batch)
    torch.testing.assert_close(actual[1].logit_B, expected[1].logit_B, atol=1e-6, rtol=0)
    torch.testing.assert_close(actual[0], expected[0], atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_sparse_dist_pipeline_starts_the_lookups_of_both_collections_ahead(process_group, name):
    torch.manual_seed(0)
    task = build_task(MODELS[name].config_class(), schema=SCHEMA, embeddings=EmbeddingConfig(dim=4))
    sharded = shard(task, process_group, ("table_wise", "table_wise"))
    expected, _ = task.train()(random_batch(12, seed=1))
    optimizer = torch.optim.SGD(sharded.parameters(), lr=0.0)
    pipeline = TrainPipelineSparseDist(sharded.train(), optimizer, CPU)
    batches = iter([random_batch(12, seed=seed) for seed in (1, 2, 3)])
    outputs = [pipeline.progress(batches) for _ in range(3)]
    assert len(pipeline._pipelined_modules) == 2
    torch.testing.assert_close(outputs[0].loss, expected.detach(), atol=1e-6, rtol=0)
