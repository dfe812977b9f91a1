import dataclasses
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from benchmarks.paper import significance, smoke
from benchmarks.paper.rows import config_of
from benchmarks.paper.significance import SplitRows, auc_difference, difference_row, users_of
from dataloaders.loader import Dataloader, LoaderConfig
from dataloaders.prepare.ml1m import Ml1mConfig, prepare_ml1m
from dataloaders.prepare.protocols import ProtocolConfig
from tests.benchmarks.paper.recorded import FIT, T2DIFF, cell
from tests.dataloaders.prepare.tiny_ml1m import write_random_raw
from trainer import build
from trainer.config import RunConfig
from trainer.metrics import area_under_curve
from trainer.results import read_results


def scores(seed: int, rows: int = 400) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    label = (torch.rand(rows, generator=generator) < 0.4).long()
    shared, first, second = torch.randn(3, rows, generator=generator, dtype=torch.float64)
    return shared + 0.3 * first + label, shared + 0.6 * second + 0.5 * label, label


def test_the_difference_is_that_of_the_exact_aucs_with_ties():
    first, second, label = scores(0)
    first, second = (10 * first).round(), second.round()
    exact = [area_under_curve(score[label == 1].sort().values, score[label == 0].sort().values) for score in (first, second)]
    assert auc_difference(first, second, label=label, user=torch.arange(400)).value == pytest.approx(exact[0] - exact[1])


def test_its_standard_error_is_the_spread_over_samples():
    samples = [scores(seed) for seed in range(300)]
    differences = [auc_difference(*both, label=label, user=torch.arange(400)) for *both, label in samples]
    spread = torch.tensor([difference.value for difference in differences]).std().item()
    told = sum(difference.standard_error for difference in differences) / len(differences)
    assert told == pytest.approx(spread, rel=0.12)  # 300 samples know a standard deviation to 4 %


def test_four_rows_of_a_user_that_say_the_same_count_as_one():
    first, second, label = scores(0)
    *both, again = [values.repeat(4) for values in (first, second, label)]
    apart = auc_difference(first, second, label=label, user=torch.arange(400))
    together = auc_difference(*both, label=again, user=torch.arange(400).repeat(4))
    assert together == pytest.approx(apart)
    assert auc_difference(*both, label=again, user=torch.arange(1600)).standard_error == pytest.approx(
        apart.standard_error / 2, rel=0.01
    )


def test_every_row_finds_its_user(tmp_path: Path):
    prepare_ml1m(Ml1mConfig(raw=write_random_raw(tmp_path / "raw"), out=tmp_path / "data"))
    table = pq.read_table(tmp_path / "data" / "test")
    shuffled = torch.randperm(table.num_rows, generator=torch.Generator().manual_seed(0))
    row_ids, users = (torch.tensor(table[name].to_pylist())[shuffled] for name in ("row_id", "user"))
    found = users_of(row_ids, tmp_path / "data" / "test")
    assert torch.equal(found, users)
    assert len(found.unique()) == len(found) // 2  # a positive and a negative each


def test_only_runs_that_were_tested_on_the_same_rows_are_compared(monkeypatch: pytest.MonkeyPatch):
    pair = cell(FIT, "FIT"), cell(FIT, "Two-Tower")
    ours, theirs = (
        SplitRows(config_of(one, seed=3), torch.arange(4.0).double(), torch.tensor([1, 0, 1, 0]), torch.arange(4)) for one in pair
    )
    row = difference_row(*pair, ours=ours, theirs=theirs)
    assert (row["metric"], row["difference"], row["z"], row["seed"]) == ("test AUC", "0.000000", "0.00", "3")
    assert row["config"] == " ".join(config_of(one, seed=3).fingerprint[:12] for one in pair)
    monkeypatch.setattr(significance, "have_same_test_rows", lambda first, second: first == second)
    elsewhere = theirs._replace(config=dataclasses.replace(theirs.config, data=Path("data/other")))
    with pytest.raises(ValueError, match="fit_ml1m_adam and two_tower_ml1m_adam differ in test data"):
        difference_row(*pair, ours=ours, theirs=elsewhere)


def test_data_with_fewer_training_rows_has_the_same_test_rows(tmp_path: Path):
    raw = write_random_raw(tmp_path / "raw")
    protocols = {
        "every": ProtocolConfig(validation="last_but_one"),
        "strided": ProtocolConfig(validation="last_but_one", train_stride=5),
        "windows": ProtocolConfig(split="user_windows"),
    }
    for name, protocol in protocols.items():
        prepare_ml1m(Ml1mConfig(raw=raw, out=tmp_path / name, task="next_item", protocol=protocol))
    prepare_ml1m(Ml1mConfig(raw=raw, out=tmp_path / "gaps", task="next_item", protocol=protocols["every"], time_gaps=True))
    assert significance.have_same_test_rows(tmp_path / "every", tmp_path / "strided")
    assert significance.have_same_test_rows(tmp_path / "every", tmp_path / "gaps")  # in the columns of both
    assert not significance.have_same_test_rows(tmp_path / "every", tmp_path / "windows")


def test_rows_of_finished_runs_are_what_their_results_say(matching_run: RunConfig, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(significance, "config_of", lambda cell, seed: matching_run if cell and seed == 0 else None)
    loaders: list[LoaderConfig] = []

    def evaluation_loader(config: RunConfig, **arguments: object) -> Dataloader:
        loaders.append(config.loader)
        return build.evaluation_loader(config, **arguments)

    monkeypatch.setattr(significance, "evaluation_loader", evaluation_loader)
    rows = significance.rows_of(cell(T2DIFF, "T2Diff"), seed=0)
    assert rows.label_R is None
    assert rows.value_R.mean().item() == pytest.approx(read_results(matching_run.run_dir)["metrics"]["test"]["recall@20"])
    # batches decide the order of rows, so they are not the run's own
    assert loaders == [LoaderConfig()] != [matching_run.loader]


def test_rows_of_a_run_that_scores_pairs_give_the_auc_of_its_results(tmp_path: Path):
    prepare_ml1m(Ml1mConfig(raw=write_random_raw(tmp_path / "raw"), out=tmp_path / "data"))
    words = (*smoke.BUDGET, "--data", str(tmp_path / "data"), "--runs", str(tmp_path / "runs"))
    trained = dataclasses.replace(cell(FIT, "Two-Tower"), overrides=words)
    smoke.train_all([trained])
    rows = significance.rows_of(trained, seed=0)
    assert rows.label_R is not None
    assert rows.user_R is not None
    positive, negative = (rows.value_R[rows.label_R == label].sort().values for label in (1, 0))
    results = read_results(config_of(trained, seed=0).run_dir)
    assert area_under_curve(positive, negative) == pytest.approx(results["metrics"]["test"]["auc"], abs=1e-9)
    for user in rows.user_R.unique():  # a positive and its negative
        assert sorted(rows.label_R[rows.user_R == user].tolist()) == [0, 1]
