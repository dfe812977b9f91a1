import dataclasses
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from benchmarks.paper.cells import ALGORITHMS_1_AND_2
from models.layers.diffusion_config import TowerCondition
from models.types import ItemInputs, MatchForward, UserInputs, without_cloze
from tests.trainer.small_matching import small_t2diff
from trainer.cli import parse_run_config
from trainer.config import RunConfig
from trainer.diagnostics import AS_SERVED, METRIC, diagnose, leak_check, reverse_process
from trainer.evaluation import evaluate
from trainer.process_group import distributed
from trainer.results import read_results
from trainer.trainer import Trainer


@pytest.fixture
def trained(matching_run: RunConfig) -> Iterator[Trainer]:
    """The finished run with its best weights."""
    with distributed("cpu") as ranks, Trainer(matching_run, ranks=ranks) as trainer:
        trainer.load_best()
        yield trainer


def served(trainer: Trainer) -> dict[str, float]:
    return evaluate(trainer.sharded, trainer.eval_loaders["validation"], ranks=trainer.ranks)


def as_forward(user_vectors: Callable[[UserInputs, ItemInputs], torch.Tensor]) -> Callable[..., MatchForward]:
    """A training form whose user vectors are given."""

    def forward(users: UserInputs, items: ItemInputs, noise_BX: torch.Tensor, uniform_B: torch.Tensor) -> MatchForward:
        assert noise_BX.shape[0] == uniform_B.shape[0] == users.history_lengths_B.shape[0]
        return without_cloze(user_vectors(users, items), torch.zeros_like(uniform_B))

    return forward


def test_a_tower_that_has_seen_the_target_is_reported_and_warned_about(trained: Trainer, caplog: pytest.LogCaptureFixture) -> None:
    trained.task.model.forward = as_forward(lambda _, items: items.item_BD)
    with caplog.at_level(logging.WARNING):
        found = leak_check(trained)
    assert found["leaks"]
    assert found["parted"]
    assert found["training_form"][METRIC] > found["serving_form"][METRIC] + 3 * found["standard_error"]
    assert "relies on a target that serving does not have" in caplog.text


def test_a_tower_that_is_served_as_it_was_trained_is_no_leak(trained: Trainer, caplog: pytest.LogCaptureFixture) -> None:
    size = trained.task.model.serving_noise_size

    def vectors(users: UserInputs, _: ItemInputs) -> torch.Tensor:
        noise_BX = torch.randn(users.history_lengths_B.shape[0], size, generator=torch.Generator().manual_seed(1))
        return trained.task.model.user_vectors(users, noise_BX)

    trained.task.model.forward = as_forward(vectors)
    with caplog.at_level(logging.WARNING):
        found = leak_check(trained)
    assert not found["leaks"]
    assert not found["parted"]
    assert found["training_form"]["loss"] == pytest.approx(found["serving_form"]["loss"], rel=0.02)
    assert caplog.text == ""


def test_a_training_form_that_is_worse_than_serving_has_parted_too(trained: Trainer, caplog: pytest.LogCaptureFixture) -> None:
    trained.task.model.forward = as_forward(lambda _, items: -items.item_BD)
    with caplog.at_level(logging.WARNING):
        found = leak_check(trained)
    assert found["parted"]
    assert not found["leaks"]
    assert "not the same model" in caplog.text


def test_after_the_check_the_task_evaluates_as_it_is_served(trained: Trainer) -> None:
    before = served(trained)
    trained.task.model.forward = as_forward(lambda _, items: items.item_BD)
    leak_check(trained)
    assert served(trained) == before
    trained.task.model.forward = as_forward(lambda _, items: items.item_BD[:, :1])  # of a wrong shape
    with pytest.raises(ValueError, match="expected"):
        leak_check(trained)
    assert served(trained) == before


def test_the_run_recorded_what_its_best_weights_give(trained: Trainer) -> None:
    recorded = read_results(trained.run_dir)
    assert diagnose(trained) == recorded["diagnostics"]


def test_cosines_of_the_reverse_process_go_from_the_last_step_to_the_first(trained: Trainer) -> None:
    found = reverse_process(trained)
    assert found["step"] == list(range(8, 0, -1))
    assert all(len(values) == 8 for values in found.values())
    assert all(-1 <= low <= high <= 1 for low, high in zip(found["p10"], found["p90"], strict=True))
    assert len(set(found["mean"])) > 1
    assert reverse_process(trained) == found


def test_the_advice_on_a_leak_parses_on_top_of_what_leaks() -> None:
    model = parse_run_config(["--recipe", "t2diff_ml1m", *ALGORITHMS_1_AND_2, *AS_SERVED.split()]).model
    assert (model.diffusion.tower_condition, model.diffusion.num_sample_steps) == ("high_noise", 1)


@pytest.mark.parametrize("condition", ["sampled", "high_noise"])
def test_every_way_to_train_the_tower_has_a_reverse_process(
    small_matching: Path, tmp_path: Path, condition: TowerCondition
) -> None:
    config = small_t2diff(small_matching, tmp_path, "--model.diffusion.tower-condition", condition)
    with distributed("cpu") as ranks, Trainer(config, ranks=ranks) as trainer:
        assert len(reverse_process(trainer)["mean"]) == 8


def test_a_model_without_diffusion_has_nothing_to_diagnose(matching_run: RunConfig, tmp_path: Path) -> None:
    plain = dataclasses.replace(matching_run, runs=tmp_path, model=dataclasses.replace(matching_run.model, use_diffusion=False))
    with distributed("cpu") as ranks, Trainer(plain, ranks=ranks) as trainer:
        assert diagnose(trainer) == {}
