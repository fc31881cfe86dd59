"""What a client takes for an upgrade, and the error for everything else (RFC 6455 section 4.1)."""

from __future__ import annotations

from http import HTTPStatus

import pytest

from picows.errors import (
    WSHandshakeError,
    WSInvalidHeaderError,
    WSInvalidMessageError,
    WSInvalidStatusError,
    WSInvalidUpgradeError,
)
from picows.upgrade import (
    MAX_BODY_SIZE,
    MAX_HEAD_SIZE,
    MAX_HEADERS,
    RequestReader,
    ResponseReader,
    WSUpgradeRequest,
    WSUpgradeResponse,
    answer,
)

LINE = "HTTP/1.1 101 Switching Protocols"
UPGRADE = "Upgrade: websocket"
CONNECTION = "Connection: Upgrade"
ACCEPT = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
HEADERS = (UPGRADE, CONNECTION, ACCEPT)


def response(*headers: str, line: str = LINE) -> bytes:
    return "".join(f"{text}\r\n" for text in (line, *headers, "")).encode("latin-1")


def replaced(old: str, *new: str) -> bytes:
    at = HEADERS.index(old)
    return response(*HEADERS[:at], *new, *HEADERS[at + 1 :])


def reader(**offered: str) -> ResponseReader:
    request = WSUpgradeRequest()
    request.headers["Sec-WebSocket-Key"] = "dGhlIHNhbXBsZSBub25jZQ=="
    for name, value in offered.items():
        request.headers[f"Sec-WebSocket-{name}"] = value
    return ResponseReader(request)


def received(read: ResponseReader) -> WSUpgradeResponse:
    assert read.response is not None
    return read.response


def refused(data: bytes, read: ResponseReader | None = None) -> WSHandshakeError:
    read = read or reader()
    with pytest.raises(WSHandshakeError) as caught:
        read.feed(data)
    assert read.feed(response(*HEADERS)) is False  # what comes behind it is not looked at
    assert read.rest == b""
    return caught.value


def refused_header(data: bytes, read: ResponseReader | None = None) -> tuple[str, str | None]:
    error = refused(data, read)
    assert isinstance(error, WSInvalidHeaderError)
    assert error.raw_header == data.partition(b"\r\n\r\n")[0]
    assert error.raw_body == data.partition(b"\r\n\r\n")[2]
    assert error.response is not None
    assert error.response.status == 101
    assert isinstance(error, WSInvalidUpgradeError) == (error.name in ("Upgrade", "Connection"))
    assert error.name in str(error)
    return error.name, error.value


def test_upgrade_is_read() -> None:
    read = reader()
    assert read.feed(response(*HEADERS, "Set-Cookie: a", "set-cookie: b"))
    assert read.rest == b""
    upgraded = received(read)
    assert upgraded.version == b"HTTP/1.1"
    assert upgraded.status is HTTPStatus.SWITCHING_PROTOCOLS
    assert upgraded.body is None
    assert upgraded.headers.getall("SET-COOKIE") == ["a", "b"]
    assert upgraded.headers["upgrade"] == "websocket"


def test_bytes_behind_the_head_are_kept() -> None:
    read = reader()
    frames = b"\x81\x01\r\n\r\n" * MAX_HEAD_SIZE
    assert read.feed(response(*HEADERS) + frames)
    assert read.rest == frames
    assert read.feed(b"more")
    assert read.rest == frames + b"more"


@pytest.mark.parametrize(
    "line",
    [
        "HTTP/1.1 101 Web Socket Protocol Handshake",
        "HTTP/1.1 101 ",
        "HTTP/1.1 101",
        "HTTP/1.1 101 \xe9\t",
    ],
)
def test_reason_is_free(line: str) -> None:
    assert reader().feed(response(*HEADERS, line=line))


@pytest.mark.parametrize(
    "headers",
    [
        ("Connection: keep-alive, Upgrade",),
        ("connection: UPGRADE",),
        ("Connection: keep-alive", "Connection: upgrade"),
    ],
)
def test_connection_is_a_list_of_tokens(headers: tuple[str, ...]) -> None:
    assert reader().feed(replaced(CONNECTION, *headers))


