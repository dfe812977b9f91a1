"""MovieLens-1M, FIT's protocol: the other models of its Table 1, in the set-ups of the two-tower's recipes of the same ending.

IntTower's weight of the contrastive interaction was chosen by the validation AUC of `inttower_ml1m_paper` trained on every fiftieth
row until it stopped improving (`--data data/ml1m_stride50 --loop.max-epochs 60 --loop.patience 6`, one seed, standard error .004):
.837 with 0, .838 with 0.01 and with 0.1, .841 with 1. No number of heads was searched; sixteen have the storage of FIT's Table 2.
"""

import dataclasses

from models.cold import COLDConfig
from models.dat import DATConfig
from models.embeddings import EmbeddingConfig
from models.inttower import IntTowerConfig
from models.layers.mlp import TowerConfig
from models.ranktower import RankTowerConfig
from trainer.config import RunConfig
from trainer.recipes.ml1m import TOWER, two_tower_ml1m, two_tower_ml1m_adam, two_tower_ml1m_paper

DAT_ROWS = EmbeddingConfig(dim=32 + 16)
"""Augmented vectors a quarter as wide as the other towers' outputs (FIT Table 2), and embeddings as wide as the others'."""
DAT_TOWER = TowerConfig(hidden_dims=(300, 300))


def _dat(run: RunConfig, *, recipe: str, tower: TowerConfig) -> RunConfig:
    model = DATConfig(tower=tower, augmented_dim=32, category_rows=32)
    return dataclasses.replace(run, recipe=recipe, model=model, embeddings=DAT_ROWS)


def dat_ml1m() -> RunConfig:
    """DAT with TorchRec-sharded tables."""
    return _dat(two_tower_ml1m(), recipe="dat_ml1m", tower=dataclasses.replace(DAT_TOWER, dropout=TOWER.dropout))


def dat_ml1m_adam() -> RunConfig:
    """DAT with Adam for everything."""
    return _dat(two_tower_ml1m_adam(), recipe="dat_ml1m_adam", tower=dataclasses.replace(DAT_TOWER, dropout=TOWER.dropout))


def dat_ml1m_paper() -> RunConfig:
    """DAT as FIT's section 5.1.4 says: Adam at a constant learning rate, until validation stops improving."""
    return _dat(two_tower_ml1m_paper(), recipe="dat_ml1m_paper", tower=DAT_TOWER)


def ranktower_ml1m() -> RunConfig:
    """RankTower with TorchRec-sharded tables."""
    return dataclasses.replace(two_tower_ml1m(), recipe="ranktower_ml1m", model=RankTowerConfig(tower=TOWER))


def ranktower_ml1m_adam() -> RunConfig:
    """RankTower with Adam for everything."""
    return dataclasses.replace(two_tower_ml1m_adam(), recipe="ranktower_ml1m_adam", model=RankTowerConfig(tower=TOWER))


def ranktower_ml1m_paper() -> RunConfig:
    """RankTower as FIT's section 5.1.4 says: Adam at a constant learning rate, until validation stops improving."""
    return dataclasses.replace(two_tower_ml1m_paper(), recipe="ranktower_ml1m_paper", model=RankTowerConfig())


def cold_ml1m() -> RunConfig:
    """COLD with TorchRec-sharded tables."""
    return dataclasses.replace(two_tower_ml1m(), recipe="cold_ml1m", model=COLDConfig(tower=TOWER))


def cold_ml1m_adam() -> RunConfig:
    """COLD with Adam for everything."""
    return dataclasses.replace(two_tower_ml1m_adam(), recipe="cold_ml1m_adam", model=COLDConfig(tower=TOWER))


def cold_ml1m_paper() -> RunConfig:
    """COLD as FIT's section 5.1.4 says: Adam at a constant learning rate, until validation stops improving."""
    return dataclasses.replace(two_tower_ml1m_paper(), recipe="cold_ml1m_paper", model=COLDConfig())


def inttower_ml1m() -> RunConfig:
    """IntTower with TorchRec-sharded tables."""
    return dataclasses.replace(two_tower_ml1m(), recipe="inttower_ml1m", model=IntTowerConfig(tower=TOWER))


def inttower_ml1m_adam() -> RunConfig:
    """IntTower with Adam for everything."""
    return dataclasses.replace(two_tower_ml1m_adam(), recipe="inttower_ml1m_adam", model=IntTowerConfig(tower=TOWER))


def inttower_ml1m_paper() -> RunConfig:
    """IntTower as FIT's section 5.1.4 says: Adam at a constant learning rate, until validation stops improving."""
    return dataclasses.replace(two_tower_ml1m_paper(), recipe="inttower_ml1m_paper", model=IntTowerConfig())
