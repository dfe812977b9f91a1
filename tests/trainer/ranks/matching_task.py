"""Matching models, small, and the batches that every rank takes its part of."""

import dataclasses

import torch
import torch.distributed as dist
from model_task import ADAM, FIRST_RANKS_ROWS, GLOBAL_ROWS, REPLICATED, my_rows

from dataloaders.batch import Batch
from models import build_task
from models.embeddings import EmbeddingConfig
from models.layers.diffusion import ScheduleConfig
from models.layers.diffusion_config import DiffusionConfig
from models.layers.drift_scale import DriftScale
from models.layers.mixed_attention import MixedAttentionConfig
from models.t2diff import T2DiffConfig
from models.tasks import MatchingLossConfig
from tests.models.synthetic import NEXT_ITEM_SCHEMA, catalogue_of, random_batch
from trainer.optim import OptimizerConfig, build_optimizer
from trainer.sharding import ShardedTask, ShardingConfig, shard

STEPS, SHARED_ITEMS = 15, 48

DIFFUSION = DiffusionConfig(schedule=ScheduleConfig(num_steps=4), tower_condition="onestep", num_sample_steps=2)
MIXED_ATTENTION = T2DiffConfig(use_diffusion=False, output_dim=16, attention=MixedAttentionConfig(session_len=5))
"""No noise and no dropout: what it learns is a function of the batches."""
T2DIFF = dataclasses.replace(MIXED_ATTENTION, use_diffusion=True, diffusion=DIFFUSION)
SAMPLED = dataclasses.replace(MIXED_ATTENTION, loss=MatchingLossConfig(item_softmax="sampled"))
ADAGRAD = OptimizerConfig(learning_rate=0.01, sparse="rowwise_adagrad", sparse_learning_rate=0.05)

DRIFTS = [([2, 0, 3], [3, 1]), ([0, 0], [4, 2]), ([1], []), ([], [])]
"""Valid positions of each row of z0, on the two ranks, batch after batch."""


def build_matching(
    config: T2DiffConfig, *, sharding: ShardingConfig = REPLICATED, optimizer: OptimizerConfig = ADAM
) -> tuple[ShardedTask, torch.optim.Optimizer]:
    group = dist.group.WORLD
    torch.manual_seed(1)
    task = build_task(
        config,
        schema=NEXT_ITEM_SCHEMA,
        embeddings=EmbeddingConfig(
            dim=8, init_std=0.1, features=("hist_item", "hist_category", "hist_time_lag", "item", "category")
        ),
        catalogue=catalogue_of(),
        world_size=group.size(),
        table_device=torch.device("meta"),
    )
    sharded = shard(task, config=sharding, optimizer=optimizer, device=torch.device("cpu"), process_group=group)
    return sharded, build_optimizer(sharded.module, optimizer)


def full_batch(step: int) -> Batch:
    """This rank's rows of a global batch."""
    return my_rows(random_batch(GLOBAL_ROWS, seed=step, schema=NEXT_ITEM_SCHEMA))


def sampled_batch(rank: int) -> Batch:
    """The rows of one rank of two, and the items that they share; the same in every step."""
    rows = FIRST_RANKS_ROWS if rank == 0 else GLOBAL_ROWS - FIRST_RANKS_ROWS
    batch = random_batch(rows, seed=100 + rank, schema=NEXT_ITEM_SCHEMA, shared_items=SHARED_ITEMS)
    return dataclasses.replace(batch, global_rows=torch.tensor(GLOBAL_ROWS))


def take_step(sharded: ShardedTask, optimizer: torch.optim.Optimizer, batch: Batch) -> float:
    """The loss of the global batch, before the step."""
    sharded.module.train()
    optimizer.zero_grad()
    loss, _ = sharded.module(batch)
    loss.backward()
    optimizer.step()
    total = loss.detach().double()
    dist.all_reduce(total)
    return total.item() / dist.get_world_size()


def drift_of(lengths: list[int], *, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """z0 [B, 4, 3] with as many valid positions at the end of each row, and the mask."""
    valid_BL = torch.arange(4) >= 4 - torch.tensor(lengths, dtype=torch.int64).unsqueeze(1)
    z0_BLD = torch.randn(len(lengths), 4, 3, generator=torch.Generator().manual_seed(seed)) + 0.5
    return z0_BLD * valid_BL.unsqueeze(2), valid_BL


def observed(scale: DriftScale, *, ranks: tuple[int, ...]) -> list[float]:
    """The scale after each batch of the DRIFTS of some ranks."""
    seen = []
    for step, lengths in enumerate(DRIFTS):
        parts = [drift_of(lengths[rank], seed=10 * step + rank) for rank in ranks]
        scale.observe(torch.cat([z0_BLD for z0_BLD, _ in parts]), torch.cat([valid_BL for _, valid_BL in parts]))
        seen.append(scale.scale.item())
    return seen
