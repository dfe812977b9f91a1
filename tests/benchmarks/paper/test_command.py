import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from benchmarks.paper import __main__ as command
from benchmarks.paper import movielens
from benchmarks.paper.cells import TABLES, Cell, PaperTable
from benchmarks.paper.rows import KEY
from benchmarks.paper.sweeps import SWEEPS
from benchmarks.popularity import popularity_row
from benchmarks.result_rows import read_rows, replace_rows
from dataloaders.prepare.ml1m import Ml1mConfig, prepare_ml1m
from tests.benchmarks.paper.recorded import FIT, cell, run
from tests.dataloaders.prepare.tiny_ml1m import write_random_raw
from trainer.errors import UserError


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an empty table, in place of the repository's root."""
    names = [f"{paper}_ml1m{part}" for paper in ("fit", "t2diff") for part in ("", "_figures")]
    names += ["fit_training_rows", *(f"t2diff_ml1m_{sweep}" for sweep in SWEEPS["t2diff", "ml1m"])]
    (tmp_path / "README.md").write_text("\n".join(f"<!-- results:{name} -->\n<!-- /results:{name} -->" for name in names))
    monkeypatch.setattr(command, "ROOT", tmp_path)
    monkeypatch.setattr(command, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(command, "TIMES_FILE", tmp_path / "results" / "times.csv")
    monkeypatch.setattr(command, "time_missing", lambda _cells: [])
    monkeypatch.setattr(command, "prepare_missing", lambda *_, **__: None)
    monkeypatch.setattr(command, "draw", lambda paper, results, redraw: f"figures of {paper} in {results.name}, {redraw}")
    return tmp_path


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training that does nothing."""
    monkeypatch.setattr(command, "fill", lambda *_, **__: [])


@pytest.mark.usefixtures("untrained")
def test_the_command_counts_popularity_keeps_old_rows_and_leaves_them_out(repository: Path, monkeypatch: pytest.MonkeyPatch):
    prepare_ml1m(Ml1mConfig(raw=write_random_raw(repository / "raw"), out=repository / "data" / "ml1m"))
    monkeypatch.setattr(sys, "argv", ["paper", "table"])
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
    assert "figures of fit in results, True" in text


def test_without_training_the_results_are_rendered_as_they_are(repository: Path, monkeypatch: pytest.MonkeyPatch):
    prepare_ml1m(Ml1mConfig(raw=write_random_raw(repository / "raw"), out=repository / "data" / "ml1m"))
    path = repository / "results" / "fit_ml1m.csv"
    replace_rows(path, [run(FIT, cell(FIT, "FIT"), 0, 0.92)], key=KEY)
    before = path.read_bytes()
    monkeypatch.setattr(sys, "argv", ["paper", "table", "--no-train"])
    command.main()
    assert path.read_bytes() == before
    text = (repository / "README.md").read_text()
    assert "| FIT | 0.9200 *0.9225* |" in text
    assert "figures of fit in results, False" in text


def test_cells_restrict_what_is_trained_and_a_budget_is_one_part_of_the_table(repository: Path, monkeypatch: pytest.MonkeyPatch):
    trained: list[list[str]] = []

    def fill(table: PaperTable, cells: Sequence[Cell], path: Path, *, seeds: int, retrain: bool) -> list[Exception]:
        assert (table, path.name, seeds, retrain) == (FIT, "fit_ml1m.csv", 2, False)
        trained.append([cell.label for cell in cells])
        return []

    monkeypatch.setattr(command, "fill", fill)
    for words in (["--cells", "two_tower_ml1m_paper", "FIT", "--budget", "paper"], ["--budget", "sharded"]):
        monkeypatch.setattr(sys, "argv", ["paper", "table", *words])
        command.main()
    assert trained == [["Two-Tower", "FIT"], ["Popularity (training counts)", "Two-Tower", "FIT"]]
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
    ("words", "papers"),
    [
        (["--smoke"], ["t2diff", "fit"]),
        (["table", "--paper", "t2diff", "--budget", "smoke"], ["t2diff"]),
        (["table", "--paper", "t2diff", "--smoke"], ["t2diff"]),
    ],
)
def test_smoke_is_a_command_and_a_budget(words: list[str], papers: list[str], monkeypatch: pytest.MonkeyPatch):
    tried: list[str] = []
    monkeypatch.setattr(command, "smoke", tried.append)
    monkeypatch.setattr(sys, "argv", ["paper", *words])
    command.main()
    assert tried == papers


FIT_STRIDE50 = ["--dataset", "ml1m_stride50", "--budget", "paper"]
T2DIFF_SWEEPS = [f"t2diff_ml1m_{sweep}" for sweep in ("conditions", "windows", "schedules", "steps")]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (FIT_STRIDE50, ["fit_ml1m_stride50", "fit_ml1m_stride50_queries", "fit_ml1m_stride50_heads"]),
        ([*FIT_STRIDE50, "--no-sweeps"], ["fit_ml1m_stride50"]),
        ([*FIT_STRIDE50, "--cells", "FIT"], ["fit_ml1m_stride50"]),
        (["--paper", "t2diff"], ["t2diff_ml1m", *T2DIFF_SWEEPS]),
        (["--paper", "t2diff", "--budget", "paper"], ["t2diff_ml1m"]),
        (["--paper", "fit"], ["fit_ml1m"]),
    ],
)
@pytest.mark.usefixtures("repository")
def test_sweeps_are_trained_with_the_table_that_they_belong_to(
    words: list[str], expected: list[str], monkeypatch: pytest.MonkeyPatch
):
    trained: list[str] = []

    def fill(_table: PaperTable, _cells: Sequence[Cell], path: Path, **_: object) -> list[Exception]:
        trained.append(path.stem)
        return []

    monkeypatch.setattr(command, "fill", fill)
    monkeypatch.setattr(sys, "argv", ["paper", "table", *words])
    command.main()
    assert trained == expected


@pytest.mark.usefixtures("repository")
def test_what_a_table_and_its_sweeps_read_is_prepared_before_anything_is_trained(monkeypatch: pytest.MonkeyPatch):
    asked: list[tuple[set[Path], Path, bool]] = []

    def prepare_missing(folders: Iterable[Path], *, raw: Path, download: bool) -> None:
        asked.append((set(folders), raw, download))

    monkeypatch.setattr(command, "prepare_missing", prepare_missing)
    monkeypatch.setattr(command, "fill", lambda *_, **__: [] if asked else pytest.fail("trained first"))
    for words in (["--paper", "t2diff", "--download"], ["--paper", "t2diff", "--cells", "SASRec"], FIT_STRIDE50):
        monkeypatch.setattr(sys, "argv", ["paper", "table", *words])
        command.main()
    matching, raw = Path("data/ml1m_next_item"), Path("data/raw/ml-1m")
    with_sweeps = {matching, Path("data/ml1m_next_item_gaps"), Path("data/ml1m_user_windows")}
    assert asked == [(with_sweeps, raw, True), ({matching}, raw, False), ({Path("data/ml1m_stride50")}, raw, False)]


def test_without_raw_files_what_to_do_is_told(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(command, "prepare_missing", movielens.prepare_missing)
    monkeypatch.setattr(movielens, "ROOT", repository)
    monkeypatch.setattr(command, "fill", lambda *_, **__: pytest.fail("trained"))
    monkeypatch.setattr(sys, "argv", ["paper", "table", "--budget", "sharded"])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 3
    assert re.search(r"data/raw/ml-1m.*download", " ".join(capsys.readouterr().err.split()))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["times"], len(FIT.cells)),
        (["times", "--cells", "FIT", "--again"], 3),  # tuned, of the paper, sharded
        (["times", "--dataset", "ml1m_stride50"], len(TABLES["fit", "ml1m_stride50"].cells) + 6 + 8),  # and the sweeps
        (["table", "--cells", "FIT", "COLD"], 1),  # the run of COLD is elsewhere
        (["table", "--cells", "FIT", "--no-times"], None),
    ],
)
@pytest.mark.usefixtures("repository")
def test_times_are_measured_of_a_whole_table_or_of_what_was_trained(
    words: list[str], expected: int | None, monkeypatch: pytest.MonkeyPatch
):
    timed: list[int] = []

    def time_missing(cells: Sequence[Cell], *, again: bool = False) -> list[Exception]:
        timed.append(len(cells))
        return [] if again == ("--again" in words) else [UserError("again")]

    monkeypatch.setattr(command, "time_missing", time_missing)
    monkeypatch.setattr(command, "fill", lambda *_, **__: [])
    monkeypatch.setattr(command, "has_results", lambda run: run.name.startswith("fit_ml1m_adam"))
    monkeypatch.setattr(sys, "argv", ["paper", *words])
    command.main()
    assert timed == ([] if expected is None else [expected])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--paper", "t2diff", "--dataset", "ml1m_last"], r"--dataset ml1m_last: --paper t2diff has tables on \['ml1m'\]"),
        (["--cells", "two_tower_ml1"], r"--cells \['two_tower_ml1'\]: not in the table's budget tuned"),
        (["--cells", "popularity"], r"--cells \['popularity'\]: not in the table's budget tuned"),
        (["--seeds", "0"], "--seeds 0, expected at least 1"),
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
