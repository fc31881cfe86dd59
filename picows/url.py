"""Websocket and proxy URLs, taken apart and checked (RFC 6455 section 3, RFC 3986)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv6Address
from urllib.parse import quote, unquote_to_bytes

from .errors import WSInvalidURL

__all__ = ["WSParsedURL", "parse_proxy_url", "parse_url"]

_WEBSOCKET_PORTS = {"ws": 80, "wss": 443}
_PROXY_PORTS = {"http": 80, "https": 443, "socks4": 1080, "socks5": 1080, "socks5h": 1080}

# What no part of a URL may hold: blanks and control characters (they would end the request line
# or add a header), and the backslash, which some parsers take for a slash.
_FORBIDDEN = re.compile(r"[\x00-\x20\x7f-\xa0\\]|\s")
_PARTS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)([^?#]*)(?:\?([^#]*))?(#.*)?", re.DOTALL)
_NETLOC = re.compile(
    r"(?:(?P<userinfo>.*)@)?(?P<host>\[[^\[\]]*\]|[^:@\[\]]*)(?::(?P<port>[^:]*))?"
)
_IPV6_LITERAL = re.compile(r"\[([0-9A-Fa-f:.]+)(?:%25([A-Za-z0-9._~-]+))?\]")  # RFC 6874
_HOST_NAME = re.compile(r"[A-Za-z0-9_.-]+")
_PORT = re.compile(r"[0-9]{1,5}")


@dataclass(frozen=True)
class WSParsedURL:
    """A URL in parts.

    `host` is what to connect to: lower case, without brackets, an internationalized name in its
    ASCII form. `path` and `query` are as they travel, non-ASCII characters percent-encoded.
    `username` and `password` are percent-decoded, None when absent.
    """

    url: str
    scheme: str
    is_secure: bool
    netloc: str
    host: str
    port: int
    path: str
    query: str
    username: str | None = None
    password: str | None = None

    @property
    def resource_name(self) -> str:
        """The path and the query as the request line carries them; never empty."""
        path = self.path or "/"
        return f"{path}?{self.query}" if self.query else path

    @property
    def user_info(self) -> tuple[str, str] | None:
        """User name and password (empty when only a name is given), None when there are none."""
        if not self.username and not self.password:
            return None
        return self.username or "", self.password or ""


def parse_url(url: str) -> WSParsedURL:
    """Take a ws:// or wss:// URL apart.

    Raises WSInvalidURL for another scheme, for a missing or malformed host, a port outside
    1..65535, a fragment, and for spaces, control characters or backslashes anywhere in the URL;
    TypeError when `url` is no str.
    """
    parsed = _parse(url, _WEBSOCKET_PORTS, "ws or wss")
    if parsed.username and ":" in parsed.username:
        raise WSInvalidURL(url, "a user name with a colon cannot be sent (RFC 7617 section 2)")
    return parsed


def parse_proxy_url(url: str) -> WSParsedURL:
    """Take the URL of an HTTP, HTTPS, SOCKS4 or SOCKS5 proxy apart.

    The port defaults to 80 and 443 for HTTP and HTTPS and to 1080 for SOCKS. Raises what
    `parse_url` raises, and WSInvalidURL for a path or a query.
    """
    parsed = _parse(url, _PROXY_PORTS, "http, https, socks4, socks5 or socks5h")
    if parsed.resource_name != "/":
        raise WSInvalidURL(url, f"a proxy has no path, but {parsed.resource_name!r} is given")
    return parsed


def _parse(url: str, ports: dict[str, int], schemes: str) -> WSParsedURL:
    if not isinstance(url, str):
        raise TypeError(f"url must be a str, not {type(url).__name__}")
    bad = _FORBIDDEN.search(url)
    if bad:
        raise WSInvalidURL(url, f"{bad[0]!r} at position {bad.start()} must be percent-encoded")
    parts = _PARTS.fullmatch(url)
    if not parts or parts[1].lower() not in ports:
        raise WSInvalidURL(url, f"scheme isn't {schemes}")
    scheme = parts[1].lower()
    netloc, path, query, fragment = parts[2], parts[3], parts[4] or "", parts[5]
    if fragment is not None:
        raise WSInvalidURL(url, "fragment identifier is meaningless, # in a path is written %23")
    authority = _NETLOC.fullmatch(netloc)
    if not authority:
        raise WSInvalidURL(url, f"{netloc!r} isn't [user[:password]@]host[:port]")
    username, password = _user_info(url, authority["userinfo"])
    return WSParsedURL(
        url,
        scheme,
        scheme in ("wss", "https"),
        netloc,
        _host(url, authority["host"]),
        _port(url, authority["port"]) or ports[scheme],
        _quoted(url, path),
        _quoted(url, query),
        username,
        password,
    )


def _user_info(url: str, userinfo: str | None) -> tuple[str | None, str | None]:
    if userinfo is None:
        return None, None
    name, colon, password = userinfo.partition(":")
    try:
        return (
            unquote_to_bytes(name).decode(),
            unquote_to_bytes(password).decode() if colon else None,
        )
    except UnicodeError:
        raise WSInvalidURL(url, "user name or password isn't UTF-8") from None


def _host(url: str, host: str) -> str:
    if not host:
        raise WSInvalidURL(url, "hostname isn't provided")
    if host[0] == "[":
        literal = _IPV6_LITERAL.fullmatch(host)
        try:
            address = IPv6Address(literal[1] if literal else host).compressed
        except ValueError:
            raise WSInvalidURL(url, f"{host} isn't an IPv6 address") from None
        return f"{address}%{literal[2]}" if literal and literal[2] else address
    try:
        name = host.encode("idna").decode().lower()
    except UnicodeError as exc:
        raise WSInvalidURL(url, f"{host!r} isn't a host name ({exc})") from None
    if not _HOST_NAME.fullmatch(name):
        raise WSInvalidURL(url, f"{host!r} isn't a host name")
    return name


def _port(url: str, port: str | None) -> int | None:
    if not port:
        return None
    if not _PORT.fullmatch(port) or not 0 < int(port) < 65536:
        raise WSInvalidURL(url, f"port {port!r} isn't a number in 1..65535")
    return int(port)


def _quoted(url: str, text: str) -> str:
    """Percent-encode what is not ASCII, and nothing else: the rest was encoded by the caller."""
    try:
        return "".join(c if c.isascii() else quote(c) for c in text)
    except UnicodeError:
        raise WSInvalidURL(url, "a lone surrogate has no UTF-8 form") from None
