"""What does not fit together is refused before anything is built, by the flags to change."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from dataloaders.errors import DataError
from dataloaders.negatives import NegativeConfig
from dataloaders.schema import Schema
from models import spec_of
from models.tasks import MatchingLossConfig, MatchingTask
from tests.models.synthetic import NEXT_ITEM_SCHEMA, SCHEMA
from trainer.build import check_matching, check_monitor, sharded_task, training_loader
from trainer.config import RunConfig
from trainer.errors import UserError
from trainer.process_group import Ranks, distributed
from trainer.recipes import RECIPES
from trainer.sharding import ShardingConfig


@pytest.fixture
def ranks() -> Iterator[Ranks]:
    """This process as the only rank."""
    with distributed("cpu") as joined:
        yield joined


def test_each_softmax_goes_with_its_negatives() -> None:
    check_matching(NEXT_ITEM_SCHEMA, MatchingLossConfig(item_softmax="full"), NegativeConfig(kind="none"))
    check_matching(NEXT_ITEM_SCHEMA, MatchingLossConfig(item_softmax="sampled"), NegativeConfig(kind="shared"))


@pytest.mark.parametrize(
    ("softmax", "kind", "expected"),
    [("full", "shared", "none"), ("full", "uniform", "none"), ("sampled", "none", "shared"), ("sampled", "popularity", "shared")],
)
def test_a_softmax_with_the_wrong_negatives_is_refused_by_their_flags(softmax: str, kind: str, expected: str) -> None:
    message = f"--model.loss.item-softmax {softmax} goes with --loader.negatives.kind {expected}, not {kind}"
    with pytest.raises(ValueError, match=message):
        check_matching(NEXT_ITEM_SCHEMA, MatchingLossConfig(item_softmax=softmax), NegativeConfig(kind=kind))


@pytest.mark.parametrize("task", ["next_behaviour", "rating", "click"])
def test_a_matching_model_refuses_rows_with_labels_of_both_kinds(task: str) -> None:
    schema = dataclasses.replace(SCHEMA, task=task)
    with pytest.raises(ValueError, match=f"rows of task {task} .* prepare the data with --task next_item"):
        check_matching(schema, MatchingLossConfig(), NegativeConfig(kind="none"))


def test_a_matching_run_on_another_tasks_data_is_a_user_error(small_demo: Path, ranks: Ranks) -> None:
    config = dataclasses.replace(RECIPES["mixed_attention_ml1m"](), data=small_demo)
    with pytest.raises(UserError, match="prepare the data with --task next_item"):
        training_loader(config, schema=Schema.load(small_demo), ranks=ranks)


def monitored(recipe: str, monitor: str) -> RunConfig:
    config = RECIPES[recipe]()
    return dataclasses.replace(config, loop=dataclasses.replace(config.loop, monitor=monitor))


@pytest.mark.parametrize("monitor", ["auc", "logloss"])
def test_labels_metrics_are_for_pre_ranking_models(monitor: str) -> None:
    check_monitor(monitored("fit_ml1m", monitor))
    with pytest.raises(UserError, match=f"--loop.monitor {monitor} is no metric of T2DiffConfig, which ranks items"):
        check_monitor(monitored("t2diff_ml1m", monitor))


@pytest.mark.parametrize("monitor", ["recall@10", "recall@20", "mrr@20", "ndcg@10", "loss"])
def test_rank_metrics_are_for_matching_models(monitor: str) -> None:
    check_monitor(monitored("t2diff_ml1m", monitor))
    with pytest.raises(UserError, match=f"--loop.monitor {monitor} is no metric of FITConfig, which scores labels"):
        check_monitor(monitored("fit_ml1m", monitor))


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_monitors_a_metric_of_its_model(name: str) -> None:
    check_monitor(RECIPES[name]())


@pytest.mark.parametrize("name", [n for n, recipe in RECIPES.items() if spec_of(recipe().model).task_class is MatchingTask])
def test_every_matching_recipe_has_the_negatives_of_its_softmax(name: str) -> None:
    config = RECIPES[name]()
    check_matching(NEXT_ITEM_SCHEMA, config.model.loss, config.loader.negatives)


def test_a_full_softmax_refuses_sharded_tables(ranks: Ranks) -> None:
    config = dataclasses.replace(RECIPES["mixed_attention_ml1m"](), sharding=ShardingConfig(kind="planner"))
    with pytest.raises(UserError, match=r"--sharding.kind replicated, or --model.loss.item-softmax sampled"):
        sharded_task(config, schema=NEXT_ITEM_SCHEMA, ranks=ranks)
    # what counts is the placement that is asked for, not the recipe's
    with pytest.raises(UserError, match=r"--sharding.kind replicated"):
        sharded_task(
            RECIPES["mixed_attention_ml1m"](), schema=NEXT_ITEM_SCHEMA, ranks=ranks, sharding=ShardingConfig(kind="planner")
        )


def test_a_missing_catalogue_is_bad_data_and_no_user_error(tmp_path: Path, ranks: Ranks) -> None:
    config = dataclasses.replace(RECIPES["mixed_attention_ml1m"](), data=tmp_path)
    with pytest.raises(DataError, match=r"items\.parquet"):
        sharded_task(config, schema=NEXT_ITEM_SCHEMA, ranks=ranks)
