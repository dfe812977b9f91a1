"""The file that makes a checkpoint trustworthy: names, sizes and sha256 of everything in its folder, sealed by its own sha256."""

import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from trainer.durable_file import sync_to_disk
from trainer.errors import CheckpointError

FORMAT_VERSION = 1
FILE_NAME = "manifest.json"
READ_BYTES = 1 << 20
SETTLED_SECONDS = 2.0
"""A file that changed so recently may change again without a new time stamp: the coarsest clocks of file systems."""


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
    best_step: int | None = None
    """Step of the best evaluation before or at `step`; its checkpoint is kept as long as this one is."""


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
    try:
        content["files"] = {name: FileEntry(**entry) for name, entry in content["files"].items()}
        manifest = Manifest(**content)
    except (TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{path}: its fields are not those of format_version {FORMAT_VERSION} ({error}); refused") from error
    if not isinstance(manifest.step, int) or not isinstance(manifest.world_size, int) or not isinstance(manifest.extra, dict):
        raise CheckpointError(f"{path}: step and world_size must be whole numbers and extra an object; refused")
    outside = [name for name in manifest.files if Path(name).name != name]
    if outside:
        raise CheckpointError(f"{path}: lists {outside[0]!r}, which is no file of its folder; refused")
    return manifest


def check_files(folder: Path, files: Mapping[str, FileEntry], *, names: Iterable[str]) -> None:
    """Read the named files and compare them with the manifest, but for those that were read before and have not changed since.

    Raises:
        CheckpointError: a file is missing or its size or sha256 is another; the message names it.
    """
    for name in names:
        path, expected = folder / name, files[name]
        check_sizes(folder, {name: expected})
        before = _stamp(path)
        if _verified.get(path.absolute()) == (expected, before):
            continue
        found = entry_of(path)
        if found != expected:
            raise CheckpointError(f"{path}: sha256 {found.sha256[:12]}…, but the manifest says {expected.sha256[:12]}…; damaged")
        changed_ns = max(before.modified_ns, before.status_changed_ns)
        if time.time_ns() - changed_ns > SETTLED_SECONDS * 1e9 and _stamp(path) == before:
            _verified[path.absolute()] = (expected, before)


def check_sizes(folder: Path, files: Mapping[str, FileEntry]) -> None:
    """Compare the sizes of `files` with the manifest; nothing is read.

    Raises:
        CheckpointError: a file is missing or its size is another; the message names it.
    """
    for name, expected in files.items():
        path = folder / name
        try:
            size = path.stat().st_size
        except OSError as error:
            raise CheckpointError(f"{path}: {error.strerror or error}, but the manifest lists it") from error
        if size != expected.size:
            raise CheckpointError(f"{path}: {size} bytes, but the manifest says {expected.size}; the file is damaged")


class _Stamp(NamedTuple):
    """What changes when a file does."""

    device: int
    inode: int
    size: int
    modified_ns: int
    status_changed_ns: int


_verified: dict[Path, tuple[FileEntry, _Stamp]] = {}
"""Files that this process has read and found right: what was expected of them, and their stamp at the time.

So that a resume, which looks for the newest valid checkpoint and then loads it, reads it once for both.
"""


def _stamp(path: Path) -> _Stamp:
    status = path.stat()
    return _Stamp(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _canonical(content: dict) -> bytes:
    """The one byte string for `content`: compared byte by byte, so that no changed space or digit passes."""
    body = json.dumps(content, sort_keys=True, indent=1, allow_nan=True)
    seal = hashlib.sha256(body.encode()).hexdigest()
    return (json.dumps(content | {"seal": seal}, sort_keys=True, indent=1, allow_nan=True) + "\n").encode()
