"""The loader as a whole: every row once, any world size, any position, any way of running."""

import dataclasses
import gc
from itertools import chain
from pathlib import Path

import pytest
import torch

from dataloaders.batch import Batch
from dataloaders.errors import DataError
from dataloaders.loader import Dataloader, LoaderConfig
from dataloaders.negatives import NegativeConfig
from dataloaders.schema import Schema
from tests.dataloaders.small_dataset import (
    NUM_ROWS,
    SCHEMA,
    SmallDataset,
    batch_rows,
    make_loader,
    prefetch_threads,
    write_small_dataset,
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> SmallDataset:
    return write_small_dataset(tmp_path_factory.mktemp("small"), NUM_ROWS)


def row_ids(batches: list[Batch]) -> list[list[int]]:
    return [batch.row_id_B.tolist() for batch in batches]


def assert_same_batches(first: list[Batch], second: list[Batch]) -> None:
    assert len(first) == len(second) > 0
    for a, b in zip(first, second, strict=True):
        assert a.global_rows == b.global_rows
        for x, y in ((a.pooled, b.pooled), (a.sequence, b.sequence)):
            assert x.keys() == y.keys()
            assert torch.equal(x.values(), y.values())
            assert torch.equal(x.lengths(), y.lengths())
        assert torch.equal(a.label_B, b.label_B)
        assert torch.equal(a.row_id_B, b.row_id_B)


def test_batches_hold_every_row_of_the_split_once_with_all_its_values(dataset: SmallDataset) -> None:
    seen = [row for batch in make_loader(dataset) for row in batch_rows(batch)]
    assert len(seen) == NUM_ROWS
    assert {row["row_id"]: row for row in seen} == dataset.rows


def test_tensors_have_the_types_and_key_orders_of_the_contract(dataset: SmallDataset) -> None:
    batch = next(iter(make_loader(dataset)))
    assert batch.pooled.keys() == [feature.name for feature in SCHEMA.pooled_features]
    assert batch.sequence.keys() == [feature.name for feature in SCHEMA.sequence_features]
    for keyed in (batch.pooled, batch.sequence):
        assert (keyed.values().dtype, keyed.lengths().dtype) == (torch.int64, torch.int32)
        assert keyed.stride() == batch.num_rows
    assert (batch.label_B.dtype, batch.row_id_B.dtype) == (torch.float32, torch.int64)
    assert (batch.global_rows.dtype, batch.global_rows.shape) == (torch.int64, torch.Size([]))


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("world_size", [2, 4, 8])
def test_shares_of_all_ranks_concatenate_to_the_batch_of_one_process(dataset: SmallDataset, world_size: int, shuffle: bool) -> None:
    whole = list(make_loader(dataset, shuffle=shuffle))
    ranks = [list(make_loader(dataset, shuffle=shuffle, rank=rank, world_size=world_size)) for rank in range(world_size)]
    for index, batch in enumerate(whole):
        shares = [batches[index] for batches in ranks]
        assert [row for share in shares for row in batch_rows(share)] == batch_rows(batch)
        assert all(share.global_rows == batch.num_rows == batch.global_rows for share in shares)
        assert min(share.num_rows for share in shares) > 0
        assert batch.num_rows <= 48


def test_a_rank_decodes_little_more_than_its_part_of_the_row_groups(tmp_path: Path) -> None:
    dataset = write_small_dataset(tmp_path, 2048, rows_per_group=16)
    loader = make_loader(dataset, lanes=4, rank=1, world_size=4, cache_bytes=0)
    positions: list[int] = []
    read = loader._reader.read
    loader._reader.read = lambda position: (positions.append(position), read(position))[1]
    assert sum(batch.num_rows for batch in loader) == 512
    assert len(positions) <= 512 // 16 + 1
    assert len(set(positions)) == len(positions)


def test_epochs_differ_when_shuffled_and_repeat_when_not(dataset: SmallDataset) -> None:
    shuffled, plain = make_loader(dataset), make_loader(dataset, shuffle=False)
    first, second = row_ids(list(shuffled)), row_ids(list(shuffled))
    assert first != second
    assert sorted(chain(*first)) == sorted(chain(*second))
    assert row_ids(list(plain)) == row_ids(list(plain))
    assert row_ids(list(make_loader(dataset, seed=4))) != first


@pytest.mark.parametrize("negatives", ["none", "uniform", "popularity", "shared"])
@pytest.mark.parametrize(("prefetch", "cache_bytes"), [(0, 0), (2, 0), (2, 40_000), (3, 2**30)])
def test_batches_do_not_depend_on_prefetch_and_cache(
    dataset: SmallDataset, prefetch: int, cache_bytes: int, negatives: str
) -> None:
    config = {"negatives": NegativeConfig(kind=negatives)}
    expected, found = make_loader(dataset, **config), make_loader(dataset, prefetch=prefetch, cache_bytes=cache_bytes, **config)
    for _ in range(2):
        assert_same_batches(list(expected), list(found))


@pytest.mark.parametrize("prefetch", [0, 2])
def test_state_restores_the_next_batch_exactly_even_with_another_world_size(dataset: SmallDataset, prefetch: int) -> None:
    config = {"negatives": NegativeConfig(kind="uniform", num=2), "prefetch": prefetch}
    loader = make_loader(dataset, **config)
    list(loader)
    batches = iter(loader)
    for _ in range(5):
        next(batches)
    state = loader.state_dict()
    assert (state["epoch"], state["batch"]) == (1, 5)
    rest = list(batches)

    resumed = make_loader(dataset, **config)
    resumed.load_state_dict(state)
    assert_same_batches(rest, list(resumed))
    halves = [make_loader(dataset, rank=rank, world_size=2, **config) for rank in range(2)]
    for half in halves:
        half.load_state_dict(state)
    first, second = (list(half) for half in halves)
    for whole, a, b in zip(rest, first, second, strict=True):
        blocks = zip(a.row_id_B.view(3, -1), b.row_id_B.view(3, -1), strict=True)
        assert torch.equal(whole.row_id_B, torch.cat([half for block in blocks for half in block]))


def test_state_restores_shared_negatives_too_and_is_refused_with_others(dataset: SmallDataset) -> None:
    config = {"negatives": NegativeConfig(kind="shared", num=2), "prefetch": 2}
    loader = make_loader(dataset, **config)
    list(loader)
    batches = iter(loader)
    for _ in range(3):
        next(batches)
    state = loader.state_dict()
    rest = list(batches)
    resumed = make_loader(dataset, **config)
    resumed.load_state_dict(state)
    assert_same_batches(rest, list(resumed))
    for other in (NegativeConfig(kind="shared", num=1), NegativeConfig(kind="uniform", num=2)):
        with pytest.raises(ValueError, match="loader state was taken with negatives="):
            make_loader(dataset, negatives=other).load_state_dict(state)


def test_position_after_the_last_batch_is_the_start_of_the_next_epoch(dataset: SmallDataset) -> None:
    loader = make_loader(dataset, prefetch=2)
    batches = iter(loader)
    for _ in range(loader.steps_per_epoch):
        next(batches)
    assert (loader.state_dict()["epoch"], loader.state_dict()["batch"]) == (1, 0)
    assert list(batches) == []


def test_breaking_off_and_iterating_again_continues_behind_the_last_batch_handed_out(dataset: SmallDataset) -> None:
    expected = row_ids(list(make_loader(dataset)))
    loader = make_loader(dataset, prefetch=3)
    for index, batch in enumerate(loader):
        assert batch.row_id_B.tolist() == expected[index]
        if index == 3:
            break
    assert row_ids(list(loader)) == expected[4:]


def test_seek_reaches_any_position_without_reading_what_lies_before(dataset: SmallDataset) -> None:
    loader, other = make_loader(dataset), make_loader(dataset)
    epochs = [row_ids(list(loader)) for _ in range(3)]
    other.seek(epoch=2, batch=7)
    assert row_ids(list(other)) == epochs[2][7:]
    with pytest.raises(ValueError, match=r"batch=11: expected epoch >= 0 and 0 <= batch < 11"):
        other.seek(epoch=0, batch=other.steps_per_epoch)


def test_an_older_iterator_is_an_error_after_the_position_was_set(dataset: SmallDataset) -> None:
    loader = make_loader(dataset, prefetch=2)
    batches = iter(loader)
    next(batches)
    loader.seek(epoch=0)
    with pytest.raises(RuntimeError, match="set to another position"):
        next(batches)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"seed": 4}, "seed=3"),
        ({"batch_size": 40}, "batch_size=48"),
        ({"lanes": 4}, "lanes=8"),
        ({"shuffle": False}, "shuffle=True"),
        ({"negatives": NegativeConfig(kind="uniform")}, "negatives="),
    ],
)
def test_state_of_other_settings_is_refused_by_name(dataset: SmallDataset, changed: dict, named: str) -> None:
    state = make_loader(dataset).state_dict()
    with pytest.raises(ValueError, match=f"taken with {named}.*use the same data and settings"):
        make_loader(dataset, **changed).load_state_dict(state)


