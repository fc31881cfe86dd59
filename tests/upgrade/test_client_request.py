"""What a client sends to ask for the upgrade (RFC 6455 section 4.1)."""

from __future__ import annotations

import base64

import pytest
from multidict import CIMultiDict

from picows.deflate import WSDeflate
from picows.upgrade import RequestReader, WSUpgradeRequest, create_request
from picows.url import parse_url


def request(url: str = "ws://h/", headers: object = None) -> WSUpgradeRequest:
    return create_request(parse_url(url), headers)  # type: ignore[arg-type]


def test_request_as_it_is_sent() -> None:
    sent = request("ws://server.example.com/chat?a=b", {"X-A": "1", "x-b": "é"})
    assert (
        sent.to_bytes()
        == (
            "GET /chat?a=b HTTP/1.1\r\n"
            "Host: server.example.com\r\n"
            "Upgrade: websocket\r\n"
            "Connection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: {sent.headers['Sec-WebSocket-Key']}\r\n"
            "X-A: 1\r\n"
            "x-b: é\r\n"
            "\r\n"
        ).encode()
    )
    assert (sent.method, sent.path, sent.version) == (b"GET", b"/chat?a=b", b"HTTP/1.1")


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("ws://h", "h"),
        ("ws://h:80", "h"),
        ("ws://h:443", "h:443"),
        ("wss://h", "h"),
        ("wss://h:443", "h"),
        ("wss://h:80", "h:80"),
        ("ws://H.Example:9001/", "h.example:9001"),
        ("ws://[::1]", "[::1]"),
        ("ws://[::1]:9001", "[::1]:9001"),
        ("ws://[fe80::1%25eth0]:9001", "[fe80::1]:9001"),
        ("ws://user:password@h", "h"),
        ("ws://bücher.example", "xn--bcher-kva.example"),
    ],
)
def test_host(url: str, host: str) -> None:
    assert request(url).headers["Host"] == host


def test_key_is_16_bytes_and_fresh() -> None:
    keys = {request().headers["Sec-WebSocket-Key"] for _ in range(100)}
    assert len(keys) == 100
    assert {len(base64.b64decode(key, validate=True)) for key in keys} == {16}


def test_user_info_is_basic_authentication() -> None:
    """RFC 7617."""
    expected = "Basic " + base64.b64encode("us er:pä:ss".encode()).decode()
    assert request("ws://us%20er:p%C3%A4:ss@h").headers["Authorization"] == expected
    assert request("ws://token@h").headers["Authorization"] == "Basic dG9rZW46"
    assert "Authorization" not in request("ws://h").headers
    assert "Authorization" not in request("ws://@h").headers


def test_authorization_of_the_users_own() -> None:
    sent = request("ws://user:password@h", {"authorization": "Bearer x"})
    assert sent.headers.getall("Authorization") == ["Bearer x"]


def test_host_of_the_users_own() -> None:
    sent = request("ws://127.0.0.1:9001/", {"host": "virtual"})
    assert sent.to_bytes().startswith(b"GET / HTTP/1.1\r\nHost: virtual\r\nUpgrade: websocket\r\n")
    assert sent.headers.getall("Host") == ["virtual"]
    with pytest.raises(ValueError, match="Host"):
        request(headers=[("Host", "a"), ("host", "b")])


@pytest.mark.parametrize(
    "name",
    [
        "Connection",
        "Content-Length",
        "Sec-WebSocket-Accept",
        "Sec-WebSocket-Key",
        "Sec-WebSocket-Version",
        "Transfer-Encoding",
        "Upgrade",
    ],
)
def test_headers_of_the_handshake_are_ours(name: str) -> None:
    for given in (name, name.lower(), name.upper()):
        with pytest.raises(ValueError, match=given):
            request(headers={given: "0"})


def test_what_is_offered_stands_in_one_place() -> None:
    url = parse_url("ws://h/")
    with pytest.raises(ValueError, match="must not set Sec-WebSocket-Extensions where compression is offered"):
        create_request(url, {"Sec-WebSocket-Extensions": "x"}, WSDeflate())
    with pytest.raises(ValueError, match="must not set Sec-WebSocket-Protocol where subprotocols are offered"):
        create_request(url, {"Sec-WebSocket-Protocol": "x"}, None, ["y"])


def test_offers_may_stand_on_several_lines() -> None:
    sent = request(headers=[("Sec-WebSocket-Protocol", "a"), ("Sec-WebSocket-Protocol", "b")])
    assert sent.to_bytes().endswith(
        b"Sec-WebSocket-Protocol: a\r\nSec-WebSocket-Protocol: b\r\n\r\n"
    )


def test_extra_headers_in_every_shape() -> None:
    pairs = [("X-A", "1"), ("X-A", "2")]
    for shape in (pairs, iter(pairs), CIMultiDict(pairs)):
        assert request(headers=shape).headers.getall("X-A") == ["1", "2"]
    assert len(request(headers=[]).headers) == len(request().headers) == 5


@pytest.mark.parametrize("value", ["a\rb", "a\nb", "a\r\nX: b", "\0", "\x1f", "\x7f", "\udfff"])
def test_values_that_cannot_be_sent(value: str) -> None:
    with pytest.raises(ValueError, match="X-Bad"):
        request(headers={"X-Bad": value})


@pytest.mark.parametrize("name", ["", "a b", "a:", "a\r\nb", "a\0", "é"])
def test_names_that_cannot_be_sent(name: str) -> None:
    with pytest.raises(ValueError, match="name of a header"):
        request(headers={name: "x"})


@pytest.mark.parametrize("headers", [{"a": 1}, {"a": b"b"}, {b"a": "b"}, "ab", ["ab"], [("a",)], 5])
def test_headers_of_the_wrong_type(headers: object) -> None:
    with pytest.raises(TypeError):
        request(headers=headers)


@pytest.mark.parametrize(
    "url",
    [
        "ws://h",
        "wss://u:p@[::1]:1/a/b?c=d",
        "ws://h/ä?ö",
        "ws://[fe80::1%25eth0]:9/",
        "ws://h/?",
        "ws://a_b/{}",
    ],
)
def test_server_reads_what_the_client_sends(url: str) -> None:
    sent = request(url, {"X": "bytes \udcff that are not UTF-8", "Y": ""})
    reader = RequestReader()
    assert reader.feed(sent.to_bytes())
    assert reader.accept is not None
    assert reader.request.path == sent.path
    assert list(reader.request.headers.items()) == list(sent.headers.items())
