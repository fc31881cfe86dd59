"""The coroutine interfaces that examples/benchmark_coroutines.py compares, each as a server and as a client.

Each is set up for the same work: no limit of size, no logs, and compression and pings only where they are what a case is
about. Only one of them is installed where this runs, so each is imported where it is used.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import socket
import ssl
from collections.abc import Awaitable
from typing import Any, Callable

from benchmark_libraries import Exchange, Run, pump


async def serve_websockets(package: str, sock: socket.socket, tls: ssl.SSLContext | None, mode: str) -> Any:
    """By the package websockets, or one with its API; mode: echo, json (compressed), or pings and their interval in seconds."""
    serve = importlib.import_module(f"{package}.asyncio.server").serve

    async def echo(connection: Any) -> None:
        async for message in connection:
            await connection.send(message)

    compression = "deflate" if mode == "json" else None
    interval = float(mode.split()[1]) if mode.startswith("pings") else None
    return await serve(echo, sock=sock, ssl=tls, compression=compression, max_size=None, ping_interval=interval)


async def connect_websockets(package: str, url: str, tls: ssl.SSLContext | None, exchange: Exchange) -> Run:
    connect = importlib.import_module(f"{package}.asyncio.client").connect
    client = await connect(url, ssl=tls, compression=None, max_size=None, ping_interval=None)
    return functools.partial(pump, exchange, client.send, client.recv)


async def connect_websocket_rs(url: str, tls: ssl.SSLContext | None, exchange: Exchange) -> Run:
    """It sends without being awaited."""
    import websocket_rs

    client = await websocket_rs.connect(url, ssl_context=tls)
    message = bytes(exchange.size)

    async def run(seconds: float) -> int:
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        started = finished = 0
        while started == 0 or loop.time() < end:
            while started - finished < exchange.in_flight:
                started += 1
                for _ in range(exchange.out):
                    client.send(message)
            finished += 1
            for _ in range(exchange.back):
                await client.recv()
        for _ in range((started - finished) * exchange.back):
            await client.recv()
        return started

    return run


async def no_server(sock: socket.socket, tls: ssl.SSLContext | None, mode: str) -> None:
    return None


async def no_client(url: str, tls: ssl.SSLContext | None, exchange: Exchange) -> Run:
    raise NotImplementedError


async def serve_web(sock: socket.socket, tls: ssl.SSLContext | None, mode: str) -> Any:
    from picows.web import ASyncApp, Route, WebSocket

    async def echo(ws: WebSocket) -> None:
        await ws.connect()
        async for message in ws:
            await ws.send(message)

    # The annotation is a string here, and its name is known in this function only.
    echo.__annotations__["ws"] = WebSocket
    return await ASyncApp([Route("/", echo)]).serve(None, None, sock=sock, ssl=tls)


async def asgi_echo(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while True:
        event = await receive()
        if event["type"] == "websocket.disconnect":
            return
        await send({"type": "websocket.send", "bytes": event["bytes"]})


def starlette_echo() -> Any:
    from starlette.applications import Starlette
    from starlette.routing import WebSocketRoute
    from starlette.websockets import WebSocket

    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()
        async for message in websocket.iter_bytes():
            await websocket.send_bytes(message)

    return Starlette(routes=[WebSocketRoute("/", echo)])


async def serve_uvicorn(ws: str, sock: socket.socket, tls: ssl.SSLContext | None, mode: str) -> Any:
    """By a WebSocket class of uvicorn; mode: asgi or starlette."""
    import uvicorn

    config = uvicorn.Config(
        starlette_echo() if mode == "starlette" else asgi_echo,
        ws=ws,
        http="httptools",
        lifespan="off",
        log_config=None,
        log_level="critical",
        access_log=False,
        ws_max_size=1 << 30,
        ws_ping_interval=None,
        ws_per_message_deflate=False,
    )
    server = uvicorn.Server(config)
    task = asyncio.ensure_future(server.serve(sockets=[sock]))
    while not server.started and not task.done():
        await asyncio.sleep(0.01)
    return task


def like_websockets(package: str) -> tuple[Callable[..., Awaitable[Any]], Callable[..., Awaitable[Run]]]:
    return functools.partial(serve_websockets, package), functools.partial(connect_websockets, package)


COROUTINES: dict[str, tuple[Callable[..., Awaitable[Any]], Callable[..., Awaitable[Run]]]] = {
    "websockets.asyncio": like_websockets("websockets"),
    "picows.websockets": like_websockets("picows.websockets"),
    "picows.web": (serve_web, no_client),
    "websocket_rs": (no_server, connect_websocket_rs),
    "uvicorn picows": (functools.partial(serve_uvicorn, "picows.uvicorn:PicowsProtocol"), no_client),
    **{f"uvicorn {ws}": (functools.partial(serve_uvicorn, ws), no_client) for ws in ("websockets", "websockets-sansio", "wsproto")},
}
