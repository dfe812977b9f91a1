import dataclasses
import shutil
import sys
from pathlib import Path

import pytest
import torch

from dataloaders.batch import Batch
from dataloaders.schema import Schema
from dataloaders.touched_items import TouchedItems
from models.ranking import exact_scores
from trainer import evaluate as evaluate_command
from trainer.build import evaluation_loader, sharded_task
from trainer.config import RunConfig
from trainer.errors import UserError
from trainer.evaluation import LoadedRun, evaluate_run, leave_out_user_items, load_run, matching_vectors, with_mask_history
from trainer.process_group import distributed
from trainer.recipes import RECIPES
from trainer.results import read_results
from trainer.sharding import ShardingConfig


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["evaluate", *arguments])
    evaluate_command.main()


def table_of(printed: str) -> dict[str, list[str]]:
    """Metric -> its values, one a split."""
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in printed.splitlines() if line.startswith("│")]
    return {name: values for name, *values in rows}


def test_the_command_prints_what_the_run_recorded_and_the_protocol(
    matching_run: RunConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command(monkeypatch, "--run", str(matching_run.run_dir))
    printed, recorded = capsys.readouterr().out, read_results(matching_run.run_dir)
    validation, test = recorded["metrics"]["validation"], recorded["metrics"]["test"]
    assert table_of(printed) == {name: [f"{validation[name]:,.5g}", f"{test[name]:,.5g}"] for name in validation}
    assert recorded["protocol"] in printed
    assert f"step {recorded['best_step']}" in printed


def test_a_rows_own_history_can_be_left_out(
    matching_run: RunConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command(monkeypatch, "--run", str(matching_run.run_dir), "--split", "test", "--mask-history", "True")
    printed, recorded = capsys.readouterr().out, read_results(matching_run.run_dir)["metrics"]["test"]
    assert "items of the row's own history do not compete" in printed
    (mrr,) = table_of(printed)["mrr"]
    assert float(mrr) > recorded["mrr"]  # fewer items before the target


def test_everything_that_the_user_touched_can_be_left_out(
    matching_run: RunConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command(monkeypatch, "--run", str(matching_run.run_dir), "--split", "test", "--mask-user-items")
    printed = capsys.readouterr().out
    assert "other items that the data set has for the row's user do not compete" in printed
    with distributed("cpu") as ranks:
        loaded = load_run(matching_run, run=matching_run.run_dir, data=matching_run.data, ranks=ranks)
        vectors = matching_vectors(loaded, matching_run, data=matching_run.data, split="test", ranks=ranks)
        loader = evaluation_loader(matching_run, folder=matching_run.data / "test", schema=loaded.schema, ranks=ranks)
        user_B, item_B = (torch.cat(ids) for ids in zip(*(users_and_targets(batch) for batch in loader), strict=True))
    touched = TouchedItems.load(matching_run.data, loaded.schema)
    score_BM = exact_scores(vectors.user_BC, vectors.item_MC.expand(len(user_B), -1, -1))
    for row, (user, item) in enumerate(zip(user_B.tolist(), item_B.tolist(), strict=True)):
        left_out = torch.from_numpy(touched.items_of(user))
        score_BM[row, left_out[left_out != item]] = -torch.inf
    rank_B = (score_BM >= score_BM.gather(1, item_B[:, None])).sum(1)
    (mrr,) = table_of(printed)["mrr"]
    assert float(mrr) == pytest.approx((1 / rank_B).mean().item(), rel=1e-4)


def users_and_targets(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Of each row, int64 [B]."""
    return batch.pooled["user"].values(), batch.sequence["item"].values()


def test_only_matching_models_leave_items_out(small_demo: Path) -> None:
    config = RECIPES["two_tower_demo"]()
    with pytest.raises(UserError, match="--mask-history: two_tower_demo scores given candidates"):
        with_mask_history(config, mask_history=True)
    schema = Schema.load(small_demo)
    with distributed("cpu") as ranks:
        sharded = sharded_task(config, schema=schema, ranks=ranks, sharding=ShardingConfig(kind="replicated"))
        with pytest.raises(UserError, match="--mask-user-items: TwoTower scores given candidates"):
            leave_out_user_items(LoadedRun(sharded, schema, step=1), data=small_demo, ranks=ranks)


def test_the_users_of_windows_are_not_known(
    matching_run: RunConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        command(monkeypatch, "--run", str(matching_run.run_dir), "--windows", "windows.csv", "--mask-user-items")
    assert "--mask-user-items: the users of windows are not known" in capsys.readouterr().err


def test_later_items_are_not_left_out(
    matching_run: RunConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        command(monkeypatch, "--run", str(matching_run.run_dir), "--mask-user-items")
    assert "leaves later items out of ('validation', 'test') too; use --split test" in capsys.readouterr().err
    with distributed("cpu") as ranks:
        loaded = load_run(matching_run, run=matching_run.run_dir, data=matching_run.data, ranks=ranks)
        windows = loaded._replace(schema=dataclasses.replace(loaded.schema, name="ml1m/next_item/user_windows"))
        with pytest.raises(UserError, match="test rows of ml1m/next_item/user_windows are not each user's last"):
            leave_out_user_items(windows, data=matching_run.data, ranks=ranks)


def test_a_run_and_data_that_were_moved_are_evaluated_where_they_are(matching_run: RunConfig, tmp_path: Path) -> None:
    run = shutil.copytree(matching_run.run_dir, tmp_path / "run")
    data = shutil.copytree(matching_run.data, tmp_path / "data")
    with distributed("cpu") as ranks:
        gone = dataclasses.replace(matching_run, data=tmp_path / "gone")
        loaded = load_run(gone, run=run, data=data, ranks=ranks)
        found = evaluate_run(loaded, gone, data=data, splits=("test",), ranks=ranks)
    recorded = read_results(matching_run.run_dir)
    assert loaded.step == recorded["best_step"]
    assert found["test"] == recorded["metrics"]["test"]


@pytest.mark.parametrize(
    ("data", "code", "words"), [("small_demo", 2, "its schema is not the one"), (None, 4, "no evaluated checkpoint")]
)
def test_what_cannot_be_evaluated_ends_with_its_exit_code(
    matching_run: RunConfig,
    small_demo: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    data: str | None,
    code: int,
    words: str,
) -> None:
    arguments = ["--run", str(matching_run.run_dir), "--data", str(small_demo)]
    if data is None:
        shutil.copy(matching_run.run_dir / "config.json", tmp_path)
        arguments = ["--run", str(tmp_path)]
    with pytest.raises(SystemExit) as left:
        command(monkeypatch, *arguments)
    assert left.value.code == code
    assert words in capsys.readouterr().err
