"""The application on our own server."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from http import HTTPStatus
from typing import Any, Union

from ..picows import WSListener
from ..server import WSServer, ws_create_server
from ..upgrade import WSUpgradeRequest, WSUpgradeResponse, WSUpgradeResponseWithListener
from . import status
from ._stream import WebStream
from .dispatch import Dispatcher
from .exceptions import WebSocketDisconnect
from .exchange import Exchange, exchange_of_request
from .responses import error_response
from .websocket import ExtraHeaders, Message

Decision = Union[WSListener, WSUpgradeResponseWithListener]

# What the engine needs of a connection.
_OPTIONS: dict[str, Any] = {"assemble_messages": True, "enable_auto_close": True}

# How many seconds handlers may take, once their connections have ended, before they are cancelled.
HANDLER_TIMEOUT = 6.0


class ServedChannel:
    """What is below a WebSocket on our own server: the stream of its messages."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        # The server waits for this one, and cancels it when it does so no longer.
        self.answer: asyncio.Future[Decision] = loop.create_future()
        self._stream = WebStream()
        self.receive: Callable[[], Coroutine[Any, Any, Message]] = self._stream.recv
        self.send: Callable[[Message], Coroutine[Any, Any, None]] = self._stream.send
        self.send_text: Callable[[Message], Coroutine[Any, Any, None]] = self._stream.send_text
        self.close: Callable[[int, str], Coroutine[Any, Any, None]] = self._stream.close

    @property
    def open(self) -> bool:
        transport = self._stream.transport
        return transport is not None and not (
            transport.is_close_frame_sent or transport.is_disconnected
        )

    def __aiter__(self) -> AsyncIterator[Message]:
        return self._stream

    async def accept(self, headers: ExtraHeaders, subprotocol: str | None) -> None:
        fields = list(headers)
        if subprotocol is not None:
            fields.append(("Sec-WebSocket-Protocol", subprotocol))
        decision: Decision = self._stream
        if fields:
            response = WSUpgradeResponse.create_101_response(fields)
            decision = WSUpgradeResponseWithListener(response, self._stream)
        await self._decide(decision)
        if self._stream.transport is None:
            raise WebSocketDisconnect(
                status.WS_1006_ABNORMAL_CLOSURE,
                "the client has gone, or was kept waiting for too long",
            )

    async def refuse(self, response: WSUpgradeResponse, close_code: int) -> None:
        await self._decide(WSUpgradeResponseWithListener(response, None))

    async def _decide(self, decision: Decision) -> None:
        if not self.answer.done():
            self.answer.set_result(decision)
            # The server is told by a callback of the future, which runs before this goes on.
            await asyncio.sleep(0)

    def abandon(self) -> None:
        """The handler was cancelled; for one that has ended there is nothing left to do."""
        transport = self._stream.transport
        if not self.answer.done():
            response = error_response(HTTPStatus.SERVICE_UNAVAILABLE)
            self.answer.set_result(WSUpgradeResponseWithListener(response, None))
        elif transport is not None and not transport.is_disconnected:
            transport.send_close(status.WS_1001_GOING_AWAY)
            transport.disconnect()


class Serving:
    """The handlers of an application that run on servers of our own."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._tasks: set[asyncio.Task[None]] = set()  # a loop holds them weakly

    async def serve(
        self, host: str | Sequence[str] | None, port: int | None, options: dict[str, Any]
    ) -> WSServer:
        return await ws_create_server(self.answer, host, port, **_OPTIONS, **options)

    def answer(self, request: WSUpgradeRequest) -> Awaitable[Decision]:
        """The listener factory of the servers."""
        exchange = exchange_of_request(request)
        if exchange.kind == "http":
            return self._page(exchange)
        loop = asyncio.get_running_loop()
        channel = ServedChannel(loop)
        # Not at once, as eager tasks would: the server has to wait for the answer before there is one.
        loop.call_soon(self._start, exchange, channel)
        return channel.answer

    async def _page(self, exchange: Exchange) -> Decision:
        return WSUpgradeResponseWithListener(await self._dispatcher.get(exchange), None)

    def _start(self, exchange: Exchange, channel: ServedChannel) -> None:
        task = asyncio.get_running_loop().create_task(self._handle(exchange, channel))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _handle(self, exchange: Exchange, channel: ServedChannel) -> None:
        try:
            await self._dispatcher.websocket(exchange, channel)
        finally:
            channel.abandon()

    async def serve_until_stopped(
        self, host: str | Sequence[str] | None, port: int | None, options: dict[str, Any]
    ) -> None:
        """Serve until SIGINT or SIGTERM; a second one does not wait for the clients."""
        loop = asyncio.get_running_loop()
        server = await self.serve(host, port, options)
        serving = loop.create_task(server.serve_forever())
        for signum in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(signum, serving.cancel)
        for sock in server.sockets:
            print(f"Listening on {url_of(sock.getsockname(), options.get('ssl'))}", flush=True)
        with contextlib.suppress(asyncio.CancelledError):
            await serving
        await self._end_handlers()

    async def _end_handlers(self) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=HANDLER_TIMEOUT)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)


def url_of(address: Any, tls: object) -> str:
    if isinstance(address, (str, bytes)):
        return f"unix socket {address!r}"
    host, port = address[:2]
    return f"{'http' if tls is None else 'https'}://{f'[{host}]' if ':' in host else host}:{port}/"
