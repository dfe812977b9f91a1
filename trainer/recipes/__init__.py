"""Recipes: functions that return a RunConfig. The name is `<model>_<data set>`; every field can be overridden."""

from collections.abc import Callable

from trainer.config import RunConfig
from trainer.recipes import ml1m_matching, ml1m_matching_baselines, ml1m_matching_baselines_latent
from trainer.recipes.demo import fit_demo, mixed_attention_demo, t2diff_demo, two_tower_demo
from trainer.recipes.ml1m import (
    fit_ml1m,
    fit_ml1m_adam,
    fit_ml1m_paper,
    fit_ml1m_rating,
    two_tower_ml1m,
    two_tower_ml1m_adam,
    two_tower_ml1m_paper,
    two_tower_ml1m_rating,
)

RECIPES: dict[str, Callable[[], RunConfig]] = {
    "fit_demo": fit_demo,
    "two_tower_demo": two_tower_demo,
    "t2diff_demo": t2diff_demo,
    "mixed_attention_demo": mixed_attention_demo,
    "fit_ml1m": fit_ml1m,
    "two_tower_ml1m": two_tower_ml1m,
    "fit_ml1m_adam": fit_ml1m_adam,
    "two_tower_ml1m_adam": two_tower_ml1m_adam,
    "fit_ml1m_paper": fit_ml1m_paper,
    "two_tower_ml1m_paper": two_tower_ml1m_paper,
    "fit_ml1m_rating": fit_ml1m_rating,
    "two_tower_ml1m_rating": two_tower_ml1m_rating,
    "t2diff_ml1m": ml1m_matching.t2diff_ml1m,
    "t2diff_no_drift_ml1m": ml1m_matching.t2diff_no_drift_ml1m,
    "mixed_attention_ml1m": ml1m_matching.mixed_attention_ml1m,
    "t2diff_ml1m_windows": ml1m_matching.t2diff_ml1m_windows,
    "mixed_attention_ml1m_windows": ml1m_matching.mixed_attention_ml1m_windows,
    "t2diff_ml1m_authors": ml1m_matching.t2diff_ml1m_authors,
    "mixed_attention_ml1m_authors": ml1m_matching.mixed_attention_ml1m_authors,
    "sasrec_ml1m": ml1m_matching_baselines.sasrec_ml1m,
    "sasrec_ml1m_paper": ml1m_matching_baselines.sasrec_ml1m_paper,
    "gru4rec_ml1m": ml1m_matching_baselines.gru4rec_ml1m,
    "gru4rec_ml1m_paper": ml1m_matching_baselines.gru4rec_ml1m_paper,
    "hstu_ml1m": ml1m_matching_baselines.hstu_ml1m,
    "hstu_ml1m_paper": ml1m_matching_baselines.hstu_ml1m_paper,
    "bert4rec_ml1m": ml1m_matching_baselines.bert4rec_ml1m,
    "bert4rec_ml1m_paper": ml1m_matching_baselines.bert4rec_ml1m_paper,
    "caser_ml1m": ml1m_matching_baselines.caser_ml1m,
    "caser_ml1m_paper": ml1m_matching_baselines.caser_ml1m_paper,
    "regular_two_tower_ml1m": ml1m_matching_baselines_latent.regular_two_tower_ml1m,
    "dat_plus_ml1m": ml1m_matching_baselines_latent.dat_plus_ml1m,
    "stosa_ml1m": ml1m_matching_baselines_latent.stosa_ml1m,
    "stosa_ml1m_paper": ml1m_matching_baselines_latent.stosa_ml1m_paper,
    "diffurec_ml1m": ml1m_matching_baselines_latent.diffurec_ml1m,
    "diffurec_ml1m_paper": ml1m_matching_baselines_latent.diffurec_ml1m_paper,
    "contrastvae_ml1m": ml1m_matching_baselines_latent.contrastvae_ml1m,
    "contrastvae_ml1m_paper": ml1m_matching_baselines_latent.contrastvae_ml1m_paper,
}
