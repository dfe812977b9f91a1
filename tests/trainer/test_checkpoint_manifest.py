from pathlib import Path

import pytest
from small_task import save_small

from trainer import checkpoint_manifest
from trainer.checkpoint_manifest import FORMAT_VERSION, FileEntry, Manifest, check_files, entry_of, read_manifest, write_manifest
from trainer.errors import CheckpointError


def test_no_byte_of_the_manifest_can_change_unnoticed(tmp_path: Path) -> None:
    path = save_small(tmp_path, 1)
    raw = (path / "manifest.json").read_bytes()
    for position in range(len(raw)):
        changed = bytearray(raw)
        changed[position] ^= 1
        (path / "manifest.json").write_bytes(changed)
        with pytest.raises(CheckpointError, match=r"manifest\.json"):
            read_manifest(path)


def test_a_manifest_of_another_format_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.checkpoint_manifest.FORMAT_VERSION", FORMAT_VERSION + 1)
    write_manifest(tmp_path, Manifest(step=1, world_size=1, plan={}, extra={}, files={"a": FileEntry(size=0, sha256="")}))
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match=f"format_version={FORMAT_VERSION + 1}"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"world_size": None}, "fields are not those of format_version"),
        ({"of_the_future": 1}, "of_the_future"),
        ({"files": {"a": {"size": 1}}}, "sha256"),
        ({"files": ["a"]}, "fields are not"),
        ({"step": "12"}, "whole numbers"),
        ({"extra": [1]}, "extra an object"),
        ({"files": {"../a": {"size": 0, "sha256": ""}}}, "no file of its folder"),
    ],
)
def test_a_sealed_manifest_with_missing_or_unknown_fields_is_a_checkpoint_error(tmp_path: Path, change: dict, word: str) -> None:
    content = {"step": 1, "world_size": 1, "plan": {}, "extra": {}, "files": {}, "format_version": FORMAT_VERSION} | change
    present = {name: value for name, value in content.items() if value is not None}
    (tmp_path / "manifest.json").write_bytes(checkpoint_manifest._canonical(present))
    with pytest.raises(CheckpointError, match=word):
        read_manifest(tmp_path)


def test_a_file_is_read_again_only_after_it_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.write_text("content")
    files = {"a": entry_of(path)}
    read: list[Path] = []
    monkeypatch.setattr(checkpoint_manifest, "entry_of", lambda path: read.append(path) or entry_of(path))
    for _ in range(2):
        check_files(tmp_path, files, names=files)
    assert len(read) == 2, "a file that has only just been written may change without a new time stamp"
    monkeypatch.setattr(checkpoint_manifest, "SETTLED_SECONDS", -1.0)
    for _ in range(3):
        check_files(tmp_path, files, names=files)
    assert len(read) == 3
    path.write_text("CONTENT")
    with pytest.raises(CheckpointError, match="sha256"):
        check_files(tmp_path, files, names=files)
