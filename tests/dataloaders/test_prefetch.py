"""The background thread runs ahead by its depth, hands over errors, and never outlives its consumer."""

import gc
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from dataloaders.prefetch import Prefetcher


class Counted:
    """Counts what was produced."""

    def __init__(self, stop: int) -> None:
        self.produced = 0
        self.stop = stop

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        if self.produced == self.stop:
            raise StopIteration
        self.produced += 1
        return self.produced


def wait_for(condition: object, value: object) -> None:
    deadline = time.monotonic() + 10
    while condition() != value and time.monotonic() < deadline:
        time.sleep(0.001)
    assert condition() == value


def test_items_come_in_order_and_the_end_is_final() -> None:
    items = Prefetcher(Counted(50), depth=3)
    assert list(items) == list(range(1, 51))
    assert list(items) == []


def test_no_more_than_depth_items_are_ahead() -> None:
    source = Counted(100)
    items = Prefetcher(source, depth=4)
    wait_for(lambda: source.produced, 4)
    next(items)
    wait_for(lambda: source.produced, 5)
    time.sleep(0.02)
    assert source.produced == 5
    items.close()


def failing() -> Iterator[int]:
    yield 1
    yield 2
    raise ZeroDivisionError("in the thread")


def test_an_error_surfaces_at_its_place_with_its_traceback() -> None:
    items = Prefetcher(failing(), depth=8)
    assert (next(items), next(items)) == (1, 2)
    with pytest.raises(ZeroDivisionError, match="in the thread") as caught:
        next(items)
    assert caught.traceback[-1].name == "failing"
    with pytest.raises(StopIteration):
        next(items)


def alive() -> int:
    return sum(thread.name == "dataloader-prefetch" for thread in threading.enumerate())


def test_closing_stops_the_thread_while_it_waits_for_room() -> None:
    source = Counted(100)
    items = Prefetcher(source, depth=1)
    wait_for(lambda: source.produced, 1)
    items.close()
    items.close()
    assert alive() == 0
    with pytest.raises(StopIteration):
        next(items)


def test_an_abandoned_prefetcher_takes_its_thread_along() -> None:
    items = Prefetcher(Counted(100), depth=2)
    next(items)
    del items
    gc.collect()
    assert alive() == 0


def test_a_forgotten_prefetcher_does_not_hold_up_the_end_of_the_program() -> None:
    program = (
        "import itertools, time; from dataloaders.prefetch import Prefetcher\n"
        "slow = (time.sleep(0.01) for _ in itertools.count())\n"
        "items = Prefetcher(slow, depth=2); next(items); print('end')"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert (ended.stdout, ended.stderr) == ("end\n", "")


def test_depth_must_be_positive() -> None:
    with pytest.raises(ValueError, match="depth=0, expected at least 1"):
        Prefetcher(Counted(1), depth=0)
