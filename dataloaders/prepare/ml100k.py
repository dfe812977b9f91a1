"""MovieLens-100K to a prepared data set for matching models: `python -m dataloaders.prepare.ml100k --raw DIR --out DIR`.

Task next_item, split leave_one_out by time: each user's last rating is the test row, the last but one the validation row. Users
and items are ids alone. row_id is the row of u.data (from 0); `vocabularies.json` holds the raw ids.
"""

import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from dataloaders.parquet_writer import write_items, write_split, write_user_items
from dataloaders.prepare.behaviours import TIME_LAG_VOCAB, Behaviours, RowBuilder, distinct_pairs
from dataloaders.prepare.common import print_counts, run_command, save_schema, staged_folder, write_json
from dataloaders.prepare.download import fetch_archive
from dataloaders.prepare.protocols import ProtocolConfig, choose_targets
from dataloaders.prepare.raw_lines import read_lines
from dataloaders.schema import Feature, Schema

ARCHIVE_URL = "https://files.grouplens.org/datasets/movielens/ml-100k.zip"
ARCHIVE_MD5 = "0e33842e24a9c977be4e0107933c0723"
FILE_NAME = "u.data"
PATTERN = r"^([0-9]{1,9})\t([0-9]{1,9})\t([1-5])\t([0-9]{1,10})$"
HISTORY_LEN = 50


@dataclass(frozen=True, kw_only=True)
class Ml100kConfig:
    """Prepare MovieLens-100K."""

    raw: Path
    """Folder of u.data."""
    out: Path
    """Folder to write; must not exist."""
    download: bool = False
    """Fetch the official archive from GroupLens into `raw` first, where the file is missing."""
    overwrite: bool = False
    """Replace a prepared data set at `out`."""


def prepare_ml100k(config: Ml100kConfig) -> None:
    """Read, split and write; `config.out` appears complete or not at all.

    Raises:
        DataError: u.data is missing or malformed, or a split gets no row.
        ValueError: `config.out` exists.
        ConnectionError: `config.download` cannot reach GroupLens.
    """
    with staged_folder(config.out, overwrite=config.overwrite) as folder:
        if config.download:
            fetch_archive(ARCHIVE_URL, md5=ARCHIVE_MD5, folder=config.raw, names=(FILE_NAME,))
        path = config.raw / FILE_NAME
        expected = "user, item, rating (1 to 5) and seconds, with tabs between"
        fields = read_lines(path, PATTERN, expected=expected, url=ARCHIVE_URL, names=FILE_NAME)
        raw_user_N, raw_item_N, time_N = (fields[f"field_{column}"].cast(int).to_numpy() for column in (1, 2, 4))
        raw_user_U, user_N = np.unique(raw_user_N, return_inverse=True)
        raw_item_I, item_N = np.unique(raw_item_N, return_inverse=True)
        schema = _schema(num_users=len(raw_user_U), num_items=len(raw_item_I))
        num_rows = _write_rows(folder, schema, user_N=user_N.astype(np.int32), item_N=item_N.astype(np.int32), time_N=time_N)
        save_schema(folder, schema, num_rows=num_rows)
        write_json(folder / "vocabularies.json", {"user": raw_user_U.tolist(), "item": raw_item_I.tolist()})
        md5 = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        counts = {"users": len(raw_user_U), "items": len(raw_item_I), "behaviours": len(user_N)}
        counts |= {f"rows of {split}": rows for split, rows in num_rows.items()}
        write_json(folder / "preparation.json", {"md5": {FILE_NAME: md5}, "counts": counts})
    print_counts(f"{schema.name} in {config.out}", counts)


def _schema(*, num_users: int, num_items: int) -> Schema:
    def history(name: str, space: str, vocab_size: int) -> Feature:
        return Feature(name=name, side="history", space=space, vocab_size=vocab_size, max_len=HISTORY_LEN, min_len=0)

    features = (
        Feature(name="user", side="user", space="user", vocab_size=num_users),
        history("hist_item", "item", num_items),
        history("hist_time_lag", "time_lag", TIME_LAG_VOCAB),
        Feature(name="item", side="item", space="item", vocab_size=num_items),
    )
    return Schema(name="ml100k/next_item/leave_one_out", features=features, user_key="user", item_key="item", task="next_item")


def _write_rows(folder: Path, schema: Schema, *, user_N: np.ndarray, item_N: np.ndarray, time_N: np.ndarray) -> dict[str, int]:
    """Write items, user_items and every split; returns the rows of each split."""
    num_users, num_items = (schema.feature(name).vocab_size for name in ("user", "item"))
    label_N, source_N = np.ones(len(user_N), np.float32), np.arange(len(user_N))
    behaviours = Behaviours.from_events(user_N, item_N=item_N, time_N=time_N, label_N=label_N, source_N=source_N, by="time")
    builder = RowBuilder(
        behaviours=behaviours,
        user_columns={"user": pa.array(np.arange(num_users, dtype=np.int32))},
        item_columns={"item": pa.array(np.arange(num_items, dtype=np.int32))},
        history_columns={"hist_item": behaviours.item_N},
        time_lag="hist_time_lag",
        max_len=HISTORY_LEN,
    )
    write_items(folder, schema, builder.item_columns)
    user_P, item_P = distinct_pairs(user_N, item_N)
    write_user_items(folder, pa.array(user_P), pa.array(item_P))
    targets = choose_targets(behaviours, config=ProtocolConfig(validation="last_but_one"), min_history=1)
    chosen = {"train": targets.train_T, "validation": targets.validation_T, "test": targets.test_T}
    return {split: write_split(folder / split, schema, builder.labelled(target_T)) for split, target_T in chosen.items()}


if __name__ == "__main__":
    sys.exit(run_command(Ml100kConfig, prepare=prepare_ml100k, program="python -m dataloaders.prepare.ml100k"))
