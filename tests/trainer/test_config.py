import dataclasses

import pytest

from trainer.config import ADDED_FIELDS, NOT_IN_FINGERPRINT, RunConfig
from trainer.recipes import RECIPES

# at commit 24c540c: python -c "from trainer.recipes import RECIPES; print({n: make().fingerprint for n, make in RECIPES.items()})"
BEFORE_FEATURES = {
    "fit_demo": "ee060098",
    "two_tower_demo": "f3c287fe",
    "fit_ml1m_adam": "201b7222",
    "two_tower_ml1m_adam": "1ccd1800",
    "fit_ml1m_rating": "05ddc413",
}
"""Fingerprints of recipes at the last commit whose configurations had no `embeddings.features`."""
OTHER_VALUES: dict[str, object] = {"embeddings.features": ("hist_item", "item"), "loader.negatives.excluded": "train"}


def replaced(config: object, name: str, value: object) -> RunConfig:
    first, _, rest = name.partition(".")
    return dataclasses.replace(config, **{first: replaced(getattr(config, first), rest, value) if rest else value})


@pytest.mark.parametrize("name", BEFORE_FEATURES)
def test_runs_from_before_a_field_was_added_are_found_again(name: str) -> None:
    assert RECIPES[name]().fingerprint[:8] == BEFORE_FEATURES[name]


@pytest.mark.parametrize("name", ADDED_FIELDS)
def test_an_added_field_counts_as_soon_as_it_means_something_new(name: str) -> None:
    config = RECIPES["fit_ml1m_adam"]()
    assert replaced(config, name, ADDED_FIELDS[name]).fingerprint == config.fingerprint
    assert replaced(config, name, OTHER_VALUES[name]).fingerprint != config.fingerprint


def test_what_changes_no_result_does_not_count_and_the_seed_does() -> None:
    config = RECIPES["t2diff_ml1m"]()
    assert replaced(config, "loop.log_every_steps", 7).fingerprint == config.fingerprint
    assert replaced(config, "seed", 1).fingerprint != config.fingerprint
    assert not set(NOT_IN_FINGERPRINT) & set(ADDED_FIELDS)


def test_recipes_of_different_models_have_different_fingerprints() -> None:
    fingerprints = {name: recipe().fingerprint for name, recipe in RECIPES.items()}
    assert len(set(fingerprints.values())) == len(fingerprints)
