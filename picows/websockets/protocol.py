"""The states and the sides of a connection."""

from __future__ import annotations

import enum
from typing import Any

from ._place import ABSENT_NAMES, absent
from ._types import shared

__all__ = ["Side", "State"]


@shared
class Side(enum.IntEnum):
    SERVER, CLIENT = range(2)


@shared
class State(enum.IntEnum):
    """RFC 6455 sections 4 and 7."""

    CONNECTING, OPEN, CLOSING, CLOSED = range(4)


def __getattr__(name: str) -> Any:
    if name in ABSENT_NAMES:
        raise absent(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
