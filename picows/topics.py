"""Publish and subscribe: which transports want which topics, and what is published for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, overload

from ._broker import WSBroker
from ._brokered import BrokeredSubscriptions
from ._envelope import Envelope, pack
from ._members import each
from ._subscriptions import Subscriptions
from ._topic import BrokerTopic, check_topic, position_order
from .arguments import check_seconds
from .errors import WSBrokerError
from .picows import WSMsgType, WSTransport, watch_end, ws_broadcast

if TYPE_CHECKING:
    from typing_extensions import Buffer, Self

__all__ = ["WSBrokeredTopics", "WSTopics"]

ECHO_TIMEOUT = 10.0  # seconds a broker may take to send back what it has confirmed


class WSTopics(Subscriptions):
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

    # No __init__: type checkers would take its word for the type, which depends on `broker`.
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


def _check_transport(transport: object) -> None:
    if not isinstance(transport, WSTransport):
        raise TypeError(f"transport is of type {type(transport).__name__}, expected WSTransport")


def _check_msg_type(msg_type: object) -> None:
    if msg_type not in (WSMsgType.TEXT, WSMsgType.BINARY):
        raise ValueError(f"msg_type is {msg_type!r}, expected TEXT or BINARY")


class WSBrokeredTopics(BrokeredSubscriptions, WSTopics):
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
        :raises RuntimeError: the transport is subscribing already; or called from another thread, or
            outside of ``async with``
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
            while not found.joined:
                await self._ask(found)
            if transport in each(found.members):
                return found.position
            if any(replay.transport is transport for replay in found.replays):
                raise RuntimeError(f"the transport is subscribing to {topic!r} already")
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
