"""The public messages of the upgrade: what they hold, and the bytes they are sent as."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any, cast
from urllib.parse import parse_qsl, unquote

from multidict import CIMultiDict, MultiDict

from .grammar import (
    CONNECTION,
    CONTENT_LENGTH,
    CONTENT_TYPE,
    COOKIE,
    HTTP_1_1,
    UPGRADE,
    UPGRADE_FIELDS,
    ExtraHeaders,
    checked_headers,
    checked_value,
    field_lines,
)

SWITCHING_PROTOCOLS = HTTPStatus.SWITCHING_PROTOCOLS  # looking a member up is slow before 3.12

_TEXT = "text/plain; charset=utf-8"
_BAD_IN_LOCATION = re.compile(r"[\x00-\x20\x7f]")
_AUTHORITY = re.compile("[A-Za-z][A-Za-z0-9+.-]*://[^/?]*")  # of a target in absolute form
_QUOTED = re.compile(r"\\(?:([0-3][0-7][0-7])|(.))")  # how `http.cookies` writes what a cookie cannot hold


class WSUpgradeRequest:
    """The HTTP request that asks for the upgrade to websocket.

    :param method: ``b"GET"``; what asks for no upgrade may have ``b"HEAD"`` or ``b"OPTIONS"`` as well
    :param path: the request target, query included
    :param version: ``b"HTTP/1.1"``; ``b"HTTP/1.0"`` too where no upgrade is asked for
    :param headers: names are case-insensitive, a name may occur more than once

    `target_path`, `query` and `cookies` are read out of these whenever they are asked for.
    """

    __module__ = "picows.upgrade"  # where pickles look for it, other versions' too
    # On a server _transport is set to the asyncio transport that the request came by.
    __slots__ = ("_transport", "headers", "method", "path", "version")

    method: bytes
    path: bytes
    version: bytes
    headers: CIMultiDict[str]

    def __init__(
        self,
        method: bytes = b"GET",
        path: bytes = b"/",
        version: bytes = HTTP_1_1,
        headers: CIMultiDict[str] | None = None,
    ) -> None:
        self.method = method
        self.path = path
        self.version = version
        self.headers = CIMultiDict() if headers is None else headers

    def to_bytes(self) -> bytes:
        """The request as it is sent (RFC 9112 section 3).

        Raises ValueError when a header could not be sent as it stands.
        """
        return b"%b %b %b\r\n%b" % (
            self.method,
            self.path,
            self.version,
            field_lines(self.headers),
        )

    @property
    def target_path(self) -> str:
        """The path without the query, its percent-encoding decoded as UTF-8.

        What is no UTF-8 there becomes U+FFFD.
        """
        return unquote(self._target().partition("?")[0])

    @property
    def query(self) -> MultiDict[str]:
        """The parameters of the query, decoded: ``request.query["symbol"]``.

        A new dictionary each time. A name may occur more than once; a "+" is a blank.
        """
        return MultiDict(parse_qsl(self._target().partition("?")[2], keep_blank_values=True))

    @property
    def cookies(self) -> dict[str, str]:
        """The cookies by their names (RFC 6265 section 4.2), in a new dictionary each time.

        Of several with one name it is the first: a browser sends the one with the longest path
        first. What is no cookie between others is skipped.
        """
        cookies: dict[str, str] = {}
        for part in ";".join(self.headers.getall(COOKIE, ())).split(";"):
            name, equals, value = part.partition("=")
            name = name.strip()
            if equals and name:
                cookies.setdefault(name, _unquoted(value.strip()))
        return cookies

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """What the transport of a server's connection knows, before anything is answered.

        :param name: as for :meth:`asyncio.BaseTransport.get_extra_info`: ``"peername"``,
            ``"sockname"``, ``"socket"``, ``"sslcontext"``, ``"ssl_object"``, ``"peercert"``, ...
        :param default: what to return if it does not know; always with a client's request
        """
        transport = getattr(self, "_transport", None)
        return default if transport is None else transport.get_extra_info(name, default)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Copies and pickles know nothing of the connection."""
        reduced = super().__reduce_ex__(protocol)
        slots = reduced[2][1] if hasattr(self, "_transport") else None
        if isinstance(slots, dict):
            slots.pop("_transport", None)
        return reduced

    def _target(self) -> str:
        """The request target from its path on."""
        target = self.path.decode("utf-8", "replace")
        if target.startswith("/") or target == "*":
            return target
        behind = _AUTHORITY.sub("", target, count=1)
        return behind if behind.startswith("/") else "/" + behind

    def __repr__(self) -> str:
        return f"<WSUpgradeRequest {self.method!r} {self.path!r} {self.headers!r}>"


def status_of(code: int, reason: str) -> HTTPStatus:
    """The status of a code; one that isn't registered (Cloudflare's 520) is as good as another."""
    try:
        return HTTPStatus(code)
    except ValueError:
        status: Any = int.__new__(HTTPStatus, code)
        status._value_ = code
        status._name_ = f"STATUS_{code}"
        status.phrase = reason
        status.description = ""
        return cast(HTTPStatus, status)


