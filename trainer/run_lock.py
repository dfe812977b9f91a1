"""One start of a run at a time: two would remove each other's half-written checkpoints and cut each other's metrics."""

import errno
import fcntl
import json
import logging
import os
import socket
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

import torch.distributed as dist

from trainer.errors import UserError

log = logging.getLogger(__name__)
FILE_NAME = "lock"
NO_LOCKS_HERE = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


class RunLock:
    """Holds a run's folder for the ranks of this process group, until `close` or until the first rank's process dies.

    A collective call. The first rank locks `run_dir`/lock (flock) and writes into it who it is; the file stays when the lock goes.
    On a file system without locks, a warning says that two starts at once will not be noticed.

    Args:
        run_dir: the run's folder; created if need be.
        process_group: all ranks of the run, on the host (gloo); None: this process alone.

    Raises:
        UserError: on all ranks, where another process holds the folder; the message names it. Or where the folder can't be written.

    Example::

        with RunLock(run_dir, process_group=ranks.host_group):
            train()
    """

    def __init__(self, run_dir: Path, *, process_group: dist.ProcessGroup | None) -> None:
        self._descriptor: int | None = None
        problem = [""]
        if process_group is None or dist.get_rank(process_group) == 0:
            try:
                self._acquire(run_dir)
            except UserError as error:
                problem = [str(error)]
            except OSError as error:
                problem = [f"{run_dir}: {error.strerror or error}; choose a folder that can be written with --runs"]
        if process_group is not None:
            dist.broadcast_object_list(problem, src=dist.get_global_rank(process_group, 0), group=process_group)
        if problem[0]:
            raise UserError(problem[0])

    def close(self) -> None:
        """Let the folder go; more than once does nothing."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> "RunLock":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _acquire(self, run_dir: Path) -> None:
        run_dir.mkdir(parents=True, exist_ok=True)
        path = run_dir / FILE_NAME
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            _lock(descriptor, path=path)
            holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": datetime.now(UTC).isoformat(timespec="seconds")}
            os.truncate(descriptor, 0)
            os.write(descriptor, (json.dumps(holder) + "\n").encode())
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor


def _lock(descriptor: int, *, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        advice = "wait until it ends, stop it, or train in another folder with --runs"
        raise UserError(f"{path.parent} is in use by {_holder(path)}; {advice}") from error
    except OSError as error:
        if error.errno not in NO_LOCKS_HERE:
            raise
        log.warning("%s: this file system has no locks (%s); a second start of this run would not be noticed", path, error.strerror)


def _holder(path: Path) -> str:
    """Who holds the lock, as far as its file tells."""
    try:
        holder = json.loads(path.read_text())
        return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return f"another process ({path} does not tell which)"
