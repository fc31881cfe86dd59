"""Publish and subscribe: which transports want which topics, and what is published for all of them."""

from __future__ import annotations

import re
import threading
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

from ._members import each, with_member, without_member
from .picows import WSMsgType, WSTransport, watch_end, ws_broadcast

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["WSTopics"]

_TOKEN = re.compile(r"[!-)+-=?-~]+")  # visible ASCII without "*" and ">"


def check_topic(topic: object) -> str:
    """The name of a topic.

    :raises ValueError, TypeError: it is none; the message says what is wrong with it
    """
    if not isinstance(topic, str):
        raise TypeError(f"topic is of type {type(topic).__name__}, expected str")
    for token in topic.split("."):
        if not token:
            raise ValueError(f"topic is {topic!r}, expected names between the dots")
        if not _TOKEN.fullmatch(token):
            wrong = next(char for char in token if not _TOKEN.fullmatch(char))
            what = "a wildcard" if wrong in "*>" else "no visible ASCII"
            raise ValueError(f"topic is {topic!r}, of which {wrong!r} is {what}")
    return topic


class Topic:
    """A topic that somebody has subscribed to."""

    __slots__ = ("members", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.members: Any = None  # its transports, as _members.py keeps them


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
    """

    def __init__(self) -> None:
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
