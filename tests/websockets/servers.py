"""Servers of the dialect of `websockets`, and clients for them: raw ones, and those of the package where it is installed."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
from collections.abc import AsyncIterator
from typing import Any

from picows.websockets.asyncio.server import Server, serve
from tests.connection.networks import Network
from tests.connection.peers import REQUEST, Peer
from tests.connection.proxies import client_tls, server_tls


def _is_installed() -> bool:
    try:
        version: str = importlib.import_module("websockets").__version__
    except ImportError:
        return False
    return int(version.partition(".")[0]) >= 17


# The version that `picows.websockets` follows; an older one is as good as none.
INSTALLED = _is_installed()

# The package's own client is the peer to please.
connect: Any = importlib.import_module(f"{'' if INSTALLED else 'picows.'}websockets.asyncio.client").connect


async def echo(ws: Any) -> None:
    async for message in ws:
        await ws.send(message)


def port_of(server: Server) -> int:
    return int(server.sockets[0].getsockname()[1])


def url_of(server: Server) -> str:
    return f"ws://127.0.0.1:{port_of(server)}/"


@contextlib.asynccontextmanager
async def running(net: Network, handler: Any = echo, **options: Any) -> AsyncIterator[tuple[Server, str]]:
    """A server, and its URL."""
    if net.tls:
        options.setdefault("ssl", server_tls())
    async with serve(handler, "127.0.0.1", 0, **options) as server:
        url = url_of(server)
        yield server, url.replace("ws:", "wss:") if net.tls else url


@contextlib.asynccontextmanager
async def client(url: str, **options: Any) -> AsyncIterator[Any]:
    if url.startswith("wss"):
        options["ssl"] = client_tls()
    async with connect(url, proxy=None, **options) as ws:
        yield ws


def request(*headers: str, path: str = "/") -> bytes:
    lines = "".join(f"{header}\r\n" for header in headers)
    return REQUEST.replace(b"GET / ", f"GET {path} ".encode()).replace(b"\r\n\r\n", f"\r\n{lines}\r\n".encode())


@contextlib.asynccontextmanager
async def asking(server: Server, data: bytes) -> AsyncIterator[Peer]:
    """A raw client that has sent `data`."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
    peer = Peer(reader, writer, masks=True)
    peer.write(data)
    try:
        yield peer
    finally:
        await peer.close()


async def head_of(peer: Peer) -> str:
    return (await peer.reader.readuntil(b"\r\n\r\n")).decode()


async def answer(server: Server, data: bytes) -> tuple[int, dict[str, str], str]:
    """The status, the headers and the body of the response to a request that is refused."""
    async with asking(server, data) as peer:
        head, _, body = (await peer.reader.read()).decode().partition("\r\n\r\n")
    status, *lines = head.split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    assert int(headers["Content-Length"]) == len(body.encode())
    return int(status.split()[1]), headers, body