@pytest.mark.parametrize(
    "headers", [("UPGRADE: WebSocket",), ("Upgrade: ,websocket,",), (UPGRADE, UPGRADE)]
)
def test_upgrade_is_a_list_of_tokens(headers: tuple[str, ...]) -> None:
    assert reader().feed(replaced(UPGRADE, *headers))


@pytest.mark.parametrize(
    ("headers", "value"),
    [
        ((), None),
        (("Connection: close",), "close"),
        (("Connection: a", "Connection: b"), "a, b"),
        (("Connection:",), ""),
        (("Connection: up grade",), "up grade"),
    ],
)
def test_connection_without_upgrade(headers: tuple[str, ...], value: str | None) -> None:
    assert refused_header(replaced(CONNECTION, *headers)) == ("Connection", value)


@pytest.mark.parametrize(
    ("headers", "value"),
    [
        ((), None),
        (("Upgrade: h2c",), "h2c"),
        (("Upgrade: h2c, websocket",), "h2c, websocket"),
        (("Upgrade: websocket", "Upgrade: h2c"), "websocket, h2c"),
        (("Upgrade:",), ""),
        (("Upgrade: websocket/1",), "websocket/1"),
    ],
)
def test_upgrade_to_something_else(headers: tuple[str, ...], value: str | None) -> None:
    assert refused_header(replaced(UPGRADE, *headers)) == ("Upgrade", value)


def test_101_that_names_no_upgrade_at_all() -> None:
    assert refused_header(response(ACCEPT)) == ("Upgrade", None)
    assert refused_header(response() + b"\x81\x00") == ("Upgrade", None)


