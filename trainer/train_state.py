"""How far a run has come, and the error that ends it."""

from dataclasses import dataclass


@dataclass
class TrainState:
    """What must survive a restart beside weights, optimizer state and random numbers."""

    step: int = 0
    """Optimizer steps done."""
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


class TrainingError(RuntimeError):
    """Training can't go on; the message says where it stopped and what to do."""
