"""The training run: set up, resume, fit, validate, test. Everything that can be a function of the global step is one."""

import dataclasses
import json
import math
import time
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from types import TracebackType

import torch.distributed as dist
from torchrec.distributed import TrainPipelineBase, TrainPipelineSparseDist

from dataloaders.batch import Batch
from dataloaders.errors import DataError
from dataloaders.schema import Schema
from trainer import checkpoint
from trainer.build import check_monitor, check_schedule, evaluation_loader, sharded_task, skipped_rows, training_loader
from trainer.config import RunConfig
from trainer.console import console, evaluation_line, kernel_choice
from trainer.determinism import seed_everything
from trainer.diagnostics import diagnose
from trainer.errors import CheckpointError
from trainer.evaluation import EvaluationInterrupted, evaluate
from trainer.finite import weights_are_finite
from trainer.log_window import LogWindow
from trainer.optim import build_optimizer, learning_rate_factor, set_learning_rate
from trainer.process_group import Ranks, first_rank_says
from trainer.report import write_report
from trainer.results import has_results, print_results, write_results
from trainer.run_lock import RunLock
from trainer.run_log import RunLog
from trainer.sharding import plan_table
from trainer.stop_signal import StopSignal
from trainer.task_metrics import Out
from trainer.train_state import TrainingError, TrainState

Pipeline = TrainPipelineBase | TrainPipelineSparseDist


