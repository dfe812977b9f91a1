import dataclasses
import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from cases import CASES
from small_task import save_small, small
from tiny import build, train
from torch import nn

from trainer import checkpoint
from trainer.checkpoint import CheckpointConfig, latest_valid, load, save, state_sha256, step_folder
from trainer.checkpoint_manifest import entry_of, read_manifest, write_manifest
from trainer.errors import CheckpointError
from trainer.optim import OptimizerConfig
from trainer.sharding import ShardingConfig

ADAM = OptimizerConfig(learning_rate=0.01, sparse="adam", sparse_learning_rate=0.1)
ADAGRAD = CASES["row_wise+row_wise adagrad"][1]
REPLICATED = ShardingConfig(kind="replicated")


@pytest.mark.parametrize(("sharding", "config"), [(REPLICATED, ADAM), (ShardingConfig(default_type="row_wise"), ADAGRAD)])
def test_a_resumed_run_repeats_the_uninterrupted_one_bit_by_bit(
    sharding: ShardingConfig, config: OptimizerConfig, tmp_path: Path, one_rank: dist.ProcessGroup
) -> None:
    sharded, optimizer = build(sharding, config, one_rank)
    train(sharded, optimizer, config, steps=range(8))
    path = save(tmp_path, step=8, module=sharded.module, optimizer=optimizer, extra={"epoch": 3}, config=CheckpointConfig())
    digest = state_sha256(sharded.module, optimizer)
    losses = train(sharded, optimizer, config, steps=range(8, 14))
    again, again_optimizer = build(sharding, config, one_rank, seed=77)
    assert load(path, module=again.module, optimizer=again_optimizer) == {"epoch": 3}
    assert state_sha256(again.module, again_optimizer) == digest
    assert train(again, again_optimizer, config, steps=range(8, 14)) == losses
    forgetful, fresh_optimizer = build(sharding, config, one_rank, seed=78)
    load(path, module=forgetful.module, optimizer=None)
    assert state_sha256(forgetful.module) == state_sha256(build_like(sharding, config, one_rank, path))
    assert train(forgetful, fresh_optimizer, config, steps=range(8, 14)) != losses


def build_like(sharding: ShardingConfig, config: OptimizerConfig, group: dist.ProcessGroup, path: Path) -> nn.Module:
    sharded, optimizer = build(sharding, config, group)
    load(path, module=sharded.module, optimizer=optimizer)
    return sharded.module


def test_two_ranks_continue_what_one_process_saved(on_two_ranks: dict) -> None:
    results, alone = on_two_ranks["checkpoints"], on_two_ranks["alone"]
    assert results["extra"] == {"a": [1]}
    assert results["from_one"] == alone["saved"]
    assert results["losses_from_one"] == pytest.approx(alone["losses"], rel=1e-6)


def test_one_process_continues_what_two_ranks_saved(on_two_ranks: dict, one_rank: dist.ProcessGroup) -> None:
    results = on_two_ranks["checkpoints"]
    sharded, optimizer = build(ShardingConfig(default_type="row_wise"), ADAGRAD, one_rank, seed=50)
    load(step_folder(on_two_ranks["folder"] / "two", 14), module=sharded.module, optimizer=optimizer)
    assert state_sha256(sharded.module, optimizer) == results["saved"]
    assert train(sharded, optimizer, ADAGRAD, steps=range(14, 18)) == pytest.approx(results["losses"], rel=1e-6)


def test_two_ranks_resume_bit_by_bit_and_move_between_row_wise_and_table_wise(on_two_ranks: dict) -> None:
    results = on_two_ranks["checkpoints"]
    assert results["rng_restored"]
    assert results["losses_again"] == results["losses"]
    assert results["moved"] == results["saved"]
    assert results["losses_moved"] == pytest.approx(results["losses"], rel=1e-6)
    assert results["table_wise_to_row_wise"]


def test_two_ranks_search_and_load_reading_each_file_once_between_them(on_two_ranks: dict) -> None:
    files = [path.name for path in step_folder(on_two_ranks["folder"] / "one", 10).iterdir() if path.name != "manifest.json"]
    assert sorted(on_two_ranks["checkpoints"]["read_for_resume"]) == sorted(files)
    assert len(files) > 2


def test_ranks_agree_on_the_latest_valid_checkpoint_where_only_one_of_them_meets_damage(on_two_ranks: dict) -> None:
    assert on_two_ranks["checkpoints"]["damage_for_one_rank"] == "step-000014"


def test_a_failure_on_one_rank_is_raised_on_all_and_leaves_the_older_checkpoint(on_two_ranks: dict) -> None:
    assert on_two_ranks["checkpoints"]["one_rank_fails"] == {"told": True, "latest": "step-000018"}


def test_a_save_killed_before_any_of_its_file_operations_leaves_a_valid_checkpoint(
    run_ranks: Callable[..., None], tmp_path: Path
) -> None:
    run_ranks("killed_saves", str(tmp_path), folder=tmp_path, world_size=1)
    found = json.loads((tmp_path / "found.json").read_text())
    assert len(found) > 15
    assert found == sorted(found)
    assert set(found) == {1, 2}


