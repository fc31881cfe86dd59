"""What a server accepts as a request, what it refuses, how and when (RFC 6455 section 4.2.1)."""

from __future__ import annotations

import pytest

from picows.errors import (
    WSHandshakeError,
    WSInvalidHeaderError,
    WSInvalidMessageError,
    WSInvalidUpgradeError,
)
from picows.upgrade import MAX_HEAD_SIZE, MAX_HEADERS, MAX_TARGET_SIZE, RequestReader

KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # of that key, RFC 6455 section 1.3
UPGRADE = "Upgrade: websocket"
CONNECTION = "Connection: Upgrade"
VERSION = "Sec-WebSocket-Version: 13"
HOST = "Host: server.example.com"
HEADERS = (HOST, UPGRADE, CONNECTION, KEY, VERSION)


def request(*headers: str, line: str = "GET /chat HTTP/1.1") -> bytes:
    return "".join(f"{text}\r\n" for text in (line, *headers, "")).encode("latin-1")


def replaced(old: str, *new: str) -> bytes:
    """The typical request with one header replaced by none or several."""
    at = HEADERS.index(old)
    return request(*HEADERS[:at], *new, *HEADERS[at + 1 :])


def read(data: bytes) -> RequestReader:
    reader = RequestReader()
    assert reader.feed(data)
    return reader


def refused(data: bytes) -> WSHandshakeError:
    reader = RequestReader()
    with pytest.raises(WSHandshakeError) as caught:
        reader.feed(data)
    assert reader.feed(request(*HEADERS)) is False  # what comes behind it is not looked at
    response = caught.value.response
    assert response is not None
    assert "close" in response.headers["Connection"]
    assert response.headers["Content-Length"] == str(len(response.body or b""))
    assert response.to_bytes().endswith(b"\r\n\r\n" + (response.body or b""))
    return caught.value


def status(data: bytes) -> int:
    response = refused(data).response
    assert response is not None
    return response.status


def test_request_is_read() -> None:
    reader = read(request(*HEADERS, "Origin: http://example.com", "X: 1", "x: 2"))
    assert reader.accept == ACCEPT
    assert reader.rest == b""
    assert reader.request.method == b"GET"
    assert reader.request.path == b"/chat"
    assert reader.request.version == b"HTTP/1.1"
    assert reader.request.headers["sec-websocket-version"] == "13"
    assert reader.request.headers["ORIGIN"] == "http://example.com"
    assert reader.request.headers.getall("X") == ["1", "2"]
    assert len(reader.request.headers) == 8


def test_bytes_behind_the_head_are_kept() -> None:
    reader = read(request(*HEADERS) + b"\x81\x00\r\n\r\n")
    assert reader.rest == b"\x81\x00\r\n\r\n"
    assert reader.feed(b"more")
    assert reader.rest == b"\x81\x00\r\n\r\nmore"


def test_far_more_bytes_behind_the_head_than_a_head_may_have() -> None:
    frames = b"\x82" * (4 * MAX_HEAD_SIZE)
    assert read(request(*HEADERS) + frames).rest == frames


@pytest.mark.parametrize(
    "headers",
    [
        ("Connection: keep-alive, Upgrade",),  # Firefox
        ("connection: UPGRADE",),
        ("Connection: keep-alive", "Connection: upgrade"),
        ("Connection: close,upgrade\t, ,x",),
    ],
)
def test_connection_is_a_list_of_tokens(headers: tuple[str, ...]) -> None:
    assert read(replaced(CONNECTION, *headers)).accept == ACCEPT


@pytest.mark.parametrize(
    "headers",
    [
        ("UPGRADE: WebSocket",),
        ("Upgrade: h2c, websocket",),
        ("Upgrade: h2c", "Upgrade: ,websocket"),
    ],
)
def test_upgrade_is_a_list_of_tokens(headers: tuple[str, ...]) -> None:
    assert read(replaced(UPGRADE, *headers)).accept == ACCEPT


@pytest.mark.parametrize(
    "data",
    [
        request(HOST),
        request(HOST, CONNECTION, KEY, VERSION),
        replaced(UPGRADE, "Upgrade: h2c"),
        replaced(UPGRADE, "Upgrade: websocket2"),
        replaced(UPGRADE, "Upgrade: websocket/13"),
        request(
            HOST,
            "Upgrade: h2c",
            "HTTP2-Settings: AAMAAABkAAQAAP__",
            "Connection: Upgrade, HTTP2-Settings",
        ),
        request(HOST, "Content-Length: 0"),
    ],
)
def test_request_without_websocket_upgrade_is_a_plain_get(data: bytes) -> None:
    assert read(data).accept is None


