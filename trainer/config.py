"""One run, resolved: frozen dataclasses that recipes return, the command line overrides, and config.json records."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from dataloaders.loader import LoaderConfig
from kernels.dispatch import Backend
from models import ModelConfig
from models.embeddings import EmbeddingConfig
from trainer.checkpoint import CheckpointConfig
from trainer.optim import OptimizerConfig
from trainer.sharding import ShardingConfig

NOT_IN_FINGERPRINT = (
    "runs",
    "loader.prefetch",
    "loader.cache_bytes",
    "loop.log_every_steps",
    "loop.poll_every_steps",
    "loop.device",
    "loop.tensorboard",
    "loop.backend",
    "checkpoint",
)
"""What may change between two starts of one run, since it changes no result."""
ADDED_FIELDS: dict[str, object] = {"embeddings.features": None, "loader.negatives.excluded": "ever"}
"""Fields that older runs did not have -> the value that means what they did; with it they are no part of the fingerprint."""


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """How long a run trains, what it logs, and which checkpoint wins.

    Raises:
        ValueError: a number is not positive, or bfloat16 is asked for on a CPU.
    """

    max_epochs: int = 20
    """Passes over the training rows, at most."""
    evals_per_epoch: int = 1
    """Evaluations on the validation split in an epoch, evenly spaced; each is followed by a checkpoint."""
    patience: int = 3
    """Evaluations in a row without a better `monitor` before the run stops early."""
    monitor: Literal["auc", "logloss", "recall@10", "recall@20", "mrr@20", "ndcg@10", "loss"] = "auc"
    """Validation metric that picks the best checkpoint: the largest, or the smallest logloss or loss. auc and logloss are metrics
    of pre-ranking models, the others of matching models."""
    log_every_steps: int = 50
    """Optimizer steps between two progress lines."""
    poll_every_steps: int = 5
    """Optimizer steps between two looks, over all ranks, for a stop signal or a loss that is not finite."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: cuda where there is one."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16: forward under autocast, on a GPU only; parameters and optimizer state stay float32."""
    tensorboard: bool = True
    """Write TensorBoard event files beside metrics.jsonl."""
    backend: Backend = "auto"
    """auto: Triton kernels on a GPU, plain torch on a CPU; torch: never a kernel; triton: always, or an error."""

    def __post_init__(self) -> None:
        for name in ("max_epochs", "evals_per_epoch", "patience", "log_every_steps", "poll_every_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"loop.{name}={getattr(self, name)}, expected at least 1")
        if self.precision == "bfloat16" and self.device == "cpu":
            raise ValueError("loop.precision=bfloat16 with loop.device=cpu; autocast is supported on a GPU only: use float32")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One run; on how many ranks and machines it is trained is no part of it."""

    recipe: str
    """Name of the recipe that this configuration started from."""
    data: Path
    """Folder of the prepared data set (schema.json, train/, validation/, test/)."""
    runs: Path = Path("runs")
    """Folder that holds one folder per run."""
    seed: int = 0
    """Seeds the initial weights, the row order, sampled negatives and dropout."""
    model: ModelConfig
    embeddings: EmbeddingConfig = field(default_factory=EmbeddingConfig)
    loader: LoaderConfig = field(default_factory=LoaderConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    sharding: ShardingConfig = field(default_factory=ShardingConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)

    def as_dict(self) -> dict:
        """Nested plain values, as written to config.json."""
        return json.loads(json.dumps(dataclasses.asdict(self), default=str))

    @property
    def fingerprint(self) -> str:
        """sha256 of all that decides the result (so not NOT_IN_FINGERPRINT); names the run."""
        content = self.as_dict()
        for name in (*NOT_IN_FINGERPRINT, *ADDED_FIELDS):
            *path, leaf = name.split(".")
            parent = content
            for step in path:
                parent = parent[step]
            if name not in ADDED_FIELDS or parent[leaf] == ADDED_FIELDS[name]:
                del parent[leaf]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def run_dir(self) -> Path:
        """This run's folder: the same configuration finds the same folder, and so its checkpoints, again."""
        return self.runs / f"{self.recipe}-seed{self.seed}-{self.fingerprint[:8]}"
