"""What a program of `websockets` may do with a client, run by theirs and by ours against a server of theirs."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from tests.connection.networks import Network
from tests.connection.proxies import client_tls, server_tls

pytest.importorskip("websockets", minversion="17", reason="picows.websockets does what websockets 17 does")
theirs = importlib.import_module("websockets.asyncio.client")
ours = importlib.import_module("picows.websockets.asyncio.client")
CLIENTS = {"theirs": theirs, "ours": ours}

Handler = Callable[[Any], Awaitable[None]]


@contextlib.asynccontextmanager
async def their_server(net: Network, handler: Handler, **options: Any) -> AsyncIterator[str]:
    from websockets.asyncio.server import serve

    options.setdefault("ping_interval", None)
    async with serve(handler, "127.0.0.1", 0, ssl=server_tls() if net.tls else None, **options) as server:
        yield f"{'wss' if net.tls else 'ws'}://127.0.0.1:{server.sockets[0].getsockname()[1]}/path?query=1"


def tls_options(net: Network) -> dict[str, Any]:
    return {"ssl": client_tls()} if net.tls else {}


async def echo(ws: Any) -> None:
    with contextlib.suppress(Exception):
        async for message in ws:
            await ws.send(message)


async def on_command(ws: Any) -> None:
    """Does what the client says."""
    with contextlib.suppress(Exception):
        async for message in ws:
            if message == "close":
                await ws.send("before the end")
                await ws.close(3001, "why")
            elif message == "close without a code":
                ws.transport.write(b"\x88\x00")
            elif message == "break the protocol":
                ws.transport.write(b"\xff\x00")
            elif message == "drop":
                ws.transport.abort()
            elif message == "fragments":
                await ws.send(["frag", "ments"])
            else:
                await ws.send(message)


async def outcome(awaitable: Awaitable[Any]) -> Any:
    """What it returns, or what it raises, as one can compare it."""
    try:
        return await awaitable
    except Exception as exc:
        return shown(exc)


def shown(exc: BaseException) -> Any:
    if hasattr(exc, "rcvd"):
        closes = tuple(close and (int(close.code), reason_of(close)) for close in (exc.rcvd, exc.sent))
        return type(exc).__name__, *closes, exc.rcvd_then_sent, type(exc.__cause__).__name__
    return type(exc).__name__


def reason_of(close: Any) -> str:
    """What we say of a peer's fault is said in words of our own."""
    return "..." if close.code in (1002, 1007, 1009) else str(close.reason)


async def told_by_both(net: Network, handler: Handler, scenario: Callable[[Any], Awaitable[list[Any]]], **options: Any) -> None:
    """A scenario tells the same of both clients."""
    told = {}
    for name, client in CLIENTS.items():
        async with their_server(net, handler) as url:
            ws = await client.connect(url, **options, **tls_options(net))
            try:
                told[name] = await asyncio.wait_for(scenario(ws), 10)
                told[name] += [int(ws.state), ws.close_code, ws.close_code and "..." and ws.close_reason]
            finally:
                await ws.close()
    assert told["ours"] == told["theirs"], f"{told['ours']!r} and {told['theirs']!r}"