@pytest.mark.parametrize(
    ("headers", "value"),
    [
        (("Connection: keep-alive",), "keep-alive"),
        (("Connection: xupgrade",), "xupgrade"),
        (("Connection: a", "Connection: b"), "a, b"),
        (("Connection:",), ""),
        (("Keep: Upgrade",), None),
    ],
)
def test_upgrade_without_its_connection_option(headers: tuple[str, ...], value: str | None) -> None:
    error = refused(replaced(CONNECTION, *headers))
    assert isinstance(error, WSInvalidUpgradeError)
    assert (error.name, error.value) == ("Connection", value)
    assert error.response is not None
    assert error.response.status == 400


@pytest.mark.parametrize("version", ["8", "0", "14", "130", "1 3", "13, 8", "+13", "013", ""])
def test_other_websocket_versions(version: str) -> None:
    error = refused(replaced(VERSION, f"Sec-WebSocket-Version: {version}"))
    assert isinstance(error, WSInvalidHeaderError)
    assert (error.name, error.value) == ("Sec-WebSocket-Version", version)
    assert error.response is not None
    assert error.response.status == 426
    assert error.response.headers["Sec-WebSocket-Version"] == "13"
    assert error.response.headers["Upgrade"] == "websocket"  # RFC 9110 section 15.5.22
    assert error.response.headers["Connection"] == "Upgrade, close"


def test_old_version_is_told_ours_before_its_key_is_looked_at() -> None:
    assert status(request(HOST, UPGRADE, CONNECTION, "Sec-WebSocket-Version: 0")) == 426


@pytest.mark.parametrize("headers", [(), (VERSION, VERSION)])
def test_there_is_one_version(headers: tuple[str, ...]) -> None:
    assert status(replaced(VERSION, *headers)) == 400


@pytest.mark.parametrize(
    "headers",
    [
        (),
        (KEY, KEY),
        ("Sec-WebSocket-Key:",),
        ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ",),
        ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ= =",),
        ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j",),  # 15 bytes
        ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZWU=",),  # 17 bytes
        ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j_Q==",),
        ("Sec-WebSocket-Key: \xb2GhlIHNhbXBsZSBub25jZQ==",),
    ],
)
def test_there_is_one_key_of_16_bytes(headers: tuple[str, ...]) -> None:
    error = refused(replaced(KEY, *headers))
    assert isinstance(error, WSInvalidHeaderError)
    assert error.name == "Sec-WebSocket-Key"
    assert (error.value is None) == (not headers)
    assert error.response is not None
    assert error.response.status == 400
    assert "one Sec-WebSocket-Key" in str(error)


@pytest.mark.parametrize(
    "value", ["h", "h:80", "h:", "[::1]:9001", "127.0.0.1", "a_b.c", "a%20b", ""]
)
def test_host(value: str) -> None:
    assert read(replaced(HOST, f"Host: {value}")).accept == ACCEPT


@pytest.mark.parametrize(
    "headers",
    [
        (),
        (HOST, HOST),
        (HOST, "Host: other"),
        ("Host: a b",),
        ("Host: h/",),
        ("Host: user@h",),
        ("Host: h:80:80",),
        ("Host: h:x",),
        ("Host: ::1",),
        ("Host: [::1",),
        ("Host: h\xe9",),
        ("Host: http://h",),
    ],
)
@pytest.mark.parametrize("others", [HEADERS[1:], ()])
def test_there_is_one_valid_host(headers: tuple[str, ...], others: tuple[str, ...]) -> None:
    error = refused(request(*headers, *others))
    assert isinstance(error, WSInvalidHeaderError)
    assert error.name == "Host"
    assert error.response is not None
    assert error.response.status == 400


