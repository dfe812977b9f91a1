"""MovieLens-1M to a prepared data set: `python -m dataloaders.prepare.ml1m --raw DIR --out DIR`.

Beside the folders that dataloaders.schema describes, the output holds `vocabularies.json` (raw value of every id, in id order),
`preparation.json` (arguments, md5 of the raw files, counts) and, for next_behaviour with leave_one_out, `test_popularity/`: the
test positives against negatives drawn in proportion to an item's training positives plus one.

row_id is the row of ratings.dat (from 0); a fixed negative has its positive's row_id plus the number of rows of ratings.dat.
"""

import dataclasses
import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa

from dataloaders.negatives import NegativeSampler
from dataloaders.parquet_writer import write_items, write_split, write_user_items
from dataloaders.prepare import ml1m_raw
from dataloaders.prepare.behaviours import TIME_GAP_VOCAB, TIME_LAG_VOCAB, Behaviours, RowBuilder, distinct_pairs, time_gap_bucket
from dataloaders.prepare.common import print_counts, run_command, save_schema, staged_folder, write_json
from dataloaders.prepare.download import fetch_archive
from dataloaders.prepare.ml1m_raw import RawMl1m, read_ml1m
from dataloaders.prepare.protocols import ProtocolConfig, Targets, choose_targets
from dataloaders.schema import Feature, Schema
from dataloaders.touched_items import TouchedItems

HISTORY_LEN = 50
KNOWN_COUNTS = {
    "next_behaviour": {"users": 6_040, "items": 3_706, "behaviours": 1_000_209, "behaviours used": 1_000_209, "items used": 3_706},
    "next_item": {"users": 6_040, "items": 3_706, "behaviours": 1_000_209, "behaviours used": 1_000_209, "items used": 3_706},
    "rating": {"users": 6_040, "items": 3_706, "behaviours": 1_000_209, "behaviours used": 739_012, "items used": 3_668},
}
"""Of the official ratings.dat."""


@dataclass(frozen=True, kw_only=True)
class Ml1mConfig:
    """Prepare MovieLens-1M.

    Raises:
        ValueError: a field is outside its range.
    """

    raw: Path
    """Folder of ratings.dat, users.dat and movies.dat."""
    out: Path
    """Folder to write; must not exist."""
    task: Literal["next_behaviour", "next_item", "rating"] = "next_behaviour"
    """next_behaviour: every rating is a behaviour, label 1, against items the user never touched (pre-ranking). next_item: every
    rating is a behaviour, to be found among all items (matching). rating: 3-star ratings are dropped, label = more than 3 stars."""
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)
    """How rows are split."""
    session_gap_minutes: float = 30.0
    """next_item only: a silence longer than this begins a new session (history feature hist_new_session)."""
    time_gaps: bool = False
    """next_item only: add the history feature hist_time_gap, the time from each behaviour to the next one, which HSTU reads."""
    download: bool = False
    """Fetch the official archive from GroupLens into `raw` first, where a file is missing."""
    overwrite: bool = False
    """Replace a prepared data set at `out`."""

    def __post_init__(self) -> None:
        longest = 2 ** (TIME_LAG_VOCAB - 1) // 60
        if not 0 <= self.session_gap_minutes <= longest:
            raise ValueError(f"session_gap_minutes={self.session_gap_minutes}, expected 0 to {longest}, the longest time lag")
        if self.time_gaps and self.task != "next_item":
            raise ValueError(f"time_gaps with task={self.task}, expected task=next_item: its models alone read them")
        if self.time_gaps and self.protocol.split == "user_windows":
            raise ValueError("time_gaps with split=user_windows, expected another one: in file order times go back")


