"""The opening handshake of a server of the dialect of `websockets`."""

from __future__ import annotations

import asyncio
import logging
import re
from http import HTTPStatus
from typing import Any

import pytest

from picows.websockets import Headers, NegotiationError, Response, State
from picows.websockets.asyncio.server import ServerConnection, basic_auth
from picows.websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from tests.connection.networks import Network, over_both_loops
from tests.websockets.servers import answer, asking, client, echo, head_of, request, running

FAILED = "Failed to open a WebSocket connection"
LOOK_AT_LOG = f"{FAILED}.\nSee server log for more information.\n"


def records(caplog: pytest.LogCaptureFixture, level: int = logging.INFO) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= level and record.name == "websockets.server"]


async def boom(*args: Any) -> None:
    raise ValueError("secret")


def boom_at_once(*args: Any) -> None:
    raise ValueError("secret")


@over_both_loops
def test_a_request_is_accepted(net: Network, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def test() -> None:
        async with running(net) as (server, _), asking(server, request()) as peer:
            head = await head_of(peer)
            assert head.startswith("HTTP/1.1 101 Switching Protocols\r\n")
            assert "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in head
            assert re.search(r"\r\nDate: \w{3}, \d\d \w{3} \d{4} [\d:]{8} GMT\r\n", head)
            assert re.search(r"\r\nServer: Python/[\d.]+ picows/[\d.]+\r\n", head)
            assert "Sec-WebSocket-Extensions" not in head

    net.run(test())
    messages = records(caplog)
    assert messages[0].startswith("server listening on 127.0.0.1:")
    assert messages[1] == "connection open"
    assert sorted(messages[2:-1]) == ["connection closed", "connection handler failed", "server closing"]
    assert messages[-1] == "server closed"
    assert isinstance(caplog.records[1].websocket, ServerConnection)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("header", "expected"), [("abc", "Server: abc\r\n"), (None, None)])
def test_the_server_header(net: Network, header: str | None, expected: str | None) -> None:
    async def test() -> None:
        for options in ({}, {"process_response": lambda *args: None}):
            async with running(net, server_header=header, **options) as (server, _), asking(server, request()) as peer:
                head = await head_of(peer)
                assert (expected in head) if expected else ("Server" not in head)

    net.run(test())


