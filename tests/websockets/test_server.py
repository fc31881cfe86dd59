"""Handlers, shutdown and broadcast of a server of the dialect of `websockets`."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import logging
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from picows.websockets import ConnectionClosed, ConnectionClosedError, State
from picows.websockets.asyncio.server import Server, ServerConnection, broadcast, serve, unix_serve
from tests.connection.networks import Network, over_both_loops, over_every_network
from tests.connection.peers import CLOSE, TEXT, Peer, close_payload
from tests.connection.proxies import client_tls
from tests.websockets.servers import answer, asking, client, connect, echo, head_of, request, running, url_of


@pytest.mark.needs_websockets
@pytest.mark.parametrize("name", ["serve", "unix_serve"])
def test_the_arguments_and_their_defaults(name: str) -> None:
    pytest.importorskip("websockets", minversion="17")
    theirs = importlib.import_module("websockets.asyncio.server")
    parameters = [inspect.signature(function).parameters.values() for function in (globals()[name], getattr(theirs, name))]
    ours, others = ([(p.name, p.kind, p.default) for p in side if p.name != "server_header"] for side in parameters)
    assert ours == others


async def code_received(peer: Peer) -> int:
    frame = await peer.receive()
    assert frame.msg_type == CLOSE
    peer.send(CLOSE, frame.payload)
    return int.from_bytes(frame.payload[:2], "big")


async def closed(ws: Any) -> tuple[int, str]:
    await ws.wait_closed()
    return ws.close_code, ws.close_reason


@over_every_network
def test_echo(net: Network) -> None:
    async def test() -> None:
        async with running(net) as (_, url), client(url) as ws:
            for message in ("\xe9" * 10, b"\xff" * 100_000, "", b""):
                await ws.send(message)
                assert await ws.recv() == message

    net.run(test())


@over_both_loops
def test_a_handler_that_returns_closes_with_1000(net: Network) -> None:
    async def handler(ws: Any) -> None:
        await ws.send("bye")

    async def test() -> None:
        async with running(net, handler) as (server, _), asking(server, request()) as peer:
            await head_of(peer)
            assert (await peer.receive()).payload == b"bye"
            assert await code_received(peer) == 1000
            await peer.lost()

    net.run(test())


async def raises(ws: Any) -> None:
    raise ValueError("secret")


def raises_at_once(ws: Any) -> Any:
    raise ValueError("secret")


def is_no_coroutine(ws: Any) -> Any:
    return None


@pytest.mark.parametrize("handler", [raises, raises_at_once, is_no_coroutine])
def test_a_handler_that_raises_closes_with_1011_and_is_logged(
    net: Network, handler: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        async with running(net, handler) as (server, _), asking(server, request()) as peer:
            await head_of(peer)
            assert await code_received(peer) == 1011

    net.run(test())
    [record] = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.getMessage() == "connection handler failed"
    assert record.exc_info is not None
    assert isinstance(record.websocket, ServerConnection)  # type: ignore[attr-defined]


def test_a_handler_that_is_cancelled_closes_with_1011(net: Network, caplog: pytest.LogCaptureFixture) -> None:
    async def handler(ws: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    async def test() -> None:
        async with running(net, handler) as (server, _), asking(server, request()) as peer:
            await head_of(peer)
            assert await code_received(peer) == 1011

    net.run(test())
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_a_peer_that_vanishes(net: Network) -> None:
    seen: list[Any] = []

    async def handler(ws: Any) -> None:
        with pytest.raises(ConnectionClosedError) as raised:
            await ws.recv()
        seen.append((raised.value.rcvd, raised.value.sent, ws.close_code))

    async def test() -> None:
        async with running(net, handler) as (server, _), asking(server, request()) as peer:
            await head_of(peer)
            peer.writer.transport.abort()
            while not seen:
                await asyncio.sleep(0)

    net.run(test())
    assert seen == [(None, None, 1006)]


@over_both_loops
def test_connections(net: Network) -> None:
    async def test() -> None:
        async with running(net) as (server, url):
            assert server.connections == set()
            async with client(url) as ws:
                await ws.send("x")
                await ws.recv()
                [connection] = server.connections
                assert isinstance(connection, ServerConnection)
                assert connection.state is State.OPEN
            while connection.state is not State.CLOSED:
                await asyncio.sleep(0)
            assert server.connections == set()

    net.run(test())


@over_every_network
def test_a_server_that_is_left_closes_its_connections_with_1001(net: Network) -> None:
    async def test() -> None:
        async with running(net) as (server, url):
            ws = await connect(url, proxy=None, **({"ssl": client_tls()} if net.tls else {}))
        assert not server.is_serving()
        assert server.sockets == ()
        assert await closed(ws) == (1001, "")

    net.run(test())


def test_close_takes_a_code_and_a_reason(net: Network) -> None:
    async def test() -> None:
        server = await serve(echo, "127.0.0.1", 0)
        async with client(url_of(server)) as ws:
            server.close(code=1012, reason="later")
            server.close(code=1001)
            assert await closed(ws) == (1012, "later")
        await server.wait_closed()

    net.run(test())


def test_close_may_leave_the_connections(net: Network) -> None:
    async def test() -> None:
        server = await serve(echo, "127.0.0.1", 0)
        url = url_of(server)
        async with client(url) as ws:
            server.close(close_connections=False)
            waiting = asyncio.ensure_future(server.wait_closed())
            with pytest.raises(OSError, match=r"111|refused|Connect call failed"):
                await connect(url, proxy=None)
            await ws.send("x")
            assert await ws.recv() == "x"
            assert not waiting.done()
        await waiting

    net.run(test())


def test_close_waits_for_the_handlers(net: Network) -> None:
    steps = []

    async def handler(ws: Any) -> None:
        await ws.wait_closed()
        await asyncio.sleep(0.01)
        steps.append("handler")

    async def test() -> None:
        async with running(net, handler) as (server, url):
            async with client(url):
                server.close()
            await server.wait_closed()
            steps.append("closed")

    net.run(test())
    assert steps == ["handler", "closed"]


@over_both_loops
def test_an_opening_handshake_gets_503_when_the_server_closes(net: Network) -> None:
    begun: asyncio.Event

    async def process_request(connection: Any, request: Any) -> None:
        begun.set()
        await asyncio.sleep(60)

    async def test() -> None:
        nonlocal begun
        begun = asyncio.Event()  # up to Python 3.9 it belongs to a loop from the beginning
        async with running(net, process_request=process_request) as (server, _), asking(server, request()) as peer:
            await begun.wait()
            async with asking(server, b"GET / HTTP/1.1\r\n") as silent:
                server.close()
                assert (await head_of(peer)).startswith("HTTP/1.1 503 Service Unavailable\r\n")
                await silent.lost()
            await server.wait_closed()

    net.run(test())


def test_a_request_that_comes_while_the_server_closes_gets_503(net: Network) -> None:
    servers = []

    def process_request(connection: Any, request: Any) -> None:
        servers[0].close()

    async def test() -> None:
        async with running(net, process_request=process_request) as (server, _):
            servers.append(server)
            assert (await answer(server, request()))[0] == 503

    net.run(test())


@over_both_loops
def test_a_cancelled_serve_forever_ends_the_server(net: Network) -> None:
    async def test() -> None:
        server = await serve(echo, "127.0.0.1", 0)
        serving = asyncio.ensure_future(server.serve_forever())
        ws = await connect(url_of(server), proxy=None)
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        assert not server.is_serving()
        assert await closed(ws) == (1001, "")

    net.run(test())


def test_serve_forever_ends_when_the_server_is_closed(net: Network) -> None:
    async def test() -> None:
        server = await serve(echo, "127.0.0.1", 0)
        serving = asyncio.ensure_future(server.serve_forever())
        await asyncio.sleep(0)
        server.close()
        with pytest.raises(asyncio.CancelledError):
            await serving
        await server.wait_closed()

    net.run(test())


def test_a_server_is_started_by_hand(net: Network) -> None:
    async def test() -> None:
        server = serve(echo, "127.0.0.1", 0, start_serving=False)
        assert isinstance(server, Server)
        with pytest.raises(RuntimeError, match="was not started"):
            server.close()
        assert await server is server
        assert server.handler is echo
        assert server.get_loop() is asyncio.get_running_loop()
        assert not server.is_serving()
        await server.start_serving()
        assert server.is_serving()
        async with server, client(url_of(server)) as ws:
            await ws.send("x")
            assert await ws.recv() == "x"

    net.run(test())


@over_both_loops
def test_unix_serve(net: Network, tmp_path: Path) -> None:
    path = tmp_path / "socket"

    async def test() -> None:
        for _ in range(2):  # the file of the first gives way
            async with unix_serve(echo, path):
                reader, writer = await asyncio.open_unix_connection(path)
                peer = Peer(reader, writer, masks=True)
                peer.write(request())
                await head_of(peer)
                peer.send(TEXT, b"x")
                assert (await peer.receive()).payload == b"x"
                peer.send(CLOSE, close_payload(1000))
                await peer.receive()
                await peer.close()

    net.run(test())


def test_attributes_and_loggers(net: Network, caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("own")
    caplog.set_level(logging.INFO)

    async def handler(ws: Any) -> None:
        ws.user = "me"
        ws.logger.info("hello %s", ws.user)

    async def test() -> None:
        async with running(net, handler, logger=logger) as (server, url), client(url) as ws:
            await ws.wait_closed()
            assert server.logger is logger

    net.run(test())
    assert {record.name for record in caplog.records if record.levelno >= logging.INFO} >= {"own"}
    assert "hello me" in caplog.messages
    assert not [record for record in caplog.records if record.name == "websockets.server"]


# broadcast


@over_both_loops
def test_broadcast(net: Network) -> None:
    async def test() -> None:
        async with running(net) as (server, url), client(url) as first, client(url) as second, client(url) as gone:
            for ws in (first, second, gone):
                await ws.send("x")
                await ws.recv()
            connections = server.connections
            assert len(connections) == 3
            await gone.close()
            for message in ("\xe9", b"1", bytearray(b"2"), memoryview(b"3")):
                broadcast(connections, message)
            broadcast(connections, b"4", text=True)
            for ws in (first, second):
                assert [await ws.recv() for _ in range(5)] == ["\xe9", b"1", b"2", b"3", "4"]

    net.run(test())


@pytest.mark.parametrize("message", [1, None, ["x"], {}])
def test_broadcast_checks_the_message(message: Any) -> None:
    with pytest.raises(TypeError, match="data must be str or bytes"):
        broadcast([], message)


def test_broadcast_leaves_out_who_sends_a_fragmented_message(net: Network, caplog: pytest.LogCaptureFixture) -> None:
    more: asyncio.Event

    async def fragments() -> Any:
        yield "a"
        await more.wait()
        yield "b"

    async def handler(ws: Any) -> None:
        await ws.send(fragments())
        await ws.wait_closed()

    async def test() -> None:
        nonlocal more
        more = asyncio.Event()
        async with running(net, handler) as (server, _), asking(server, request()) as peer:
            await head_of(peer)
            assert (await peer.receive()).payload == b"a"
            broadcast(server.connections, "no")
            if sys.version_info >= (3, 11):
                with pytest.raises(ExceptionGroup, match="skipped broadcast"):  # noqa: F821
                    broadcast(server.connections, "no", raise_exceptions=True)
            more.set()
            assert (await peer.receive()).payload == b"b"

    net.run(test())
    assert "skipped broadcast: sending a fragmented message" in caplog.messages


# arguments


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"handler": 1}, TypeError),
        ({"origins": "http://a"}, TypeError),
        ({"origins": [1]}, TypeError),
        ({"extensions": 1}, TypeError),
        ({"subprotocols": "abc"}, TypeError),
        ({"subprotocols": ["a b"]}, ValueError),
        ({"select_subprotocol": 1}, TypeError),
        ({"compression": "gzip"}, ValueError),
        ({"compression": True}, ValueError),
        ({"process_request": 1}, TypeError),
        ({"process_response": 1}, TypeError),
        ({"server_header": 1}, TypeError),
        ({"open_timeout": "x"}, TypeError),
        ({"ping_interval": "x"}, TypeError),
        ({"ping_timeout": "x"}, TypeError),
        ({"close_timeout": "x"}, TypeError),
        ({"max_size": "x"}, (TypeError, ValueError)),
        ({"max_size": (1, 2, 3)}, ValueError),
        ({"max_queue": "x"}, (TypeError, ValueError)),
        ({"max_queue": (1, 2)}, ValueError),
        ({"write_limit": None}, TypeError),
        ({"create_connection": 1}, TypeError),
        ({"logger": "x"}, TypeError),
        ({"logger": 1}, TypeError),
    ],
    ids=str,
)
def test_wrong_arguments_are_told_at_once(arguments: dict[str, Any], error: Any) -> None:
    arguments.setdefault("handler", echo)
    with pytest.raises(error):
        serve(host="127.0.0.1", port=0, **arguments)


@pytest.mark.parametrize("arguments", [{"host": 1}, {"port": "x"}, {"ssl": 1}, {"sock": 1}, {"unknown": 1}], ids=str)
def test_others_when_it_is_started(net: Network, arguments: dict[str, Any]) -> None:
    async def test() -> None:
        with pytest.raises((TypeError, AttributeError, ValueError)):
            await serve(echo, **arguments)

    net.run(test())


def test_a_unix_server_needs_a_path(net: Network) -> None:
    async def test() -> None:
        with pytest.raises(ValueError, match="path was not specified"):
            await unix_serve(echo)

    net.run(test())


def test_a_unix_server_on_a_socket_of_ones_own(net: Network, tmp_path: Path) -> None:
    path = tmp_path / "socket"

    async def test() -> None:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(path))
            with pytest.raises(ValueError, match="path and sock"):
                await unix_serve(echo, path, sock=sock)
            async with unix_serve(echo, sock=sock):
                _, writer = await asyncio.open_unix_connection(path)
                writer.close()

    net.run(test())


def test_what_is_left_of_a_unix_server_gives_way(net: Network, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))

    async def test() -> None:
        async with unix_serve(echo, path):
            _, writer = await asyncio.open_unix_connection(path)
            writer.close()

    net.run(test())


def test_a_unix_server_does_not_remove_what_is_no_socket(net: Network, tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_text("precious")

    async def test() -> None:
        with pytest.raises(OSError, match="in use"):
            await unix_serve(echo, path)

    net.run(test())
    assert path.read_text() == "precious"


def test_the_longest_reason_is_said(net: Network) -> None:
    async def test() -> None:
        async with running(net) as (server, url), client(url) as ws:
            server.close(reason="x" * 123)
            assert await closed(ws) == (1001, "x" * 123)

    net.run(test())


@pytest.mark.parametrize(("code", "reason"), [(1, ""), (1005, ""), (1000, "x" * 124)])
def test_what_no_close_frame_can_say(net: Network, code: int, reason: str) -> None:
    async def test() -> None:
        async with running(net) as (server, url), client(url) as ws:
            with pytest.raises(Exception, match=r"invalid status code|too long"):
                server.close(code=code, reason=reason)
            await ws.send("x")
            assert await ws.recv() == "x"

    net.run(test())


def test_ending_by_the_client(net: Network) -> None:
    seen: list[ConnectionClosed] = []

    async def handler(ws: Any) -> None:
        try:
            await ws.recv()
        except ConnectionClosed as error:
            seen.append(error)
            raise

    async def test() -> None:
        async with running(net, handler) as (_, url):
            ws = await connect(url, proxy=None)
            await ws.close(4000, "enough")

    net.run(test())
    assert str(seen[0]) == "received 4000 (private use) enough; then sent 4000 (private use) enough"
