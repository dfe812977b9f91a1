"""An iterator run ahead in one background thread."""

import queue
import threading
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class _Failed:
    error: BaseException


@dataclass(frozen=True)
class _Finished:
    """No more items."""


class Prefetcher(Generic[T]):
    """Yields the items of `source`, which a thread produces at most `depth` ahead of the consumer.

    An exception of `source` is raised by the `next` that would have returned the item. `close` stops the thread and waits for it;
    an abandoned or forgotten iterator is closed when it is collected, at the latest when the interpreter exits.
    """

    def __init__(self, source: Iterator[T], *, depth: int) -> None:
        if depth < 1:
            raise ValueError(f"depth={depth}, expected at least 1")
        self._items: queue.SimpleQueue[T | _Failed | _Finished] = queue.SimpleQueue()
        self._room = threading.Semaphore(depth)
        self._stop = threading.Event()
        self._done = False
        # the thread must not hold a reference to self, or an abandoned Prefetcher would never be collected
        self._thread = threading.Thread(
            target=_produce, args=(source, self._items, self._room, self._stop), name="dataloader-prefetch", daemon=True
        )
        self._thread.start()
        # unlike __del__, a finalizer runs before the interpreter freezes daemon threads, which could then never be joined
        self._finalizer = weakref.finalize(self, _shut_down, self._thread, self._room, self._stop)

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        if self._done:
            raise StopIteration
        item = self._items.get()
        if isinstance(item, _Finished | _Failed):
            self.close()
            if isinstance(item, _Failed):
                raise item.error
            raise StopIteration
        self._room.release()
        return item

    def close(self) -> None:
        """Stop the thread and wait until it has finished the item it is working on."""
        self._done = True
        self._finalizer()


def _shut_down(thread: threading.Thread, room: threading.Semaphore, stop: threading.Event) -> None:
    stop.set()
    room.release()
    # the garbage collector may run this in the thread itself
    if thread is not threading.current_thread():
        thread.join()


def _produce(source: Iterator[T], items: queue.SimpleQueue, room: threading.Semaphore, stop: threading.Event) -> None:
    try:
        while True:
            room.acquire()
            if stop.is_set():
                return
            items.put(next(source))
    except StopIteration:
        items.put(_Finished())
    except BaseException as error:  # handed to the consumer, whatever it is
        items.put(_Failed(error))
