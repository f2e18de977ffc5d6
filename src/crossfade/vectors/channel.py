"""Hand items from one thread to another, a few at a time, so that reading, mapping and writing overlap."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")
DEPTH = 2


class ChannelClosedError(Exception):
    """The other end has gone."""


class Channel(Generic[T]):
    """A bounded queue that either end can close.

    Args:
        depth: items it holds before `put` waits.
    """

    def __init__(self, depth: int = DEPTH) -> None:
        self._depth = depth
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._finished = self._closed = False

    def put(self, item: T) -> None:
        """Wait for room and add an item.

        Raises:
            ChannelClosedError: the other end has gone.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._items) < self._depth)
            if self._closed:
                raise ChannelClosedError
            self._items.append(item)
            self._changed.notify_all()

    def finish(self) -> None:
        """Say that nothing follows what was put."""
        with self._changed:
            self._finished = True
            self._changed.notify_all()

    def close(self) -> None:
        """Drop everything; both ends get ChannelClosedError from now on."""
        with self._changed:
            self._closed = True
            self._items.clear()
            self._changed.notify_all()

    def __iter__(self) -> Iterator[T]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._finished or len(self._items) > 0)
                if self._closed:
                    raise ChannelClosedError
                if not self._items:
                    return
                item = self._items.popleft()
                self._changed.notify_all()
            yield item


def read_ahead(items: Iterable[T], depth: int = DEPTH) -> Generator[T, None, None]:
    """Iterate over `items` in a thread of its own, `depth` items ahead; errors arrive in order."""
    channel: Channel[T] = Channel(depth)
    failure: list[BaseException] = []

    def work() -> None:
        try:
            for item in items:
                channel.put(item)
        except ChannelClosedError:
            pass
        except BaseException as error:
            failure.append(error)
        finally:
            channel.finish()

    thread = threading.Thread(target=work, name="crossfade-read", daemon=True)
    thread.start()
    try:
        yield from channel
        if failure:
            raise failure[0]
    finally:
        channel.close()
        thread.join()


class Consumer(Generic[T]):
    """Feeds items to `consume`, which runs in a thread of its own.

    Args:
        consume: takes an iterator over the items; raising ends the work.
        depth: items that may wait.
    """

    def __init__(self, consume: Callable[[Iterator[T]], object], depth: int = DEPTH) -> None:
        self._channel: Channel[T] = Channel(depth)
        self._failure: BaseException | None = None
        self._consume = consume
        self._thread = threading.Thread(target=self._work, name="crossfade-write", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        try:
            self._consume(iter(self._channel))
        except BaseException as error:
            self._failure = error
            self._channel.close()

    def put(self, item: T) -> None:
        """Hand over an item; raises what `consume` raised, if it did."""
        try:
            self._channel.put(item)
        except ChannelClosedError:
            self._thread.join()
            raise self._failure or RuntimeError("the consumer was abandoned") from None

    def finish(self) -> None:
        """Wait until everything is consumed; raises what `consume` raised, if it did."""
        self._channel.finish()
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def abandon(self) -> None:
        """Stop as soon as the item in hand is done."""
        self._channel.close()
        self._thread.join()


def write_behind(items: Iterable[T], consume: Callable[[Iterator[T]], object], depth: int = DEPTH) -> None:
    """Make `items` here while `consume`, in a thread of its own, takes them; returns when it has taken all.

    Raises:
        Exception: what making or consuming them raised; both have ended by then.
    """
    consumer = Consumer(consume, depth)
    try:
        for item in items:
            consumer.put(item)
        consumer.finish()
    except BaseException:
        consumer.abandon()
        raise