@pytest.mark.parametrize("name", [".metadata", "__0_0.distcp", "rng-00000.json"])
def test_a_changed_missing_or_cut_file_is_named_and_nothing_is_read(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = save_small(tmp_path, 1)
    path = save_small(tmp_path, 2)
    raw = (path / name).read_bytes()
    positions = {0, len(raw) // 2, len(raw) - 1, *range(0, len(raw), max(len(raw) // 60, 1))}
    damages = [raw[:position] + bytes([raw[position] ^ 4]) + raw[position + 1 :] for position in sorted(positions)]
    for damage in [*damages, raw[:-1], raw + b"\0", None]:
        (path / name).unlink(missing_ok=True)
        if damage is not None:
            (path / name).write_bytes(damage)
        assert latest_valid(tmp_path) == good
        task, optimizer = small(-1.0)
        with pytest.raises(CheckpointError, match=name.strip("._")):
            load(path, module=task, optimizer=optimizer)
        assert torch.equal(task.weight, torch.full((2, 3), -1.0))
    assert caplog.text.count(str(path / name)) == len(damages) + 3


def test_optimizer_state_of_another_kind_is_refused_and_weights_alone_load(tmp_path: Path, one_rank: dist.ProcessGroup) -> None:
    sharded, optimizer = build(ShardingConfig(default_type="table_wise"), ADAGRAD, one_rank)
    path = save(tmp_path, step=1, module=sharded.module, optimizer=optimizer, extra={}, config=CheckpointConfig())
    plain, plain_optimizer = build(REPLICATED, ADAM, one_rank, seed=8)
    with pytest.raises(CheckpointError, match=r"t_category\.momentum1.*the weights fit"):
        load(path, module=plain.module, optimizer=plain_optimizer)
    load(path, module=plain.module, optimizer=None)
    assert state_sha256(plain.module) == state_sha256(sharded.module)


def test_a_valid_checkpoint_of_the_same_step_is_never_overwritten(tmp_path: Path) -> None:
    path = save_small(tmp_path, 1)
    before = (path / "manifest.json").read_bytes()
    with pytest.raises(CheckpointError, match="step-000001 exists and is valid"):
        save_small(tmp_path, 1)
    assert (path / "manifest.json").read_bytes() == before


def test_an_extra_that_is_not_json_is_refused_and_the_older_checkpoint_stays(tmp_path: Path) -> None:
    path = save_small(tmp_path, 1)
    task, optimizer = small()
    with pytest.raises(CheckpointError, match="JSON"):
        save(tmp_path, step=2, module=task, optimizer=optimizer, extra={"x": {1, 2}}, config=CheckpointConfig())
    assert latest_valid(tmp_path) == path


def test_a_full_disk_is_reported_and_the_older_checkpoint_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_small(tmp_path, 1)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    for module, name in ((checkpoint, "sync_to_disk"), (checkpoint, "write_manifest"), (checkpoint.dcp, "save")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, full)
            with pytest.raises(CheckpointError, match="No space left"):
                save_small(tmp_path, 2)
        assert latest_valid(tmp_path) == path


def random_numbers_after_load(path: Path, *, already_drawn: int) -> list[float]:
    task, optimizer = small(-1.0)
    torch.rand(already_drawn)
    load(path, module=task, optimizer=optimizer)
    return [torch.rand(1).item(), random.random(), float(np.random.rand())]


def test_on_another_number_of_ranks_random_numbers_start_anew_from_seed_rank_and_step(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(20)
    one, two = save_small(tmp_path, 1), save_small(tmp_path, 2)
    monkeypatch.setattr("trainer.checkpoint.world_size", lambda: 2)
    numbers = random_numbers_after_load(one, already_drawn=3)
    assert "1 rank(s) wrote step-000001, 2 read it: random numbers (dropout) start anew from seed 20" in caplog.text
    assert random_numbers_after_load(one, already_drawn=5) == numbers
    monkeypatch.setattr("trainer.checkpoint.rank", lambda: 1)
    of_rank_1, of_step_2 = random_numbers_after_load(one, already_drawn=0), random_numbers_after_load(two, already_drawn=0)
    assert all(len(set(values)) == 3 for values in zip(numbers, of_rank_1, of_step_2, strict=True))


def test_weights_alone_leave_the_random_state_as_it_is(tmp_path: Path) -> None:
    path = save_small(tmp_path, 1)
    task = small()[0]
    before = torch.get_rng_state()
    load(path, module=task, optimizer=None)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_random_state_of_another_version_is_a_checkpoint_error(tmp_path: Path) -> None:
    path = save_small(tmp_path, 1)
    (path / "rng-00000.json").write_text('{"python": []}')
    manifest = read_manifest(path)
    files = {name: entry_of(path / name) for name in manifest.files}
    write_manifest(path, dataclasses.replace(manifest, files=files))
    task, optimizer = small()
    with pytest.raises(CheckpointError, match=r"rng-00000\.json: not the random state of a rank"):
        load(path, module=task, optimizer=optimizer)


@pytest.mark.parametrize(("arguments", "word"), [({"keep_last": 0}, "keep_last=0"), ({"every_steps": 0}, "every_steps=0")])
def test_checkpoint_config_names_the_field_it_rejects(arguments: dict, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        CheckpointConfig(**arguments)