def test_state_of_another_data_set_or_version_is_refused(dataset: SmallDataset, tmp_path: Path) -> None:
    state = make_loader(dataset).state_dict()
    other = make_loader(write_small_dataset(tmp_path, 480))
    with pytest.raises(DataError, match=r"taken on files of this split \w{12}, but found \w{12}: the data was replaced"):
        other.load_state_dict(state)
    with pytest.raises(ValueError, match=r"expected .*'lanes'.*not a state of this version"):
        other.load_state_dict({"epoch": 0, "batch": 0})


def test_state_is_refused_where_the_data_was_prepared_again_with_other_content(dataset: SmallDataset) -> None:
    def loader(content_id: str) -> Dataloader:
        schema = dataclasses.replace(SCHEMA, content_id=content_id)
        return Dataloader(schema, dataset.train, config=LoaderConfig(), seed=0, shuffle=True)

    old, new = loader("one"), loader("two")
    new.load_state_dict(loader("two").state_dict())
    names = [dataclasses.replace(SCHEMA, content_id=name).identity[:12] for name in ("two", "one")]
    with pytest.raises(DataError, match=rf"taken on data set {names[1]}, but found {names[0]}: .*restore it"):
        new.load_state_dict(old.state_dict())


def test_state_is_refused_where_a_file_was_replaced_by_one_with_as_many_rows(tmp_path: Path) -> None:
    state = make_loader(write_small_dataset(tmp_path, NUM_ROWS)).state_dict()
    replaced = make_loader(write_small_dataset(tmp_path, NUM_ROWS, seed=1))
    assert replaced.num_rows == NUM_ROWS
    with pytest.raises(DataError, match="the data was replaced since"):
        replaced.load_state_dict(state)


