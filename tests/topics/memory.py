"""A broker that is a few lines of Python, as a user may write one: it does what it is told, when it is told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from picows import WSBrokerError, WSTopics
from picows.errors import WSPositionError
from tests.connection.networks import Network, subscribers


class Hub:
    """What all processes have in common."""

    def __init__(self) -> None:
        self.stored: list[tuple[int, str, bytes]] = []
        self.last = 0
        self.brokers: list[MemoryBroker] = []

    def add(self, topic: str, data: bytes) -> None:
        self.last += 1
        self.stored.append((self.last, topic, data))
        for broker in self.brokers:
            broker.hear(topic, data, self.last)

    def forget(self) -> None:
        """As a server that has lost its store: positions begin anew."""
        self.stored.clear()
        self.last = 0


class MemoryBroker:
    def __init__(self, hub: Hub | None = None, *, stores: bool = True) -> None:
        self.hub = hub or Hub()
        self.stores = stores
        self.calls: list[str] = []
        self.agrees = open_event()  # to subscribe and to unsubscribe
        self.flows = open_event()  # what was published comes live
        self.serves = open_event()  # the next stored message
        self.refuses = False  # to subscribe, and to give what is stored
        self.gives = -1  # so many stored messages, and then it is away for once; -1: all
        self.trims = False  # the oldest messages, while it gives them, once
        self.on_publish: Callable[[], Any] = int  # when a message is stored, but not confirmed yet
        self._live: list[tuple[str, bytes, str | None]] = []
        self._topics: set[str] = set()
        self._away = False
        self._back = open_event()

    async def open(
        self,
        receive: Callable[[str, bytes, str | None], None],
        interrupted: Callable[[], None],
        restored: Callable[[], None],
    ) -> None:
        self.receive, self.interrupted, self.restored = receive, interrupted, restored
        self.hub.brokers.append(self)

    async def close(self) -> None:
        self.calls.append("close")
        self.hub.brokers.remove(self)

    async def publish(self, topic: str, data: bytes, timeout: float | None) -> None:
        if timeout is None:
            await self._back.wait()
        if self._away:
            raise WSBrokerError("away, nothing was published")
        self.hub.add(topic, data)
        self.on_publish()

    async def subscribe(self, topic: str) -> str | None:
        self.calls.append(f"subscribe {topic}")
        self._topics.add(topic)
        position = str(self.hub.last) if self.stores else None
        await self.agrees.wait()
        if self.refuses:
            self._topics.discard(topic)
            raise WSBrokerError("refused")
        self.calls.append("agreed")
        return position

    async def unsubscribe(self, topic: str) -> None:
        self.calls.append(f"unsubscribe {topic}")
        await self.agrees.wait()
        self.calls.append("agreed")
        self._topics.discard(topic)

    async def missed(self, topic: str, since: str) -> AsyncIterator[tuple[str, bytes]]:
        self.calls.append(f"missed since {since}")
        if int(since) > self.hub.last:
            raise WSPositionError(topic, since, f"the last is {self.hub.last}")
        for position, of_topic, data in list(self.hub.stored):
            if position > int(since) and of_topic == topic:
                await self.serves.wait()
                if self.refuses or self.gives == 0:
                    self.gives = -1
                    raise WSBrokerError("away")
                self.gives -= 1
                yield str(position), data
        if self.trims:
            self.trims = False
            raise WSPositionError(topic, since, "trimmed")

    # What a test tells it

    def hear(self, topic: str, data: bytes, position: int) -> None:
        if topic in self._topics and not self._away:
            self._live.append((topic, data, str(position) if self.stores else None))
            if self.flows.is_set():
                self.flow()

    def flow(self) -> None:
        self.flows.set()
        live, self._live = self._live, []
        for message in live:
            self.receive(*message)

    def cut(self) -> None:
        self._away = True
        self._back.clear()
        self.interrupted()

    def mend(self) -> None:
        self._away = False
        self._back.set()
        self.restored()


def open_event() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


@contextlib.asynccontextmanager
async def process(net: Network, connections: int, **options: Any) -> AsyncIterator[Any]:
    """Topics, their broker, and connections."""
    broker = MemoryBroker(**options)
    async with subscribers(net, connections) as (clients, servers), WSTopics(broker) as topics:
        yield topics, broker, clients, servers


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def begin(*calls: Any) -> list[asyncio.Future[Any]]:
    return [asyncio.ensure_future(call) for call in calls]


async def payloads(client: Any, count: int) -> list[bytes]:
    return [await client.payload() for _ in range(count)]
