import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from trainer import build_item_index
from trainer.cli import parse_run_config
from trainer.config import RunConfig
from trainer.evaluation import load_run, matching_vectors
from trainer.item_index import load_index, recall_against_exact
from trainer.process_group import Ranks, distributed
from trainer.trainer import Trainer


@pytest.fixture
def ranks() -> Iterator[Ranks]:
    with distributed("cpu") as joined:
        yield joined


@pytest.fixture(scope="module")
def pre_ranking_run(small_demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a Two-Tower run."""
    paths = ["--data", str(small_demo), "--runs", str(tmp_path_factory.mktemp("pre_ranking") / "runs")]
    config = parse_run_config(["--recipe", "two_tower_demo", *paths, "--loop.max-epochs", "1", "--loop.tensorboard", "False"])
    with distributed("cpu") as ranks, Trainer(config, ranks=ranks) as trainer:
        assert trainer.fit()
    return trainer.run_dir


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Exit code of `python -m trainer.build_item_index`."""
    monkeypatch.setattr(sys, "argv", ["build_item_index", *arguments])
    try:
        build_item_index.main()
    except SystemExit as left:
        return left.code
    return 0


@pytest.mark.parametrize(("kind", "rows"), [("flat", ["flat"]), ("hnsw", ["flat", "hnsw"])])
def test_the_command_writes_an_index_over_the_items_and_shows_its_recall_beside_the_exact_one(
    matching_run: RunConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    kind: str,
    rows: list[str],
) -> None:
    out = tmp_path / "index.faiss"
    assert command(monkeypatch, "--run", str(matching_run.run_dir), "--index.kind", kind, "--k", "10", "--out", str(out)) == 0
    printed = capsys.readouterr().out
    table = [[cell.strip() for cell in line.split("│")[1:-1]] for line in printed.splitlines() if line.startswith("│")]
    assert [row[0] for row in table] == rows
    assert table[0][5] == "1.0000"
    assert f"90 items of {matching_run.run_dir}" in printed
    assert f"saved {out}" in printed
    with distributed("cpu") as ranks:
        loaded = load_run(matching_run, run=matching_run.run_dir, data=matching_run.data, ranks=ranks)
        user_BC, item_MC = matching_vectors(loaded, matching_run, data=matching_run.data, split="test", ranks=ranks)
    assert user_BC.shape == (120, 16)
    index = load_index(out)
    assert index.config.kind == kind
    assert recall_against_exact(index, user_BC, item_MC, 10) >= (1 if kind == "flat" else 0.9)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--k", "91"), "k=91, expected 1 to 90"),
        (("--index.kind", "ivf", "--index.nlist", "64"), "90 items are too few for nlist=64"),
        (("--out", "TMP/none/index.faiss"), "No such file or directory"),
    ],
)
def test_an_index_that_cannot_be_built_is_a_user_error(
    matching_run: RunConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    words: str,
) -> None:
    words_of_command = [word.replace("TMP", str(tmp_path)) for word in arguments]
    assert command(monkeypatch, "--run", str(matching_run.run_dir), *words_of_command) == 2
    assert words in capsys.readouterr().err
    assert not (matching_run.run_dir / "item_index.faiss").exists()


def test_a_pre_ranking_run_has_no_item_index(
    pre_ranking_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, "--run", str(pre_ranking_run)) == 2
    assert "TwoTower scores given candidates; item indexes are for matching models" in capsys.readouterr().err
    assert not (pre_ranking_run / "item_index.faiss").exists()
