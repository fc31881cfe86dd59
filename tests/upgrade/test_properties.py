"""However the bytes are cut, and whatever they are, a handshake ends in the same documented way."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from picows.errors import WSHandshakeError
from picows.upgrade import (
    RequestReader,
    ResponseReader,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
    answer,
    create_request,
)
from picows.url import parse_url

properties = settings(max_examples=150, deadline=None)

REQUEST = (
    b"GET /chat?a=b HTTP/1.1\r\nHost: server.example.com\r\nConnection: keep-alive, Upgrade\r\n"
    b"Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Version: 13\r\n"
    b"Empty:\r\n\r\n"
)
RESPONSE = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nEmpty:\r\n\r\n"
)
NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"

REQUESTS = [
    REQUEST,
    REQUEST + b"\x81\x80abcd",
    b"\r\n" + REQUEST,
    REQUEST.replace(b"Upgrade: websocket\r\n", b""),
    REQUEST.replace(b": 13", b": 8"),
    REQUEST.replace(b"Empty:", b"Content-Length: 3"),
    REQUEST.replace(b"Empty:", b"Empty:\r\n folded"),
    REQUEST.replace(b"Empty:", b"Empty:\n"),
    REQUEST.replace(b"GET", b"POST"),
    REQUEST.replace(b"/1.1", b"/1.0"),
    REQUEST.replace(b"/1.1", b"/1.0x"),
    REQUEST.replace(b"/chat", b"/#chat"),
    REQUEST.replace(b"/chat", b"/ chat"),
    REQUEST.replace(b"/chat", b"/\rchat"),
]
RESPONSES = [
    RESPONSE,
    RESPONSE + b"\x81\x00",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nA: b\r\n\r\n" + RESPONSE + b"\x81",
    RESPONSE.replace(b"s3p", b"S3p"),
    RESPONSE.replace(b"Upgrade", b"Other"),
    RESPONSE.replace(b"Empty:", b"Transfer-Encoding: chunked"),
    RESPONSE.replace(b"Empty:", b"Empty"),
    RESPONSE.replace(b"/1.1", b"/1.0"),
    NOT_FOUND,
    CHUNKED,
    CHUNKED.replace(b"3\r\n", b"4\r\n"),
    NOT_FOUND.replace(b"Content-Length: 5\r\n", b""),
]


def client() -> ResponseReader:
    request = WSUpgradeRequest()
    request.headers["Sec-WebSocket-Key"] = "dGhlIHNhbXBsZSBub25jZQ=="
    return ResponseReader(request)


def fault(error: WSHandshakeError) -> object:
    response = error.response
    return type(error), response and (
        response.status,
        list(response.headers.items()),
        response.body,
    )


def served(pieces: Iterable[bytes]) -> object:
    """How a request ends. The bytes behind it are counted, to see that none is lost."""
    reader = RequestReader()
    complete = False
    try:
        for piece in pieces:
            complete = reader.feed(piece)
    except WSHandshakeError as exc:
        assert exc.response is not None
        assert exc.response.status >= 400
        assert exc.response.to_bytes()
        return fault(exc)
    if not complete:
        return "incomplete"
    return reader.accept, reader.rest, reader.request.path, list(reader.request.headers.items())


def connected(pieces: Iterable[bytes]) -> object:
    reader = client()
    complete = False
    try:
        for piece in pieces:
            complete = reader.feed(piece)
        if not complete:
            reader.feed_eof()
    except WSHandshakeError as exc:
        return fault(exc)
    assert reader.response is not None
    return reader.rest, reader.response.status, list(reader.response.headers.items())


def single(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


@pytest.mark.parametrize("data", REQUESTS)
def test_request_cut_anywhere(data: bytes) -> None:
    whole = served([data])
    assert whole != "incomplete"
    assert served(single(data)) == whole
    for cut in range(len(data) + 1):
        assert served([data[:cut], data[cut:]]) == whole, data[:cut]


@pytest.mark.parametrize("data", RESPONSES)
def test_response_cut_anywhere(data: bytes) -> None:
    whole = connected([data])
    assert connected(single(data)) == whole
    for cut in range(len(data) + 1):
        assert connected([data[:cut], data[cut:]]) == whole, data[:cut]


@pytest.mark.parametrize("data", REQUESTS)
def test_no_request_is_complete_before_its_end(data: bytes) -> None:
    head = data.index(b"\r\n\r\n") + 4
    for cut in range(head):
        outcome = served([data[:cut]])
        assert outcome == "incomplete" or outcome == served([data])


def mutated(seeds: list[bytes]) -> st.SearchStrategy[bytes]:
    """A handshake with some bytes replaced, mostly by others that mean something in HTTP."""
    pieces = st.one_of(
        st.sampled_from(
            [
                b"",
                b"\r",
                b"\n",
                b"\r\n",
                b"\r\n\r\n",
                b" ",
                b"\t",
                b":",
                b",",
                b"\0",
                b"\xff",
                b"0",
                b"%",
            ]
        ),
        st.sampled_from(
            [
                b"Host: x\r\n",
                b"Content-Length: 1\r\n",
                b"Transfer-Encoding: chunked\r\n",
                b"Upgrade: h2c\r\n",
            ]
        ),
        st.binary(max_size=4),
    )
    edit = st.tuples(st.integers(0, 400), st.integers(0, 3), pieces)

    def apply(seed: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
        for at, removed, added in edits:
            at %= len(seed) + 1
            seed = seed[:at] + added + seed[at + removed :]
        return seed

    return st.builds(apply, st.sampled_from(seeds), st.lists(edit, min_size=1, max_size=4))


@properties
@given(st.one_of(st.binary(), mutated(REQUESTS)))
@example(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
def test_any_request_is_read_or_refused(data: bytes) -> None:
    assert served([data]) == served(single(data))


@properties
@given(st.one_of(st.binary(), mutated(RESPONSES)))
@example(b"HTTP/1.1 101 x\r\n\r\n")
def test_any_response_is_read_or_refused(data: bytes) -> None:
    assert connected([data]) == connected(single(data))


header_names = st.text("ABCxyz019-_.!#", min_size=1, max_size=8).map("X-".__add__)
header_values = st.text(
    st.characters(exclude_characters="\x7f", min_codepoint=32, exclude_categories=["Cs"]),
    max_size=20,
)
header_lists = st.lists(
    st.tuples(header_names, header_values.map(lambda text: text.strip(" \t"))), max_size=5
)


@properties
@given(header_lists, header_lists, st.binary(max_size=8))
def test_both_sides_understand_each_other(
    asked: list[tuple[str, str]], told: list[tuple[str, str]], rest: bytes
) -> None:
    request = create_request(parse_url("ws://h:9001/a?b"), asked)
    server = RequestReader()
    assert server.feed(request.to_bytes() + rest)
    assert server.rest == rest
    assert list(server.request.headers.items()) == list(request.headers.items())

    listener = object()
    result = WSUpgradeResponseWithListener(WSUpgradeResponse.create_101_response(told), listener)
    response, _, accepted = answer(server, result)
    assert accepted is listener
    reader = ResponseReader(request)
    assert reader.feed(response.to_bytes() + rest)
    assert reader.rest == rest
    assert reader.response is not None
    assert list(reader.response.headers.items()) == list(response.headers.items())


@properties
@given(st.text(max_size=20), st.text(max_size=20))
def test_any_header_is_sent_as_given_or_refused(name: str, value: str) -> None:
    try:
        data = create_request(parse_url("ws://h"), [(name, value)]).to_bytes()
    except ValueError:
        return
    lines = data.split(b"\r\n")
    assert f"{name}: {value}".encode() in lines
    assert len(lines) <= 9
    assert data.count(b"\n") == data.count(b"\r") == len(lines) - 1
