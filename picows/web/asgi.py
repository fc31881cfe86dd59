"""The application under an ASGI server: asgi.readthedocs.io, version 3."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

from ..upgrade import WSUpgradeResponse
from . import status
from .dispatch import Dispatcher
from .exceptions import WebSocketDisconnect
from .exchange import exchange_of_scope, raw_headers
from .websocket import ExtraHeaders, Message

Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]

_DENIAL = "websocket.http.response"  # the extension: a rejection with a status and a body


async def serve_scope(
    dispatcher: Dispatcher, scope: dict[str, Any], receive: Receive, send: Send
) -> None:
    kind = scope["type"]
    if kind == "websocket":
        await receive()  # websocket.connect
        await dispatcher.websocket(exchange_of_scope(scope), ASGIChannel(scope, receive, send))
    elif kind == "http":
        response = await dispatcher.get(exchange_of_scope(scope))
        await respond("http.response", response, send)
    elif kind == "lifespan":
        await live(receive, send)
    else:
        raise ValueError(f"scope['type'] must be 'websocket', 'http' or 'lifespan', got {kind!r}")


async def live(receive: Receive, send: Send) -> None:
    """There is nothing to set up, and nothing to end."""
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return


async def respond(kind: str, response: WSUpgradeResponse, send: Send) -> None:
    body = response.body or b""
    headers = raw_headers(response.headers.items())
    # For a denial the server says how long it is, and some say so twice otherwise.
    if kind != _DENIAL and "Content-Length" not in response.headers and response.status != 204:
        headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": f"{kind}.start", "status": int(response.status), "headers": headers})
    await send({"type": f"{kind}.body", "body": body})


class ASGIChannel:
    """What is below a WebSocket under an ASGI server. The server keeps what waits, both ways."""

    def __init__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        self.open: bool = False
        self._denies = _DENIAL in (scope.get("extensions") or {})
        self._receive = receive
        self._send = send
        self._end: tuple[int, str] | None = None

    async def accept(self, headers: ExtraHeaders, subprotocol: str | None) -> None:
        fields = raw_headers(headers)
        event = {"type": "websocket.accept", "subprotocol": subprotocol, "headers": fields}
        await self._tell(event)
        self.open = True

    async def refuse(self, response: WSUpgradeResponse, close_code: int) -> None:
        if self._denies and response.body:
            await respond(_DENIAL, response, self._tell)
        else:
            await self._tell({"type": "websocket.close", "code": close_code})

    async def receive(self) -> Message:
        if self._end is None:
            event = await self._receive()
            if event["type"] == "websocket.receive":
                text: str | None = event.get("text")
                data: Message = event["bytes"] if text is None else text
                return data
            self.open = False
            code = event.get("code", status.WS_1005_NO_STATUS)
            self._end = code, event.get("reason") or ""
        raise WebSocketDisconnect(*self._end)

    async def send(self, message: Message) -> None:
        if isinstance(message, str):
            await self._send_open({"type": "websocket.send", "text": message})
        else:
            # Whatever our own server takes; anything else is a TypeError there as well.
            await self._send_open({"type": "websocket.send", "bytes": bytes(memoryview(message))})

    async def send_text(self, message: Message) -> None:
        await self.send(message if isinstance(message, str) else message.decode())

    async def __aiter__(self) -> AsyncIterator[Message]:
        try:
            while True:
                yield await self.receive()
        except WebSocketDisconnect:
            return

    async def close(self, code: int, reason: str) -> None:
        self.open = False
        self._end = code, reason
        await self._tell({"type": "websocket.close", "code": code, "reason": reason})

    async def _send_open(self, event: Event) -> None:
        if not self.open:
            raise WebSocketDisconnect(*(self._end or (status.WS_1006_ABNORMAL_CLOSURE,)))
        await self._tell(event)

    async def _tell(self, event: Event) -> None:
        try:
            await self._send(event)
        except OSError as error:
            # What servers raise when the client has gone. How it went is told by what can still be received.
            self.open = False
            raise WebSocketDisconnect(status.WS_1006_ABNORMAL_CLOSURE) from error
