"""Random bytes for both sides of the HTTP upgrade, and random text for URLs and headers.

Only documented errors escape, and no verdict depends on how the bytes were cut.

    python fuzz/fuzz_upgrade.py --seconds 30 [--seed 7]

Valid handshakes are damaged at random, from a seed that is printed and can be given again. A
failure prints the input that caused it.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

from damage import run

from picows.errors import WSHandshakeError, WSInvalidMessageError, WSInvalidURL
from picows.upgrade import (
    MAX_HEAD_SIZE,
    MAX_HEADERS,
    RequestReader,
    ResponseReader,
    WSUpgradeRequest,
    WSUpgradeResponse,
    answer,
    create_request,
)
from picows.url import parse_proxy_url, parse_url

OPTIONS = 2  # bytes of an input that choose what it is and how it is cut
SERVER, CLIENT, TEXT = range(3)

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
REQUEST = (
    b"GET /chat?a=b HTTP/1.1\r\nHost: example.com:9001\r\nConnection: keep-alive, Upgrade\r\n"
    b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "
    + KEY.encode()
    + b"\r\n\r\n"
)
RESPONSE = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\n"
    b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=15\r\n\r\n"
)
SEEDS = [
    (SERVER, REQUEST),
    (SERVER, REQUEST + b"\x81\x80abcd"),
    (SERVER, b"GET http://h/ HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n"),
    (SERVER, REQUEST[:-2] + b"X: y\r\n" * (MAX_HEADERS - 6) + b"\r\n"),
    (SERVER, REQUEST[:-2] + b"X: " + b"y" * (MAX_HEAD_SIZE - len(REQUEST) - 5) + b"\r\n\r\n"),
    (CLIENT, RESPONSE),
    (
        CLIENT,
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nA: b\r\n\r\n" + RESPONSE + b"\x81\x00",
    ),
    (CLIENT, b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nhello"),
    (CLIENT, b"HTTP/1.0 302 Found\r\nLocation: /x\r\n\r\nuntil the end"),
    (
        CLIENT,
        b"HTTP/1.1 520\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n1;x\r\ny\r\n0\r\nA:\r\n\r\n",
    ),
    (TEXT, "wss://us%20er:p%40ss@bücher.example:8443/a%20b/ä?d=e#f".encode()),
    (TEXT, b"ws://[fe80::1%25eth0]:80?x"),
    (TEXT, "Sec-WebSocket-Protocol: é".encode()),
]
PARTS = [
    *(
        b"\r",
        b"\n",
        b"\r\n",
        b"\r\n\r\n",
        b"\n\n",
        b" ",
        b"\t",
        b":",
        b",",
        b";",
        b"/",
        b"\\",
        b"#",
        b"%",
        b"@",
        b"[",
        b"]",
    ),
    *(
        b"\0",
        b"\x7f",
        b"\x80",
        b"\xff",
        b"0",
        b"-1",
        b"13",
        b"101",
        b"204",
        b"HTTP/1.0",
        b"HTTP/1.1",
        b"GET ",
        b"POST ",
    ),
    *(
        b"Host: h\r\n",
        b"Content-Length: 0\r\n",
        b"Content-Length: 3\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Upgrade: h2c\r\n",
    ),
    *(
        b"Connection: close\r\n",
        b"X: a\r\n b\r\n",
        b"X : a\r\n",
        b"Expect: 100-continue\r\n",
        b"x" * 300,
        b"A: b\r\n" * 130,
    ),
]


def cut(wire: bytes, seed: int) -> list[bytes]:
    """Single bytes for seed 0, otherwise pieces of many sizes."""
    chance = random.Random(seed)
    pieces = []
    while wire:
        size = chance.choice([1, 2, 3, 5, 40, 1000]) if seed else 1
        pieces.append(wire[:size])
        wire = wire[size:]
    return pieces


def fault(error: WSHandshakeError, wire: bytes) -> tuple[object, ...]:
    # Which is found first, the line that is one too many or a fault in the line behind it, may
    # depend on the cuts.
    if wire.count(b"\r\n") > MAX_HEADERS:
        return (WSHandshakeError,)
    response = error.response
    return type(error), response and (response.status, response.body)


def check_headers(headers: Iterable[tuple[str, str]], wire: bytes) -> None:
    for name, value in headers:
        assert name.isascii()
        assert not set(value) & set("\0\r\n")
        assert name.encode() in wire
        assert value.encode("utf-8", "surrogateescape") in wire


def serve(pieces: list[bytes]) -> tuple[object, ...]:
    wire = b"".join(pieces)
    reader = RequestReader()
    complete = False
    try:
        for piece in pieces:
            complete = reader.feed(piece)
    except WSHandshakeError as exc:
        assert exc.response is not None
        assert exc.response.status >= 400
        assert exc.response.headers["Connection"].endswith("close")
        assert len(exc.raw_header or b"") <= MAX_HEAD_SIZE
        client = ResponseReader(create_request(parse_url("ws://h")))
        try:
            client.feed(exc.response.to_bytes())
        except WSHandshakeError as refusal:
            assert refusal.response is not None
            assert refusal.response.body == exc.response.body
        return fault(exc, wire)
    if not complete:
        assert len(wire) < MAX_HEAD_SIZE
        return ()
    assert wire.endswith(reader.rest)
    head = wire[: len(wire) - len(reader.rest)]
    assert head.endswith(b"\r\n\r\n")
    assert head.count(b"\r\n") == head.count(b"\r") == head.count(b"\n")
    headers = list(reader.request.headers.items())
    assert len(headers) <= MAX_HEADERS
    check_headers(headers, head)
    response, _, listener = answer(reader, serve)
    assert (listener is serve) == (response.status == 101) == (reader.accept is not None)
    return reader.accept, reader.rest, reader.request.path, headers


def connect(pieces: list[bytes]) -> tuple[object, ...]:
    wire = b"".join(pieces)
    request = WSUpgradeRequest()
    request.headers["Sec-WebSocket-Key"] = KEY
    request.headers["Sec-WebSocket-Protocol"] = "chat, superchat"
    request.headers["Sec-WebSocket-Extensions"] = "permessage-deflate"
    reader = ResponseReader(request)
    complete = False
    try:
        for piece in pieces:
            complete = reader.feed(piece)
        if not complete:
            reader.feed_eof()
    except WSHandshakeError as exc:
        assert (exc.response is not None) or isinstance(exc, WSInvalidMessageError)
        return fault(exc, wire)
    assert reader.response is not None
    assert reader.response.status == 101
    assert wire.endswith(reader.rest)
    headers = list(reader.response.headers.items())
    check_headers(headers, wire)
    return reader.rest, headers


def check_text(text: str) -> None:
    for parse in (parse_url, parse_proxy_url):
        try:
            url = parse(text)
        except WSInvalidURL:
            continue
        line = create_request(url).to_bytes().split(b"\r\n", 1)[0]
        assert line.startswith(b"GET /")
        assert line.count(b" ") == 2
    name, _, value = text.partition(": ")
    try:
        sent = create_request(parse_url("ws://h"), {name: value}).to_bytes()
    except ValueError:
        pass
    else:
        assert sent.count(b"\r\n") == sent.count(b"\r") == sent.count(b"\n") <= 8
    try:
        WSUpgradeResponse.create_redirect_response(302, text, {name: value})
    except ValueError:
        pass
    else:
        assert not set(text + value) & set("\0\r\n")


def check(data: bytes) -> None:
    """The test itself, for one input."""
    if len(data) < OPTIONS:
        return
    kind = data[0] % 3
    wire = data[OPTIONS:]
    if kind == TEXT:
        check_text(wire.decode("utf-8", "surrogateescape"))
    else:
        read = serve if kind == SERVER else connect
        whole = read([wire])
        in_pieces = read(cut(wire, data[1]))
        assert whole == in_pieces, (whole, in_pieces)


def random_input(chance: random.Random) -> bytes:
    kind, seed = chance.choice(SEEDS)
    data = bytearray(seed)
    for _ in range(chance.choice([0, 1, 1, 2, 3, 8])):
        at = chance.randrange(len(data) + 1)
        removed = chance.choice([0, 0, 1, 1, 2, 10])
        added = chance.choice([b"", chance.choice(PARTS), chance.randbytes(chance.choice([1, 2]))])
        data[at : at + removed] = added
    return bytes([kind, chance.choice([0, 0, chance.randrange(256)])]) + bytes(data)


if __name__ == "__main__":
    run(__doc__, random_input, check)
