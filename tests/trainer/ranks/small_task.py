"""A task without tables, for checkpoint tests that need no ranks."""

from pathlib import Path

import torch
from torch import nn

from trainer.checkpoint import CheckpointConfig, save
from trainer.optim import OptimizerConfig, build_optimizer


def small(value: float = 0.0, *, width: int = 3) -> tuple[nn.Module, torch.optim.Optimizer]:
    task = nn.Linear(width, 2)
    nn.init.constant_(task.weight, value)
    nn.init.zeros_(task.bias)
    return task, build_optimizer(task, OptimizerConfig())


def save_small(folder: Path, step: int, *, best_step: int | None = None, **config: object) -> Path:
    task, optimizer = small(float(step))
    keep = CheckpointConfig(**config)
    return save(folder, step=step, module=task, optimizer=optimizer, extra={"step": step}, config=keep, best_step=best_step)
