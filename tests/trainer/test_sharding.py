import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from rich.console import Console

from trainer.checkpoint import state_sha256
from trainer.errors import UserError
from trainer.optim import OptimizerConfig
from trainer.sharding import ShardingConfig, plan_table

sys.path.insert(0, str(Path(__file__).parent / "ranks"))
from cases import CASES
from tiny import build, train

REPLICATED = ShardingConfig(kind="replicated")


@pytest.fixture(scope="module")
def on_two_ranks(run_ranks: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """Losses, digests and plan of every case, from one launch of two ranks with unequal shares of each batch."""
    folder = tmp_path_factory.mktemp("parity")
    run_ranks("sharding_parity", str(folder / "results.json"), folder=folder)
    return json.loads((folder / "results.json").read_text())


@pytest.mark.parametrize("case", CASES)
def test_two_sharded_ranks_train_as_one_process_on_the_whole_batches(
    case: str, on_two_ranks: dict[str, dict], one_rank: dist.ProcessGroup
) -> None:
    _, config = CASES[case]
    expected = train(*build(REPLICATED, config, one_rank), config)
    assert on_two_ranks[case]["losses"] == pytest.approx(expected, rel=1e-6, abs=0)
    assert expected[-1] != pytest.approx(expected[0], rel=1e-2)
