"""MovieLens-1M, FIT's protocol: task next_behaviour, one fresh uniform negative per positive, test = each user's last behaviour.

`<model>_ml1m` shards the tables and uses the sparse optimizer that TorchRec supports on every device; `<model>_ml1m_adam` has the
paper's Adam for everything, which on a CPU means replicated tables (FIT section 5.1.4: batch 2048, d = 16, Adam 1e-3).

The paper names no regularisation beside batch norm and a constant learning rate: `<model>_ml1m_paper`. The other recipes share a
dropout and a cosine learning rate, and the same budget; Adam on replicated tables also takes a small L2 penalty on the tables,
which TorchRec's fused optimizers have no equivalent of.
"""

import dataclasses
from pathlib import Path

from dataloaders.loader import LoaderConfig
from dataloaders.negatives import NegativeConfig
from models import ModelConfig
from models.fit import FITConfig
from models.layers.mlp import TowerConfig
from models.two_tower import TwoTowerConfig
from trainer.config import LoopConfig, RunConfig
from trainer.optim import OptimizerConfig
from trainer.sharding import ShardingConfig

TOWER = TowerConfig(dropout=0.2)


UNIFORM = NegativeConfig(kind="uniform", num=1)
RATING = Path("data/ml1m_rating")


def _ml1m(
    *,
    recipe: str,
    model: ModelConfig,
    optimizer: OptimizerConfig,
    sharding: ShardingConfig,
    data: Path = Path("data/ml1m"),
    negatives: NegativeConfig = UNIFORM,
) -> RunConfig:
    return RunConfig(
        recipe=recipe,
        data=data,
        model=model,
        loader=LoaderConfig(batch_size=2048, negatives=negatives),
        optimizer=optimizer,
        sharding=sharding,
        loop=LoopConfig(max_epochs=8, patience=3),
    )


def _sharded(*, recipe: str, model: ModelConfig) -> RunConfig:
    optimizer = OptimizerConfig(sparse="rowwise_adagrad", sparse_learning_rate=0.05, schedule="cosine")
    return _ml1m(recipe=recipe, model=model, optimizer=optimizer, sharding=ShardingConfig(kind="planner"))


ADAM = OptimizerConfig(sparse="adam", embedding_decay=1e-6, schedule="cosine")
REPLICATED = ShardingConfig(kind="replicated")


def _adam(*, recipe: str, model: ModelConfig) -> RunConfig:
    return _ml1m(recipe=recipe, model=model, optimizer=ADAM, sharding=REPLICATED)


def _paper(*, recipe: str, model: ModelConfig) -> RunConfig:
    run = _ml1m(recipe=recipe, model=model, optimizer=OptimizerConfig(sparse="adam"), sharding=REPLICATED)
    return dataclasses.replace(run, loop=LoopConfig(max_epochs=40, patience=3))


def _rating(*, recipe: str, model: ModelConfig) -> RunConfig:
    labelled = NegativeConfig(kind="none")
    return _ml1m(recipe=recipe, model=model, optimizer=ADAM, sharding=REPLICATED, data=RATING, negatives=labelled)


def fit_ml1m() -> RunConfig:
    """FIT with TorchRec-sharded tables."""
    return _sharded(recipe="fit_ml1m", model=FITConfig(tower=TOWER))


def two_tower_ml1m() -> RunConfig:
    """Two-Tower with TorchRec-sharded tables."""
    return _sharded(recipe="two_tower_ml1m", model=TwoTowerConfig(tower=TOWER))


def fit_ml1m_adam() -> RunConfig:
    """FIT with the paper's Adam for everything."""
    return _adam(recipe="fit_ml1m_adam", model=FITConfig(tower=TOWER))


def two_tower_ml1m_adam() -> RunConfig:
    """Two-Tower with the paper's Adam for everything."""
    return _adam(recipe="two_tower_ml1m_adam", model=TwoTowerConfig(tower=TOWER))


def fit_ml1m_paper() -> RunConfig:
    """FIT exactly as section 5.1.4 says: Adam at a constant learning rate, until validation stops, 40 epochs at most."""
    return _paper(recipe="fit_ml1m_paper", model=FITConfig())


def two_tower_ml1m_paper() -> RunConfig:
    """Two-Tower exactly as section 5.1.4 says: Adam at a constant learning rate, until validation stops, 40 epochs at most."""
    return _paper(recipe="two_tower_ml1m_paper", model=TwoTowerConfig())


def fit_ml1m_rating() -> RunConfig:
    """FIT on the labelled ratings (prepared with --task rating into data/ml1m_rating), Adam for everything."""
    return _rating(recipe="fit_ml1m_rating", model=FITConfig(tower=TOWER))


def two_tower_ml1m_rating() -> RunConfig:
    """Two-Tower on the labelled ratings (prepared with --task rating into data/ml1m_rating), Adam for everything."""
    return _rating(recipe="two_tower_ml1m_rating", model=TwoTowerConfig(tower=TOWER))