@pytest.mark.parametrize(
    "headers",
    [
        ("Content-Length: 5",),
        ("Content-Length: 00",),
        ("Content-Length: -1",),
        ("Content-Length: 0, 0",),
        ("Content-Length: 0", "Content-Length: 0"),
        ("Content-Length: 0", "Content-Length: 5"),
        ("Content-Length: 99999999999999999999999",),
        ("Content-Length:",),
        ("Transfer-Encoding: chunked",),
        ("Transfer-Encoding: identity",),
        ("Transfer-Encoding: xchunked",),
        ("Transfer-Encoding:",),
        ("Transfer-Encoding: chunked", "Content-Length: 5"),
        ("Content-Length: 0", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding : chunked",),
    ],
)
@pytest.mark.parametrize("others", [HEADERS, (HOST,)])
def test_request_with_a_body(headers: tuple[str, ...], others: tuple[str, ...]) -> None:
    assert status(request(*others, *headers)) == 400
    assert status(request(*headers, *others)) == 400


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("POST / HTTP/1.1", 405),
        ("CONNECT h:80 HTTP/1.1", 405),
        ("OPTIONS ** HTTP/1.1", 400),
        ("OPTIONS server.example.com:80 HTTP/1.1", 400),
        ("TRACE / HTTP/1.1", 405),
        ("DELETE / HTTP/1.0", 405),
        ("PRI * HTTP/2.0", 405),
        ("BREW /pot HTTP/1.1", 405),
        ("get / HTTP/1.1", 405),
        ("GETT / HTTP/1.1", 405),
        ("GET / HTTP/1.2", 505),
        ("OPTIONS / HTTP/2.0", 505),
        ("GET / HTTP/2.0", 505),
        ("GET / HTTP/0.9", 505),
        ("GET / HTTP/11.1", 400),
        ("GET / HTTP/1.10", 400),
        ("GET / http/1.1", 400),
        ("GET / HTTP/1,1", 400),
        ("GET / ICE/1.1", 400),
        ("GET /", 400),
        ("GET / ", 400),
        ("GET", 400),
        ("", 400),
        ("GET  / HTTP/1.1", 400),
        ("GET /  HTTP/1.1", 400),
        ("GET / HTTP/1.1 ", 400),
        ("GET / HTTP/1.1\t", 400),
        (" GET / HTTP/1.1", 400),
        ("GET\t/\tHTTP/1.1", 400),
        ("GET /a b HTTP/1.1", 400),
        ("GET /a\tb HTTP/1.1", 400),
        ("GET /\xe9 HTTP/1.1", 400),
        ("GET /\x00 HTTP/1.1", 400),
        ("GET /\x7f HTTP/1.1", 400),
        ("GET /#fragment HTTP/1.1", 400),
        ("GET chat HTTP/1.1", 400),
        ("GET * HTTP/1.1", 400),
        ("GET server.example.com:80 HTTP/1.1", 400),
        ("G@T / HTTP/1.1", 400),
        ("\x16\x03\x01", 400),
    ],
)
def test_request_lines_that_are_refused(line: str, code: int) -> None:
    error = refused(request(*HEADERS, line=line))
    assert isinstance(error, WSInvalidMessageError)
    assert error.response is not None
    assert error.response.status == code
    assert (error.response.headers.get("Allow") == "GET, HEAD, OPTIONS") == (code == 405)


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/a?b=%20&c",
        "/?",
        "//x",
        "/{a}|'~\"",
        "http://server.example.com/chat?x",
        "ws://h",
        "/" + "a" * 7999,
    ],
)
def test_targets_as_they_come(target: str) -> None:
    assert read(request(*HEADERS, line=f"GET {target} HTTP/1.1")).request.path == target.encode()


def test_one_empty_line_before_the_request_is_forgiven() -> None:
    """RFC 9112 section 2.2."""
    reader = read(b"\r\n" + request(*HEADERS, line="GET /x HTTP/1.1"))
    assert reader.accept == ACCEPT
    assert reader.request.path == b"/x"


@pytest.mark.parametrize("start", [b"\r\n\r\n", b"\n", b"\r", b" \r\n", b"\r\n\n", b"\r\n\r\n\r\n"])
def test_anything_else_before_the_request_is_not(start: bytes) -> None:
    assert status(start + request(*HEADERS)) == 400


@pytest.mark.parametrize(
    "header",
    [
        b"X: a\r\n b",  # folded
        b"X: a\r\n\tb",
        b"X:\r\n a",
        b"X : a",
        b"X\t: a",
        b" X: a",
        b"\tX: a",
        b": a",
        b"X",
        b"X a",
        b"X(: a",
        b"X\xe9: a",
        b"X\x00: a",
        b"X: a\x00b",
        b"X: a\x01",
        b"X: \x1b[2J",
        b"X: \x7f",
        b"X: a\rb",
        b"X: a\r",
        b"X: a\nY: b",
        b"X: a\n",
        b"X: a\n\nGET / HTTP/1.1",
        b"X: a\r\r",
        b"\n",
        b"\r",
        b"\x00",
    ],
)
@pytest.mark.parametrize("others", [HEADERS, (HOST,)])
def test_malformed_header_lines(header: bytes, others: tuple[str, ...]) -> None:
    typical = request(*others)
    line, rest = typical.split(b"\r\n", 1)
    assert status(line + b"\r\n" + header + b"\r\n" + rest) == 400  # the first header
    assert status(typical[:-2] + header + b"\r\n\r\n") == 400  # the last one


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\n\r"])
def test_every_line_ends_by_cr_lf(end: bytes) -> None:
    lines = request(*HEADERS).split(b"\r\n")
    for bad in range(len(lines) - 1):
        data = b"".join(line + (end if i == bad else b"\r\n") for i, line in enumerate(lines[:-1]))
        reader = RequestReader()
        try:
            assert not reader.feed(data + b"\r\n\r\n")
        except WSHandshakeError as exc:
            assert exc.response is not None
            assert exc.response.status == 400
        else:
            pytest.fail(f"line {bad} may end by {end!r}")


