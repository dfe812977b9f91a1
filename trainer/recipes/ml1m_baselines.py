"""MovieLens-1M, FIT's protocol: the other models of its Table 1, in the set-ups of the two-tower's recipes of the same ending."""

import dataclasses

from models.dat import DATConfig
from models.embeddings import EmbeddingConfig
from models.ranktower import RankTowerConfig
from trainer.config import RunConfig
from trainer.recipes.ml1m import two_tower_ml1m, two_tower_ml1m_adam, two_tower_ml1m_paper

DAT_ROWS = EmbeddingConfig(dim=32 + 16)
"""Augmented vectors a quarter as wide as the other towers' outputs (FIT Table 2), and embeddings as wide as the others'."""


def _dat(run: RunConfig, *, recipe: str) -> RunConfig:
    first_layers = dataclasses.replace(run.model.tower, hidden_dims=run.model.tower.hidden_dims[:-1])
    model = DATConfig(tower=first_layers, augmented_dim=32, category_rows=32)
    return dataclasses.replace(run, recipe=recipe, model=model, embeddings=DAT_ROWS)


def _ranktower(run: RunConfig, *, recipe: str) -> RunConfig:
    return dataclasses.replace(run, recipe=recipe, model=RankTowerConfig(tower=run.model.tower))


def dat_ml1m() -> RunConfig:
    """DAT with TorchRec-sharded tables."""
    return _dat(two_tower_ml1m(), recipe="dat_ml1m")


def dat_ml1m_adam() -> RunConfig:
    """DAT with Adam for everything."""
    return _dat(two_tower_ml1m_adam(), recipe="dat_ml1m_adam")


def dat_ml1m_paper() -> RunConfig:
    """DAT as FIT's section 5.1.4 says: Adam at a constant learning rate, until validation stops improving."""
    return _dat(two_tower_ml1m_paper(), recipe="dat_ml1m_paper")


def ranktower_ml1m() -> RunConfig:
    """RankTower with TorchRec-sharded tables."""
    return _ranktower(two_tower_ml1m(), recipe="ranktower_ml1m")


def ranktower_ml1m_adam() -> RunConfig:
    """RankTower with Adam for everything."""
    return _ranktower(two_tower_ml1m_adam(), recipe="ranktower_ml1m_adam")


def ranktower_ml1m_paper() -> RunConfig:
    """RankTower as FIT's section 5.1.4 says: Adam at a constant learning rate, until validation stops improving."""
    return _ranktower(two_tower_ml1m_paper(), recipe="ranktower_ml1m_paper")
