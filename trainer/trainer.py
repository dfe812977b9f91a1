"""The training run: set up, resume, fit, validate, test. Everything that can be a function of the global step is one."""

import dataclasses
import json
import time
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path

import torch
import torch.distributed as dist
from torchrec.distributed import TrainPipelineBase, TrainPipelineSparseDist

from dataloaders.batch import Batch
from dataloaders.loader import Dataloader
from dataloaders.negatives import NegativeConfig
from dataloaders.schema import Schema
from models import build_task
from models.types import TrainOut
from trainer import checkpoint
from trainer.config import RunConfig
from trainer.console import console, evaluation_line
from trainer.determinism import seed_everything
from trainer.errors import CheckpointError, UserError
from trainer.evaluate import evaluate
from trainer.log_window import LogWindow
from trainer.optim import build_optimizer, learning_rate_factor, set_learning_rate
from trainer.process_group import Ranks
from trainer.report import write_report
from trainer.results import print_results, write_results
from trainer.run_log import RunLog
from trainer.sharding import plan_table, shard
from trainer.stop_signal import StopSignal
from trainer.train_state import TrainingError, TrainState


class Trainer:
    """One run of one RunConfig on this rank.

    Raises:
        UserError: the configuration asks for what the hardware or TorchRec can't do.
        DataError: the data set is missing or broken.
        CheckpointError: the run's folder holds checkpoints, and they do not fit the configuration.

    Example::

        with distributed() as ranks:
            trainer = Trainer(config, ranks=ranks)
            if trainer.fit():
                trainer.test()
    """

    def __init__(self, config: RunConfig, *, ranks: Ranks) -> None:
        self.config, self.ranks, self.state = config, ranks, TrainState()
        if config.loop.precision == "bfloat16" and ranks.device.type == "cpu":
            raise UserError("loop.precision=bfloat16 needs a GPU, and this run is on a CPU: use --loop.precision float32")
        seed_everything(config.seed, rank=ranks.rank)
        self.schema = Schema.load(config.data)
        self.train_loader = self.new_train_loader()
        self.steps_per_epoch = self.train_loader.steps_per_epoch
        self.total_steps = self.steps_per_epoch * config.loop.max_epochs
        task = build_task(
            config.model, schema=self.schema, embeddings=config.embeddings, device=torch.device("cpu"), world_size=ranks.world_size
        )
        self.num_parameters = sum(parameter.numel() for parameter in task.parameters())
        sharded = shard(task, config=config.sharding, optimizer=config.optimizer, device=ranks.device, process_group=ranks.group)
        self.module, self.task, self.plan = sharded.module, sharded.task, sharded.plan
        self.optimizer = build_optimizer(self.module, config.optimizer)
        self._eval_loaders: dict[Path, Dataloader] = {}
        self._prepare_folder()
        self._resume()

    def fit(self) -> bool:
        """Train until validation stops improving or the epochs are over; False where a signal made it save and leave before."""
        with StopSignal(self.ranks) as stop, closing(self.batches()) as batches, self._run_log() as log:
            pipeline = self.pipeline()
            window = LogWindow(self)
            while not self.state.finished:
                out = self.train_step(pipeline, batches)
                stop.watch(out.loss)
                window.add(out)
                if not self._keep_going(stop):
                    return False
                if self._is_log_step():
                    window.report(log)
                if self._is_eval_step() or self._is_save_step():
                    paused_at = time.perf_counter()
                    if self._is_eval_step():
                        self._validate(log)
                    self._save()
                    window.leave_out(time.perf_counter() - paused_at)
        return True

    def test(self) -> None:
        """Test the best checkpoint once, write results.json and report.html; a run that has been tested only prints them."""
        if not (self.run_dir / "results.json").exists():
            final_digest = checkpoint.state_sha256(self.module, self.optimizer)
            self.load_best()
            splits = sorted(path.name for path in self.config.data.iterdir() if path.is_dir() and path.name != "train")
            metrics = {split: self.evaluate(split) for split in splits}
            if self.ranks.is_first:
                write_results(self, metrics=metrics, final_digest=final_digest)
        if self.ranks.is_first:
            write_report(self.run_dir / "report.html", [self.run_dir])
            print_results(self.run_dir)

    def load_best(self) -> None:
        """Put the best checkpoint's weights into the module; CheckpointError where the run has none yet."""
        if self.state.best_value is None:
            raise CheckpointError(f"{self.checkpoints}: no evaluated checkpoint yet; train the run first")
        best = checkpoint.step_folder(self.checkpoints, self.state.best_step)
        checkpoint.load(best, module=self.module, optimizer=self.optimizer)

    def evaluate(self, split: str, *, data: Path | None = None) -> dict[str, float]:
        """Metrics of one split of the run's data set, or of another folder with the same schema. A collective call."""
        folder = (data or self.config.data) / split
        if folder not in self._eval_loaders:
            self._eval_loaders[folder] = self._loader(folder, training=False)
        return evaluate(self.module, self._eval_loaders[folder], ranks=self.ranks)

    def new_train_loader(self) -> Dataloader:
        """A loader of this rank's training batches, at the start of the first epoch."""
        return self._loader(self.config.data / "train", training=True)

    def _loader(self, folder: Path, *, training: bool) -> Dataloader:
        config = self.config.loader if training else dataclasses.replace(self.config.loader, negatives=NegativeConfig(kind="none"))
        return Dataloader(
            self.schema,
            folder,
            config=config,
            seed=self.config.seed,
            shuffle=training,
            rank=self.ranks.rank,
            world_size=self.ranks.world_size,
        )

    def batches(self) -> Generator[Batch, None, None]:
        """Training batches from the current step on, epoch after epoch, without end."""
        self.train_loader.seek(epoch=self.state.step // self.steps_per_epoch, batch=self.state.step % self.steps_per_epoch)
        while True:
            yield from self.train_loader

    def pipeline(self) -> TrainPipelineBase | TrainPipelineSparseDist:
        """Three stages overlap on a GPU (copy, input distribution, compute); a CPU has nothing to overlap."""
        on_gpu = self.ranks.device.type == "cuda" and self.config.sharding.kind == "planner"
        kind = TrainPipelineSparseDist if on_gpu else TrainPipelineBase
        forward = self._autocast_forward if self.config.loop.precision == "bfloat16" else None
        return kind(self.module, self.optimizer, self.ranks.device, custom_model_fwd=forward)

    def _autocast_forward(self, batch: Batch) -> tuple[torch.Tensor, TrainOut]:
        with torch.autocast(self.ranks.device.type, dtype=torch.bfloat16):
            return self.module(batch)

    def train_step(self, pipeline: TrainPipelineBase | TrainPipelineSparseDist, batches: Iterator[Batch]) -> TrainOut:
        """One optimizer step; learning rate and temperature are set from the global step, so a resumed run repeats them."""
        started = time.perf_counter()
        self.task.model.schedule(self.state.step, self.steps_per_epoch)
        factor = learning_rate_factor(self.state.step, total_steps=self.total_steps, config=self.config.optimizer)
        set_learning_rate(self.optimizer, factor)
        self.module.train()
        out = pipeline.progress(batches)
        self.state.step += 1
        self.state.train_seconds += time.perf_counter() - started
        return out

    def _prepare_folder(self) -> None:
        """Create the run's folder with config.json and plan.txt; every rank waits until they are there."""
        self.run_dir = self.config.run_dir
        self.checkpoints = self.run_dir / "checkpoints"
        if self.ranks.is_first:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            (self.run_dir / "config.json").write_text(json.dumps(self.config.as_dict(), indent=2) + "\n")
            console.print(plan_table(self.plan))
            console.print(self._headline())
        dist.barrier(group=self.ranks.host_group)

    def _headline(self) -> str:
        return (
            f"{self.run_dir}: {self.config.recipe} on {self.schema.name}, {self.num_parameters:,} parameters,"
            f" {self.ranks.world_size} rank(s) on {self.ranks.device.type},"
            f" {self.train_loader.num_rows:,} training rows, {self.steps_per_epoch} steps an epoch"
        )

    def _resume(self) -> None:
        path = checkpoint.latest_valid(self.checkpoints)
        if path is None:
            return
        extra = checkpoint.load(path, module=self.module, optimizer=self.optimizer)
        for name, here in (("schema", self.schema.fingerprint), ("config", self.config.fingerprint)):
            if extra[name] != here:
                difference = f"{name} {extra[name][:8]}, and this run has {here[:8]}"
                raise CheckpointError(f"{path}: was written with {difference}; use another --runs folder, or remove this one")
        self.train_loader.load_state_dict(extra["loader"])
        self.state = TrainState(**extra["state"])
        self._say(f"resumed from {path}")

    def _save(self) -> None:
        loader = self.train_loader.state_dict() | self._position()
        extra = {
            "state": dataclasses.asdict(self.state),
            "loader": loader,
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

    def _position(self) -> dict[str, int]:
        """Where the next optimizer step reads; the loader itself is ahead by what the pipeline has fetched."""
        epoch, batch = divmod(self.state.step, self.steps_per_epoch)
        return {"epoch": epoch, "batch": batch}

    def _keep_going(self, stop: StopSignal) -> bool:
        """Poll where it is due, and before every log line and save: False after a signal, an error where a loss is not finite."""
        due = self.state.step % self.config.loop.poll_every_steps == 0
        if not (due or self._is_log_step() or self._is_eval_step() or self._is_save_step()):
            return True
        verdict = stop.poll()
        if verdict.not_finite:
            steps = f"steps {self.state.step - self.config.loop.poll_every_steps + 1} to {self.state.step}"
            last = checkpoint.latest_valid(self.checkpoints) or "none yet"
            advice = "lower --optimizer.learning-rate or set --optimizer.clip-norm, and start again"
            raise TrainingError(f"the loss is NaN or infinite within {steps}; last good checkpoint: {last}; {advice}")
        if verdict.stop:
            self._save()
            self._say(f"stopped by a signal at step {self.state.step}, saved; the same command continues this run")
        return not verdict.stop

    def _is_log_step(self) -> bool:
        return self.state.step % self.config.loop.log_every_steps == 0

    def _is_eval_step(self) -> bool:
        per_epoch, step = self.config.loop.evals_per_epoch, self.state.step
        return step * per_epoch // self.steps_per_epoch > (step - 1) * per_epoch // self.steps_per_epoch

    def _is_save_step(self) -> bool:
        every = self.config.checkpoint.every_steps
        return every is not None and self.state.step % every == 0

    def _validate(self, log: RunLog | None) -> None:
        """Evaluate on the validation split; remember whether it is the best so far, and whether to stop."""
        state, loop = self.state, self.config.loop
        values = self.evaluate("validation")
        value = values[loop.monitor]
        sign = 1 if loop.monitor == "auc" else -1
        if state.best_value is None or sign * value > sign * state.best_value:
            state.best_value, state.best_step, state.stale_evals = value, state.step, 0
        else:
            state.stale_evals += 1
        if state.stale_evals >= loop.patience:
            state.finished = f"validation {loop.monitor} has not improved for {loop.patience} evaluations"
        elif state.step >= self.total_steps:
            state.finished = f"trained for {loop.max_epochs} epochs"
        if log is not None:
            log.write(step=state.step, split="validation", values=values)
            note = "best so far" if state.best_step == state.step else f"best {state.best_value:.5f} at step {state.best_step}"
            console.print(evaluation_line("validation", step=state.step, values=values, note=note))

    @property
    def learning_rate(self) -> float:
        """Learning rate of the dense parameters at the current step."""
        optimizer = self.config.optimizer
        return optimizer.learning_rate * learning_rate_factor(self.state.step, total_steps=self.total_steps, config=optimizer)

    def _run_log(self) -> AbstractContextManager[RunLog | None]:
        """The log that the first rank writes; None on the others."""
        if not self.ranks.is_first:
            return nullcontext()
        return closing(RunLog(self.run_dir, resume_step=self.state.step, tensorboard=self.config.loop.tensorboard))

    def _say(self, text: str) -> None:
        if self.ranks.is_first:
            console.print(text)