def test_values_are_utf8_and_nothing_is_lost_of_what_is_not() -> None:
    headers = read(
        request(*HEADERS)[:-2] + "A: é \r\n".encode() + b"B:\xff\t\r\nC:\r\n\r\n"
    ).request.headers
    assert headers["A"] == "é"
    assert headers["B"].encode("utf-8", "surrogateescape") == b"\xff"
    assert headers["C"] == ""


def test_limits() -> None:
    assert (MAX_HEAD_SIZE, MAX_HEADERS, MAX_TARGET_SIZE) == (16 * 1024, 128, 8000)


def head_of(size: int) -> bytes:
    head = request(*HEADERS)
    return head[:-2] + b"X: " + b"a" * (size - len(head) - 5) + b"\r\n\r\n"


def test_head_of_the_largest_size() -> None:
    reader = read(head_of(MAX_HEAD_SIZE) + b"rest")
    assert reader.accept == ACCEPT
    assert reader.rest == b"rest"


def test_head_over_the_largest_size() -> None:
    assert status(head_of(MAX_HEAD_SIZE + 1)) == 431


def test_head_without_an_end_is_refused_once_it_is_too_large() -> None:
    reader = RequestReader()
    data = head_of(2 * MAX_HEAD_SIZE)
    assert not reader.feed(data[: MAX_HEAD_SIZE - 1])
    with pytest.raises(WSInvalidMessageError) as caught:
        reader.feed(data[MAX_HEAD_SIZE - 1 : MAX_HEAD_SIZE])
    assert caught.value.response is not None
    assert caught.value.response.status == 431


@pytest.mark.parametrize("data", [b"G" * MAX_HEAD_SIZE, b"GET / " + b"H" * MAX_HEAD_SIZE])
def test_request_line_without_an_end(data: bytes) -> None:
    assert status(data) == 431
    assert RequestReader().feed(data[: MAX_HEAD_SIZE - 1]) is False


def test_most_headers() -> None:
    fill = tuple(f"X{i}: y" for i in range(MAX_HEADERS - len(HEADERS)))
    assert read(request(*HEADERS, *fill)).accept == ACCEPT
    assert status(request(*HEADERS, *fill, "Y: z")) == 431
    assert status(request(*HEADERS, *fill, "Y: z", "Z: z")[:-2]) == 431  # before the end


def test_target_over_the_largest_size() -> None:
    long = "/" + "a" * MAX_TARGET_SIZE
    assert status(request(*HEADERS, line=f"GET {long} HTTP/1.1")) == 414
    assert status(f"GET {long}".encode()) == 414  # before the end


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x16\x03\x01\x02", 400),  # TLS
        (b"\x81", 400),
        (b"POST ", 405),
        (b"GET # ", 400),
        (b"GET / HTTP/0.9\r\n", 505),
        (b"GET / HTTP/1.1\r\nA B", 400),
        (b"GET / HTTP/1.1\r\nA: \x00", 400),
        (b"GET / HTTP/1.1\r\nA: b\nc", 400),
    ],
)
def test_faults_are_found_before_the_end_of_the_head(data: bytes, code: int) -> None:
    assert status(data) == code


def test_error_says_what_was_received() -> None:
    error = refused(replaced(KEY, "Sec-WebSocket-Key: mine") + b"\x81\x00")
    assert error.raw_header == replaced(KEY, "Sec-WebSocket-Key: mine")[:-4]
    assert error.raw_body == b"\x81\x00"
    assert "'mine'" in str(error)
    assert "16 bytes in base64" in str(error)
    assert b"mine" not in (
        error.response.body if error.response and error.response.body else b"mine"
    )

    error = refused(b"GET /a b HTTP/1.1\r\n")
    assert error.raw_header == b"GET /a b HTTP/1.1\r\n"
    assert "/a b" in str(error)


def test_request_that_never_comes() -> None:
    reader = RequestReader()
    assert reader.feed(b"") is False
    assert reader.feed(b"GET / HTTP/1.1\r\nHo") is False
    assert not hasattr(reader, "request")
    assert reader.rest == b""
