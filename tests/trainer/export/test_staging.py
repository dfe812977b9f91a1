from pathlib import Path

import pytest

from trainer.errors import UserError
from trainer.export.staging import staged_artefact


def write(out: Path, text: str, *, overwrite: bool = False) -> None:
    with staged_artefact(out, overwrite=overwrite) as folder:
        (folder / "manifest.json").write_text(text)
        assert not out.exists() or (out / "manifest.json").read_text() != text


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    write(tmp_path / "below" / "a", "one")
    assert (tmp_path / "below" / "a" / "manifest.json").read_text() == "one"
    assert [path.name for path in (tmp_path / "below").iterdir()] == ["a"]


def test_what_fails_leaves_nothing_and_the_old_artefact_as_it_was(tmp_path: Path) -> None:
    write(tmp_path / "a", "one")
    with pytest.raises(FileNotFoundError), staged_artefact(tmp_path / "a", overwrite=True) as folder:
        (folder / "below" / "manifest.json").write_text("two")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a" / "manifest.json").read_text() == "one"


def test_an_artefact_is_replaced_only_on_request(tmp_path: Path) -> None:
    write(tmp_path / "a", "one")
    with pytest.raises(UserError, match="exists; choose a new folder"):
        write(tmp_path / "a", "two")
    write(tmp_path / "a", "two", overwrite=True)
    assert (tmp_path / "a" / "manifest.json").read_text() == "two"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_folder_that_is_no_artefact_is_never_deleted(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "thesis.txt").touch()
    with pytest.raises(UserError, match="refuses to delete it"):
        write(tmp_path / "a", "one", overwrite=True)
    assert (tmp_path / "a" / "thesis.txt").exists()


def test_a_link_is_left_for_its_owner_to_move(tmp_path: Path) -> None:
    write(tmp_path / "a", "one")
    (tmp_path / "live").symlink_to("a")
    with pytest.raises(UserError, match="live is a link"):
        write(tmp_path / "live", "two", overwrite=True)
    assert (tmp_path / "live" / "manifest.json").read_text() == "one"


def test_what_a_killed_export_left_is_cleared_away(tmp_path: Path) -> None:
    (tmp_path / ".a.partial").mkdir()
    (tmp_path / ".a.partial" / "manifest.json").write_text("half")
    write(tmp_path / "a", "one")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
