import logging
import shutil
from pathlib import Path

import pytest
from small_task import save_small, small

from trainer import checkpoint_folder, checkpoint_manifest
from trainer.checkpoint import CheckpointConfig, latest_valid, load, read_extra, save, step_folder
from trainer.checkpoint_folder import remove_old
from trainer.errors import CheckpointError

KEEP_ONE = CheckpointConfig(keep_last=1)


def steps_in(folder: Path) -> list[int]:
    assert not list(folder.glob("*.tmp"))
    return sorted(int(path.name.removeprefix("step-")) for path in folder.iterdir())


def cut(path: Path) -> None:
    """Damage a checkpoint's tensors."""
    (tensors, *_) = sorted(path.glob("*.distcp"))
    tensors.write_bytes(tensors.read_bytes()[:-1])


def test_latest_valid_skips_damage_and_leftovers_and_the_next_save_removes_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert latest_valid(tmp_path / "nowhere") is None
    first, second = save_small(tmp_path, 1), save_small(tmp_path, 2)
    (second / "manifest.json").unlink()
    shutil.copytree(first, tmp_path / "step-000009.tmp")
    with caplog.at_level(logging.WARNING):
        assert latest_valid(tmp_path) == first
    assert "step-000002/manifest.json" in caplog.text
    assert save_small(tmp_path, 2) == second
    assert latest_valid(tmp_path) == second
    assert steps_in(tmp_path) == [1, 2]


def test_retention_keeps_the_newest_and_always_the_best(tmp_path: Path) -> None:
    for step in range(1, 6):
        save_small(tmp_path, step, best_step=2 if step >= 2 else None, keep_last=2)
    assert steps_in(tmp_path) == [2, 4, 5]
    save_small(tmp_path, 6, best_step=2, keep_last=1)
    assert steps_in(tmp_path) == [2, 6]


def test_the_best_of_each_checkpoint_that_is_kept_is_kept_too(tmp_path: Path) -> None:
    for step, best in ((1, 1), (2, 1), (3, 3)):
        save_small(tmp_path, step, best_step=best, keep_last=2)
    assert steps_in(tmp_path) == [1, 2, 3], "a run that resumes from 2, should 3 be damaged, has its best at 1"
    save_small(tmp_path, 4, best_step=3, keep_last=2)
    assert steps_in(tmp_path) == [3, 4]


def test_a_damaged_checkpoint_does_not_count_as_kept_and_is_removed_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (1, 2):
        save_small(tmp_path, step)
    cut(step_folder(tmp_path, 2))
    save_small(tmp_path, 3, keep_last=2)
    assert steps_in(tmp_path) == [1, 3]
    assert "removing a damaged checkpoint" in caplog.text


def test_steps_after_the_newest_neither_count_nor_are_touched(tmp_path: Path) -> None:
    for step in (1, 2, 9):
        save_small(tmp_path, step, keep_last=3)
    cut(step_folder(tmp_path, 9))
    save_small(tmp_path, 3, keep_last=2)
    assert steps_in(tmp_path) == [2, 3, 9]


def test_a_damaged_best_checkpoint_is_named_and_not_removed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_small(tmp_path, 1, best_step=1)
    cut(step_folder(tmp_path, 1))
    for step in (2, 3):
        save_small(tmp_path, step, best_step=1, keep_last=1)
    assert steps_in(tmp_path) == [1, 3]
    assert "__0_0.distcp" in caplog.text


def test_nothing_is_removed_where_the_newest_checkpoint_is_not_complete(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save_small(tmp_path, step, keep_last=3)
    cut(step_folder(tmp_path, 3))
    with pytest.raises(CheckpointError, match="step-000003"):
        remove_old(tmp_path, newest=3, best_step=3, keep_last=1)
    assert steps_in(tmp_path) == [1, 2, 3]


def test_loading_a_checkpoint_that_is_gone_says_so_and_what_is_there(tmp_path: Path) -> None:
    save_small(tmp_path, 1)
    task, optimizer = small()
    with pytest.raises(CheckpointError, match=r"step-000007: no such checkpoint.*checkpoints there: step-000001"):
        load(step_folder(tmp_path, 7), module=task, optimizer=optimizer)


def test_extra_is_read_without_any_tensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_small(tmp_path, 1)
    monkeypatch.setattr(checkpoint_folder, "check_files", lambda *_, **__: pytest.fail("read a file of tensors"))
    assert read_extra(path) == {"step": 1}
    manifest = path / "manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b'"step": 1', b'"step": 2'))
    with pytest.raises(CheckpointError, match="does not match its own sha256"):
        read_extra(path)
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        read_extra(tmp_path / "step-000002")


def test_a_checkpoint_just_found_valid_is_not_hashed_again_to_load_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_small(tmp_path, 1)
    monkeypatch.setattr(checkpoint_manifest, "SETTLED_SECONDS", -1.0)
    assert latest_valid(tmp_path) == path
    task, optimizer = small()
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_manifest, "entry_of", lambda path: pytest.fail(f"{path} is read again"))
        load(path, module=task, optimizer=optimizer)
    raw = (path / ".metadata").read_bytes()
    (path / ".metadata").write_bytes(raw[:-1] + b"!")
    with pytest.raises(CheckpointError, match=r"\.metadata: sha256"):
        load(path, module=task, optimizer=optimizer)


def test_a_failing_save_keeps_the_previous_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_small(tmp_path, 1, best_step=1)
    task, optimizer = small()

    def no_space(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("trainer.checkpoint.write_manifest", no_space)
    with pytest.raises(CheckpointError, match="No space left"):
        save(tmp_path, step=2, module=task, optimizer=optimizer, extra={}, config=KEEP_ONE, best_step=2)
    assert latest_valid(tmp_path) == step_folder(tmp_path, 1)
