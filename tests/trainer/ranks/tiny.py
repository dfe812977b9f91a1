"""A small task with every ingredient of a real one, its batches, and a training loop: what the rank programs and tests share."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torchrec import EmbeddingBagCollection, EmbeddingBagConfig, EmbeddingCollection, EmbeddingConfig, KeyedJaggedTensor

from dataloaders.batch import Batch
from models.embeddings import TableInit
from trainer.optim import OptimizerConfig, build_optimizer, learning_rate_factor, set_learning_rate
from trainer.sharding import ShardedTask, ShardingConfig, shard

USERS, GENRES, ITEMS, CATEGORIES, DIM = 53, 7, 41, 6, 8
GLOBAL_ROWS, STEPS = 12, 20


class TinyTask(nn.Module):
    """Pooled tables, sequence tables shared by two features, BatchNorm, and a loss scaled for gradients that ranks average."""

    def __init__(self, *, world_size: int, table_device: str = "cpu", num_users: int = USERS) -> None:
        super().__init__()
        device = torch.device(table_device)
        self.world_size = world_size
        # before the tables, which draw from the same generator where they are on a real device
        self.tower = nn.Sequential(nn.Linear(5 * DIM, 16), nn.BatchNorm1d(16), nn.PReLU(16), nn.Linear(16, 1))
        self.pooled = EmbeddingBagCollection(
            device=device,
            tables=[
                EmbeddingBagConfig(**_table("t_user", num_users, ["user"])),
                EmbeddingBagConfig(**_table("t_genre", GENRES, ["genre"])),
            ],
        )
        self.sequence = EmbeddingCollection(
            device=device,
            tables=[
                EmbeddingConfig(**_table("t_item", ITEMS, ["hist_item", "item"])),
                EmbeddingConfig(**_table("t_category", CATEGORIES, ["category"])),
            ],
        )

    def forward(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        pooled = self.pooled(batch.pooled).values()
        sequence = self.sequence(batch.sequence)
        longest = max(int(sequence["hist_item"].lengths().max()), 1)
        history = sequence["hist_item"].to_padded_dense(longest).sum(1)
        features = [pooled, history, sequence["item"].values(), sequence["category"].values()]
        logit_B = self.tower(torch.cat(features, dim=1)).squeeze(1)
        loss = F.binary_cross_entropy_with_logits(logit_B, batch.label_B, reduction="sum") * self.world_size / batch.global_rows
        return loss, logit_B.detach()


def _table(name: str, rows: int, features: list[str]) -> dict:
    start = TableInit(table=name, std=0.1)
    return {"name": name, "embedding_dim": DIM, "num_embeddings": rows, "feature_names": features, "init_fn": start}


def batch_of(step: int, rows: range, *, global_rows: int = GLOBAL_ROWS) -> Batch:
    """Rows `rows` of global batch `step`; the same ids whoever asks."""
    values: dict[str, list[torch.Tensor]] = {name: [] for name in ("user", "genre", "hist_item", "item", "category", "label")}
    for row in rows:
        random = torch.Generator().manual_seed(1_000 * step + row)

        def draw(high: int, count: int, random: torch.Generator = random) -> torch.Tensor:
            return torch.randint(0, high, (count,), generator=random)

        values["user"].append(draw(USERS, 1))
        values["genre"].append(draw(GENRES, row % 3))
        values["hist_item"].append(draw(ITEMS, (row + step) % 5))
        values["item"].append(draw(ITEMS, 1))
        values["category"].append(draw(CATEGORIES, 1))
        values["label"].append((values["item"][-1] % 2 == draw(10, 1) % 2).float())
    return Batch(
        pooled=_jagged(values, ["user", "genre"]),
        sequence=_jagged(values, ["hist_item", "item", "category"]),
        label_B=torch.cat(values["label"]),
        row_id_B=torch.tensor(list(rows)),
        global_rows=torch.tensor(global_rows),
    )


def _jagged(values: dict[str, list[torch.Tensor]], names: list[str]) -> KeyedJaggedTensor:
    lengths = [len(row) for name in names for row in values[name]]
    return KeyedJaggedTensor(
        keys=names,
        values=torch.cat([row for name in names for row in values[name]]),
        lengths=torch.tensor(lengths, dtype=torch.int32),
    )


def share(rank: int, world_size: int) -> range:
    """This rank's rows of a global batch; more on the first."""
    if world_size == 1:
        return range(GLOBAL_ROWS)
    cut = GLOBAL_ROWS // 2 + 2
    return range(cut) if rank == 0 else range(cut, GLOBAL_ROWS)


def build(
    sharding: ShardingConfig,
    optimizer: OptimizerConfig,
    group: dist.ProcessGroup,
    *,
    table_device: str = "cpu",
    seed: int = 5,
    num_users: int = USERS,
) -> tuple[ShardedTask, torch.optim.Optimizer]:
    torch.manual_seed(seed + dist.get_rank())  # the first rank's weights must reach the others
    task = TinyTask(world_size=group.size(), table_device=table_device, num_users=num_users)
    torch.manual_seed(seed + dist.get_rank())
    sharded = shard(task, config=sharding, optimizer=optimizer, device=torch.device("cpu"), process_group=group)
    return sharded, build_optimizer(sharded.module, optimizer)


def train(
    sharded: ShardedTask, optimizer: torch.optim.Optimizer, config: OptimizerConfig, *, steps: range = range(STEPS)
) -> list[float]:
    """Losses of the global batches."""
    losses = []
    rank, world_size = dist.get_rank(), dist.get_world_size()
    sharded.module.train()
    for step in steps:
        set_learning_rate(optimizer, learning_rate_factor(step, total_steps=STEPS, config=config))
        optimizer.zero_grad()
        loss, _ = sharded.module(batch_of(step, share(rank, world_size)))
        loss.backward()
        optimizer.step()
        total = loss.detach().clone()
        dist.all_reduce(total)
        losses.append(total.item() / world_size)
    return losses


@contextmanager
def ranks() -> Iterator[dist.ProcessGroup]:
    """Join the other ranks of the launcher."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{os.environ['STORE']}",
        rank=int(os.environ["RANK"]),
        world_size=int(os.environ["WORLD_SIZE"]),
        timeout=timedelta(seconds=60),
    )
    try:
        yield dist.group.WORLD
    finally:
        dist.destroy_process_group()
