"""Checkpoints that are whole or not there: torch.distributed.checkpoint under a sealed manifest, committed by one rename.

    FOLDER/
      step-000120/          complete: its name without .tmp says so
        manifest.json       step, extra, and the sha256 of every other file
        .metadata           torch's table of contents
        __0_0.distcp ...    tensors, as each rank wrote them
        rng-00000.json ...  random state of each rank
      step-000180.tmp/      being written, or left by a crash: ignored, and removed by the next save

Every function here but `latest_valid` and `step_folder` is a collective call; the folder must be visible to all ranks.
"""

import json
import logging
import re
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torchrec.optim.keyed import KeyedOptimizer

from trainer.checkpoint_manifest import (
    FileEntry,
    Manifest,
    check_files,
    entry_of,
    read_manifest,
    sync_to_disk,
    write_manifest,
)
from trainer.checkpoint_state import (
    DataReader,
    DataWriter,
    check_fits,
    collect_state,
    describe_plan,
    gather_names,
    known_warnings_silenced,
    state_sha256,
)
from trainer.determinism import rng_state, set_rng_state
from trainer.errors import CheckpointError

__all__ = ["CheckpointConfig", "latest_valid", "load", "save", "state_sha256", "step_folder"]
log = logging.getLogger(__name__)
PARTIAL = ".tmp"
STEP_NAME = re.compile(r"step-(\d{6,})")
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When to save beside the evaluations, and what to keep.

    Raises:
        ValueError: a number is not positive.
    """

    every_steps: int | None = None
    """Also save after every so many optimizer steps; None: only with evaluations."""
    keep_last: int = 2
    """Newest checkpoints to keep; two, so that there is one left if the newest turns out damaged."""
    keep_best: bool = True
    """Also keep the checkpoint of the best evaluation."""

    def __post_init__(self) -> None:
        if self.every_steps is not None and self.every_steps < 1:
            raise ValueError(f"checkpoint.every_steps={self.every_steps}, expected at least 1, or None")
        if self.keep_last < 1:
            raise ValueError(f"checkpoint.keep_last={self.keep_last}, expected at least 1")


def step_folder(folder: Path, step: int) -> Path:
    """Where the checkpoint of `step` lies."""
    return folder / f"step-{step:06d}"


def save(
    folder: Path,
    *,
    step: int,
    module: nn.Module,
    optimizer: KeyedOptimizer,
    extra: dict,
    config: CheckpointConfig,
    best_step: int | None = None,
) -> Path:
    """Write the checkpoint of `step`, then remove those that `config` no longer keeps; returns its folder.

    Everything is on the disk before the rename makes the checkpoint visible: a crash at any moment, or an error here, leaves the
    older checkpoints as they were.

    Args:
        folder: holds all checkpoints of a run; created if need be.
        step: optimizer steps done.
        module: the sharded task.
        optimizer: from optim.build_optimizer.
        extra: JSON values to keep: loader position, best metric, fingerprints.
        config: what to keep.
        best_step: step of the best evaluation so far, for `config.keep_best`.

    Raises:
        CheckpointError: a valid checkpoint of `step` exists already, or a rank could not write.
    """
    target = step_folder(folder, step)
    partial = target.with_name(target.name + PARTIAL)
    state = collect_state(module, optimizer)
    _on_first_rank(f"prepare {partial}", lambda: _prepare(folder, target=target, partial=partial))
    try:
        with known_warnings_silenced():
            dcp.save(state, storage_writer=DataWriter(partial, sync_files=True), no_dist=not dist.is_initialized())
    except (dcp.api.CheckpointException, OSError, RuntimeError) as error:
        raise CheckpointError(f"{partial}: writing tensors failed: {error}; older checkpoints are untouched") from error
    _on_every_rank(f"write {partial}", lambda: _write_rng(partial))
    entries = _on_every_rank(f"hash {partial}", lambda: _seal_share(partial))
    files = {name: entry for share in entries for name, entry in share.items()}
    manifest = Manifest(step=step, world_size=_world_size(), plan=describe_plan(state), extra=extra, files=files)
    _on_first_rank(f"commit {target}", lambda: _commit(partial, target=target, manifest=manifest))
    _on_first_rank(f"clean {folder}", lambda: _remove_old(folder, newest=step, best_step=best_step, config=config))
    return target


def latest_valid(folder: Path) -> Path | None:
    """The newest checkpoint in `folder` whose every byte is as written; None where there is none.

    Reads all of it. Damaged ones are named in the log, with the reason.
    """
    for step in sorted(_steps(folder), reverse=True):
        path = step_folder(folder, step)
        try:
            _verify(path)
        except CheckpointError as error:
            log.warning("skipping a damaged checkpoint: %s", error)
        else:
            return path
    return None


def load(path: Path, *, module: nn.Module, optimizer: KeyedOptimizer | None) -> dict:
    """Verify a checkpoint, read it into `module` and `optimizer`, and return its `extra`.

    World size and plan may differ from those that wrote it. Each rank's random state comes back where the world size is the same.

    Args:
        path: a step's folder.
        module: the sharded task; its weights are overwritten.
        optimizer: from optim.build_optimizer; None: weights only.

    Raises:
        CheckpointError: a file is damaged (nothing has been read then), or the checkpoint is of another task.
    """
    manifest = _on_every_rank(f"verify {path}", lambda: _verify_share(path))[0]
    reader = DataReader(path, files=manifest.files)
    state = collect_state(module, optimizer)
    names = gather_names(state)
    _on_every_rank(f"read {path}", lambda: check_fits(state, reader.read_metadata(), all_names=names, path=path))
    try:
        with known_warnings_silenced():
            dcp.load(state, storage_reader=reader, no_dist=not dist.is_initialized())
    except (dcp.api.CheckpointException, OSError, RuntimeError) as error:
        raise CheckpointError(f"{path}: reading tensors failed: {error}; this process's weights are now a mixture") from error
    if optimizer is not None:
        # fused Adam counts its steps inside the kernel
        optimizer.set_optimizer_step(manifest.step)
    if manifest.world_size == _world_size():
        set_rng_state(json.loads((path / _rng_name(_rank())).read_text()))
    else:
        log.info("%s was written by %d rank(s): random states are not restored on %d", path, manifest.world_size, _world_size())
    return manifest.extra


def _prepare(folder: Path, *, target: Path, partial: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(f"step-*{PARTIAL}"):
        shutil.rmtree(leftover)
    if target.exists():
        try:
            _verify(target)
        except CheckpointError as error:
            log.warning("replacing a damaged checkpoint: %s", error)
            _remove(target)
        else:
            raise CheckpointError(f"{target} exists and is valid: resume from it, or train in another folder")
    partial.mkdir()


def _write_rng(partial: Path) -> None:
    (partial / _rng_name(_rank())).write_text(json.dumps(rng_state()))


def _seal_share(partial: Path) -> dict[str, FileEntry]:
    """Flush and hash this rank's share of the files."""
    entries = {}
    for name in _share(path.name for path in partial.iterdir()):
        sync_to_disk(partial / name)
        entries[name] = entry_of(partial / name)
    return entries


