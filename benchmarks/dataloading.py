"""Rows per second of the loader against per-row collation, on one core: `python -m benchmarks.dataloading`.

All variants make the same batches (two histories of length 50, one multi-valued item feature, five scalars) from the same files in
one process pinned to one core. The headline is rows per CPU second, which other load on the machine disturbs least; wall-clock rows
per second are printed beside it. Ratios compare medians of the same run.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import tyro
from torch.utils.data import DataLoader, Dataset
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from benchmarks.result_rows import append_rows
from dataloaders.batch import Batch
from dataloaders.loader import Dataloader, LoaderConfig
from dataloaders.negatives import NegativeConfig
from dataloaders.parquet_reader import ParquetReader, RowGroup
from dataloaders.parquet_writer import split_types, write_items, write_split, write_user_items
from dataloaders.schema import Feature, Schema
from trainer.provenance import provenance

NUM_USERS, NUM_ITEMS, NUM_CATEGORIES, NUM_GENRES, HISTORY = 6_000, 3_700, 300, 18, 50

SCHEMA = Schema(
    name="benchmark",
    features=(
        Feature(name="user", side="user", space="user", vocab_size=NUM_USERS),
        Feature(name="age", side="user", space="age", vocab_size=7),
        Feature(name="hist_item", side="history", space="item", vocab_size=NUM_ITEMS, max_len=HISTORY, min_len=0),
        Feature(name="hist_category", side="history", space="category", vocab_size=NUM_CATEGORIES, max_len=HISTORY, min_len=0),
        Feature(name="item", side="item", space="item", vocab_size=NUM_ITEMS),
        Feature(name="category", side="item", space="category", vocab_size=NUM_CATEGORIES),
        Feature(name="genres", side="item", space="genre", vocab_size=NUM_GENRES, max_len=4, min_len=0),
    ),
    user_key="user",
    item_key="item",
)


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `python -m benchmarks.dataloading`."""

    rows: int = 300_000
    """Rows of the generated data set."""
    slow_rows: int = 65_536
    """Rows that the per-row variants are timed on; a whole row group, so that they do not decode rows in vain."""
    batch_size: int = 2048
    repeats: int = 3
    """Timed runs of each variant; median, least and most are reported."""
    seed: int = 0
    out: Path | None = Path("benchmarks/results/dataloading.csv")
    """CSV file that the results are appended to."""


