"""The folder of a run's checkpoints: which are there, which are whole, which may go. See checkpoint.py for its layout."""

import logging
import re
import shutil
from pathlib import Path

from trainer.checkpoint_manifest import Manifest, check_files, check_sizes, read_manifest
from trainer.checkpoint_ranks import on_every_rank, on_first_rank, rank, share
from trainer.errors import CheckpointError

log = logging.getLogger(__name__)
PARTIAL = ".tmp"
STEP_NAME = re.compile(r"step-(\d{6,})")


def step_folder(folder: Path, step: int) -> Path:
    """Where the checkpoint of `step` lies."""
    return folder / f"step-{step:06d}"


def latest_valid(folder: Path) -> Path | None:
    """The newest checkpoint in `folder` whose every byte is as written; None where there is none. A collective call.

    The first rank says which there are, each rank reads its share of the files, and all get the same answer. Damaged checkpoints
    are named in the first rank's log, with the reason.
    """
    for step in on_first_rank(f"list {folder}", lambda: sorted(_steps(folder), reverse=True)):
        path = step_folder(folder, step)
        try:
            verify(path)
        except CheckpointError as error:
            if rank() == 0:
                log.warning("skipping a damaged checkpoint: %s", error)
        else:
            return path
    return None


def read_extra(path: Path) -> dict:
    """What the trainer kept in a checkpoint beside its tensors; reads the sealed manifest and nothing else. A collective call.

    Raises:
        CheckpointError: there is no such checkpoint, or its manifest is damaged or of another version.
    """
    return on_first_rank(f"read the manifest of {path}", lambda: _manifest_of(path)).extra


def verify(path: Path) -> Manifest:
    """Compare every byte of a checkpoint with its manifest, each rank its share of the files. A collective call.

    Files that this process has verified before and that have not changed since are not read again.

    Raises:
        CheckpointError: on all ranks, where one of them finds damage, or where the ranks see different folders.
    """
    manifests = on_every_rank(f"verify {path}", lambda: _verify_share(path))
    if any(manifest != manifests[0] for manifest in manifests):
        raise CheckpointError(f"{path}: the ranks read different manifests; all ranks must see one shared folder")
    return manifests[0]


def clear_the_way(folder: Path, *, target: Path) -> None:
    """Before a save: remove leftovers of crashed ones, and a damaged checkpoint in the place of `target`. For one rank.

    Raises:
        CheckpointError: `target` exists and is valid.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(f"step-*{PARTIAL}"):
        shutil.rmtree(leftover)
    if target.exists():
        try:
            manifest = read_manifest(target)
            check_files(target, manifest.files, names=manifest.files)
        except CheckpointError as error:
            log.warning("replacing a damaged checkpoint: %s", error)
            _remove(target)
        else:
            raise CheckpointError(f"{target} exists and is valid: resume from it, or train in another folder")


def remove_old(folder: Path, *, newest: int, best_step: int | None, keep_last: int) -> None:
    """After `newest` was written: keep the last ones, and the best one that each of them remembers. For one rank.

    Only complete checkpoints count as kept: a damaged one must not push out the one that a run could still go on from. Steps after
    `newest` are not looked at; the run skipped them as damaged, and writes them again when it gets there.

    Raises:
        CheckpointError: the checkpoint of `newest` is not complete; nothing has been removed then.
    """
    complete = {newest: _complete(step_folder(folder, newest))}
    damaged = {}
    for step in _steps(folder):
        try:
            if step < newest:
                complete[step] = _complete(step_folder(folder, step))
        except CheckpointError as error:
            damaged[step] = error
    last = sorted(complete)[-keep_last:]
    # a run that resumes from an older one goes on with the best step of that one
    kept = {*last, best_step, *(complete[step].best_step for step in last)}
    if best_step is not None and best_step not in complete:
        log.warning("%s", damaged.get(best_step, f"{step_folder(folder, best_step)}: the best checkpoint is gone"))
    for step in sorted(complete.keys() | damaged.keys()):
        if step not in kept:
            if step in damaged:
                log.warning("removing a damaged checkpoint: %s", damaged[step])
            _remove(step_folder(folder, step))


def _verify_share(path: Path) -> Manifest:
    manifest = _manifest_of(path)
    check_files(path, manifest.files, names=share(manifest.files))
    return manifest


def _manifest_of(path: Path) -> Manifest:
    if not path.is_dir():
        there = ", ".join(step_folder(path.parent, step).name for step in sorted(_steps(path.parent))) or "none"
        raise CheckpointError(f"{path}: no such checkpoint, it was removed or never written; checkpoints there: {there}")
    return read_manifest(path)


def _complete(path: Path) -> Manifest:
    """The manifest of a checkpoint whose files are all there, at their sizes."""
    manifest = read_manifest(path)
    check_sizes(path, manifest.files)
    return manifest


def _remove(path: Path) -> None:
    """Delete a checkpoint; the rename first, so that a crash leaves no half of it under its valid name."""
    doomed = path.with_name(path.name + PARTIAL)
    path.rename(doomed)
    shutil.rmtree(doomed)


def _steps(folder: Path) -> list[int]:
    """Steps of the completed checkpoints in `folder`."""
    found = [STEP_NAME.fullmatch(path.name) for path in folder.iterdir()] if folder.is_dir() else []
    return [int(match[1]) for match in found if match is not None]
