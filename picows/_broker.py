"""What a broker is to WSTopics: an interface, which users implement for other systems."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Protocol


class WSBroker(Protocol):
    """Carries what is published from one process to all that have subscribed.

    :class:`WSTopics` calls it from the thread of one event loop. It calls :meth:`subscribe` and
    :meth:`unsubscribe` of a topic in turns and never at the same time, however many connections
    want the topic.

    Without a store it delivers at most once. One that stores gives each message of a topic a
    position: decimal numbers joined by ``-`` (``"17"``, ``"1712345678901-0"``), which grow from
    message to message of the topic, compared number by number.
    """

    stores: bool
    """Whether it keeps messages: then :meth:`missed` is called, and messages have positions."""

    async def open(
        self,
        receive: Callable[[str, bytes, str | None], None],
        interrupted: Callable[[], None],
        restored: Callable[[], None],
    ) -> None:
        """Connect.

        :param receive: to be called for each message of a topic that was subscribed to, in the
            order of the topic, those that this process has published included: the topic, what
            :meth:`publish` was given, and the position if there is a store
        :param interrupted: to be called when the connection is lost, before any message of the next one
        :param restored: to be called when the connection and all subscriptions are there again
        :raises WSBrokerError: the broker cannot be reached
        """

    async def close(self) -> None:
        """Disconnect. Publishes that wait are to raise :class:`WSBrokerError`."""

    async def publish(self, topic: str, data: bytes, timeout: float | None) -> None:
        """Hand a message to the broker; return when it has confirmed that it has it.

        Calls that are made one after another keep their order, also when none is awaited before
        the next one is made.

        :param timeout: how many seconds to wait for a broker that is away, 0: none, None: any
        :raises WSBrokerError: it is away, or went away before it has confirmed
        """

    async def subscribe(self, topic: str) -> str | None:
        """Receive the topic from now on, over outages as well.

        :return: if there is a store, a position: all that has a later one will be received
        :raises WSBrokerError: the broker refuses, or is away
        """

    async def unsubscribe(self, topic: str) -> None:
        """Receive it no more."""

    def missed(self, topic: str, since: str) -> AsyncIterator[tuple[str, bytes]]:
        """With a store: what was published to the topic behind a position, to the end of the store.

        :raises WSPositionError: not all of it is stored any longer, or the position never was
        :raises WSBrokerError: the broker is away
        """
