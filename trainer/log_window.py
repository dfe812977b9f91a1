"""The stretch of steps between two progress lines."""

import time
from typing import TYPE_CHECKING

from trainer.console import console, progress_line
from trainer.run_log import RunLog
from trainer.task_metrics import Out, training_recorder

if TYPE_CHECKING:
    from trainer.trainer import Trainer


class LogWindow:
    """Collects the training outputs of some steps; `report` sums them up over all ranks and starts the next stretch."""

    def __init__(self, trainer: "Trainer") -> None:
        self._trainer = trainer
        self._restart()

    def _restart(self) -> None:
        self._recorder = training_recorder(self._trainer.task)
        self._first_step = self._trainer.state.step
        self._started = time.perf_counter()
        self._waited = self._trainer.train_loader.wait_seconds

    def leave_out(self, seconds: float) -> None:
        """Don't count the last `seconds` (evaluation, checkpoint) as training time."""
        self._started += seconds

    def add(self, out: Out) -> None:
        """One step's output."""
        self._recorder.add(out)

    def report(self, log: RunLog | None) -> None:
        """Progress line on the first rank, a `train` row in metrics.jsonl; a collective call."""
        trainer = self._trainer
        seconds = time.perf_counter() - self._started
        metrics = self._recorder.compute(trainer.ranks.host_group)
        steps = trainer.state.step - self._first_step
        values = {
            **{name: metrics[name] for name in ("loss", "auc", "auxiliary") if name in metrics},
            "learning_rate": trainer.learning_rate,
            "rows_per_second": metrics["num_rows"] / seconds,
            "data_wait": (trainer.train_loader.wait_seconds - self._waited) / seconds,
            **trainer.task.model.log_values(),
        }
        if log is not None:
            log.write(step=trainer.state.step, split="train", values=values)
            eta = (trainer.total_steps - trainer.state.step) * seconds / steps
            epoch = trainer.state.step / trainer.steps_per_epoch
            line = progress_line(
                step=trainer.state.step, total_steps=trainer.total_steps, epoch=epoch, values=values, eta_seconds=eta
            )
            console.print(line)
        self._restart()
