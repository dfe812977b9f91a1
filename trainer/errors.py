"""Errors that the command line turns into a message and an exit code instead of a traceback."""

from dataloaders.errors import DataError


class UserError(ValueError):
    """A configuration or a command that can't work; the message names the field, its value, and what to do instead."""


class CheckpointError(RuntimeError):
    """A checkpoint that is damaged, incomplete, or of another model; the message names the file or key and what to do."""


def exit_code(error: BaseException) -> int:
    """Process exit code for `error`: 2 user error, 3 bad data, 4 bad checkpoint, 1 anything else (a bug)."""
    if isinstance(error, UserError):
        return 2
    if isinstance(error, DataError):
        return 3
    if isinstance(error, CheckpointError):
        return 4
    return 1
