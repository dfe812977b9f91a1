import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import pytest

from tests.trainer.export.conftest import Case
from trainer.errors import CheckpointError
from trainer.export.manifest import FILE_NAME, FORMAT_VERSION, artefact_id, read_manifest, verify, write_manifest


def reseal(folder: Path, change: dict) -> None:
    """Replace fields of a folder's manifest, None for leaving one out, and seal it again."""
    content = json.loads((folder / FILE_NAME).read_text()) | change | {"seal": "0" * 64}
    raw = json.dumps({name: value for name, value in content.items() if value is not None}, indent=1).encode()
    seal = hashlib.sha256(raw).hexdigest().encode()
    (folder / FILE_NAME).write_bytes(raw.replace(b'"seal": "' + b"0" * 64, b'"seal": "' + seal))


@pytest.fixture
def copied(two_tower_case: Case, tmp_path: Path) -> Path:
    return shutil.copytree(two_tower_case.folder, tmp_path / "artefact")


def test_a_manifest_is_read_as_it_was_written(every_case: Case) -> None:
    assert read_manifest(every_case.folder) == every_case.exported.manifest == verify(every_case.folder)


def test_no_byte_of_the_manifest_can_change_unnoticed(copied: Path) -> None:
    raw = (copied / FILE_NAME).read_bytes()
    for position in range(0, len(raw), 13):
        changed = bytearray(raw)
        changed[position] ^= 1
        (copied / FILE_NAME).write_bytes(changed)
        with pytest.raises(CheckpointError, match=r"manifest\.json"):
            read_manifest(copied)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"format_version": FORMAT_VERSION + 1}, f"format_version={FORMAT_VERSION + 1}"),
        ({"store": None}, "store"),
        ({"of_the_future": 1}, "of_the_future"),
        ({"files": {"../outside": {"sha256": "", "bytes": 0}}}, "no file of its folder"),
        ({"user": []}, "not a manifest"),
    ],
)
def test_a_sealed_manifest_that_says_something_else_is_refused(copied: Path, change: dict, word: str) -> None:
    reseal(copied, change)
    with pytest.raises(CheckpointError, match=word):
        read_manifest(copied)


def test_a_sealed_manifest_binds_files_step_and_configuration_by_its_id(copied: Path) -> None:
    reseal(copied, {})
    verify(copied)
    for change in ({"step": 3}, {"config_fingerprint": "0" * 64}, {"artefact": "0" * 16}):
        before = (copied / FILE_NAME).read_bytes()
        reseal(copied, change)
        with pytest.raises(CheckpointError, match="its parts make"):
            verify(copied)
        (copied / FILE_NAME).write_bytes(before)


def test_a_manifest_must_list_what_a_server_opens(copied: Path) -> None:
    manifest = read_manifest(copied)
    files = {name: digest for name, digest in manifest.files.items() if name != "scorer.pt"}
    (copied / "scorer.pt").unlink()
    without = dataclasses.replace(manifest, files=files)
    write_manifest(copied, dataclasses.replace(without, artefact=artefact_id(without)))
    with pytest.raises(CheckpointError, match=r"does not list scorer\.pt"):
        verify(copied)


def test_the_id_is_a_function_of_the_names_too(two_tower_case: Case) -> None:
    manifest = two_tower_case.exported.manifest
    renamed = {name.replace("scorer", "scorer2"): digest for name, digest in manifest.files.items()}
    assert artefact_id(manifest) == manifest.artefact
    assert artefact_id(dataclasses.replace(manifest, files=renamed)) != manifest.artefact


def test_a_folder_without_a_manifest_holds_no_artefact(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"manifest\.json: .*holds no artefact"):
        verify(tmp_path)