def prepare_ml1m(config: Ml1mConfig) -> None:
    """Read, split and write; `config.out` appears complete or not at all.

    Raises:
        DataError: a raw file is missing or malformed, or a split gets no row.
        ValueError: `config.out` exists.
        ConnectionError: `config.download` cannot reach GroupLens.
    """
    with staged_folder(config.out, overwrite=config.overwrite) as folder:
        if config.download:
            fetch_archive(ml1m_raw.ARCHIVE_URL, md5=ml1m_raw.ARCHIVE_MD5, folder=config.raw, names=ml1m_raw.FILE_NAMES)
        raw = read_ml1m(config.raw)
        behaviours = _behaviours(raw, config)
        counts = _counts(raw, behaviours)
        if raw.md5["ratings.dat"] == ml1m_raw.RATINGS_MD5:
            assert counts == KNOWN_COUNTS[config.task], (
                f"counts {counts} of the official file, expected {KNOWN_COUNTS[config.task]}"
            )
        targets = choose_targets(behaviours, config=config.protocol, min_history=0 if config.task == "rating" else 1)
        schema = _schema(raw, config)
        num_rows = _write_rows(folder, schema, raw=raw, behaviours=behaviours, targets=targets, config=config)
        save_schema(folder, schema, num_rows=num_rows)
        counts |= {f"rows of {split}": rows for split, rows in num_rows.items()}
        write_json(folder / "vocabularies.json", _vocabularies(raw, schema))
        write_json(folder / "preparation.json", {"config": dataclasses.asdict(config), "md5": raw.md5, "counts": counts})
    print_counts(f"{schema.name} in {config.out}", counts)


def _behaviours(raw: RawMl1m, config: Ml1mConfig) -> Behaviours:
    """The task's behaviours with their labels, in the protocol's order."""
    if config.task == "rating":
        source_N, label_N = np.flatnonzero(raw.rating_N != 3), (raw.rating_N > 3).astype(np.float32)
    else:
        source_N, label_N = np.arange(len(raw.user_N)), np.ones(len(raw.user_N), np.float32)
    return Behaviours.from_events(
        raw.user_N[source_N],
        item_N=raw.item_N[source_N],
        time_N=raw.time_N[source_N],
        label_N=label_N[source_N],
        source_N=source_N,
        by="file" if config.protocol.split == "user_windows" else "time",
    )


def _counts(raw: RawMl1m, behaviours: Behaviours) -> dict[str, int]:
    """Users, items and behaviours of the raw file, and what the task uses of them."""
    return {
        "users": len(np.unique(raw.user_N)),
        "items": len(raw.raw_item_I),
        "behaviours": len(raw.user_N),
        "behaviours used": len(behaviours.user_N),
        "items used": len(np.unique(behaviours.item_N)),
    }


def _schema(raw: RawMl1m, config: Ml1mConfig) -> Schema:
    """The features in their fixed order; row counts are filled in later."""
    num_items, num_categories, num_genres = len(raw.raw_item_I), len(raw.categories), len(ml1m_raw.GENRES)

    def history(name: str, space: str, vocab_size: int) -> Feature:
        return Feature(name=name, side="history", space=space, vocab_size=vocab_size, max_len=HISTORY_LEN, min_len=0)

    features = (
        Feature(name="user", side="user", space="user", vocab_size=len(raw.raw_user_U)),
        Feature(name="gender", side="user", space="gender", vocab_size=len(ml1m_raw.GENDERS)),
        Feature(name="age", side="user", space="age", vocab_size=len(ml1m_raw.AGES)),
        Feature(name="occupation", side="user", space="occupation", vocab_size=len(ml1m_raw.OCCUPATIONS)),
        Feature(name="zip_region", side="user", space="zip_region", vocab_size=ml1m_raw.NUM_ZIP_REGIONS),
        history("hist_item", "item", num_items),
        history("hist_category", "category", num_categories),
        history("hist_time_lag", "time_lag", TIME_LAG_VOCAB),
        *([history("hist_new_session", "new_session", 2)] if config.task == "next_item" else []),
        *([history("hist_time_gap", "time_gap", TIME_GAP_VOCAB)] if config.time_gaps else []),
        Feature(name="item", side="item", space="item", vocab_size=num_items),
        Feature(name="category", side="item", space="category", vocab_size=num_categories),
        Feature(name="genres", side="item", space="genre", vocab_size=num_genres, max_len=num_genres, min_len=0),
    )
    name = f"ml1m/{config.task}/{config.protocol.split}"
    return Schema(name=name, features=features, user_key="user", item_key="item", task=config.task)


