"""What needs two ranks beside sharded training: checkpoints, norms, metrics, locks; results go to FOLDER/results.json."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
from cases import CASES
from norm_inputs import NORM_SPLITS, norm_inputs, run_norm
from tiny import build, ranks, train

from trainer import checkpoint, checkpoint_folder, checkpoint_manifest
from trainer.checkpoint import CheckpointConfig, latest_valid, load, save, state_sha256
from trainer.errors import CheckpointError, UserError
from trainer.metrics import BinaryMetrics
from trainer.ranking_metrics import RankingMetrics
from trainer.run_lock import RunLock
from trainer.sharding import ShardingConfig
from trainer.sync_norm import SyncBatchNorm

FOLDER = Path(sys.argv[1])
OPTIMIZER = CASES["row_wise+row_wise adagrad"][1]
ROW_WISE, TABLE_WISE = (ShardingConfig(default_type=name) for name in ("row_wise", "table_wise"))


def checkpoints(group: dist.ProcessGroup) -> dict:
    """Load what one process saved, train, save, load under another plan; and failures that only one rank sees."""
    sharded, optimizer = build(ROW_WISE, OPTIMIZER, group, seed=9)
    with files_read() as read:
        extra = load(latest_valid(FOLDER / "one"), module=sharded.module, optimizer=optimizer)
    results: dict = {"extra": extra, "from_one": state_sha256(sharded.module, optimizer), "read_for_resume": from_all_ranks(read)}
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
    results["damage_for_one_rank"] = latest_where_one_rank_finds_damage(group, two, damaged=back)
    results["one_rank_fails"] = failure_on_one_rank(group, two, moved.module, moved_optimizer)
    return results


@contextmanager
def files_read() -> Iterator[list[str]]:
    """Names of the files that this rank hashes meanwhile, to verify them."""
    names: list[str] = []
    hash_file, checkpoint_manifest.SETTLED_SECONDS = checkpoint_manifest.entry_of, 0.0
    checkpoint_manifest.entry_of = lambda path: names.append(path.name) or hash_file(path)
    yield names
    checkpoint_manifest.entry_of = hash_file


def from_all_ranks(names: list[str]) -> list[str]:
    gathered: list[list[str]] = [[]] * dist.get_world_size()
    dist.all_gather_object(gathered, names)
    return [name for own in gathered for name in own]


def latest_where_one_rank_finds_damage(group: dist.ProcessGroup, folder: Path, *, damaged: Path) -> str:
    """The second rank alone can't read the newest checkpoint."""
    check = checkpoint_folder.check_files

    def refuse(path: Path, *arguments: object, **others: object) -> None:
        if group.rank() == 1 and path == damaged:
            raise OSError(5, "input/output error")
        check(path, *arguments, **others)

    checkpoint_folder.check_files = refuse
    found = latest_valid(folder)
    checkpoint_folder.check_files = check
    assert everywhere(found is not None)
    return ", ".join(sorted(set(from_all_ranks([found.name]))))


def locks() -> dict:
    """A folder that is taken is refused on both ranks, and free again after its holder has closed the lock."""
    told = []
    with RunLock(FOLDER / "run", process_group=dist.group.WORLD):
        try:
            RunLock(FOLDER / "run", process_group=dist.group.WORLD)
        except UserError as error:
            told = [str(error)]
    with RunLock(FOLDER / "run", process_group=dist.group.WORLD):
        return {"told": from_all_ranks(told)}


def failure_on_one_rank(group: dist.ProcessGroup, folder: Path, module: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict:
    """Only the second rank can't write its random state: both must hear of it, and no checkpoint may appear."""
    if group.rank() == 1:
        checkpoint.rng_state = lambda: (_ for _ in ()).throw(OSError(28, "no space left"))
    message = ""
    try:
        save(folder, step=20, module=module, optimizer=optimizer, extra={}, config=CheckpointConfig())
    except CheckpointError as error:
        message = str(error)
    latest = latest_valid(folder)
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


def ranking_metrics(group: dist.ProcessGroup) -> list[dict]:
    """The same rows in two unequal splits, one of them with an empty rank."""
    random = torch.Generator().manual_seed(5)
    rank_B, loss_B = torch.randint(1, 60, (777,), generator=random), torch.rand(777, generator=random)
    results = []
    for cut in (100, 777):
        part = RankingMetrics()
        rows = slice(cut, None) if group.rank() == 0 else slice(0, cut)
        part.update(rank_B[rows], loss_B[rows])
        results.append(part.compute(group))
    return results


with ranks() as group:
    answers = {"checkpoints": checkpoints(group), "metrics": metrics(group), "locks": locks()}
    answers["ranking_metrics"] = ranking_metrics(group)
    tensors = norms(group)
    if group.rank() == 0:
        (FOLDER / "results.json").write_text(json.dumps(answers))
        torch.save(tensors, FOLDER / "norms.pt")
