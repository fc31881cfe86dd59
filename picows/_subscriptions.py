"""Who has subscribed to what, as WSTopics keep it: how it begins and ends, and the sending to all of a topic."""

from __future__ import annotations

import threading
from typing import Any

from ._members import each, with_member, without_member
from ._topic import Topic
from .picows import WSMsgType, WSTransport, ws_broadcast


class Subscriptions:
    """What :class:`WSTopics` knows; of brokers it knows nothing."""

    def _begin(self) -> None:
        self._topics: dict[str, Topic] = {}
        self._joined: dict[WSTransport, Any] = {}  # to their Topics, as _members.py keeps them
        self._thread = 0
        # One tuple for all transports: no memory for each.
        self._end_watchers = (self._leave,)

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
