"""torchrun that keeps the trainer's exit code: `python -m trainer.launch [torchrun's options] -m trainer.train --recipe NAME`.

torchrun itself ends with 1 and its own traceback, whatever its children ended with. A scheduler must be able to tell a damaged
checkpoint (4: do not restart) from a lost machine (1: restart).
"""

import sys

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import parse_args, run

EXPLAINED = {2: "user error", 3: "bad data", 4: "bad checkpoint or artefact"}
"""Exit codes whose message the rank itself has already printed; see trainer.errors.exit_code."""


def main(arguments: list[str]) -> int:
    """Start the ranks, wait for their end; the exit code that tells most about it: 0, 2, 3, 4, or 1 for anything else.

    SIGTERM and SIGINT reach every rank as SIGTERM; when all have ended the code is 128 + the signal, as a shell's.
    """
    try:
        run(parse_args(arguments))
    except SignalException as stop:
        print(f"stopped by {stop.sigval.name}", file=sys.stderr)
        return 128 + stop.sigval
    except ChildFailedError as error:
        explained = {failure.exitcode: rank for rank, failure in error.failures.items() if failure.exitcode in EXPLAINED}
        if not explained:
            print(error, file=sys.stderr)
            return 1
        code = min(explained)
        print(f"rank {explained[code]} ended with exit code {code} ({EXPLAINED[code]}); its message is above.", file=sys.stderr)
        return code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
