"""The file that makes a checkpoint trustworthy: names, sizes and sha256 of everything in its folder, sealed by its own sha256."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from trainer.errors import CheckpointError

FORMAT_VERSION = 1
FILE_NAME = "manifest.json"
READ_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    """What one file must be."""

    size: int
    """Bytes."""
    sha256: str
    """Hexadecimal digest of its content."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything about a checkpoint but its tensors."""

    step: int
    """Optimizer steps done."""
    world_size: int
    """Ranks that wrote it."""
    plan: dict[str, str]
    """Where each table's weight lived, for people."""
    extra: dict
    """What the trainer asked to keep (JSON values)."""
    files: dict[str, FileEntry]
    """Every other file of the folder, by name."""


def entry_of(path: Path) -> FileEntry:
    """Size and sha256 of a file."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(READ_BYTES):
            digest.update(chunk)
            size += len(chunk)
    return FileEntry(size=size, sha256=digest.hexdigest())


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `folder`/manifest.json and flush it to the disk.

    Raises:
        CheckpointError: `manifest.extra` holds something that is not JSON.
    """
    try:
        content = _canonical(asdict(manifest) | {"format_version": FORMAT_VERSION})
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{folder}: extra must hold JSON values only: {error}") from error
    path = folder / FILE_NAME
    path.write_bytes(content)
    sync_to_disk(path)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a checkpoint folder, after checking its seal; any changed byte is noticed.

    Raises:
        CheckpointError: it is missing, damaged, or of another format version.
    """
    path = folder / FILE_NAME
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}; the checkpoint was never completed") from error
    try:
        content = json.loads(raw)
        content.pop("seal")
        sealed = _canonical(content) == raw
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{path}: not a manifest ({error!r}); the file is damaged") from error
    if not sealed:
        raise CheckpointError(f"{path}: does not match its own sha256; the file is damaged")
    version = content.pop("format_version", None)
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: format_version={version}, this program reads {FORMAT_VERSION}; use the program that wrote it"
        )
    content["files"] = {name: FileEntry(**entry) for name, entry in content["files"].items()}
    return Manifest(**content)


def check_files(folder: Path, files: Mapping[str, FileEntry], *, names: Iterable[str]) -> None:
    """Read the named files and compare them with the manifest.

    Raises:
        CheckpointError: a file is missing or its size or sha256 is another; the message names it.
    """
    for name in names:
        expected = files[name]
        path = folder / name
        try:
            size = path.stat().st_size
            found = entry_of(path) if size == expected.size else FileEntry(size=size, sha256="")
        except OSError as error:
            raise CheckpointError(f"{path}: {error.strerror or error}, but the manifest lists it") from error
        if found.size != expected.size:
            raise CheckpointError(f"{path}: {found.size} bytes, but the manifest says {expected.size}; the file is damaged")
        if found.sha256 != expected.sha256:
            raise CheckpointError(f"{path}: sha256 {found.sha256[:12]}…, but the manifest says {expected.sha256[:12]}…; damaged")


def sync_to_disk(path: Path) -> None:
    """Flush a file, or a folder's list of names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _canonical(content: dict) -> bytes:
    """The one byte string for `content`: compared byte by byte, so that no changed space or digit passes."""
    body = json.dumps(content, sort_keys=True, indent=1, allow_nan=True)
    seal = hashlib.sha256(body.encode()).hexdigest()
    return (json.dumps(content | {"seal": seal}, sort_keys=True, indent=1, allow_nan=True) + "\n").encode()
