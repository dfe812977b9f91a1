import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch.distributed as dist

ROOT = Path(__file__).parents[2]
RANKS = Path(__file__).parent / "ranks"


@pytest.fixture(scope="session")
def run_ranks() -> Callable[..., None]:
    """Run a program of tests/trainer/ranks as `world_size` gloo ranks; fail with its output where a rank fails or time is up."""

    def run(program: str, *arguments: str, folder: Path, world_size: int = 2, seconds: float = 120) -> None:
        ranks = []
        for rank in range(world_size):
            environment = os.environ | {
                "RANK": str(rank),
                "WORLD_SIZE": str(world_size),
                "LOCAL_WORLD_SIZE": str(world_size),
                "STORE": str(folder / f"store-{program}-{time.monotonic_ns() if rank == 0 else ''}"),
                "PYTHONPATH": str(ROOT),
                "OMP_NUM_THREADS": "1",
            }
            environment["STORE"] = ranks[0][2] if ranks else environment["STORE"]
            output = (folder / f"{program}-{rank}.txt").open("w")
            process = subprocess.Popen(
                [sys.executable, str(RANKS / f"{program}.py"), *arguments], env=environment, stdout=output, stderr=subprocess.STDOUT
            )
            ranks.append((process, output, environment["STORE"]))
        deadline = time.monotonic() + seconds
        codes: list[int | None] = [None] * world_size
        while None in codes and not any(codes) and time.monotonic() < deadline:
            time.sleep(0.05)
            codes = [process.poll() for process, _, _ in ranks]
        for process, output, _ in ranks:
            process.kill()
            process.wait()
            output.close()
        if codes != [0] * world_size:
            tails = [(folder / f"{program}-{rank}.txt").read_text()[-4000:] for rank in range(world_size)]
            pytest.fail(
                f"{program}: exit codes {codes} (None: still running after {seconds} s)\n" + "\n----- next rank\n".join(tails)
            )

    return run


@pytest.fixture
def one_rank() -> Iterator[dist.ProcessGroup]:
    """A gloo group of this process alone."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield dist.group.WORLD
    finally:
        dist.destroy_process_group()
