import errno
import fcntl
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from trainer.errors import UserError
from trainer.run_lock import RunLock

ROOT = Path(__file__).parents[2]
HOLDER = """
import sys, time
from pathlib import Path
from trainer.run_lock import RunLock
lock = RunLock(Path(sys.argv[1]), process_group=None)
print("held", flush=True)
time.sleep(100)
"""


def test_a_folder_in_use_is_refused_by_name_until_its_holder_is_killed(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "a"
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(run)], cwd=ROOT, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        who = rf"{run} is in use by process {holder.pid} on {re.escape(socket.gethostname())} since 20.*--runs"
        with pytest.raises(UserError, match=who):
            RunLock(run, process_group=None)
        holder.kill()
        holder.wait()
    with RunLock(run, process_group=None):
        assert f'"pid": {os.getpid()}' in (run / "lock").read_text()


def test_a_closed_lock_can_be_taken_again_and_closing_twice_is_harmless(tmp_path: Path) -> None:
    lock = RunLock(tmp_path, process_group=None)
    with pytest.raises(UserError, match="in use"):
        RunLock(tmp_path, process_group=None)
    lock.close()
    lock.close()
    with RunLock(tmp_path, process_group=None), pytest.raises(UserError, match="in use"):
        RunLock(tmp_path, process_group=None)
    RunLock(tmp_path, process_group=None).close()


def test_a_holder_that_left_no_name_is_still_a_holder(tmp_path: Path) -> None:
    with RunLock(tmp_path, process_group=None):
        (tmp_path / "lock").write_text("")
        with pytest.raises(UserError, match="another process"):
            RunLock(tmp_path, process_group=None)


def test_a_folder_that_can_not_be_made_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/run: Not a directory; choose a folder"):
        RunLock(tmp_path / "file" / "run", process_group=None)


def test_a_file_system_without_locks_is_told_and_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unsupported(_descriptor: int, _operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with RunLock(tmp_path, process_group=None):
        assert "no locks (No locks available)" in caplog.text


def test_all_ranks_hear_that_the_folder_is_in_use(on_two_ranks: dict) -> None:
    told = on_two_ranks["locks"]["told"]
    assert len(told) == 2
    assert told[0] == told[1]
    assert "in use by process" in told[0]