def _write_rows(
    folder: Path, schema: Schema, *, raw: RawMl1m, behaviours: Behaviours, targets: Targets, config: Ml1mConfig
) -> dict[str, int]:
    """Write items, user_items and every split; returns the rows of each split."""
    builder, seed = _row_builder(raw, behaviours, config), config.protocol.seed
    write_items(folder, schema, builder.item_columns)
    user_P, item_P = distinct_pairs(raw.user_N, raw.item_N)  # what the task drops was touched all the same
    write_user_items(folder, pa.array(user_P), pa.array(item_P))
    columns = {"train": partial(builder.labelled, targets.train_T)}
    if schema.task != "next_behaviour":
        columns["validation"] = partial(builder.labelled, targets.validation_T)
        columns["test"] = partial(builder.labelled, targets.test_T)
    else:
        touched = TouchedItems(user_P, item_P, num_users=len(raw.raw_user_U), num_items=len(raw.raw_item_I))
        paired = partial(builder.paired, sampler=NegativeSampler(touched, num=1, seed=seed), negative_row_id=len(raw.user_N))
        columns["validation"] = partial(paired, targets.validation_T)
        columns["test"] = partial(paired, targets.test_T)
        if schema.name.endswith("/leave_one_out"):
            # plus one: a user may have touched every item that train holds
            frequency_I = np.bincount(behaviours.item_N[targets.train_T], minlength=len(raw.raw_item_I)) + 1
            popularity = NegativeSampler(touched, num=1, seed=seed, frequency_I=frequency_I)
            columns["test_popularity"] = partial(paired, targets.test_T, sampler=popularity)
    # built one at a time: only one split's columns are in memory
    return {split: write_split(folder / split, schema, build()) for split, build in columns.items()}


def _row_builder(raw: RawMl1m, behaviours: Behaviours, config: Ml1mConfig) -> RowBuilder:
    """Columns by user id, by item id, and what each behaviour adds to histories."""
    category_I = raw.item_columns["category"].to_numpy()
    history_columns = {"hist_item": behaviours.item_N, "hist_category": category_I[behaviours.item_N]}
    if config.task == "next_item":
        history_columns["hist_new_session"] = behaviours.begins_session(gap_seconds=round(60 * config.session_gap_minutes))
    if config.time_gaps:
        history_columns["hist_time_gap"] = time_gap_bucket(behaviours.gap_to_next())
    return RowBuilder(
        behaviours=behaviours,
        user_columns={"user": pa.array(np.arange(len(raw.raw_user_U), dtype=np.int32))} | raw.user_columns,
        item_columns={"item": pa.array(np.arange(len(raw.raw_item_I), dtype=np.int32))} | raw.item_columns,
        history_columns=history_columns,
        time_lag="hist_time_lag",
        max_len=HISTORY_LEN,
    )


def _vocabularies(raw: RawMl1m, schema: Schema) -> dict[str, list[int] | list[str]]:
    """Raw value of every id, in id order, for each id space."""
    values = {
        "user": raw.raw_user_U.tolist(),
        "gender": list(ml1m_raw.GENDERS),
        "age": list(ml1m_raw.AGES.values()),
        "occupation": list(ml1m_raw.OCCUPATIONS),
        "zip_region": [f"{digit}...." for digit in range(ml1m_raw.NUM_ZIP_REGIONS)],
        "item": raw.raw_item_I.tolist(),
        "item_title": raw.title_I,
        "category": raw.categories,
        "genre": list(ml1m_raw.GENRES),
        "time_lag": ["0 s or less", *(f"{2**bucket} s to {2 ** (bucket + 1) - 1} s" for bucket in range(TIME_LAG_VOCAB - 1))],
        "new_session": ["no", "yes"],
        "time_gap": [f"2^({bucket - 1}/8) s or more" if bucket else "0 s or less" for bucket in range(TIME_GAP_VOCAB)],
    }
    spaces = {feature.space for feature in schema.features} | {"item_title"}
    return {space: value for space, value in values.items() if space in spaces}


if __name__ == "__main__":
    sys.exit(run_command(Ml1mConfig, prepare=prepare_ml1m, program="python -m dataloaders.prepare.ml1m"))
