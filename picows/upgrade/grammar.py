"""The header fields of the upgrade: how they are written, what they may hold and mean.

Here stands what requests and responses share. What only one of them must hold is checked where it
is read.

Header values are UTF-8 in both directions. Bytes that are not UTF-8 become
surrogate escapes (PEP 383), so whatever was received can be sent on unchanged.
"""

from __future__ import annotations

import binascii
import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Union

from multidict import CIMultiDict, istr

MAX_HEAD_SIZE = 16384  # bytes of start line and headers, the empty line behind them included
MAX_HEADERS = 128

ExtraHeaders = Union[Mapping[str, str], Iterable[tuple[str, str]], None]

HTTP_1_1 = b"HTTP/1.1"
END_OF_HEAD = b"\r\n\r\n"
TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # RFC 9110 section 5.6.2

BAD_FIELD_LINE = "a header line isn't 'name: value' ended by CR LF"
BAD_CONNECTION = "an upgrade needs the connection option 'Upgrade'"

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3
_NO_BODY = ["0"]  # the one Content-Length a message without a body may carry
_NAME = re.compile(TOKEN)
_BAD_IN_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")

# The names nearly every handshake carries exist once, not once per connection, and as `istr`
# they enter a CIMultiDict without being lowered again.
NAMES = {
    name: istr(name)
    for name in (
        "Accept-Encoding",
        "Accept-Language",
        "Authorization",
        "Cache-Control",
        "Connection",
        "Content-Length",
        "Content-Type",
        "Cookie",
        "Date",
        "Host",
        "Origin",
        "Pragma",
        "Sec-WebSocket-Accept",
        "Sec-WebSocket-Extensions",
        "Sec-WebSocket-Key",
        "Sec-WebSocket-Protocol",
        "Sec-WebSocket-Version",
        "Server",
        "Upgrade",
        "User-Agent",
    )
}
ACCEPT = NAMES["Sec-WebSocket-Accept"]
CONNECTION = NAMES["Connection"]
CONTENT_LENGTH = NAMES["Content-Length"]
CONTENT_TYPE = NAMES["Content-Type"]
COOKIE = NAMES["Cookie"]
EXTENSIONS = NAMES["Sec-WebSocket-Extensions"]
HOST = NAMES["Host"]
KEY = NAMES["Sec-WebSocket-Key"]
PROTOCOL = NAMES["Sec-WebSocket-Protocol"]
UPGRADE = NAMES["Upgrade"]
VERSION = NAMES["Sec-WebSocket-Version"]
TRANSFER_ENCODING = istr("Transfer-Encoding")

# What asks for an upgrade, and what agrees to it.
UPGRADE_FIELDS = ((UPGRADE, "websocket"), (CONNECTION, "Upgrade"))


def size_of_head(received: bytes, known: int, limit: int) -> int:
    """The size of a head that ends in the first `limit` bytes received, 0 where none does.

    :param known: how many of the bytes were looked at before, and hold no end
    """
    end = received.find(END_OF_HEAD, max(0, known - 3), limit)
    return end + len(END_OF_HEAD) if end >= 0 else 0


def checked_headers(extra_headers: ExtraHeaders) -> CIMultiDict[str]:
    """A copy of headers given by the user, every one fit to be sent."""
    headers: CIMultiDict[str] = CIMultiDict()
    if extra_headers is None:
        return headers
    pairs = extra_headers.items() if isinstance(extra_headers, Mapping) else extra_headers
    for pair in pairs:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise TypeError(f"a header must be a pair of name and value, not {pair!r}")
        name, value = pair
        if not isinstance(name, str):
            raise TypeError(f"the name of a header must be a str, not {name!r}")
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} cannot be the name of a header (RFC 9110 section 5.1)")
        headers.add(name, checked_value(name, value))
    return headers


def checked_value(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"the value of {name} must be a str, not {value!r}")
    bad = _BAD_IN_VALUE.search(value)
    if bad:
        raise ValueError(f"the value of {name} holds {bad[0]!r} (RFC 9110 section 5.5): {value!r}")
    try:
        value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as exc:
        raise ValueError(f"the value of {name} has no UTF-8 form: {exc}") from None
    return value


def field_lines(headers: CIMultiDict[str]) -> bytes:
    """The headers as they are sent, with the empty line behind them."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    # The objects are mutable: one line each is what must leave, whatever was put in.
    if lines.count("\r") != len(headers) or lines.count("\n") != len(headers) or "\0" in lines:
        checked_headers(headers)
    return lines.encode("utf-8", "surrogateescape") + b"\r\n"


def members(headers: CIMultiDict[str], name: str) -> list[str]:
    """The members of a comma-separated list that may stand on several lines."""
    between = [part.strip(" \t") for line in headers.getall(name, ()) for part in line.split(",")]
    return [member for member in between if member]


def has_token(headers: CIMultiDict[str], name: str, token: str) -> bool:
    """Whether a list of case-insensitive tokens has this one, which is given in lower case."""
    return headers.get(name, "").lower() == token or any(
        member.lower() == token for member in members(headers, name)
    )


def has_length(headers: CIMultiDict[str]) -> bool:
    """Whether Content-Length says anything else than that there is no body."""
    return headers.getall(CONTENT_LENGTH, _NO_BODY) != _NO_BODY


def head_fault(raw: bytes, reason: str) -> str:
    """Description for a WSInvalidMessageError."""
    return f"cannot upgrade, {reason}: received {raw[:80]!r}"


def header_fault(headers: CIMultiDict[str], name: str, reason: str) -> tuple[str, str, str | None]:
    """Description, name and value for a WSInvalidHeaderError."""
    values = headers.getall(name, None)
    received = "none" if values is None else ", ".join(map(repr, values))
    return (
        f"cannot upgrade, {reason}: received {name}: {received}",
        str(name),
        None if values is None else ", ".join(values),
    )


def accept_value(key: str) -> str:
    """The Sec-WebSocket-Accept that answers a Sec-WebSocket-Key (RFC 6455 section 4.2.2)."""
    return to_base64(hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest())


def to_base64(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode()
