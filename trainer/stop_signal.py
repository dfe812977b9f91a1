"""Stopping together: a signal or a loss that is not finite on one rank stops every rank at the same step."""

import signal
from types import FrameType, TracebackType
from typing import NamedTuple

import torch
import torch.distributed as dist

from trainer.process_group import Ranks

CAUGHT = (signal.SIGTERM, signal.SIGINT)


class Verdict(NamedTuple):
    """What the ranks agree on at a poll."""

    stop: bool
    """Some rank was asked to stop."""
    not_finite: bool
    """Some rank saw a loss that is NaN or infinite since the last poll."""


class StopSignal:
    """Catches SIGTERM and SIGINT for the length of a `with` block, so that the run can save before it leaves."""

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        self._asked = False
        self._previous: dict[signal.Signals, object] = {}
        self._not_finite = torch.zeros((), dtype=torch.bool, device=ranks.device)

    def __enter__(self) -> "StopSignal":
        for caught in CAUGHT:
            self._previous[caught] = signal.signal(caught, self._ask)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for caught, handler in self._previous.items():
            signal.signal(caught, handler)  # pyrefly: ignore[bad-argument-type]

    def _ask(self, _signal: int, _frame: FrameType | None) -> None:
        self._asked = True

    def watch(self, loss: torch.Tensor) -> None:
        """Remember whether `loss` (scalar) is finite; no wait for the GPU."""
        self._not_finite |= ~torch.isfinite(loss)

    def poll(self) -> Verdict:
        """Compare notes with all ranks (one small all-reduce on the host)."""
        flags = torch.tensor([self._asked, bool(self._not_finite.item())], dtype=torch.int32)
        if self._ranks.world_size > 1:
            dist.all_reduce(flags, op=dist.ReduceOp.MAX, group=self._ranks.host_group)
        self._not_finite.zero_()
        stop, not_finite = flags.tolist()
        return Verdict(stop=bool(stop), not_finite=bool(not_finite))
