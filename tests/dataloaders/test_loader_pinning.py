"""Page-locked batches: made in the background thread, on the rank's own GPU."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from dataloaders.batch import Batch
from dataloaders.loader import Dataloader, LoaderConfig
from tests.dataloaders.small_dataset import NUM_ROWS, SCHEMA, SmallDataset, batch_rows, write_small_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> SmallDataset:
    return write_small_dataset(tmp_path_factory.mktemp("small"), NUM_ROWS)


@pytest.mark.parametrize(("prefetch", "thread"), [(2, "dataloader-prefetch"), (0, "MainThread")])
def test_batches_are_pinned_in_the_background_thread_and_on_the_ranks_gpu(
    dataset: SmallDataset, monkeypatch: pytest.MonkeyPatch, prefetch: int, thread: str
) -> None:
    current, pinned = [0], []

    @contextmanager
    def device(index: int) -> Iterator[None]:
        current.append(index)
        yield
        current.pop()

    def pin_memory(batch: Batch) -> Batch:
        pinned.append((threading.current_thread().name, current[-1]))
        return batch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "device", device)
    monkeypatch.setattr(Batch, "pin_memory", pin_memory)
    loader = Dataloader(SCHEMA, dataset.train, config=LoaderConfig(prefetch=prefetch), seed=0, shuffle=True, pin_memory=True)
    assert len(list(loader)) == len(pinned) == loader.steps_per_epoch
    assert set(pinned) == {(thread, 1)}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_pinned_batches_are_page_locked_and_equal(dataset: SmallDataset) -> None:
    config = LoaderConfig(batch_size=48, lanes=8)
    plain, pinned = (
        list(Dataloader(SCHEMA, dataset.train, config=config, seed=0, shuffle=True, pin_memory=pin)) for pin in (False, True)
    )
    assert [batch_rows(batch) for batch in pinned] == [batch_rows(batch) for batch in plain]
    assert all(batch.label_B.is_pinned() and batch.pooled.values().is_pinned() for batch in pinned)
    assert all(batch.sequence.lengths().is_pinned() for batch in pinned)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_pinning_without_a_gpu_is_refused(dataset: SmallDataset) -> None:
    with pytest.raises(ValueError, match="pin_memory=True, but PyTorch sees no GPU"):
        Dataloader(SCHEMA, dataset.train, config=LoaderConfig(), seed=0, shuffle=True, pin_memory=True)
