"""The recipes of trainer/recipes/ml1m_matching_baselines.py beside tests/trainer/test_recipes.py."""

from pathlib import Path

import pytest

from models import spec_of
from tests.trainer.test_recipes import flat
from trainer.recipes import RECIPES

OF_SEQUENCES = ("sasrec", "gru4rec", "hstu")
"""Models whose papers predict every behaviour of a sequence."""
MODELS = (*OF_SEQUENCES, "bert4rec", "caser")
FEATURES = {
    "sasrec": {"hist_item", "item"},
    "gru4rec": {"hist_item", "item"},
    "hstu": {"hist_item", "hist_time_gap", "item"},
    "bert4rec": {"hist_item", "item"},
    "caser": {"user", "hist_item", "item"},
}
"""What each paper's model knows of users and items."""


def but_for_the_model(name):
    """All fields of a recipe that are no choice of its model, which takes some features, of HSTU from data that has one more."""
    fields = flat(RECIPES[name]())
    chosen = {"embeddings.features"} | ({"data"} if name.startswith("hstu") else set())
    return {field: value for field, value in fields.items() if not field.startswith("model.") and field not in chosen}


@pytest.mark.parametrize("model", MODELS)
def test_a_tuned_baseline_differs_from_mixed_attention_in_nothing_but_the_model(model):
    name = f"{model}_ml1m"
    assert but_for_the_model(name).items() <= but_for_the_model("mixed_attention_ml1m").items()
    assert RECIPES[name]().model.loss == RECIPES["mixed_attention_ml1m"]().model.loss
    assert RECIPES[name]().model.dropout == 0.0


@pytest.mark.parametrize("model", MODELS)
def test_a_recipe_looks_up_what_its_model_uses_at_the_width_of_all(model):
    for name in (f"{model}_ml1m", f"{model}_ml1m_paper"):
        embeddings = RECIPES[name]().embeddings
        assert set(embeddings.features) == FEATURES[model]
        assert embeddings.dim == 32


@pytest.mark.parametrize("model", OF_SEQUENCES)
def test_a_row_teaches_its_own_target_alone_wherever_every_prefix_is_a_row(model):
    tuned, paper = RECIPES[f"{model}_ml1m"](), RECIPES[f"{model}_ml1m_paper"]()
    assert (tuned.data, tuned.model.all_positions) == (Path(f"data/ml1m_next_item{'_gaps' if model == 'hstu' else ''}"), False)
    assert (paper.data, paper.model.all_positions) == (Path("data/ml1m_next_item_strided"), True)


@pytest.mark.parametrize("model", MODELS)
def test_a_paper_preset_has_the_models_defaults_and_trains_until_validation_stops_improving(model):
    tuned, paper = RECIPES[f"{model}_ml1m"](), RECIPES[f"{model}_ml1m_paper"]()
    of_sequences = {"all_positions": True} if model in OF_SEQUENCES else {}
    assert paper.model == spec_of(paper.model).config_class(**of_sequences)
    assert paper.embeddings == tuned.embeddings
    assert model in OF_SEQUENCES or paper.data == tuned.data
    assert paper.optimizer.learning_rate == paper.optimizer.sparse_learning_rate
    assert paper.loop.monitor == tuned.loop.monitor
    assert paper.loop.patience < paper.loop.max_epochs * paper.loop.evals_per_epoch


def test_paper_presets_are_optimized_as_their_papers_say():
    found = {model: RECIPES[f"{model}_ml1m_paper"]() for model in MODELS}
    rows = {model: run.loader.batch_size for model, run in found.items()}
    assert rows == {"sasrec": 128, "gru4rec": 128, "hstu": 128, "bert4rec": 256, "caser": 512}
    rates = {model: run.optimizer.learning_rate for model, run in found.items()}
    assert rates == {"sasrec": 1e-3, "gru4rec": 1e-3, "hstu": 1e-3, "bert4rec": 1e-4, "caser": 1e-3}
    decays = {model: (run.optimizer.weight_decay, run.optimizer.embedding_decay) for model, run in found.items()}
    assert decays == {model: (1e-6, 1e-6) if model == "caser" else (0.0, 0.0) for model in MODELS}
