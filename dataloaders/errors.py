"""The error that bad data raises; the command line turns it into exit code 3."""


class DataError(ValueError):
    """A file or row that breaks the schema; the message names file, row group, row, column, value, and what was expected."""
