"""A folder that appears whole, flushed to the disk, or not at all."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from trainer.durable_file import sync_to_disk
from trainer.errors import UserError
from trainer.export.manifest import FILE_NAME


@contextlib.contextmanager
def staged_artefact(out: Path, *, overwrite: bool) -> Iterator[Path]:
    """A temporary sibling of `out` to write into; renamed to `out` when the block ends well, removed when it raises.

    Raises:
        UserError: `out` exists and `overwrite` is off, or it is no artefact, or a link.
    """
    if out.is_symlink():
        raise UserError(
            f"--out {out} is a link; export to a new folder, then move the link there (ln -sfn), so that no server sees a gap"
        )
    if out.exists() and not overwrite:
        raise UserError(f"--out {out} exists; choose a new folder (a server can be moved to it by a symlink), or pass --overwrite")
    if out.exists() and not (out / FILE_NAME).is_file():
        raise UserError(f"--out {out} holds no {FILE_NAME}, so it is no artefact; --overwrite refuses to delete it")
    staged, replaced = out.with_name(f".{out.name}.partial"), out.with_name(f".{out.name}.replaced")
    for leftover in (staged, replaced):
        shutil.rmtree(leftover, ignore_errors=True)  # of an export that was killed
    staged.mkdir(parents=True)
    try:
        yield staged
        for path in sorted(staged.rglob("*"), reverse=True):
            sync_to_disk(path)
        sync_to_disk(staged)
    except BaseException:
        shutil.rmtree(staged)
        raise
    if out.exists():
        out.rename(replaced)
    staged.rename(out)
    sync_to_disk(out.parent)
    shutil.rmtree(replaced, ignore_errors=True)
