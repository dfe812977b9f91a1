"""Tensors of a task and its optimizer under one flat set of names, and a checkpoint reader that runs no code."""

import hashlib
import pickle
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed._shard.sharded_tensor import ShardedTensor
from torch.distributed.checkpoint import FileSystemReader, FileSystemWriter, Metadata
from torch.distributed.checkpoint.metadata import StorageMeta, TensorStorageMetadata
from torchrec.optim.keyed import KeyedOptimizer

from trainer.errors import CheckpointError

Value = torch.Tensor | ShardedTensor
METADATA_FILE = ".metadata"
DIGEST_BLOCK_ROWS = 65_536
"""Rows of a tensor that state_sha256 holds at a time."""

_ALLOWED_CLASSES = {
    "torch.distributed.checkpoint.metadata": {
        "Metadata",
        "MetadataIndex",
        "ChunkStorageMetadata",
        "TensorStorageMetadata",
        "TensorProperties",
        "StorageMeta",
        "_MEM_FORMAT_ENCODING",
    },
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch.serialization": {"_get_layout"},
    "torch": {"Size", *(str(dtype).removeprefix("torch.") for dtype in vars(torch).values() if isinstance(dtype, torch.dtype))},
}
"""Everything that the metadata of a checkpoint of tensors names; all of it is data."""


class DataWriter(FileSystemWriter):
    """FileSystemWriter that records neither absolute paths nor random ids, so that equal states give equal metadata."""

    def storage_meta(self) -> StorageMeta:
        """An empty description of where the checkpoint was written."""
        return StorageMeta()


class DataReader(FileSystemReader):
    """FileSystemReader that only builds data: no pickled code, no file that the manifest does not list.

    Args:
        folder: the checkpoint, already verified against its manifest.
        files: names that the manifest lists.
    """

    def __init__(self, folder: Path, *, files: Collection[str]) -> None:
        super().__init__(folder)
        self._folder, self._files = folder, frozenset(files)

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:  # noqa: ARG002  (torch's signature)
        """The checkpoint's metadata, holding tensors only.

        Raises:
            CheckpointError: it names anything but the known data classes, has pickled values, or points outside the folder.
        """
        path = self._folder / METADATA_FILE
        try:
            with path.open("rb") as file:
                metadata = _DataUnpickler(file).load()
        except (OSError, pickle.UnpicklingError, EOFError, AttributeError, TypeError, ValueError, IndexError, KeyError) as error:
            raise CheckpointError(f"{path}: {error}; refused") from error
        if not isinstance(metadata, Metadata) or metadata.storage_data is None:
            raise CheckpointError(f"{path}: holds {type(metadata).__name__}, expected the metadata of a checkpoint")
        for name, entry in metadata.state_dict_metadata.items():
            if not isinstance(entry, TensorStorageMetadata):
                raise CheckpointError(f"{path}: {name} is {type(entry).__name__}, and only tensors are read; refused")
        for place in metadata.storage_data.values():
            if place.relative_path not in self._files or place.transform_descriptors:
                raise CheckpointError(f"{path}: points to {place.relative_path!r}, which the manifest does not list; refused")
        metadata.storage_meta = StorageMeta(load_id=self.load_id)
        return metadata


class _DataUnpickler(pickle.Unpickler):
    """Builds only the classes of a checkpoint's metadata."""

    def find_class(self, module: str, name: str) -> Any:
        if name not in _ALLOWED_CLASSES.get(module, ()):
            raise pickle.UnpicklingError(f"pickle names {module}.{name}, which is no part of a checkpoint's metadata")
        return super().find_class(module, name)


def collect_state(module: nn.Module, optimizer: KeyedOptimizer | None) -> dict[str, Value]:
    """The live tensors of a task and, where given, of its optimizer; writing into them changes the task.

    Names: `model/<parameter>`, `optimizer/<parameter>/<state>`; the same for every plan.

    Raises:
        CheckpointError: something in the state is not a tensor.
    """
    state: dict[str, Any] = {f"model/{name}": value for name, value in module.state_dict().items()}
    if optimizer is not None:
        for parameter, values in optimizer.state_dict()["state"].items():
            state |= {f"optimizer/{parameter}/{name}": value for name, value in values.items()}
    for name, value in state.items():
        if not isinstance(value, Value):
            raise CheckpointError(f"{name} is a {type(value).__name__}; checkpoints hold tensors only, keep it in `extra`")
    return state


def check_fits(state: Mapping[str, Value], metadata: Metadata, *, all_names: Collection[str], path: Path) -> None:
    """Compare names, shapes and types of a checkpoint with the task that is to take it.

    Args:
        state: this rank's tensors.
        metadata: of the checkpoint.
        all_names: names on all ranks; a fused optimizer's state exists only where its table has a shard.
        path: the checkpoint, for the message.

    Raises:
        CheckpointError: they differ; the message names what differs.
    """
    stored = metadata.state_dict_metadata
    with_optimizer = any(name.startswith("optimizer/") for name in all_names)
    missing = sorted(all_names - stored.keys())
    unknown = sorted(name for name in stored.keys() - all_names if with_optimizer or name.startswith("model/"))
    if missing or unknown:
        hint = "; the weights fit, so it is the tables' optimizer or their sharding that differs" * _only_optimizer(
            missing + unknown
        )
        raise CheckpointError(f"{path}: does not fit this task: it lacks {_some(missing)} and has unknown {_some(unknown)}{hint}")
    for name, value in state.items():
        entry = stored[name]
        shape, dtype = _shape_and_dtype(value)
        if shape != tuple(entry.size):
            note = ""
            if name.endswith(".momentum1"):
                note = "; RowWiseAdagrad's state can't move between row-wise and column-wise plans: keep the plan that wrote it"
            raise CheckpointError(f"{path}: {name} is {tuple(entry.size)} there and {shape} in this task{note}")
        if dtype != entry.properties.dtype:
            raise CheckpointError(f"{path}: {name} is {entry.properties.dtype} there and {dtype} in this task")


