"""Our SASRec and GRU4Rec beside RecBole's on MovieLens-100K: `python -m benchmarks.peers` writes benchmarks/peers.md.

RecBole gets a virtual environment of its own, from the package index, and the very rows that our loader reads. Both rank each
target among all items, with the items of the row's own history among them. Its wheel holds the ratings, which both use; `--raw`
takes the folder of another u.data. Finished runs are read, not repeated. Seconds come from `--times`: some epochs of each program,
one after another, on a machine to itself.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks.peers.page import render
from benchmarks.peers.programs import (
    DATASET,
    KEY,
    METRICS,
    SETTINGS,
    THEIR_NAME,
    TIMED_EPOCHS,
    Model,
    bundled_ratings,
    export_rows,
    identity,
    our_row,
    our_run,
    prepared,
    recbole_python,
    their_row,
    their_run,
)
from benchmarks.readme import RESULTS, ROOT
from benchmarks.result_rows import read_rows, replace_rows, set_columns
from trainer.cli import one_screen_errors


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Train both programs and compare them."""

    raw: Path | None = None
    """Folder of MovieLens-100K's u.data; default: the ratings in RecBole's wheel."""
    work: Path = Path("build/peers")
    """Folder of RecBole's environment, data and runs."""
    models: tuple[Model, ...] = ("SASRec", "GRU4Rec")
    seeds: int = 1
    """Seeds 0 .. seeds - 1 of each."""
    times: bool = False
    """Measure the seconds of an epoch of each program, in place of those that are recorded; wants a machine to itself."""
    results: Path = RESULTS / "peers.csv"
    """Where rows are recorded; the page is benchmarks/peers.md."""


def main() -> None:
    """Command line."""
    arguments = tyro.cli(Arguments)
    with one_screen_errors():
        work = (ROOT / arguments.work).resolve()
        python = recbole_python(work / "venv")
        data = prepared(arguments.raw or bundled_ratings(python, work / "raw"), work / "ml100k")
        export_rows(data, work / "recbole" / DATASET)
        for seed in range(arguments.seeds):
            for model in arguments.models:
                for row in (our_row(model, data, seed=seed), their_row(model, python, data, seed=seed)):
                    record(row, arguments.results)
                    print({name: row[name] for name in ("program", "model", "seed", *METRICS)}, flush=True)
        if arguments.times:
            time_programs(arguments.models, python, data, arguments.results)
        (ROOT / "benchmarks" / "peers.md").write_text(render(read_rows(arguments.results), data=identity(data)))


def record(row: dict[str, str], path: Path) -> None:
    """Put a run's row into the results file; seconds that were measured of it stay."""
    same = [old for old in read_rows(path) if all(old.get(name) == row[name] for name in KEY)]
    replace_rows(path, [row | {"seconds_per_epoch": same[0]["seconds_per_epoch"] if same else ""}], key=KEY)


def time_programs(models: Sequence[Model], python: Path, data: Path, path: Path) -> None:
    """Measure TIMED_EPOCHS of each program, one after another, and record their mean in the rows of the first seed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for model in models:
            ours = our_run(model, data, seed=0, epochs=TIMED_EPOCHS, runs=folder)["train_seconds_per_epoch"]
            theirs = their_run(model, python, data, seed=0, epochs=TIMED_EPOCHS, folder=folder)["seconds_per_epoch"]
            for program, seconds in (("CrossTower", ours), (THEIR_NAME, theirs)):
                known = {"program": program, "model": model, "seed": "0", "config": SETTINGS, "data": identity(data)}
                set_columns(path, known, {"seconds_per_epoch": f"{seconds:.2f}"}, key=KEY)
                print(f"{program}, {model}: {seconds:.2f} s/epoch", flush=True)


if __name__ == "__main__":
    main()
