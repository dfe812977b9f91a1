"""A small prepared data set with everything that real ones have: several files, ragged row groups, empty lists, new users."""

import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from dataloaders.batch import Batch
from dataloaders.loader import Dataloader, LoaderConfig
from dataloaders.parquet_writer import write_items, write_split, write_user_items
from dataloaders.schema import Feature, Schema

NUM_ROWS = 500
NUM_USERS, NUM_ITEMS, MAX_LEN = 60, 40, 6

SCHEMA = Schema(
    name="small",
    features=(
        Feature(name="user", side="user", space="user", vocab_size=NUM_USERS),
        Feature(name="hist_item", side="history", space="item", vocab_size=NUM_ITEMS, max_len=MAX_LEN, min_len=0),
        Feature(name="hist_category", side="history", space="category", vocab_size=5, max_len=MAX_LEN, min_len=0),
        Feature(name="interests", side="user", space="interest", vocab_size=9, max_len=3, min_len=1),
        Feature(name="item", side="item", space="item", vocab_size=NUM_ITEMS),
        Feature(name="category", side="item", space="category", vocab_size=5),
        Feature(name="genres", side="item", space="genre", vocab_size=7, max_len=3, min_len=0),
    ),
    user_key="user",
    item_key="item",
)


@dataclass(frozen=True)
class SmallDataset:
    """A written data set, and the same rows as Python values."""

    folder: Path
    rows: dict[int, dict]
    """row_id -> column -> value."""
    items: list[dict]
    touched: dict[int, set[int]]

    @property
    def train(self) -> Path:
        """The split's folder."""
        return self.folder / "train"


def make_rows(num_rows: int, *, seed: int = 0) -> tuple[list[dict], list[dict]]:
    """Random rows and items; row ids are distinct but neither dense nor ordered."""
    rng = np.random.default_rng(seed)
    items = [
        {"item": i, "category": int(rng.integers(5)), "genres": rng.integers(0, 7, rng.integers(0, 4)).tolist()}
        for i in range(NUM_ITEMS)
    ]
    rows = []
    for number, row_id in enumerate(rng.permutation(num_rows)):
        history = rng.integers(0, NUM_ITEMS, rng.integers(0, MAX_LEN + 1)).tolist()
        user = {"user": int(rng.integers(NUM_USERS)), "interests": rng.integers(0, 9, rng.integers(1, 4)).tolist()}
        behaviours = {"hist_item": history, "hist_category": [items[i]["category"] for i in history]}
        # half of the catalogue only, so that every user has untouched items
        target = items[int(rng.integers(NUM_ITEMS // 2))]
        rows.append({"row_id": 1000 + 7 * int(row_id), "label": float(number % 2)} | user | behaviours | target)
    return rows, items


def to_columns(rows: list[dict], *, schema: Schema = SCHEMA) -> dict[str, pa.Array]:
    """Arrow columns of split rows."""
    types = {schema.row_id: pa.int64(), schema.label: pa.float32()}
    types |= {f.name: pa.list_(pa.int32()) if f.is_list else pa.int32() for f in schema.features}
    return {name: pa.array([row[name] for row in rows], type=arrow_type) for name, arrow_type in types.items()}


def write_small_dataset(
    folder: Path, num_rows: int, *, rows_per_group: int = 64, groups_per_file: int = 3, seed: int = 0
) -> SmallDataset:
    """Write items, user_items and a train split below `folder`."""
    rows, items = make_rows(num_rows, seed=seed)
    rows_per_file = rows_per_group * groups_per_file
    write_split(folder / "train", SCHEMA, to_columns(rows), rows_per_group=rows_per_group, rows_per_file=rows_per_file)
    item_columns = {
        name: pa.array([item[name] for item in items], type=pa.list_(pa.int32()) if name == "genres" else pa.int32())
        for name in ("item", "category", "genres")
    }
    write_items(folder, SCHEMA, item_columns)
    pairs = sorted({(row["user"], row["item"]) for row in rows})
    write_user_items(folder, pa.array([user for user, _ in pairs]), pa.array([item for _, item in pairs]))
    SCHEMA.save(folder)
    touched = {user: {item for other, item in pairs if other == user} for user in range(NUM_USERS)}
    return SmallDataset(folder=folder, rows={row["row_id"]: row for row in rows}, items=items, touched=touched)


def key_values(keyed: KeyedJaggedTensor, key: str) -> list[list[int]]:
    """The ids of one key, row by row."""
    jagged = keyed[key]
    ends = torch.cumsum(jagged.lengths(), 0).tolist()
    values = jagged.values().tolist()
    return [values[end - length : end] for end, length in zip(ends, jagged.lengths().tolist(), strict=True)]


def batch_rows(batch: Batch) -> list[dict]:
    """A batch as Python rows, in order."""
    columns = {"row_id": batch.row_id_B.tolist(), "label": batch.label_B.tolist()}
    for keyed in (batch.pooled, batch.sequence):
        for key in keyed.keys():  # noqa: SIM118 (a KeyedJaggedTensor is no dict)
            feature, lists = SCHEMA.feature(key), key_values(keyed, key)
            columns[key] = lists if feature.is_list else [only for (only,) in lists]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def make_loader(
    dataset: SmallDataset, *, seed: int = 3, shuffle: bool = True, rank: int = 0, world_size: int = 1, **config
) -> Dataloader:
    """A loader of the train split with small batches."""
    defaults = {"batch_size": 48, "lanes": 8, "prefetch": 0}
    loader_config = LoaderConfig(**(defaults | config))
    return Dataloader(SCHEMA, dataset.train, config=loader_config, seed=seed, shuffle=shuffle, rank=rank, world_size=world_size)


def prefetch_threads() -> list[threading.Thread]:
    """The loaders' background threads that are alive."""
    return [thread for thread in threading.enumerate() if thread.name == "dataloader-prefetch"]
