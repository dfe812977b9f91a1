"""Files that a crash or a power cut leaves whole: written beside, flushed, and renamed into place."""

import os
from pathlib import Path


def write_durably(path: Path, content: str | bytes) -> None:
    """Replace `path` by `content`; a reader, and a machine that loses power, sees all of the old content or all of the new.

    Raises:
        OSError: the disk is full or the folder can't be written; the old content stays.
    """
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(content.encode() if isinstance(content, str) else content)
    sync_to_disk(temporary)
    temporary.replace(path)
    sync_to_disk(path.parent)


def sync_to_disk(path: Path) -> None:
    """Flush a file, or a folder's list of names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
