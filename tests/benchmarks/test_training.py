"""The plain loop computes and updates what the trainer does, so that only the way differs."""

import csv
import sys
from pathlib import Path

import pytest
import torch
from torchrec.optim.rowwise_adagrad import RowWiseAdagrad

from benchmarks import training
from benchmarks.training import PlainEmbeddings, plain_optimizers
from dataloaders.loader import Dataloader, LoaderConfig
from dataloaders.prepare.synthetic import SyntheticConfig, prepare_synthetic
from dataloaders.schema import Schema
from models import build_task
from models.embeddings import EmbeddingConfig
from models.two_tower import TwoTowerConfig
from trainer.optim import OptimizerConfig


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("benchmark") / "demo"
    sizes = {"num_users": 50, "num_items": 60, "num_themes": 4, "liked_themes": 2}
    prepare_synthetic(SyntheticConfig(out=out, **sizes, train_rows=400, validation_rows=100, test_rows=100))
    return out


def test_plain_and_torchrec_tables_of_equal_weights_give_equal_vectors(data: Path) -> None:
    schema = Schema.load(data)
    task = build_task(TwoTowerConfig(), schema=schema, embeddings=EmbeddingConfig())
    plain = PlainEmbeddings(schema, config=EmbeddingConfig())
    weights = {name.split(".")[-2]: weight for name, weight in task.embeddings.named_parameters()}
    own = {name.split(".")[-2]: weight for name, weight in plain.named_parameters()}
    assert own.keys() == weights.keys()
    with torch.no_grad():
        for table, weight in own.items():
            weight.copy_(weights[table])
    batch = next(iter(Dataloader(schema, data / "train", config=LoaderConfig(batch_size=64), seed=0, shuffle=True)))
    for mine, theirs in zip(plain(batch.pooled, batch.sequence), task.embeddings(batch.pooled, batch.sequence), strict=True):
        for a, b in zip(mine, theirs, strict=True):
            assert torch.equal(a, b)
    assert plain.dims == task.embeddings.dims


@pytest.mark.parametrize(("sparse", "kind"), [("rowwise_adagrad", RowWiseAdagrad), ("adam", torch.optim.Adam)])
def test_the_plain_loop_updates_every_parameter_once_and_by_the_recipes_rules(data: Path, sparse: str, kind: type) -> None:
    schema = Schema.load(data)
    task = build_task(TwoTowerConfig(), schema=schema, embeddings=EmbeddingConfig())
    task.embeddings = embeddings = PlainEmbeddings(schema, config=EmbeddingConfig())
    config = OptimizerConfig(sparse=sparse, sparse_learning_rate=0.05, embedding_decay=1e-6)
    dense, *tables = plain_optimizers(task, embeddings, config=config)
    groups = [group for optimizer in (dense, *tables) for group in optimizer.param_groups]
    updated = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(updated) == sorted(id(parameter) for parameter in task.parameters())
    assert isinstance(dense, torch.optim.Adam)
    assert dense.defaults["fused"]
    for optimizer in tables:
        assert isinstance(optimizer, kind)
        assert (optimizer.defaults["lr"], optimizer.defaults["weight_decay"]) == (0.05, 1e-6)
        assert optimizer.defaults.get("fused", True)


def test_a_run_writes_one_row_a_recipe_with_its_optimizer(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "training.csv"
    options = ["--data", str(data), "--negatives", "none", "--batch-size", "64", "--steps", "2", "--rounds", "2", "--out", str(out)]
    recipes = ["--recipes", "two_tower_ml1m", "two_tower_ml1m_adam"]
    monkeypatch.setattr(sys, "argv", ["training", *recipes, *options])
    training.main()
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["recipe"], row["sharding"], row["optimizer"]) for row in rows] == [
        ("two_tower_ml1m", "planner", "adam, tables rowwise_adagrad"),
        ("two_tower_ml1m_adam", "replicated", "adam, tables adam"),
    ]
    assert all(float(row["ratio_least"]) <= float(row["ratio"]) <= float(row["ratio_most"]) for row in rows)
    assert "trainer / plain PyTorch loop" in capsys.readouterr().out


def test_one_round_would_be_a_warm_up_alone() -> None:
    with pytest.raises(ValueError, match="rounds=1"):
        training.Arguments(rounds=1)
