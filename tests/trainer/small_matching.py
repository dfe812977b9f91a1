"""A small next_item data set in MovieLens-1M's form, its test rows as windows, and the configuration of a short T2Diff run."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from dataloaders.prepare.ml1m import HISTORY_LEN, Ml1mConfig, prepare_ml1m
from dataloaders.prepare.protocols import ProtocolConfig
from tests.dataloaders.prepare.tiny_ml1m import write_raw
from trainer.cli import parse_run_config
from trainer.config import RunConfig

NUM_USERS, NUM_MOVIES = 120, 90
SESSION_GAP_MINUTES = 5.0
CATEGORIES = ("Action", "Comedy", "Drama|War")


class Behaviour(NamedTuple):
    """One rating: raw id of the movie, and seconds."""

    movie: int
    time: int


def behaviours_of_users() -> list[list[Behaviour]]:
    """Every user's behaviours, oldest first, never two at once; some have more than a history holds."""
    draw, users = random.Random(3), []
    for _ in range(NUM_USERS):
        place, time, behaviours = draw.randrange(NUM_MOVIES), draw.randrange(10**6, 2 * 10**6), []
        length = draw.randint(HISTORY_LEN + 2, HISTORY_LEN + 12) if len(users) % 12 == 0 else draw.randint(3, 25)
        for _ in range(length):
            place = (place + 1) % NUM_MOVIES if draw.random() < 0.8 else draw.randrange(NUM_MOVIES)
            time += draw.randint(1, 250) if draw.random() < 0.8 else draw.randint(301, 5 * 24 * 3600)
            behaviours.append(Behaviour(movie=7 + 3 * place, time=time))
        users.append(behaviours)
    return users


def prepare_small_matching(folder: Path) -> Path:
    """Write raw files and the prepared data set below `folder`; a test row's row_id is its user's number, from 0."""
    users = behaviours_of_users()
    newest = [(user, behaviours[-1]) for user, behaviours in enumerate(users)]
    older = [(user, behaviour) for user, behaviours in enumerate(users) for behaviour in behaviours[:-1]]
    raw = write_raw(
        folder / "raw",
        # row_id is the row of the file
        ratings="".join(f"{user + 1}::{movie}::3::{time}\n" for user, (movie, time) in [*newest, *older]),
        users="".join(f"{user + 1}::M::25::1::12345\n" for user in range(NUM_USERS)),
        movies="".join(f"{7 + 3 * m}::Film {m}::{CATEGORIES[m % 3]}\n" for m in range(NUM_MOVIES)),
    )
    out = folder / "data"
    protocol = ProtocolConfig(validation="last_but_one")
    options = {"session_gap_minutes": SESSION_GAP_MINUTES, "time_gaps": True}
    prepare_ml1m(Ml1mConfig(raw=raw, out=out, task="next_item", protocol=protocol, **options))
    return out


def windows_of_test_split(*, item: Callable[[int], int], padding: int, times: bool) -> list[list[int]]:
    """The test split's rows as lines of a windows file; `item` turns a raw movie into what the file calls it."""
    lines = []
    for user, behaviours in enumerate(behaviours_of_users()):
        history, target = behaviours[:-1][-HISTORY_LEN:], behaviours[-1]
        missing = HISTORY_LEN - len(history)
        line = [user, *[padding] * missing, *[item(b.movie) for b in history], item(target.movie)]
        lines.append(line + ([0] * missing + [b.time for b in history] + [target.time] if times else []))
    return lines


def write_windows(path: Path, lines: list[list[int]]) -> Path:
    """The windows as a CSV file."""
    path.write_text("".join(",".join(map(str, line)) + "\n" for line in lines))
    return path


def small_t2diff(data: Path, runs: Path, *overrides: str) -> RunConfig:
    """A T2Diff that uses every history feature, 14 steps an epoch."""
    features = ("hist_item", "hist_category", "hist_time_lag", "hist_new_session", "item", "category")
    return parse_run_config(
        [
            *("--recipe", "t2diff_ml1m", "--data", str(data), "--runs", str(runs)),
            *("--embeddings.dim", "8", "--embeddings.features", *features),
            *("--model.output-dim", "16", "--model.attention.session", "gap"),
            *("--model.diffusion.schedule.num-steps", "8", "--model.diffusion.num-sample-steps", "3"),
            *("--loader.batch-size", "128", "--optimizer.learning-rate", "0.01", "--optimizer.sparse-learning-rate", "0.01"),
            *("--loop.max-epochs", "2", "--loop.evals-per-epoch", "1", "--loop.log-every-steps", "4"),
            *("--loop.tensorboard", "False", "--loop.device", "cpu"),
            *overrides,
        ]
    )