def generate(folder: Path, *, num_rows: int, seed: int) -> None:
    """Consecutive windows of popularity-skewed behaviour sequences: row r is the 50 behaviours before one target."""
    rng = np.random.default_rng(seed)
    per_user = max(1, -(-num_rows // NUM_USERS))
    behaviours = (rng.zipf(1.3, (NUM_USERS, per_user + HISTORY)) % NUM_ITEMS).astype(np.int32)
    user, place = np.divmod(np.arange(num_rows), per_user)
    window = behaviours[user[:, None], place[:, None] + np.arange(HISTORY)].ravel()
    target = behaviours[user, place + HISTORY]
    category = rng.integers(0, NUM_CATEGORIES, NUM_ITEMS).astype(np.int32)
    genre_offsets = np.concatenate([[0], np.cumsum(rng.integers(0, 5, NUM_ITEMS))])
    genres = pa.ListArray.from_arrays(
        pa.array(genre_offsets, pa.int32()), pa.array(rng.integers(0, NUM_GENRES, genre_offsets[-1]), pa.int32())
    )
    history_offsets = pa.array(np.arange(num_rows + 1) * HISTORY, pa.int32())
    columns = {
        "row_id": pa.array(np.arange(num_rows)),
        "label": pa.array(np.ones(num_rows)),
        "user": pa.array(user),
        "age": pa.array(user % 7),
        "hist_item": pa.ListArray.from_arrays(history_offsets, pa.array(window)),
        "hist_category": pa.ListArray.from_arrays(history_offsets, pa.array(category[window])),
        "item": pa.array(target),
        "category": pa.array(category[target]),
        "genres": genres.take(pa.array(target)),
    }
    write_split(folder / "train", SCHEMA, columns)
    write_items(folder, SCHEMA, {"item": pa.array(np.arange(NUM_ITEMS)), "category": pa.array(category), "genres": genres})
    touched = np.unique(np.repeat(np.arange(NUM_USERS), behaviours.shape[1]) * NUM_ITEMS + behaviours.ravel())
    write_user_items(folder, pa.array(touched // NUM_ITEMS), pa.array(touched % NUM_ITEMS))


def to_batch(columns: dict[str, torch.Tensor], lengths: dict[str, torch.Tensor]) -> Batch:
    """A batch from every column's ids and lengths, for the variants that are compared with the loader."""

    def keyed(features: tuple[Feature, ...]) -> KeyedJaggedTensor:
        names = [feature.name for feature in features]
        values, every = torch.cat([columns[name] for name in names]), torch.cat([lengths[name] for name in names])
        return KeyedJaggedTensor(keys=names, values=values, lengths=every, stride=len(columns["label"]))

    return Batch(
        pooled=keyed(SCHEMA.pooled_features),
        sequence=keyed(SCHEMA.sequence_features),
        label_B=columns["label"],
        row_id_B=columns["row_id"],
        global_rows=torch.tensor(len(columns["label"])),
    )


def python_rows(folder: Path, options: Options) -> Iterator[Batch]:
    """Rows as Python objects, shuffled within the row group, appended id by id: what a first version looks like."""
    rng = np.random.default_rng(options.seed)
    with pq.ParquetFile(folder / "train" / "part-00000.parquet") as file:
        rows = file.read_row_group(0).slice(0, options.slow_rows).to_pylist()
    order = rng.permutation(len(rows))
    for start in range(0, len(rows), options.batch_size):
        chosen = [rows[i] for i in order[start : start + options.batch_size]]
        columns, lengths = {}, {}
        for feature in SCHEMA.features:
            name, ids = feature.name, []
            for row in chosen:
                ids.extend(row[name] if feature.is_list else [row[name]])
            columns[name] = torch.tensor(ids, dtype=torch.int64)
            lengths[name] = torch.tensor([len(row[name]) if feature.is_list else 1 for row in chosen], dtype=torch.int32)
        columns["label"] = torch.tensor([row["label"] for row in chosen])
        columns["row_id"] = torch.tensor([row["row_id"] for row in chosen])
        yield to_batch(columns, lengths)


class RowDataset(Dataset[dict[str, torch.Tensor]]):
    """Map-style access to one decoded row group: a dict of tensors a row."""

    def __init__(self, group: RowGroup, num_rows: int) -> None:
        self._group, self._num_rows = group, num_rows

    def __len__(self) -> int:
        return self._num_rows

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        sample = {name: torch.as_tensor(column[row]) for name, column in self._group.scalars.items()}
        for name, column in self._group.lists.items():
            sample[name] = torch.as_tensor(column.values[column.offsets[row] : column.offsets[row + 1]].astype(np.int64))
        return sample


def collate_samples(samples: list[dict[str, torch.Tensor]]) -> Batch:
    """Concatenate lists and stack scalars, feature by feature."""
    columns, lengths = {}, {}
    for feature in SCHEMA.features:
        ids = [sample[feature.name] for sample in samples]
        columns[feature.name] = torch.cat(ids) if feature.is_list else torch.stack(ids).long()
        lengths[feature.name] = torch.tensor([tensor.numel() for tensor in ids], dtype=torch.int32)
    for name in ("label", "row_id"):
        columns[name] = torch.stack([sample[name] for sample in samples])
    return to_batch(columns, lengths)


def torch_dataloader(folder: Path, options: Options) -> Iterator[Batch]:
    """torch.utils.data.DataLoader over the same decoded rows."""
    group = ParquetReader.of_split(folder / "train", types=split_types(SCHEMA)).read(0)
    dataset = RowDataset(group, min(options.slow_rows, group.num_rows))
    return iter(DataLoader(dataset, batch_size=options.batch_size, shuffle=True, collate_fn=collate_samples))


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Rows per second of each repeat."""

    variant: str
    wall: list[float]
    cpu: list[float]


def measure(variant: str, batches: Callable[[], Iterator[Batch]], *, repeats: int) -> Timing:
    """Time `repeats` full passes; `batches` starts one."""
    wall, cpu = [], []
    for _ in range(repeats):
        wall_start, cpu_start = time.perf_counter(), time.process_time()
        rows = sum(batch.num_rows for batch in batches())
        wall.append(rows / (time.perf_counter() - wall_start))
        cpu.append(rows / (time.process_time() - cpu_start))
    return Timing(variant=variant, wall=wall, cpu=cpu)


def measure_all(folder: Path, options: Options) -> list[Timing]:
    """Every variant, the slow ones first."""

    def loader(negatives: NegativeConfig) -> Dataloader:
        config = LoaderConfig(batch_size=options.batch_size, prefetch=0, negatives=negatives)
        return Dataloader(SCHEMA, folder / "train", config=config, seed=options.seed, shuffle=True)

    timings = [
        measure("python_rows", lambda: python_rows(folder, options), repeats=options.repeats),
        measure("torch_dataloader", lambda: torch_dataloader(folder, options), repeats=options.repeats),
    ]
    for name, negatives in (("loader", NegativeConfig()), ("loader+uniform", NegativeConfig(kind="uniform"))):
        timings.append(measure(f"{name} cold", lambda negatives=negatives: iter(loader(negatives)), repeats=options.repeats))
        warm = loader(negatives)
        measure("fill the cache", lambda warm=warm: iter(warm), repeats=1)
        timings.append(measure(f"{name} cached", lambda warm=warm: iter(warm), repeats=options.repeats))
    return timings


def report(timings: list[Timing], options: Options) -> list[dict[str, object]]:
    """Print the table; returns the rows for the CSV file."""
    base = {timing.variant: statistics.median(timing.cpu) for timing in timings}
    rows: list[dict[str, object]] = []
    print(f"{'variant':<24}{'rows per CPU second':>36}{'rows/s':>12}{'x python_rows':>15}{'x torch_dataloader':>20}")
    for timing in timings:
        median = statistics.median(timing.cpu)
        ratios = median / base["python_rows"], median / base["torch_dataloader"]
        spread = f"{median:,.0f} ({min(timing.cpu):,.0f} .. {max(timing.cpu):,.0f})"
        print(f"{timing.variant:<24}{spread:>36}{statistics.median(timing.wall):>12,.0f}{ratios[0]:>15.1f}{ratios[1]:>20.1f}")
        rows.append(
            {
                **provenance(),
                "variant": timing.variant,
                "rows": options.rows,
                "history": HISTORY,
                "batch_size": options.batch_size,
                "seed": options.seed,
                "repeats": options.repeats,
                "rows_per_cpu_second": round(median),
                "least": round(min(timing.cpu)),
                "most": round(max(timing.cpu)),
                "rows_per_second": round(statistics.median(timing.wall)),
                "times_python_rows": round(ratios[0], 2),
                "times_torch_dataloader": round(ratios[1], 2),
            }
        )
    return rows


def main() -> None:
    """Generate the data, measure, print, append."""
    options = tyro.cli(Options, description=__doc__)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    pa.set_cpu_count(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        generate(folder, num_rows=options.rows, seed=options.seed)
        rows = report(measure_all(folder, options), options)
    if options.out is not None:
        append_rows(options.out, rows)


if __name__ == "__main__":
    main()