@pytest.mark.parametrize(
    ("headers", "value"),
    [
        ((), None),
        ((ACCEPT, ACCEPT), f"{ACCEPT[22:]}, {ACCEPT[22:]}"),
        (("Sec-WebSocket-Accept:",), ""),
        (("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo",), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo"),
        (("Sec-WebSocket-Accept: S3pPLMBiTxaQ9kYGzzhZRbK+xOo=",), "S3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        (("Sec-WebSocket-Accept: dGhlIHNhbXBsZSBub25jZQ==",), "dGhlIHNhbXBsZSBub25jZQ=="),
    ],
)
def test_accept_has_to_answer_the_key(headers: tuple[str, ...], value: str | None) -> None:
    assert refused_header(replaced(ACCEPT, *headers)) == ("Sec-WebSocket-Accept", value)


@pytest.mark.parametrize("value", ["abc", "-1", "1 2", "3, 3", "9" * 30, "0x1", ""])
def test_a_101_with_a_length_that_is_none(value: str) -> None:
    """Wherever a read cuts it."""
    data = response(*HEADERS[:1], f"Content-Length: {value}", *HEADERS[1:])
    assert refused_header(data) == ("Content-Length", value)
    for cut in range(1, len(data)):
        read = reader()
        assert read.feed(data[:cut]) is False
        assert refused_header_of(read, data[cut:]) == ("Content-Length", value)
    with pytest.raises(WSInvalidMessageError):
        reader().feed(data.replace(b" 101 ", b" 200 "))


def test_a_wrong_line_behind_a_length_that_is_none() -> None:
    """The parser of HTTP has stopped at the length, and does not see it."""
    error = refused(response(*HEADERS, "Content-Length: x", "no colon"))
    assert isinstance(error, WSInvalidMessageError)
    assert "a header line isn't 'name: value' ended by CR LF" in str(error)


def refused_header_of(read: ResponseReader, rest: bytes) -> tuple[str, str | None]:
    with pytest.raises(WSInvalidHeaderError) as caught:
        read.feed(rest)
    return caught.value.name, caught.value.value


def test_101_has_no_body() -> None:
    assert reader().feed(response(*HEADERS, "Content-Length: 0"))
    for value in ("5", "00"):
        data = response(*HEADERS, f"Content-Length: {value}") + b"hello"
        assert refused_header(data) == ("Content-Length", value)
    data = response(*HEADERS, "Transfer-Encoding: chunked")
    assert refused_header(data) == ("Transfer-Encoding", "chunked")


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [("chat", "chat"), ("a, chat", "chat"), ("a,chat,,b", "chat"), ("a", None), (None, None)],
)
def test_subprotocol_that_was_offered(offered: str | None, chosen: str | None) -> None:
    headers = () if chosen is None else (f"Sec-WebSocket-Protocol: {chosen}",)
    read = reader() if offered is None else reader(Protocol=offered)
    assert read.feed(response(*HEADERS, *headers))


@pytest.mark.parametrize(
    ("offered", "headers", "value"),
    [
        (None, ("chat",), "chat"),
        ("a", ("chat",), "chat"),
        ("chat", ("Chat",), "Chat"),
        ("chat", ("",), ""),
        ("a,,b", ("",), ""),
        ("a, b", ("a, b",), "a, b"),
        ("a, b", ("a", "b"), "a, b"),
    ],
)
def test_subprotocol_that_was_not_offered(
    offered: str | None, headers: tuple[str, ...], value: str
) -> None:
    read = reader() if offered is None else reader(Protocol=offered)
    data = response(*HEADERS, *(f"Sec-WebSocket-Protocol: {text}" for text in headers))
    assert refused_header(data, read) == ("Sec-WebSocket-Protocol", value)


@pytest.mark.parametrize(
    ("offered", "headers"),
    [
        ("permessage-deflate", ("permessage-deflate; client_max_window_bits=15",)),
        ("permessage-deflate; client_max_window_bits, x", ("x", "permessage-deflate")),
        ("x", ()),
        ('x ;a="b;c"', ("x;a",)),
        (None, ("",)),
    ],
)
def test_extension_that_was_offered(offered: str | None, headers: tuple[str, ...]) -> None:
    read = reader() if offered is None else reader(Extensions=offered)
    assert read.feed(response(*HEADERS, *(f"Sec-WebSocket-Extensions: {text}" for text in headers)))


@pytest.mark.parametrize(
    ("offered", "value"),
    [(None, "permessage-deflate"), ("x", "y; a"), ("x", "x, y"), ("x; y", "y"), ("x", "; a")],
)
def test_extension_that_was_not_offered(offered: str | None, value: str) -> None:
    read = reader() if offered is None else reader(Extensions=offered)
    data = response(*HEADERS, f"Sec-WebSocket-Extensions: {value}")
    assert refused_header(data, read) == ("Sec-WebSocket-Extensions", value)


def test_interim_responses_are_skipped() -> None:
    read = reader()
    data = (
        response(line="HTTP/1.1 100 Continue")
        + response("Link: </a.css>; rel=preload", line="HTTP/1.1 103 Early Hints")
        + response(*HEADERS)
        + b"\x81"
    )
    assert read.feed(data)
    assert (received(read).status, read.rest) == (101, b"\x81")
    assert "Link" not in received(read).headers

    read = reader()
    assert read.feed(response(line="HTTP/1.1 100 Continue")) is False
    assert read.response is None
    assert read.feed(response(*HEADERS))


def test_interim_responses_without_end() -> None:
    interim = response(line="HTTP/1.1 100 Continue")
    data = interim * (MAX_HEAD_SIZE // len(interim) + 1)
    assert isinstance(refused(data), WSInvalidMessageError)
    assert isinstance(refused(interim + head_of(MAX_HEAD_SIZE)), WSInvalidMessageError)


@pytest.mark.parametrize(
    "body",
    [
        b"Content-Length: 5\r\n\r\nhello",
        b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n",
    ],
)
@pytest.mark.parametrize("version", [b"HTTP/1.1", b"HTTP/1.0"])
@pytest.mark.parametrize("behind", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", b"\0"])
def test_other_status_is_reported_when_its_body_is_complete(
    body: bytes, version: bytes, behind: bytes
) -> None:
    data = version + b" 404 Not Found\r\n" + body + behind
    error = refused(data)
    assert isinstance(error, WSInvalidStatusError)
    assert error.raw_header == data.split(b"\r\n\r\n")[0]
    assert error.raw_body == data.split(b"\r\n\r\n", 1)[1]
    assert error.response is not None
    assert error.response.status is HTTPStatus.NOT_FOUND
    assert error.response.body == b"hello"
    assert error.response.version == version
    assert "404 Not Found" in str(error)
    assert "101" in str(error)

    read = reader()
    complete = len(data) - len(behind)
    assert read.feed(data[: complete - 1]) is False
    with pytest.raises(WSInvalidStatusError):
        read.feed(data[complete - 1 : complete])


@pytest.mark.parametrize("status", [204, 304])
def test_status_without_a_body(status: int) -> None:
    error = refused(response(line=f"HTTP/1.1 {status} x"))
    assert isinstance(error, WSInvalidStatusError)
    assert error.response is not None
    assert error.response.body == b""


def test_426_is_a_status_like_others() -> None:
    error = refused(
        response(UPGRADE, CONNECTION, "Content-Length: 2", line="HTTP/1.1 426 x") + b"ab"
    )
    assert isinstance(error, WSInvalidStatusError)
    assert error.response is not None
    assert error.response.body == b"ab"


def test_redirect_is_reported_with_its_location() -> None:
    error = refused(response("Location: /there", "Content-Length: 0", line="HTTP/1.1 302 Found"))
    assert isinstance(error, WSInvalidStatusError)
    assert error.response is not None
    assert error.response.headers["location"] == "/there"


def test_status_nobody_registered() -> None:
    error = refused(response("Content-Length: 0", line="HTTP/1.1 520 Web server is down"))
    assert isinstance(error, WSInvalidStatusError)
    assert error.response is not None
    status = error.response.status
    assert (int(status), status.value, status.phrase) == (520, 520, "Web server is down")
    assert isinstance(status, HTTPStatus)
    assert "520 Web server is down" in str(error)
    assert b" 520 " in error.response.to_bytes()
    with pytest.raises(ValueError, match="520"):
        HTTPStatus(520)


def test_body_that_ends_with_the_connection() -> None:
    read = reader()
    assert read.feed(response(line="HTTP/1.1 403 Forbidden") + b"no") is False
    assert read.feed(b"thing") is False
    with pytest.raises(WSInvalidStatusError) as caught:
        read.feed_eof()
    assert caught.value.raw_body == b"nothing"
    assert caught.value.response is not None
    assert caught.value.response.body == b"nothing"


def test_body_that_is_cut_off() -> None:
    read = reader()
    assert read.feed(response("Content-Length: 10", line="HTTP/1.1 403 Forbidden") + b"no") is False
    with pytest.raises(WSInvalidStatusError) as caught:
        read.feed_eof()
    assert caught.value.raw_body == b"no"


def test_body_over_the_largest_size() -> None:
    assert MAX_BODY_SIZE == 64 * 1024
    for headers in ((), ("Content-Length: 1000000",)):
        data = response(*headers, line="HTTP/1.1 500 x") + b"a" * (MAX_BODY_SIZE + 5)
        error = refused(data)
        assert isinstance(error, WSInvalidStatusError)
        assert error.raw_body == b"a" * MAX_BODY_SIZE
        read = reader()
        assert read.feed(data[:-6]) is False


def test_chunks_and_trailers_without_end() -> None:
    head = response("Transfer-Encoding: chunked", line="HTTP/1.1 500 x")
    for flood in (b"1;" + b"x" * MAX_BODY_SIZE, b"0\r\n" + b"a: b\r\n" * MAX_BODY_SIZE):
        assert isinstance(refused(head + flood), WSInvalidStatusError)


@pytest.mark.parametrize("chunk", [b"x\r\n", b"-1\r\n", b"1\r\nab\r\n", b"ffffffffffffffffff\r\n"])
def test_malformed_chunks(chunk: bytes) -> None:
    error = refused(response("Transfer-Encoding: chunked", line="HTTP/1.1 500 x") + chunk)
    assert isinstance(error, WSInvalidMessageError)
    assert error.response is not None
    assert error.response.status == 500
    assert error.raw_body == chunk


@pytest.mark.parametrize(
    "line",
    [
        "NOPE",
        "",
        "HTTP/1.0 101 Switching Protocols",
        "HTTP/2.0 101 Switching Protocols",
        "HTTP/1.2 101 Switching Protocols",
        "HTTP/0.9 200 OK",
        "HTTP/1.1",
        "HTTP/1.1 ",
        "HTTP/1.1 10",
        "HTTP/1.1 1011",
        "HTTP/1.1 099 x",
        "HTTP/1.1 abc",
        "HTTP/1.1  101 x",
        "HTTP/1.1 101x",
        "HTTP/1.1 101 a\x00b",
        "HTTP/1.1 101 a\x7fb",
        "HTTP/1.1\t101 x",
        "http/1.1 101 x",
        "ICY 200 OK",
        " HTTP/1.1 101 x",
        "\r\nHTTP/1.1 101 x",
        "GET / HTTP/1.1",
        "SSH-2.0-OpenSSH_9.6",
    ],
)
def test_malformed_status_lines(line: str) -> None:
    data = response(*HEADERS, line=line)
    error = refused(data)
    assert isinstance(error, WSInvalidMessageError)
    assert error.raw_header is not None
    assert data.startswith(error.raw_header)


@pytest.mark.parametrize(
    "header",
    [
        b"X: a\r\n b",
        b"X : a",
        b" X: a",
        b": a",
        b"X",
        b"X\x00: a",
        b"X: a\x00",
        b"X: a\rb",
        b"X: a\nY: b",
        b"\n",
        b"X\xe9: a",
    ],
)
def test_malformed_header_lines(header: bytes) -> None:
    data = response(*HEADERS)
    line, rest = data.split(b"\r\n", 1)
    assert isinstance(refused(line + b"\r\n" + header + b"\r\n" + rest), WSInvalidMessageError)
    assert isinstance(refused(data[:-2] + header + b"\r\n\r\n"), WSInvalidMessageError)


@pytest.mark.parametrize("end", [b"\n", b"\r"])
def test_every_line_ends_by_cr_lf(end: bytes) -> None:
    lines = response(*HEADERS).split(b"\r\n")[:-1]
    for bad in range(len(lines)):
        data = b"".join(line + (end if i == bad else b"\r\n") for i, line in enumerate(lines))
        assert isinstance(refused(data + b"\r\n\r\n"), WSInvalidMessageError), bad


def head_of(size: int) -> bytes:
    head = response(*HEADERS)
    return head[:-2] + b"X: " + b"a" * (size - len(head) - 5) + b"\r\n\r\n"


def test_largest_head() -> None:
    read = reader()
    assert read.feed(head_of(MAX_HEAD_SIZE) + b"rest")
    assert read.rest == b"rest"
    assert isinstance(refused(head_of(MAX_HEAD_SIZE + 1)), WSInvalidMessageError)


def test_head_without_an_end_is_refused_once_it_is_too_large() -> None:
    read = reader()
    data = head_of(2 * MAX_HEAD_SIZE)
    assert read.feed(data[: MAX_HEAD_SIZE - 1]) is False
    assert isinstance(refused(data[MAX_HEAD_SIZE - 1 : MAX_HEAD_SIZE], read), WSInvalidMessageError)


def test_most_headers() -> None:
    fill = tuple(f"X{i}: y" for i in range(MAX_HEADERS - len(HEADERS)))
    assert reader().feed(response(*HEADERS, *fill))
    assert isinstance(refused(response(*HEADERS, *fill, "Y: z")), WSInvalidMessageError)


@pytest.mark.parametrize(
    "data", [b"", b"HTT", b"HTTP/1.1 101 x\r\nA: b\r\n", response(line="HTTP/1.1 100 x")]
)
def test_connection_that_ends_before_the_response(data: bytes) -> None:
    read = reader()
    assert read.feed(data) is False
    with pytest.raises(WSInvalidMessageError, match="closed") as caught:
        read.feed_eof()
    assert caught.value.raw_header == (b"" if b"100" in data else data)
    assert caught.value.response is None


def test_not_http_is_found_at_its_first_byte() -> None:
    assert isinstance(refused(b"\x15"), WSInvalidMessageError)  # a TLS alert


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (
            b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 8\r\n\r\n",
            426,
        ),
        (b"POST / HTTP/1.1\r\n\r\n", 405),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
    ],
)
def test_client_reads_what_the_server_refuses(request_: bytes, status: int) -> None:
    with pytest.raises(WSHandshakeError) as caught:
        RequestReader().feed(request_)
    assert caught.value.response is not None
    error = refused(caught.value.response.to_bytes())
    assert isinstance(error, WSInvalidStatusError)
    assert error.response is not None
    assert error.response.status == status
    assert error.response.body == caught.value.response.body
    assert error.response.headers == caught.value.response.headers


def test_client_reads_what_the_server_answers() -> None:
    read = RequestReader()
    read.feed(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    error = refused(answer(read, None)[1])
    assert error.response is not None
    assert error.response.body == b"404 Not Found"
