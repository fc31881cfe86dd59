"""The URIs of WebSockets (RFC 6455 section 3)."""

from __future__ import annotations

import urllib.parse
from dataclasses import dataclass

from ._types import shared
from .exceptions import InvalidURI

__all__ = ["WebSocketURI", "parse_uri"]


@shared
@dataclass
class WebSocketURI:
    """The parts of a URI; `path` and `query` percent-encoded, without the question mark."""

    secure: bool
    host: str
    port: int
    path: str
    query: str
    username: str | None = None
    password: str | None = None

    @property
    def resource_name(self) -> str:
        path = self.path or "/"
        return f"{path}?{self.query}" if self.query else path

    @property
    def user_info(self) -> tuple[str, str] | None:
        if self.username is None or self.password is None:
            return None
        return self.username, self.password


# What RFC 3986 reserves or leaves as it is, "%" since it encodes already; the space, as the original does.
_AS_IT_IS = ":/?#[]@!$&'()*+,;=-._~% \"<>\\^`{|}"


def parse_uri(uri: str) -> WebSocketURI:
    """Take a URI apart.

    :raises InvalidURI: it is none of a WebSocket
    :raises ValueError: its port is no number up to 65535
    """
    parts = urllib.parse.urlsplit(uri)
    if parts.scheme not in ("ws", "wss"):
        raise InvalidURI(uri, "scheme isn't ws or wss")
    if not parts.hostname:
        raise InvalidURI(uri, "hostname isn't provided")
    if parts.fragment:
        raise InvalidURI(uri, "fragment identifier is meaningless")
    if parts.username is not None and parts.password is None:
        raise InvalidURI(uri, "username provided without password")
    secure = parts.scheme == "wss"
    host = parts.hostname
    return WebSocketURI(
        secure,
        host if host.isascii() else host.encode("idna").decode(),
        parts.port or (443 if secure else 80),
        _encoded(parts.path),
        _encoded(parts.query),
        _decoded(parts.username),
        _decoded(parts.password),
    )


def _encoded(part: str) -> str:
    return part if part.isascii() else urllib.parse.quote(part, safe=_AS_IT_IS)


def _decoded(part: str | None) -> str | None:
    return None if part is None else urllib.parse.unquote(part)
