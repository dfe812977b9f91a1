"""Whether a model is still worth saving."""

from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed._shard.sharded_tensor import ShardedTensor
from torch.distributed.tensor import DTensor

from trainer.process_group import Ranks


@torch.no_grad()
def weights_are_finite(module: nn.Module, *, ranks: Ranks) -> bool:
    """Whether every weight and buffer, of every rank's shards, is free of NaN and infinity; one pass, a collective call."""
    finite = torch.ones((), dtype=torch.bool, device=ranks.device)
    for tensor in _local_tensors(module):
        finite &= torch.isfinite(tensor).all()
    flag = finite.to("cpu", torch.int32)
    if ranks.world_size > 1:
        dist.all_reduce(flag, op=dist.ReduceOp.MIN, group=ranks.host_group)
    return bool(flag.item())


def _local_tensors(module: nn.Module) -> Iterator[torch.Tensor]:
    """What this rank holds of the module's state, floating-point tensors only."""
    for value in module.state_dict().values():
        parts = [value]
        if isinstance(value, ShardedTensor):
            parts = [shard.tensor for shard in value.local_shards()]
        elif isinstance(value, DTensor):
            parts = [value.to_local()]
        yield from (part for part in parts if part.is_floating_point())
