"""Negatives and bad rows, as they arrive in the loader's batches."""

import json
import logging
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataloaders.errors import DataError
from dataloaders.loader import Dataloader
from dataloaders.negatives import NegativeConfig
from dataloaders.row_groups import skip_list
from tests.dataloaders.small_dataset import (
    NUM_ROWS,
    SmallDataset,
    batch_rows,
    key_values,
    make_loader,
    make_rows,
    prefetch_threads,
    to_columns,
    write_small_dataset,
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> SmallDataset:
    return write_small_dataset(tmp_path_factory.mktemp("small"), NUM_ROWS)


def test_negatives_follow_their_rows_with_label_zero_and_their_own_item_columns(dataset: SmallDataset) -> None:
    loader = make_loader(dataset, negatives=NegativeConfig(kind="uniform", num=2))
    total = 0
    for batch in loader:
        assert batch.global_rows == batch.num_rows
        assert batch.num_rows <= 48
        rows = batch_rows(batch)
        num_rows = len(rows) // 3
        total += num_rows
        for place, row in enumerate(rows):
            source = dataset.rows[rows[place % num_rows]["row_id"]]
            if place < num_rows:
                assert row == source
            else:
                assert row["item"] not in dataset.touched[row["user"]]
                assert row == source | dataset.items[row["item"]] | {"label": 0.0}
    assert total == NUM_ROWS


def test_a_rows_negatives_depend_on_seed_and_epoch_but_not_on_rank(dataset: SmallDataset) -> None:
    def drawn(loader: Dataloader) -> dict[int, int]:
        rows = [row for batch in loader for row in batch_rows(batch)[batch.num_rows // 2 :]]
        return {row["row_id"]: row["item"] for row in rows}

    config = {"negatives": NegativeConfig(kind="uniform")}
    loader = make_loader(dataset, **config)
    first, second = drawn(loader), drawn(loader)
    assert first != second
    halves = [drawn(make_loader(dataset, rank=rank, world_size=2, **config)) for rank in range(2)]
    assert halves[0] | halves[1] == first
    assert drawn(make_loader(dataset, seed=9, **config)) != first
    fixed = make_loader(dataset, negatives=NegativeConfig(kind="uniform", resample=False))
    assert drawn(fixed) == drawn(fixed) == first


def shared_items(loader: Dataloader) -> dict[int, tuple[int, ...]]:
    """Candidates that each row adds to its batch, by row_id, over the rest of the epoch; [num, P] behind the P rows."""
    drawn = {}
    for batch in loader:
        item_DP = batch.sequence["item"].values()[batch.num_rows :].view(-1, batch.num_rows)
        drawn |= {row: tuple(items) for row, items in zip(batch.row_id_B.tolist(), item_DP.T.tolist(), strict=True)}
    return drawn


def test_shared_negatives_stand_behind_the_rows_and_count_in_no_label(dataset: SmallDataset) -> None:
    loader = make_loader(dataset, negatives=NegativeConfig(kind="shared", num=2))
    seen, touched = 0, 0
    for batch in loader:
        seen += batch.num_rows
        assert batch.num_rows == batch.global_rows <= 48 // 3
        for keyed in (batch.pooled, batch.sequence):
            assert keyed.stride() == 3 * batch.num_rows
        for place, row_id in enumerate(batch.row_id_B.tolist()):
            source = dataset.rows[row_id]
            assert batch.label_B[place] == source["label"]
            assert key_values(batch.sequence, "hist_item")[place] == source["hist_item"]
            assert key_values(batch.sequence, "item")[place] == [source["item"]]
        items = batch.sequence["item"].values()[batch.num_rows :].tolist()
        assert key_values(batch.pooled, "genres")[batch.num_rows :] == [dataset.items[item]["genres"] for item in items]
        assert key_values(batch.pooled, "user")[batch.num_rows :] == [[]] * len(items)
        users = [dataset.rows[row_id]["user"] for row_id in batch.row_id_B.tolist()] * 2
        touched += sum(item in dataset.touched[user] for user, item in zip(users, items, strict=True))
    assert seen == NUM_ROWS
    assert touched > 0  # over the whole catalogue, without a look at who touched what


def test_a_rows_shared_negatives_depend_on_seed_and_epoch_but_not_on_rank_or_batch(dataset: SmallDataset) -> None:
    config = {"negatives": NegativeConfig(kind="shared", num=3), "batch_size": 64}
    loader = make_loader(dataset, **config)
    first, second = shared_items(loader), shared_items(loader)
    assert first.keys() == dataset.rows.keys()
    assert sum(first[row] == second[row] for row in first) < 5
    for world_size in (2, 4):
        ranks = [shared_items(make_loader(dataset, rank=rank, world_size=world_size, **config)) for rank in range(world_size)]
        assert {row: items for drawn in ranks for row, items in drawn.items()} == first
    assert shared_items(make_loader(dataset, **(config | {"batch_size": 200}))) == first
    assert shared_items(make_loader(dataset, seed=9, **config)) != first
    fixed = make_loader(dataset, **(config | {"negatives": NegativeConfig(kind="shared", num=3, resample=False)}))
    assert shared_items(fixed) == shared_items(fixed) == first


def test_ranks_count_the_labelled_rows_of_the_whole_batch_beside_their_shared_negatives(dataset: SmallDataset) -> None:
    config = {"negatives": NegativeConfig(kind="shared", num=2)}
    ranks = [list(make_loader(dataset, rank=rank, world_size=2, **config)) for rank in range(2)]
    for first, second in zip(*ranks, strict=True):
        assert first.global_rows == second.global_rows == first.num_rows + second.num_rows


def test_an_item_missing_from_user_items_is_found_when_it_is_drawn_as_its_own_negative(tmp_path: Path) -> None:
    dataset = write_small_dataset(tmp_path, 200)
    pq.write_table(pa.table({"user": pa.array([], pa.int32()), "item": pa.array([], pa.int32())}), tmp_path / "user_items.parquet")
    with pytest.raises(DataError, match=r"row_id=\d+: its own item \d+ was drawn as a negative"):
        list(make_loader(dataset, negatives=NegativeConfig(kind="uniform", num=4)))


def write_with_bad_rows(folder: Path) -> SmallDataset:
    rows, _ = make_rows(NUM_ROWS)
    for place in (3, 70, 400):
        rows[place]["item"] = 4000
    rows[3]["label"] = float("nan")
    pq_columns = to_columns(rows)
    dataset = write_small_dataset(folder, NUM_ROWS)
    for place, path in enumerate(sorted(dataset.train.iterdir())):
        table = pa.table({name: column.slice(place * 192, 192) for name, column in pq_columns.items()})
        pq.write_table(table, path, row_group_size=64, write_page_checksum=True)
    return dataset


@pytest.mark.parametrize("prefetch", [0, 2])
def test_skipped_rows_are_counted_and_reported_once_an_epoch(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, prefetch: int
) -> None:
    loader = make_loader(write_with_bad_rows(tmp_path), bad_rows="skip", prefetch=prefetch)
    for epoch in range(2):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            batches = list(loader)
        assert sum(batch.num_rows for batch in batches) == NUM_ROWS - 3
        assert sum(int(batch.global_rows) for batch in batches) == NUM_ROWS
        assert loader.skipped == {("item", "id too large"): 2, ("label", "NaN"): 1}
        assert [record.getMessage().split("train: ")[1] for record in caplog.records] == [
            f"epoch {epoch}, rank 0 left out 3 rows: item: id too large: 2, label: NaN: 1"
        ]


def test_every_rank_counts_the_skipped_rows_of_its_own_share(tmp_path: Path) -> None:
    dataset = write_with_bad_rows(tmp_path)
    loaders = [make_loader(dataset, bad_rows="skip", rank=rank, world_size=4) for rank in range(4)]
    assert sum(batch.num_rows for loader in loaders for batch in loader) == NUM_ROWS - 3
    assert sum(loader.skipped.total() for loader in loaders) == 3


def test_the_total_of_skipped_rows_goes_on_over_epochs_and_a_resume_and_ranks_sum_to_it(tmp_path: Path) -> None:
    dataset = write_with_bad_rows(tmp_path)
    loader = make_loader(dataset, bad_rows="skip")
    for _ in range(2):
        list(loader)
    assert loader.skipped_total == {("item", "id too large"): 4, ("label", "NaN"): 2}
    state = json.loads(json.dumps(loader.state_dict()))
    ranks = [make_loader(dataset, bad_rows="skip", rank=rank, world_size=4) for rank in range(4)]
    for rank in ranks:
        rank.load_state_dict(state)
        rank.seek(epoch=2)
        list(rank)
    assert sum((rank.skipped_total for rank in ranks), Counter()) == {("item", "id too large"): 6, ("label", "NaN"): 3}
    whole = make_loader(dataset, bad_rows="skip")
    whole.load_state_dict(ranks[0].state_dict() | {"skipped_total": skip_list(sum((r.skipped_total for r in ranks), Counter()))})
    assert whole.skipped_total.total() == 9


@pytest.mark.parametrize("prefetch", [0, 2])
def test_a_bad_row_raises_in_the_caller_and_leaves_the_position_behind_the_last_good_batch(tmp_path: Path, prefetch: int) -> None:
    loader = make_loader(write_with_bad_rows(tmp_path), shuffle=False, lanes=1, prefetch=prefetch)
    with pytest.raises(DataError, match=r"part-00000.parquet, row group 0, row 3 \(row_id=\d+\), column 'label': NaN"):
        list(loader)
    assert loader.state_dict()["batch"] == 0
    assert not prefetch_threads()


def test_a_share_whose_rows_were_all_skipped_is_an_error(tmp_path: Path) -> None:
    dataset = write_small_dataset(tmp_path, 64)
    columns = to_columns(list(dataset.rows.values())) | {"item": pa.array([99] * 64, pa.int32())}
    pq.write_table(pa.table(columns), dataset.train / "part-00000.parquet", write_page_checksum=True)
    with pytest.raises(DataError, match=r"epoch 0, batch 0: every row of rank 0 breaks the schema: .*id too large"):
        next(iter(make_loader(dataset, bad_rows="skip")))
