"""Checks of arguments: each raises a TypeError or ValueError that names the argument and its value."""

from __future__ import annotations

import inspect
import operator
import ssl
import sys
import threading
from enum import IntEnum


def check_bool(name: str, value: object) -> None:
    # 1 and 0 are what they always were.
    if not isinstance(value, int) or value not in (0, 1):
        raise TypeError(f"{name} must be a bool, got {value!r}")


def check_int(name: str, value: object, lowest: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int, got {value!r}")
    if not lowest <= value <= sys.maxsize:
        raise ValueError(f"{name} must be from {lowest} to {sys.maxsize}, got {value!r}")


def checked_index(name: str, value: object, lowest: int) -> int:
    """As :func:`check_int`, for whatever stands for an int: NumPy's, for example."""
    try:
        number = value if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name} must be an int, got {value!r}") from None
    check_int(name, number, lowest)
    return number


def check_member(name: str, value: object, enum: type[IntEnum]) -> None:
    check_int(name, value, 1)
    if value not in list(enum):
        raise ValueError(f"{name} must be a {enum.__name__}, got {value!r}")


def check_seconds(name: str, value: object) -> None:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number of seconds, got {value!r}")
    if not 0 < value <= threading.TIMEOUT_MAX:
        raise ValueError(f"{name} must be a positive, finite number of seconds, got {value!r}")


def check_optional(name: str, value: object, kind: type) -> None:
    if value is not None and not isinstance(value, kind):
        raise TypeError(f"{name} must be a {kind.__name__} or None, got {value!r}")


def check_context(name: str, value: object, wrong_protocol: int) -> None:
    """Refuse a TLS context of the other side, by which every handshake would fail."""
    if value is None:
        return
    if not isinstance(value, ssl.SSLContext):
        raise TypeError(f"{name} must be an ssl.SSLContext or None, got {value!r}")
    if value.protocol == wrong_protocol:
        raise ValueError(f"{name} is a context for the other side: {value.protocol!r}")


def accepts(function: object, arguments: int) -> bool:
    """Whether it can be called with so many positional arguments."""
    if not callable(function):
        return False
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):
        # Compiled classes and functions need not have a signature.
        return arguments < 2
    try:
        signature.bind(*[None] * arguments)
    except TypeError:
        return False
    return True