def test_a_loader_whose_lanes_do_not_fit_the_ranks_names_the_option_and_a_value(dataset: SmallDataset) -> None:
    with pytest.raises(ValueError, match=r"--loader.lanes 8 must be a multiple of the 3 ranks.*use --loader.lanes 9"):
        make_loader(dataset, world_size=3)


def test_leaving_an_iterator_early_stops_its_thread(dataset: SmallDataset) -> None:
    loader = make_loader(dataset, prefetch=2)
    for _ in loader:
        assert prefetch_threads()
        break
    gc.collect()
    assert not prefetch_threads()
    batches = iter(loader)
    next(batches)
    loader.close()
    assert not prefetch_threads()


def test_waiting_time_adds_up(dataset: SmallDataset) -> None:
    loader = make_loader(dataset)
    list(loader)
    once = loader.wait_seconds
    list(loader)
    assert loader.wait_seconds > once > 0


def test_a_missing_file_of_the_split_is_noticed_by_the_row_count(tmp_path: Path) -> None:
    dataset = write_small_dataset(tmp_path, NUM_ROWS)
    counted = Schema(**(vars(SCHEMA) | {"num_rows": {"train": NUM_ROWS}}))
    config = LoaderConfig(lanes=8)
    assert Dataloader(counted, dataset.train, config=config, seed=0, shuffle=True).num_rows == NUM_ROWS
    (dataset.train / "part-00001.parquet").unlink()
    with pytest.raises(DataError, match=r"308 rows in 5 row groups, but schema.json counts 500"):
        Dataloader(counted, dataset.train, config=config, seed=0, shuffle=True)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"batch_size": 31, "lanes": 16, "negatives": NegativeConfig(kind="uniform")},
            "batch_size=31 is 15 rows with 1 negatives each",
        ),
        ({"lanes": 0}, "lanes=0, expected at least 1"),
        ({"bad_rows": "ignore"}, "bad_rows='ignore', expected raise or skip"),
        ({"prefetch": -1}, "prefetch=-1"),
    ],
)
def test_config_names_the_field_that_is_out_of_range(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LoaderConfig(**fields)
