"""The client's side of the upgrade: the request, and a response out of received bytes.

Responses are read by llhttp (through `httptools`), for a server may answer whatever HTTP knows.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import NoReturn

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser
from multidict import CIMultiDict

from .. import deflate
from ..deflate import Agreement, WSDeflate
from ..errors import (
    WSInvalidHeaderError,
    WSInvalidMessageError,
    WSInvalidStatusError,
    WSInvalidUpgradeError,
)
from ..url import WSParsedURL
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
    HTTP_1_1,
    KEY,
    MAX_HEAD_SIZE,
    MAX_HEADERS,
    NAMES,
    PROTOCOL,
    TRANSFER_ENCODING,
    UPGRADE,
    UPGRADE_FIELDS,
    VERSION,
    ExtraHeaders,
    accept_value,
    checked_headers,
    has_length,
    has_token,
    head_fault,
    header_fault,
    members,
    size_of_head,
    to_base64,
)
from .messages import WSUpgradeRequest, WSUpgradeResponse, status_of

MAX_BODY_SIZE = 65536  # bytes kept of the body of a response that is no upgrade

_STATUS_LINE = re.compile(rb"(HTTP/1\.[01]) ([1-9][0-9]{2})(?: ([\t -~\x80-\xff]*))?\r\n")
_STATUS_101 = re.compile(rb"HTTP/1\.1 101[ \r]")

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


def create_request(
    url: WSParsedURL,
    extra_headers: ExtraHeaders = None,
    compression: WSDeflate | None = None,
    subprotocols: Sequence[str] = (),
) -> WSUpgradeRequest:
    """The upgrade request for a URL, with a fresh random key (RFC 6455 section 4.1).

    :param extra_headers: sent behind the headers of the handshake. A Host and an Authorization
        replace what the URL says; Sec-WebSocket-Protocol and -Extensions are what is offered.
    :param compression: the compression to offer; -Extensions are then not for `extra_headers`
    :param subprotocols: the subprotocols to offer; -Protocol is then not for `extra_headers`

    Raises ValueError for a header that is malformed or belongs to the handshake itself, TypeError
    for one that is no str.
    """
    extra = checked_headers(extra_headers)
    for name in extra:
        if name.lower() in _OWN_REQUEST_HEADERS:
            raise ValueError(f"extra_headers must not set {name}, it belongs to the handshake")
    if compression is not None and EXTENSIONS in extra:
        raise ValueError(f"extra_headers must not set {EXTENSIONS} where compression is offered")
    if subprotocols and PROTOCOL in extra:
        raise ValueError(f"extra_headers must not set {PROTOCOL} where subprotocols are offered")
    hosts = extra.popall(HOST, None)
    if hosts is not None and len(hosts) != 1:
        raise ValueError(f"extra_headers must not set Host more than once: {hosts!r}")
    headers: CIMultiDict[str] = CIMultiDict(
        (
            (HOST, hosts[0] if hosts else _authority(url)),
            *UPGRADE_FIELDS,
            (VERSION, "13"),
            (KEY, to_base64(os.urandom(16))),
        )
    )
    if compression is not None:
        headers.add(EXTENSIONS, deflate.offer(compression))
    if subprotocols:
        headers.add(PROTOCOL, ", ".join(subprotocols))
    headers.extend(extra)
    if url.user_info and "Authorization" not in headers:
        headers.add("Authorization", "Basic " + to_base64(":".join(url.user_info).encode()))
    return WSUpgradeRequest(b"GET", url.resource_name.encode(), HTTP_1_1, headers)


def _authority(url: WSParsedURL) -> str:
    """Host and port as the Host header carries them, the port only when it isn't the default."""
    host = f"[{url.host.partition('%')[0]}]" if ":" in url.host else url.host
    return host if url.port == (443 if url.is_secure else 80) else f"{host}:{url.port}"


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
        self.rest: bytes = b""
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
        end = size_of_head(received, known, limit)
        complete = end > 0
        if not complete:
            end = min(len(received), limit)
        raw = self._raw = received[:end]
        fault = _parse(parser, raw[known:])
        message = self._message
        if message.field_count > MAX_HEADERS:
            self._fail(f"there are more than {MAX_HEADERS} headers")
        # Behind the head of a 101 llhttp expects no HTTP; what is wrong there is ours to say.
        # A 101 with a Content-Length that llhttp cannot read has a wrong header, once all of it is there.
        misread = fault and not message.head_complete
        if misread and not (_STATUS_101.match(raw) and "Content-Length" in str(fault)):
            self._fail(str(fault))
        if not complete:
            if end == limit:
                self._fail(f"the headers are over {MAX_HEAD_SIZE} bytes")
            return None

        line = _STATUS_LINE.match(raw)
        if not line:
            self._fail("the status line isn't 'HTTP/1.1 status reason'")
        fields, lines_end = parse_fields(raw, line.end(), NAMES)
        if not (message.head_complete or misread) or lines_end != end - 2:
            self._fail(BAD_FIELD_LINE)
        status = int(line[2])
        if status == 101 and line[1] != HTTP_1_1:
            self._fail("HTTP/1.0 knows no upgrade")
        if status < 200 and status != 101:
            self._skipped += end
            self._expect_head()
        else:
            reason = (line[3] or b"").decode("utf-8", "replace")
            self.response = WSUpgradeResponse(
                status_of(status, reason), CIMultiDict(fields), None, line[1]
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
        if has_length(headers):
            self._fail_header(headers, CONTENT_LENGTH, "a 101 response has no body")
        if TRANSFER_ENCODING in headers:
            self._fail_header(headers, TRANSFER_ENCODING, "a 101 response has no body")
        if {token.lower() for token in members(headers, UPGRADE)} != {"websocket"}:
            reason = "the upgrade must be to 'websocket'"
            self._fail_header(headers, UPGRADE, reason, WSInvalidUpgradeError)
        if not has_token(headers, CONNECTION, "upgrade"):
            self._fail_header(headers, CONNECTION, BAD_CONNECTION, WSInvalidUpgradeError)
        accept = accept_value(offered[KEY])
        if headers.getall(ACCEPT, ()) != [accept]:
            self._fail_header(headers, ACCEPT, f"the key that was sent is answered by {accept!r}")
        if self._compression is not None:
            try:
                values = headers.getall(EXTENSIONS, [])
                self.agreement = deflate.check_answer(self._compression, values)
            except ValueError as exc:
                self._fail_header(headers, EXTENSIONS, str(exc))
        elif not set(_extensions(headers)) <= set(_extensions(offered)):
            self._fail_header(headers, EXTENSIONS, "the extension was not offered")
        protocols = headers.getall(PROTOCOL, ())
        if len(protocols) > 1 or not set(protocols) <= set(members(offered, PROTOCOL)):
            self._fail_header(headers, PROTOCOL, "one subprotocol that was offered is expected")

    def _release(self) -> None:
        self._parser = None
        self._raw = b""
        self._body = bytearray()

    def _received(self) -> tuple[bytes, bytes, WSUpgradeResponse | None]:
        received = self._raw.removesuffix(END_OF_HEAD), bytes(self._body), self.response
        self._release()
        return received

    def _fail(self, reason: str) -> NoReturn:
        raise WSInvalidMessageError(head_fault(self._raw, reason), *self._received())

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
        raise error(*header_fault(headers, name, reason), *self._received())


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


def _parse(parser: HttpResponseParser, data: bytes) -> str | None:
    """Feed llhttp; what it finds wrong, None when there is nothing."""
    try:
        parser.feed_data(data)
    except HttpParserUpgrade:
        pass
    except HttpParserError as exc:
        return str(exc)
    return None


def _extensions(headers: CIMultiDict[str]) -> list[str]:
    """The names of extensions, without their parameters (RFC 6455 section 9.1)."""
    return [member.split(";")[0].strip(" \t") for member in members(headers, EXTENSIONS)]
