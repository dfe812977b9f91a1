"""Checkpoints that are whole or not there: torch.distributed.checkpoint under a sealed manifest, committed by one rename.

    FOLDER/
      step-000120/          complete: its name without .tmp says so
        manifest.json       step, extra, and the sha256 of every other file
        .metadata           torch's table of contents
        __0_0.distcp ...    tensors, as each rank wrote them
        rng-00000.json ...  random state of each rank
      step-000180.tmp/      being written, or left by a crash: ignored, and removed by the next save

Every function here but `step_folder` is a collective call; the folder must be visible to all ranks. One run at a time may write it:
see run_lock.
"""

import json
import logging
from dataclasses import dataclass
from pathlib import Path

import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torchrec.optim.keyed import KeyedOptimizer

from trainer.checkpoint_folder import PARTIAL, clear_the_way, latest_valid, read_extra, remove_old, step_folder, verify
from trainer.checkpoint_manifest import FileEntry, Manifest, entry_of, write_manifest
from trainer.checkpoint_ranks import on_every_rank, on_first_rank, rank, share, world_size
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
from trainer.determinism import first_seed, rng_state, seed_again, set_rng_state
from trainer.durable_file import sync_to_disk
from trainer.errors import CheckpointError

__all__ = ["CheckpointConfig", "latest_valid", "load", "read_extra", "save", "state_sha256", "step_folder"]
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When to save beside the evaluations, and what to keep.

    Raises:
        ValueError: a number is not positive.
    """

    every_steps: int | None = None
    """Also save after every so many optimizer steps; None: only with evaluations."""
    keep_last: int = 2
    """Newest checkpoints to keep; two, so that there is one left if the newest turns out damaged. The best one is kept beside."""

    def __post_init__(self) -> None:
        if self.every_steps is not None and self.every_steps < 1:
            raise ValueError(f"checkpoint.every_steps={self.every_steps}, expected at least 1, or None")
        if self.keep_last < 1:
            raise ValueError(f"checkpoint.keep_last={self.keep_last}, expected at least 1")


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
    older checkpoints as they were. The best one is never removed, nor the one that was the best for a checkpoint that is kept.

    Args:
        folder: holds all checkpoints of a run; created if need be.
        step: optimizer steps done.
        module: the sharded task.
        optimizer: from optim.build_optimizer.
        extra: JSON values to keep: loader position, best metric, fingerprints.
        config: what to keep.
        best_step: step of the best evaluation so far, this one included; None before the first.

    Raises:
        CheckpointError: a valid checkpoint of `step` exists already, or a rank could not write.
    """
    target = step_folder(folder, step)
    partial = target.with_name(target.name + PARTIAL)
    state = collect_state(module, optimizer)
    on_first_rank(f"prepare {partial}", lambda: _prepare(folder, target=target, partial=partial))
    try:
        with known_warnings_silenced():
            dcp.save(state, storage_writer=DataWriter(partial, sync_files=True), no_dist=not dist.is_initialized())
    except (dcp.api.CheckpointException, OSError) as error:  # a lost rank is neither, and no reason not to start again
        raise CheckpointError(f"{partial}: writing tensors failed: {error}; older checkpoints are untouched") from error
    on_every_rank(f"write {partial}", lambda: _write_rng(partial))
    entries = on_every_rank(f"hash {partial}", lambda: _seal_share(partial))
    files = {name: entry for own in entries for name, entry in own.items()}
    plan = describe_plan(state)
    manifest = Manifest(step=step, world_size=world_size(), plan=plan, extra=extra, files=files, best_step=best_step)
    on_first_rank(f"commit {target}", lambda: _commit(partial, target=target, manifest=manifest))
    keep = config.keep_last
    on_first_rank(f"clean {folder}", lambda: remove_old(folder, newest=step, best_step=best_step, keep_last=keep))
    return target


def load(path: Path, *, module: nn.Module, optimizer: KeyedOptimizer | None) -> dict:
    """Verify a checkpoint, read it into `module` and `optimizer`, and return its `extra`.

    World size and plan may differ from those that wrote it. Each rank's random state comes back where the world size is the same;
    on another one the generators start anew, from the run's seed, the rank and the step, and a warning says so.

    Args:
        path: a step's folder.
        module: the sharded task; its weights are overwritten.
        optimizer: from optim.build_optimizer; None: weights only, and random states stay as they are.

    Raises:
        CheckpointError: it is gone or a file is damaged (nothing has been read then), or it is of another task.
    """
    manifest = verify(path)
    reader = DataReader(path, files=manifest.files)
    state = collect_state(module, optimizer)
    names = gather_names(state)
    on_every_rank(f"read {path}", lambda: check_fits(state, reader.read_metadata(), all_names=names, path=path))
    try:
        with known_warnings_silenced():
            dcp.load(state, storage_reader=reader, no_dist=not dist.is_initialized())
    except (dcp.api.CheckpointException, OSError) as error:
        raise CheckpointError(f"{path}: reading tensors failed: {error}; this process's weights are now a mixture") from error
    if optimizer is not None:
        # fused Adam counts its steps inside the kernel
        optimizer.set_optimizer_step(manifest.step)
        on_every_rank(f"restore random numbers of {path}", lambda: _restore_rng(path, manifest))
    return manifest.extra


def _prepare(folder: Path, *, target: Path, partial: Path) -> None:
    clear_the_way(folder, target=target)
    partial.mkdir()


def _write_rng(partial: Path) -> None:
    (partial / _rng_name(rank())).write_text(json.dumps(rng_state()))


def _seal_share(partial: Path) -> dict[str, FileEntry]:
    """Flush and hash this rank's share of the files."""
    entries = {}
    for name in share(path.name for path in partial.iterdir()):
        sync_to_disk(partial / name)
        entries[name] = entry_of(partial / name)
    return entries


def _commit(partial: Path, *, target: Path, manifest: Manifest) -> None:
    write_manifest(partial, manifest)
    sync_to_disk(partial)
    partial.rename(target)
    sync_to_disk(target.parent)


def _restore_rng(path: Path, manifest: Manifest) -> None:
    same = manifest.world_size == world_size()
    file = path / _rng_name(rank() if same else 0)
    try:
        stored = json.loads(file.read_text())
        if same:
            set_rng_state(stored)
            return
        seed = first_seed(stored)
    except (ValueError, TypeError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"{file}: not the random state of a rank ({error!r}); it is of another version") from error
    seed_again(seed, rank=rank(), step=manifest.step)
    if rank() == 0:
        counts = f"{manifest.world_size} rank(s) wrote {path.name}, {world_size()} read it"
        log.warning("%s: random numbers (dropout) start anew from seed %d, the rank and step %d", counts, seed, manifest.step)


def _rng_name(rank: int) -> str:
    return f"rng-{rank:05d}.json"
