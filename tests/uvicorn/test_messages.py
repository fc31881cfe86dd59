"""Messages of an application that has accepted a connection, and the limits on them."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest

from picows import WSDeflate, WSMsgType
from tests.connection.networks import Network, Recorder, cut, over_tcp_and_tls
from tests.connection.peers import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, close_code, take_at_once
from tests.uvicorn.serving import (
    ACCEPT,
    CONNECT,
    accepted,
    asking,
    binary,
    closed_with,
    head_of,
    over_both_http_classes,
    serving,
    text,
)


def receive_event(**message: object) -> dict[str, object]:
    return {"type": "websocket.receive", **message}


def test_what_the_server_has_written_goes_first(net: Network) -> None:
    """It waits in the transport, and the socket would take more: whoever writes there overtakes it."""

    async def test() -> None:
        async with asking(net) as (served, peer, call):
            assert await call.receive() == CONNECT
            (protocol,) = served.state.connections
            page = bytes(16 << 20)
            protocol.transport.write(page)
            taken = take_at_once(peer)
            assert protocol.transport.get_write_buffer_size() > 0
            await call.send(ACCEPT)
            sending = asyncio.ensure_future(call.send(text("behind")))
            assert taken + await peer.reader.readexactly(len(page) - len(taken)) == page
            assert (await head_of(peer))[0] == 101
            assert (await peer.receive()).payload == b"behind"
            await sending

    net.run(test())


@over_both_http_classes
@over_tcp_and_tls
def test_messages_go_both_ways(net: Network, http: str) -> None:
    async def test() -> None:
        async with accepted(net, http=http) as (_, peer, call):
            for opcode, payload in ((TEXT, "é".encode()), (BINARY, b"\xff"), (TEXT, b""), (BINARY, b"")):
                peer.send(opcode, payload)
            peer.send(TEXT, b"frag", fin=False)
            peer.send(CONTINUATION, b"ments")
            assert await call.receive() == receive_event(text="é")
            assert await call.receive() == receive_event(bytes=b"\xff")
            assert await call.receive() == receive_event(text="")
            assert await call.receive() == receive_event(bytes=b"")
            assert await call.receive() == receive_event(text="fragments")
            await call.send(text("é"))
            await call.send(binary(b"\xff"))
            await call.send({"type": "websocket.send", "bytes": None, "text": ""})
            await call.send({"type": "websocket.send", "bytes": b"", "text": None})
            frames = [await peer.receive() for _ in range(4)]
            assert [frame[:2] for frame in frames] == [(TEXT, "é".encode()), (BINARY, b"\xff"), (TEXT, b""), (BINARY, b"")]

    net.run(test())


@pytest.mark.parametrize("message", [{}, {"text": None}, {"text": b"bytes"}, {"bytes": 1}])
def test_what_is_no_message_is_an_error(net: Network, message: dict[str, Any]) -> None:
    async def test() -> None:
        async with accepted(net) as (_, peer, call):
            with pytest.raises(TypeError):
                await call.send({"type": "websocket.send", **message})
            await call.send(text("next"))
            assert (await peer.receive()).payload == b"next"

    net.run(test())


def test_several_tasks_may_wait_for_messages(net: Network) -> None:
    async def test() -> None:
        async with accepted(net) as (_, peer, call):
            first, second, third = (asyncio.create_task(call.receive()) for _ in range(3))
            await asyncio.sleep(0)
            second.cancel()
            peer.send(TEXT, b"1")
            assert await first == receive_event(text="1")
            assert not third.done()
            peer.send(TEXT, b"2")
            assert await third == receive_event(text="2")
            # One that is cancelled makes room for the next in the same turn.
            first = asyncio.create_task(call.receive())
            await asyncio.sleep(0)
            first.cancel()
            second = asyncio.create_task(call.receive())
            third = asyncio.create_task(call.receive())
            await asyncio.sleep(0)
            await peer.close()
            assert {(await waiting)["type"] for waiting in (second, third)} == {"websocket.disconnect"}

    net.run(test())


def test_several_tasks_may_send(net: Network) -> None:
    async def test() -> None:
        async with accepted(net) as (_, peer, call):
            await asyncio.gather(*(call.send(text(str(number))) for number in range(300)))
            assert [int((await peer.receive()).payload) for _ in range(300)] == list(range(300))

    net.run(test())


@over_tcp_and_tls
def test_sending_waits_for_a_peer_that_does_not_read(net: Network) -> None:
    async def test() -> None:
        async with accepted(net) as (_, peer, call):
            part = b"x" * 1_000_000

            async def send_parts(count: int) -> None:
                for _ in range(count):
                    await call.send(binary(part))

            sending = asyncio.create_task(send_parts(30))
            # The peer's transport and the kernel hold far less.
            await asyncio.sleep(0.05)
            assert not sending.done()
            for _ in range(30):
                assert (await peer.receive()).payload == part
            await sending
            sending = asyncio.create_task(send_parts(10_000))
            await peer.receive()
            peer.writer.transport.abort()
            with pytest.raises(OSError, match=r"^$") as caught:
                await sending
            assert type(caught.value).__name__ == "ClientDisconnected"

    net.run(test())


def test_reading_waits_for_an_application_that_does_not(net: Network) -> None:
    async def test() -> None:
        async with accepted(net, ws_max_queue=2) as (_, peer, call):
            for number in range(100):
                peer.send(TEXT, b"%d" % number)
                await asyncio.sleep(0)
            peer.send(PING)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(peer.reader.read(1), 0.05)
            for number in range(100):
                assert await call.receive() == receive_event(text=str(number))
            assert (await peer.receive()).msg_type == PONG

    net.run(test())


@pytest.mark.parametrize("frames", [[(BINARY, 101, True)], [(BINARY, 60, False), (CONTINUATION, 41, True)]])
def test_a_message_that_is_too_big_is_1009(net: Network, frames: list[tuple[int, int, bool]]) -> None:
    async def test() -> None:
        async with accepted(net, ws_max_size=100) as (_, peer, call):
            peer.send(BINARY, b"x" * 100)
            for opcode, size, fin in frames:
                peer.send(opcode, b"x" * size, fin=fin)
            assert close_code(await peer.receive()) == 1009
            await peer.close()
            assert await call.receive() == receive_event(bytes=b"x" * 100)
            event = await call.receive()
            assert (event["type"], event["code"]) == ("websocket.disconnect", 1009)

    net.run(test())


@pytest.mark.parametrize(("opcode", "payload", "code"), [(TEXT, b"\xff", 1007), (3, b"", 1002)])
def test_faults_of_the_peer_have_their_codes(net: Network, opcode: int, payload: bytes, code: int) -> None:
    async def test() -> None:
        async with accepted(net) as (_, peer, call):
            peer.send(opcode, payload)
            assert close_code(await peer.receive()) == code
            await peer.close()
            assert (await call.receive())["code"] == code

    net.run(test())


def test_compression_is_used_where_it_is_offered(net: Network) -> None:
    async def test() -> None:
        for switched_on in (True, False):
            async with serving(net, ws_per_message_deflate=switched_on, ws_max_size=1000) as served:
                connecting = asyncio.create_task(net.connect(Recorder, served.url, compression=WSDeflate()))
                call = await served.calls.get()
                await call.accept()
                client: Recorder = await connecting
                extensions = client.transport.response.headers.get("Sec-WebSocket-Extensions", "")
                assert extensions.startswith("permessage-deflate") is switched_on
                client.transport.send(WSMsgType.TEXT, "x" * 1000)
                assert (await call.receive())["text"] == "x" * 1000
                if switched_on:
                    client.transport.send(WSMsgType.TEXT, "x" * 1001)
                    assert (await call.receive())["code"] == 1009
                await cut(client)

    net.run(test())


def test_pings_look_for_a_dead_peer(net: Network) -> None:
    async def test() -> None:
        async with accepted(net, ws_ping_interval=0.05, ws_ping_timeout=0.05) as (_, peer, call):
            ping = await peer.receive()
            assert ping.msg_type == PING
            peer.send(PONG, ping.payload)
            assert (await peer.receive()).msg_type == PING
            closing = await closed_with(peer)
            assert closing == b"\x03\xf3keepalive ping timeout"
            assert await call.receive() == {
                "type": "websocket.disconnect", "code": 1011, "reason": "keepalive ping timeout"
            }  # fmt: skip

    net.run(test())


@pytest.mark.parametrize("options", [{"ws_ping_interval": None}, {"ws_ping_interval": 0}])
def test_pings_may_be_switched_off(net: Network, options: dict[str, Any]) -> None:
    async def test() -> None:
        async with accepted(net, ws_ping_timeout=0.01, **options) as (_, peer, call):
            await asyncio.sleep(0.05)
            await call.send(text("no ping before"))
            assert (await peer.receive()).msg_type == TEXT

    net.run(test())


def test_a_pong_may_take_any_time(net: Network) -> None:
    async def test() -> None:
        async with accepted(net, ws_ping_interval=0.01, ws_ping_timeout=None) as (_, peer, _call):
            for _ in range(5):
                assert (await peer.receive()).msg_type == PING

    net.run(test())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are new in Python 3.12")
def test_an_application_may_accept_at_once(net: Network) -> None:
    async def test() -> None:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]
        async with serving(net) as served:

            async def echo(scope: Any, receive: Any, send: Any) -> None:
                await receive()
                await send({"type": "websocket.accept"})
                while (event := await receive())["type"] == "websocket.receive":
                    await send(text(event["text"]))

            served.config.loaded_app = echo
            client: Recorder = await net.connect(Recorder, served.url)
            for word in ("one", "two"):
                client.transport.send(WSMsgType.TEXT, word)
                assert await client.payload() == word.encode()
            client.transport.send_close()
            assert (await client.frames.get()).msg_type == CLOSE
            await cut(client)

    net.run(test())


