"""Row groups are decoded once while they are open or cached; the items table is complete."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataloaders.errors import DataError
from dataloaders.parquet_reader import ParquetReader, RowGroup
from dataloaders.parquet_writer import split_types
from dataloaders.row_groups import BLOCK_ROWS, RowGroupStore, read_items
from dataloaders.sampler import LaneSampler
from tests.dataloaders.small_dataset import SCHEMA, SmallDataset, make_rows, write_small_dataset


class CountingReader(ParquetReader):
    """Remembers which row groups were decoded."""

    decoded: list[int]

    def read(self, position: int) -> RowGroup:
        self.decoded.append(position)
        return super().read(position)


def run_epochs(
    dataset: SmallDataset, *, cache_bytes: int, lanes: int = 2, batch_rows: int = 32, epochs: int = 3
) -> list[list[int]]:
    """Row groups decoded in each epoch."""
    reader = CountingReader.of_split(dataset.train, types=split_types(SCHEMA))
    store = RowGroupStore(reader, schema=SCHEMA, bad_rows="raise", cache_bytes=cache_bytes)
    sampler = LaneSampler([g.num_rows for g in reader.groups], batch_rows=batch_rows, lanes=lanes, seed=0, shuffle=True)
    decoded, row_ids = [], []
    for epoch in range(epochs):
        reader.decoded = []
        for batch in range(sampler.num_batches):
            parts, _ = store.fetch(sampler.segments(epoch=epoch, batch=batch))
            row_ids += [row_id for group, start, stop in parts for row_id in group.scalars["row_id"][start:stop].tolist()]
        decoded.append(reader.decoded)
    assert sorted(row_ids) == sorted(list(dataset.rows) * epochs)
    return decoded


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> SmallDataset:
    return write_small_dataset(tmp_path_factory.mktemp("small"), 640, rows_per_group=64)


def test_without_a_cache_an_epoch_decodes_every_row_group_once_and_twice_where_two_lanes_meet(dataset: SmallDataset) -> None:
    first, *later = run_epochs(dataset, cache_bytes=0)
    assert set(first) == set(range(10))
    assert len(first) <= 11
    for decoded in later:
        # the one or two that each of the two lanes had open may serve the next epoch
        assert 6 <= len(decoded) <= 11


def test_with_room_for_all_only_the_first_epoch_decodes(dataset: SmallDataset) -> None:
    first, *later = run_epochs(dataset, cache_bytes=2**30)
    assert sorted(first) == list(range(10))
    assert later == [[], []]


def test_with_room_for_some_the_others_are_decoded_again(dataset: SmallDataset) -> None:
    group = ParquetReader.of_split(dataset.train, types=split_types(SCHEMA)).read(0)
    _, *later = run_epochs(dataset, cache_bytes=int(4.5 * group.num_bytes))
    for decoded in later:
        assert 5 <= len(set(decoded)) <= 7


def test_row_groups_longer_than_a_block_give_every_row_once(tmp_path: Path) -> None:
    num_rows = 2 * BLOCK_ROWS + 100
    dataset = write_small_dataset(tmp_path, num_rows, rows_per_group=num_rows)
    assert run_epochs(dataset, cache_bytes=0, batch_rows=1000, epochs=2) == [[0], []]


def write_items_as(folder: Path, items: list[dict]) -> None:
    types = {"item": pa.int32(), "category": pa.int32(), "genres": pa.list_(pa.int32())}
    pq.write_table(pa.table({name: pa.array([i[name] for i in items], t) for name, t in types.items()}), folder / "items.parquet")


def test_the_items_table_must_be_complete_valid_and_in_order(tmp_path: Path) -> None:
    _, items = make_rows(1)
    write_items_as(tmp_path, items)
    assert read_items(tmp_path, SCHEMA).scalars["item"].tolist() == list(range(40))
    write_items_as(tmp_path, items[:-1])
    with pytest.raises(DataError, match=r"items.parquet: 39 rows, expected vocab_size=40 of 'item'"):
        read_items(tmp_path, SCHEMA)
    write_items_as(tmp_path, [*items[:7], items[8], items[7], *items[9:]])
    with pytest.raises(DataError, match=r"items.parquet, row 7, column 'item': id 8, expected 7"):
        read_items(tmp_path, SCHEMA)
    write_items_as(tmp_path, [*items[:-1], items[-1] | {"genres": [7]}])
    with pytest.raises(DataError, match=r"items.parquet, row 39, column 'genres': id too large: 7"):
        read_items(tmp_path, SCHEMA)
