"""The libraries that examples/benchmark.py compares, each as a server and as a client.

Each is set up for the same work: no compression, no limit of size, no pings of its own, no logs. Only one of them is
installed where this runs, so each is imported where it is used.
"""

from __future__ import annotations

import asyncio
import functools
import re
import socket
import ssl
from collections.abc import Awaitable
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Callable

HOST = "127.0.0.1"
NO_LIMIT = 1 << 40  # bytes, where a number has to be said

# What a server does with a message: send it back, or to everybody, by the library's own function for that or one by one.
ECHO, BROADCAST, SEND_TO_ALL = "echo", "broadcast", "send to all"

Run = Callable[[float], Awaitable[int]]  # seconds -> how often the exchange took place


@dataclass(frozen=True)
class Exchange:
    """What a client repeats: it sends `out` messages of `size` bytes and waits for `back` messages."""

    out: int
    size: int
    back: int
    in_flight: int = 1  # so many of these at a time


class Pump:
    """Repeats an exchange for a library that calls back: on a message lower `due`, and call `step` when it is 0."""

    due: int

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.message = bytes(exchange.size)

    def send_messages(self) -> None:
        raise NotImplementedError

    def run(self, seconds: float) -> asyncio.Future[int]:
        self.end = perf_counter() + seconds
        self.steps = 0
        self.in_flight = self.exchange.in_flight
        self.due = self.exchange.back
        self.finished = asyncio.get_running_loop().create_future()
        for _ in range(self.in_flight):
            self.send_messages()
        return self.finished

    def step(self) -> None:
        self.steps += 1
        self.due = self.exchange.back
        if perf_counter() < self.end:
            self.send_messages()
        else:
            self.in_flight -= 1
            if not self.in_flight:
                self.finished.set_result(self.steps)


async def pump(
    exchange: Exchange, send: Callable[[bytes], Awaitable[Any]], receive: Callable[[], Awaitable[Any]], seconds: float
) -> int:
    """The same for a library of coroutines."""
    message = bytes(exchange.size)
    end = perf_counter() + seconds
    started = finished = 0
    while started == 0 or perf_counter() < end:
        while started - finished < exchange.in_flight:
            started += 1
            for _ in range(exchange.out):
                await send(message)
        finished += 1
        for _ in range(exchange.back):
            await receive()
    for _ in range((started - finished) * exchange.back):
        await receive()
    return started


async def serve_picows(sock: socket.socket, tls: ssl.SSLContext | None, mode: str, **options: Any) -> Any:
    import picows
    from picows import WSFrame, WSListener, WSMsgType, WSTransport

    broadcast: Any = getattr(picows, "ws_broadcast", None)  # the published version has none
    transports: set[WSTransport] = set()

    class Echo(WSListener):
        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            if frame.msg_type == WSMsgType.CLOSE:
                transport.send_close(frame.get_close_code())
                transport.disconnect()
            else:
                transport.send(frame.msg_type, frame.get_payload_as_memoryview())

    class Everybody(WSListener):
        def on_ws_connected(self, transport: WSTransport) -> None:
            transports.add(transport)

        def on_ws_disconnected(self, transport: WSTransport) -> None:
            transports.discard(transport)

    class Broadcast(Everybody):
        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            broadcast(transports, frame.msg_type, frame.get_payload_as_bytes())

    class SendToAll(Everybody):
        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            message = frame.get_payload_as_bytes()
            for each in transports:
                each.send(WSMsgType.BINARY, message)

    if mode == BROADCAST and broadcast is None:
        return None
    listener = {ECHO: Echo, BROADCAST: Broadcast, SEND_TO_ALL: SendToAll}[mode]
    return await picows.ws_create_server(lambda request: listener(), sock=sock, ssl=tls, **options)


async def connect_picows(url: str, tls: ssl.SSLContext | None, exchange: Exchange, **options: Any) -> Run:
    from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

    class Client(WSListener, Pump):
        def send_messages(self) -> None:
            for _ in range(exchange.out):
                transport.send(WSMsgType.BINARY, self.message)

        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            self.due -= 1
            if not self.due:
                self.step()

    client = Client(exchange)
    transport, _ = await ws_connect(lambda: client, url, ssl_context=tls, **options)
    return client.run


