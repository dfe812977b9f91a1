"""Command line to RunConfig: a recipe's name (or a saved config.json) and typed overrides."""

import difflib
import json
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import tyro

from trainer.config import RunConfig
from trainer.errors import UserError, exit_code
from trainer.recipes import RECIPES

USAGE = """usage: python -m trainer.train --recipe NAME [--field.subfield VALUE ...]
       python -m trainer.train --config runs/NAME/config.json [--field.subfield VALUE ...]
       python -m trainer.train --recipe NAME --help      every field of the recipe, with its value

recipes: """

ONE_AT_A_TIME = threading.Lock()
"""tyro empties its caches at the end of each parse, while another thread may still need them."""


def parse_run_config(arguments: Sequence[str]) -> RunConfig:
    """RunConfig of `--recipe NAME` or `--config FILE` and overrides; UserError where it can't be.

    Example::

        parse_run_config(["--recipe", "fit_demo", "--loop.max-epochs", "2"])
    """
    rest = list(arguments)
    recipe, config_file = _take(rest, "--recipe"), _take(rest, "--config")
    if (recipe is None) == (config_file is None):
        if "-h" in rest or "--help" in rest:
            print(USAGE + ", ".join(RECIPES))
            sys.exit(0)
        raise UserError(f"name exactly one of --recipe and --config\n{USAGE}{', '.join(RECIPES)}")
    saved: list[str] = []
    if config_file is not None:
        recipe, saved = _saved_arguments(Path(config_file))
    assert recipe is not None
    if recipe not in RECIPES:
        close = difflib.get_close_matches(recipe, RECIPES, n=1, cutoff=0.4)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise UserError(f"no recipe {recipe!r}{hint} (recipes: {', '.join(RECIPES)})")
    try:
        with ONE_AT_A_TIME:
            return tyro.cli(
                tyro.conf.AvoidSubcommands[tyro.conf.FlagConversionOff[RunConfig]],
                prog=f"python -m trainer.train --recipe {recipe}",
                default=RECIPES[recipe](),
                args=saved + rest,
            )
    except ValueError as error:
        raise UserError(str(error)) from error


def _take(arguments: list[str], flag: str) -> str | None:
    """Remove `flag VALUE` or `flag=VALUE` from `arguments`; its last value."""
    value = None
    for index in reversed(range(len(arguments))):
        if arguments[index] == flag:
            if index + 1 == len(arguments):
                raise UserError(f"{flag} needs a value\n{USAGE}{', '.join(RECIPES)}")
            value = value or arguments[index + 1]
            del arguments[index : index + 2]
        elif arguments[index].startswith(flag + "="):
            value = value or arguments[index].split("=", 1)[1]
            del arguments[index]
    return value


def _saved_arguments(path: Path) -> tuple[str, list[str]]:
    """Recipe name and the `--field value` arguments that a config.json stands for."""
    try:
        content = json.loads(path.read_text())
        recipe = content.pop("recipe")
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise UserError(f"--config {path}: {error!r}; expected the config.json of a run") from error
    return recipe, ["--recipe", recipe, *_flatten(content, prefix="")]


def _flatten(content: dict, *, prefix: str) -> Iterator[str]:
    for name, value in content.items():
        if isinstance(value, dict):
            yield from _flatten(value, prefix=f"{prefix}{name}.")
        else:
            yield f"--{prefix}{name}".replace("_", "-")
            yield from _words(value)


def _words(value: object) -> Iterator[str]:
    if isinstance(value, list):
        for element in value:
            yield from _words(element)
    else:
        yield str(value)


@contextmanager
def one_screen_errors() -> Iterator[None]:
    """Turn user, data and checkpoint errors into one message and their exit code (2, 3, 4); bugs keep their traceback."""
    try:
        yield
    except Exception as error:
        code = exit_code(error)
        if code == 1:
            raise
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        sys.exit(code)
