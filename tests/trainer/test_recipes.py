import json
from typing import get_args

import pytest

from models import spec_of
from models.t2diff import T2DiffConfig
from trainer.capability import allowed_types
from trainer.cli import parse_run_config
from trainer.config import RunConfig
from trainer.recipes import RECIPES
from trainer.tables import Kind

PREFIXES = {
    "FIT": ("fit_",),
    "TwoTower": ("two_tower_",),
    "DAT": ("dat_ml1m",),
    "RankTower": ("ranktower_",),
    "COLD": ("cold_",),
    "IntTower": ("inttower_",),
    "T2Diff": ("t2diff_", "mixed_attention_"),
    "SASRec": ("sasrec_",),
    "GRU4Rec": ("gru4rec_",),
    "HSTU": ("hstu_",),
    "BERT4Rec": ("bert4rec_",),
    "Caser": ("caser_",),
    "RegularTwoTower": ("regular_two_tower_",),
    "DATPlus": ("dat_plus_",),
    "STOSA": ("stosa_",),
    "DiffuRec": ("diffurec_",),
    "ContrastVAE": ("contrastvae_",),
}
"""Model class -> how its recipes' names begin; Mixed-attention is T2Diff without diffusion."""
NO_DIFFUSION = {"model.use_diffusion": False}
DIFFERENCES: dict[str, tuple[str, dict[str, object]]] = {
    "t2diff_no_drift_ml1m": ("t2diff_ml1m", {"model.diffusion.use_drift": False}),
    "mixed_attention_ml1m": ("t2diff_ml1m", NO_DIFFUSION),
    "mixed_attention_ml1m_windows": ("t2diff_ml1m_windows", NO_DIFFUSION),
    "mixed_attention_ml1m_authors": ("t2diff_ml1m_authors", NO_DIFFUSION),
    "mixed_attention_demo": ("t2diff_demo", NO_DIFFUSION),
}
"""Recipe -> the one that it is compared with, and all that it has of its own."""


def flat(config: RunConfig) -> dict[str, object]:
    """Dotted name of each field but the recipe's name -> value."""

    def walk(content: dict, prefix: str) -> dict[str, object]:
        found: dict[str, object] = {}
        for name, value in content.items():
            found |= walk(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
        return found

    fields = walk(config.as_dict(), "")
    del fields["recipe"]
    return fields


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
    assert name.startswith(PREFIXES[spec_of(config.model).model_class.__name__])
    assert config.data.name.split("_")[0] in name


@pytest.mark.parametrize("name", [name for name, recipe in RECIPES.items() if recipe().sharding.kind == "planner"])
def test_the_tables_of_a_sharded_recipe_have_somewhere_to_go_on_a_cpu(name):
    optimizer = RECIPES[name]().optimizer
    for kind in get_args(Kind):
        assert allowed_types("t", device="cpu", kind=kind, sparse=optimizer.table_optimizer(kind))


@pytest.mark.parametrize("name", DIFFERENCES)
def test_recipes_of_one_table_differ_by_what_they_name_alone(name):
    other, changes = DIFFERENCES[name]
    found, expected = flat(RECIPES[name]()), flat(RECIPES[other]()) | changes
    unused = ("model.diffusion.", "model.diffusion_weight") if changes == NO_DIFFUSION else ("nothing",)
    assert {k: v for k, v in found.items() if not k.startswith(unused)} == {
        k: v for k, v in expected.items() if not k.startswith(unused)
    }


def test_every_matching_recipe_is_compared_with_one_that_stands_for_its_table():
    matching = {name for name, recipe in RECIPES.items() if isinstance(recipe().model, T2DiffConfig)}
    assert {*DIFFERENCES, *(other for other, _ in DIFFERENCES.values())} == matching
    assert all(name.startswith("mixed_attention_") == (not RECIPES[name]().model.use_diffusion) for name in matching)


def test_the_protocols_of_t2diff_have_data_of_their_own_and_monitor_what_the_paper_reports():
    folders = {name: RECIPES[name]().data for name in ("t2diff_ml1m", "t2diff_ml1m_windows", "t2diff_ml1m_authors", "t2diff_demo")}
    assert folders["t2diff_ml1m_windows"] == folders["t2diff_ml1m_authors"]
    assert len({*folders.values()}) == 3
    assert {RECIPES[name]().loop.monitor for name in folders} == {"recall@20"}


def test_the_authors_recipe_has_the_constants_of_their_program():
    fields = flat(RECIPES["t2diff_ml1m_authors"]())
    config = RECIPES["t2diff_ml1m_authors"]().model
    assert config.diffusion.schedule.betas()[-1].item() == pytest.approx(0.9, abs=1e-3)
    assert config.attention.session_len == 10
    expected = {
        "embeddings.dim": 4,
        "model.output_dim": 8,
        "model.max_norm": 1.5,
        "model.diffusion_weight": 0.1,
        "model.diffusion.posterior_noise": "literal",
        "model.diffusion.sampler": "ancestral",
        "model.diffusion.num_sample_steps": 50,
        "model.diffusion.tower_condition": "onestep",
        "model.diffusion.loss": "norm",
        "model.diffusion.drift_scale": "none",
        "model.diffusion.unet.variant": "authors",
        "model.diffusion.unet.time_embedding": "sinusoidal",
        "model.attention.mask_diagonal": True,
        "model.attention.positions": False,
        "model.attention.time_lag": None,
        "optimizer.learning_rate": 2e-3,
        "optimizer.sparse_learning_rate": 2e-3,
        "optimizer.clip_norm": 110.0,
        "optimizer.schedule": "constant",
        "loader.batch_size": 512,
        "loop.max_epochs": 100,
    }
    assert {name: fields[name] for name in expected} == expected