class Trainer:
    """One run of one RunConfig on this rank; holds the run's folder until it is closed.

    Raises:
        UserError: the configuration asks for what the hardware or TorchRec can't do.
        DataError: the data set is missing or broken.
        CheckpointError: the run's folder holds checkpoints, and they do not fit the configuration.

    Example::

        with distributed() as ranks:
            with Trainer(config, ranks=ranks) as trainer:
                if trainer.fit():
                    trainer.test()
    """

    def __init__(self, config: RunConfig, *, ranks: Ranks) -> None:
        self.config, self.ranks, self.state = config, ranks, TrainState()
        seed_everything(config.seed, rank=ranks.rank)
        self.schema = Schema.load(config.data)
        self.train_loader = training_loader(config, schema=self.schema, ranks=ranks)
        self.eval_loaders = {
            split: evaluation_loader(config, folder=config.data / split, schema=self.schema, ranks=ranks)
            for split in self.schema.num_rows
            if split != "train"
        }
        if "validation" not in self.eval_loaders:
            raise DataError(f"{config.data}/schema.json: no validation split, only {list(self.schema.num_rows)}; prepare it again")
        self.steps_per_epoch = self.train_loader.steps_per_epoch
        self.total_steps = self.steps_per_epoch * config.loop.max_epochs
        check_schedule(config, total_steps=self.total_steps)
        check_monitor(config)
        sharded = sharded_task(config, schema=self.schema, ranks=ranks)
        self.sharded, self.module, self.task, self.plan = sharded, sharded.module, sharded.task, sharded.plan
        self.num_parameters = sharded.num_parameters
        self.optimizer = build_optimizer(self.module, config.optimizer)
        self._saved_step = 0
        self._prepare_folder()
        self._resume()

    def __enter__(self) -> "Trainer":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Stop reading, and let the run's folder go."""
        self.train_loader.close()
        self._lock.close()

    def fit(self) -> bool:
        """Train until validation stops improving or the epochs are over; False where a signal made it save and leave before."""
        with StopSignal(self.ranks) as stop, closing(self.batches()) as batches, self._run_log() as log:
            pipeline = self.pipeline()
            window = LogWindow(self)
            while True:
                if self._is_eval_step() and self.state.evaluated_step != self.state.step:
                    paused_at = time.perf_counter()
                    if isinstance(pipeline, TrainPipelineSparseDist):
                        pipeline.detach()  # evaluation must not look up the batches that the pipeline holds ready
                    if not self._validate(stop, log):
                        return False
                    window.leave_out(time.perf_counter() - paused_at)
                if self.state.finished:
                    return True
                out = self.train_step(pipeline, batches)
                stop.watch(out.loss)
                window.add(out)
                if not self._keep_going(stop):
                    return False
                if self._is_log_step():
                    window.report(log)
                if self._is_save_step() and not self._is_eval_step():
                    self._save()

    def test(self) -> None:
        """Test the best checkpoint once, write results.json and report.html; a run that has been tested only prints them."""
        if not first_rank_says(has_results(self.run_dir), ranks=self.ranks):
            final_digest = checkpoint.state_sha256(self.module, self.optimizer)
            self.load_best()
            metrics = {split: evaluate(self.sharded, loader, ranks=self.ranks) for split, loader in self.eval_loaders.items()}
            skipped, diagnostics = skipped_rows(self.train_loader, ranks=self.ranks), diagnose(self)
            if self.ranks.is_first:
                write_results(self, metrics=metrics, diagnostics=diagnostics, final_digest=final_digest, skipped_rows=skipped)
        if self.ranks.is_first:
            write_report(self.run_dir / "report.html", [self.run_dir])
            print_results(self.run_dir)

    def load_best(self) -> None:
        """Put the best checkpoint's weights into the module; CheckpointError where the run has none yet."""
        if self.state.best_value is None:
            raise CheckpointError(f"{self.checkpoints}: no evaluated checkpoint yet; train the run first")
        checkpoint.load(checkpoint.step_folder(self.checkpoints, self.state.best_step), module=self.module, optimizer=None)

    def batches(self) -> Generator[Batch, None, None]:
        """Training batches from the current step on, epoch after epoch, without end."""
        self.train_loader.seek(**self._position())
        while True:
            yield from self.train_loader

    def pipeline(self) -> Pipeline:
        """Three stages overlap on a GPU (copy, input distribution, compute); a CPU has nothing to overlap."""
        on_gpu = self.ranks.device.type == "cuda" and self.config.sharding.kind == "planner"
        kind = TrainPipelineSparseDist if on_gpu else TrainPipelineBase
        return kind(self.module, self.optimizer, self.ranks.device)

    def train_step(self, pipeline: Pipeline, batches: Iterator[Batch]) -> Out:
        """One optimizer step; learning rate and temperature are set from the global step, so a resumed run repeats them."""
        started = time.perf_counter()
        self.task.model.schedule(self.state.step, self.steps_per_epoch)
        set_learning_rate(self.optimizer, self._learning_rate_factor(self.state.step))
        self.module.train()
        out = pipeline.progress(batches)
        self.state.step += 1
        self.state.train_seconds += time.perf_counter() - started
        return out

    @property
    def learning_rate(self) -> float:
        """Learning rate of the dense parameters in the last step."""
        return self.config.optimizer.learning_rate * self._learning_rate_factor(max(self.state.step - 1, 0))

    def _learning_rate_factor(self, step: int) -> float:
        return learning_rate_factor(step, total_steps=self.total_steps, config=self.config.optimizer)

    def _prepare_folder(self) -> None:
        """Create the run's folder with config.json; every rank waits until it is there."""
        self.run_dir = self.config.run_dir
        self.checkpoints = self.run_dir / "checkpoints"
        self._lock = RunLock(self.run_dir, process_group=self.ranks.host_group)
        if self.ranks.is_first:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            (self.run_dir / "config.json").write_text(json.dumps(self.config.as_dict(), indent=2) + "\n")
            console.print(plan_table(self.plan))
            console.print(self._headline())
        dist.barrier(group=self.ranks.host_group)

    def _headline(self) -> str:
        return (
            f"{self.run_dir}: {self.config.recipe} on {self.schema.name}, {self.num_parameters:,} parameters,"
            f" {self.ranks.world_size} rank(s) on {self.ranks.device.type}, {self.train_loader.num_rows:,} training rows,"
            f" {self.steps_per_epoch} steps an epoch, {kernel_choice(self.config.loop.backend, self.ranks.device)}"
        )

    def _resume(self) -> None:
        path = checkpoint.latest_valid(self.checkpoints)
        if path is None:
            return
        extra = checkpoint.read_extra(path)
        for name, here in (("schema", self.schema.fingerprint), ("config", self.config.fingerprint)):
            if extra.get(name) != here:
                difference = f"{name} {str(extra.get(name))[:8]}, and this run has {here[:8]}"
                raise CheckpointError(f"{path}: was written with {difference}; use another --runs folder, or remove this one")
        self.state = TrainState.from_dict(extra["state"])
        try:
            self.train_loader.load_state_dict(extra["loader"])
        except DataError as error:
            raise DataError(f"{path}: {error}") from error
        except ValueError as error:
            raise CheckpointError(f"{path}: {error}") from error
        checkpoint.load(path, module=self.module, optimizer=self.optimizer)
        self._saved_step = self.state.step
        self._say(f"resumed from {path}")

    def _save(self) -> None:
        """Checkpoint of the current step, unless it is on the disk already."""
        if self._saved_step == self.state.step:
            return
        skipped = skipped_rows(self.train_loader, ranks=self.ranks)
        extra = {
            "state": dataclasses.asdict(self.state),
            "loader": self.train_loader.state_dict() | self._position() | {"skipped_total": skipped},
            "schema": self.schema.fingerprint,
            "config": self.config.fingerprint,
        }
        checkpoint.save(
            self.checkpoints,
            step=self.state.step,
            module=self.module,
            optimizer=self.optimizer,
            extra=extra,
            config=self.config.checkpoint,
            best_step=self.state.best_step or None,
        )
        self._saved_step = self.state.step

    def _position(self) -> dict[str, int]:
        """Where the next optimizer step reads; the loader itself is ahead by what the pipeline has fetched."""
        epoch, batch = divmod(self.state.step, self.steps_per_epoch)
        return {"epoch": epoch, "batch": batch}

    def _keep_going(self, stop: StopSignal) -> bool:
        """Poll where it is due, and before every log line, evaluation and save; False after a signal, once all is saved.

        Raises:
            TrainingError: on all ranks, where one saw a loss or holds a weight that is not finite.
        """
        saves = self._is_eval_step() or self._is_save_step()
        if not (saves or self._is_log_step() or self.state.step % self.config.loop.poll_every_steps == 0):
            return True
        verdict = stop.poll()
        saves = saves or verdict.stop
        if verdict.not_finite or (saves and not weights_are_finite(self.module, ranks=self.ranks)):
            steps = f"steps {self.state.step - self.config.loop.poll_every_steps + 1} to {self.state.step}"
            last = checkpoint.latest_valid(self.checkpoints) or "none yet"
            advice = "start again with a lower --optimizer.learning-rate or with --optimizer.clip-norm (a new run, from the start)"
            raise TrainingError(f"the loss or a weight is NaN or infinite within {steps}; last good checkpoint: {last}; {advice}")
        if verdict.stop:
            self._leave()
        return not verdict.stop

    def _leave(self) -> None:
        self._save()
        self._say(f"stopped by a signal at step {self.state.step}, saved; the same command continues this run")

    def _is_log_step(self) -> bool:
        return self.state.step % self.config.loop.log_every_steps == 0

    def _is_eval_step(self) -> bool:
        """Whether an evaluation follows the current step: evenly spaced in an epoch, and at its end."""
        per_epoch, step = self.config.loop.evals_per_epoch, self.state.step
        return step > 0 and step * per_epoch // self.steps_per_epoch > (step - 1) * per_epoch // self.steps_per_epoch

    def _is_save_step(self) -> bool:
        every = self.config.checkpoint.every_steps
        return every is not None and self.state.step % every == 0

    def _validate(self, stop: StopSignal, log: RunLog | None) -> bool:
        """Evaluate on the validation split, see whether it is the best so far and whether to stop, save; False after a signal.

        A run that is interrupted here saves without the evaluation, and starts with it when it is continued.
        """
        try:
            values = evaluate(self.sharded, self.eval_loaders["validation"], ranks=self.ranks, stop=stop)
        except EvaluationInterrupted:
            self._leave()
            return False
        state, loop = self.state, self.config.loop
        value = values[loop.monitor]
        if math.isnan(value):
            raise DataError(f"{self.config.data / 'validation'}: {loop.monitor} is NaN: all rows have one label; prepare it again")
        state.record(value, loop=loop, total_steps=self.total_steps)
        if log is not None:
            log.write(step=state.step, split="validation", values=values)
            note = "best so far" if state.best_step == state.step else f"best {state.best_value:.5f} at step {state.best_step}"
            console.print(evaluation_line("validation", step=state.step, values=values, note=note))
        self._save()
        return True

    def _run_log(self) -> AbstractContextManager[RunLog | None]:
        """The log that the first rank writes; None on the others."""
        if not self.ranks.is_first:
            return nullcontext()
        state, tensorboard = self.state, self.config.loop.tensorboard
        return closing(RunLog(self.run_dir, resume_step=state.step, evaluated_step=state.evaluated_step, tensorboard=tensorboard))

    def _say(self, text: str) -> None:
        if self.ranks.is_first:
            console.print(text)
