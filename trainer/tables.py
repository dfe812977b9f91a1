"""Embedding tables of a task: where they are, and their initial weights, the same for every sharding plan."""

from math import ceil
from typing import Literal, NamedTuple

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed._shard.sharded_tensor import ShardedTensor
from torchrec.distributed.embedding import ShardedEmbeddingCollection
from torchrec.distributed.embeddingbag import ShardedEmbeddingBagCollection
from torchrec.distributed.model_parallel import get_unwrapped_module
from torchrec.modules.embedding_configs import BaseEmbeddingConfig
from torchrec.modules.embedding_modules import EmbeddingBagCollection, EmbeddingCollection

from models.embeddings import INIT_BLOCK_ROWS, TableInit
from trainer.errors import UserError

Kind = Literal["pooled", "sequence"]


class Table(NamedTuple):
    """One embedding table of a task, sharded or not."""

    name: str
    """Its name in TorchRec's configuration: `t_item`."""
    module_name: str
    """Dotted name of the collection that holds it."""
    kind: Kind
    """pooled: EmbeddingBagCollection, sequence: EmbeddingCollection."""
    config: BaseEmbeddingConfig
    """Rows, width, features, initialiser."""

    @property
    def parameter_name(self) -> str:
        """Key of its weight in the task's state_dict."""
        inner = "embedding_bags" if self.kind == "pooled" else "embeddings"
        return ".".join(part for part in (self.module_name, inner, self.name, "weight") if part)


class LocalPart(NamedTuple):
    """A rectangle of a table that this rank holds."""

    values: torch.Tensor
    """float [rows, columns], a view into the parameter."""
    first_row: int
    """Its offset in the whole table."""
    first_column: int
    """Its offset in the whole table."""


def find_tables(module: nn.Module) -> list[Table]:
    """Every embedding table below `module`, in module order; wrappers (DistributedModelParallel, DDP) are looked through."""
    tables = []
    for name, child in get_unwrapped_module(module).named_modules():
        if isinstance(child, ShardedEmbeddingBagCollection):
            tables += [Table(config.name, name, "pooled", config) for config in child._embedding_bag_configs]
        elif isinstance(child, EmbeddingBagCollection):
            tables += [Table(config.name, name, "pooled", config) for config in child.embedding_bag_configs()]
        elif isinstance(child, ShardedEmbeddingCollection):
            tables += [Table(config.name, name, "sequence", config) for config in child._embedding_configs]
        elif isinstance(child, EmbeddingCollection):
            tables += [Table(config.name, name, "sequence", config) for config in child.embedding_configs()]
    return tables


def local_parts(weight: torch.Tensor | ShardedTensor) -> list[LocalPart]:
    """This rank's rectangles of a state_dict value: one of a plain tensor, any number of a sharded one."""
    if isinstance(weight, ShardedTensor):
        return [LocalPart(shard.tensor, *shard.metadata.shard_offsets) for shard in weight.local_shards()]
    return [LocalPart(weight, 0, 0)]


def draw_table(weight: torch.Tensor | ShardedTensor, *, table: Table, seed: int) -> None:
    """Draw this rank's part of a table from `seed`, block by block, without ever holding the whole table.

    The bits are those that the table's TableInit gives a whole table under the same seed, for every plan and world size.

    Raises:
        UserError: the table's `init_fn` is no TableInit, so nobody can draw a part of it.
    """
    start = table.config.init_fn
    if not isinstance(start, TableInit):
        raise UserError(
            f"table {table.name} is on the meta device and its init_fn can't draw a part of a table; give it a"
            " models.embeddings.TableInit, or build the table on a real device"
        )
    shape = (table.config.num_embeddings, table.config.embedding_dim)
    for part in local_parts(weight):
        first, last = part.first_row, part.first_row + part.values.shape[0]
        for block in range(first // INIT_BLOCK_ROWS, ceil(last / INIT_BLOCK_ROWS)):
            _copy_rows(start.draw_block(block, seed=seed, shape=shape), start=block * INIT_BLOCK_ROWS, part=part)


def spread_table(
    weight: torch.Tensor | ShardedTensor,
    *,
    source: torch.Tensor,
    process_group: dist.ProcessGroup,
    device: torch.device,
) -> None:
    """Copy the first rank's whole table `source` into every rank's part of `weight`, a block of rows at a time."""
    parts = local_parts(weight)
    for start in range(0, source.shape[0], INIT_BLOCK_ROWS):
        block = source[start : start + INIT_BLOCK_ROWS].detach().to(device, copy=True)
        if process_group.size() > 1:
            dist.broadcast(block, group=process_group, group_src=0)
        for part in parts:
            _copy_rows(block, start=start, part=part)


@torch.no_grad()
def _copy_rows(block: torch.Tensor, *, start: int, part: LocalPart) -> None:
    """Copy the rows and columns that `block` (whole rows from `start`) and `part` share."""
    rows, columns = part.values.shape
    low, high = max(start, part.first_row), min(start + block.shape[0], part.first_row + rows)
    if low < high:
        chosen = block[low - start : high - start, part.first_column : part.first_column + columns]
        part.values[low - part.first_row : high - part.first_row].copy_(chosen)
