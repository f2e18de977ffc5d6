"""Handing items from one thread to another."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from crossfade.vectors.channel import Channel, ChannelClosedError, Consumer, read_ahead


def put_all(consumer: Consumer[int]) -> None:
    for item in range(100):
        consumer.put(item)


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("crossfade-")]


def test_everything_arrives_in_order() -> None:
    assert list(read_ahead(range(1000), depth=3)) == list(range(1000))
    assert threads() == []


def test_errors_arrive_after_the_items_before_them() -> None:
    def failing() -> Iterator[int]:
        yield from range(3)
        raise ZeroDivisionError

    arrived: list[int] = []
    with pytest.raises(ZeroDivisionError):
        arrived.extend(read_ahead(failing()))
    assert arrived == [0, 1, 2]
    assert threads() == []


def test_closing_early_stops_the_reader() -> None:
    taken: list[int] = []

    def endless() -> Iterator[int]:
        while True:
            taken.append(1)
            yield len(taken)

    items = read_ahead(endless(), depth=2)
    assert next(items) == 1
    items.close()
    assert threads() == []
    assert len(taken) <= 5


def test_consumer_gets_everything() -> None:
    got: list[int] = []
    consumer: Consumer[int] = Consumer(got.extend)
    put_all(consumer)
    consumer.finish()
    assert got == list(range(100))


def test_the_consumers_error_reaches_the_producer() -> None:
    def fail(items: Iterator[int]) -> None:
        next(items)
        raise ZeroDivisionError

    consumer = Consumer(fail)
    with pytest.raises(ZeroDivisionError):
        put_all(consumer)
    with pytest.raises(ZeroDivisionError):
        consumer.finish()


def test_put_waits_for_room() -> None:
    channel: Channel[int] = Channel(depth=1)
    channel.put(1)
    second = threading.Thread(target=lambda: channel.put(2))
    second.start()
    second.join(0.05)
    assert second.is_alive()
    items = iter(channel)
    assert next(items) == 1
    second.join(5)
    assert next(items) == 2
    channel.close()
    with pytest.raises(ChannelClosedError):
        next(items)
    with pytest.raises(ChannelClosedError):
        channel.put(3)
