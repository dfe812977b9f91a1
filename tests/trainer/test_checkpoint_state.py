import os
import pickle
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from cases import CASES
from small_task import save_small, small
from tiny import build
from torch import nn
from torch.distributed.checkpoint.metadata import BytesStorageMetadata

from trainer.checkpoint import CheckpointConfig, latest_valid, load, save
from trainer.checkpoint_manifest import Manifest, entry_of, read_manifest, write_manifest
from trainer.errors import CheckpointError
from trainer.sharding import ShardingConfig


class Attack:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple:
        return os.system, (self.command,)


def reseal(path: Path) -> None:
    """Make the manifest fit again, as an attacker would."""
    manifest = read_manifest(path)
    files = {name: entry_of(path / name) for name in manifest.files}
    write_manifest(path, Manifest(step=manifest.step, world_size=manifest.world_size, plan={}, extra={}, files=files))


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    path = save_small(tmp_path, 1)
    trace = tmp_path / "code-ran"
    for payload in (Attack(f"touch {trace}"), {"state": Attack(f"touch {trace}")}):
        (path / ".metadata").write_bytes(pickle.dumps(payload))
        reseal(path)
        task, optimizer = small()
        with pytest.raises(CheckpointError, match="system"):
            load(path, module=task, optimizer=optimizer)
    pickle.loads((path / ".metadata").read_bytes())
    assert trace.exists(), "the payload is harmless, so this test shows nothing"
    assert latest_valid(tmp_path) == path


def test_metadata_with_pickled_values_or_foreign_paths_is_refused(tmp_path: Path) -> None:
    path = save_small(tmp_path, 1)
    original = (path / ".metadata").read_bytes()
    task, optimizer = small()
    metadata = pickle.loads(original)
    metadata.state_dict_metadata["model/bias"] = BytesStorageMetadata()
    with pytest.raises(CheckpointError, match="BytesStorageMetadata"):
        load(rewritten(path, metadata), module=task, optimizer=optimizer)
    metadata = pickle.loads(original)
    for place in metadata.storage_data.values():
        place.relative_path = "../elsewhere.distcp"
    with pytest.raises(CheckpointError, match="elsewhere"):
        load(rewritten(path, metadata), module=task, optimizer=optimizer)


def rewritten(path: Path, metadata: object) -> Path:
    (path / ".metadata").write_bytes(pickle.dumps(metadata))
    reseal(path)
    return path


def test_nothing_is_unpickled_without_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_small(tmp_path, 1)
    limited = []
    read = torch.load

    def watch(*arguments: object, weights_only: bool | None = None, **others: object) -> object:
        limited.append(weights_only)
        return read(*arguments, weights_only=weights_only, **others)

    monkeypatch.setattr(torch, "load", watch)
    monkeypatch.setattr(pickle, "load", lambda *_: pytest.fail("pickle.load"))
    task, optimizer = small()
    load(path, module=task, optimizer=optimizer)
    assert limited
    assert all(limited)


def test_a_checkpoint_of_another_task_is_refused_by_name(tmp_path: Path) -> None:
    path = save_small(tmp_path, 1)
    wide, wide_optimizer = small(width=4)
    with pytest.raises(CheckpointError, match=r"model/weight is \(2, 3\) there and \(2, 4\)"):
        load(path, module=wide, optimizer=wide_optimizer)
    other = nn.Sequential(nn.Linear(3, 2))
    with pytest.raises(CheckpointError, match=r"lacks .*model/0\.bias.* unknown .*model/bias"):
        load(path, module=other, optimizer=None)
    double = nn.Linear(3, 2).double()
    with pytest.raises(CheckpointError, match=r"float32 there and torch\.float64"):
        load(path, module=double, optimizer=None)


def test_row_wise_adagrad_state_of_a_column_wise_plan_is_refused_with_a_sentence(
    tmp_path: Path, one_rank: dist.ProcessGroup
) -> None:
    config = CASES["table_wise+row_wise rowwise_adagrad"][1]
    sharded, optimizer = build(ShardingConfig(default_type="row_wise"), config, one_rank)
    path = save(tmp_path, step=1, module=sharded.module, optimizer=optimizer, extra={}, config=CheckpointConfig())
    name = "optimizer/sequence.embeddings.t_item.weight/t_item.momentum1"
    metadata = pickle.loads((path / ".metadata").read_bytes())
    metadata.state_dict_metadata[name].size = torch.Size([2 * metadata.state_dict_metadata[name].size[0]])
    with pytest.raises(CheckpointError, match=r"t_item\.momentum1 is \(82,\) there and \(41,\).*RowWiseAdagrad"):
        load(rewritten(path, metadata), module=sharded.module, optimizer=optimizer)


def test_equal_states_give_equal_files_without_paths_of_this_machine(tmp_path: Path) -> None:
    paths = [save_small(tmp_path / name, 1) for name in ("here", "there")]
    for name in (".metadata", "__0_0.distcp"):
        contents = [(path / name).read_bytes() for path in paths]
        assert contents[0] == contents[1]
        assert str(tmp_path).encode() not in contents[0]
