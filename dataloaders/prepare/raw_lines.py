"""Raw text files whose every line has one form."""

from pathlib import Path

import polars as pl

from dataloaders.errors import DataError


def read_lines(path: Path, pattern: str, *, expected: str, url: str, names: str) -> pl.DataFrame:
    """One row per line of a latin-1 file, with the pattern's groups as string columns field_1, field_2, ... and `line` (from 1).

    Args:
        path: the file.
        pattern: regular expression of a whole line.
        expected: what a line looks like, for messages.
        url: the archive that the file comes from.
        names: which of its files are needed, for messages.

    Raises:
        DataError: the file is missing or empty, or a line is malformed.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(
            f"{path}: no such file; pass --download, or fetch {url} by hand and unpack {names} into {path.parent}"
        ) from None
    text = content.decode("latin-1").replace("\r\n", "\n").removesuffix("\n")
    lines = pl.Series("text", text.split("\n") if text else [], dtype=pl.String)
    if lines.is_empty():
        raise DataError(f"{path}: the file is empty; expected lines of the form {expected}")
    fields = lines.str.extract_groups(pattern).struct.unnest()
    fields.columns = [f"field_{index}" for index in range(1, len(fields.columns) + 1)]
    malformed = fields["field_1"].is_null()
    if malformed.any():
        first = malformed.arg_true()[0]
        raise DataError(
            f"{path}, line {first + 1}: {lines[first]!r} is malformed ({malformed.sum()} such lines in the file); "
            f"expected {expected}; restore the file from {url}"
        )
    return fields.with_row_index("line", offset=1)
