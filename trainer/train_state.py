"""How far a run has come, and the error that ends it."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from trainer.config import LoopConfig
from trainer.errors import CheckpointError


@dataclass
class TrainState:
    """What must survive a restart beside weights, optimizer state and random numbers."""

    step: int = 0
    """Optimizer steps done."""
    evaluated_step: int = 0
    """Step of the last evaluation."""
    best_value: float | None = None
    """Best validation value of the monitored metric."""
    best_step: int = 0
    """Step of that evaluation."""
    stale_evals: int = 0
    """Evaluations since."""
    train_seconds: float = 0.0
    """Time in training steps, over all starts of this run; without evaluation, checkpoints and start-up."""
    finished: str = ""
    """Why training ended; empty while it goes on."""

    def record(self, value: float, *, loop: LoopConfig, total_steps: int) -> None:
        """Take note of a validation value at the current step: whether it is the best so far, and whether to stop."""
        sign = -1 if loop.monitor in ("logloss", "loss") else 1
        self.evaluated_step = self.step
        if self.best_value is None or sign * value > sign * self.best_value:
            self.best_value, self.best_step, self.stale_evals = value, self.step, 0
        else:
            self.stale_evals += 1
        if self.stale_evals >= loop.patience:
            self.finished = f"validation {loop.monitor} has not improved for {loop.patience} evaluations"
        elif self.step >= total_steps:
            self.finished = f"trained for {loop.max_epochs} epochs"

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "TrainState":
        """The state that a checkpoint holds; CheckpointError where its fields are another version's."""
        expected = {field.name for field in dataclasses.fields(cls)}
        if content.keys() != expected:
            raise CheckpointError(
                f"the checkpoint's state has the fields {sorted(content)}, expected {sorted(expected)}; it is of another version"
            )
        return cls(**content)


class TrainingError(RuntimeError):
    """Training can't go on; the message says where it stopped and what to do."""
