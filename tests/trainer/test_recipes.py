import json
from typing import get_args

import pytest

from models import spec_of
from trainer.capability import allowed_types
from trainer.cli import parse_run_config
from trainer.recipes import RECIPES
from trainer.tables import Kind


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_bears_its_own_name_and_comes_back_from_its_saved_configuration(name, tmp_path):
    config = RECIPES[name]()
    assert config.recipe == name
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config.as_dict()))
    assert parse_run_config(["--config", str(path)]) == config


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_named_after_its_model_and_its_data(name):
    config = RECIPES[name]()
    model = spec_of(config.model).model_class.__name__
    assert name.startswith({"FIT": "fit_", "TwoTower": "two_tower_"}[model])
    assert config.data.name.split("_")[0] in name


@pytest.mark.parametrize("name", [name for name, recipe in RECIPES.items() if recipe().sharding.kind == "planner"])
def test_the_tables_of_a_sharded_recipe_have_somewhere_to_go_on_a_cpu(name):
    optimizer = RECIPES[name]().optimizer
    for kind in get_args(Kind):
        assert allowed_types("t", device="cpu", kind=kind, sparse=optimizer.table_optimizer(kind))


def test_models_that_are_compared_differ_in_nothing_but_the_model():
    for name, recipe in RECIPES.items():
        if name.startswith("fit_"):
            fit, other = recipe().as_dict(), RECIPES["two_tower_" + name.removeprefix("fit_")]().as_dict()
            assert fit["model"]["tower"] == other["model"]["tower"]
            for field in ("recipe", "model"):
                del fit[field], other[field]
            assert fit == other
