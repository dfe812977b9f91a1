"""MovieLens-1M, T2Diff's task: the regular two-tower, and the baselines that learn augmented vectors or distributions.

`<model>_ml1m` has the data, loss, width, optimizer and budget of `mixed_attention_ml1m`, and like it two heads and no dropout. A
vector that is compared has 32 numbers; tables are twice as wide where a row holds two vectors, a mean and a covariance (STOSA), or
an embedding and an augmented vector (DAT+).

`<model>_ml1m_paper` has the model's own layers and dropout and the learning rate of its authors' program, 1e-3 for all three,
until validation stops improving.
"""

import dataclasses

from models.contrastvae import ContrastVAEConfig
from models.dat_plus import DATPlusConfig
from models.diffurec import DiffuRecConfig
from models.regular_two_tower import RegularTwoTowerConfig
from models.stosa import STOSAConfig
from trainer.config import RunConfig
from trainer.recipes.ml1m_matching_baselines import ITEMS, of_paper, tuned

TWO_VECTORS = dataclasses.replace(ITEMS, dim=64)


def regular_two_tower_ml1m() -> RunConfig:
    """The regular two-tower: the mean of the history, and no interaction."""
    return tuned(recipe="regular_two_tower_ml1m", model=RegularTwoTowerConfig())


def dat_plus_ml1m() -> RunConfig:
    """DAT+: the regular two-tower with augmented vectors of users and items."""
    embeddings = dataclasses.replace(TWO_VECTORS, features=("user", "hist_item", "item"))
    return tuned(recipe="dat_plus_ml1m", model=DATPlusConfig(), embeddings=embeddings)


def stosa_ml1m() -> RunConfig:
    """STOSA, whose items are Gaussians of 32 dimensions."""
    return tuned(recipe="stosa_ml1m", model=STOSAConfig(num_heads=2, dropout=0.0), embeddings=TWO_VECTORS)


def stosa_ml1m_paper() -> RunConfig:
    """STOSA with a dropout of 0.3."""
    return of_paper(recipe="stosa_ml1m_paper", model=STOSAConfig(), embeddings=TWO_VECTORS)


def diffurec_ml1m() -> RunConfig:
    """DiffuRec with two layers, which is about the size that T2Diff's Table 2 prints."""
    return tuned(recipe="diffurec_ml1m", model=DiffuRecConfig(num_layers=2, num_heads=2, dropout=0.0, input_dropout=0.0))


def diffurec_ml1m_paper() -> RunConfig:
    """DiffuRec with four layers and its dropouts."""
    return of_paper(recipe="diffurec_ml1m_paper", model=DiffuRecConfig())


def contrastvae_ml1m() -> RunConfig:
    """ContrastVAE, whose views differ by variational augmentation alone."""
    return tuned(recipe="contrastvae_ml1m", model=ContrastVAEConfig(num_heads=2, dropout=0.0))


def contrastvae_ml1m_paper() -> RunConfig:
    """ContrastVAE with a dropout of 0.3."""
    return of_paper(recipe="contrastvae_ml1m_paper", model=ContrastVAEConfig())
