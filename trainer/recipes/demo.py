"""The demonstration: a synthetic data set with planted user-item cross structure, on two CPU ranks, in about a minute each."""

from pathlib import Path

from dataloaders.loader import LoaderConfig
from dataloaders.negatives import NegativeConfig
from models import ModelConfig
from models.fit import FITConfig
from models.two_tower import TwoTowerConfig
from trainer.config import LoopConfig, RunConfig
from trainer.optim import OptimizerConfig
from trainer.sharding import ShardingConfig


def _demo(*, recipe: str, model: ModelConfig) -> RunConfig:
    return RunConfig(
        recipe=recipe,
        data=Path("data/demo"),
        model=model,
        loader=LoaderConfig(batch_size=1024, negatives=NegativeConfig(kind="none")),
        optimizer=OptimizerConfig(sparse="rowwise_adagrad", sparse_learning_rate=0.05),
        sharding=ShardingConfig(kind="planner"),
        loop=LoopConfig(max_epochs=3, log_every_steps=20, device="cpu"),
    )


def fit_demo() -> RunConfig:
    """FIT on the demo data, tables sharded by TorchRec's planner."""
    return _demo(recipe="fit_demo", model=FITConfig())


def two_tower_demo() -> RunConfig:
    """Two-Tower on the demo data, tables sharded by TorchRec's planner."""
    return _demo(recipe="two_tower_demo", model=TwoTowerConfig())
