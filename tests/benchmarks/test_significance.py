from pathlib import Path

import pytest
import torch

from benchmarks import significance
from benchmarks.significance import Run, SplitRows, auc_difference, compare, is_current, render
from dataloaders.loader import Dataloader, LoaderConfig
from dataloaders.prepare.ml1m import Ml1mConfig, prepare_ml1m
from dataloaders.prepare.protocols import ProtocolConfig
from tests.dataloaders.prepare.tiny_ml1m import write_random_raw
from trainer import build
from trainer.cli import parse_run_config
from trainer.config import RunConfig
from trainer.metrics import area_under_curve
from trainer.results import read_results

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


def test_only_runs_that_were_tested_on_the_same_rows_are_compared(monkeypatch: pytest.MonkeyPatch):
    def rows_of(run: Run, *, seed: int) -> SplitRows:
        config = parse_run_config(["--recipe", run.recipe, "--seed", str(seed)])
        return SplitRows(config, torch.arange(4.0).double(), torch.tensor([1, 0, 1, 0]))

    monkeypatch.setattr(significance, "rows_of", rows_of)
    pair = Run("A", "fit_ml1m"), Run("B", "two_tower_ml1m")
    row = compare(*pair, seed=3)
    assert (row["metric"], row["difference"], row["z"], row["seed"]) == ("test AUC", "0.000000", "0.00", "3")
    assert is_current(row, [pair])
    assert not is_current(row, [(pair[0], Run("B", "two_tower_ml1m_adam"))])
    monkeypatch.setattr(significance, "have_same_test_rows", lambda first, second: first == second)
    with pytest.raises(ValueError, match="fit_ml1m and fit_demo differ in test data"):
        compare(pair[0], Run("C", "fit_demo"), seed=3)


def test_data_with_fewer_training_rows_has_the_same_test_rows(tmp_path: Path):
    raw = write_random_raw(tmp_path / "raw")
    protocols = {
        "every": ProtocolConfig(validation="last_but_one"),
        "strided": ProtocolConfig(validation="last_but_one", train_stride=5),
        "windows": ProtocolConfig(split="user_windows"),
    }
    for name, protocol in protocols.items():
        prepare_ml1m(Ml1mConfig(raw=raw, out=tmp_path / name, task="next_item", protocol=protocol))
    assert significance.have_same_test_rows(tmp_path / "every", tmp_path / "strided")
    assert not significance.have_same_test_rows(tmp_path / "every", tmp_path / "windows")


def test_rows_of_finished_runs_are_what_their_results_say(matching_run: RunConfig, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(significance, "_config", lambda run, seed: matching_run if run and seed == 0 else None)
    monkeypatch.setattr(significance, "finished_run", lambda *_, **__: None)
    loaders: list[LoaderConfig] = []

    def evaluation_loader(config: RunConfig, **arguments: object) -> Dataloader:
        loaders.append(config.loader)
        return build.evaluation_loader(config, **arguments)

    monkeypatch.setattr(significance, "evaluation_loader", evaluation_loader)
    rows = significance.rows_of(Run("T2Diff", "t2diff_demo"), seed=0)
    assert rows.label_R is None
    assert rows.value_R.mean().item() == pytest.approx(read_results(matching_run.run_dir)["metrics"]["test"]["recall@20"])
    # batches decide the order of rows, so they are not the run's own
    assert loaders == [LoaderConfig()] != [matching_run.loader]


def test_the_table_tells_the_mean_over_seeds_in_standard_errors_of_one():
    row = {"first": "A", "second": "B", "metric": "test AUC", "standard_error": "0.001", "test_rows": "400"} | MACHINE
    table = render([row | {"difference": "0.002", "seed": "0"}, row | {"difference": "0.004", "seed": "1"}])
    assert "| A − B | test AUC | +0.0030 | 0.0010 | +3.0 | +0.0020, +0.0040 |" in table


def test_every_pair_is_of_recipes_that_can_be_compared():
    for pairs in significance.PAIRS.values():
        for pair in pairs:
            first, second = (parse_run_config(["--recipe", run.recipe]) for run in pair)
            assert first.data == second.data
