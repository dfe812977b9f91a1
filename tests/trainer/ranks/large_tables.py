"""Build a table of several blocks of rows under every kind of plan; results go to the file given as argument."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from tiny import DIM, build, ranks
from torch.utils._python_dispatch import TorchDispatchMode

from trainer.checkpoint import state_sha256
from trainer.optim import OptimizerConfig
from trainer.sharding import ShardingConfig

USERS = 300_001
PLANS = {name: ShardingConfig(default_type=name) for name in ("row_wise", "column_wise", "table_wise")}
PLANS["replicated"] = ShardingConfig(kind="replicated")


class LargestTensor(TorchDispatchMode):
    """Watches for the largest tensor that is made or returned; tensors on meta are none."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, function: Callable, types: object, args: tuple = (), kwargs: dict | None = None) -> object:
        result = function(*args, **(kwargs or {}))
        for value in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(value, torch.Tensor) and not value.is_meta:
                self.elements = max(self.elements, value.numel() * value.element_size() // 4)
        return result


if __name__ == "__main__":
    with ranks() as group:
        results = {}
        optimizer = OptimizerConfig(sparse="sgd")
        for name, plan in PLANS.items():
            with LargestTensor() as built:
                sharded, _ = build(plan, optimizer, group, table_device="meta", num_users=USERS)
            with LargestTensor() as hashed:
                digest = state_sha256(sharded.module)
            on_cpu = state_sha256(build(plan, optimizer, group, num_users=USERS)[0].module)
            sizes = [sum(rows * columns for owner, rows, columns in sharded.plan[0].shards if owner == group.rank())]
            results[name] = {"built": built.elements, "hashed": hashed.elements, "held": sizes[0], "digests": [digest, on_cpu]}
        if group.rank() == 0:
            Path(sys.argv[1]).write_text(json.dumps(results | {"whole": USERS * DIM}))
