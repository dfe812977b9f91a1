"""Doing something to a checkpoint on every rank and agreeing on how it went."""

from collections.abc import Callable, Iterable
from typing import TypeVar

import torch.distributed as dist

from trainer.errors import CheckpointError

Result = TypeVar("Result")


def rank() -> int:
    """This process's rank; 0 without a process group."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Ranks that save or load together; 1 without a process group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def share(names: Iterable[str]) -> list[str]:
    """Those of `names` that are this rank's to read; every name is some rank's."""
    return sorted(names)[rank() :: world_size()]


def on_first_rank(what: str, action: Callable[[], Result]) -> Result:
    """Run `action` on the first rank while the others wait; its result, or its error, is everybody's."""
    results = on_every_rank(what, lambda: [action()] if rank() == 0 else [])
    return results[0][0]


def on_every_rank(what: str, action: Callable[[], Result]) -> list[Result]:
    """Run `action` on every rank and return all results; an error on any rank is raised on all, so that none waits for ever.

    Raises:
        CheckpointError: `action` raised it, or OSError, on some rank; the message names the rank and `what` it tried to do.
    """
    results: list[Result] = []
    problem = ""
    try:
        results.append(action())
    except (CheckpointError, OSError) as error:
        problem = str(error)
    mine = (results, problem)
    outcomes = [mine] * world_size()
    if dist.is_initialized():
        dist.all_gather_object(outcomes, mine)
    for index, (_, problem) in enumerate(outcomes):
        if problem:
            raise CheckpointError(f"{problem} (rank {index}, trying to {what})")
    return [result for own, _ in outcomes for result in own]
