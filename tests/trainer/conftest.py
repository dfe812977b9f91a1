import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

ROOT = Path(__file__).parents[2]
RANKS = Path(__file__).parent / "ranks"
sys.path.insert(0, str(RANKS))  # the programs there import each other by name, and tests import them


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


@pytest.fixture(scope="session")
def on_two_ranks(run_ranks: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> dict:
    """Results of ranks/collectives.py on two ranks, which first loads a checkpoint that one process wrote here."""
    from cases import CASES
    from tiny import build, train

    from trainer.checkpoint import CheckpointConfig, save, state_sha256
    from trainer.sharding import ShardingConfig

    folder = tmp_path_factory.mktemp("collectives")
    config = CASES["row_wise+row_wise adagrad"][1]
    with single_rank() as group:
        sharded, optimizer = build(ShardingConfig(default_type="table_wise"), config, group)
        train(sharded, optimizer, config, steps=range(10))
        (folder / "one").mkdir()
        save(folder / "one", step=10, module=sharded.module, optimizer=optimizer, extra={"a": [1]}, config=CheckpointConfig())
        alone = {"saved": state_sha256(sharded.module, optimizer)}
        alone["losses"] = train(sharded, optimizer, config, steps=range(10, 14))
    run_ranks("collectives", str(folder), folder=folder)
    results = json.loads((folder / "results.json").read_text())
    return results | {"alone": alone, "folder": folder, "norms": torch.load(folder / "norms.pt", weights_only=True)}


@contextmanager
def single_rank() -> Iterator[dist.ProcessGroup]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield dist.group.WORLD
    finally:
        dist.destroy_process_group()


@pytest.fixture
def one_rank() -> Iterator[dist.ProcessGroup]:
    """A gloo group of this process alone."""
    with single_rank() as group:
        yield group
