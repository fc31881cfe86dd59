"""Publish and subscribe: which transports want which topics, and what is published for all of them."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Hashable
from typing import TYPE_CHECKING, Any, overload

from ._broker import WSBroker
from ._envelope import Envelope, pack, unpack
from ._members import each, with_member, without_member
from ._topic import BrokerTopic, Replay, Topic, check_topic, position_order
from .arguments import check_seconds
from .errors import WSBrokerError, WSPositionError
from .picows import WSMsgType, WSTransport, watch_end, ws_broadcast

if TYPE_CHECKING:
    from typing_extensions import Buffer, Self

__all__ = ["WSBrokeredTopics", "WSTopics"]

_logger = logging.getLogger("picows.topics")

ECHO_TIMEOUT = 10.0  # seconds a broker may take to send back what it has confirmed
RETRY_DELAY = 0.1  # seconds between attempts to fetch what was missed
REPLAY_BUFFER = 256 * 1024  # bytes of what was missed that may wait for a peer



class WSTopics:
    """Who has subscribed to what.

    .. code-block:: python

        topics = WSTopics()
        topics.subscribe(transport, "prices.btc")
        topics.publish("prices.btc", WSMsgType.TEXT, quote)

    A transport that ends leaves all its topics by itself, right behind its listener's
    ``on_ws_disconnected``, which may still ask for them.

    The name of a topic is made of visible ASCII without ``*`` and ``>``, in parts that are joined
    by dots. A topic is there as long as somebody subscribes to it.

    Belongs to one thread, as its transports do: that of the first transport that subscribes, until
    the last has left. Called from another thread, every method that changes something raises
    `RuntimeError`.

    :param broker: None: the topics of this process alone. With a broker this makes
        :class:`WSBrokeredTopics`, whose :meth:`subscribe` and :meth:`publish` are to be awaited.
    :param stamp: with a broker that stores: called for each message, once for all who get it, with
        the topic, its position and the bytes; returns what is sent in their place. So clients
        are told the position of what they have got.
    """

    @overload
    def __new__(cls, broker: None = None) -> WSTopics: ...
    @overload
    def __new__(
        cls, broker: WSBroker, *, stamp: Callable[[str, str, bytes], str | Buffer] | None = None
    ) -> WSBrokeredTopics: ...
    def __new__(cls, broker: WSBroker | None = None, *, stamp: object = None) -> WSTopics:  # noqa: PYI034
        if cls is WSTopics and broker is not None:
            cls = WSBrokeredTopics
        self = object.__new__(cls)
        self._begin()
        return self

    # No __init__: type checkers would take its word for the type, which depends on `broker`.
    def _begin(self) -> None:
        self._topics: dict[str, Topic] = {}
        self._joined: dict[WSTransport, Any] = {}  # to their Topics, as _members.py keeps them
        self._thread = 0
        # One tuple for all transports: no memory for each.
        self._end_watchers = (self._leave,)

    def __repr__(self) -> str:
        return f"<WSTopics of {len(self._joined)} transports, {len(self._topics)} topics>"

    def subscribe(self, transport: WSTransport, topic: str) -> None:
        """From now on the transport gets what is published to the topic.

        Does nothing when it does so already, and when it has ended.

        :raises ValueError, TypeError: the topic or the transport is none
        :raises RuntimeError: called from another thread than that of the transport, or of the others
        """
        check_topic(topic)
        if watch_end(transport, self._end_watchers):
            self._check_thread("subscribe")
            self._join(transport, topic)

    def unsubscribe(self, transport: WSTransport, topic: str) -> None:
        """The transport gets no more of the topic. Does nothing when it has not subscribed.

        :raises ValueError, TypeError: the topic or the transport is none
        :raises RuntimeError: called from another thread
        """
        check_topic(topic)
        _check_transport(transport)
        self._check_thread("unsubscribe")
        found = self._topics.get(topic)
        if found is not None and found in each(self._joined.get(transport)):
            self._part(transport, found)

    def unsubscribe_all(self, transport: WSTransport) -> None:
        """The transport gets no more of any topic.

        :raises TypeError: it is no transport
        :raises RuntimeError: called from another thread
        """
        _check_transport(transport)
        self._check_thread("unsubscribe_all")
        self._leave(transport)

    def publish(
        self,
        topic: str,
        msg_type: WSMsgType,
        message: str | Buffer | None,
        *,
        latest: Hashable | None = None,
        compress: bool | None = None,
    ) -> int:
        """Send a message to all that have subscribed to the topic, as :func:`ws_broadcast` does.

        The frame is built once, and compressed once for all that have agreed on the same settings.

        :param topic: nobody need have subscribed to it
        :param msg_type: TEXT or BINARY
        :param message: as for :meth:`WSTransport.send`
        :param latest: a key: for a transport whose peer does not keep up, the message takes the place
            of what waits under the same key, see :meth:`WSTransport.send_latest`
        :param compress: as for :meth:`WSTransport.send`
        :return: how many transports took it
        :raises ValueError, TypeError: an argument is wrong; nothing is sent
        :raises RuntimeError: called from another thread; nothing is sent
        """
        check_topic(topic)
        _check_msg_type(msg_type)
        return self._send(topic, msg_type, message, latest, compress)

    def subscribers(self, topic: str) -> int:
        """How many transports have subscribed to the topic."""
        found = self._topics.get(check_topic(topic))
        return 0 if found is None else len(each(found.members))

    def topics(self, transport: WSTransport) -> frozenset[str]:
        """What the transport has subscribed to."""
        _check_transport(transport)
        return frozenset(topic.name for topic in each(self._joined.get(transport)))

    def _send(self, topic: str, msg_type: WSMsgType, message: Any, latest: Any, compress: Any) -> int:
        found = self._topics.get(topic)
        # Without subscribers, too: a wrong message is told at once.
        transports = () if found is None else each(found.members)
        return ws_broadcast(transports, msg_type, message, True, compress, latest=latest)

    def _join(self, transport: WSTransport, name: str) -> None:
        topic = self._topics.get(name)
        if topic is None:
            topic = self._topics[name] = self._new_topic(name)
        joined = self._joined.get(transport)
        if topic not in each(joined):
            topic.members = with_member(topic.members, transport)
            self._joined[transport] = with_member(joined, topic)

    def _part(self, transport: WSTransport, topic: Topic) -> None:
        joined = without_member(self._joined.pop(transport), topic)
        if joined is not None:
            self._joined[transport] = joined
        self._remove(transport, topic)

    def _leave(self, transport: WSTransport) -> None:
        for topic in each(self._joined.pop(transport, None)):
            self._remove(transport, topic)

    def _remove(self, transport: WSTransport, topic: Topic) -> None:
        topic.members = without_member(topic.members, transport)
        if topic.members is None:
            self._drop(topic)

    def _new_topic(self, name: str) -> Topic:
        return Topic(name)

    def _drop(self, topic: Topic) -> None:
        """Nobody is left of those who have subscribed."""
        del self._topics[topic.name]

    def _check_thread(self, method: str) -> None:
        thread = threading.get_ident()
        if thread == self._thread:
            return
        if self._joined:
            raise RuntimeError(
                f"WSTopics.{method} was called from thread {thread}, "
                f"but its transports belong to thread {self._thread}"
            )
        self._thread = thread


def _check_transport(transport: object) -> None:
    if not isinstance(transport, WSTransport):
        raise TypeError(f"transport is of type {type(transport).__name__}, expected WSTransport")


def _check_msg_type(msg_type: object) -> None:
    if msg_type not in (WSMsgType.TEXT, WSMsgType.BINARY):
        raise ValueError(f"msg_type is {msg_type!r}, expected TEXT or BINARY")


class WSBrokeredTopics(WSTopics):
    """What ``WSTopics(broker)`` makes: topics that several processes have in common.

    .. code-block:: python

        async with WSTopics(NATSBroker("nats://localhost")) as topics:
            await topics.subscribe(transport, "prices.btc")
            await topics.publish("prices.btc", WSMsgType.TEXT, quote)

    Every message goes through the broker, to this process too, so that all subscribers of a topic
    get its messages in one order, wherever they were published. The broker is asked for a topic
    once, when its first transport subscribes, and told when the last has left.

    Belongs to the event loop that ``async with`` is run on.
    """

    def __init__(self, broker: WSBroker, *, stamp: Callable[[str, str, bytes], str | Buffer] | None = None) -> None:
        self._broker = broker
        self._stamp = stamp
        self._sender = os.urandom(8)
        self._numbers = itertools.count()
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = False
        self._broker_there = asyncio.Event()

    async def __aenter__(self) -> Self:
        """Connect to the broker.

        :raises WSBrokerError: it cannot be reached
        """
        self._check_thread("__aenter__")
        self._loop = asyncio.get_running_loop()
        await self._broker.open(self._receive, self._interrupted, self._restored)
        self._open = True
        self._broker_there.set()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Disconnect from the broker. The transports are left alone, but nothing more comes."""
        self._open = False
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._broker.close()
        for topic in self._all():
            topic.fail_echoes("the broker was closed before the message came back")
            topic.wake()

    async def subscribe(  # type: ignore[override]
        self, transport: WSTransport, topic: str, *, since: str | None = None
    ) -> str | None:
        """The transport gets what is published to the topic, from the moment on when this returns.

        Waits until the broker has agreed. Does nothing when the transport has subscribed already, and when it has ended.

        :param since: with a broker that stores, a position: first the transport gets what was
            published after it, then what is published from now on, with nothing between missing
            or twice
        :return: with a broker that stores the position of the last message before those which the
            transport is still to get
        :raises WSPositionError: not all that was published after `since` is stored any longer
        :raises WSBrokerError: the broker refuses, or is away
        :raises ValueError, TypeError: an argument is wrong
        :raises RuntimeError: called from another thread, or outside of ``async with``
        """
        check_topic(topic)
        if since is not None:
            position_order(since)
            if not self._broker.stores:
                raise ValueError(f"since is {since!r}, but the broker does not store messages")
        self._check_open()
        if not watch_end(transport, self._end_watchers):
            return None
        self._check_thread("subscribe")
        found = self._topics.get(topic)
        if found is None:
            found = self._topics[topic] = self._new_topic(topic)
        assert isinstance(found, BrokerTopic)
        found.coming += 1
        try:
            while not found.joined or found.asking is not None:
                await self._ask(found)
            if transport in each(found.members):
                return found.position
            if since is not None:
                await self._replay(found, transport, since)
            if not transport.is_disconnected:
                self._join(transport, topic)
            return found.position
        finally:
            found.coming -= 1
            if not found.wanted():
                self._drop(found)

    async def publish(  # type: ignore[override]
        self,
        topic: str,
        msg_type: WSMsgType,
        message: str | Buffer | None,
        *,
        latest: str | None = None,
        compress: bool | None = None,
        timeout: float | None = 0,
    ) -> int:
        """Send a message to all that have subscribed to the topic, in every process.

        Returns when the broker has confirmed it and, if there are subscribers in this process, when
        it has come back and was sent to them. Calls keep their order, also when none is awaited
        before the next is made: several at once, as by :func:`asyncio.gather`, share one
        confirmation, and are much quicker than one after another.

        :param topic: nobody need have subscribed to it
        :param msg_type: TEXT or BINARY
        :param message: as for :meth:`WSTransport.send`
        :param latest: as for :meth:`WSTopics.publish`, but a str
        :param compress: as for :meth:`WSTransport.send`
        :param timeout: how many seconds to wait for a broker that is away. 0: none, it raises at once;
            None: as long as it takes
        :return: how many transports of this process took it
        :raises WSBrokerError: the broker is away, nothing was published; or it went away before it
            has confirmed, and the message may have arrived or not: the error says which
        :raises ValueError, TypeError: an argument is wrong; nothing is published
        :raises RuntimeError: called from another thread, or outside of ``async with``
        """
        check_topic(topic)
        _check_msg_type(msg_type)
        if not isinstance(latest, (str, type(None))):
            raise TypeError(f"latest is of type {type(latest).__name__}, expected str or None with a broker")
        if timeout is not None and (isinstance(timeout, bool) or timeout != 0):
            check_seconds("timeout", timeout)
        ws_broadcast((), msg_type, message, True, compress)  # checks the rest
        self._check_open()
        self._check_thread("publish")
        payload = message.encode() if isinstance(message, str) else b"" if message is None else bytes(memoryview(message))
        number = next(self._numbers)
        data = pack(Envelope(self._sender, number, WSMsgType(msg_type), compress, latest, payload))
        found = self._topics.get(topic)
        if found is None or found.members is None:
            await self._broker.publish(topic, data, timeout)
            return 0
        assert isinstance(found, BrokerTopic)
        echo = found.echoes[number] = self._loop.create_future()
        try:
            await self._broker.publish(topic, data, timeout)
            found.confirmed.add(number)
            if not self._broker_there.is_set():
                self._lose_echoes()
            await asyncio.wait([echo], timeout=ECHO_TIMEOUT)
            if not echo.done():
                raise WSBrokerError(f"the broker has the message, but did not send it back within {ECHO_TIMEOUT} seconds")
            count: int = echo.result()
            return count
        finally:
            found.confirmed.discard(number)
            found.echoes.pop(number, None)
            echo.cancel()

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
        self._lose_echoes()

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
        try:
            envelope = unpack(data)
        except ValueError as error:
            _logger.warning("what the broker sent on topic %r was dropped: %s", topic.name, error)
            return
        count = 0
        if topic.members is not None:
            message = self._stamped(topic, position, envelope)
            count = self._send(topic.name, envelope.msg_type, message, envelope.latest, envelope.compress)
        if position is not None:
            for replay in topic.replays:
                replay.held.append((order, position, envelope))
            topic.wake()
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
            outages = topic.outages
            assert topic.position is not None
            try:
                async for position, data in self._missed(topic.name, topic.position):
                    self._deliver(topic, data, position)
            except WSPositionError as error:
                _logger.error("messages were lost in an outage of the broker: %s", error)
        held, topic.held = topic.held, None
        for data, at in held or ():
            self._deliver(topic, data, at)

    async def _replay(self, topic: BrokerTopic, transport: WSTransport, since: str) -> None:
        if any(replay.transport is transport for replay in topic.replays):
            raise RuntimeError(f"the transport is subscribing to {topic.name!r} already")
        replay = Replay(transport)
        topic.replays.append(replay)
        last = position_order(since)
        try:
            async for position, data in self._missed(topic.name, since):
                if transport.is_disconnected:
                    return
                last = position_order(position)
                self._send_one(topic, transport, position, unpack(data))
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
