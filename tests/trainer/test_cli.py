import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from trainer.cli import one_screen_errors, parse_run_config
from trainer.errors import UserError


def test_an_override_changes_its_field_and_nothing_else():
    default = parse_run_config(["--recipe", "fit_demo"]).as_dict()
    changed = parse_run_config(["--recipe", "fit_demo", "--loop.max-epochs", "7", "--model.meta-query.num-queries", "8"]).as_dict()
    assert changed["loop"].pop("max_epochs") == 7
    assert changed["model"]["meta_query"].pop("num_queries") == 8
    default["loop"].pop("max_epochs")
    default["model"]["meta_query"].pop("num_queries")
    assert changed == default


def test_a_misspelt_recipe_is_answered_with_the_closest_one():
    with pytest.raises(UserError, match=r"no recipe 'fit_ml1n'; did you mean fit_ml1m\?"):
        parse_run_config(["--recipe", "fit_ml1n"])


def test_a_misspelt_field_is_answered_with_the_closest_one(capsys):
    with pytest.raises(SystemExit) as caught:
        parse_run_config(["--recipe", "fit_demo", "--loop.max-epoch", "3"])
    assert caught.value.code == 2
    assert "--loop.max-epochs" in capsys.readouterr().err


def test_a_value_out_of_range_is_a_user_error_that_names_the_field():
    with pytest.raises((UserError, SystemExit)):
        parse_run_config(["--recipe", "fit_demo", "--loop.patience", "0"])


def test_a_saved_config_resolves_to_the_same_run(tmp_path):
    config = parse_run_config(["--recipe", "fit_ml1m_adam", "--seed", "3", "--loop.tensorboard", "False"])
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config.as_dict()))
    assert parse_run_config(["--config", str(path)]) == config


def test_the_same_configuration_finds_its_run_folder_and_another_seed_does_not():
    first, again, other = (parse_run_config(["--recipe", "fit_demo", "--seed", seed]) for seed in ("1", "1", "2"))
    assert first.run_dir == again.run_dir != other.run_dir


def test_threads_may_parse_at_the_same_time():
    with ThreadPoolExecutor(max_workers=4) as pool:
        configs = pool.map(lambda seed: parse_run_config(["--recipe", "fit_demo", "--seed", str(seed)]), range(12))
        assert [config.seed for config in configs] == list(range(12))


def test_neither_recipe_nor_config_lists_the_recipes():
    with pytest.raises(UserError, match="two_tower_ml1m"):
        parse_run_config([])


@pytest.mark.parametrize(("error", "code"), [(UserError("bad field"), 2), (ValueError("a bug"), None)])
def test_a_user_error_is_one_screen_and_a_bug_keeps_its_traceback(error, code, capsys):
    with pytest.raises((SystemExit, ValueError)) as caught, one_screen_errors():
        raise error
    if code is None:
        assert caught.value is error
    else:
        assert caught.value.code == code
        assert "bad field" in capsys.readouterr().err
