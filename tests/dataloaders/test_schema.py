"""What tells data sets apart: the layout that a model needs, and the content."""

import dataclasses
import hashlib
from pathlib import Path

import pytest

from dataloaders.errors import DataError
from dataloaders.schema import Schema, content_id_of
from tests.dataloaders.small_dataset import SCHEMA


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


FILES = {"items.parquet": b"items", "train/part-00000.parquet": b"zero", "train/part-00001.parquet": b"one"}


def test_content_id_is_the_documented_hash_and_looks_at_parquet_files_only(tmp_path: Path) -> None:
    lines = [f"{name}\0{hashlib.sha256(content).hexdigest()}\n" for name, content in sorted(FILES.items())]
    expected = hashlib.sha256("".join(lines).encode()).hexdigest()
    assert content_id_of(write(tmp_path, FILES)) == expected
    assert content_id_of(write(tmp_path, {"schema.json": b"{}", "truth.json": b"{}"})) == expected


@pytest.mark.parametrize(
    "changed",
    [
        {"items.parquet": b"Items"},
        {"train/part-00000.parquet": b"one", "train/part-00001.parquet": b"zero"},
        {"train/part-00002.parquet": b""},
    ],
)
def test_content_id_changes_with_a_byte_a_name_or_a_file(tmp_path: Path, changed: dict[str, bytes]) -> None:
    assert content_id_of(write(tmp_path / "a", FILES)) != content_id_of(write(tmp_path / "b", FILES | changed))


def test_a_folder_without_parquet_files_has_no_content_id(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no \*\.parquet files below it"):
        content_id_of(tmp_path)


def test_content_belongs_to_the_identity_and_not_to_the_fingerprint() -> None:
    first, second = (dataclasses.replace(SCHEMA, content_id=content_id) for content_id in ("", "one"))
    assert first.fingerprint == second.fingerprint
    assert first.identity != second.identity
    renamed = dataclasses.replace(first, name="other")
    assert renamed.fingerprint != first.fingerprint
    assert renamed.identity != first.identity
    counted = dataclasses.replace(second, num_rows={"train": 1})
    assert (counted.fingerprint, counted.identity) == (second.fingerprint, second.identity)


def test_content_id_is_saved_and_a_schema_without_one_loads(tmp_path: Path) -> None:
    schema = dataclasses.replace(SCHEMA, content_id="one")
    schema.save(tmp_path)
    assert Schema.load(tmp_path) == schema
    path = tmp_path / "schema.json"
    path.write_text(path.read_text().replace(',\n  "content_id": "one"', ""))
    assert Schema.load(tmp_path) == SCHEMA
