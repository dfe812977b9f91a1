from pathlib import Path

import pytest
from small_task import save_small

from trainer.checkpoint_manifest import FORMAT_VERSION, FileEntry, Manifest, read_manifest, write_manifest
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