def test_a_browser_is_told_what_is_missing(net: Network, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def test() -> None:
        async with running(net) as (server, _):
            status, headers, body = await answer(server, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            assert status == 426
            assert headers["Upgrade"] == "websocket"
            assert body.startswith(f"{FAILED}: missing Connection header.\n\nYou cannot access a WebSocket server directly")

    net.run(test())
    assert "connection rejected (426 Upgrade Required)" in records(caplog)


@pytest.mark.parametrize(
    ("origins", "origin", "refusal"),
    [
        (["http://a"], "http://a", None),
        (["http://a"], "http://b", "invalid Origin header: http://b"),
        (["http://a"], None, "missing Origin header"),
        ([None], None, None),
        ([None], "http://a", "invalid Origin header: http://a"),
        ([re.compile(r"https?://\w+\.a")], "https://x.a", None),
        ([re.compile(r"https?://\w+\.a")], "https://x.a.evil", "invalid Origin header: https://x.a.evil"),
    ],
)
def test_origins(net: Network, origins: Any, origin: str | None, refusal: str | None) -> None:
    async def test() -> None:
        data = request(*([f"Origin: {origin}"] if origin else []))
        async with running(net, origins=origins) as (server, _):
            if refusal is None:
                async with asking(server, data) as peer:
                    assert " 101 " in await head_of(peer)
            else:
                status, _, body = await answer(server, data)
                assert (status, body) == (403, f"{FAILED}: {refusal}.\n")

    net.run(test())


def test_two_origins_are_none(net: Network) -> None:
    async def test() -> None:
        async with running(net, origins=["a"]) as (server, _):
            status, _, body = await answer(server, request("Origin: a", "Origin: b"))
            assert (status, body) == (400, f"{FAILED}: invalid Origin header: multiple values.\n")

    net.run(test())


@pytest.mark.parametrize(
    ("known", "offered", "chosen"),
    [(["a", "b", "c"], "c, b", "b"), (["a"], "a", "a"), (None, "x", None)],
)
def test_the_first_subprotocol_of_the_server_that_is_offered_is_chosen(
    net: Network, known: Any, offered: str, chosen: str | None
) -> None:
    seen = []

    async def handler(ws: Any) -> None:
        seen.append(ws.subprotocol)

    async def test() -> None:
        data = request(f"Sec-WebSocket-Protocol: {offered}")
        async with running(net, handler, subprotocols=known) as (server, _), asking(server, data) as peer:
            head = await head_of(peer)
            assert (f"Sec-WebSocket-Protocol: {chosen}\r\n" in head) == (chosen is not None)
            await peer.receive()

    net.run(test())
    assert seen == [chosen]


@pytest.mark.parametrize(
    ("headers", "refusal"),
    [
        (["Sec-WebSocket-Protocol: x"], "invalid subprotocol; expected one of a, b"),
        ([], "missing subprotocol"),
        (["Sec-WebSocket-Protocol: x y"], "invalid Sec-WebSocket-Protocol header: expected comma at 2 in x y"),
    ],
)
def test_no_subprotocol_in_common_is_a_400(net: Network, headers: list[str], refusal: str) -> None:
    async def test() -> None:
        async with running(net, subprotocols=["a", "b"]) as (server, _):
            status, _, body = await answer(server, request(*headers))
            assert (status, body) == (400, f"{FAILED}: {refusal}.\n")

    net.run(test())


def test_select_subprotocol(net: Network, caplog: pytest.LogCaptureFixture) -> None:
    calls: list[Any] = []

    def select(connection: ServerConnection, offered: Any) -> Any:
        calls.append((connection.request.path, offered))
        if offered == ["no"]:
            raise NegotiationError("nope")
        if offered == ["boom"]:
            raise ValueError("secret")
        return offered[-1] if offered else None

    async def test() -> None:
        async with running(net, select_subprotocol=select) as (server, url):
            async with client(url, subprotocols=["x", "y"]) as ws:
                assert ws.subprotocol == "y"
            async with client(url) as ws:
                assert ws.subprotocol is None
            assert (await answer(server, request("Sec-WebSocket-Protocol: no")))[::2] == (400, f"{FAILED}: nope.\n")
            assert (await answer(server, request("Sec-WebSocket-Protocol: boom")))[::2] == (500, LOOK_AT_LOG)

    net.run(test())
    assert calls == [("/", ["x", "y"]), ("/", []), ("/", ["no"]), ("/", ["boom"])]
    assert records(caplog, logging.ERROR) == ["opening handshake failed"]


def waiting(hook: Any) -> Any:
    """The same as a coroutine function."""

    async def coroutine(*args: Any) -> Any:
        await asyncio.sleep(0)
        return hook(*args)

    return coroutine


as_function_or_coroutine = pytest.mark.parametrize("kind", [lambda hook: hook, waiting], ids=["function", "coroutine"])


@as_function_or_coroutine
def test_process_request_answers_in_place_of_an_upgrade(net: Network, kind: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    def process_request(connection: ServerConnection, request: Any) -> Any:
        assert connection.request is request
        assert connection.state is State.CONNECTING
        assert connection.remote_address[0] == "127.0.0.1"
        connection.room = request.path
        if request.path == "/health":
            return connection.respond(HTTPStatus.OK, "OK \xe9\n")
        if request.path == "/other":
            return Response(302, "Found", Headers(Location="/x"))
        return None

    async def handler(ws: Any) -> None:
        await ws.send(ws.room)

    async def test() -> None:
        async with running(net, handler, process_request=kind(process_request)) as (server, url):
            for data in (request(path="/health"), b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n"):
                status, headers, body = await answer(server, data)
                assert (status, body) == (200, "OK \xe9\n")
                assert headers["Content-Type"] == "text/plain; charset=utf-8"
                assert headers["Connection"] == "close"
                assert headers["Server"].startswith("Python/")
            status, headers, body = await answer(server, request(path="/other"))
            assert (status, headers["Location"], body) == (302, "/x", "")
            async with client(url + "7") as ws:
                assert await ws.recv() == "/7"

    net.run(test())
    assert records(caplog).count("HTTP response sent (200 OK)") == 2


def test_what_a_hook_keeps_at_the_connection_stays(net: Network) -> None:
    async def process_request(connection: ServerConnection, request: Any) -> None:
        with pytest.raises(RuntimeError, match="not made yet"):
            await connection.ping()
        connection.user, connection.password = "somebody", "secret"
        del connection.password

    async def handler(ws: ServerConnection) -> None:
        assert not hasattr(ws, "password")
        with pytest.raises(AttributeError, match="password"):
            del ws.password
        await ws.send(ws.user)

    async def test() -> None:
        async with running(net, handler, process_request=process_request) as (_, url), client(url) as ws:
            assert await ws.recv() == "somebody"

    net.run(test())


@over_both_loops
@pytest.mark.parametrize(
    ("status", "phrase", "line"),
    [(499, "Gone Away", "499 Gone Away"), (520, "a\r\nX: y", "520 "), (600, "x", "500 Internal Server Error")],
)
def test_a_status_need_not_be_registered(net: Network, status: int, phrase: str, line: str) -> None:
    def process_request(connection: ServerConnection, request: Any) -> Response:
        return Response(status, phrase, Headers())

    async def test() -> None:
        async with running(net, process_request=process_request) as (server, _), asking(server, request()) as peer:
            assert (await head_of(peer)).startswith(f"HTTP/1.1 {line}\r\n")

    net.run(test())


@pytest.mark.parametrize("hook", ["process_request", "process_response"])
@pytest.mark.parametrize("kind", [boom, boom_at_once, lambda *args: "no response"], ids=["coroutine", "function", "wrong"])
def test_a_hook_that_fails_is_a_500_and_in_the_log(
    net: Network, hook: str, kind: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        async with running(net, **{hook: kind}) as (server, _):
            status, _, body = await answer(server, request())
            assert (status, body) == (500, LOOK_AT_LOG)

    net.run(test())
    assert records(caplog, logging.ERROR) == [f"{hook} failed"]
    assert caplog.records[-1].exc_info is not None


@as_function_or_coroutine
def test_process_response_sees_and_changes_what_is_sent(net: Network, kind: Any) -> None:
    seen = []

    def process_response(connection: ServerConnection, request: Any, response: Any) -> Any:
        assert connection.response is response
        seen.append((response.status_code, "Sec-WebSocket-Accept" in response.headers))
        response.headers["X-Own"] = "1"
        return connection.respond(403, "no") if request.path == "/no" else None

    async def test() -> None:
        async with running(net, subprotocols=["a"], process_response=kind(process_response)) as (server, url):
            async with client(url, subprotocols=["a"]) as ws:
                assert ws.response.headers["X-Own"] == "1"
                assert ws.subprotocol == "a"
            status, headers, _ = await answer(server, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            assert (status, headers["X-Own"]) == (426, "1")
            assert (await answer(server, request("Sec-WebSocket-Protocol: a", path="/no")))[::2] == (403, "no")

    net.run(test())
    assert seen == [(101, True), (426, False), (101, True)]


async def known(username: str, password: str) -> bool:
    return (username, password) == ("u", "p")


@pytest.mark.parametrize(
    "who",
    [
        {"credentials": ("u", "p")},
        {"credentials": [("x", "y"), ("u", "p")]},
        {"check_credentials": lambda username, password: (username, password) == ("u", "p")},
        {"check_credentials": known},
    ],
)
def test_basic_auth(net: Network, who: dict[str, Any]) -> None:
    names = []

    async def handler(ws: Any) -> None:
        names.append(ws.username)

    async def test() -> None:
        async with running(net, handler, process_request=basic_auth(realm='r"', **who)) as (server, url):
            for headers, expected in (
                ([], "Missing credentials\n"),
                (["Authorization: Basic"], "Unsupported credentials\n"),
                (["Authorization: Basic dTp4"], "Invalid credentials\n"),  # u:x
                (["Authorization: Basic ejpw"], "Invalid credentials\n"),  # z:p
            ):
                status, fields, body = await answer(server, request(*headers))
                assert (status, body) == (401, expected)
                assert fields["WWW-Authenticate"] == 'Basic realm="r\\"", charset="UTF-8"'
            async with client(url.replace("//", "//u:p@")) as ws:
                await ws.wait_closed()

    net.run(test())
    assert names == ["u"]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({}, ValueError),
        ({"credentials": ("u", "p"), "check_credentials": known}, ValueError),
        ({"credentials": 1}, TypeError),
        ({"credentials": ("u",)}, TypeError),
        ({"credentials": [("u",)]}, TypeError),
        ({"credentials": (1, 2)}, TypeError),
        ({"check_credentials": 1}, TypeError),
    ],
)
def test_basic_auth_checks_its_arguments(arguments: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        basic_auth(**arguments)


def test_a_handshake_is_timed_out(net: Network) -> None:
    async def forever(*args: Any) -> None:
        await asyncio.sleep(60)

    async def test() -> None:
        async with running(net, open_timeout=0.05, process_request=forever) as (server, _):
            for data in (b"GET", request()):
                async with asking(server, data) as peer:
                    await peer.lost()

    net.run(test())


@over_both_loops
def test_a_tls_handshake_that_stays_silent_is_timed_out(net: Network) -> None:
    async def test() -> None:
        async with running(Network(net.loop, tls=True), open_timeout=0.05) as (server, _), asking(server, b"") as peer:
            await peer.lost()

    net.run(test())


@pytest.mark.parametrize("compression", ["deflate", None])
def test_compression(net: Network, compression: str | None) -> None:
    async def test() -> None:
        data = request("Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits")
        async with running(net, compression=compression) as (server, url):
            async with asking(server, data) as peer:
                head = await head_of(peer)
            expected = "permessage-deflate; server_max_window_bits=12; client_max_window_bits=12"
            assert (expected in head) == (compression is not None)
            async with client(url) as ws:
                await ws.send("x" * 5000)
                assert await ws.recv() == "x" * 5000

    net.run(test())


def test_compression_by_a_factory(net: Network) -> None:
    factory = ServerPerMessageDeflateFactory(
        server_max_window_bits=11, client_no_context_takeover=True, compress_settings={"level": 9, "memLevel": 4}
    )

    async def test() -> None:
        data = request("Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits")
        async with running(net, extensions=[factory]) as (server, url):
            async with asking(server, data) as peer:
                head = await head_of(peer)
            assert re.search("Sec-WebSocket-Extensions: permessage-deflate;.* client_no_context_takeover;", head)
            assert "server_max_window_bits=11" in head
            async with client(url) as ws:
                await ws.send("x" * 5000)
                assert await ws.recv() == "x" * 5000

    net.run(test())


def test_what_a_connection_knows_of_its_handshake(net: Network) -> None:
    seen = []

    async def handler(ws: Any) -> None:
        seen.append((ws.request.path, ws.request.headers["X"], ws.response.status_code, ws.local_address[1], ws.username))

    async def test() -> None:
        async with running(net, handler) as (server, url), asking(server, request("X: 1", path="/a?b")) as peer:
            await head_of(peer)
            await peer.receive()
            assert seen == [("/a?b", "1", 101, int(url.split(":")[2][:-1]), None)]

    net.run(test())


def test_a_connection_that_is_none_is_a_500_and_in_the_log(net: Network, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async with running(net, create_connection=lambda *args, **kwargs: "none") as (server, _):  # type: ignore[arg-type]
            assert (await answer(server, request()))[0] == 500

    net.run(test())
    (error,) = (record.exc_info[1] for record in caplog.records if record.exc_info)
    assert str(error) == "create_connection returned 'none', expected a ServerConnection"


def test_create_connection(net: Network) -> None:
    class Own(ServerConnection):
        async def send(self, message: Any, **options: Any) -> None:  # type: ignore[override]
            await super().send(message.upper(), **options)

    async def test() -> None:
        async with running(net, echo, create_connection=Own) as (_, url), client(url) as ws:
            await ws.send("x")
            assert await ws.recv() == "X"

    net.run(test())
