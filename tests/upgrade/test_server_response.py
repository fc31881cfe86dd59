"""What leaves for what the listener factory returned, and what a response may hold."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import pytest
from multidict import CIMultiDict

from picows.deflate import WSDeflate
from picows.upgrade import (
    RequestReader,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
    answer,
)

PLAIN = b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n"
UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
LISTENER = object()
UPGRADED = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
)
TEXT = b"Content-Type: text/plain; charset=utf-8\r\n"


def answered(request: bytes, result: object) -> tuple[bytes, object]:
    reader = RequestReader()
    assert reader.feed(request)
    response, head, listener = answer(reader, result)
    assert head == response.to_bytes()
    return response.to_bytes(), listener


def sent(response: WSUpgradeResponse, listener: object = None) -> bytes:
    data, taken = answered(UPGRADE, WSUpgradeResponseWithListener(response, listener))
    assert taken is (listener if response.status == 101 else None)
    return data


def offering(extensions: str) -> RequestReader:
    """A server that compresses, and the request of a client with this offer."""
    reader = RequestReader(WSDeflate())
    assert reader.feed(UPGRADE.replace(b"\r\n\r\n", f"\r\nSec-WebSocket-Extensions: {extensions}\r\n\r\n".encode()))
    return reader


def test_an_extension_that_nobody_knows_is_left_out() -> None:
    _, head, listener = answer(offering("x-other; a=1"), LISTENER)
    assert (head, listener) == (UPGRADED + b"\r\n", LISTENER)


def test_a_response_does_not_say_how_to_compress() -> None:
    own = WSUpgradeResponse.create_101_response({"Sec-WebSocket-Extensions": "permessage-deflate"})
    with pytest.raises(ValueError, match="must not set Sec-WebSocket-Extensions where compression was agreed on"):
        answer(offering("permessage-deflate"), WSUpgradeResponseWithListener(own, LISTENER))


def test_listener_is_a_101() -> None:
    assert answered(UPGRADE, LISTENER) == (UPGRADED + b"\r\n", LISTENER)


@pytest.mark.parametrize("request_", [UPGRADE, PLAIN])
def test_none_is_a_404(request_: bytes) -> None:
    data, listener = answered(request_, None)
    assert listener is None
    assert data == (
        b"HTTP/1.1 404 Not Found\r\n"
        + TEXT
        + b"Content-Length: 13\r\nConnection: close\r\n\r\n404 Not Found"
    )


@pytest.mark.parametrize(
    "result",
    [LISTENER, WSUpgradeResponseWithListener(WSUpgradeResponse.create_101_response(), LISTENER)],
)
def test_plain_get_cannot_be_upgraded(result: object) -> None:
    data, listener = answered(PLAIN, result)
    assert listener is None
    head, body = data.split(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 426 Upgrade Required\r\n")
    assert b"\r\nUpgrade: websocket" in head
    assert head.endswith(b"\r\nConnection: Upgrade, close")
    assert f"Content-Length: {len(body)}\r\n".encode() in head


def test_101_with_headers() -> None:
    response = WSUpgradeResponse.create_101_response({"Sec-WebSocket-Protocol": "chat"})
    response.headers.add("Set-Cookie", "a=b")
    response.headers.add("Set-Cookie", "c=d")
    assert sent(response, LISTENER) == (
        UPGRADED + b"Sec-WebSocket-Protocol: chat\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\n\r\n"
    )
    assert (
        "Sec-WebSocket-Accept" not in response.headers
    )  # it may be returned for the next request too


def test_handshake_headers_of_a_101_are_ours() -> None:
    headers = {"upgrade": "h2c", "CONNECTION": "close", "sec-websocket-accept": "x"}
    assert sent(WSUpgradeResponse.create_101_response(headers), LISTENER) == UPGRADED + b"\r\n"


def test_101_says_what_it_upgrades_to() -> None:
    headers = {"upgrade": "h2c", "CONNECTION": "close", "X": "y"}
    created = WSUpgradeResponse.create_101_response(headers).headers
    assert created.getall("Upgrade") == ["websocket"]
    assert created.getall("Connection") == ["Upgrade"]
    assert len(created) == 3


@pytest.mark.parametrize("name", ["Content-Length", "Transfer-Encoding"])
def test_101_announces_no_body(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        sent(WSUpgradeResponse.create_101_response({name: "0"}), LISTENER)


def test_101_has_no_body() -> None:
    response = WSUpgradeResponse.create_101_response()
    response.body = b"x"
    with pytest.raises(ValueError, match="body"):
        sent(response, LISTENER)


@pytest.mark.parametrize("request_", [UPGRADE, PLAIN])
def test_response_of_the_users_own(request_: bytes) -> None:
    response = WSUpgradeResponse.create_ok_response(b"fine", {"Cache-Control": "no-store"})
    expected = (
        b"HTTP/1.1 200 OK\r\nCache-Control: no-store\r\n"
        + TEXT
        + b"Content-Length: 4\r\nConnection: close\r\n\r\nfine"
    )
    for _ in range(2):  # a response can be used again
        assert answered(request_, WSUpgradeResponseWithListener(response, None)) == (expected, None)
    assert answered(request_, WSUpgradeResponseWithListener(response, LISTENER)) == (expected, None)


def test_content_type_of_the_users_own() -> None:
    data = sent(WSUpgradeResponse.create_ok_response(b"{}", {"content-type": "application/json"}))
    assert data.lower().count(b"content-type") == 1
    assert b"content-type: application/json\r\n" in data


def test_responses_without_a_body() -> None:
    assert sent(WSUpgradeResponse.create_ok_response()) == (
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )
    assert sent(
        WSUpgradeResponse.create_error_response(401, extra_headers={"WWW-Authenticate": "Basic"})
    ) == (
        b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\n"
        b"Content-Length: 0\r\nConnection: close\r\n\r\n"
    )
    assert sent(WSUpgradeResponse.create_redirect_response(307, "wss://other/?a=b")) == (
        b"HTTP/1.1 307 Temporary Redirect\r\nLocation: wss://other/?a=b\r\n"
        b"Content-Length: 0\r\nConnection: close\r\n\r\n"
    )


@pytest.mark.parametrize("status", [204, 304])
def test_responses_that_cannot_have_a_body(status: int) -> None:
    """RFC 9110 section 8.6."""
    response = WSUpgradeResponse(HTTPStatus(status))
    assert sent(response) == response.to_bytes()[:-2] + b"Connection: close\r\n\r\n"
    assert b"Content-Length" not in sent(response)
    response.body = b"x"
    with pytest.raises(ValueError, match=str(status)):
        sent(response)


def test_connection_is_closed_whatever_the_user_says() -> None:
    data = sent(WSUpgradeResponse.create_ok_response(extra_headers={"connection": "keep-alive"}))
    assert data.endswith(b"\r\nConnection: close\r\n\r\n")
    assert b"keep-alive" not in data


def test_content_length_of_the_users_own_has_to_be_right() -> None:
    right = WSUpgradeResponse.create_ok_response(b"four", {"content-length": "4"})
    assert sent(right).lower().count(b"content-length: 4\r\n") == 1
    for length in ("5", "x"):
        with pytest.raises(ValueError, match="Content-Length"):
            sent(WSUpgradeResponse.create_ok_response(b"four", {"content-length": length}))
    with pytest.raises(ValueError, match="Content-Length"):
        sent(
            WSUpgradeResponse.create_ok_response(
                b"four", [("Content-Length", "4"), ("Content-Length", "4")]
            )
        )


def test_transfer_encoding_is_not_for_the_user() -> None:
    with pytest.raises(ValueError, match="Transfer-Encoding"):
        sent(WSUpgradeResponse.create_ok_response(b"0\r\n\r\n", {"Transfer-Encoding": "chunked"}))


def test_interim_response_is_no_answer() -> None:
    with pytest.raises(ValueError, match="100"):
        sent(WSUpgradeResponse(HTTPStatus.CONTINUE))


@pytest.mark.parametrize("status", [101, 200, 500])
def test_header_added_later_is_checked_too(status: int) -> None:
    response = WSUpgradeResponse(HTTPStatus(status))
    response.headers["X"] = "a\r\nInjected: b"
    with pytest.raises(ValueError, match="X"):
        sent(response, LISTENER if status == 101 else None)
    with pytest.raises(ValueError, match="X"):
        response.to_bytes()


CREATORS: dict[str, Any] = {
    "101": WSUpgradeResponse.create_101_response,
    "ok": lambda extra_headers: WSUpgradeResponse.create_ok_response(None, extra_headers),
    "error": lambda extra_headers: WSUpgradeResponse.create_error_response(
        404, None, extra_headers
    ),
    "redirect": lambda extra_headers: WSUpgradeResponse.create_redirect_response(
        302, "/", extra_headers
    ),
}
creators = pytest.mark.parametrize("create", CREATORS.values(), ids=CREATORS)


@creators
def test_extra_headers_in_every_shape(create: Any) -> None:
    pairs = [("X-A", "1"), ("X-A", "2"), ("X-B", "\ttab and é")]
    for shape in (pairs, tuple(pairs), iter(pairs), CIMultiDict(pairs), map(list, pairs)):
        headers = create(shape).headers
        assert headers.getall("x-a") == ["1", "2"]
        assert headers["x-b"] == "\ttab and é"
    assert create({"X-A": "1"}).headers["x-a"] == "1"
    assert "x-a" not in create(None).headers


@creators
@pytest.mark.parametrize("value", ["a\rb", "a\nb", "a\r\nb", "\0", "\x01", "\x7f", "a\n", "\ud800"])
def test_values_that_cannot_be_sent(create: Any, value: str) -> None:
    with pytest.raises(ValueError, match="X-Bad"):
        create({"X-Bad": value})


@creators
@pytest.mark.parametrize("name", ["", "a b", "a:", "a\r\n", "a\n", "\0", "é", "a(", "a\x7f", " a"])
def test_names_that_cannot_be_sent(create: Any, name: str) -> None:
    with pytest.raises(ValueError, match="name of a header"):
        create([(name, "x")])


@creators
@pytest.mark.parametrize(
    "headers",
    [
        {"a": 1},
        {"a": None},
        {"a": b"b"},
        {1: "a"},
        {b"a": "b"},
        "ab",
        ["ab"],
        [("a",)],
        [("a", "b", "c")],
        5,
    ],
)
def test_headers_of_the_wrong_type(create: Any, headers: object) -> None:
    with pytest.raises(TypeError):
        create(headers)


@pytest.mark.parametrize("location", ["", "/a b", "/a\r\nb", "/\0", "/\x7f", "/\n", "/\ud800"])
def test_locations_that_cannot_be_sent(location: str) -> None:
    with pytest.raises(ValueError, match="Location"):
        WSUpgradeResponse.create_redirect_response(302, location)


def test_location_is_the_one_given() -> None:
    response = WSUpgradeResponse.create_redirect_response(302, "/b", {"location": "/a"})
    assert response.headers.getall("Location") == ["/b"]
    with pytest.raises(TypeError, match="Location"):
        WSUpgradeResponse.create_redirect_response(302, b"/b")  # type: ignore[arg-type]


def test_status_of_each_constructor() -> None:
    assert WSUpgradeResponse.create_101_response().status is HTTPStatus.SWITCHING_PROTOCOLS
    assert WSUpgradeResponse.create_ok_response().status is HTTPStatus.OK
    assert WSUpgradeResponse.create_error_response(503).status is HTTPStatus.SERVICE_UNAVAILABLE
    assert WSUpgradeResponse.create_error_response(400).status is HTTPStatus.BAD_REQUEST
    assert (
        WSUpgradeResponse.create_redirect_response(308, "/").status is HTTPStatus.PERMANENT_REDIRECT
    )
    for status in (101, 200, 302, 399, 700):
        with pytest.raises(ValueError, match=str(status)):
            WSUpgradeResponse.create_error_response(status)
    for status in (200, 299, 400, 404):
        with pytest.raises(ValueError, match=str(status)):
            WSUpgradeResponse.create_redirect_response(status, "/")


def test_a_response_stays_as_it_is_when_it_is_sent() -> None:
    response = WSUpgradeResponse.create_redirect_response(302, "/")
    assert b"Content-Length: 0\r\n" in response.to_bytes()
    assert response.headers == {"Location": "/"}


def test_constructors_are_reached_by_a_response_too() -> None:
    response = WSUpgradeResponse.create_101_response()
    assert response.create_101_response().status is HTTPStatus.SWITCHING_PROTOCOLS
    assert response.create_ok_response(b"x").body == b"x"
    assert response.create_error_response(404).status is HTTPStatus.NOT_FOUND
    assert response.create_redirect_response(300, "/").status is HTTPStatus.MULTIPLE_CHOICES


@pytest.mark.parametrize("body", ["text", 5, ["a"]])
def test_body_is_bytes(body: Any) -> None:
    for create in (
        WSUpgradeResponse.create_ok_response,
        lambda body: WSUpgradeResponse.create_error_response(404, body),
    ):
        with pytest.raises(TypeError, match="body"):
            create(body)


def test_body_of_other_buffers() -> None:
    for given in (bytearray(b"x"), memoryview(b"x")):
        body = WSUpgradeResponse.create_ok_response(given).body  # type: ignore[arg-type]
        assert (body, type(body)) == (b"x", bytes)


def test_fields_of_a_response() -> None:
    response = WSUpgradeResponse.create_error_response(404, b"none")
    assert (response.version, response.body) == (b"HTTP/1.1", b"none")
    assert (
        response.to_bytes()
        == b"HTTP/1.1 404 Not Found\r\n" + TEXT + b"Content-Length: 4\r\n\r\nnone"
    )
    assert "404" in repr(response)


def test_response_with_listener() -> None:
    create = WSUpgradeResponse
    pair = WSUpgradeResponseWithListener(create.create_101_response(), LISTENER)
    assert pair.listener is LISTENER
    assert pair.response.status == 101
    with pytest.raises(ValueError, match="101"):
        WSUpgradeResponseWithListener(create.create_101_response(), None)
    for status in (400, 404):
        with pytest.raises(ValueError, match=str(status)):
            WSUpgradeResponseWithListener(create.create_error_response(status), LISTENER)
    with pytest.raises(TypeError, match="WSUpgradeResponse"):
        WSUpgradeResponseWithListener(404, None)  # type: ignore[arg-type]


def test_objects_are_small_and_can_be_filled_by_hand() -> None:
    request = WSUpgradeRequest()
    request.path = b"/x"
    request.headers["Host"] = "h"
    assert request.to_bytes() == b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n"
    response = WSUpgradeResponse()
    response.status = HTTPStatus.IM_A_TEAPOT
    assert response.to_bytes() == b"HTTP/1.1 418 I'm a Teapot\r\nContent-Length: 0\r\n\r\n"
    assert "/x" in repr(request)
    for thing in (request, response, WSUpgradeResponseWithListener(response, None)):
        assert not hasattr(thing, "__dict__")
