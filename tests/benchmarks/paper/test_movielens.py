from pathlib import Path

import pytest

from benchmarks.paper import movielens
from benchmarks.paper.cells import FEWER_ROWS, TABLES
from benchmarks.paper.movielens import SETTINGS, config_of_data, prepare_missing
from benchmarks.paper.rows import config_of
from benchmarks.paper.sweeps import SWEEPS
from dataloaders.schema import Schema
from tests.dataloaders.prepare.tiny_ml1m import write_random_raw

RAW = Path("data/raw/ml-1m")


def test_every_cell_reads_data_that_is_known_here():
    tables = [*TABLES.values(), *(table for sweeps in SWEEPS.values() for table in sweeps.values())]
    read = {config_of(cell, seed=0).data for table in tables for cell in table.cells if cell.role != "counted"}
    assert read == set(SETTINGS)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with raw files, in place of the repository's root."""
    monkeypatch.setattr(movielens, "ROOT", tmp_path)
    write_random_raw(tmp_path / RAW)
    return tmp_path


def test_what_is_missing_is_prepared_once_each_in_its_own_form(repository: Path, monkeypatch: pytest.MonkeyPatch):
    prepare_missing([*SETTINGS, Path("data/somebody_elses")], raw=RAW, download=False)
    schemas = {folder: Schema.load(repository / folder) for folder in SETTINGS}
    assert len({schema.identity for schema in schemas.values()}) == len(SETTINGS)
    assert {folder.name for folder in (repository / "data").iterdir()} == {"raw", *(folder.name for folder in SETTINGS)}
    rows = [schemas[Path("data") / name].num_rows["train"] for name in ("ml1m", *FEWER_ROWS) if name != "ml1m_last"]
    assert rows[0] > rows[1] > rows[2] > 0
    assert {schema.task for folder, schema in schemas.items() if "next_item" in folder.name} == {"next_item"}
    monkeypatch.setattr(movielens, "prepare_ml1m", lambda _config: pytest.fail("prepared again"))
    prepare_missing(SETTINGS, raw=RAW, download=False)


def test_the_readmes_commands_prepare_the_same():
    text = (Path(__file__).parents[3] / "README.md").read_text()
    for name, words in (
        ("ml1m_next_item", "--task next_item --validation last_but_one"),
        ("ml1m_user_windows", "--split user_windows"),
    ):
        assert any(f"--out data/{name} " in line and words in line for line in text.splitlines()), name
    protocol = config_of_data(Path("data/ml1m_next_item"), raw=RAW, download=False).protocol
    assert (protocol.split, protocol.validation, protocol.train_stride) == ("leave_one_out", "last_but_one", 1)
