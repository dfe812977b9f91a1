"""Kill a save before each of its file operations in turn; after each, a valid checkpoint must be there and the next save must work.

Writes the steps that were found, in order, to FOLDER/found.json.
"""

import json
import os
import shutil
import sys
from pathlib import Path

import torch
from torch import nn

from trainer.checkpoint import CheckpointConfig, latest_valid, load, save
from trainer.optim import OptimizerConfig, build_optimizer

FOLDER = Path(sys.argv[1])
FILE_EVENTS = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir"}
KEEP_ONE = CheckpointConfig(keep_last=1)
torch.set_num_threads(1)


def build(value: float) -> tuple[nn.Module, torch.optim.Optimizer]:
    task = nn.Linear(3, 2)
    nn.init.constant_(task.weight, value)
    return task, build_optimizer(task, OptimizerConfig())


def save_step(folder: Path, step: int) -> None:
    task, optimizer = build(float(step))
    save(folder, step=step, module=task, optimizer=optimizer, extra={"step": step}, config=KEEP_ONE)


def killed_after(folder: Path, operations: int) -> bool:
    """Save step 2 in a child that dies at file operation number `operations`; whether it died."""
    child = os.fork()
    if child == 0:
        seen = 0

        def count(event: str, arguments: tuple) -> None:
            nonlocal seen
            # descriptors and names relative to one (rmtree) count as well: nothing else touches files meanwhile
            inside = not isinstance(arguments[0], str | os.PathLike) or str(folder) in str(arguments[0]) or event != "open"
            if event in FILE_EVENTS and inside:
                seen += 1
                if seen > operations:
                    os._exit(9)

        sys.addaudithook(count)
        save_step(folder, 2)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


save_step(FOLDER / "pristine", 1)
found = []
operations = 0
while True:
    folder = FOLDER / "run"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(FOLDER / "pristine", folder)
    died = killed_after(folder, operations)
    path = latest_valid(folder)
    assert path is not None, f"killed before file operation {operations}: no valid checkpoint"
    task, optimizer = build(0.0)
    step = load(path, module=task, optimizer=optimizer)["step"]
    assert torch.equal(task.weight, torch.full((2, 3), float(step)))
    found.append(step)
    save_step(folder, 3)
    assert latest_valid(folder).name == "step-000003"
    assert sorted(entry.name for entry in folder.iterdir()) == ["step-000003"], sorted(folder.iterdir())
    if not died:
        break
    operations += 1
(FOLDER / "found.json").write_text(json.dumps(found))
