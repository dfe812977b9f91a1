"""Random search over a declared grid, the same for every model of a paper's table; validation picks.

Only validation metrics of the runs are read. The n-th trial is the same point of the grid for every model, and more trials begin
with those of fewer, so that a search can be extended.
"""

import itertools
import logging
import operator
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from benchmarks.paper.cells import FIT_LABELS, T2DIFF_LABELS, Paper
from benchmarks.readme import RESULTS
from benchmarks.result_rows import read_rows, replace_rows
from benchmarks.trained_runs import finished_run, run_columns
from models import ModelConfig
from trainer.cli import parse_run_config
from trainer.config import RunConfig
from trainer.errors import UserError

log = logging.getLogger(__name__)
SPACE: dict[str, tuple[str, ...]] = {
    "learning_rate": ("0.0005", "0.001", "0.002", "0.004", "0.008"),
    "dropout": ("0.0", "0.1", "0.2", "0.3", "0.5"),
    "weight_decay": ("0.0", "1e-6", "1e-5"),
    "embedding_decay": ("0.0", "1e-7", "1e-6"),
    "schedule": ("constant", "cosine"),
}
"""What is searched, for all models alike; everything else, width and budget among it, is the recipe's."""
FLAGS: dict[str, tuple[str, ...]] = {
    "learning_rate": ("--optimizer.learning-rate", "--optimizer.sparse-learning-rate"),
    "weight_decay": ("--optimizer.weight-decay",),
    "embedding_decay": ("--optimizer.embedding-decay",),
    "schedule": ("--optimizer.schedule",),
}
"""The fields that a choice sets; those of dropout are the model's."""
DROPOUTS = ("dropout", "input_dropout", "tower.dropout", "attention.dropout")
"""Where a model's config may have a dropout; a model without one leaves the choice unused."""
RECIPES_OF: dict[Paper, tuple[Mapping[str, object], str]] = {"t2diff": (T2DIFF_LABELS, "ml1m"), "fit": (FIT_LABELS, "ml1m_adam")}
"""Models of a paper's table, and how the names of the recipes that are tuned end."""
SEED = 0
"""Of the order of the trials, and of each run."""
KEY = ("recipe", "config")


@dataclass(frozen=True, kw_only=True)
class SearchArguments:
    """Search a model's learning rate, dropout, decays and schedule; validation picks."""

    model: str
    """A model of T2Diff's or FIT's table, as its recipe calls it: sasrec, gru4rec, t2diff, fit, …"""
    dataset: Literal["ml1m"] = "ml1m"
    trials: int = 20
    """Points of the grid, drawn without replacement."""

    def __post_init__(self) -> None:
        if not 1 <= self.trials <= len(grid()):
            raise ValueError(f"--trials {self.trials}, expected 1 to {len(grid())}, the size of the grid")


def search(arguments: SearchArguments) -> None:
    """Train the trials that are not recorded, record them, print the best as overrides."""
    paper, recipe = recipe_of(arguments.model)
    path = RESULTS / f"search_{paper}_{arguments.dataset}.csv"
    tried = []
    for number, point in enumerate(grid()[: arguments.trials]):
        words = overrides(point, parse_run_config(["--recipe", recipe]).model)
        config = parse_run_config(["--recipe", recipe, *words, "--seed", str(SEED)])
        found = [row for row in read_rows(path) if (row["recipe"], row["config"]) == (recipe, config.fingerprint[:12])]
        if not found:
            try:
                results = finished_run(recipe, overrides=[*words, "--seed", str(SEED)])
            except UserError as error:  # a learning rate too large for this model ends one trial, not the search
                log.error("trial %d is left out: %s", number, error)
                continue
            found = [trial_row(config, words, number=number, results=results)]
            replace_rows(path, found, key=KEY)
        tried.append(found[0])
        print(f"trial {number}: validation {config.loop.monitor} {found[0]['validation']}  {' '.join(words)}")
    if not tried:
        raise UserError(f"all {arguments.trials} trials of {recipe} failed; their messages stand above")
    best = winner(tried)
    print(
        f"best of {len(tried)} trials, by validation {best['metric']} {best['validation']}:\n--recipe {recipe} {best['overrides']}"
    )


def grid() -> list[dict[str, str]]:
    """Every point of SPACE, in the order of the trials."""
    points = [dict(zip(SPACE, values, strict=True)) for values in itertools.product(*SPACE.values())]
    random.Random(SEED).shuffle(points)
    return points


def recipe_of(model: str) -> tuple[Paper, str]:
    """The paper whose table has the model, and the recipe that is tuned.

    Raises:
        UserError: no table has it.
    """
    for paper, (models, suffix) in RECIPES_OF.items():
        if model in models:
            return paper, f"{model}_{suffix}"
    known = [name for models, _ in RECIPES_OF.values() for name in models]
    raise UserError(f"--model {model}: no table has it, expected one of {', '.join(known)}")


def overrides(point: Mapping[str, str], model: ModelConfig) -> list[str]:
    """A point of the grid as `--field value` of a recipe with this model."""
    dropouts = tuple(f"--model.{name.replace('_', '-')}" for name in DROPOUTS if _has(model, name))
    flags = FLAGS | {"dropout": dropouts}
    return [word for name, value in point.items() for flag in flags[name] for word in (flag, value)]


def _has(config: ModelConfig, name: str) -> bool:
    try:
        operator.attrgetter(name)(config)
    except AttributeError:
        return False
    return True


def trial_row(config: RunConfig, words: Sequence[str], *, number: int, results: Mapping[str, Any]) -> dict[str, str]:
    """The row of one trial; of the run's metrics it holds those of validation alone."""
    monitor = config.loop.monitor
    return {
        "recipe": config.recipe,
        "trial": str(number),
        "overrides": " ".join(words),
        "seed": str(config.seed),
        "dataset": results["dataset"],
        "metric": monitor,
        "validation": f"{results['metrics']['validation'][monitor]:.6f}",
        **run_columns(dict(results)),
    }


def winner(rows: Sequence[dict[str, str]]) -> dict[str, str]:
    """The trial with the best validation metric; of equal ones the first."""
    sign = -1 if rows[0]["metric"] in ("logloss", "loss") else 1
    return max(rows, key=lambda row: sign * float(row["validation"]))
