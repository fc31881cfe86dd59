"""NATS between the processes: core subjects, and JetStream for what was missed."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js import api

from ..errors import WSBrokerError, WSPositionError
from .outbox import Item, Outbox

__all__ = ["NATSBroker"]

_logger = logging.getLogger("picows.brokers.nats")

CONNECT_TIMEOUT = 5.0  # seconds for the first connection
CONFIRM_TIMEOUT = 10.0  # seconds for the confirmation of a batch
PING_INTERVAL = 10  # seconds; a server that leaves two pings unanswered is away
RETRY_DELAY = 0.2  # seconds between attempts to reconnect
BATCH = 500  # stored messages that are fetched at once
FETCH_TIMEOUT = 2.0  # seconds
MAX_STORED = 1_000_000  # messages in a stream that is created here

_AWAY = (nats.errors.Error, OSError, asyncio.TimeoutError)
_REFUSED = re.compile('permissions violation for (publish|subscription) to "(.*)"')  # as the client has it, in lower case


class NATSBroker:
    """A broker for :class:`WSTopics`: NATS, by the package ``nats-py`` (``pip install picows[nats]``).

    Without `stream` messages travel as NATS core does it: at most once, and in the order of each
    publisher, not of all. With it they have one order, and each is also kept in a
    stream of JetStream, so that ``subscribe(..., since=position)`` and an outage lose none.

    When the connection is lost it is made again, as often as it takes, with all subscriptions; both
    is logged to ``picows.brokers.nats``, with the host but never with user, password or token.

    :param servers: the URL of a server, ``nats://``, ``tls://`` or ``ws://``, or several of them
    :param stream: the name of a stream, which is created if there is none: then it keeps the last
        million messages of all topics in files. One of your own has to take the subjects
        ``<prefix>>`` and to republish them to ``<live>>``, where `live` is `prefix` without its
        last dot and with ``-live.`` instead.
    :param prefix: what the subjects of topics begin with
    """

    def __init__(self, servers: str | Sequence[str], *, stream: str | None = None, prefix: str = "picows.") -> None:
        self._servers = [servers] if isinstance(servers, str) else list(servers)
        places = [urlsplit(url if "//" in url else f"//{url}") for url in self._servers]
        self._places = ", ".join(f"{parts.hostname}:{parts.port or 4222}" for parts in places)
        self.stores = stream is not None
        self._stream = stream or ""
        self._prefix = prefix
        # JetStream tells the position of a message where it republishes it.
        self._live = prefix.rstrip(".") + "-live." if self.stores else prefix
        self._subscriptions: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"<NATSBroker {self._places}>"

    async def open(
        self,
        receive: Callable[[str, bytes, str | None], None],
        interrupted: Callable[[], None],
        restored: Callable[[], None],
    ) -> None:
        self._receive, self._interrupted, self._restored = receive, interrupted, restored
        self._refused: set[tuple[str, str]] = set()  # "publish" or "subscription", and the subject in lower case
        self._renewing: asyncio.Task[None] | None = None
        self._sending: asyncio.Task[list[Any]] | None = None
        self._client: Any = None
        self._closing = False
        try:
            await self._connect()
            if self.stores:
                await self._prepare_stream()
        except (*_AWAY, WSBrokerError) as error:
            self._closing = True
            if self._client is not None:
                await self._client.close()
            if isinstance(error, WSBrokerError):
                raise
            raise WSBrokerError(f"NATS at {self._places} cannot be used: {error!r}") from None
        self._outbox = Outbox(self._send)
        self._outbox.set_up(True)

    async def _connect(self) -> None:
        client = Client()

        def unless_replaced(callback: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
            async def call() -> None:
                if client is self._client and not self._closing:
                    await callback()

            return call

        connecting = client.connect(
            self._servers,
            name="picows",
            error_cb=self._on_error,
            disconnected_cb=unless_replaced(self._on_disconnected),
            reconnected_cb=unless_replaced(self._on_reconnected),
            closed_cb=unless_replaced(self._on_closed),
            max_reconnect_attempts=-1,
            reconnect_time_wait=RETRY_DELAY,  # type: ignore[arg-type]
            ping_interval=PING_INTERVAL,
        )
        try:
            await asyncio.wait_for(connecting, CONNECT_TIMEOUT)
        except BaseException:
            await client.close()
            raise
        self._client, self._js = client, client.jetstream()
        self._lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def close(self) -> None:
        self._closing = True
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.wait([self._renewing])
        await self._outbox.close()
        try:
            await self._client.close()
        except (RuntimeError, OSError):  # the connection is lost already, a RuntimeError is uvloop's: the rest is left undone
            for subscription in list(self._client._subs.values()):
                subscription._stop_processing()
        self._subscriptions.clear()

    async def publish(self, topic: str, data: bytes, timeout: float | None) -> None:
        if len(data) > self._client.max_payload:  # the client would refuse it with all of its batch
            limit = self._client.max_payload
            raise WSBrokerError(f"a message of {len(data)} bytes, NATS at {self._places} takes {limit}: nothing was published")
        await self._outbox.put((self._prefix + topic, data), timeout)

    async def subscribe(self, topic: str) -> str | None:
        asked = "subscription", (self._live + topic).lower()
        self._refused.discard(asked)
        try:
            self._subscriptions[topic] = await self._take(topic)
            await self._confirmation()
            if asked in self._refused:
                raise nats.errors.Error("the server does not permit it")
            return str(await self._last(topic)) if self.stores else None
        except _AWAY as error:
            await self.unsubscribe(topic)
            raise WSBrokerError(f"NATS at {self._places} has not confirmed the subscription: {error!r}") from None

    async def _take(self, topic: str) -> Any:
        async def take(message: Any) -> None:
            headers = message.headers
            self._receive(topic, message.data, headers["Nats-Sequence"] if self.stores and headers else None)

        return await self._client.subscribe(self._live + topic, cb=take)

    async def unsubscribe(self, topic: str) -> None:
        subscription = self._subscriptions.pop(topic, None)
        if subscription is not None and not self._closing:
            try:
                await subscription.unsubscribe()
            except nats.errors.Error as error:
                _logger.debug("unsubscribing: %r", error)

    async def missed(self, topic: str, since: str) -> AsyncIterator[tuple[str, bytes]]:
        subject = self._prefix + topic
        if not since.isdecimal():
            raise ValueError(f"a position of NATS is one decimal number, got {since!r}")
        at = int(since)
        consumer = None
        try:
            last = await self._check_stored(topic, at)
            if at >= last:
                return
            config = api.ConsumerConfig(
                deliver_policy=api.DeliverPolicy.BY_START_SEQUENCE,
                opt_start_seq=at + 1,
                ack_policy=api.AckPolicy.NONE,
                inactive_threshold=30,
                mem_storage=True,
            )
            consumer = await self._js.pull_subscribe(subject, stream=self._stream, config=config)
            while at < last:
                for message in await consumer.fetch(BATCH, timeout=FETCH_TIMEOUT):
                    at = message.metadata.sequence.stream
                    yield str(at), message.data
                last = max(last, await self._check_stored(topic, at))
        except _AWAY as error:
            raise WSBrokerError(f"NATS at {self._places} is away: {error!r}") from None
        finally:
            if consumer is not None and not self._closing:
                try:
                    await consumer.unsubscribe()
                except nats.errors.Error as error:
                    _logger.debug("ending a consumer: %r", error)

    async def _check_stored(self, topic: str, at: int) -> int:
        """The last position of a topic, if all behind the given one is stored.

        Old messages go first: a stream that still has the message at a position has all behind it.
        """
        info = await self._js.stream_info(self._stream)
        if at > info.state.last_seq:
            raise WSPositionError(topic, str(at), f"the last position that was stored is {info.state.last_seq}")
        last = await self._last(topic)
        if at >= last:
            return at
        if info.config.max_msgs_per_subject > 0:
            try:
                message = await self._js.get_msg(self._stream, at) if at else None
                kept = message is not None and message.subject == self._prefix + topic
            except nats.js.errors.NotFoundError:
                kept = False
        else:
            kept = info.state.first_seq <= at + 1
        if not kept:
            raise WSPositionError(topic, str(at), f"the oldest position of the stream is {info.state.first_seq}")
        return last

    async def _last(self, topic: str) -> int:
        try:
            message = await self._js.get_last_msg(self._stream, self._prefix + topic)
        except nats.js.errors.NotFoundError:
            return 0
        return message.seq or 0

    async def _prepare_stream(self) -> None:
        republish = api.RePublish(src=self._prefix + ">", dest=self._live + ">")
        try:
            found = (await self._js.stream_info(self._stream)).config
        except nats.js.errors.NotFoundError:
            config = api.StreamConfig(
                name=self._stream, subjects=[self._prefix + ">"], max_msgs=MAX_STORED, republish=republish
            )
            await self._js.add_stream(config)
            return
        if found.republish is None or found.republish.dest != republish.dest:
            raise WSBrokerError(
                f"the stream {self._stream!r} does not republish {republish.src} to {republish.dest}, "
                "which the positions of messages are taken from"
            )

    async def _send(self, batch: list[Item]) -> Sequence[Exception | None]:
        sending = self._sending = asyncio.ensure_future(self._send_all(batch))
        either: list[asyncio.Future[Any]] = [sending, self._lost]
        written = -1
        try:
            # A server that stands still does not read either: the client waits for room, without a limit of its own.
            while not sending.done() and not self._lost.done() and written != self._client.stats["out_msgs"]:
                written = self._client.stats["out_msgs"]
                await asyncio.wait(either, timeout=CONFIRM_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sending.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody else may ask for it
            if not sending.done():
                self._sending = None
                sending.cancel()
        if self._sending is None or (self._lost.done() and not self.stores):
            # A client that is disconnected has cancelled the confirmation, or left it waiting.
            raise WSBrokerError(f"NATS at {self._places} went away, or did not answer in {CONFIRM_TIMEOUT} seconds")
        outcome = [WSBrokerError(repr(answer)) if isinstance(answer, BaseException) else None for answer in sending.result()]
        if self.stores:
            return outcome
        refused = [("publish", subject.lower()) in self._refused for subject, _ in batch]
        return [WSBrokerError("the server does not permit it") if each else outcome[0] for each in refused]

    async def _send_all(self, batch: list[Item]) -> list[Any]:
        """What the server says of each of them, or of all."""
        confirmed: list[Awaitable[Any]] = []
        for subject, data in batch:
            if self.stores:
                confirmed.append(await self._js.publish_async(subject, data))
            else:
                self._refused.discard(("publish", subject.lower()))
                await self._client.publish(subject, data)
            if asyncio.current_task() is not self._sending:  # the client keeps a cancellation to itself where it waits for room
                return []
        if not self.stores:
            confirmed.append(self._confirmation())
        return await asyncio.gather(*confirmed, return_exceptions=True)

    async def _confirmation(self) -> None:
        """The server has taken all that was sent. The PING of flush() overtakes what the client has not written yet."""
        written: asyncio.Future[Any] = asyncio.ensure_future(self._client._flush_pending(force_flush=True))
        either: list[asyncio.Future[Any]] = [written, self._lost]
        await asyncio.wait(either, timeout=CONFIRM_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
        if written.done():  # pragma: no branch - with so much to write that it stays, the client waits for room before this
            await self._client.flush(CONFIRM_TIMEOUT)
        written.cancel()
        if not written.done() or self._client.is_closed:  # an error of the server, with the answer to the PING behind it
            raise nats.errors.ConnectionClosedError

    async def _on_disconnected(self) -> None:
        _logger.warning("the connection to NATS at %s was lost", self._places)
        if not self._lost.done():
            self._lost.set_result(None)
        self._outbox.set_up(False)
        self._interrupted()

    async def _on_reconnected(self) -> None:
        """The client cancels this when the connection is lost again, or closed."""
        while self.stores:
            try:
                await self._js.stream_info(self._stream)
                break
            except (nats.errors.Error, asyncio.TimeoutError):
                await asyncio.sleep(RETRY_DELAY)  # a server that has just begun has no streams yet
        _logger.warning("NATS at %s is back, %d subscriptions restored", self._places, len(self._subscriptions))
        self._lost = asyncio.get_running_loop().create_future()
        self._outbox.set_up(True)
        self._restored()

    async def _on_closed(self) -> None:
        """The client does this by itself on some errors of the server: too many subscriptions, a user that has expired."""
        if self._renewing is None:
            self._renewing = asyncio.get_running_loop().create_task(self._renew())

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RETRY_DELAY)
            try:
                await self._connect()
                for topic, old in list(self._subscriptions.items()):
                    new = await self._take(topic)
                    if self._subscriptions.get(topic) is old:
                        self._subscriptions[topic] = new
                    else:  # pragma: no cover - only a client that still holds 2 MB lets anybody else run in subscribe()
                        await new.unsubscribe()
                await self._confirmation()
                break
            except _AWAY as error:
                _logger.info("NATS at %s is still away: %r", self._places, error)
                await self._client.close()
        self._renewing = None
        await self._on_reconnected()

    async def _on_error(self, error: Exception) -> None:
        if refused := _REFUSED.search(str(error)):
            self._refused.add((refused[1], refused[2]))
        # Which a user should see: messages that were received and dropped.
        if isinstance(error, nats.errors.SlowConsumerError):
            _logger.error("messages on %s were dropped: this process is too slow", error.subject)
        else:
            _logger.debug("NATS: %r", error)
