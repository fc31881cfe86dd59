"""Subscriptions with a broker behind them: what this process asks of it, what comes from it, and what it has missed."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import TYPE_CHECKING, Any

from ._broker import WSBroker
from ._envelope import Envelope, unpack
from ._subscriptions import Subscriptions
from ._topic import BrokerTopic, Replay, Topic, position_order
from .errors import WSBrokerError, WSPositionError
from .picows import WSTransport, ws_broadcast

if TYPE_CHECKING:
    from typing_extensions import Buffer

_logger = logging.getLogger("picows.topics")

RETRY_DELAY = 0.1  # seconds between attempts to fetch what was missed
REPLAY_BUFFER = 256 * 1024  # bytes of what was missed that may wait for a peer


class BrokeredSubscriptions(Subscriptions):
    """What :class:`WSBrokeredTopics` does without being asked by its user: all but subscribe and publish."""

    def __init__(self, broker: WSBroker, *, stamp: Callable[[str, str, bytes], str | Buffer] | None = None) -> None:
        self._broker = broker
        self._stamp = stamp
        self._sender = os.urandom(8)
        self._numbers = itertools.count()
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = False
        self._broker_there = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop  # set when it is opened

    # What the broker calls.

    def _receive(self, name: str, data: bytes, position: str | None) -> None:
        topic = self._topics.get(name)
        if isinstance(topic, BrokerTopic):
            if topic.held is not None:
                topic.held.append((data, position))
            else:
                self._deliver(topic, data, position)

    def _interrupted(self) -> None:
        self._broker_there.clear()
        for topic in self._all():
            topic.outages += 1
            if self._broker.stores and topic.held is None and topic.position is not None:
                topic.held = []
                self._run(self._catch_up(topic))
        self._lose_echoes()

    def _restored(self) -> None:
        self._broker_there.set()

    def _lose_echoes(self) -> None:
        if not self._broker.stores:
            for topic in self._all():
                topic.fail_echoes("the broker went away before the message came back: it may have arrived or not")

    # How a message goes on.

    def _deliver(self, topic: BrokerTopic, data: bytes, position: str | None) -> None:
        if position is not None:
            order = position_order(position)
            if order <= topic.order:
                return  # it has come before
            topic.order, topic.position = order, position
        envelope = unpack_or_drop(topic.name, data)
        if envelope is not None:
            self._hand_out(topic, position, envelope)
        topic.wake()

    def _hand_out(self, topic: BrokerTopic, position: str | None, envelope: Envelope) -> None:
        count = 0
        if topic.members is not None:
            message = self._stamped(topic, position, envelope)
            count = self._send(topic.name, envelope.msg_type, message, envelope.latest, envelope.compress)
        if position is not None:
            for replay in topic.replays:
                replay.held.append((topic.order, position, envelope))
        if envelope.sender == self._sender:
            echo = topic.echoes.get(envelope.number)
            if echo is not None and not echo.done():
                echo.set_result(count)

    def _stamped(self, topic: Topic, position: str | None, envelope: Envelope) -> Any:
        if self._stamp is None or position is None:
            return envelope.payload
        return self._stamp(topic.name, position, envelope.payload)

    # What was missed.

    async def _missed(self, topic: str, since: str) -> AsyncIterator[tuple[str, bytes]]:
        """All behind a position, to the end of the store, over outages of the broker as well."""
        while True:
            try:
                async for position, data in self._broker.missed(topic, since):
                    yield position, data
                    since = position
                return
            except WSBrokerError:
                await asyncio.sleep(RETRY_DELAY)

    async def _catch_up(self, topic: BrokerTopic) -> None:
        """After an outage: first what was missed, then what came meanwhile."""
        outages = -1
        while outages != topic.outages or not self._broker_there.is_set():
            await self._broker_there.wait()
            outages, begin = topic.outages, topic.order
            assert topic.position is not None
            try:
                async for position, data in self._missed(topic.name, topic.position):
                    self._deliver(topic, data, position)
            except WSPositionError as error:
                _logger.error("messages were lost in an outage of the broker: %s", error)
                if topic.order == begin:
                    topic.order = ()  # a store that was lost begins anew, and what is held came behind the outage
        held, topic.held = topic.held, None
        for data, at in held or ():
            self._deliver(topic, data, at)

    async def _replay(self, topic: BrokerTopic, transport: WSTransport, since: str) -> None:
        replay = Replay(transport)
        topic.replays.append(replay)
        last = position_order(since)
        try:
            async for position, data in self._missed(topic.name, since):
                if transport.is_disconnected:
                    return
                last = position_order(position)
                if (envelope := unpack_or_drop(topic.name, data)) is not None:
                    self._send_one(topic, transport, position, envelope)
                if transport.write_buffer_size > REPLAY_BUFFER:
                    await transport.drain()
            # What comes live may be behind what is stored: go on where it has reached the same place.
            while topic.order < last and self._open:
                moved = self._loop.create_future()
                topic.moved.append(moved)
                await moved
            for order, position, envelope in replay.held:
                if order > last:
                    self._send_one(topic, transport, position, envelope)
            self._join(transport, topic.name)
        except ConnectionResetError:
            pass  # of the peer
        finally:
            topic.replays.remove(replay)

    def _send_one(self, topic: Topic, transport: WSTransport, position: str, envelope: Envelope) -> None:
        message = self._stamped(topic, position, envelope)
        ws_broadcast((transport,), envelope.msg_type, message, True, envelope.compress)

    # Asking the broker for a topic, and for no more of it.

    async def _ask(self, topic: BrokerTopic) -> None:
        if topic.asking is None:
            topic.asking = self._run(self._settle(topic))
        asking = topic.asking
        try:
            await asyncio.shield(asking)
        except asyncio.CancelledError:
            if asking.cancelled():
                raise WSBrokerError("the broker was closed before it has agreed") from None
            raise

    async def _settle(self, topic: BrokerTopic) -> None:
        """Make the broker's side what is wanted, also when that changes meanwhile."""
        try:
            while topic.joined != topic.wanted():
                if topic.joined:
                    topic.joined = False
                    await self._broker.unsubscribe(topic.name)
                else:
                    position = await self._broker.subscribe(topic.name)
                    if position is not None and position_order(position) > topic.order:
                        topic.order, topic.position = position_order(position), position
                    topic.joined = True
        finally:
            topic.asking = None
            if not topic.wanted() and self._topics.get(topic.name) is topic:
                for echo in topic.echoes.values():
                    if not echo.done():
                        echo.set_result(0)
                del self._topics[topic.name]

    def _new_topic(self, name: str) -> Topic:
        return BrokerTopic(name)

    def _drop(self, topic: Topic) -> None:
        assert isinstance(topic, BrokerTopic)
        if topic.asking is None and self._open and not topic.wanted():
            topic.asking = self._run(self._settle(topic))

    def _run(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None and not isinstance(task.exception(), WSBrokerError):
            _logger.error("topics of a broker failed", exc_info=task.exception())

    def _all(self) -> list[BrokerTopic]:
        return [topic for topic in self._topics.values() if isinstance(topic, BrokerTopic)]

    def _check_open(self) -> None:
        if not self._open:
            raise RuntimeError("WSTopics with a broker are used inside of `async with`")


def unpack_or_drop(topic: str, data: bytes) -> Envelope | None:
    """None for what no publisher of ours has sent."""
    try:
        return unpack(data)
    except ValueError as error:
        _logger.warning("what the broker sent on topic %r was dropped: %s", topic, error)
        return None