def _commit(partial: Path, *, target: Path, manifest: Manifest) -> None:
    write_manifest(partial, manifest)
    sync_to_disk(partial)
    partial.rename(target)
    sync_to_disk(target.parent)


def _remove_old(folder: Path, *, newest: int, best_step: int | None, config: CheckpointConfig) -> None:
    """Keep the newest ones, the best one, and in any case the one just written."""
    steps = sorted(_steps(folder))
    kept = {newest, *steps[-config.keep_last :]} | ({best_step} if config.keep_best else set())
    for step in steps:
        if step not in kept:
            _remove(step_folder(folder, step))


def _remove(path: Path) -> None:
    """Delete a checkpoint; the rename first, so that a crash leaves no half of it under its valid name."""
    doomed = path.with_name(path.name + PARTIAL)
    path.rename(doomed)
    shutil.rmtree(doomed)


def _verify(path: Path) -> Manifest:
    manifest = read_manifest(path)
    check_files(path, manifest.files, names=manifest.files)
    return manifest


def _verify_share(path: Path) -> Manifest:
    """Check the seal, and the bytes of this rank's share of the files."""
    manifest = read_manifest(path)
    check_files(path, manifest.files, names=_share(manifest.files))
    return manifest


def _share(names: Iterable[str]) -> list[str]:
    return sorted(names)[_rank() :: _world_size()]


def _steps(folder: Path) -> list[int]:
    """Steps of the completed checkpoints in `folder`."""
    found = [STEP_NAME.fullmatch(path.name) for path in folder.iterdir()] if folder.is_dir() else []
    return [int(match[1]) for match in found if match is not None]


def _rng_name(rank: int) -> str:
    return f"rng-{rank:05d}.json"


def _rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def _world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def _on_first_rank(what: str, action: Callable[[], None]) -> None:
    """Run `action` on the first rank while the others wait; an error there is raised everywhere."""
    _on_every_rank(what, action if _rank() == 0 else lambda: None)


def _on_every_rank(what: str, action: Callable[[], Result]) -> list[Result]:
    """Run `action` on every rank and return all results; an error on any rank is raised on all, so that none waits for ever."""
    results: list[Result] = []
    problem = ""
    try:
        results.append(action())
    except (CheckpointError, OSError) as error:
        problem = str(error)
    mine = (results, problem)
    outcomes = [mine] * _world_size()
    if dist.is_initialized():
        dist.all_gather_object(outcomes, mine)
    for rank, (_, problem) in enumerate(outcomes):
        if problem:
            raise CheckpointError(f"{problem} (rank {rank}, trying to {what})")
    return [result for own, _ in outcomes for result in own]
