import os

import pytest

from trainer.run_log import RunLog, read_rows


def _write(folder, *, resume_step, steps):
    log = RunLog(folder, resume_step=resume_step, evaluated_step=resume_step, tensorboard=False)
    for step in steps:
        log.write(step=step, split="train", values={"loss": 1 / step})
    log.close()


def test_rows_after_the_step_that_a_run_resumes_from_are_written_once(tmp_path):
    _write(tmp_path, resume_step=0, steps=(1, 2, 3, 4))
    _write(tmp_path, resume_step=2, steps=(3, 4, 5))
    assert [row["step"] for row in read_rows(tmp_path)] == [1, 2, 3, 4, 5]


def test_a_last_line_cut_by_a_crash_is_left_out(tmp_path):
    _write(tmp_path, resume_step=0, steps=(1, 2))
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 3, "spl')
    assert [row["step"] for row in read_rows(tmp_path)] == [1, 2]


def test_a_value_that_is_not_finite_is_null(tmp_path):
    log = RunLog(tmp_path, resume_step=0, evaluated_step=0, tensorboard=False)
    log.write(step=1, split="validation", values={"auc": float("nan"), "loss": 0.5})
    log.close()
    assert read_rows(tmp_path) == [{"step": 1, "split": "validation", "auc": None, "loss": 0.5}]


def test_tensorboard_events_appear_beside_the_rows(tmp_path):
    log = RunLog(tmp_path, resume_step=0, evaluated_step=0, tensorboard=True)
    log.write(step=1, split="train", values={"loss": 0.5})
    log.close()
    assert list((tmp_path / "tensorboard").glob("events.*"))


@pytest.mark.parametrize("bad", ['{"step": 2, "spl', "", "\0\0\0", "null", "[1]", '{"loss": 1}', b"\xff\xfe".decode("latin-1")])
def test_a_bad_line_in_the_middle_costs_no_other_row(tmp_path, caplog, bad):
    _write(tmp_path, resume_step=0, steps=(1, 3))
    path = tmp_path / "metrics.jsonl"
    first, last = path.read_text().splitlines()
    path.write_bytes(f"{first}\n{bad}\n{last}\n".encode("latin-1"))
    assert [row["step"] for row in read_rows(tmp_path)] == [1, 3]
    assert f"{path}, line 2: not a row" in caplog.text


def test_a_crash_while_rows_are_dropped_leaves_the_old_ones(tmp_path, monkeypatch):
    _write(tmp_path, resume_step=0, steps=(1, 2, 3))
    before = (tmp_path / "metrics.jsonl").read_bytes()

    def no_space(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space"):
        RunLog(tmp_path, resume_step=1, evaluated_step=0, tensorboard=False)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_an_evaluation_that_is_due_again_is_written_once(tmp_path):
    log = RunLog(tmp_path, resume_step=0, evaluated_step=0, tensorboard=False)
    for split in ("train", "validation"):
        log.write(step=10, split=split, values={"auc": 0.5})
    log.close()
    RunLog(tmp_path, resume_step=10, evaluated_step=0, tensorboard=False).close()
    assert [row["split"] for row in read_rows(tmp_path)] == ["train"]
