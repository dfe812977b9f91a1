import math
from pathlib import Path

import pytest
import torch

from benchmarks import significance
from benchmarks.significance import Difference, RowRecorder, Run, auc_difference, compare, mean_difference, render
from models.types import MatchOut
from trainer.metrics import area_under_curve

MACHINE = {"cpu": "a cpu", "cores": "2", "gpu": "none", "torch": "2.13.0", "torchrec": "1.8.0", "commit": "abc"}


def scores(seed: int, rows: int = 400) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    label = (torch.rand(rows, generator=generator) < 0.4).long()
    shared, first, second = torch.randn(3, rows, generator=generator, dtype=torch.float64)
    return shared + 0.3 * first + label, shared + 0.6 * second + 0.5 * label, label


def test_the_difference_is_that_of_the_exact_aucs_with_ties():
    first, second, label = scores(0)
    first, second = (10 * first).round(), second.round()
    exact = [area_under_curve(score[label == 1].sort().values, score[label == 0].sort().values) for score in (first, second)]
    assert auc_difference(first, second, label).value == pytest.approx(exact[0] - exact[1])


def test_its_standard_error_is_the_spread_over_samples():
    differences = [auc_difference(*scores(seed)) for seed in range(300)]
    spread = torch.tensor([difference.value for difference in differences]).std().item()
    told = sum(difference.standard_error for difference in differences) / len(differences)
    assert told == pytest.approx(spread, rel=0.12)  # 300 samples know a standard deviation to 4 %


def test_what_both_find_hard_cancels():
    first = torch.tensor([1.0, 0.0] * 50, dtype=torch.float64)
    second = first.clone()
    second[:10] = 0
    difference = mean_difference(first, second)
    assert difference.value == pytest.approx(0.05)
    unpaired = math.sqrt(first.var().item() / 100 + second.var().item() / 100)
    assert difference.standard_error < 0.5 * unpaired
    assert Difference(0.0, 0.0).z == math.inf


def test_rows_of_a_matching_model_are_found_or_not():
    recorder = RowRecorder()
    recorder.add(MatchOut(torch.tensor(0.0), torch.zeros(3), torch.zeros(3), torch.tensor([1, 20, 21])))
    assert recorder.values[0].tolist() == [1.0, 1.0, 0.0]
    assert recorder.labels[0].tolist() == [1, 1, 1]
    assert recorder.compute() == {"num_rows": 3.0}


def test_runs_of_different_rows_are_not_compared(monkeypatch: pytest.MonkeyPatch):
    label = torch.tensor([1, 0, 1, 0])
    answers = {"a": label, "b": label, "c": label.flip(0)}

    def rows_of(run: Run, *, seed: int) -> tuple[torch.Tensor, torch.Tensor, str]:
        assert seed == 3
        return torch.arange(4.0).double(), answers[run.recipe], "0123"

    monkeypatch.setattr(significance, "rows_of", rows_of)
    row = compare(Run("A", "a"), Run("B", "b"), seed=3)
    assert (row["metric"], row["difference"], row["seed"], row["config"]) == ("test AUC", "0.000000", "3", "0123 0123")
    with pytest.raises(ValueError, match="a and c were tested on different rows"):
        compare(Run("A", "a"), Run("C", "c"), seed=3)


def test_the_table_tells_the_mean_over_seeds_in_standard_errors_of_one():
    row = {"first": "A", "second": "B", "metric": "test AUC", "standard_error": "0.001", "test_rows": "400"} | MACHINE
    table = render([row | {"difference": "0.002", "seed": "0"}, row | {"difference": "0.004", "seed": "1"}])
    assert "| A − B | test AUC | +0.0030 | 0.0010 | +3.0 | +0.0020, +0.0040 |" in table


def test_every_pair_is_of_recipes_on_one_data_set():
    for pairs in significance.PAIRS.values():
        for pair in pairs:
            configs = [significance.parse_run_config(["--recipe", run.recipe, *run.overrides]) for run in pair]
            assert configs[0].data == configs[1].data
            assert isinstance(configs[0].data, Path)