class WSUpgradeResponse:
    """The HTTP response to an upgrade request.

    :param status: the status code
    :param headers: names are case-insensitive, a name may occur more than once
    :param body: the content, None when there is none
    :param version: ``b"HTTP/1.1"``
    """

    __module__ = "picows.upgrade"
    __slots__ = ("body", "headers", "status", "version")

    version: bytes
    status: HTTPStatus
    headers: CIMultiDict[str]
    body: bytes | None

    def __init__(
        self,
        status: HTTPStatus = HTTPStatus.OK,
        headers: CIMultiDict[str] | None = None,
        body: bytes | None = None,
        version: bytes = HTTP_1_1,
    ) -> None:
        self.version = version
        self.status = status
        self.headers = CIMultiDict() if headers is None else headers
        self.body = body

    @staticmethod
    def create_101_response(extra_headers: ExtraHeaders = None) -> WSUpgradeResponse:
        """The response that accepts the upgrade; Sec-WebSocket-Accept is added when it is sent.

        Raises ValueError for a header that is malformed, TypeError for one that is no str.
        """
        headers = checked_headers(extra_headers)
        headers.popall(UPGRADE, None)
        headers.popall(CONNECTION, None)
        headers.extend(UPGRADE_FIELDS)
        return WSUpgradeResponse(SWITCHING_PROTOCOLS, headers)

    @staticmethod
    def create_ok_response(
        body: bytes | None = None, extra_headers: ExtraHeaders = None
    ) -> WSUpgradeResponse:
        """200 OK instead of an upgrade, as plain text unless `extra_headers` say otherwise.

        Raises ValueError for a header that is malformed, TypeError for one that is no str and
        for a body that is no bytes.
        """
        return with_text(HTTPStatus.OK, body, extra_headers)

    @staticmethod
    def create_error_response(
        status: int | HTTPStatus,
        body: bytes | None = None,
        extra_headers: ExtraHeaders = None,
    ) -> WSUpgradeResponse:
        """An error instead of an upgrade, as plain text unless `extra_headers` say otherwise.

        Raises ValueError for a status below 400 and what `create_ok_response` raises.
        """
        status = HTTPStatus(status)
        if status < 400:
            raise ValueError(f"status of an error response must be 400 or more, not {status:d}")
        return with_text(status, body, extra_headers)

    @staticmethod
    def create_redirect_response(
        status: int | HTTPStatus, location: str, extra_headers: ExtraHeaders = None
    ) -> WSUpgradeResponse:
        """Send the client to another URL.

        Raises ValueError for a status that is no 3xx, for a location that is empty or holds
        blanks or control characters, and what `create_101_response` raises.
        """
        status = HTTPStatus(status)
        if not 300 <= status < 400:
            raise ValueError(f"status of a redirect must be 3xx, not {status:d}")
        if not isinstance(location, str):
            raise TypeError(f"Location must be a str, not {type(location).__name__}")
        if not location or _BAD_IN_LOCATION.search(location):
            raise ValueError(f"Location must be a URL, its blanks percent-encoded: {location!r}")
        headers = checked_headers(extra_headers)
        headers.popall("Location", None)
        headers.add("Location", checked_value("Location", location))
        return WSUpgradeResponse(status, headers)

    def to_bytes(self) -> bytes:
        """The response as it is sent (RFC 9112 section 4), Content-Length added where it belongs.

        Raises ValueError when a header could not be sent as it stands.
        """
        headers = self.headers
        body = b""
        if may_have_body(self.status):
            body = self.body or b""
            if CONTENT_LENGTH not in headers:
                headers = headers.copy()
                headers.add(CONTENT_LENGTH, str(len(body)))
        status = HTTPStatus(self.status)
        line = f"{status:d} {status.phrase}".encode()
        return b"%b %b\r\n%b%b" % (self.version, line, field_lines(headers), body)

    def __repr__(self) -> str:
        return f"<WSUpgradeResponse {self.status:d} {self.headers!r}>"


class WSUpgradeResponseWithListener:
    """What a server's listener factory returns to choose the response itself.

    :param response: the response to send
    :param listener: the listener of the connection, None when the response is no upgrade

    Raises ValueError for a 101 response without a listener, and for an error response with one.
    """

    __module__ = "picows.upgrade"
    __slots__ = ("listener", "response")

    response: WSUpgradeResponse
    listener: Any

    def __init__(self, response: WSUpgradeResponse, listener: Any) -> None:
        if not isinstance(response, WSUpgradeResponse):
            raise TypeError(f"response must be a WSUpgradeResponse, not {response!r}")
        if response.status == 101 and listener is None:
            raise ValueError("a 101 Switching Protocols response needs a listener")
        if response.status >= 400 and listener is not None:
            raise ValueError(f"the listener must be None for the error {response.status:d}")
        self.response = response
        self.listener = listener


def with_text(
    status: HTTPStatus, body: bytes | None, extra_headers: ExtraHeaders
) -> WSUpgradeResponse:
    if body is not None:
        if not isinstance(body, (bytes, bytearray, memoryview)):
            raise TypeError(f"body must be bytes, not {type(body).__name__}")
        body = bytes(body)
    headers = checked_headers(extra_headers)
    if body is not None and CONTENT_TYPE not in headers:
        headers.add(CONTENT_TYPE, _TEXT)
    return WSUpgradeResponse(status, headers, body)


def _unquoted(value: str) -> str:
    """The value of a cookie without the quotes that it may have."""
    if len(value) < 2 or not value.startswith('"') or not value.endswith('"'):
        return value
    return _QUOTED.sub(lambda match: chr(int(match[1], 8)) if match[1] else match[2], value[1:-1])


def may_have_body(status: int) -> bool:
    return status >= 200 and status not in (204, 304)
