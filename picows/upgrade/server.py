"""The server's side of the upgrade: received bytes in, a request out; and its answer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import NoReturn

from multidict import CIMultiDict

from .. import deflate
from ..deflate import Agreement, WSDeflate
from ..errors import WSInvalidHeaderError, WSInvalidMessageError, WSInvalidUpgradeError
from ._fields import parse_fields
from .grammar import (
    ACCEPT,
    BAD_CONNECTION,
    BAD_FIELD_LINE,
    CONNECTION,
    CONTENT_LENGTH,
    END_OF_HEAD,
    EXTENSIONS,
    HOST,
    HTTP_1_0,
    HTTP_1_1,
    KEY,
    MAX_HEAD_SIZE,
    MAX_HEADERS,
    NAMES,
    ORIGIN,
    PROTOCOL,
    TOKEN,
    TRANSFER_ENCODING,
    UPGRADE,
    UPGRADE_FIELDS,
    VERSION,
    accept_value,
    checked_headers,
    has_length,
    has_token,
    head_fault,
    header_fault,
    members,
    size_of_head,
)
from .messages import (
    SWITCHING_PROTOCOLS,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
    may_have_body,
    with_text,
)

MAX_TARGET_SIZE = 8000  # bytes; RFC 9112 section 3 wants this many supported at least

# Nearly every answer is this one.
_PLAIN_ANSWER = (
    b"HTTP/1.1 101 Switching Protocols\r\n"
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %b\r\n\r\n"
)

_METHOD = re.compile(TOKEN.encode())
_TARGET_FORM = rb"(?:/|[A-Za-z][A-Za-z0-9+.-]*://)[!-\"$-~]*"  # origin or absolute form
_TARGET = re.compile(_TARGET_FORM)
_HTTP_VERSION = re.compile(rb"HTTP/[0-9]\.[0-9]")
_REQUEST_LINE = re.compile(
    rb"(?:\r\n)?GET (?=[^ ]{1,%d} )(%b) HTTP/1\.1\r\n" % (MAX_TARGET_SIZE, _TARGET_FORM)
)
# What else is for the listener factory to answer: health checks. HAProxy's are OPTIONS by HTTP/1.0, unless told otherwise.
_METHODS = (b"GET", b"HEAD", b"OPTIONS")
_ALLOW = {"Allow": "GET, HEAD, OPTIONS"}
_CHECK_LINE = re.compile(
    rb"(?:\r\n)?(GET|HEAD|OPTIONS) (?=[^ ]{1,%d} )(%b|(?<=OPTIONS )\*) (HTTP/1\.[01])\r\n"
    % (MAX_TARGET_SIZE, _TARGET_FORM)
)
_HOST_VALUE = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]*)(?::[0-9]*)?")
_KEY_VALUE = re.compile(r"[A-Za-z0-9+/]{22}==")
_PART_OF_FIELD_LINE = re.compile(rb"(?:%b(?::[\t -~\x80-\xff]*\r?)?)?|\r" % TOKEN.encode())


class RequestReader:
    """Read one upgrade request, on the server side (RFC 6455 section 4.2.1).

    :param compression: the compression to agree to if the client offers it; None: none
    :param subprotocols: those that may be agreed on, the best one first
    :param origins: the origins that may ask for an upgrade, or patterns of them; None among them
        stands for clients that name none. Without a list all may
    :param max_head_size: of request line and headers, in bytes

    `request` is set once the request is complete; `accept` is then the value of
    Sec-WebSocket-Accept that answers it, None when it asks for no upgrade to websocket, or has a
    method or a version that cannot; `rest` are the bytes behind its head; `agreement` is the compression agreed on, None if
    there is none, and `extensions` the value of Sec-WebSocket-Extensions that says so; `subprotocol`
    is the best one that the client offers, None if there is none.

    A request for an upgrade has one form, which is quicker to match than llhttp and its callbacks are; why one
    does not match is found out afterwards.
    """

    __slots__ = (
        "_checked",
        "_compression",
        "_count",
        "_max_head_size",
        "_origins",
        "_raw",
        "_reading",
        "_subprotocols",
        "accept",
        "agreement",
        "extensions",
        "request",
        "rest",
        "subprotocol",
    )

    request: WSUpgradeRequest

    def __init__(
        self,
        compression: WSDeflate | None = None,
        subprotocols: Sequence[str] = (),
        origins: Sequence[str | re.Pattern[str] | None] | None = None,
        max_head_size: int = MAX_HEAD_SIZE,
    ) -> None:
        self.accept: str | None = None
        self.agreement: Agreement | None = None
        self.extensions: str | None = None
        self.subprotocol: str | None = None
        self._compression = compression
        self._subprotocols = subprotocols
        self._origins = origins
        self._max_head_size = max_head_size
        self.rest: bytes = b""
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
        limit = self._max_head_size
        end = size_of_head(received, known, limit)
        if not end:
            self._raw = received[:limit]
            self._check_lines()
            if self._checked and not _PART_OF_FIELD_LINE.fullmatch(self._raw, self._checked):
                self._refuse_head(400, BAD_FIELD_LINE)
            if len(received) >= limit:
                part = "headers are" if self._checked else "request line is"
                self._refuse_head(431, f"the {part} over {limit} bytes")
            return False

        self._raw = received[:end]
        line = _REQUEST_LINE.match(self._raw) or _CHECK_LINE.match(self._raw)
        fields, lines_end = parse_fields(self._raw, line.end(), NAMES) if line else ([], 0)
        if line is None or lines_end != end - 2 or len(fields) > MAX_HEADERS:
            self._check_lines()
            self._refuse_head(400, BAD_FIELD_LINE)
        self.rest = received[end:]
        headers = CIMultiDict(fields)
        if line.re is _REQUEST_LINE:
            request = WSUpgradeRequest(b"GET", line[1], HTTP_1_1, headers)
            self._check_message(request)
            self._check_upgrade(headers)
        else:
            request = WSUpgradeRequest(line[1], line[2], line[3], headers)
            self._check_message(request)
        self.request = request
        self._release()
        return True

    def _check_lines(self) -> None:
        """Refuse a wrong request line, and too many whole lines behind it.

        What is reported depends on the bytes alone, not on how they were cut into pieces.
        """
        raw = self._raw
        if not self._checked:
            self._checked = self._check_request_line()
            if not self._checked:
                return
        fields, self._checked = parse_fields(raw, self._checked, NAMES)
        self._count += len(fields)
        if self._count > MAX_HEADERS:
            self._refuse_head(431, f"there are more than {MAX_HEADERS} headers")

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
            if parts[0] not in _METHODS:
                self._refuse_head(405, f"the method must be one of {_ALLOW['Allow']}", _ALLOW)
            if len(parts[1]) > MAX_TARGET_SIZE:
                self._refuse_head(414, f"the request target is over {MAX_TARGET_SIZE} bytes")
        if (
            len(parts) > 2
            and not _TARGET.fullmatch(parts[1])
            and parts[:2] != [b"OPTIONS", b"*"]  # RFC 9112 section 3.2.4
        ):
            self._refuse_head(400, "the request target is neither a path nor a URL")
        if complete and parts[2:] not in ([HTTP_1_1], [HTTP_1_0]):
            if len(parts) > 2 and _HTTP_VERSION.fullmatch(parts[2]):
                self._refuse_head(505, "the version must be HTTP/1.1")
            self._refuse_head(400, "the request line isn't 'GET target HTTP/1.1'")
        return end + 2 if complete else 0

    def _check_message(self, request: WSUpgradeRequest) -> None:
        headers = request.headers
        hosts = headers.getall(HOST, ())
        valid = len(hosts) == 1 and _HOST_VALUE.fullmatch(hosts[0])
        if not valid and (hosts or request.version != HTTP_1_0):
            self._refuse_header(headers, HOST, "there must be one Host, a name or an address")
        if TRANSFER_ENCODING in headers:
            self._refuse_header(headers, TRANSFER_ENCODING, "a request has no body here")
        if has_length(headers):
            self._refuse_header(headers, CONTENT_LENGTH, "a request has no body here")

    def _check_upgrade(self, headers: CIMultiDict[str]) -> None:
        if not has_token(headers, UPGRADE, "websocket"):
            return
        if not has_token(headers, CONNECTION, "upgrade"):
            self._refuse_header(headers, CONNECTION, BAD_CONNECTION, error=WSInvalidUpgradeError)
        versions = headers.getall(VERSION, ())
        if versions != ["13"]:
            self._refuse_header(
                headers,
                VERSION,
                "the websocket version must be 13",
                426 if len(versions) == 1 else 400,
                {"Upgrade": "websocket", "Sec-WebSocket-Version": "13"},
            )
        keys = headers.getall(KEY, ())
        if len(keys) != 1 or not _KEY_VALUE.fullmatch(keys[0]):
            reason = "there must be one Sec-WebSocket-Key, 16 bytes in base64"
            self._refuse_header(headers, KEY, reason)
        if self._origins is not None and not _is_among(self._origins, headers):
            self._refuse_header(headers, ORIGIN, "the origin is not allowed here", 403)
        if self._compression is not None and EXTENSIONS in headers:
            try:
                agreed = deflate.accept(self._compression, headers.getall(EXTENSIONS))
            except ValueError as exc:
                self._refuse_header(headers, EXTENSIONS, str(exc))
            if agreed is not None:
                self.extensions, self.agreement = agreed
        if self._subprotocols and PROTOCOL in headers:
            offered = members(headers, PROTOCOL)
            self.subprotocol = next((name for name in self._subprotocols if name in offered), None)
        self.accept = accept_value(keys[0])

    def _release(self) -> None:
        self._reading = False
        self._raw = b""

    def _refuse_head(
        self, status: int, reason: str, extra_headers: dict[str, str] | None = None
    ) -> NoReturn:
        raw = self._raw
        self._release()
        raise WSInvalidMessageError(
            head_fault(raw, reason),
            raw.removesuffix(END_OF_HEAD),
            None,
            self._refusal(raw, status, reason, extra_headers),
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
            *header_fault(headers, name, reason),
            raw.removesuffix(END_OF_HEAD),
            self.rest,
            self._refusal(raw, status, reason, extra_headers),
        )

    @staticmethod
    def _refusal(
        raw: bytes, status: int, reason: str, extra_headers: dict[str, str] | None
    ) -> WSUpgradeResponse:
        is_head = raw.removeprefix(b"\r\n").startswith(b"HEAD ")
        return _for_method(b"HEAD" if is_head else b"GET", _refusal(status, reason, extra_headers))


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
    method = reader.request.method
    if result is None:
        return _final(method, _refusal(404, "404 Not Found"))
    if isinstance(result, WSUpgradeResponseWithListener):
        response, listener = result.response, result.listener
        if response.status != 101:
            return _final(method, _closing(response))
        if response.body:
            raise ValueError("a 101 response has no body (RFC 9110 section 6.4.1)")
        headers = checked_headers(response.headers)
    else:
        headers, listener = None, result

    if reader.accept is None:
        if method == b"OPTIONS":
            allowed = WSUpgradeResponse(HTTPStatus.NO_CONTENT, CIMultiDict(_ALLOW))
            return _final(method, _closing(allowed))
        reason = "this is a websocket endpoint, the request asked for no upgrade"
        if has_token(reader.request.headers, UPGRADE, "websocket"):
            reason = "an upgrade to websocket needs GET and HTTP/1.1"
        return _final(method, _refusal(426, reason, {"Upgrade": "websocket"}))
    complete = CIMultiDict((*UPGRADE_FIELDS, (ACCEPT, reader.accept)))
    accepting = WSUpgradeResponse(SWITCHING_PROTOCOLS, complete)
    if headers is None and reader.extensions is None and reader.subprotocol is None:
        return accepting, _PLAIN_ANSWER % reader.accept.encode(), listener
    if reader.extensions is not None:
        complete.add(EXTENSIONS, reader.extensions)
        if headers is not None and EXTENSIONS in headers:
            raise ValueError(f"a response must not set {EXTENSIONS} where compression was agreed on")
    if reader.subprotocol is not None and (headers is None or PROTOCOL not in headers):
        complete.add(PROTOCOL, reader.subprotocol)
    if headers is not None:
        for name in (CONTENT_LENGTH, TRANSFER_ENCODING):
            if name in headers:
                raise ValueError(f"a 101 response has no body, so no {name} (RFC 9110 section 8.6)")
        for name in (UPGRADE, CONNECTION, ACCEPT):
            headers.popall(name, None)
        complete.extend(headers)
    return accepting, accepting.to_bytes(), listener


def _is_among(
    origins: Sequence[str | re.Pattern[str] | None], headers: CIMultiDict[str]
) -> bool:
    named = headers.getall(ORIGIN, [])
    if len(named) > 1:
        return False
    origin = named[0] if named else None
    return origin in origins or (
        origin is not None
        and any(isinstance(each, re.Pattern) and each.fullmatch(origin) for each in origins)
    )


def _final(
    method: bytes, response: WSUpgradeResponse
) -> tuple[WSUpgradeResponse, bytes, None]:
    response = _for_method(method, response)
    return response, response.to_bytes(), None


def _for_method(method: bytes, response: WSUpgradeResponse) -> WSUpgradeResponse:
    """HEAD gets the headers only, Content-Length too (RFC 9110 section 9.3.2)."""
    if method == b"HEAD":
        response.body = None
    return response


def _refusal(
    status: int, reason: str, extra_headers: dict[str, str] | None = None
) -> WSUpgradeResponse:
    return _closing(with_text(HTTPStatus(status), reason.encode(), extra_headers))


def _closing(response: WSUpgradeResponse) -> WSUpgradeResponse:
    """A complete response out of one that is no upgrade; the connection ends behind it."""
    status = HTTPStatus(response.status)
    body = response.body
    if status < 200:
        raise ValueError(f"a final response is needed, not the interim {status:d}")
    headers = checked_headers(response.headers)
    headers.popall(CONNECTION, None)
    if TRANSFER_ENCODING in headers:
        raise ValueError("the response must not set Transfer-Encoding, its body is sent as it is")
    if may_have_body(status):
        length = str(len(body or b""))
        if headers.popall(CONTENT_LENGTH, [length]) != [length]:
            raise ValueError(f"the response sets Content-Length, but its body has {length} bytes")
        headers.add(CONTENT_LENGTH, length)
    elif body:
        raise ValueError(f"a response of status {status:d} has no body (RFC 9110 section 6.4.1)")
    headers.add(CONNECTION, "Upgrade, close" if UPGRADE in headers else "close")
    return WSUpgradeResponse(status, headers, body)
