"""The defaults of all options are those that are promised: programs rely on them by saying nothing."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

import pytest

import picows.server
from picows import (
    WSAutoPingStrategy,
    WSHandshakeError,
    WSListener,
    WSMsgType,
    WSServer,
    WSSlowPeerPolicy,
    WSTransport,
    ws_broadcast,
    ws_connect,
    ws_create_server,
)
from tests.connection.networks import Network, Received, Recorder, cut
from tests.connection.peers import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    ROLES,
    TEXT,
    close_code,
    close_payload,
    raw_client,
    stream,
)
from tests.connection.proxies import Redirector, be_silent, scripted

MIB = 1024 * 1024
NONE_GIVEN = inspect.Parameter.empty

COMMON = {
    "disconnect_on_exception": True,
    "websocket_handshake_timeout": 5,
    "logger_name": None,
    "enable_auto_ping": False,
    "auto_ping_strategy": WSAutoPingStrategy.PING_WHEN_IDLE,
    "enable_auto_pong": True,
    "max_frame_size": None,
    "read_buffer_init_size": 16 * 1024,
    "use_aiofastnet": None,
    "coalesce_writes": True,
    "enable_auto_close": True,
    "max_write_buffer_size": "auto",
    "slow_peer": WSSlowPeerPolicy.DISCONNECT,
    "receive_timeout": None,
    "assemble_messages": False,
    "max_message_size": 10 * MIB,
    "compression": None,
    "subprotocols": None,
    "kwargs": NONE_GIVEN,
}
CLIENT = {
    **COMMON,
    "ws_listener_factory": NONE_GIVEN,
    "url": NONE_GIVEN,
    "ssl_context": None,
    "auto_ping_idle_timeout": 10,
    "auto_ping_reply_timeout": 10,
    "extra_headers": None,
    "max_redirects": 5,
    "proxy": None,
    "proxy_ssl_context": None,
    "socket_factory": None,
    "connect_timeout": 10,
}
SERVER = {
    **COMMON,
    "ws_listener_factory": NONE_GIVEN,
    "host": None,
    "port": None,
    "origins": None,
    "auto_ping_idle_timeout": 20,
    "auto_ping_reply_timeout": 20,
}
FRAME = {"fin": True, "rsv1": False, "rsv2": False, "rsv3": False}
METHODS: dict[Callable[..., Any], dict[str, Any]] = {
    WSTransport.send: {"msg_type": NONE_GIVEN, "message": NONE_GIVEN, **FRAME, "compress": None},
    WSTransport.send_reuse_external_bytearray: {
        "msg_type": NONE_GIVEN,
        "buffer": NONE_GIVEN,
        "msg_offset": NONE_GIVEN,
        **FRAME,
    },
    WSTransport.send_latest: {"key": NONE_GIVEN, "msg_type": NONE_GIVEN, "message": NONE_GIVEN, "compress": None},
    WSTransport.send_ping: {"message": None},
    WSTransport.send_pong: {"message": None},
    WSTransport.send_close: {"close_code": 0, "close_message": None},
    WSTransport.disconnect: {"graceful": True},
    WSTransport.drain: {},
    WSTransport.close: {"code": 1000, "reason": None, "timeout": 10},
    WSTransport.measure_roundtrip_time: {"rounds": NONE_GIVEN},
    WSServer.shutdown: {"code": 1001, "reason": None, "spread": 0, "timeout": 10},
    ws_broadcast: {
        "transports": NONE_GIVEN,
        "msg_type": NONE_GIVEN,
        "message": NONE_GIVEN,
        "fin": True,
        "compress": None,
        "latest": None,
    },
}

over_roles = pytest.mark.parametrize("role", ROLES)


@pytest.mark.parametrize(
    ("function", "positional", "defaults"),
    [(ws_connect, 2, CLIENT), (ws_create_server, 3, SERVER)],
)
def test_options(function: Any, positional: int, defaults: dict[str, Any]) -> None:
    parameters = inspect.signature(function).parameters
    assert {name: parameter.default for name, parameter in parameters.items()} == defaults
    kinds = [parameter.kind for parameter in parameters.values()]
    by_position, by_name, kwargs = kinds[:positional], kinds[positional:-1], kinds[-1]
    assert set(by_position) == {inspect.Parameter.POSITIONAL_OR_KEYWORD}
    assert set(by_name) == {inspect.Parameter.KEYWORD_ONLY}
    assert kwargs == inspect.Parameter.VAR_KEYWORD


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.__name__)
def test_methods(method: Any) -> None:
    parameters = dict(inspect.signature(method).parameters)
    parameters.pop("self", None)
    # In this order: they may be given by position.
    assert [(name, parameter.default) for name, parameter in parameters.items()] == list(
        METHODS[method].items()
    )


@over_roles
def test_the_largest_frame(net: Network, role: str) -> None:
    async def test() -> None:
        async with ROLES[role](net, Recorder) as (peer, listener):
            peer.send(BINARY, bytes(10 * MIB))
            assert len(await listener.payload()) == 10 * MIB
            peer.send(BINARY, length=10 * MIB + 1)
            assert close_code(await peer.receive()) == 1009

    net.run(test())


@over_roles
def test_the_largest_message(net: Network, role: str) -> None:
    async def test() -> None:
        async with ROLES[role](net, Recorder, assemble_messages=True) as (peer, listener):
            peer.send(BINARY, bytes(8 * MIB), fin=False)
            peer.send(CONTINUATION, bytes(2 * MIB))
            assert len(await listener.payload()) == 10 * MIB
            peer.send(BINARY, bytes(8 * MIB), fin=False)
            peer.send(CONTINUATION, length=2 * MIB + 1)
            assert close_code(await peer.receive()) == 1009

    net.run(test())


@over_roles
def test_pings_and_a_close_are_answered(net: Network, role: str) -> None:
    async def test() -> None:
        async with ROLES[role](net, Recorder) as (peer, listener):
            peer.send(PING, b"?")
            assert await peer.receive() == Received(PONG, b"?")
            peer.send(TEXT, b"part", fin=False)
            peer.send(CLOSE, close_payload(4000, b"enough"))
            assert await listener.take(2) == [
                Received(TEXT, b"part", fin=False),
                Received(CLOSE, close_payload(4000, b"enough")),
            ]
            assert await peer.receive() == Received(CLOSE, close_payload(4000, b"enough"))

    net.run(test())


def test_redirects(net: Network) -> None:
    async def test() -> None:
        async with net.serve(lambda request: WSListener()) as url:
            redirector = Redirector("/1", "/2", "/3", "/4", url)
            async with redirector.serve() as first:
                await cut(await net.connect(Recorder, first))
            assert len(redirector.requests) == 5
        redirector = Redirector(*["/again"] * 6)
        async with redirector.serve() as url:
            with pytest.raises(WSHandshakeError, match="at most 5 redirects"):
                await net.connect(Recorder, url)
        assert len(redirector.requests) == 6

    net.run(test())


class Timers:
    """The delays in seconds that timers of the running loop are set to."""

    def __init__(self) -> None:
        self.delays: list[int] = []
        loop = asyncio.get_running_loop()
        call_at = loop.call_at

        def recording_call_at(when: float, *arguments: Any, **options: Any) -> Any:
            self.delays.append(round(when - loop.time()))
            return call_at(when, *arguments, **options)

        loop.call_at = recording_call_at  # type: ignore[method-assign]

    def longer_than_a_second(self) -> list[int]:
        return [delay for delay in self.delays if delay > 1]


def test_how_long_a_client_waits_for_the_connection_and_the_answer(net: Network) -> None:
    async def test() -> None:
        async with scripted(be_silent) as port:
            timers = Timers()
            connecting = asyncio.ensure_future(net.connect(Recorder, f"ws://127.0.0.1:{port}/"))
            while len(timers.longer_than_a_second()) < 2:
                await asyncio.sleep(0)
            connecting.cancel()
            assert timers.longer_than_a_second() == [10, 5]

    net.run(test())


def test_how_long_a_server_waits_for_the_request(net: Network) -> None:
    async def test() -> None:
        async with net.serve(lambda request: WSListener()) as url:
            timers = Timers()
            async with stream(net, url):
                while not timers.longer_than_a_second():
                    await asyncio.sleep(0)
                assert timers.longer_than_a_second() == [5]

    net.run(test())


@pytest.mark.parametrize(("role", "seconds"), [("client", 10), ("server", 20)])
def test_how_long_auto_ping_waits(net: Network, role: str, seconds: int) -> None:
    async def test() -> None:
        timers = Timers()
        limits: dict[str, Any] = {"enable_auto_ping": True, "websocket_handshake_timeout": None}
        if role == "client":
            limits["connect_timeout"] = None
        async with ROLES[role](net, Recorder, **limits):
            assert timers.longer_than_a_second() == [seconds]
        timers.delays.clear()
        async with ROLES[role](net, Recorder, auto_ping_idle_timeout=0.01, **limits) as (peer, _):
            assert await peer.receive() == Received(PING, b"")
            assert timers.longer_than_a_second() == [seconds]

    net.run(test())


def test_nothing_is_pinged_without_auto_ping(net: Network) -> None:
    async def test() -> None:
        timers = Timers()
        async with raw_client(net, Recorder, websocket_handshake_timeout=None) as (peer, listener):
            listener.transport.send(WSMsgType.TEXT, b"")
            assert await peer.receive() == Received(TEXT, b"")
            assert timers.longer_than_a_second() == []

    net.run(test())


def test_a_server_waits_as_long_as_it_says() -> None:
    for method in (WSServer.wait_closed, WSServer.serve_forever):
        assert f" {picows.server.CLOSE_TIMEOUT:g} seconds" in inspect.getdoc(method)
