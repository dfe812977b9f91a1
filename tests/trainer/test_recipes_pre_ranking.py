import dataclasses

import pytest

from models import spec_of
from models.tasks import PreRankingTask
from tests.trainer.test_recipes import flat
from trainer.recipes import RECIPES

BASELINE = "two_tower_"
ABLATIONS: dict[str, dict[str, object]] = {
    "fit_no_mqm_ml1m_paper": {"model.use_meta_query": False},
    "fit_no_lss_ml1m_paper": {"model.scorer": "dot"},
    "fit_sum_max_ml1m_paper": {"model.scorer": "sum_max"},
    "fit_fc_ml1m_paper": {"model.scorer": "fc"},
    "fit_hard_query_ml1m_paper": {"model.meta_query.selection": "hard"},
    "fit_no_temperature_ml1m_paper": {"model.meta_query.selection": "soft_no_temperature"},
    "fit_no_self_attention_ml1m_paper": {"model.meta_query.query_attention": "none"},
}
"""Recipe -> all that it has of its own beside fit_ml1m_paper."""
MODELS = ("fit", "dat", "ranktower", "cold", "inttower")
SET_UPS = [name.removeprefix(BASELINE) for name in RECIPES if name.startswith(BASELINE)]
OWN = {"dat": {"embeddings.dim": 48}}
"""Model -> what it has of its own beside the model: DAT's rows hold two vectors."""


def two_tower_with(name: str, model: str) -> dict[str, object]:
    """All fields but the model's."""
    return {key: value for key, value in flat(RECIPES[name]()).items() if not key.startswith("model.")} | OWN.get(model, {})


@pytest.mark.parametrize("model", MODELS)
def test_models_that_are_compared_differ_in_nothing_but_the_model(model):
    names = [f"{model}_{set_up}" for set_up in SET_UPS if f"{model}_{set_up}" in RECIPES]
    assert {f"{model}_ml1m", f"{model}_ml1m_adam", f"{model}_ml1m_paper"} <= {*names}
    for name in names:
        other = BASELINE + name.removeprefix(f"{model}_")
        assert two_tower_with(other, model) == two_tower_with(name, model)
        tower, expected = RECIPES[name]().model.tower, RECIPES[other]().model.tower
        assert tower == dataclasses.replace(expected, hidden_dims=expected.hidden_dims[: 2 if model == "dat" else 3])


def test_dat_has_embeddings_as_wide_as_the_others_and_vectors_a_quarter_as_wide():
    for ending in ("ml1m", "ml1m_adam", "ml1m_paper"):
        dat, other = RECIPES[f"dat_{ending}"](), RECIPES[f"two_tower_{ending}"]()
        assert dat.embeddings.dim - dat.model.augmented_dim == other.embeddings.dim
        assert 4 * dat.model.augmented_dim == other.model.tower.hidden_dims[-1]


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_is_the_papers_fit_but_for_what_it_is_named_after(name):
    assert flat(RECIPES[name]()) == flat(RECIPES["fit_ml1m_paper"]()) | ABLATIONS[name]


def test_every_pre_ranking_recipe_is_compared_with_another():
    names = {name for name, recipe in RECIPES.items() if spec_of(recipe().model).task_class is PreRankingTask}
    compared = {f"{model}_{set_up}" for model in (*MODELS, "two_tower") for set_up in SET_UPS}
    assert names <= compared | {*ABLATIONS}
