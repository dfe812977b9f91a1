"""The recipes of trainer/recipes/ml1m_matching_baselines_latent.py beside tests/trainer/test_recipes.py."""

import pytest
import torch

from models import spec_of
from models.types import InputDims, ItemInputs
from tests.trainer.test_recipes import flat
from trainer.recipes import RECIPES

MODELS = ("regular_two_tower", "dat_plus", "stosa", "diffurec", "contrastvae")
WITH_PAPER_PRESET = ("stosa", "diffurec", "contrastvae")


def but_for_the_model(name):
    """All fields of a recipe that are no choice of its model; the width and the features of the tables are part of that choice."""
    chosen = ("embeddings.dim", "embeddings.features")
    return {
        field: value for field, value in flat(RECIPES[name]()).items() if not field.startswith("model.") and field not in chosen
    }


@pytest.mark.parametrize("model", MODELS)
def test_a_tuned_baseline_differs_from_mixed_attention_in_nothing_but_the_model(model):
    name = f"{model}_ml1m"
    assert but_for_the_model(name) == but_for_the_model("mixed_attention_ml1m")
    assert RECIPES[name]().model.loss == RECIPES["mixed_attention_ml1m"]().model.loss


@pytest.mark.parametrize("model", MODELS)
def test_the_vectors_that_are_compared_have_the_width_of_mixed_attentions(model):
    config = RECIPES[f"{model}_ml1m"]()
    width = config.embeddings.dim
    users = sum(feature == "user" for feature in config.embeddings.features)
    dims = InputDims(profile=users * width, attributes=0, position=width, history_len=50)
    task_model = spec_of(config.model).model_class(config.model, dims=dims, device=torch.device("meta"))
    items = torch.empty(3, width, device="meta")
    compared = task_model.item_vectors(ItemInputs(items[:, :0], items)).shape[1]
    assert compared == (2 * 32 + 1 if model == "stosa" else 32)  # a mean, a deviation, and their squared norm


@pytest.mark.parametrize("model", WITH_PAPER_PRESET)
def test_a_paper_preset_has_the_models_defaults_and_trains_until_validation_stops_improving(model):
    tuned, paper = RECIPES[f"{model}_ml1m"](), RECIPES[f"{model}_ml1m_paper"]()
    assert paper.model == spec_of(paper.model).config_class()
    assert (paper.data, paper.embeddings, paper.loader) == (tuned.data, tuned.embeddings, tuned.loader)
    assert paper.optimizer.learning_rate == paper.optimizer.sparse_learning_rate == 1e-3
    assert paper.optimizer.schedule == "constant"
    assert paper.loop.patience < paper.loop.max_epochs * paper.loop.evals_per_epoch
