from pathlib import Path

import pytest

from benchmarks.paper import rows as paper_rows
from benchmarks.paper.rows import is_here, trained_row
from dataloaders.schema import Schema
from tests.benchmarks.paper.recorded import T2DIFF, cell
from trainer.config import RunConfig
from trainer.results import read_results

OURS, POPULARITY = cell(T2DIFF, "T2Diff"), cell(T2DIFF, "Popularity")


@pytest.fixture
def recorded(matching_run: RunConfig, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The row of a small run, which the cell of T2Diff is made to stand for."""
    monkeypatch.setattr(paper_rows, "config_of", lambda _cell, **_: matching_run)
    return trained_row(T2DIFF, OURS, seed=0, results=read_results(matching_run.run_dir))


def test_a_row_is_here_with_its_run_and_its_data(recorded: dict[str, str], matching_run: RunConfig):
    assert recorded["data"] == Schema.load(matching_run.data).identity[:12]
    assert is_here(OURS, recorded)
    older = {name: value for name, value in recorded.items() if name != "data"}
    assert is_here(OURS, older)
    assert not is_here(OURS, older | {"test_recall@20": "0.123456"})  # of a run that was trained elsewhere
    assert not is_here(OURS, recorded | {"data": "another"})
    assert not is_here(POPULARITY, recorded | {"seed": ""})


def test_a_row_is_not_here_where_its_folder_holds_other_data(
    recorded: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(paper_rows, "read_results", lambda _run: {"data_identity": "another", "metrics": {"test": {}}})
    assert not is_here(OURS, recorded)
    monkeypatch.setattr(paper_rows, "ROOT", tmp_path)
    monkeypatch.setattr(paper_rows, "has_results", lambda _run: False)
    assert not is_here(OURS, recorded)
