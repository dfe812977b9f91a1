import os
from pathlib import Path

import pytest

from trainer.durable_file import write_durably


def test_the_content_is_on_the_disk_before_it_takes_its_name_and_the_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    flushed: list[tuple[str, str]] = []

    def note(descriptor: int) -> None:
        flushed.append((Path(f"/proc/self/fd/{descriptor}").readlink().name, path.read_text()))

    monkeypatch.setattr(os, "fsync", note)
    write_durably(path, "new")
    assert flushed == [("a.tmp", "old"), (tmp_path.name, "new")]
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


def test_bytes_are_written_as_they_are(tmp_path: Path) -> None:
    write_durably(tmp_path / "a", b"\x00\r\n\xff")
    assert (tmp_path / "a").read_bytes() == b"\x00\r\n\xff"
