import json
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from benchmarks import peers
from benchmarks.peers import (
    BATCH_SIZE,
    LEARNING_RATE,
    OURS,
    PINS,
    THEIRS,
    export_rows,
    our_row,
    prepared,
    recbole_config,
    render,
    their_row,
)
from tests.benchmarks.paper.recorded import MACHINE
from trainer.cli import parse_run_config

RATINGS = "".join(f"{user}\t{10 * item}\t4\t{100 * item + user}\n" for user in range(1, 6) for item in range(1, 3 + user))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Five users with three to seven ratings."""
    (tmp_path / "u.data").write_text(RATINGS)
    return prepared(tmp_path, tmp_path / "ml100k")


def test_every_row_that_our_loader_reads_is_a_line_for_recbole(data: Path, tmp_path: Path):
    export_rows(data, tmp_path / "recbole" / "ml-100k")
    for split in ("train", "validation", "test"):
        header, *lines = (tmp_path / "recbole" / "ml-100k" / f"ml-100k.{split}.inter").read_text().splitlines()
        assert header == "user_id:token\titem_id_list:token_seq\titem_id:token"
        found = sorted(
            (int(user), [int(item) for item in items.split()], int(target))
            for user, items, target in (line.split("\t") for line in lines)
        )
        rows = pq.read_table(data / split).to_pylist()
        assert found == sorted((row["user"], row["hist_item"], row["item"]) for row in rows)
        assert len(found) == {"train": 10, "validation": 5, "test": 5}[split]


@pytest.mark.parametrize("model", OURS)
def test_both_programs_have_one_size_optimizer_and_budget(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def finished_run(recipe: str, *, overrides: list[str]) -> dict:
        config, theirs = parse_run_config(["--recipe", recipe, *overrides]), recbole_config(model, tmp_path, seed=3)
        assert config.embeddings.dim == theirs["hidden_size" if model == "SASRec" else "embedding_size"]
        assert (config.model.num_layers, config.model.dropout) == (
            (theirs["n_layers"], theirs["hidden_dropout_prob"])
            if model == "SASRec"
            else (theirs["num_layers"], theirs["dropout_prob"])
        )
        assert (config.loader.batch_size, config.optimizer.learning_rate) == (theirs["train_batch_size"], theirs["learning_rate"])
        assert (config.loop.max_epochs, config.loop.patience) == (theirs["epochs"], theirs["stopping_step"] + 1)
        assert (config.loop.monitor, config.seed) == (theirs["valid_metric"].lower(), theirs["seed"])
        assert not config.model.loss.mask_history
        metrics = {"hr@10": 0.1, "ndcg@10": 0.05}
        results = {"metrics": {"validation": metrics, "test": metrics}, "steps": 30, "steps_per_epoch": 10}
        return results | {"train_seconds_per_epoch": 2.0, "num_parameters": 7, "provenance": MACHINE | {"date": "then"}}

    monkeypatch.setattr(peers, "finished_run", finished_run)
    row = our_row(model, tmp_path / "data", seed=3)
    assert (row["program"], row["hr@10"], row["epochs"], row["commit"]) == ("CrossTower", "0.100000", "3", "abc")
    assert (BATCH_SIZE, LEARNING_RATE) == (512, 0.001)
    assert set(THEIRS) == set(OURS)


def test_recboles_run_is_started_once_and_again_only_with_other_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "recbole").mkdir()
    started: list[str] = []

    def start(command: list[str], *, check: bool, cwd: Path) -> subprocess.CompletedProcess:
        assert (check, cwd, command[0]) == (True, tmp_path, "python")
        assert Path(command[1]).name == "peers_recbole.py"
        settings = json.loads(Path(command[2]).read_text())
        started.append(settings["model"])
        metrics = {"hit@10": 0.2, "ndcg@10": 0.1}
        found = {"validation": metrics, "test": metrics, "epochs": 9, "seconds_per_epoch": 1.5, "num_parameters": 5}
        Path(settings["out"]).write_text(json.dumps(found))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(peers.subprocess, "run", start)
    monkeypatch.setattr(peers, "provenance", lambda: MACHINE)  # asks git, by the same function
    for _ in range(2):
        row = their_row("SASRec", Path("python"), tmp_path, seed=0)
    assert (row["program"], row["hr@10"], row["epochs"], row["seconds_per_epoch"]) == ("RecBole 1.2.1", "0.200000", "9", "1.50")
    assert started == ["SASRec"]
    monkeypatch.setattr(peers, "LEARNING_RATE", 0.1)
    their_row("SASRec", Path("python"), tmp_path, seed=0)
    assert started == ["SASRec", "SASRec"]


def test_an_environment_is_made_once_for_one_list_of_pins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made: list[list[str]] = []
    monkeypatch.setattr(peers.venv, "create", lambda folder, **_: folder.mkdir(exist_ok=True))
    monkeypatch.setattr(peers.subprocess, "run", lambda command, check: made.append(command) if check else None)
    for _ in range(2):
        assert peers.recbole_python(tmp_path / "venv") == tmp_path / "venv" / "bin" / "python"
    assert [command[4:] for command in made] == [["--quiet", *PINS[1:]], ["--quiet", "--no-deps", PINS[0]]]
    (tmp_path / "venv" / "pins.txt").write_text("recbole==1.0\n")
    peers.recbole_python(tmp_path / "venv")
    assert len(made) == 4


def test_the_page_shows_the_programs_beside_each_other():
    row = {"model": "SASRec", "seed": "0", "config": "D 32", "ndcg@10": "0.05", "num_parameters": "70000", "epochs": "9"} | MACHINE
    ours = row | {"program": "CrossTower", "hr@10": "0.11", "seconds_per_epoch": "2.0"}
    theirs = row | {"program": "RecBole 1.2.1", "hr@10": "0.1", "seconds_per_epoch": "3.0"}
    text = render([ours, theirs, theirs | {"seed": "1", "hr@10": "0.12"}])
    assert "| SASRec | CrossTower | 0.1100 | 0.0500 | 70,000 | 9 | 2.0 | 1 |" in text
    assert "| SASRec | RecBole 1.2.1 | 0.1100 ± 0.0141 | 0.0500 ± 0.0000 | 70,000 | 9 ± 0 | 3.0 ± 0.0 | 2 |" in text
