"""The HTTP upgrade of both sides: bytes in, an object or an error out; an object in, bytes out.

Nothing here does I/O or knows asyncio. A client reads whatever a server answers by llhttp (through
`httptools`); a server reads a request, which has one form only, by a grammar. What the rules of
RFC 9112 and RFC 6455 section 4 demand beyond that is checked here.

Header values are UTF-8 in both directions. Bytes that are not UTF-8 become
surrogate escapes (PEP 383), so whatever was received can be sent on unchanged.
"""

from __future__ import annotations

import binascii
import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, NoReturn, Union, cast

from httptools import (
    HttpParserError,
    HttpParserUpgrade,
    HttpResponseParser,
)
from multidict import CIMultiDict, istr

from . import deflate
from ._fields import parse_fields
from .deflate import Agreement, WSDeflate
from .errors import (
    WSInvalidHeaderError,
    WSInvalidMessageError,
    WSInvalidStatusError,
    WSInvalidUpgradeError,
)
from .url import WSParsedURL

__all__ = [
    "MAX_BODY_SIZE",
    "MAX_HEADERS",
    "MAX_HEAD_SIZE",
    "MAX_TARGET_SIZE",
    "RequestReader",
    "ResponseReader",
    "WSUpgradeRequest",
    "WSUpgradeResponse",
    "WSUpgradeResponseWithListener",
    "answer",
    "create_request",
]

MAX_HEAD_SIZE = 16384  # bytes of start line and headers, the empty line behind them included
MAX_HEADERS = 128
MAX_TARGET_SIZE = 8000  # bytes; RFC 9112 section 3 wants this many supported at least
MAX_BODY_SIZE = 65536  # bytes kept of the body of a response that is no upgrade

ExtraHeaders = Union[Mapping[str, str], Iterable[tuple[str, str]], None]

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3
_HTTP_1_1 = b"HTTP/1.1"
_END_OF_HEAD = b"\r\n\r\n"
_TEXT = "text/plain; charset=utf-8"
# Nearly every answer is this one.
_SWITCHING = (
    b"HTTP/1.1 101 Switching Protocols\r\n"
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %b\r\n\r\n"
)
_SWITCHING_PROTOCOLS = HTTPStatus.SWITCHING_PROTOCOLS  # looking a member up is slow before 3.12
_NO_BODY = ["0"]  # the one Content-Length a message without a body may carry

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # RFC 9110 section 5.6.2
_METHOD = re.compile(_TOKEN.encode())
_TARGET_FORM = rb"(?:/|[A-Za-z][A-Za-z0-9+.-]*://)[!-\"$-~]*"  # origin or absolute form
_TARGET = re.compile(_TARGET_FORM)
_VERSION = re.compile(rb"HTTP/[0-9]\.[0-9]")
_REQUEST_LINE = re.compile(
    rb"(?:\r\n)?GET (?=[^ ]{1,%d} )(%b) HTTP/1\.1\r\n" % (MAX_TARGET_SIZE, _TARGET_FORM)
)
_HOST_VALUE = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]*)(?::[0-9]*)?")
_KEY_VALUE = re.compile(r"[A-Za-z0-9+/]{22}==")
_STATUS_LINE = re.compile(rb"(HTTP/1\.[01]) ([1-9][0-9]{2})(?: ([\t -~\x80-\xff]*))?\r\n")
_PART_OF_FIELD_LINE = re.compile(rb"(?:%b(?::[\t -~\x80-\xff]*\r?)?)?|\r" % _TOKEN.encode())
_BAD_FIELD_LINE = "a header line isn't 'name: value' ended by CR LF"

_NAME = re.compile(_TOKEN)
_BAD_IN_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_BAD_IN_LOCATION = re.compile(r"[\x00-\x20\x7f]")

