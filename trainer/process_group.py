"""Which ranks train together, and on which device each of them works."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import NamedTuple

import torch
import torch.distributed as dist

from trainer import library_warnings
from trainer.errors import UserError
from trainer.host_allocator import keep_freed_memory

TIMEOUT = timedelta(minutes=10)


class Ranks(NamedTuple):
    """This process's place among those that train together."""

    rank: int
    """0 .. world_size - 1."""
    world_size: int
    """Processes that train together."""
    device: torch.device
    """Where this rank computes."""
    group: dist.ProcessGroup
    """Default group: nccl on a GPU, gloo on a CPU."""
    host_group: dist.ProcessGroup
    """gloo group for CPU tensors, so that a flag can be shared without waiting for the GPU."""

    @property
    def is_first(self) -> bool:
        """Whether this rank writes files and speaks to the console."""
        return self.rank == 0


@contextmanager
def distributed(device: str = "auto") -> Iterator[Ranks]:
    """Join the ranks that torchrun started, or be the only one; leave them at the end.

    Args:
        device: auto, cpu or cuda.

    Raises:
        UserError: cuda is asked for and there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("loop.device=cuda, but PyTorch sees no GPU; use --loop.device cpu, or run python -m trainer.doctor")
    library_warnings.silence()
    keep_freed_memory()
    use_cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    launched = "RANK" in os.environ  # torchrun's contract with its children
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if use_cuda and local_rank >= torch.cuda.device_count():
        raise UserError(
            f"local rank {local_rank} has no GPU of its own: this machine has {torch.cuda.device_count()}; start at most that many"
            " ranks on it (--nproc), or train on the CPU (--loop.device cpu)"
        )
    here = torch.device("cuda", local_rank) if use_cuda else torch.device("cpu")
    if use_cuda:
        torch.cuda.set_device(here)
    backend = "nccl" if use_cuda else "gloo"
    if launched:
        dist.init_process_group(backend, timeout=TIMEOUT, device_id=here if use_cuda else None)
    else:
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1, timeout=TIMEOUT)
    default = dist.group.WORLD
    assert default is not None
    try:
        yield Ranks(
            rank=dist.get_rank(),
            world_size=dist.get_world_size(),
            device=here,
            group=default,
            host_group=dist.new_group(backend="gloo", timeout=TIMEOUT) if use_cuda else default,
        )
    finally:
        dist.destroy_process_group()


def first_rank_says(value: bool, *, ranks: Ranks) -> bool:
    """The first rank's `value` on every rank, so that all decide alike on what one disk shows. A collective call."""
    flag = torch.tensor([value], dtype=torch.int32)
    if ranks.world_size > 1:
        dist.broadcast(flag, group=ranks.host_group, group_src=0)
    return bool(flag.item())
