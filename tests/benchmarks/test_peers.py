import json
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from benchmarks.peers import __main__ as command
from benchmarks.peers import programs
from benchmarks.peers.__main__ import record, time_programs
from benchmarks.peers.page import render, verdict
from benchmarks.peers.programs import (
    BATCH_SIZE,
    KEY,
    LEARNING_RATE,
    OURS,
    PINS,
    SETTINGS,
    THEIRS,
    export_rows,
    identity,
    our_row,
    our_run,
    prepared,
    recbole_config,
    recbole_python,
    their_row,
)
from benchmarks.result_rows import read_rows, replace_rows
from dataloaders.schema import Schema
from tests.benchmarks.paper.recorded import MACHINE
from trainer.cli import parse_run_config
from trainer.errors import UserError

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
def test_both_programs_have_one_size_optimizer_and_budget(model: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
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
        metrics = {"hr@10": 0.1, "ndcg@10": 0.05, "num_rows": 5.0}
        results = {"metrics": {"validation": metrics, "test": metrics}, "steps": 30, "steps_per_epoch": 10, "num_parameters": 7}
        return results | {"provenance": MACHINE, "data_identity": Schema.load(data).identity}

    monkeypatch.setattr(programs, "finished_run", finished_run)
    row = our_row(model, data, seed=3)
    assert (row["program"], row["hr@10"], row["epochs"], row["commit"]) == ("CrossTower", "0.100000", "3", "abc")
    assert (row["data"], row["test_rows"]) == (identity(data), "5")
    assert (BATCH_SIZE, LEARNING_RATE) == (512, 0.001)
    assert set(THEIRS) == set(OURS)


def test_a_run_on_other_ratings_is_no_run_on_these(data: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(programs, "finished_run", lambda *_, **__: {"data_identity": "other"})
    with pytest.raises(UserError, match="holds a run of gru4rec_ml1m on other ratings"):
        our_run("GRU4Rec", data, seed=0)


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The epochs that RecBole was started for; each start ends at once."""
    (tmp_path / "recbole").mkdir()
    epochs: list[int] = []

    def start(command: list[str], *, check: bool, cwd: Path) -> subprocess.CompletedProcess:
        assert (check, cwd, command[0]) == (True, tmp_path, "python")
        assert Path(command[1]).name == "recbole_run.py"
        assert Path(command[1]).exists()
        settings = json.loads(Path(command[2]).read_text())
        epochs.append(settings["config"]["epochs"])
        metrics = {"hit@10": 0.2, "ndcg@10": 0.1}
        found = {"validation": metrics, "test": metrics, "epochs": 9, "num_parameters": 5, "rows": {"test": 5}}
        Path(settings["out"]).write_text(json.dumps(found | {"seconds_per_epoch": 1.5}))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(programs.subprocess, "run", start)
    monkeypatch.setattr(programs, "provenance", lambda: MACHINE | {"date": f"start {len(epochs)}"})
    return epochs


def test_recboles_run_is_started_once_and_again_only_with_other_settings_or_data(
    data: Path, tmp_path: Path, started: list[int], monkeypatch: pytest.MonkeyPatch
):
    for _ in range(2):
        row = their_row("SASRec", Path("python"), data, seed=0)
    assert (row["program"], row["hr@10"], row["epochs"]) == ("RecBole 1.2.1", "0.200000", "9")
    assert started == [20]
    monkeypatch.setattr(programs, "LEARNING_RATE", 0.1)
    assert their_row("SASRec", Path("python"), data, seed=0)["date"] == "start 2"
    (tmp_path / "u.data").write_text(RATINGS.replace("\t4\t", "\t3\t") + "6\t10\t4\t7\n6\t20\t4\t8\n6\t30\t4\t9\n")
    their_row("SASRec", Path("python"), prepared(tmp_path, data), seed=0)
    assert len(started) == 3


def test_a_row_says_when_its_run_was_made_however_often_it_is_read(data: Path, started: list[int]):
    dates = [their_row("SASRec", Path("python"), data, seed=seed)["date"] for seed in (0, 1, 0)]
    assert dates == ["start 1", "start 2", "start 1"]
    assert len(started) == 2


def test_seconds_are_of_two_epochs_and_stay_when_a_run_is_read_again(
    data: Path, tmp_path: Path, started: list[int], monkeypatch: pytest.MonkeyPatch
):
    path, theirs = tmp_path / "peers.csv", their_row("SASRec", Path("python"), data, seed=0)
    ours = theirs | {"program": "CrossTower"}
    record(ours, path)
    record(theirs, path)
    assert [row["seconds_per_epoch"] for row in read_rows(path)] == ["", ""]
    asked: list[int] = []

    def timed(*_words: object, epochs: int, **_: object) -> dict[str, float]:
        asked.append(epochs)
        return {"train_seconds_per_epoch": 0.5}

    monkeypatch.setattr(command, "our_run", timed)
    time_programs(["SASRec"], Path("python"), data, path)
    assert (asked, started) == ([2], [20, 2])
    record(ours | {"hr@10": "0.3"}, path)
    assert sorted((row["program"], row["hr@10"], row["seconds_per_epoch"]) for row in read_rows(path)) == [
        ("CrossTower", "0.3", "0.50"),
        ("RecBole 1.2.1", "0.200000", "1.50"),
    ]


def test_an_environment_is_made_once_for_one_list_of_pins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made: list[list[str]] = []
    monkeypatch.setattr(programs.venv, "create", lambda folder, **_: folder.mkdir(exist_ok=True))
    monkeypatch.setattr(programs.subprocess, "run", lambda command, check: made.append(command) if check else None)
    for _ in range(2):
        assert recbole_python(tmp_path / "venv") == tmp_path / "venv" / "bin" / "python"
    assert [command[4:] for command in made] == [["--quiet", *PINS[1:]], ["--quiet", "--no-deps", PINS[0]]]
    (tmp_path / "venv" / "pins.txt").write_text("recbole==1.0\n")
    recbole_python(tmp_path / "venv")
    assert len(made) == 4


ROW = {"model": "SASRec", "seed": "0", "config": SETTINGS, "data": "aaa", "ndcg@10": "0.05", "num_parameters": "70000"}
OUR_ROW = ROW | MACHINE | {"program": "CrossTower", "hr@10": "0.11", "seconds_per_epoch": "2.0", "epochs": "9", "test_rows": "943"}
THEIR_ROW = OUR_ROW | {"program": "RecBole 1.2.1", "hr@10": "0.1", "seconds_per_epoch": "3.0"}


def test_the_page_shows_the_programs_beside_each_other():
    text = render([OUR_ROW, THEIR_ROW, THEIR_ROW | {"seed": "1", "hr@10": "0.12"}], data="aaa")
    assert "| SASRec | CrossTower | 0.1100 | 0.0500 | 70,000 | 9 | 2.0 | 1 |" in text
    assert "| SASRec | RecBole 1.2.1 | 0.1100 ± 0.0141 | 0.0500 ± 0.0000 | 70,000 | 9 ± 0 | 3.0 ± 0.0 | 2 |" in text


def test_rows_of_other_settings_or_other_data_are_not_on_the_page():
    rows = [OUR_ROW, OUR_ROW | {"hr@10": "0.9", "config": "older"}, OUR_ROW | {"hr@10": "0.9", "data": "bbb"}]
    assert "| SASRec | CrossTower | 0.1100 |" in render(rows, data="aaa")


def test_a_lead_is_one_only_beyond_the_error_of_test_rows():
    # two shares near 0.1 of 943 rows each differ by √(2 · 0.1 · 0.9 / 943) = 0.0138 by chance
    near = verdict("SASRec", [OUR_ROW | {"hr@10": "0.12"}, THEIR_ROW])
    assert "nothing is decided (HR@10 +0.0200 ± 0.0144" in near
    assert "ours is ahead (HR@10 +0.0500" in verdict("SASRec", [OUR_ROW | {"hr@10": "0.15"}, THEIR_ROW])
    assert "RecBole's is ahead (HR@10 -0.0500" in verdict("SASRec", [OUR_ROW, THEIR_ROW | {"hr@10": "0.16"}])
    assert verdict("SASRec", [OUR_ROW]) == "- SASRec: one program alone is recorded."


def test_one_rows_key_is_what_its_settings_and_data_are(tmp_path: Path):
    replace_rows(tmp_path / "x.csv", [OUR_ROW, OUR_ROW | {"data": "bbb"}], key=KEY)
    replace_rows(tmp_path / "x.csv", [OUR_ROW | {"hr@10": "0.2"}], key=KEY)
    assert [row["hr@10"] for row in read_rows(tmp_path / "x.csv")] == ["0.11", "0.2"]
