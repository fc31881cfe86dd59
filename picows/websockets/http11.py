"""The request and the response of an opening handshake."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from .. import __version__
from ._types import shared
from .datastructures import Headers

__all__ = ["SERVER", "USER_AGENT", "Request", "Response"]

SERVER = USER_AGENT = f"Python/{sys.version_info[0]}.{sys.version_info[1]} picows/{__version__}"


@shared
@dataclass
class Request:
    """`path` has the query in it."""

    path: str
    headers: Headers
    method: str = "GET"
    protocol: str = "HTTP/1.1"

    def serialize(self) -> bytes:
        return f"{self.method} {self.path} {self.protocol}\r\n".encode() + self.headers.serialize()


@shared
@dataclass
class Response:
    status_code: int
    reason_phrase: str
    headers: Headers
    body: bytes | bytearray = b""

    def serialize(self) -> bytes:
        status = f"HTTP/1.1 {self.status_code} {self.reason_phrase}\r\n".encode()
        return status + self.headers.serialize() + self.body
