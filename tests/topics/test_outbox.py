"""What waits to be published."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

import pytest

from picows import WSBrokerError
from picows.brokers.outbox import MAX_BATCH, Item, Outbox
from tests.connection.networks import Network


class Sent:
    """Where batches go: each waits until `goes` is set, and then fails if there is an error."""

    def __init__(self) -> None:
        self.batches: list[list[Item]] = []
        self.begun = asyncio.Event()
        self.goes = asyncio.Event()
        self.error: Exception | None = None
        self.failures: dict[Item, Exception] = {}

    async def send(self, batch: list[Item]) -> Sequence[Exception | None]:
        self.batches.append(batch)
        self.begun.set()
        await self.goes.wait()
        if self.error is not None:
            raise self.error
        return [self.failures.get(item) for item in batch]


@contextlib.asynccontextmanager
async def outbox() -> AsyncIterator[tuple[Outbox, Sent]]:
    sent = Sent()
    box = Outbox(sent.send)
    try:
        yield box, sent
    finally:
        await box.close()


def item(number: int) -> Item:
    return "a", str(number).encode()


def put(box: Outbox, *numbers: int, timeout: float | None = None) -> list[asyncio.Future[None]]:
    return [asyncio.ensure_future(box.put(item(number), timeout)) for number in numbers]


async def outcomes(waiting: list[asyncio.Future[None]]) -> list[str]:
    return [str(each or "") for each in await asyncio.gather(*waiting, return_exceptions=True)]


def test_what_gathers_goes_out_together_and_in_order(net: Network) -> None:
    async def test() -> None:
        async with outbox() as (box, sent):
            waiting = put(box, *range(MAX_BATCH + 5))
            await asyncio.sleep(0)
            assert sent.batches == []
            box.set_up(True)
            sent.goes.set()
            assert await outcomes(waiting) == [""] * len(waiting)
            assert [len(batch) for batch in sent.batches] == [MAX_BATCH, 5]
            assert [each for batch in sent.batches for each in batch] == [item(number) for number in range(MAX_BATCH + 5)]

    net.run(test())


def test_who_is_cancelled_before_has_published_nothing(net: Network) -> None:
    async def test() -> None:
        async with outbox() as (box, sent):
            waiting = put(box, 1, 2, 3)
            await asyncio.sleep(0)
            waiting[1].cancel()
            await asyncio.sleep(0)
            sent.goes.set()
            box.set_up(True)
            assert await outcomes([waiting[0], waiting[2]]) == ["", ""]
            assert sent.batches == [[item(1), item(3)]]

    net.run(test())


def test_nothing_goes_out_when_all_are_cancelled(net: Network) -> None:
    async def test() -> None:
        async with outbox() as (box, sent):
            sent.goes.set()
            (waiting,) = put(box, 1)
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.sleep(0)
            box.set_up(True)
            await asyncio.sleep(0)
            assert await outcomes(put(box, 2)) == [""]
            assert sent.batches == [[item(2)]]

    net.run(test())


@pytest.mark.parametrize("error", [None, OSError("gone")])
def test_who_is_cancelled_under_way_does_not_disturb_the_others(net: Network, error: Exception | None) -> None:
    async def test() -> None:
        async with outbox() as (box, sent):
            box.set_up(True)
            waiting = put(box, 1, 2)
            await sent.begun.wait()
            waiting[0].cancel()
            await asyncio.sleep(0)
            sent.error = error
            sent.goes.set()
            (outcome,) = await outcomes(waiting[1:])
            assert ("may have arrived or not: gone" in outcome) == bool(error)
            sent.error = None
            assert await outcomes(put(box, 3)) == [""]

    net.run(test())


def test_each_of_a_batch_has_its_own_outcome(net: Network) -> None:
    async def test() -> None:
        async with outbox() as (box, sent):
            box.set_up(True)
            sent.goes.set()
            sent.failures[item(2)] = ValueError("too long")
            first, second, third = await outcomes(put(box, 1, 2, 3))
            assert first == third == ""
            assert second.endswith("too long")
            sent.error = OSError("gone")
            assert [each.endswith("gone") for each in await outcomes(put(box, 4, 5))] == [True, True]

    net.run(test())


def test_the_time_limit_counts_while_the_broker_is_away(net: Network) -> None:
    async def test() -> None:
        async with outbox() as (box, sent):
            box.set_up(True)
            (under_way,) = put(box, 0)
            await sent.begun.wait()
            waiting = put(box, 1, timeout=0.01) + put(box, 2, timeout=None)  # behind it, and it is up
            await asyncio.sleep(0.05)
            box.set_up(False)
            too_late = ["the broker was away for 0.01 seconds, nothing was published"]
            assert await outcomes(waiting[:1]) == too_late
            assert await outcomes(put(box, 4, timeout=0.01)) == too_late
            assert len(box._waiting) == 1  # an outage may last: what has failed takes no memory
            waiting += put(box, 3, timeout=0.01)
            await asyncio.sleep(0)
            box.set_up(True)
            await asyncio.sleep(0.05)
            sent.goes.set()
            assert await outcomes([under_way, *waiting[1:]]) == ["", "", ""]
            assert sent.batches == [[item(0)], [item(2), item(3)]]

    net.run(test())


def test_nothing_goes_out_while_the_broker_is_away(net: Network) -> None:
    async def test() -> None:
        async with outbox() as (box, sent):
            sent.goes.set()
            waiting = put(box, 1)
            for _ in range(5):
                await asyncio.sleep(0)
            assert sent.batches == []
            box.set_up(True)
            assert await outcomes(waiting) == [""]

    net.run(test())


def test_closing_ends_all_that_waits(net: Network) -> None:
    async def test() -> None:
        async with outbox() as (box, sent):
            box.set_up(True)
            under_way = put(box, 1)
            await sent.begun.wait()
            waiting = put(box, 2)
            await asyncio.sleep(0)
            await box.close()
            assert "may have arrived or not" in (await outcomes(under_way))[0]
            assert await outcomes(waiting) == ["the broker was closed, nothing was published"]
            with pytest.raises(WSBrokerError, match="is closed, nothing was published"):
                await box.put(item(3), None)

    net.run(test())
