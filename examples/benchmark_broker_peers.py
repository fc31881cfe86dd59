"""A process of examples/benchmark_brokers.py, which publishes to a broker or receives from it.

    python benchmark_broker_peers.py LOOP LIBRARY KIND URL

It obeys commands as benchmark_peers.py does. With picows what is received ends in a WebSocket client, which a server in the same
process sends it to; with the broker's own client it ends in what that calls.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

from benchmark_peers import Commands, obey
from topics_workers import Subscriber, with_position

from picows import WSBrokerError, WSFrame, WSListener, WSMsgType, WSTopics, WSTransport, ws_connect, ws_create_server
from picows.brokers import WSBroker

HOST = "127.0.0.1"
TOPIC = "prices.btc"
STREAM = "benchmark"
STORED = 100_000  # messages of the topic, at least
PATIENCE = 10.0  # seconds without a message that is still to come


class Side:
    """One end of a broker."""

    def __init__(self, kind: str, url: str) -> None:
        self.kind, self.url = kind, url
        self.received = 0
        self.last = 0.0  # when; processes have the same clock

    def commands(self) -> Commands:
        return {"subscribe": self.subscribe, "publish": self.publish, "wait": self.wait, "usage": self.usage}

    def count(self) -> None:
        self.received += 1
        self.last = time.perf_counter()

    async def publish(self, seconds: float, depth: int, size: int) -> dict[str, float]:
        """So many messages at a time, each time until all are confirmed."""
        message, count, begun = b"x" * size, 0, time.perf_counter()
        while time.perf_counter() < begun + seconds:
            await self.publish_some([message] * depth)
            count += depth
        return {"count": count, "begun": begun}

    async def wait(self, count: int) -> dict[str, float]:
        """Until as many were received, since the last time."""
        since = time.perf_counter()
        while self.received < count and time.perf_counter() < max(since, self.last) + PATIENCE:
            await asyncio.sleep(0.002)
        received, self.received = self.received, 0
        return {"received": received, "last": self.last}

    async def usage(self) -> float:
        return time.process_time()

    async def open(self) -> None:
        raise NotImplementedError

    async def subscribe(self) -> None:
        raise NotImplementedError

    async def publish_some(self, messages: list[bytes]) -> None:
        raise NotImplementedError


# picows


def make_broker(kind: str, url: str) -> WSBroker:
    if kind in ("nats", "jetstream"):
        from picows.brokers.nats import NATSBroker

        return NATSBroker(url, stream=STREAM if kind == "jetstream" else None)
    from picows.brokers.redis import RedisBroker

    return RedisBroker(url, history=STORED if kind == "redis-streams" else 0)


class Introduction(WSListener):
    """Of a server: tells who has connected."""

    def __init__(self, connected: asyncio.Future[WSTransport]) -> None:
        self._connected = connected

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._connected.set_result(transport)


class Counter(WSListener):
    """Of a client."""

    def __init__(self, side: Side) -> None:
        self._side = side

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        self._side.count()


class Topics(Side):
    def commands(self) -> Commands:
        more: Commands = {"serve": self.serve, "connections": self.connections, "say": self.say}
        return {**super().commands(), **more, "begin load": self.begin_load, "end load": self.end_load}

    async def open(self) -> None:
        self.topics = WSTopics(make_broker(self.kind, self.url), stamp=with_position)
        await self.topics.__aenter__()

    async def subscribe(self) -> None:
        connected: asyncio.Future[WSTransport] = asyncio.get_running_loop().create_future()
        self.server = await ws_create_server(lambda request: Introduction(connected), HOST, 0)
        url = f"ws://{HOST}:{self.server.sockets[0].getsockname()[1]}/"
        self.client, _ = await ws_connect(lambda: Counter(self), url)
        await self.topics.subscribe(await connected, TOPIC)

    async def publish_some(self, messages: list[bytes]) -> None:
        await asyncio.gather(*(self.topics.publish(TOPIC, WSMsgType.BINARY, message) for message in messages))

    # When something is killed

    async def serve(self, port: int) -> None:
        self.server = await ws_create_server(lambda request: Subscriber(self.topics), HOST, port, reuse_port=True)

    async def connections(self) -> int:
        return len(self.server.connections)

    async def begin_load(self, at_once: int, pause: float) -> None:
        """Publish numbers from 0 on, each once, whatever happens."""
        self.tried, self.raised = 0, [0] * 0
        self.stopping = False
        self.loading = asyncio.ensure_future(self._load(at_once, pause))

    async def _load(self, at_once: int, pause: float) -> None:
        while not self.stopping:
            numbers = range(self.tried, self.tried + at_once)
            self.tried += at_once
            publishing = (self.topics.publish(TOPIC, WSMsgType.TEXT, str(number), timeout=None) for number in numbers)
            for number, outcome in zip(numbers, await asyncio.gather(*publishing, return_exceptions=True)):
                if isinstance(outcome, WSBrokerError):
                    self.raised.append(number)
                elif isinstance(outcome, BaseException):
                    raise outcome
            await asyncio.sleep(pause)

    async def end_load(self) -> dict[str, Any]:
        self.stopping = True
        await self.loading
        return {"tried": self.tried, "raised": self.raised}

    async def say(self, message: str) -> None:
        await self.topics.publish(TOPIC, WSMsgType.TEXT, message, timeout=None)


# The clients of the brokers themselves, as their documentation shows them


class BareNATS(Side):
    async def open(self) -> None:
        import nats

        self.client = await nats.connect(self.url)

    async def subscribe(self) -> None:
        await self.client.subscribe(TOPIC, cb=self.take)
        await self.client.flush()

    async def take(self, message: Any) -> None:
        self.count()

    async def publish_some(self, messages: list[bytes]) -> None:
        for message in messages:
            await self.client.publish(TOPIC, message)
        await self.client.flush()


class BareJetStream(BareNATS):
    async def open(self) -> None:
        await super().open()
        self.js = self.client.jetstream()

    async def subscribe(self) -> None:
        await self.js.add_stream(name=STREAM, subjects=[TOPIC], max_msgs=STORED)
        await self.js.subscribe(TOPIC, stream=STREAM, cb=self.take, ordered_consumer=True)

    async def publish_some(self, messages: list[bytes]) -> None:
        await asyncio.gather(*[await self.js.publish_async(TOPIC, message) for message in messages])


class BareRedis(Side):
    async def open(self) -> None:
        import redis.asyncio

        self.client: Any = redis.asyncio.Redis.from_url(self.url)

    async def subscribe(self) -> None:
        pubsub = self.client.pubsub()
        await pubsub.subscribe(TOPIC)
        assert (await pubsub.get_message(timeout=PATIENCE))["type"] == "subscribe"
        self.listening = asyncio.ensure_future(self.listen(pubsub))

    async def listen(self, pubsub: Any) -> None:
        async for _ in pubsub.listen():
            self.count()

    async def publish_some(self, messages: list[bytes]) -> None:
        async with self.client.pipeline(transaction=False) as pipe:
            for message in messages:
                pipe.publish(TOPIC, message)
            await pipe.execute()


class BareRedisStreams(BareRedis):
    async def subscribe(self) -> None:
        self.listening = asyncio.ensure_future(self.read_stream())

    async def read_stream(self) -> None:
        last: Any = "0"
        while True:
            for _, entries in await self.client.xread({TOPIC: last}, block=1000, count=500) or ():
                for _ in entries:
                    self.count()
                last = entries[-1][0]

    async def publish_some(self, messages: list[bytes]) -> None:
        async with self.client.pipeline(transaction=False) as pipe:
            for message in messages:
                pipe.xadd(TOPIC, {"m": message}, maxlen=STORED)
            await pipe.execute()


BARE = {"nats": BareNATS, "jetstream": BareJetStream, "redis": BareRedis, "redis-streams": BareRedisStreams}


async def work(library: str, kind: str, url: str) -> None:
    side: Side = Topics(kind, url) if library == "picows" else BARE[kind](kind, url)
    await side.open()
    await obey(side.commands())


if __name__ == "__main__":
    loop, *arguments = sys.argv[1:]
    if loop == "uvloop":
        import uvloop

        uvloop.run(work(*arguments))
    else:
        asyncio.run(work(*arguments))
