"""The arguments of `connect` and `serve` that both have, checked and turned into options of picows."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from ..arguments import check_int, check_seconds
from ..deflate import WSDeflate
from ..settings import LOGGER_METHODS
from .datastructures import Headers, HeadersLike
from .exceptions import InvalidHeaderValue

_DEFLATE = "permessage-deflate"

# What `PermessageDeflate` factories have, and `zlib.compressobj` takes, by our names.
_FACTORY_SETTINGS = ("server_no_context_takeover", "client_no_context_takeover", "server_max_window_bits", "client_max_window_bits")
_COMPRESS_SETTINGS = {"level": "level", "memLevel": "mem_level"}


def check_open_timeout(value: object) -> None:
    if value is not None and (not isinstance(value, (int, float)) or isinstance(value, bool)):
        raise TypeError(f"open_timeout must be a number of seconds or None, got {value!r}")


def check_logger(value: object) -> None:
    if not all(callable(getattr(value, method, None)) for method in LOGGER_METHODS):
        raise TypeError(f"logger must be a logger or None, got {value!r}")


def check_limits(*, ping_interval: Any, ping_timeout: Any, close_timeout: Any, max_queue: Any, write_limit: Any) -> None:
    """:raises TypeError, ValueError: one of them is wrong"""
    for name, seconds in (("ping_interval", ping_interval), ("ping_timeout", ping_timeout), ("close_timeout", close_timeout)):
        # 0 has a meaning for two of them: no pings, and to close at once. No pong comes in no time.
        is_zero = type(seconds) in (int, float) and seconds == 0
        if seconds is not None and not (is_zero and name != "ping_timeout"):
            check_seconds(name, seconds)
    if max_queue is not None:
        _check_marks("max_queue", _pair("max_queue", max_queue))
    _check_marks("write_limit", _pair("write_limit", write_limit))


def message_limits(max_size: Any) -> tuple[int, int]:
    """The largest message and the largest frame."""
    message, frame = (max_size, None) if max_size is None else _pair("max_size", max_size)
    for size in (message, frame):
        if size is not None:
            check_int("max_size", size, 0)
    # Of 0 bytes no option of ours makes sense; nobody means that.
    message = sys.maxsize if message is None else max(message, 1)
    return message, message if frame is None else max(frame, 1)


def _pair(name: str, value: Any) -> tuple[Any, Any]:
    """A limit that is given by one number, or by two."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value, None
    if not isinstance(value, (tuple, list, str)):
        raise TypeError(f"{name} must be an int or a tuple of two, got {value!r}")
    if isinstance(value, str) or len(value) != 2:
        raise ValueError(f"{name} must be an int or a tuple of two, got {value!r}")
    return value[0], value[1]


def _check_marks(name: str, marks: tuple[Any, Any]) -> None:
    high, low = marks
    for mark in marks:
        if mark is not None:
            check_int(name, mark, 0)
    if high is not None and low is not None and low > high:
        raise ValueError(f"{name} must be high and low, got {marks!r}")


def header_list(headers: HeadersLike | None) -> list[tuple[str, str]]:
    """Headers as pairs; each value a str that may be sent."""
    if headers is None:
        return []
    pairs: Any = headers
    if isinstance(headers, Headers):
        pairs = headers.raw_items()
    elif hasattr(pairs, "keys"):
        names = pairs.keys()    # it need not be something to iterate over
        pairs = [(name, pairs[name]) for name in names]
    checked = []
    for name, value in pairs:
        if not isinstance(name, str):
            raise TypeError(f"the name of a header must be a str, got {name!r}")
        text = value if isinstance(value, str) else str(value)
        if any((character < " " and character != "\t") or character == "\x7f" for character in text):
            raise InvalidHeaderValue(name, text)
        checked.append((name, text))
    return checked


def compression_settings(compression: str | None, extensions: Sequence[Any] | None) -> WSDeflate | None:
    """The one extension that there is, by its name or by a factory of `websockets.extensions`.

    :raises ValueError: for another `compression`
    :raises NotImplementedError: for another extension
    """
    if compression not in (None, "deflate"):
        raise ValueError(f"unsupported compression: {compression}")
    settings = None
    for factory in extensions or ():
        if factory.name != _DEFLATE:
            raise NotImplementedError(f"picows.websockets has no extension but {_DEFLATE}, got {factory!r}")
        if settings is None:
            settings = _settings_of(factory)
    return WSDeflate() if settings is None and compression is not None else settings


def _settings_of(factory: Any) -> WSDeflate:
    settings = {}
    for name in _FACTORY_SETTINGS:
        value = getattr(factory, name, None)
        # True: any window will do.
        if value is not None and not (value is True and name.endswith("bits")):
            settings[name] = value
    for name, value in (getattr(factory, "compress_settings", None) or {}).items():
        if name not in _COMPRESS_SETTINGS:
            raise NotImplementedError(f"picows.websockets knows no setting {name!r} of zlib")
        settings[_COMPRESS_SETTINGS[name]] = value
    return WSDeflate(**settings)
