"""What every data preparation shares: keyed randomness, a folder that appears complete or not at all, the command line."""

import contextlib
import dataclasses
import json
import shutil
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from dataloaders.counter_random import below, fold_key, random_uint64
from dataloaders.errors import DataError
from dataloaders.schema import Schema, content_id_of

Config = TypeVar("Config")


def random_stream(count: int, *, seed: int, purpose: str) -> np.ndarray:
    """Distinct uniform uint64 [count]; each (seed, purpose) has a stream of its own, so that one choice never shifts another."""
    return random_uint64(fold_key(seed, zlib.crc32(purpose.encode())), np.arange(count))


class Dice:
    """Independent draws of synthetic data, each from the stream that the seed and its purpose name."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def below(self, count: int, bound: int | np.ndarray, *, purpose: str) -> np.ndarray:
        """Uniform integers in [0, bound), int64 [count]."""
        return below(random_stream(count, seed=self._seed, purpose=purpose), bound)

    def chance(self, count: int, share: float | np.ndarray, *, purpose: str) -> np.ndarray:
        """True with probability `share`, bool [count]."""
        return random_stream(count, seed=self._seed, purpose=purpose) * 2.0**-64 < share


@contextlib.contextmanager
def staged_folder(out: Path, *, overwrite: bool) -> Iterator[Path]:
    """A temporary sibling of `out` to write into; renamed to `out` when the block ends well, removed when it raises.

    Raises:
        ValueError: `out` exists and `overwrite` is off, or `out` is not a prepared data set.
    """
    if out.exists() and not overwrite:
        raise ValueError(f"--out {out} exists; expected a new folder; choose another one or pass --overwrite")
    if out.exists() and not (out / "schema.json").is_file():
        raise ValueError(f"--out {out} holds no schema.json, so it is no prepared data set; --overwrite refuses to delete it")
    staged, replaced = out.with_name(f".{out.name}.partial"), out.with_name(f".{out.name}.replaced")
    for leftover in (staged, replaced):
        shutil.rmtree(leftover, ignore_errors=True)  # of a run that was killed
    staged.mkdir(parents=True)
    try:
        yield staged
    except BaseException:
        shutil.rmtree(staged)
        raise
    if out.exists():
        out.rename(replaced)
    staged.rename(out)
    shutil.rmtree(replaced, ignore_errors=True)


def save_schema(folder: Path, schema: Schema, *, num_rows: Mapping[str, int]) -> None:
    """Write `folder`/schema.json with the row counts and the identity of the Parquet files, which all lie there."""
    dataclasses.replace(schema, num_rows=dict(num_rows), content_id=content_id_of(folder)).save(folder)


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Readable JSON in UTF-8; paths become text."""
    path.write_text(json.dumps(content, indent=1, default=str, ensure_ascii=False) + "\n", encoding="utf-8")


def print_counts(title: str, counts: Mapping[str, int | float | str]) -> None:
    """A title and a two-column table on the console."""
    table = Table("count", "value")
    for name, value in counts.items():
        table.add_row(name, f"{value:,}" if isinstance(value, int) else f"{value:.4f}" if isinstance(value, float) else value)
    console = Console()
    console.print(title, soft_wrap=True)
    console.print(table)


def run_command(
    config_type: type[Config], *, prepare: Callable[[Config], None], program: str, arguments: list[str] | None = None
) -> int:
    """Parse the command line into `config_type`, run `prepare`, and return the exit code: 0 ok, 2 user error, 3 bad data.

    Raises:
        SystemExit: the arguments do not parse (code 2), or ask for help (code 0).
    """
    try:
        prepare(tyro.cli(config_type, prog=program, args=arguments, config=(tyro.conf.OmitArgPrefixes,)))
    except DataError as error:
        sys.stderr.write(f"bad data: {error}\n")
        return 3
    except (ValueError, ConnectionError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0
