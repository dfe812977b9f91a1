"""The real models, small, and global batches of which every rank takes its rows."""

import torch
import torch.distributed as dist
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from dataloaders.batch import Batch
from models import ModelConfig, build_task
from models.embeddings import EmbeddingConfig
from models.fit import FITConfig
from models.layers.meta_query import MetaQueryConfig
from models.layers.mlp import TowerConfig
from models.two_tower import TwoTowerConfig
from tests.models.synthetic import SCHEMA, random_batch
from trainer.optim import OptimizerConfig, build_optimizer
from trainer.sharding import ShardedTask, ShardingConfig, shard

STEPS, GLOBAL_ROWS, FIRST_RANKS_ROWS, EMPTY_STEP = 20, 32, 19, 7

TOWER = TowerConfig(hidden_dims=(24, 16))
MODEL_CONFIGS: dict[str, ModelConfig] = {
    "fit": FITConfig(tower=TOWER, meta_query=MetaQueryConfig(num_queries=8), attention_dims=(12, 6), head_dim=8, scorer_dim=4),
    "two_tower": TwoTowerConfig(tower=TOWER),
}
"""BatchNorm in the towers, Dice in FIT's attention, no dropout."""

MIXED = ShardingConfig(
    types=(
        ("t_user", "row_wise"),
        ("t_tag", "column_wise"),
        ("t_shop", "table_wise"),
        ("t_item", "row_wise"),
        ("t_category", "column_wise"),
    )
)
REPLICATED = ShardingConfig(kind="replicated")
# the papers' Adam; at ten times its rate rounding grows to 5e-5 of the loss within the 20 steps, whatever the plan: Adam's first
# steps are the sign of the gradient, and the two-tower's logit is ten times a cosine
ADAGRAD = OptimizerConfig(learning_rate=1e-3, sparse="adagrad", sparse_learning_rate=0.01)
ADAM = OptimizerConfig(learning_rate=1e-3, sparse="adam", sparse_learning_rate=1e-3)
CASES = {
    f"{model}, {plan}": (MODEL_CONFIGS[model], sharding, optimizer)
    for model in MODEL_CONFIGS
    for plan, sharding, optimizer in (
        ("mixed plan", MIXED, ADAGRAD),
        ("planner's choice", ShardingConfig(), ADAGRAD),
        ("replicated", REPLICATED, ADAM),
    )
}


def global_batch(step: int) -> Batch:
    """Random rows, some with an empty history; at EMPTY_STEP all of the second rank's have one."""
    lengths = torch.randint(0, 7, (GLOBAL_ROWS,), generator=torch.Generator().manual_seed(step))
    if step == EMPTY_STEP:
        lengths[FIRST_RANKS_ROWS:] = 0
    return random_batch(GLOBAL_ROWS, seed=step, history_lengths=lengths.tolist())


def my_rows(batch: Batch) -> Batch:
    """This rank's rows of a global batch."""
    rows = slice(None)
    if dist.get_world_size() == 2:
        rows = slice(None, FIRST_RANKS_ROWS) if dist.get_rank() == 0 else slice(FIRST_RANKS_ROWS, None)
    return Batch(
        pooled=_rows_of(batch.pooled, rows),
        sequence=_rows_of(batch.sequence, rows),
        label_B=batch.label_B[rows],
        row_id_B=batch.row_id_B[rows],
        global_rows=batch.global_rows,
    )


def _rows_of(jagged: KeyedJaggedTensor, rows: slice) -> KeyedJaggedTensor:
    names = jagged.keys()
    lists = [ids for key in names for ids in jagged[key].values().split(jagged[key].lengths().tolist())[rows]]
    lengths = torch.tensor([len(ids) for ids in lists], dtype=torch.int32)
    return KeyedJaggedTensor(keys=names, values=torch.cat(lists), lengths=lengths)


def build_model(
    config: ModelConfig, *, sharding: ShardingConfig, optimizer: OptimizerConfig, group: dist.ProcessGroup
) -> tuple[ShardedTask, torch.optim.Optimizer]:
    torch.manual_seed(1)
    task = build_task(
        config,
        schema=SCHEMA,
        embeddings=EmbeddingConfig(dim=8, init_std=0.1),
        world_size=group.size(),
        table_device=torch.device("meta"),
    )
    sharded = shard(task, config=sharding, optimizer=optimizer, device=torch.device("cpu"), process_group=group)
    return sharded, build_optimizer(sharded.module, optimizer)


def losses_of(sharded: ShardedTask, optimizer: torch.optim.Optimizer) -> list[float]:
    """Take one optimizer step after another; the loss of each global batch."""
    losses = []
    sharded.module.train()
    for step in range(STEPS):
        sharded.task.model.schedule(step, STEPS)
        optimizer.zero_grad()
        loss, _ = sharded.module(my_rows(global_batch(step)))
        loss.backward()
        optimizer.step()
        total = loss.detach().double()
        dist.all_reduce(total)
        losses.append(total.item() / dist.get_world_size())
    return losses


def statistics_of(sharded: ShardedTask) -> dict[str, list[float]]:
    """Running statistics and step counts of every BatchNorm and Dice."""
    buffers = [(name, buffer) for name, buffer in sharded.task.named_buffers() if "running" in name or "num_batches" in name]
    return {name: buffer.double().flatten().tolist() for name, buffer in buffers}
