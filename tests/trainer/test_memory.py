from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from trainer.memory import host_memory, rank_memory

MEMINFO = "MemTotal:       32000 kB\nMemFree:         1000 kB\nMemAvailable:   20000 kB\n"


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "kib"),
    [
        ({}, 20000),
        ({"memory.max": "max\n", "memory.current": "5000\n"}, 20000),
        ({"memory.max": f"{8000 * 1024}\n", "memory.current": f"{3000 * 1024}\n"}, 6000),
        ({"memory.max": f"{8000 * 1024}\n", "memory.current": f"{9500 * 1024}\n"}, 0),
        ({"memory.max": f"{90000 * 1024}\n", "memory.current": "0\n"}, 20000),
        ({"memory/memory.limit_in_bytes": f"{8000 * 1024}\n", "memory/memory.usage_in_bytes": f"{3000 * 1024}\n"}, 7000),
    ],
)
def test_available_memory_is_the_hosts_or_what_its_container_may_still_take(files: dict, kib: int, tmp_path: Path) -> None:
    files = {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    statistics = f"inactive_file {1000 * 1024}\ntotal_inactive_file {2000 * 1024}\n"
    files |= {"proc/meminfo": MEMINFO, "sys/fs/cgroup/memory.stat": statistics, "sys/fs/cgroup/memory/memory.stat": statistics}
    assert host_memory(write(tmp_path, files)) == kib * 1024


def test_ranks_of_one_host_share_its_memory(one_rank: dist.ProcessGroup) -> None:
    alone, one_of_four = (rank_memory(torch.device("cpu"), local_ranks=n, process_group=one_rank).host for n in (1, 4))
    assert one_of_four == pytest.approx(alone / 4, rel=0.2)
    assert alone == pytest.approx(host_memory(), rel=0.2)


def test_a_cpu_rank_has_no_gpu_memory(one_rank: dist.ProcessGroup) -> None:
    assert rank_memory(torch.device("cpu"), local_ranks=1, process_group=one_rank).gpu == 0