def state_sha256(module: nn.Module, optimizer: KeyedOptimizer | None = None) -> str:
    """sha256 over every tensor of the task and, where given, its optimizer, in full and in a fixed order; equal on every rank.

    Weights hash equally for every plan and world size; so does optimizer state, where the plans update tables in the same way. A
    collective call: the first rank sees sharded tensors a block of rows at a time.
    """
    state = collect_state(module, optimizer)
    digest = hashlib.sha256()
    for name, (shape, dtype, is_sharded) in sorted(_describe_everywhere(state).items()):
        digest.update(f"{name} {dtype} {shape}\n".encode())
        value = state.get(name)
        for block in _sharded_blocks(value, shape, dtype) if is_sharded else _own_blocks(value):
            digest.update(block.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    answer = [digest.hexdigest()]
    if dist.is_initialized():
        dist.broadcast_object_list(answer, src=0)
    return answer[0]


def gather_names(state: Mapping[str, Value]) -> set[str]:
    """Names of the tensors on all ranks; a collective call."""
    names: list[list[str]] = [list(state)]
    if dist.is_initialized():
        names = [[]] * dist.get_world_size()
        dist.all_gather_object(names, list(state))
    return {name for share in names for name in share}


@contextmanager
def known_warnings_silenced() -> Iterator[None]:
    """Silence what torch.distributed.checkpoint says about things that are as they should be."""
    with warnings.catch_warnings():
        # TorchRec hands out ShardedTensor; torch repeats its advice to prefer DTensor at each use
        warnings.filterwarnings("ignore", message="Please use DTensor instead", category=FutureWarning)
        # a single process without a process group is asked for
        warnings.filterwarnings("ignore", message="torch.distributed is disabled", category=UserWarning)
        yield


def describe_plan(state: Mapping[str, Value]) -> dict[str, str]:
    """Shards of every sharded weight, as text: `rank:0 [2000, 16] at [0, 0] | …`."""
    plan = {}
    for name, value in state.items():
        if name.startswith("model/") and isinstance(value, ShardedTensor):
            shards = value.metadata().shards_metadata
            plan[name.removeprefix("model/")] = " | ".join(
                f"rank:{shard.placement.rank()} {list(shard.shard_sizes)} at {list(shard.shard_offsets)}" for shard in shards
            )
    return plan


def _describe_everywhere(state: Mapping[str, Value]) -> dict[str, tuple[tuple[int, ...], torch.dtype, bool]]:
    """Shape, type and whether it is sharded, of the tensors on all ranks; a collective call."""
    here = {name: (*_shape_and_dtype(value), isinstance(value, ShardedTensor)) for name, value in state.items()}
    everywhere = [here]
    if dist.is_initialized():
        everywhere = [{}] * dist.get_world_size()
        dist.all_gather_object(everywhere, here)
    return {name: entry for share in everywhere for name, entry in share.items()}


def _own_blocks(value: Value | None) -> Iterator[torch.Tensor]:
    """Blocks of rows of a tensor that is the same on every rank; none but on the first, whose digest is the one that counts."""
    if value is not None and (not dist.is_initialized() or dist.get_rank() == 0):
        yield from value.split(DIGEST_BLOCK_ROWS) if value.dim() > 0 else (value,)


def _sharded_blocks(value: Value | None, shape: tuple[int, ...], dtype: torch.dtype) -> Iterator[torch.Tensor]:
    """Blocks of rows of a sharded tensor, whole on the first rank; every rank takes part, also one without a shard of it."""
    device = torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")
    shards = value.local_shards() if isinstance(value, ShardedTensor) else []
    for start in range(0, shape[0], DIGEST_BLOCK_ROWS):
        block = torch.zeros((min(DIGEST_BLOCK_ROWS, shape[0] - start), *shape[1:]), dtype=dtype, device=device)
        for shard in shards:
            first, *columns = shard.metadata.shard_offsets
            rows = slice(max(start - first, 0), max(start + block.shape[0] - first, 0))
            part = shard.tensor.detach()[rows]
            places = [slice(column, column + width) for column, width in zip(columns, part.shape[1:], strict=True)]
            low = max(first - start, 0)
            block[(slice(low, low + part.shape[0]), *places)] = part
        # one rank has each value and the others have zero bytes, so that their sum is the value, to the bit
        dist.reduce(block.view(torch.uint8), dst=0)
        yield block


def _shape_and_dtype(value: Value) -> tuple[tuple[int, ...], torch.dtype]:
    if isinstance(value, ShardedTensor):
        return tuple(value.metadata().size), value.metadata().tensor_properties.dtype
    return tuple(value.shape), value.dtype


def _only_optimizer(names: list[str]) -> bool:
    return all(name.startswith("optimizer/") for name in names)


def _some(names: list[str]) -> str:
    if not names:
        return "nothing"
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
