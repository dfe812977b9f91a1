import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from dataloaders.errors import DataError
from dataloaders.prepare.common import random_stream, run_command, staged_folder, write_json


def test_the_folder_appears_only_when_the_block_ends_well(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    with staged_folder(out, overwrite=False) as folder:
        (folder / "file").write_text("x")
        assert not out.exists()
    assert (out / "file").read_text() == "x"
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_a_failing_block_leaves_nothing_behind_and_the_old_folder_untouched(tmp_path: Path) -> None:
    old = tmp_path / "out"
    old.mkdir()
    (old / "schema.json").write_text("old")
    with pytest.raises(FileNotFoundError), staged_folder(old, overwrite=True) as folder:
        (folder / "missing" / "schema.json").write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (old / "schema.json").read_text() == "old"


def test_overwrite_replaces_a_prepared_data_set_as_a_whole(tmp_path: Path) -> None:
    old = tmp_path / "out"
    old.mkdir()
    (old / "schema.json").write_text("old")
    (old / "stale").write_text("old")
    with staged_folder(old, overwrite=True) as folder:
        (folder / "schema.json").write_text("new")
    assert [path.name for path in old.iterdir()] == ["schema.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_existing_folder_is_refused_without_overwrite_and_a_foreign_one_always(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    with (
        pytest.raises(ValueError, match="exists; expected a new folder; choose another one or pass --overwrite"),
        staged_folder(tmp_path, overwrite=False),
    ):
        pytest.fail("entered")
    with pytest.raises(ValueError, match=r"holds no schema\.json.*refuses to delete"), staged_folder(tmp_path, overwrite=True):
        pytest.fail("entered")
    assert (tmp_path / "precious").read_text() == "x"


def test_streams_are_uniform_repeatable_and_apart_by_seed_and_purpose() -> None:
    first = random_stream(10_000, seed=0, purpose="a")
    assert np.array_equal(first, random_stream(10_000, seed=0, purpose="a"))
    assert abs(first.mean() / 2**64 - 0.5) < 0.01
    for other in (random_stream(10_000, seed=1, purpose="a"), random_stream(10_000, seed=0, purpose="b")):
        assert abs(np.corrcoef(first, other)[0, 1]) < 0.05


def test_json_keeps_accents_and_writes_paths_as_text(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"title": "Cité", "folder": tmp_path})
    text = (tmp_path / "x.json").read_text(encoding="utf-8")
    assert "Cité" in text
    assert json.loads(text)["folder"] == str(tmp_path)


@dataclass(frozen=True, kw_only=True)
class _Config:
    size: int = 1

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size={self.size}, expected at least 1")


def _fail_above_one(config: _Config) -> None:
    if config.size == 2:
        raise DataError("file x, line 7")
    if config.size == 3:
        raise ConnectionError("no network")


@pytest.mark.parametrize(
    ("size", "code", "message"),
    [(1, 0, ""), (2, 3, "bad data: file x, line 7"), (3, 2, "error: no network")],
)
def test_errors_become_exit_codes_and_one_line(capsys: pytest.CaptureFixture[str], size: int, code: int, message: str) -> None:
    assert run_command(_Config, prepare=_fail_above_one, program="prepare", arguments=["--size", str(size)]) == code
    assert capsys.readouterr().err.strip() == message


def test_an_argument_out_of_range_prints_the_field_and_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        run_command(_Config, prepare=_fail_above_one, program="prepare", arguments=["--size", "0"])
    assert exit_info.value.code == 2
    assert "size=0, expected at least 1" in capsys.readouterr().err
