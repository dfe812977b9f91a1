"""MovieLens-1M, FIT's protocol: task next_behaviour, one fresh uniform negative per positive, test = each user's last behaviour.

`<model>_ml1m` shards the tables and uses the sparse optimizer that TorchRec supports on every device; `<model>_ml1m_adam` is the
papers' set-up, Adam for everything, which on a CPU means replicated tables (FIT section 5.1.4: batch 2048, d = 16, Adam 1e-3).
"""

from pathlib import Path

from dataloaders.loader import LoaderConfig
from dataloaders.negatives import NegativeConfig
from models.fit import FITConfig
from models.two_tower import TwoTowerConfig
from trainer.config import LoopConfig, ModelConfig, RunConfig
from trainer.optim import OptimizerConfig
from trainer.sharding import ShardingConfig


def _ml1m(*, recipe: str, model: ModelConfig, optimizer: OptimizerConfig, sharding: ShardingConfig) -> RunConfig:
    return RunConfig(
        recipe=recipe,
        data=Path("data/ml1m"),
        model=model,
        loader=LoaderConfig(batch_size=2048, negatives=NegativeConfig(kind="uniform", num=1)),
        optimizer=optimizer,
        sharding=sharding,
        loop=LoopConfig(max_epochs=20, patience=3),
    )


def _sharded(*, recipe: str, model: ModelConfig) -> RunConfig:
    optimizer = OptimizerConfig(sparse="rowwise_adagrad", sparse_learning_rate=0.05)
    return _ml1m(recipe=recipe, model=model, optimizer=optimizer, sharding=ShardingConfig(kind="planner"))


def _adam(*, recipe: str, model: ModelConfig) -> RunConfig:
    return _ml1m(recipe=recipe, model=model, optimizer=OptimizerConfig(sparse="adam"), sharding=ShardingConfig(kind="replicated"))


def fit_ml1m() -> RunConfig:
    """FIT with TorchRec-sharded tables."""
    return _sharded(recipe="fit_ml1m", model=FITConfig())


def two_tower_ml1m() -> RunConfig:
    """Two-Tower with TorchRec-sharded tables."""
    return _sharded(recipe="two_tower_ml1m", model=TwoTowerConfig())


def fit_ml1m_adam() -> RunConfig:
    """FIT with the paper's Adam for everything."""
    return _adam(recipe="fit_ml1m_adam", model=FITConfig())


def two_tower_ml1m_adam() -> RunConfig:
    """Two-Tower with the paper's Adam for everything."""
    return _adam(recipe="two_tower_ml1m_adam", model=TwoTowerConfig())