async def serve_websockets(sock: socket.socket, tls: ssl.SSLContext | None, mode: str) -> Any:
    from websockets.asyncio.server import ServerConnection, broadcast, serve

    connections: set[ServerConnection] = set()

    async def echo(connection: ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    async def publish(connection: ServerConnection) -> None:
        connections.add(connection)
        async for message in connection:
            if mode == BROADCAST:
                broadcast(connections, message)
            else:
                for each in connections:
                    await each.send(message)

    handler = echo if mode == ECHO else publish
    return await serve(handler, sock=sock, ssl=tls, compression=None, max_size=None, ping_interval=None)


async def connect_websockets(url: str, tls: ssl.SSLContext | None, exchange: Exchange) -> Run:
    from websockets.asyncio.client import connect

    client = await connect(url, ssl=tls, compression=None, max_size=None, ping_interval=None)
    return functools.partial(pump, exchange, client.send, client.recv)


async def serve_aiohttp(sock: socket.socket, tls: ssl.SSLContext | None, mode: str) -> Any:
    from aiohttp import web

    connections: set[web.WebSocketResponse] = set()

    async def handler(request: web.Request) -> web.WebSocketResponse:
        connection = web.WebSocketResponse(max_msg_size=0, compress=False)
        await connection.prepare(request)
        connections.add(connection)
        async for message in connection:
            for each in (connection,) if mode == ECHO else connections:
                await each.send_bytes(message.data)
        connections.discard(connection)
        return connection

    if mode == BROADCAST:
        return None
    app = web.Application()
    app.router.add_get("/", handler)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.SockSite(runner, sock, ssl_context=tls).start()
    return runner


async def connect_aiohttp(url: str, tls: ssl.SSLContext | None, exchange: Exchange) -> Run:
    import aiohttp

    session = aiohttp.ClientSession()
    client = await session.ws_connect(url, ssl=tls or True, max_msg_size=0, compress=0)
    return functools.partial(pump, exchange, client.send_bytes, client.receive_bytes)


async def serve_tornado(sock: socket.socket, tls: ssl.SSLContext | None, mode: str) -> Any:
    from tornado import httpserver, web, websocket

    connections: set[websocket.WebSocketHandler] = set()

    class Handler(websocket.WebSocketHandler):
        def open(self) -> None:
            self.set_nodelay(True)
            connections.add(self)

        def on_close(self) -> None:
            connections.discard(self)

        def on_message(self, message: bytes) -> None:
            for each in (self,) if mode == ECHO else connections:
                each.write_message(message, binary=True)

    if mode == BROADCAST:
        return None
    server = httpserver.HTTPServer(web.Application([("/", Handler)]), ssl_options=tls)
    server.add_socket(sock)
    return server


async def connect_tornado(url: str, tls: ssl.SSLContext | None, exchange: Exchange) -> Run:
    from tornado import httpclient, websocket

    client = await websocket.websocket_connect(httpclient.HTTPRequest(url, ssl_options=tls))
    return functools.partial(pump, exchange, functools.partial(client.write_message, binary=True), client.read_message)


def wsproto_protocol() -> type[Any]:
    """wsproto does no input or output: this is the least that connects it to asyncio. One read, at most one write."""
    from wsproto import ConnectionType, WSConnection, events

    class Connection(asyncio.Protocol):
        role = ConnectionType.SERVER
        transport: asyncio.Transport

        def __init__(self) -> None:
            self.websocket = WSConnection(self.role)
            self.parts: list[bytes] = []
            self.unsent: list[bytes] = []

        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def on_accepted(self) -> None: ...

        def on_message(self, message: bytes) -> None:
            raise NotImplementedError

        def send(self, message: bytes) -> None:
            self.unsent.append(self.websocket.send(events.BytesMessage(message)))

        def flush(self) -> None:
            self.transport.write(b"".join(self.unsent))
            self.unsent.clear()

        def data_received(self, data: bytes) -> None:
            self.websocket.receive_data(data)
            for event in self.websocket.events():
                if isinstance(event, events.BytesMessage):
                    self.parts.append(event.data)
                    if event.message_finished:
                        self.on_message(self.parts[0] if len(self.parts) == 1 else b"".join(self.parts))
                        self.parts.clear()
                elif isinstance(event, events.Request):
                    self.unsent.append(self.websocket.send(events.AcceptConnection()))
                elif isinstance(event, events.AcceptConnection):
                    self.on_accepted()
                elif isinstance(event, (events.CloseConnection, events.Ping)):
                    self.unsent.append(self.websocket.send(event.response()))
            if self.unsent:
                self.flush()

    return Connection


async def serve_wsproto(sock: socket.socket, tls: ssl.SSLContext | None, mode: str) -> Any:
    connection_class = wsproto_protocol()
    connections: set[Any] = set()

    class Server(connection_class):  # type: ignore[misc,valid-type]
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            connections.add(self)

        def connection_lost(self, exc: Exception | None) -> None:
            connections.discard(self)

        def on_message(self, message: bytes) -> None:
            if mode == ECHO:
                self.send(message)
                return
            for each in connections:
                each.send(message)
                each.flush()

    if mode == BROADCAST:
        return None
    return await asyncio.get_running_loop().create_server(Server, sock=sock, ssl=tls)


async def connect_wsproto(url: str, tls: ssl.SSLContext | None, exchange: Exchange) -> Run:
    from wsproto import ConnectionType, events

    connection_class = wsproto_protocol()
    accepted = asyncio.get_running_loop().create_future()
    port, path = re.findall(r":(\d+)(/.*)", url)[0]

    class Client(connection_class, Pump):  # type: ignore[misc,valid-type]
        role = ConnectionType.CLIENT

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            transport.write(self.websocket.send(events.Request(host=f"{HOST}:{port}", target=path)))

        def on_accepted(self) -> None:
            accepted.set_result(None)

        def on_message(self, message: bytes) -> None:
            self.due -= 1
            if not self.due:
                self.step()

        def send_messages(self) -> None:
            for _ in range(exchange.out):
                self.send(self.message)
            self.flush()

    _, client = await asyncio.get_running_loop().create_connection(Client, HOST, int(port), ssl=tls)
    Pump.__init__(client, exchange)
    await accepted
    run: Run = client.run
    return run


LIBRARIES: dict[str, tuple[Callable[..., Awaitable[Any]], Callable[..., Awaitable[Run]]]] = {
    "picows": (serve_picows, connect_picows),
    # Whole and checked messages, as all the others deliver; frames as they come are what it does otherwise.
    "picows messages": (
        functools.partial(serve_picows, assemble_messages=True, max_message_size=NO_LIMIT),
        functools.partial(connect_picows, assemble_messages=True, max_message_size=NO_LIMIT),
    ),
    "websockets": (serve_websockets, connect_websockets),
    "aiohttp": (serve_aiohttp, connect_aiohttp),
    "tornado": (serve_tornado, connect_tornado),
    "wsproto": (serve_wsproto, connect_wsproto),
}
