"""Servers of ws_create_server, and raw clients of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

from picows import WSMsgType, WSServer, WSTransport, ws_create_server
from tests.connection.networks import Network, Recorder
from tests.connection.peers import REQUEST, Peer, stream
from tests.connection.proxies import server_tls


class Served(NamedTuple):
    server: WSServer
    url: str
    listeners: list[Any]  # in the order of their connections


@contextlib.asynccontextmanager
async def serving(net: Network, listener: Callable[[], Any] = Recorder, **options: Any) -> AsyncIterator[Served]:
    listeners: list[Any] = []

    def factory(request: object) -> Any:
        listeners.append(listener())
        return listeners[-1]

    if net.tls:
        options.setdefault("ssl", server_tls())
    server = await ws_create_server(factory, "127.0.0.1", 0, use_aiofastnet=net.fast, **options)
    port = server.sockets[0].getsockname()[1]
    try:
        yield Served(server, f"{'wss' if net.tls else 'ws'}://127.0.0.1:{port}/", listeners)
    finally:
        server.close()
        server.abort_clients()
        await server.wait_closed()


@contextlib.asynccontextmanager
async def upgraded(net: Network, served: Served) -> AsyncIterator[Peer]:
    """A raw client that has read the server's answer to its request."""
    async with stream(net, served.url) as peer:
        peer.write(REQUEST)
        await peer.reader.readuntil(b"\r\n\r\n")
        yield peer


async def handshake_begun(net: Network, served: Served, peer: Peer) -> None:
    """A client has sent part of its request, and the server has read it."""
    peer.write(REQUEST[:20])
    if net.tls:
        return
    # Those who come later were accepted behind it.
    async with upgraded(net, served):
        pass


async def turned_away(url: str) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", int(url.split(":")[2].strip("/")))
    except OSError:
        return True
    writer.close()
    return False


def block(transport: WSTransport) -> None:
    """Send until the kernel and the transport hold more than a peer that does not read will take."""
    transport.send(WSMsgType.BINARY, bytes(16 << 20))
    assert transport.write_buffer_size > 0


def leave(peer: Peer) -> None:
    """Without reading what has come: before Python 3.11 asyncio's TLS waits for that to close."""
    peer.writer.transport.abort()


async def all_frames(peer: Peer) -> list[Any]:
    """Read to the end, and leave."""
    frames = await peer.receive_all()
    await peer.close()
    return frames
