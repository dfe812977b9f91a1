import re
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.paper import __main__ as command
from benchmarks.paper.cells import Cell, PaperTable
from benchmarks.paper.rows import KEY
from benchmarks.popularity import popularity_row
from benchmarks.result_rows import read_rows, replace_rows
from dataloaders.prepare.ml1m import Ml1mConfig, prepare_ml1m
from tests.benchmarks.paper.recorded import FIT, cell, run
from tests.dataloaders.prepare.tiny_ml1m import write_random_raw
from trainer.errors import UserError


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an empty table, in place of the repository's root."""
    names = [f"{paper}_ml1m{part}" for paper in ("fit", "t2diff") for part in ("", "_figures")] + ["fit_training_rows"]
    (tmp_path / "README.md").write_text("\n".join(f"<!-- results:{name} -->\n<!-- /results:{name} -->" for name in names))
    monkeypatch.setattr(command, "ROOT", tmp_path)
    monkeypatch.setattr(command, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(command, "draw", lambda paper, results: f"figures of {paper} in {results.name}")
    return tmp_path


def test_the_command_counts_popularity_keeps_old_rows_and_leaves_them_out(repository: Path, monkeypatch: pytest.MonkeyPatch):
    prepare_ml1m(Ml1mConfig(raw=write_random_raw(repository / "raw"), out=repository / "data" / "ml1m"))
    monkeypatch.setattr(sys, "argv", ["paper", "table", "--no-train"])
    path = repository / "results" / "fit_ml1m.csv"
    current = run(FIT, cell(FIT, "FIT"), 0, 0.92)
    replace_rows(path, [current, current | {"config": "older", "test_auc": "0.5"}], key=KEY)
    for _ in range(2):
        command.main()
    rows = read_rows(path)
    assert [row["recipe"] for row in rows] == ["fit_ml1m_adam", "fit_ml1m_adam", "popularity"]
    expected = popularity_row(repository / "data" / "ml1m")
    assert {name: rows[-1][name] for name in expected} | {"date": ""} == expected | {"date": ""}
    text = (repository / "README.md").read_text()
    auc, popular = float(expected["test_auc"]), float(expected["test_popularity_auc"])
    assert f"| Popularity (training counts) | {auc:.4f} | – | {popular:.4f} |" in text
    assert "| FIT | 0.9200 *0.9225* |" in text
    assert "1 older row(s)" in text
    assert "figures of fit in results" in text


def test_recipes_restrict_what_is_trained_and_a_budget_is_one_part_of_the_table(repository: Path, monkeypatch: pytest.MonkeyPatch):
    trained: list[list[str]] = []

    def fill(table: PaperTable, cells: Sequence[Cell], path: Path, *, seeds: int, times: bool) -> list[Exception]:
        assert (table, path.name, seeds, times) == (FIT, "fit_ml1m.csv", 2, True)
        trained.append([cell.label for cell in cells])
        return []

    monkeypatch.setattr(command, "fill", fill)
    for words in (["--recipes", "two_tower_ml1m_paper", "--budget", "paper"], ["--budget", "sharded"]):
        monkeypatch.setattr(sys, "argv", ["paper", "table", *words])
        command.main()
    assert trained == [["Two-Tower"], ["Popularity (training counts)", "Two-Tower", "FIT"]]
    assert "No run is recorded yet." in (repository / "README.md").read_text()


def test_where_a_cell_failed_the_rest_is_rendered_before_the_error_is_raised(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(command, "fill", lambda *_, **__: [UserError("the loss is NaN")])
    monkeypatch.setattr(sys, "argv", ["paper", "table", "--budget", "sharded"])
    with pytest.raises(SystemExit):
        command.main()
    assert "the loss is NaN" in capsys.readouterr().err
    assert "No run is recorded yet." in (repository / "README.md").read_text()


@pytest.mark.parametrize(
    ("words", "papers"), [(["--smoke"], ["t2diff", "fit"]), (["table", "--paper", "t2diff", "--budget", "smoke"], ["t2diff"])]
)
def test_smoke_is_a_command_and_a_budget(words: list[str], papers: list[str], monkeypatch: pytest.MonkeyPatch):
    tried: list[str] = []
    monkeypatch.setattr(command, "smoke", tried.append)
    monkeypatch.setattr(sys, "argv", ["paper", *words])
    command.main()
    assert tried == papers


@pytest.mark.usefixtures("repository")
def test_sweeps_are_trained_on_demand(monkeypatch: pytest.MonkeyPatch):
    trained: list[str] = []

    def fill(_table: PaperTable, _cells: Sequence[Cell], path: Path, **_: object) -> list[Exception]:
        trained.append(path.stem)
        return []

    monkeypatch.setattr(command, "fill", fill)
    monkeypatch.setattr(sys, "argv", ["paper", "table", "--dataset", "ml1m_stride50", "--budget", "paper", "--sweeps"])
    command.main()
    assert trained == ["fit_ml1m_stride50", "fit_ml1m_stride50_queries", "fit_ml1m_stride50_heads"]


@pytest.mark.usefixtures("repository")
def test_times_are_measured_of_every_budget(monkeypatch: pytest.MonkeyPatch):
    timed: list[tuple[int, str]] = []
    monkeypatch.setattr(command, "time_missing", lambda cells, path: timed.append((len(cells), path.name)))
    monkeypatch.setattr(sys, "argv", ["paper", "times", "--paper", "fit"])
    command.main()
    assert timed == [(len(FIT.of_budget(budget)), "fit_ml1m.csv") for budget in ("tuned", "paper", "sharded")]
    monkeypatch.setattr(sys, "argv", ["paper", "times", "--paper", "fit", "--dataset", "ml1m_stride50"])
    command.main()
    assert timed[-2:] == [(6, "fit_ml1m_stride50_queries.csv"), (8, "fit_ml1m_stride50_heads.csv")]


@pytest.mark.usefixtures("repository")
def test_t2diffs_tuned_table_comes_with_tables_3_and_4(monkeypatch: pytest.MonkeyPatch):
    reproduced: list[tuple[str, bool]] = []
    monkeypatch.setattr(command.ablation, "reproduce", lambda group, *, train, **_: reproduced.append((group, train)))
    monkeypatch.setattr(sys, "argv", ["paper", "table", "--paper", "t2diff", "--no-train"])
    command.main()
    assert reproduced == [("schedules", False), ("steps", False)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--paper", "t2diff", "--dataset", "ml1m_last"], r"--dataset ml1m_last: --paper t2diff has tables on \['ml1m'\]"),
        (["--recipes", "two_tower_ml1"], r"--recipes \['two_tower_ml1'\]: not in the table's budget tuned"),
        (["--seeds", "0"], "--seeds 0, expected at least 1"),
        (["--sweeps", "--no-train"], "--sweeps trains those of --paper fit on --dataset ml1m_stride50"),
        (["--sweeps", "--paper", "t2diff"], "--sweeps trains those of --paper fit on --dataset ml1m_stride50"),
        (["--dataset", "ml1m_last", "--budget", "tuned"], r"--budget tuned: the table fit on ml1m_last has \['paper'\]"),
    ],
)
@pytest.mark.usefixtures("repository")
def test_a_table_or_a_part_of_it_that_does_not_exist_is_refused(
    words: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(sys, "argv", ["paper", "table", *words])
    with pytest.raises(SystemExit):
        command.main()
    assert re.search(message, " ".join(capsys.readouterr().err.split()))
