"""torchrun that keeps the trainer's exit code: `python -m trainer.launch [torchrun's options] -m trainer.train --recipe NAME`.

torchrun itself ends with 1 and its own traceback, whatever its children ended with. A scheduler must be able to tell a damaged
checkpoint (4: do not restart) from a lost machine (1: restart). And it kills ranks half a minute after a signal; here they have
SECONDS_TO_SAVE, or what torchrun's `--shutdown-timeout` says where it knows that option.
"""

import argparse
import signal
import sys

from torch.distributed.elastic.multiprocessing.api import PContext, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import parse_args, run

EXPLAINED = {2: "user error", 3: "bad data", 4: "bad checkpoint or artefact"}
"""Exit codes whose message the rank itself has already printed; see trainer.errors.exit_code."""
SECONDS_TO_SAVE = 120
"""Time between a signal and SIGKILL, for a checkpoint of full size on a slow disk; a scheduler's own grace period comes on top."""


def main(arguments: list[str]) -> int:
    """Start the ranks, wait for their end; the exit code that tells most about it: 0, 2, 3, 4, or 1 for anything else.

    SIGTERM and SIGINT reach every rank as SIGTERM; when all have ended the code is 128 + the signal, as a shell's.
    """
    options = parse_args(arguments)
    allow_time_to_save(options)
    try:
        run(options)
    except SignalException as stop:
        print(f"stopped by {stop.sigval.name}", file=sys.stderr)
        return 128 + stop.sigval
    except ChildFailedError as error:
        explained = {failure.exitcode: rank for rank, failure in error.failures.items() if failure.exitcode in EXPLAINED}
        killed = any(failure.exitcode == -signal.SIGKILL for failure in error.failures.values())
        if killed or not explained:  # what a rank says that has lost another one is no explanation
            print(error, file=sys.stderr)
            return 1
        code = min(explained)
        print(f"rank {explained[code]} ended with exit code {code} ({EXPLAINED[code]}); its message is above.", file=sys.stderr)
        return code
    return 0


def allow_time_to_save(options: argparse.Namespace) -> None:
    """Make torchrun wait SECONDS_TO_SAVE for the ranks to end after a signal, unless `options` name another time."""
    if not hasattr(options, "shutdown_timeout"):
        # torch 2.11 has no option for it: the time is the default of the method that ends the ranks
        PContext.close.__defaults__ = (None, SECONDS_TO_SAVE)
    elif options.shutdown_timeout is None:
        options.shutdown_timeout = SECONDS_TO_SAVE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
