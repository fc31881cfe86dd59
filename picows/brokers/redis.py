"""Redis between the processes: Pub/Sub, and Streams for what was missed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoPermissionError, RedisError, ResponseError

from ..arguments import check_int
from ..errors import WSBrokerError, WSPositionError
from .outbox import Item, Outbox

__all__ = ["RedisBroker"]

_logger = logging.getLogger("picows.brokers.redis")

# A connection that is no good any more; a RuntimeError is uvloop's, of a transport that was closed.
_AWAY = (RedisError, OSError, RuntimeError)

ANSWER_TIMEOUT = 5.0  # seconds without a word until Redis is asked whether it is there, and as many for the answer
CONFIRM_TIMEOUT = 10.0  # seconds for the next answer to what was published
RETRY_DELAYS = (0.05, 0.1, 0.2, 0.5, 1.0)  # seconds between attempts to reconnect; the last one again and again
BATCH = 500  # stored messages that are fetched at once

# Stores a message and publishes it with its position, in one step: what comes live has the order of the store.
_STORE = """
local id = redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'm', ARGV[2])
redis.call('PUBLISH', KEYS[1], id .. ' ' .. ARGV[2])
return id
"""


class RedisBroker:
    """A broker for :class:`WSTopics`: Redis, by the package ``redis`` (``pip install picows[redis]``).

    Without `history` messages travel by Pub/Sub alone, at most once. With it each is also kept in a
    Stream of the topic (Redis 7 or newer), so that ``subscribe(..., since=position)`` and an outage lose none.

    When the connection is lost it is made again, as often as it takes, with all subscriptions; both
    is logged to ``picows.brokers.redis``, with the host but never with the password.

    :param url: ``redis://``, ``rediss://`` or ``unix://``, as :meth:`redis.asyncio.Redis.from_url` takes it
    :param history: how many messages of each topic are stored at least, 0: none
    :param prefix: what the names of channels and streams begin with
    """

    def __init__(self, url: str, *, history: int = 0, prefix: str = "picows:") -> None:
        check_int("history", history, 0)
        parts = urlsplit(url)
        if parts.scheme not in ("redis", "rediss", "unix"):
            raise ValueError(f"url begins with {parts.scheme!r}, expected redis://, rediss:// or unix://")
        self.stores = history > 0
        self._url = url
        self._place = parts.path if parts.scheme == "unix" else f"{parts.hostname}:{parts.port or 6379}"
        self._history = history
        self._prefix = prefix
        self._channels: dict[str, asyncio.Future[None]] = {}  # what is subscribed to; done once Redis has confirmed

    def __repr__(self) -> str:
        return f"<RedisBroker {self._place}>"

    async def open(
        self,
        receive: Callable[[str, bytes, str | None], None],
        interrupted: Callable[[], None],
        restored: Callable[[], None],
    ) -> None:
        self._receive, self._interrupted, self._restored = receive, interrupted, restored
        self._client = redis.asyncio.Redis.from_url(
            self._url,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=CONFIRM_TIMEOUT,
            socket_connect_timeout=ANSWER_TIMEOUT,
        )
        try:
            await self._connect()
        except _AWAY as error:
            await self._pubsub.aclose()
            await self._client.aclose()
            raise WSBrokerError(f"Redis at {self._place} cannot be reached: {error}") from None
        self._outbox = Outbox(self._send)
        self._outbox.set_up(True)
        self._up = True
        self._task = asyncio.get_running_loop().create_task(self._listen())

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])
        await self._outbox.close()
        await self._pubsub.aclose()
        await self._client.aclose()
        for confirmed in self._channels.values():
            confirmed.cancel()
        self._channels.clear()

    async def publish(self, topic: str, data: bytes, timeout: float | None) -> None:
        await self._outbox.put((self._prefix + topic, data), timeout)

    async def subscribe(self, topic: str) -> str | None:
        channel = self._prefix + topic
        confirmed = self._channels[channel] = asyncio.get_running_loop().create_future()
        try:
            if self._up:  # otherwise it is subscribed to with the others, when Redis is back
                await self._pubsub.subscribe(channel)
            await confirmed
            return await self._last(channel) if self.stores else None
        except _AWAY as error:
            await self.unsubscribe(topic)
            raise WSBrokerError(f"Redis at {self._place} has not confirmed the subscription: {error}") from None

    async def unsubscribe(self, topic: str) -> None:
        channel = self._prefix + topic
        self._channels.pop(channel, None)
        if self._up:
            with contextlib.suppress(*_AWAY):  # gone with the connection
                await self._pubsub.unsubscribe(channel)

    async def missed(self, topic: str, since: str) -> AsyncIterator[tuple[str, bytes]]:
        key = self._prefix + topic
        numbers = _order(since)
        if len(numbers) > 2 or max(numbers) >= 1 << 64:
            raise ValueError(f"a position of Redis is one or two numbers of 64 bits with '-' between, got {since!r}")
        while True:
            entries = await self._entries_after(topic, key, since)
            for entry, fields in entries:
                since = entry.decode()
                yield since, fields[b"m"]
            if len(entries) < BATCH:
                return

    async def _entries_after(self, topic: str, key: str, since: str) -> Any:
        """The next stored entries; between two looks others may have been removed, so each look checks."""
        async with self._client.pipeline(transaction=True) as pipe:
            pipe.xinfo_stream(key)
            pipe.xrange(key, count=1)
            pipe.xrange(key, f"({since}", count=BATCH)
            try:
                info, first, entries = await pipe.execute(raise_on_error=False)
            except _AWAY as error:
                raise WSBrokerError(f"Redis at {self._place} is away: {error}") from None
        if isinstance(info, ResponseError) and "no such key" in str(info):
            info, last = {"length": 0, "entries-added": 0}, "0-0"
        elif isinstance(info, Exception):
            raise WSBrokerError(f"Redis at {self._place}: {info}")
        else:
            last = info["last-generated-id"].decode()
        if _order(since) > _order(last):
            raise WSPositionError(topic, since, f"the last position that was stored is {last}")
        removed = info["entries-added"] - info["length"]
        if _order(since) < _order(last) and removed:
            oldest = first[0][0].decode() if first else "none"
            if not first or _order(oldest) > _order(since):
                raise WSPositionError(topic, since, f"the oldest position that is stored is {oldest}")
        return entries

    async def _last(self, key: str) -> str:
        try:
            info = await self._client.xinfo_stream(key)
        except ResponseError as error:
            if "no such key" not in str(error):
                raise
            return "0-0"
        last: str = info["last-generated-id"].decode()
        return last

    async def _send(self, batch: list[Item]) -> Sequence[Exception | None]:
        async with self._client.pipeline(transaction=False) as pipe:
            for channel, data in batch:
                if self.stores:
                    pipe.eval(_STORE, 1, channel, str(self._history), data)
                else:
                    pipe.publish(channel, data)
            outcome = await pipe.execute(raise_on_error=False)
        return [answer if isinstance(answer, Exception) else None for answer in outcome]

    async def _connect(self) -> set[str]:
        """A connection that listens; the channels that it has asked for."""
        # The first one is nobody's: without any the connection would not be read.
        asked = {self._prefix + "*", *(channel for channel, confirmed in self._channels.items() if confirmed.done())}
        self._pubsub: Any = self._client.pubsub()  # its annotations are not the same in all versions
        await self._pubsub.subscribe(*asked)
        # Those of the pool were lost with the old one.
        await self._client.connection_pool.disconnect(inuse_connections=False)
        await self._client.ping()  # a server that still loads what it has stored raises
        return asked

    async def _listen(self) -> None:
        while True:
            try:
                asked = False
                while True:
                    try:
                        message = await self._pubsub.get_message(timeout=ANSWER_TIMEOUT)
                    except NoPermissionError as error:
                        asked = False
                        self._refuse(error)
                        continue
                    if message is not None:
                        asked = False
                        self._take(message)
                    elif asked:  # pragma: no cover - as the next one
                        raise OSError("it does not answer")
                    else:  # pragma: no cover - tests do it, but the turn of a time-out is not told (CPython 3.11)
                        asked = True
                        await self._pubsub.ping()
            except _AWAY as error:
                _logger.warning("the connection to Redis at %s was lost: %s", self._place, error)
            self._up = False
            self._outbox.set_up(False)
            self._interrupted()
            await self._reconnect()
            _logger.warning("Redis at %s is back, %d subscriptions restored", self._place, len(self._channels))
            self._outbox.set_up(True)
            self._restored()

    async def _reconnect(self) -> None:
        attempt = 0
        while True:
            await self._pubsub.aclose()
            await asyncio.sleep(RETRY_DELAYS[min(attempt, len(RETRY_DELAYS) - 1)])
            attempt += 1
            try:
                asked = await self._connect()
                left = set(asked)
                while left:
                    message = await self._pubsub.get_message(timeout=ANSWER_TIMEOUT)
                    if message is None:  # pragma: no cover - as in _listen
                        raise OSError("it does not answer")
                    left.discard(message["channel"].decode())  # nothing else comes before they are all confirmed
                    self._take(message)
                await self._ask_for_changes(asked)
                self._up = True  # from here on each call asks for itself
                return
            except _AWAY as error:
                _logger.info("Redis at %s is still away: %s", self._place, error)

    async def _ask_for_changes(self, asked: set[str]) -> None:
        """What was subscribed to and unsubscribed from while Redis was away, and while this asks."""
        waiting: set[asyncio.Future[None]] = set()
        while True:
            gone = asked - {self._prefix + "*", *self._channels}
            late = {channel: confirmed for channel, confirmed in self._unconfirmed() if confirmed not in waiting}
            if not gone and not late:
                return
            if gone:
                await self._pubsub.unsubscribe(*gone)
            asked = asked - gone | late.keys()
            waiting.update(late.values())
            for channel in late:  # one by one: what is forbidden would take the others with it
                await self._pubsub.subscribe(channel)

    def _unconfirmed(self) -> list[tuple[str, asyncio.Future[None]]]:
        return [(channel, confirmed) for channel, confirmed in self._channels.items() if not confirmed.done()]

    def _refuse(self, error: NoPermissionError) -> None:
        """A rule of the server forbids a channel. It does not say which: its answers have the order of what was asked."""
        unconfirmed = self._unconfirmed()
        if not unconfirmed:
            raise error
        unconfirmed[0][1].set_exception(error)

    def _take(self, message: Any) -> None:
        if message["type"] not in ("subscribe", "message"):
            return
        channel = message["channel"].decode()
        if message["type"] == "subscribe":
            confirmed = self._channels.get(channel)
            if confirmed is not None and not confirmed.done():
                confirmed.set_result(None)
        elif channel in self._channels:
            data, position = message["data"], None
            if self.stores:
                at, _, data = data.partition(b" ")
                position = at.decode()
            self._receive(channel[len(self._prefix) :], data, position)


def _order(position: str) -> tuple[int, ...]:
    return tuple(map(int, position.split("-")))
