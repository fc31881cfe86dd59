"""A user's program that has to pass mypy --strict; it is checked, not run."""

from __future__ import annotations

import asyncio
import logging
import ssl

import picows
from picows import (
    PICOWS_DEBUG_LL,
    WSAutoPingStrategy,
    WSBackoff,
    WSCloseCode,
    WSCloseHandshake,
    WSCloseInfo,
    WSFrame,
    WSHandshakeError,
    WSInvalidStatusError,
    WSListener,
    WSMsgType,
    WSProtocolError,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
    busy_poll,
    ws_connect,
    ws_create_server,
    ws_reconnect,
)
from picows.web import ASGIScope, ASyncApp, Route, WebSocket, WebSocketDisconnect, status


class Client(WSListener):
    transport: WSTransport

    def __init__(self) -> None:
        self.views: list[memoryview] = []

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport
        transport.send(WSMsgType.TEXT, "text")
        transport.send(WSMsgType.BINARY, bytearray(b"bytes"), fin=False, rsv1=False)
        transport.send(WSMsgType.CONTINUATION, None)
        transport.send_reuse_external_bytearray(WSMsgType.BINARY, bytearray(20), 14)
        taken: bool = transport.send_latest(("EURUSD", 1), WSMsgType.TEXT, "1.08", compress=False)
        rtt: float = transport.stats().roundtrip_time
        print(taken, rtt, picows.ws_broadcast([transport], WSMsgType.TEXT, "1.08", latest="EURUSD"))
        transport.send_ping()
        transport.send_pong(memoryview(b"pong"))

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        self.views.append(frame.get_payload_as_memoryview())
        self.views.append(memoryview(frame))
        transport.send(frame.msg_type, frame, frame.fin)
        sizes: tuple[int, int, bool] = (frame.payload_size, frame.tail_size, frame.last_in_buffer)
        text: str = frame.get_payload_as_utf8_text() + frame.get_payload_as_ascii_text()
        payload: bytes = frame.get_payload_as_bytes()
        print(sizes, text, payload, frame.rsv1, frame.rsv2, frame.rsv3)
        if frame.msg_type == WSMsgType.CLOSE:
            code: int = frame.get_close_code()
            message: bytes | None = frame.get_close_message()
            reason: str | None = frame.get_close_reason()
            ended: tuple[int | None, str | None] = transport.close_code, transport.close_reason
            print(reason, ended)
            transport.send_close(code, message)
            transport.send_close(3000, "a private code")
            transport.disconnect(graceful=False)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        handshake: WSCloseHandshake | None = transport.close_handshake
        if handshake is not None and handshake.recv is not None:
            info: WSCloseInfo = handshake.recv
            code: WSCloseCode | int = info.code
            print(code, info.reason, handshake.recv_then_sent)

    def send_user_specific_ping(self, transport: WSTransport) -> None:
        transport.send_ping(b"ping")

    def is_user_specific_pong(self, frame: WSFrame) -> bool:
        return frame.msg_type == WSMsgType.PONG

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...


def route(request: WSUpgradeRequest) -> WSListener | WSUpgradeResponseWithListener | None:
    method: bytes = request.method
    print(method, request.path, request.version, request.headers.get("Host"))
    if request.path == b"/health":
        return WSUpgradeResponseWithListener(WSUpgradeResponse.create_ok_response(b"fine"), None)
    if request.path == b"/custom":
        response = WSUpgradeResponse.create_101_response({"X-Server": "picows"})
        return WSUpgradeResponseWithListener(response, Client())
    return Client() if request.path == b"/" else None


def with_response(request: WSUpgradeRequest, response: WSUpgradeResponse) -> Client:
    print(response.status, response.version, response.headers, response.body)
    return Client()


async def main() -> None:
    logging.basicConfig(level=PICOWS_DEBUG_LL)
    server: asyncio.AbstractServer = await ws_create_server(
        route, "127.0.0.1", 9001, ssl=ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), backlog=10
    )
    try:
        transport, listener = await ws_connect(
            Client,
            "wss://127.0.0.1:9001/",
            ssl_context=ssl.create_default_context(),
            enable_auto_ping=True,
            auto_ping_strategy=WSAutoPingStrategy.PING_PERIODICALLY,
            extra_headers={"Authorization": "Bearer token"},
            logger_name=logging.getLogger("mine"),
        )
        await ws_connect(with_response, "ws://127.0.0.1:9001/", proxy="socks5://127.0.0.1:1080", use_aiofastnet=False)
    except WSInvalidStatusError as error:
        print(error.response.status if error.response is not None else None)
    except WSHandshakeError as error:
        print(error.raw_header, error.raw_body)
    else:
        own: WSListener = listener
        seconds: list[float] = await transport.measure_roundtrip_time(3)
        lower: asyncio.Transport = transport.underlying_transport
        print(own, min(seconds), lower.get_extra_info("peername"), transport.request.path, transport.response.status)
        try:
            await transport.wait_disconnected()
        except WSProtocolError as error:
            print(error.code, error.message)
    server.close()
    print(picows.__version__)


async def judge(error: Exception) -> bool | None:
    return isinstance(error, WSInvalidStatusError) or None


async def stay_connected() -> None:
    with busy_poll(), busy_poll(asyncio.get_running_loop()):
        await asyncio.sleep(1)
    backoff = WSBackoff(initial=0.5, jitter=None)
    async for transport, listener in ws_reconnect(Client, "ws://127.0.0.1/", backoff=backoff, max_frame_size=10):
        own: Client = listener
        await transport.wait_disconnected()
        print(own)
    async with ws_reconnect(with_response, "ws://127.0.0.1/", retry=judge) as connections:
        async for transport, _ in connections:
            print(transport, next(backoff.delays()))
            await connections.aclose()


async def handler(ws: WebSocket, room: str, n: int, scope: ASGIScope) -> None:
    await ws.connect("chat" if "chat" in ws.subprotocols else None)
    try:
        message: str | bytes = await asyncio.wait_for(ws.receive(), 5)
        await asyncio.create_task(ws.send(message))
        await ws.send_json({"room": room, "n": n, "path": scope["path"], "client": ws.client})
        async for other in ws:
            print(len(other))
    except WebSocketDisconnect as end:
        code: int = end.code
        print(code, end.reason, ws.query_params.get("q"), ws.headers["Host"])
    await ws.close(status.WS_1001_GOING_AWAY)


app = ASyncApp([Route("/{room}/{n:int}", handler), Route("/", "GET", lambda: "page", name="page")], event_hooks=[object()])


async def serve_web() -> None:
    web_server: picows.WSServer = await app.serve("127.0.0.1", 0, max_message_size=1000)
    await web_server.wait_closed()
