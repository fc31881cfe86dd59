"""Requests that ask for no upgrade, as health checks do: which of them reach the listener factory, and how they are answered."""

from __future__ import annotations

from typing import Any

import pytest

from picows import WSUpgradeRequest, WSUpgradeResponse, WSUpgradeResponseWithListener
from picows.errors import WSHandshakeError
from picows.upgrade import RequestReader, answer

UPGRADE = (
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
HOST = b"Host: a\r\n"
LISTENER = object()
FINE = WSUpgradeResponseWithListener(WSUpgradeResponse.create_ok_response(b"fine"), None)


def read(data: bytes) -> RequestReader:
    """The same whether it comes at once or byte by byte."""
    slowly, reader = RequestReader(), RequestReader()
    for at in range(len(data)):
        assert slowly.feed(data[at : at + 1]) is (at == len(data) - 1)
    assert reader.feed(data)
    assert (slowly.request.path, slowly.accept) == (reader.request.path, reader.accept)
    return reader


def refused(data: bytes) -> WSUpgradeResponse:
    with pytest.raises(WSHandshakeError) as caught:
        RequestReader().feed(data)
    assert caught.value.response is not None
    return caught.value.response


def answered(data: bytes, result: Any) -> tuple[bytes, dict[str, str], bytes]:
    response, wire, listener = answer(read(data), result)
    assert listener is None
    assert response.to_bytes() == wire
    head, _, body = wire.partition(b"\r\n\r\n")
    line, *fields = head.decode().split("\r\n")
    return line.encode(), dict(field.split(": ") for field in fields), body


@pytest.mark.parametrize("line", [b"GET /x HTTP/1.0", b"HEAD /x HTTP/1.0", b"OPTIONS /x HTTP/1.0", b"OPTIONS * HTTP/1.0"])
@pytest.mark.parametrize("headers", [b"", HOST, HOST + b"Connection: close\r\n", b"Content-Length: 0\r\n"])
def test_http_1_0_needs_no_host(line: bytes, headers: bytes) -> None:
    reader = read(line + b"\r\n" + headers + b"\r\n")
    request: WSUpgradeRequest = reader.request
    assert (request.method, request.path, request.version) == tuple(line.split())
    assert request.headers.get("Host") == ("a" if HOST in headers else None)
    assert reader.accept is None


@pytest.mark.parametrize("line", [b"HEAD /x HTTP/1.1", b"OPTIONS /x HTTP/1.1", b"OPTIONS * HTTP/1.1", b"HEAD http://a/x HTTP/1.1"])
def test_http_1_1(line: bytes) -> None:
    reader = read(line + b"\r\n" + HOST + b"\r\nrest"[:2])
    assert (reader.request.method, reader.request.path, reader.request.version) == tuple(line.split())
    assert reader.accept is None
    assert refused(line + b"\r\n\r\n").status == 400  # without a Host


@pytest.mark.parametrize("line", [b"GET / HTTP/1.0", b"HEAD / HTTP/1.1", b"OPTIONS / HTTP/1.0"])
@pytest.mark.parametrize(
    "headers",
    [
        HOST + HOST,
        b"Host: a b\r\n",
        HOST + b"Content-Length: 5\r\n",
        b"Content-Length: 5\r\n",
        b"Transfer-Encoding: chunked\r\n",
    ],
)
def test_what_is_wrong_in_any_request(line: bytes, headers: bytes) -> None:
    assert refused(line + b"\r\n" + headers + b"\r\n").status == 400


@pytest.mark.parametrize("line", [b"GET / HTTP/1.0", b"HEAD / HTTP/1.1"])
def test_only_the_upgrade_is_refused(line: bytes) -> None:
    """RFC 9110 section 7.8: Upgrade is ignored in HTTP/1.0."""
    wire = line + b"\r\n" + HOST + UPGRADE + b"\r\n"
    assert read(wire).accept is None
    status, headers, body = answered(wire, LISTENER)
    assert status == b"HTTP/1.1 426 Upgrade Required"
    assert headers["Upgrade"] == "websocket"
    assert body == (b"" if b"HEAD" in line else b"an upgrade to websocket needs GET and HTTP/1.1")
    assert answered(wire, FINE)[0] == b"HTTP/1.1 200 OK"


@pytest.mark.parametrize("version", [b"HTTP/1.0", b"HTTP/1.1"])
@pytest.mark.parametrize("result", [FINE, None, LISTENER])
def test_head_is_answered_as_get_without_the_body(version: bytes, result: Any) -> None:
    rest = b" / " + version + b"\r\n" + HOST + b"\r\n"
    status, headers, body = answered(b"GET" + rest, result)
    assert body != b""
    assert headers["Content-Length"] == str(len(body))
    assert headers["Connection"].endswith("close")
    assert answered(b"HEAD" + rest, result) == (status, headers, b"")
    # What the factory returned is not changed by it.
    assert FINE.response.body == b"fine"


@pytest.mark.parametrize("data", [b"HEAD / HTTP/1.1\r\n\r\n", b"\r\nHEAD / HTTP/1.1\r\nHost: a b\r\n\r\n", b"HEAD * HTTP/1.1\r\n"])
def test_nor_has_a_refusal(data: bytes) -> None:
    response = refused(data)
    assert int(response.headers["Content-Length"]) > 0
    assert response.to_bytes().endswith(b"\r\n\r\n")


@pytest.mark.parametrize("data", [b"OPTIONS / HTTP/1.0\r\n\r\n", b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"])
def test_options_of_an_endpoint(data: bytes) -> None:
    """Where there is a listener, that is all that can be told; anything else is the factory's."""
    status, headers, body = answered(data, LISTENER)
    assert (status, headers, body) == (
        b"HTTP/1.1 204 No Content",
        {"Allow": "GET, HEAD, OPTIONS", "Connection": "close"},
        b"",
    )
    assert answered(data, FINE)[2] == b"fine"
    assert answered(data, None)[0] == b"HTTP/1.1 404 Not Found"
