"""How much memory a rank may plan with: its GPU's, and its share of what this host has to spare."""

from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist

GROUP_LIMITS = (
    ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory.current", "inactive_file"),
    ("sys/fs/cgroup/memory/memory.limit_in_bytes", "sys/fs/cgroup/memory/memory.usage_in_bytes", "total_inactive_file"),
)
"""Limit and use of a container's memory, and the entry of memory.stat for file pages that the kernel gives back on demand; Linux
control groups version 2 and 1."""


class RankMemory(NamedTuple):
    """Bytes that one rank can still take."""

    gpu: int
    """On its GPU; 0 on a CPU."""
    host: int
    """Its share of the host's, which the ranks of one host divide evenly."""


def rank_memory(device: torch.device, *, local_ranks: int, process_group: dist.ProcessGroup) -> RankMemory:
    """The memory of the rank that has least, so that all ranks plan alike; a collective call.

    Args:
        device: where this rank computes.
        local_ranks: ranks on this host.
        process_group: the ranks that plan together.
    """
    gpu = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0
    least = torch.tensor([gpu, host_memory() // local_ranks], dtype=torch.int64, device=device)
    dist.all_reduce(least, op=dist.ReduceOp.MIN, group=process_group)
    return RankMemory(*least.tolist())


def host_memory(root: Path = Path("/")) -> int:
    """Bytes that this host, or the container that the process runs in, can still give without swapping."""
    entries = dict(line.split(":", 1) for line in (root / "proc/meminfo").read_text().splitlines())
    available = int(entries["MemAvailable"].removesuffix("kB")) * 1024
    for limit_name, usage_name, reclaimable_name in GROUP_LIMITS:
        limit_file, usage_file = root / limit_name, root / usage_name
        if limit_file.exists() and usage_file.exists() and (limit := limit_file.read_text().strip()) != "max":
            statistics = dict(line.split() for line in limit_file.with_name("memory.stat").read_text().splitlines())
            used = int(usage_file.read_text()) - int(statistics[reclaimable_name])
            available = min(available, max(int(limit) - used, 0))
    return available
