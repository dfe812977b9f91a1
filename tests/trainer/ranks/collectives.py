"""What needs two ranks beside sharded training: checkpoints, batch normalisation, metrics; results go to FOLDER/results.json."""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from cases import CASES
from norm_inputs import NORM_SPLITS, norm_inputs, run_norm
from tiny import build, ranks, train

from trainer import checkpoint
from trainer.checkpoint import CheckpointConfig, load, save, state_sha256
from trainer.errors import CheckpointError
from trainer.metrics import BinaryMetrics
from trainer.sharding import ShardingConfig
from trainer.sync_norm import SyncBatchNorm

FOLDER = Path(sys.argv[1])
OPTIMIZER = CASES["row_wise+row_wise adagrad"][1]
ROW_WISE, TABLE_WISE = (ShardingConfig(default_type=name) for name in ("row_wise", "table_wise"))


def checkpoints(group: dist.ProcessGroup) -> dict:
    """Load what one process saved, train, save, load under another plan; and failures that only one rank sees."""
    sharded, optimizer = build(ROW_WISE, OPTIMIZER, group, seed=9)
    one = FOLDER / "one"
    extra = load(checkpoint.latest_valid(one), module=sharded.module, optimizer=optimizer)
    results: dict = {"extra": extra, "from_one": state_sha256(sharded.module, optimizer)}
    results["losses_from_one"] = train(sharded, optimizer, OPTIMIZER, steps=range(10, 14))
    two = FOLDER / "two"
    keep = CheckpointConfig(keep_last=2)
    torch.manual_seed(100 + group.rank())
    path = save(two, step=14, module=sharded.module, optimizer=optimizer, extra={"epoch": 1}, config=keep)
    drawn = torch.rand(1).item()
    results["saved"] = state_sha256(sharded.module, optimizer)
    results["losses"] = train(sharded, optimizer, OPTIMIZER, steps=range(14, 18))
    again, again_optimizer = build(ROW_WISE, OPTIMIZER, group, seed=10)
    load(path, module=again.module, optimizer=again_optimizer)
    results["rng_restored"] = everywhere(torch.rand(1).item() == drawn)
    results["losses_again"] = train(again, again_optimizer, OPTIMIZER, steps=range(14, 18))
    moved, moved_optimizer = build(TABLE_WISE, OPTIMIZER, group, seed=11)
    load(path, module=moved.module, optimizer=moved_optimizer)
    results["moved"] = state_sha256(moved.module, moved_optimizer)
    results["losses_moved"] = train(moved, moved_optimizer, OPTIMIZER, steps=range(14, 18))
    back = save(two, step=18, module=moved.module, optimizer=moved_optimizer, extra={}, config=keep)
    load(back, module=again.module, optimizer=again_optimizer)
    equal = state_sha256(again.module, again_optimizer) == state_sha256(moved.module, moved_optimizer)
    results["table_wise_to_row_wise"] = everywhere(equal)
    results["one_rank_fails"] = failure_on_one_rank(group, two, moved.module, moved_optimizer)
    return results


def failure_on_one_rank(group: dist.ProcessGroup, folder: Path, module: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict:
    """Only the second rank can't write its random state: both must hear of it, and no checkpoint may appear."""
    if group.rank() == 1:
        checkpoint.rng_state = lambda: (_ for _ in ()).throw(OSError(28, "no space left"))
    message = ""
    try:
        save(folder, step=20, module=module, optimizer=optimizer, extra={}, config=CheckpointConfig())
    except CheckpointError as error:
        message = str(error)
    latest = checkpoint.latest_valid(folder)
    return {
        "told": everywhere("no space left (rank 1" in message.replace("[Errno 28] ", "")),
        "latest": latest.name if latest else None,
    }


def everywhere(here: bool) -> bool:
    flag = torch.tensor(int(here))
    dist.all_reduce(flag, op=dist.ReduceOp.MIN)
    return bool(flag)


def norms(group: dist.ProcessGroup) -> dict:
    """Outputs, input gradients, summed parameter gradients and statistics of SyncBatchNorm for every split."""
    results = {}
    for name, cuts in NORM_SPLITS.items():
        norm = SyncBatchNorm(3, process_group=group, momentum=None if name == "no momentum" else 0.1)
        inputs = [part.tensor_split(cuts)[group.rank()] for part in norm_inputs(name)]
        mine = run_norm(norm, *inputs)
        gathered: list[dict] = [{}] * group.size()
        dist.all_gather_object(gathered, mine)
        results[name] = {
            "output": torch.cat([part["output"] for part in gathered]),
            "input_gradient": torch.cat([part["input_gradient"] for part in gathered]),
            "weight_gradient": sum(part["weight_gradient"] for part in gathered),
            "bias_gradient": sum(part["bias_gradient"] for part in gathered),
            "eval_output": torch.cat([part["eval_output"] for part in gathered]),
            "state": gathered[0]["state"],
            "state_of_second": gathered[1]["state"],
        }
    return results


def metrics(group: dist.ProcessGroup) -> list[dict]:
    """The same rows in two unequal splits, one of them with an empty rank."""
    random = torch.Generator().manual_seed(3)
    logits = torch.randn(1001, generator=random).round(decimals=1)
    labels = (torch.rand(1001, generator=random) < logits.sigmoid()).float()
    results = []
    for cut in (300, 1001):
        part = BinaryMetrics()
        rows = slice(0, cut) if group.rank() == 0 else slice(cut, None)
        part.update(logits[rows], labels[rows])
        results.append(part.compute(group))
    return results


with ranks() as group:
    answers = {"checkpoints": checkpoints(group), "metrics": metrics(group)}
    tensors = norms(group)
    if group.rank() == 0:
        (FOLDER / "results.json").write_text(json.dumps(answers))
        torch.save(tensors, FOLDER / "norms.pt")
