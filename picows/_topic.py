"""What is known of one topic; what names of topics, and positions in them, are made of."""

from __future__ import annotations

import asyncio
import re
from typing import Any

from ._envelope import Envelope
from .errors import WSBrokerError
from .picows import WSTransport

_TOKEN = re.compile(r"[!-)+-=?-~]+")  # visible ASCII without "*" and ">"
_POSITION = re.compile(r"\d{1,20}(-\d{1,20})*", re.ASCII)


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


def position_order(position: str) -> tuple[int, ...]:
    """As positions are compared.

    :raises ValueError, TypeError: it is none
    """
    if not isinstance(position, str):
        raise TypeError(f"a position is a str, got {type(position).__name__}")
    if not _POSITION.fullmatch(position):
        raise ValueError(f"a position is made of decimal numbers and '-', got {position!r}")
    return tuple(map(int, position.split("-")))


class BrokerTopic(Topic):
    """A topic that the broker is asked for as long as somebody wants it."""

    __slots__ = ("asking", "coming", "confirmed", "echoes", "held", "joined", "moved", "order", "outages", "position", "replays")

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.joined = False  # the broker sends it to us
        self.asking: asyncio.Task[None] | None = None  # for it, or for no more of it
        self.coming = 0  # calls of subscribe() that are under way
        self.position: str | None = None  # of the last message that was delivered
        self.order: tuple[int, ...] = ()  # ... as positions are compared
        self.held: list[tuple[bytes, str | None]] | None = None  # while what was missed in an outage is fetched
        self.outages = 0
        self.replays: list[Replay] = []
        self.moved: list[asyncio.Future[None]] = []  # of those who wait for a position
        self.echoes: dict[int, asyncio.Future[int]] = {}  # what we have published, by its number, until it comes back
        self.confirmed: set[int] = set()  # of these, what the broker has

    def wanted(self) -> bool:
        return self.members is not None or self.coming > 0

    def wake(self) -> None:
        """It has moved on, or never will."""
        moved, self.moved = self.moved, []
        for future in moved:
            if not future.done():
                future.set_result(None)

    def fail_echoes(self, error: str) -> None:
        """What the broker has, and may have lost; what waits for it is still to be published."""
        for number in self.confirmed:
            echo = self.echoes[number]
            if not echo.done():
                echo.set_exception(WSBrokerError(error))


class Replay:
    """A transport that gets what it has missed, and what comes meanwhile."""

    def __init__(self, transport: WSTransport) -> None:
        self.transport = transport
        self.held: list[tuple[tuple[int, ...], str, Envelope]] = []