# The names nearly every handshake carries exist once, not once per connection, and as `istr`
# they enter a CIMultiDict without being lowered again.
_NAMES = {
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
_ACCEPT = _NAMES["Sec-WebSocket-Accept"]
_CONNECTION = _NAMES["Connection"]
_CONTENT_LENGTH = _NAMES["Content-Length"]
_CONTENT_TYPE = _NAMES["Content-Type"]
_EXTENSIONS = _NAMES["Sec-WebSocket-Extensions"]
_HOST = _NAMES["Host"]
_KEY = _NAMES["Sec-WebSocket-Key"]
_PROTOCOL = _NAMES["Sec-WebSocket-Protocol"]
_UPGRADE = _NAMES["Upgrade"]
_VERSION_HEADER = _NAMES["Sec-WebSocket-Version"]
_TRANSFER_ENCODING = istr("Transfer-Encoding")

# What a client's extra headers may not set: the handshake is made of it, or it announces a body.
_OWN_REQUEST_HEADERS = frozenset(
    (
        "connection",
        "content-length",
        "sec-websocket-accept",
        "sec-websocket-key",
        "sec-websocket-version",
        "transfer-encoding",
        "upgrade",
    )
)


class WSUpgradeRequest:
    """The HTTP request that asks for the upgrade to websocket.

    :param method: always ``b"GET"`` in a websocket handshake
    :param path: the request target, query included
    :param version: ``b"HTTP/1.1"``
    :param headers: names are case-insensitive, a name may occur more than once
    """

    __slots__ = ("headers", "method", "path", "version")

    def __init__(
        self,
        method: bytes = b"GET",
        path: bytes = b"/",
        version: bytes = _HTTP_1_1,
        headers: CIMultiDict[str] | None = None,
    ) -> None:
        self.method = method
        self.path = path
        self.version = version
        self.headers: CIMultiDict[str] = CIMultiDict() if headers is None else headers

    def to_bytes(self) -> bytes:
        """The request as it is sent (RFC 9112 section 3).

        Raises ValueError when a header could not be sent as it stands.
        """
        return b"%b %b %b\r\n%b" % (
            self.method,
            self.path,
            self.version,
            _field_lines(self.headers),
        )

    def __repr__(self) -> str:
        return f"<WSUpgradeRequest {self.method!r} {self.path!r} {self.headers!r}>"


class WSUpgradeResponse:
    """The HTTP response to an upgrade request.

    :param status: the status code
    :param headers: names are case-insensitive, a name may occur more than once
    :param body: the content, None when there is none
    :param version: ``b"HTTP/1.1"``
    """

    __slots__ = ("body", "headers", "status", "version")

    def __init__(
        self,
        status: HTTPStatus = HTTPStatus.OK,
        headers: CIMultiDict[str] | None = None,
        body: bytes | None = None,
        version: bytes = _HTTP_1_1,
    ) -> None:
        self.version = version
        self.status = status
        self.headers: CIMultiDict[str] = CIMultiDict() if headers is None else headers
        self.body = body

    @staticmethod
    def create_101_response(extra_headers: ExtraHeaders = None) -> WSUpgradeResponse:
        """The response that accepts the upgrade; Sec-WebSocket-Accept is added when it is sent.

        Raises ValueError for a header that is malformed, TypeError for one that is no str.
        """
        headers = _checked(extra_headers)
        headers.popall(_UPGRADE, None)
        headers.popall(_CONNECTION, None)
        headers.add(_UPGRADE, "websocket")
        headers.add(_CONNECTION, "Upgrade")
        return WSUpgradeResponse(_SWITCHING_PROTOCOLS, headers)

    @staticmethod
    def create_ok_response(
        body: bytes | None = None, extra_headers: ExtraHeaders = None
    ) -> WSUpgradeResponse:
        """200 OK instead of an upgrade, as plain text unless `extra_headers` say otherwise.

        Raises ValueError for a header that is malformed, TypeError for one that is no str and
        for a body that is no bytes.
        """
        return _with_text(HTTPStatus.OK, body, extra_headers)

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
        return _with_text(status, body, extra_headers)

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
        headers = _checked(extra_headers)
        headers.popall("Location", None)
        headers.add("Location", _checked_value("Location", location))
        return WSUpgradeResponse(status, headers)

    def to_bytes(self) -> bytes:
        """The response as it is sent (RFC 9112 section 4), Content-Length added where it belongs.

        Raises ValueError when a header could not be sent as it stands.
        """
        headers = self.headers
        body = b""
        if _may_have_body(self.status):
            body = self.body or b""
            if _CONTENT_LENGTH not in headers:
                headers = headers.copy()
                headers.add(_CONTENT_LENGTH, str(len(body)))
        status = HTTPStatus(self.status)
        line = f"{status:d} {status.phrase}".encode()
        return b"%b %b\r\n%b%b" % (self.version, line, _field_lines(headers), body)

    def __repr__(self) -> str:
        return f"<WSUpgradeResponse {self.status:d} {self.headers!r}>"


class WSUpgradeResponseWithListener:
    """What a server's listener factory returns to choose the response itself.

    :param response: the response to send
    :param listener: the listener of the connection, None when the response is no upgrade

    Raises ValueError for a 101 response without a listener, and for an error response with one.
    """

    __slots__ = ("listener", "response")

    def __init__(self, response: WSUpgradeResponse, listener: Any) -> None:
        if not isinstance(response, WSUpgradeResponse):
            raise TypeError(f"response must be a WSUpgradeResponse, not {response!r}")
        if response.status == 101 and listener is None:
            raise ValueError("a 101 Switching Protocols response needs a listener")
        if response.status >= 400 and listener is not None:
            raise ValueError(f"the listener must be None for the error {response.status:d}")
        self.response = response
        self.listener = listener


class _Message:
    """What llhttp reports of one message."""

    __slots__ = ("body", "complete", "field_count", "head_complete")

    def __init__(self) -> None:
        self.field_count = 0
        self.body = bytearray()
        self.head_complete = False
        self.complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.field_count += 1

    def on_headers_complete(self) -> None:
        self.head_complete = True

    def on_body(self, data: bytes) -> None:
        if not self.complete:  # else it belongs to another message behind this one
            self.body += data

    def on_message_complete(self) -> None:
        self.complete = True


class RequestReader:
    """Read one upgrade request, on the server side (RFC 6455 section 4.2.1).

    :param compression: the compression to agree to if the client offers it; None: none

    `request` is set once the request is complete; `accept` is then the value of
    Sec-WebSocket-Accept that answers it, None when it is a plain GET that asks for no upgrade to
    websocket; `rest` are the bytes behind its head; `agreement` is the compression agreed on, None if
    there is none, and `extensions` the value of Sec-WebSocket-Extensions that says so.

    A request has one form, which is quicker to match than llhttp and its callbacks are; why one
    does not match is found out afterwards.
    """

    __slots__ = (
        "_checked",
        "_compression",
        "_count",
        "_raw",
        "_reading",
        "accept",
        "agreement",
        "extensions",
        "request",
        "rest",
    )

    request: WSUpgradeRequest

    def __init__(self, compression: WSDeflate | None = None) -> None:
        self.accept: str | None = None
        self.agreement: Agreement | None = None
        self.extensions: str | None = None
        self._compression = compression
        self.rest = b""
        self._raw = b""
        self._checked = 0  # bytes of whole lines that were found right; 0 without a request line
        self._count = 0  # field lines among them
        self._reading = True

    def feed(self, data: bytes) -> bool:
        """Take received bytes; True once the head is complete.

        Raises WSHandshakeError for a request that must be refused, as soon as the bytes show it;
        `response` of the error is what to send before closing. What is fed after that is ignored.
        """
        if not self._reading:
            if not hasattr(self, "request"):
                return False
            self.rest += data
            return True
        known = len(self._raw)
        received = self._raw + data
        end = received.find(_END_OF_HEAD, known - 3 if known > 3 else 0, MAX_HEAD_SIZE) + 4
        if end < 4:
            self._raw = received[:MAX_HEAD_SIZE]
            self._check_lines()
            if len(received) >= MAX_HEAD_SIZE:
                part = "headers are" if self._checked else "request line is"
                self._refuse_head(431, f"the {part} over {MAX_HEAD_SIZE} bytes")
            return False

        self._raw = received[:end]
        line = _REQUEST_LINE.match(self._raw)
        fields, lines_end = parse_fields(self._raw, line.end(), _NAMES) if line else ([], 0)
        if line is None or lines_end != end - 2 or len(fields) > MAX_HEADERS:
            self._check_lines()
            self._refuse_head(400, _BAD_FIELD_LINE)
        self.rest = received[end:]
        headers = CIMultiDict(fields)
        self._check_headers(headers)
        self.request = WSUpgradeRequest(b"GET", line[1], _HTTP_1_1, headers)
        self._release()
        return True

    def _check_lines(self) -> None:
        """Refuse what is wrong in the lines that there are.

        What is reported depends on the bytes alone, not on how they were cut into pieces.
        """
        raw = self._raw
        if not self._checked:
            self._checked = self._check_request_line()
            if not self._checked:
                return
        fields, self._checked = parse_fields(raw, self._checked, _NAMES)
        self._count += len(fields)
        if self._count > MAX_HEADERS:
            self._refuse_head(431, f"there are more than {MAX_HEADERS} headers")
        if not _PART_OF_FIELD_LINE.fullmatch(raw, self._checked):
            self._refuse_head(400, _BAD_FIELD_LINE)

    def _check_request_line(self) -> int:
        """Check as much of the request line as there is; the size of a whole one, otherwise 0."""
        raw = self._raw
        start = 2 if raw.startswith(b"\r\n") else 0  # RFC 9112 section 2.2
        end = raw.find(b"\r\n", start)
        complete = end >= 0
        line = raw[start:end] if complete else raw[start:].removesuffix(b"\r")
        parts = line.split(b" ", 2)
        if not _METHOD.fullmatch(parts[0]) and (line or complete):
            self._refuse_head(400, "the request line doesn't start with a method")
        if len(parts) > 1:
            if parts[0] != b"GET":
                self._refuse_head(405, "the method must be GET", {"Allow": "GET"})
            if len(parts[1]) > MAX_TARGET_SIZE:
                self._refuse_head(414, f"the request target is over {MAX_TARGET_SIZE} bytes")
        if len(parts) > 2 and not _TARGET.fullmatch(parts[1]):
            self._refuse_head(400, "the request target is neither a path nor a URL")
        if complete and parts[2:] != [_HTTP_1_1]:
            if len(parts) > 2 and _VERSION.fullmatch(parts[2]):
                self._refuse_head(505, "the version must be HTTP/1.1")
            self._refuse_head(400, "the request line isn't 'GET target HTTP/1.1'")
        return end + 2 if complete else 0

    def _check_headers(self, headers: CIMultiDict[str]) -> None:
        hosts = headers.getall(_HOST, ())
        if len(hosts) != 1 or not _HOST_VALUE.fullmatch(hosts[0]):
            self._refuse_header(headers, _HOST, "there must be one Host, a name or an address")
        if _TRANSFER_ENCODING in headers:
            self._refuse_header(headers, _TRANSFER_ENCODING, "a GET request has no body here")
        if headers.getall(_CONTENT_LENGTH, _NO_BODY) != _NO_BODY:
            self._refuse_header(headers, _CONTENT_LENGTH, "a GET request has no body here")

        if not _has_token(headers, _UPGRADE, "websocket"):
            return
        if not _has_token(headers, _CONNECTION, "upgrade"):
            reason = "an upgrade needs the connection option 'Upgrade'"
            self._refuse_header(headers, _CONNECTION, reason, error=WSInvalidUpgradeError)
        versions = headers.getall(_VERSION_HEADER, ())
        if versions != ["13"]:
            self._refuse_header(
                headers,
                _VERSION_HEADER,
                "the websocket version must be 13",
                426 if len(versions) == 1 else 400,
                {"Upgrade": "websocket", "Sec-WebSocket-Version": "13"},
            )
        keys = headers.getall(_KEY, ())
        if len(keys) != 1 or not _KEY_VALUE.fullmatch(keys[0]):
            reason = "there must be one Sec-WebSocket-Key, 16 bytes in base64"
            self._refuse_header(headers, _KEY, reason)
        if self._compression is not None and _EXTENSIONS in headers:
            try:
                agreed = deflate.accept(self._compression, headers.getall(_EXTENSIONS))
            except ValueError as exc:
                self._refuse_header(headers, _EXTENSIONS, str(exc))
            if agreed is not None:
                self.extensions, self.agreement = agreed
        self.accept = _accept_value(keys[0])

    def _release(self) -> None:
        self._reading = False
        self._raw = b""

    def _refuse_head(
        self, status: int, reason: str, extra_headers: dict[str, str] | None = None
    ) -> NoReturn:
        raw = self._raw
        self._release()
        raise WSInvalidMessageError(
            f"cannot upgrade, {reason}: received {raw[:80]!r}",
            raw.removesuffix(_END_OF_HEAD),
            None,
            _refusal(status, reason, extra_headers),
        )

    def _refuse_header(
        self,
        headers: CIMultiDict[str],
        name: str,
        reason: str,
        status: int = 400,
        extra_headers: dict[str, str] | None = None,
        error: type[WSInvalidHeaderError] = WSInvalidHeaderError,
    ) -> NoReturn:
        raw = self._raw
        self._release()
        raise error(
            *_header_fault(headers, name, reason),
            raw.removesuffix(_END_OF_HEAD),
            self.rest,
            _refusal(status, reason, extra_headers),
        )


def answer(
    reader: RequestReader, result: object
) -> tuple[WSUpgradeResponse, bytes, object | None]:
    """What to send for a request, the same as bytes, and the listener of the connection.

    :param reader: has read the request completely
    :param result: what the user's listener factory returned: None (404), a
        WSUpgradeResponseWithListener, or a listener

    The response is a complete one of its own; the listener is None unless the response is a 101.
    Raises ValueError for a response of the user's that cannot be sent.
    """
    listener: object | None
    if result is None:
        return _final(_refusal(404, "404 Not Found"))
    if isinstance(result, WSUpgradeResponseWithListener):
        response, listener = result.response, result.listener
        if response.status != 101:
            return _final(_closing(response))
        if response.body:
            raise ValueError("a 101 response has no body (RFC 9110 section 6.4.1)")
        headers = _checked(response.headers)
    else:
        headers, listener = None, result

    if reader.accept is None:
        reason = "this is a websocket endpoint, the request asked for no upgrade"
        return _final(_refusal(426, reason, {"Upgrade": "websocket"}))
    complete = CIMultiDict(
        ((_UPGRADE, "websocket"), (_CONNECTION, "Upgrade"), (_ACCEPT, reader.accept))
    )
    accepting = WSUpgradeResponse(_SWITCHING_PROTOCOLS, complete)
    if reader.extensions is not None:
        complete.add(_EXTENSIONS, reader.extensions)
        if headers is not None and _EXTENSIONS in headers:
            raise ValueError(f"a response must not set {_EXTENSIONS} where compression was agreed on")
    elif headers is None:
        return accepting, _SWITCHING % reader.accept.encode(), listener
    if headers is not None:
        for name in (_CONTENT_LENGTH, _TRANSFER_ENCODING):
            if name in headers:
                raise ValueError(f"a 101 response has no body, so no {name} (RFC 9110 section 8.6)")
        for name in (_UPGRADE, _CONNECTION, _ACCEPT):
            headers.popall(name, None)
        complete.extend(headers)
    return accepting, accepting.to_bytes(), listener


def _final(response: WSUpgradeResponse) -> tuple[WSUpgradeResponse, bytes, None]:
    return response, response.to_bytes(), None


def create_request(
    url: WSParsedURL, extra_headers: ExtraHeaders = None, compression: WSDeflate | None = None
) -> WSUpgradeRequest:
    """The upgrade request for a URL, with a fresh random key (RFC 6455 section 4.1).

    :param extra_headers: sent behind the headers of the handshake. A Host and an Authorization
        replace what the URL says; Sec-WebSocket-Protocol and -Extensions are what is offered.
    :param compression: the compression to offer; -Extensions are then not for `extra_headers`

    Raises ValueError for a header that is malformed or belongs to the handshake itself, TypeError
    for one that is no str.
    """
    extra = _checked(extra_headers)
    for name in extra:
        if name.lower() in _OWN_REQUEST_HEADERS:
            raise ValueError(f"extra_headers must not set {name}, it belongs to the handshake")
    if compression is not None and _EXTENSIONS in extra:
        raise ValueError(f"extra_headers must not set {_EXTENSIONS} where compression is offered")
    hosts = extra.popall(_HOST, None)
    if hosts is not None and len(hosts) != 1:
        raise ValueError(f"extra_headers must not set Host more than once: {hosts!r}")
    headers: CIMultiDict[str] = CIMultiDict(
        (
            (_HOST, hosts[0] if hosts else _authority(url)),
            (_UPGRADE, "websocket"),
            (_CONNECTION, "Upgrade"),
            (_VERSION_HEADER, "13"),
            (_KEY, _base64(os.urandom(16))),
        )
    )
    if compression is not None:
        headers.add(_EXTENSIONS, deflate.offer(compression))
    headers.extend(extra)
    if url.user_info and "Authorization" not in headers:
        headers.add("Authorization", "Basic " + _base64(":".join(url.user_info).encode()))
    return WSUpgradeRequest(b"GET", url.resource_name.encode(), _HTTP_1_1, headers)


class ResponseReader:
    """Read the response to an upgrade request, on the client side (RFC 6455 section 4.1).

    `response` is the response once its head is complete, `rest` the bytes behind the head of
    a 101. Interim responses (100, 103, ...) are skipped. `agreement` is the compression agreed on.

    :param request: the request that was sent
    :param compression: the compression that it offers, None: none
    """

    __slots__ = (
        "_body",
        "_compression",
        "_message",
        "_parser",
        "_raw",
        "_request",
        "_skipped",
        "_upgraded",
        "agreement",
        "response",
        "rest",
    )

    def __init__(self, request: WSUpgradeRequest, compression: WSDeflate | None = None) -> None:
        self.response: WSUpgradeResponse | None = None
        self.agreement: Agreement | None = None
        self._compression = compression
        self.rest = b""
        self._request = request
        self._skipped = 0  # bytes of interim responses; the limit is for all heads together
        self._body = bytearray()  # as received
        self._upgraded = False
        self._expect_head()

    def _expect_head(self) -> None:
        self._raw = b""
        self._message = _Message()
        self._parser: HttpResponseParser | None = HttpResponseParser(self._message)

    def feed(self, data: bytes) -> bool:
        """Take received bytes; True once a 101 that answers the request is complete.

        Raises WSInvalidMessageError for what is no HTTP response, WSInvalidStatusError for
        another status than 101 when the body is complete or over MAX_BODY_SIZE,
        WSInvalidUpgradeError and WSInvalidHeaderError for a 101 that doesn't answer the request.
        What is fed after an error is ignored.
        """
        if self._parser is None:
            if self._upgraded:
                self.rest += data
            return self._upgraded
        while self.response is None:
            behind = self._read_head(self._parser, data)
            if behind is None:
                return False
            data = behind
        if self.response.status != 101:
            self._read_body(self._parser, self.response, data)
            return False
        self._check_upgrade(self.response, data)
        self.rest = data
        self._upgraded = True
        self._release()
        return True

    def feed_eof(self) -> NoReturn:
        """The server closed the connection before the upgrade was complete.

        Raises WSInvalidStatusError when there is a response of another status than 101,
        WSInvalidMessageError when there is none.
        """
        if self.response is not None and self.response.status != 101:
            self._fail_status(self.response)
        self._fail("the connection was closed before the response was complete")

    def _read_head(self, parser: HttpResponseParser, data: bytes) -> bytes | None:
        """Read one head; return the bytes behind it, None when it isn't complete."""
        known = len(self._raw)
        received = self._raw + data
        limit = MAX_HEAD_SIZE - self._skipped
        end = received.find(_END_OF_HEAD, max(0, known - 3), limit) + 4
        complete = end > 3
        if not complete:
            end = min(len(received), limit)
        raw = self._raw = received[:end]
        fault = _parse(parser, raw[known:])
        message = self._message
        if message.field_count > MAX_HEADERS:
            self._fail(f"there are more than {MAX_HEADERS} headers")
        # Behind the head of a 101 llhttp expects no HTTP; what is wrong there is ours to say.
        if fault and not message.head_complete:
            self._fail(fault)
        if not complete:
            if end == limit:
                self._fail(f"the headers are over {MAX_HEAD_SIZE} bytes")
            return None

        line = _STATUS_LINE.match(raw)
        if not line:
            self._fail("the status line isn't 'HTTP/1.1 status reason'")
        fields, lines_end = parse_fields(raw, line.end(), _NAMES)
        if not message.head_complete or lines_end != end - 2:
            self._fail(_BAD_FIELD_LINE)
        status = int(line[2])
        if status == 101 and line[1] != _HTTP_1_1:
            self._fail("HTTP/1.0 knows no upgrade")
        if 100 <= status < 200 and status != 101:
            self._skipped += end
            self._expect_head()
        else:
            reason = (line[3] or b"").decode("utf-8", "replace")
            self.response = WSUpgradeResponse(
                _status(status, reason), CIMultiDict(fields), None, line[1]
            )
        return received[end:]

    def _read_body(
        self, parser: HttpResponseParser, response: WSUpgradeResponse, data: bytes
    ) -> None:
        data = data[: MAX_BODY_SIZE - len(self._body)]
        self._body += data
        fault = None if self._message.complete else _parse(parser, data)
        if self._message.complete or len(self._body) == MAX_BODY_SIZE:
            self._fail_status(response)
        if fault:
            self._fail(fault)

    def _check_upgrade(self, response: WSUpgradeResponse, data: bytes) -> None:
        headers = response.headers
        offered = self._request.headers
        self._body += data
        if headers.getall(_CONTENT_LENGTH, _NO_BODY) != _NO_BODY:
            self._fail_header(headers, _CONTENT_LENGTH, "a 101 response has no body")
        if _TRANSFER_ENCODING in headers:
            self._fail_header(headers, _TRANSFER_ENCODING, "a 101 response has no body")
        if {token.lower() for token in _members(headers, _UPGRADE)} != {"websocket"}:
            reason = "the upgrade must be to 'websocket'"
            self._fail_header(headers, _UPGRADE, reason, WSInvalidUpgradeError)
        if not _has_token(headers, _CONNECTION, "upgrade"):
            reason = "an upgrade needs the connection option 'Upgrade'"
            self._fail_header(headers, _CONNECTION, reason, WSInvalidUpgradeError)
        accept = _accept_value(offered[_KEY])
        if headers.getall(_ACCEPT, ()) != [accept]:
            self._fail_header(headers, _ACCEPT, f"the key that was sent is answered by {accept!r}")
        if self._compression is not None:
            try:
                values = headers.getall(_EXTENSIONS, [])
                self.agreement = deflate.check_answer(self._compression, values)
            except ValueError as exc:
                self._fail_header(headers, _EXTENSIONS, str(exc))
        elif not set(_extensions(headers)) <= set(_extensions(offered)):
            self._fail_header(headers, _EXTENSIONS, "the extension was not offered")
        protocols = headers.getall(_PROTOCOL, ())
        if len(protocols) > 1 or not set(protocols) <= set(_members(offered, _PROTOCOL)):
            self._fail_header(headers, _PROTOCOL, "one subprotocol that was offered is expected")

    def _release(self) -> None:
        self._parser = None
        self._raw = b""
        self._body = bytearray()

    def _received(self) -> tuple[bytes, bytes, WSUpgradeResponse | None]:
        received = self._raw.removesuffix(_END_OF_HEAD), bytes(self._body), self.response
        self._release()
        return received

    def _fail(self, reason: str) -> NoReturn:
        raise WSInvalidMessageError(
            f"cannot upgrade, {reason}: received {self._raw[:80]!r}", *self._received()
        )

    def _fail_status(self, response: WSUpgradeResponse) -> NoReturn:
        response.body = bytes(self._message.body)
        status = response.status
        raise WSInvalidStatusError(
            "cannot upgrade, the status must be 101 Switching Protocols: "
            f"received {status:d} {status.phrase}",
            *self._received(),
        )

    def _fail_header(
        self,
        headers: CIMultiDict[str],
        name: str,
        reason: str,
        error: type[WSInvalidHeaderError] = WSInvalidHeaderError,
    ) -> NoReturn:
        raise error(*_header_fault(headers, name, reason), *self._received())


def _parse(parser: HttpResponseParser, data: bytes) -> str | None:
    """Feed llhttp; what it finds wrong, None when there is nothing."""
    try:
        parser.feed_data(data)
    except HttpParserUpgrade:
        pass
    except HttpParserError as exc:
        return str(exc)
    return None


def _header_fault(headers: CIMultiDict[str], name: str, reason: str) -> tuple[str, str, str | None]:
    """Description, name and value for a WSInvalidHeaderError."""
    values = headers.getall(name, None)
    received = "none" if values is None else ", ".join(map(repr, values))
    return (
        f"cannot upgrade, {reason}: received {name}: {received}",
        str(name),
        None if values is None else ", ".join(values),
    )


def _status(code: int, reason: str) -> HTTPStatus:
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


def _members(headers: CIMultiDict[str], name: str) -> list[str]:
    """The members of a comma-separated list that may stand on several lines."""
    members = [m.strip(" \t") for line in headers.getall(name, ()) for m in line.split(",")]
    return [member for member in members if member]


def _has_token(headers: CIMultiDict[str], name: str, token: str) -> bool:
    """Whether a list of case-insensitive tokens has this one, which is given in lower case."""
    return headers.get(name, "").lower() == token or any(
        member.lower() == token for member in _members(headers, name)
    )


def _extensions(headers: CIMultiDict[str]) -> list[str]:
    """The names of extensions, without their parameters (RFC 6455 section 9.1)."""
    return [member.split(";")[0].strip(" \t") for member in _members(headers, _EXTENSIONS)]


def _accept_value(key: str) -> str:
    return _base64(hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest())


def _base64(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode()


def _authority(url: WSParsedURL) -> str:
    """Host and port as the Host header carries them, the port only when it isn't the default."""
    host = f"[{url.host.partition('%')[0]}]" if ":" in url.host else url.host
    return host if url.port == (443 if url.is_secure else 80) else f"{host}:{url.port}"


def _may_have_body(status: int) -> bool:
    return status >= 200 and status not in (204, 304)


def _with_text(
    status: HTTPStatus, body: bytes | None, extra_headers: ExtraHeaders
) -> WSUpgradeResponse:
    if body is not None:
        if not isinstance(body, (bytes, bytearray, memoryview)):
            raise TypeError(f"body must be bytes, not {type(body).__name__}")
        body = bytes(body)
    headers = _checked(extra_headers)
    if body is not None and _CONTENT_TYPE not in headers:
        headers.add(_CONTENT_TYPE, _TEXT)
    return WSUpgradeResponse(status, headers, body)


def _refusal(
    status: int, reason: str, extra_headers: dict[str, str] | None = None
) -> WSUpgradeResponse:
    return _closing(_with_text(HTTPStatus(status), reason.encode(), extra_headers))


def _closing(response: WSUpgradeResponse) -> WSUpgradeResponse:
    """A complete response out of one that is no upgrade; the connection ends behind it."""
    status = HTTPStatus(response.status)
    body = response.body
    if status < 200:
        raise ValueError(f"a final response is needed, not the interim {status:d}")
    headers = _checked(response.headers)
    headers.popall(_CONNECTION, None)
    if _TRANSFER_ENCODING in headers:
        raise ValueError("the response must not set Transfer-Encoding, its body is sent as it is")
    if _may_have_body(status):
        length = str(len(body or b""))
        if headers.popall(_CONTENT_LENGTH, [length]) != [length]:
            raise ValueError(f"the response sets Content-Length, but its body has {length} bytes")
        headers.add(_CONTENT_LENGTH, length)
    elif body:
        raise ValueError(f"a response of status {status:d} has no body (RFC 9110 section 6.4.1)")
    headers.add(_CONNECTION, "Upgrade, close" if _UPGRADE in headers else "close")
    return WSUpgradeResponse(status, headers, body)


def _checked(extra_headers: ExtraHeaders) -> CIMultiDict[str]:
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
        headers.add(name, _checked_value(name, value))
    return headers


def _checked_value(name: str, value: object) -> str:
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


def _field_lines(headers: CIMultiDict[str]) -> bytes:
    """The headers as they are sent, with the empty line behind them."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    # The objects are mutable: one line each is what must leave, whatever was put in.
    if lines.count("\r") != len(headers) or lines.count("\n") != len(headers) or "\0" in lines:
        _checked(headers)
    return lines.encode("utf-8", "surrogateescape") + b"\r\n"
