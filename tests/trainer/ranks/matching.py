"""What matching needs two ranks for; the first rank writes the results to FOLDER/results.json.

Arguments: FOLDER, the folder of a finished T2Diff run, a windows file in its prepared ids.
"""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from matching_task import (
    ADAGRAD,
    MIXED_ATTENTION,
    SAMPLED,
    STEPS,
    T2DIFF,
    build_matching,
    full_batch,
    observed,
    sampled_batch,
    take_step,
)
from tiny import ranks

from models.layers.drift_scale import DriftScale
from trainer.cli import parse_run_config
from trainer.evaluation import evaluate_run, load_run
from trainer.process_group import Ranks
from trainer.sharding import ShardingConfig
from trainer.sync_drift_scale import SyncDriftScale
from trainer.trainer import Trainer
from trainer.windows import evaluate_windows, read_windows

FOLDER, RUN, WINDOWS = (Path(word) for word in sys.argv[1:])


def mixed_attention() -> list[float]:
    sharded, optimizer = build_matching(MIXED_ATTENTION)
    return [take_step(sharded, optimizer, full_batch(step)) for step in range(STEPS)]


def t2diff() -> dict:
    """Losses, and the drift scale on both ranks."""
    sharded, optimizer = build_matching(T2DIFF)
    torch.manual_seed(dist.get_rank())  # ranks have noise of their own
    losses = [take_step(sharded, optimizer, full_batch(step)) for step in range(STEPS)]
    return {"losses": losses, "scales": from_both(sharded.task.model.log_values()["drift_scale"])}


def sampled() -> dict:
    sharded, optimizer = build_matching(SAMPLED, sharding=ShardingConfig(), optimizer=ADAGRAD)
    batch = sampled_batch(dist.get_rank())
    losses = [take_step(sharded, optimizer, batch) for _ in range(STEPS)]
    return {"losses": losses, "plan": {entry.table: entry.compute_kernel for entry in sharded.plan}}


def evaluations(group: dist.ProcessGroup) -> dict:
    """Metrics of the run's splits and of the windows."""
    config = parse_run_config(["--config", str(RUN / "config.json")])
    here = Ranks(group.rank(), group.size(), torch.device("cpu"), group, group)
    loaded = load_run(config, run=RUN, data=config.data, ranks=here)
    found = evaluate_run(loaded, config, data=config.data, splits=("validation", "test"), ranks=here)
    windows = read_windows(WINDOWS, data=config.data, ids="prepared")
    return found | {"windows": evaluate_windows(loaded, windows, data=config.data, ranks=here)}


def whole_run(group: dist.ProcessGroup) -> str:
    """Folder of a run on sharded tables with the sampled softmax, trained and tested by both ranks."""
    words = (
        *("--config", str(RUN / "config.json"), "--runs", str(FOLDER / "runs"), "--loop.max-epochs", "1"),
        *("--sharding.kind", "planner", "--optimizer.sparse", "rowwise_adagrad", "--optimizer.sparse-learning-rate", "0.05"),
        *("--model.loss.item-softmax", "sampled", "--loader.negatives.kind", "shared"),
    )
    config = parse_run_config(words)
    with Trainer(config, ranks=Ranks(group.rank(), group.size(), torch.device("cpu"), group, group)) as trainer:
        assert trainer.fit()
        trainer.test()
    return str(config.run_dir)


def from_both(value: object) -> list:
    gathered: list = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, value)
    return gathered


with ranks() as group:
    answers = {
        "scales": from_both(observed(SyncDriftScale(DriftScale(), process_group=group), ranks=(group.rank(),))),
        "mixed_attention": mixed_attention(),
        "t2diff": t2diff(),
        "sampled": sampled(),
        "evaluations": from_both(evaluations(group)),
        "whole_run": whole_run(group),
    }
    if group.rank() == 0:
        (FOLDER / "results.json").write_text(json.dumps(answers))
