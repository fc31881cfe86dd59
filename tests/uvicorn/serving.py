"""Applications on uvicorn's HTTP classes with PicowsProtocol, inside of the test's own event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.connection.networks import Network
from tests.connection.peers import CLOSE, Peer, stream
from tests.connection.proxies import server_tls

uvicorn = pytest.importorskip("uvicorn", reason="PicowsProtocol is for uvicorn")

from uvicorn.server import ServerState  # noqa: E402

ACCEPT = {"type": "websocket.accept"}
CONNECT = {"type": "websocket.connect"}
HEAD = (
    b"GET %b HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)

over_both_http_classes = pytest.mark.parametrize("http", ["h11", "httptools"])


class Call:
    """One call of the application, whose `receive` and `send` are the test's."""

    def __init__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        self.scope, self.receive, self.send = scope, receive, send
        self.end: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def return_(self, result: object = None) -> None:
        if not self.end.done():
            self.end.set_result(result)

    def raise_(self, error: BaseException) -> None:
        self.end.set_exception(error)

    async def accept(self, **event: Any) -> None:
        assert await self.receive() == CONNECT
        await self.send({**ACCEPT, **event})


class Served:
    """A server with an application that does what the test does with its calls."""

    url: str

    def __init__(self, **options: Any) -> None:
        options = {"interface": "asgi3", "http": "h11", "ws": "picows.uvicorn:PicowsProtocol", "lifespan": "off", "log_config": None, **options}
        self.config = uvicorn.Config(self.application, **options)
        self.config.load()
        self.state = ServerState()
        self.state.default_headers = [(b"date", b"today"), *self.config.encoded_headers]
        self.app_state: dict[str, Any] = {}
        self.calls: asyncio.Queue[Call] = asyncio.Queue()
        self._all_calls: list[Call] = []

    async def application(self, scope: Any, receive: Any, send: Any) -> Any:
        call = Call(scope, receive, send)
        self._all_calls.append(call)
        self.calls.put_nowait(call)
        return await call.end

    def protocol(self) -> Any:
        return self.config.http_protocol_class(config=self.config, server_state=self.state, app_state=self.app_state)

    async def ended(self) -> None:
        while self.state.connections or self.state.tasks:
            await asyncio.sleep(0.001)

    def return_all(self) -> None:
        for call in self._all_calls:
            call.return_()


@contextlib.asynccontextmanager
async def serving(net: Network, **options: Any) -> AsyncIterator[Served]:
    served = Served(**options)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(served.protocol, "127.0.0.1", 0, ssl=server_tls() if net.tls else None)
    port = server.sockets[0].getsockname()[1]
    served.url = f"{'wss' if net.tls else 'ws'}://127.0.0.1:{port}/"
    try:
        yield served
    finally:
        served.return_all()
        server.close()
        await served.ended()


@contextlib.asynccontextmanager
async def asking(
    net: Network, target: bytes = b"/", headers: bytes = b"", **options: Any
) -> AsyncIterator[tuple[Served, Peer, Call]]:
    """A raw client that has asked for the upgrade, and the call of the application that is to answer."""
    async with serving(net, **options) as served, stream(net, served.url) as peer:
        peer.write(HEAD % target + headers + b"\r\n")
        call = await served.calls.get()
        yield served, peer, call
        served.return_all()


@contextlib.asynccontextmanager
async def accepted(net: Network, headers: bytes = b"", **options: Any) -> AsyncIterator[tuple[Served, Peer, Call]]:
    """The same when the application has accepted the connection."""
    async with asking(net, headers=headers, **options) as (served, peer, call):
        await call.accept()
        status, _ = await head_of(peer)
        assert status == 101
        yield served, peer, call


async def head_of(peer: Peer) -> tuple[int, list[tuple[str, str]]]:
    """Status and headers of the answer."""
    head = (await peer.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.split("\r\n")[:-2]
    version, status, *_ = first.split(" ")
    assert version == "HTTP/1.1"
    return int(status), [(name.lower(), value) for name, value in (line.split(": ", 1) for line in lines)]


async def answer_of(peer: Peer) -> tuple[int, dict[str, str], bytes]:
    """A whole answer that ends with the connection."""
    status, headers = await head_of(peer)
    assert len(dict(headers)) == len(headers), headers
    return status, dict(headers), await peer.reader.read()


async def closed_with(peer: Peer) -> bytes:
    """The payload of the CLOSE that comes next, and then the end."""
    frame = await peer.receive()
    assert frame.msg_type == CLOSE, frame
    return frame.payload


def binary(data: bytes) -> dict[str, Any]:
    return {"type": "websocket.send", "bytes": data}


def text(data: str) -> dict[str, Any]:
    return {"type": "websocket.send", "text": data}
