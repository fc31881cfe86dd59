"""The class as somebody drives it who has built it by hand, with a transport that never learns of the upgrade."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import pytest

from picows.uvicorn import PicowsProtocol
from tests.connection.networks import Network
from tests.connection.peers import CLOSE, PONG, TEXT, encode
from tests.uvicorn.serving import ACCEPT, CONNECT, HEAD, Call, Served, text, uvicorn

REQUEST = HEAD.lower().replace(b"get", b"GET").replace(b"http/", b"HTTP/").replace(b"dghlihnhbxbszsbub25jzq==", b"x" * 22 + b"==")


class Transport:
    def __init__(self) -> None:
        self.written = b""
        self.closed = False

    def get_extra_info(self, name: str, default: object = None) -> object:
        return {"peername": ("127.0.0.1", 1234), "sockname": ("127.0.0.1", 80)}.get(name, default)

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        pass

    resume_reading = pause_reading

    def taken(self) -> bytes:
        written, self.written = self.written, b""
        return written


def built(served: Served, **attributes: Any) -> tuple[Any, Transport]:
    protocol = PicowsProtocol(config=served.config, server_state=served.state)
    for name, value in attributes.items():
        setattr(protocol, name, value)
    transport: Any = Transport()
    protocol.connection_made(transport)
    return protocol, transport


async def accepted(served: Served, **attributes: Any) -> tuple[Any, Transport, Call]:
    protocol, transport = built(served, **attributes)
    protocol.data_received(REQUEST % b"/" + b"\r\n")
    call = await served.calls.get()
    assert await call.receive() == CONNECT
    await call.send(ACCEPT)
    assert transport.taken().startswith(b"HTTP/1.1 101 ")
    return protocol, transport, call


async def end(served: Served, protocol: Any) -> None:
    protocol.connection_lost(None)
    served.return_all()
    await served.ended()


def frame(payload: bytes) -> bytes:
    return encode(TEXT, payload, mask=False)


def test_bytes_are_taken_from_a_transport_that_still_calls_the_class(net: Network) -> None:
    async def test() -> None:
        served = Served()
        protocol, transport, call = await accepted(served)
        data = encode(TEXT, b"in pieces", mask=True)
        protocol.data_received(data[:5])
        protocol.data_received(data[5:] + encode(TEXT, b"x" * 500_000, mask=True))
        assert (await call.receive())["text"] == "in pieces"
        assert (await call.receive())["text"] == "x" * 500_000
        protocol.pause_writing()
        sending = asyncio.create_task(call.send(text("slow")))
        await asyncio.sleep(0)
        assert not sending.done()
        protocol.resume_writing()
        await sending
        assert transport.taken() == frame(b"slow")
        protocol.pause_writing()
        sending = asyncio.create_task(call.send(text("too slow")))
        await asyncio.sleep(0)
        protocol.connection_lost(ConnectionResetError())
        with pytest.raises(OSError, match=r"^$"):
            await sending
        assert await call.receive() == {"type": "websocket.disconnect", "code": 1006}
        await end(served, protocol)

    net.run(test())


def test_a_request_may_come_in_pieces_and_to_a_config_that_nobody_has_loaded(net: Network) -> None:
    async def test() -> None:
        served = Served()
        served.config = uvicorn.Config(served.application, ws=PicowsProtocol, interface="asgi3", log_config=None)
        protocol, transport = built(served)
        request = REQUEST % b"/" + b"\r\n"
        for at in range(len(request)):
            assert served.calls.empty()
            protocol.data_received(request[at : at + 1])
        call = await served.calls.get()
        await call.accept()
        assert transport.taken().startswith(b"HTTP/1.1 101 ")
        await end(served, protocol)

    net.run(test())


def test_a_request_that_was_refused_is_answered_once(net: Network) -> None:
    async def test() -> None:
        served = Served()
        protocol, transport = built(served)
        protocol.data_received(b"POST / HTTP/1.1\r\n\r\n")
        assert transport.taken().startswith(b"HTTP/1.1 405 ")
        assert transport.closed
        protocol.data_received(REQUEST % b"/" + b"\r\n")
        assert transport.taken() == b""
        await end(served, protocol)
        assert served.calls.empty()

    net.run(test())


def test_a_client_that_says_no_more_is_gone(net: Network) -> None:
    async def test() -> None:
        served = Served()
        protocol, transport, call = await accepted(served)
        assert not protocol.eof_received()  # the transport closes by itself
        with pytest.raises(OSError, match=r"^$"):
            await call.send(text("late"))
        assert transport.taken() == b""
        protocol.connection_lost(None)
        assert await call.receive() == {"type": "websocket.disconnect", "code": 1006}
        await end(served, protocol)

    net.run(test())


def test_the_end_is_seen_with_the_data_before_it(net: Network) -> None:
    async def test() -> None:
        served = Served()
        protocol, transport, call = await accepted(served)
        protocol.data_received(encode(TEXT, b"last", mask=True) + encode(CLOSE, b"\x03\xe8", mask=True))
        assert transport.taken() == encode(CLOSE, b"\x03\xe8", mask=False)
        assert transport.closed
        protocol.data_received(encode(PONG, mask=True))
        assert served.state.connections == {protocol}
        assert (await call.receive())["text"] == "last"
        assert (await call.receive())["code"] == 1000
        protocol.connection_lost(None)
        assert not served.state.connections
        protocol.data_received(encode(PONG, mask=True))
        await end(served, protocol)

    net.run(test())


def test_a_close_is_limited_and_leaves_no_timer(net: Network) -> None:
    async def test() -> None:
        served = Served()
        protocol, transport, call = await accepted(served, close_timeout=0.01)
        await call.send({"type": "websocket.close"})
        assert not transport.closed
        while not transport.closed:
            await asyncio.sleep(0.001)
        await end(served, protocol)

        protocol, transport, call = await accepted(served)
        await call.send({"type": "websocket.close"})
        timer = protocol.timer
        assert not timer.cancelled()
        protocol.connection_lost(None)
        assert timer.cancelled()
        assert transport.closed
        await end(served, protocol)

    net.run(test())


def test_a_shutdown_closes_at_once(net: Network) -> None:
    async def test() -> None:
        served = Served()
        protocol, transport, call = await accepted(served)
        protocol.shutdown()
        protocol.shutdown()
        assert transport.closed
        assert transport.taken() == encode(CLOSE, b"\x03\xf4", mask=False)
        assert (await call.receive())["code"] == 1012
        await end(served, protocol)

        protocol, transport, call = await accepted(served)
        await call.send({"type": "websocket.close"})
        transport.taken()
        protocol.shutdown()
        assert transport.closed
        assert transport.taken() == b""
        await end(served, protocol)

    net.run(test())


def test_nothing_keeps_what_has_ended(net: Network) -> None:
    async def test() -> None:
        served = Served()
        protocol, _, call = await accepted(served)
        await end(served, protocol)
        kept = [weakref.ref(protocol), weakref.ref(protocol.stream)]
        served._all_calls.clear()
        gc.disable()
        try:
            del protocol, call
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert [ref() for ref in kept] == [None, None]
        finally:
            gc.enable()

    net.run(test())
