"""Recipes: functions that return a RunConfig. The name is `<model>_<data set>`; every field can be overridden."""

from collections.abc import Callable

from trainer.config import RunConfig
from trainer.recipes.demo import fit_demo, two_tower_demo
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
    "fit_ml1m": fit_ml1m,
    "two_tower_ml1m": two_tower_ml1m,
    "fit_ml1m_adam": fit_ml1m_adam,
    "two_tower_ml1m_adam": two_tower_ml1m_adam,
    "fit_ml1m_paper": fit_ml1m_paper,
    "two_tower_ml1m_paper": two_tower_ml1m_paper,
    "fit_ml1m_rating": fit_ml1m_rating,
    "two_tower_ml1m_rating": two_tower_ml1m_rating,
}
