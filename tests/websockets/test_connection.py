"""Connections of ours tell a program what those of `websockets` would have told it."""

from __future__ import annotations

import asyncio
import gc
import logging
import re
import uuid
import weakref
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.connection.networks import Network, over_both_loops, over_every_network
from tests.connection.peers import CLOSE, PING, PONG, TEXT, Peer, close_code, upgrade_response
from tests.connection.proxies import scripted
from tests.websockets.scenarios import echo, on_command, ours, outcome, shown, their_server, theirs, tls_options, told_by_both


async def chunks(*fragments: Any) -> AsyncIterator[Any]:
    for fragment in fragments:
        await asyncio.sleep(0)
        yield fragment


async def exchange(ws: Any) -> list[Any]:
    told = []
    for message in ("text", b"binary", bytearray(b"ab"), memoryview(b"cd"), ["fr", "ag"], [b"a", b"b"], "", b"", "x" * 1000):
        await ws.send(message)
        told.append(await ws.recv())
    await ws.send(chunks("asyn", "chronous"))
    told.append(await ws.recv())
    for text in (True, False, 1, 0):
        await ws.send("text", text=text)
        await ws.send(b"bytes", text=text)
        told += [await ws.recv(), await ws.recv()]
    await ws.send([b"fr", b"ag"], text=True)
    told.append(await ws.recv())
    for decode in (True, False, None):
        await ws.send("text")
        await ws.send(b"bytes")
        told += [await ws.recv(decode), await ws.recv(decode=decode)]
    for decode in (None, False):
        await ws.send("fragments")
        parts = [part async for part in ws.recv_streaming(decode)]
        told.append(parts[0][:0].join(parts))
    return told


@over_every_network
def test_messages(net: Network) -> None:
    net.run(told_by_both(net, echo, exchange))


@over_both_loops
@pytest.mark.parametrize("command", ["close", "close without a code", "break the protocol", "drop"])
def test_an_end_by_the_server(net: Network, command: str) -> None:
    async def scenario(ws: Any) -> list[Any]:
        await ws.send("fragments")
        await ws.send(command)
        told = [await outcome(ws.recv()) for _ in range(4)]
        told += [await outcome(ws.send("late")), await outcome(ws.ping()), await outcome(ws.pong()), await outcome(ws.close(7))]
        try:
            told += [message async for message in ws]
        except Exception as exc:
            told.append(shown(exc))
        return told

    net.run(told_by_both(net, on_command, scenario))


@pytest.mark.parametrize(
    "message",
    [1, None, {"a": 1}, [1], ["a", b"b"], [b"b", "a"], [], object(), [["a"]], chunks("a", 1)],
    ids=lambda message: re.sub(" at 0x.*", "", str(message)),
)
def test_what_cannot_be_sent(net: Network, message: Any) -> None:
    async def scenario(ws: Any) -> list[Any]:
        return [await outcome(ws.send(message))]

    if hasattr(message, "__anext__"):
        # It can be gone through once only.
        async def scenario(ws: Any) -> list[Any]:
            return [await outcome(ws.send(chunks("a", 1)))]

    async def test() -> None:
        await told_by_both(net, echo, scenario)

    net.run(test())


@pytest.mark.parametrize("args", [(999,), (0,), (1005,), (1006,), (1004,), (1015,), (2999,), (5000,), (1000, "x" * 124)], ids=str)
def test_a_close_that_cannot_be_sent_changes_nothing(net: Network, args: Any) -> None:
    async def scenario(ws: Any) -> list[Any]:
        told = [await outcome(ws.close(*args))]
        await ws.send("goes on")
        return [*told, await ws.recv()]

    net.run(told_by_both(net, echo, scenario))


@pytest.mark.parametrize("args", [(), (1001, "bye"), (3000,), (None,)], ids=str)
def test_an_end_by_the_client(net: Network, args: Any) -> None:
    async def scenario(ws: Any) -> list[Any]:
        await ws.send("before")
        await ws.close(*args)
        told = [await outcome(ws.recv()), await outcome(ws.recv()), await outcome(ws.send("late"))]
        told += [await outcome(ws.ping("late")), await outcome(ws.pong("late"))]
        await ws.wait_closed()
        return told

    net.run(told_by_both(net, echo, scenario))


@over_both_loops
def test_pings(net: Network) -> None:
    async def scenario(ws: Any) -> list[Any]:
        told: list[Any] = [ws.latency]
        pongs = [await ws.ping(), await ws.ping("text"), await ws.ping(b"bytes"), await ws.ping(bytearray(b"array"))]
        told.append([await pong >= 0 for pong in pongs])
        told += [ws.latency >= 0]
        for bad in (1, [1], "x" * 126):
            told += [await outcome(ws.ping(bad)), await outcome(ws.pong(bad))]
        told.append(await outcome(ws.pong(None)))
        return told

    net.run(told_by_both(net, echo, scenario))


def test_a_later_pong_acknowledges_earlier_pings(net: Network) -> None:
    async def test() -> None:
        async with raw_peer() as (peer, ws):
            first, second, third = await ws.ping("1"), await ws.ping("2"), await ws.ping("3")
            with pytest.raises(Exception, match="same data"):
                await ws.ping("3")
            assert [(await peer.receive()).payload for _ in range(3)] == [b"1", b"2", b"3"]
            peer.send(PONG, b"2")
            assert await first >= await second > 0
            assert not third.done()
            await peer.close()
            with pytest.raises(Exception, match="no close frame") as ended:
                await third
            assert shown(ended.value)[0] == "ConnectionClosedError"

    net.run(test())


class raw_peer:
    """A connection of ours, and the raw server at its other end."""

    def __init__(self, **options: Any) -> None:
        self.options = {"compression": None, "ping_interval": None, "proxy": None, **options}
        self.peer: asyncio.Queue[Peer] = asyncio.Queue()
        self.done = asyncio.Event()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(upgrade_response(await reader.readuntil(b"\r\n\r\n")))
        self.peer.put_nowait(Peer(reader, writer, masks=False))
        await self.done.wait()

    async def __aenter__(self) -> tuple[Peer, Any]:
        self.server = scripted(self.answer)
        port = await self.server.__aenter__()
        self.ws = await ours.connect(f"ws://127.0.0.1:{port}/", **self.options)
        return await self.peer.get(), self.ws

    async def __aexit__(self, *exc: object) -> None:
        self.done.set()
        self.ws.transport.abort()
        await self.ws.wait_closed()
        await self.server.__aexit__(*exc)


def test_a_close_that_is_not_answered_reads_1006(net: Network) -> None:
    async def test() -> None:
        async with raw_peer(close_timeout=0.1) as (peer, ws):
            await ws.close(3000, "x")
            assert (ws.close_code, ws.close_reason, ws.state.name) == (1006, "", "CLOSED")
            assert shown((await errors(ws.recv()))[0]) == ("ConnectionClosedError", None, (3000, "x"), None, "NoneType")
            assert close_code(await peer.receive()) == 3000

    net.run(test())


def test_a_close_timeout_of_0_does_not_wait(net: Network) -> None:
    async def test() -> None:
        async with raw_peer(close_timeout=0) as (peer, ws):
            await asyncio.wait_for(ws.close(), 5)
            assert ws.close_code == 1006
            assert close_code(await peer.receive()) == 1000

    net.run(test())


def test_a_message_over_max_size(net: Network) -> None:
    async def test() -> None:
        async with raw_peer(max_size=10) as (peer, ws):
            peer.send(TEXT, b"0123456789")
            peer.send(TEXT, b"0123456789a")
            assert await ws.recv() == "0123456789"
            assert close_code(await peer.receive()) == 1009
            peer.writer.close()
            assert shown((await errors(ws.recv()))[0]) == ("ConnectionClosedError", None, (1009, "..."), None, "ProtocolError")
            assert ws.close_code == 1006

    net.run(test())


def test_a_frame_over_its_limit(net: Network) -> None:
    async def test() -> None:
        async with raw_peer(max_size=(None, 10)) as (peer, ws):
            peer.send(TEXT, b"0123456789", fin=False)
            peer.send(0, b"0123456789")
            assert await ws.recv() == "0123456789" * 2
            peer.send(TEXT, b"0123456789a")
            assert close_code(await peer.receive()) == 1009

    net.run(test())


def test_keepalive_ends_a_silent_connection(net: Network) -> None:
    async def test() -> None:
        async with raw_peer(ping_interval=0.05, ping_timeout=0.05) as (peer, ws):
            error = (await errors(ws.recv()))[0]
            assert shown(error)[:3] == ("ConnectionClosedError", None, (1011, "keepalive ping timeout"))
            ping = await peer.receive()
            assert ping.msg_type == PING
            assert len(ping.payload) > 0

    net.run(test())


def test_a_send_waits_for_the_end_and_tells_its_codes(net: Network) -> None:
    async def test() -> None:
        async with raw_peer() as (peer, ws):
            closing = asyncio.ensure_future(ws.close(3000, "x"))
            await asyncio.sleep(0)
            sending = [asyncio.ensure_future(ws.send(message)) for message in ("plain", ["frag", "ments"])]
            assert close_code(await peer.receive()) == 3000
            assert not any(task.done() for task in sending)
            peer.send(CLOSE, b"\x0b\xb8answer")
            peer.writer.close()
            for task in sending:
                assert shown((await errors(task))[0])[1:4] == ((3000, "answer"), (3000, "x"), False)
            await closing

    net.run(test())


def test_a_close_within_a_fragmented_message_is_an_error(net: Network) -> None:
    async def test() -> None:
        async def endless() -> AsyncIterator[str]:
            yield "first"
            await asyncio.Event().wait()

        async with raw_peer() as (peer, ws):
            fragmented = asyncio.ensure_future(ws.send(endless()))
            assert (await peer.receive()).payload == b"first"
            closing = asyncio.ensure_future(ws.close())
            frame = await peer.receive()
            assert (frame.msg_type, frame.payload) == (CLOSE, b"\x03\xf3close during fragmented message")
            peer.send(CLOSE, frame.payload)
            await peer.close()
            await closing
            fragmented.cancel()
            await asyncio.wait([fragmented])

    net.run(test())


def test_other_messages_wait_for_a_fragmented_one(net: Network) -> None:
    async def test() -> None:
        go_on = asyncio.Event()

        async def slowly() -> AsyncIterator[str]:
            yield "first "
            await go_on.wait()
            yield "last"

        async with raw_peer() as (peer, ws):
            fragmented = asyncio.ensure_future(ws.send(slowly()))
            assert (await peer.receive()).payload == b"first "
            other = asyncio.ensure_future(ws.send("other"))
            await ws.pong("passes")
            assert (await peer.receive()).payload == b"passes"
            assert not other.done()
            go_on.set()
            await asyncio.gather(fragmented, other)
            received = [await peer.receive() for _ in range(3)]
            assert [(frame.payload, frame.fin) for frame in received] == [(b"last", False), (b"", True), (b"other", True)]

    net.run(test())


def test_two_receivers(net: Network) -> None:
    async def scenario(ws: Any) -> list[Any]:
        async def stream() -> list[Any]:
            return [part async for part in ws.recv_streaming()]

        first = asyncio.ensure_future(ws.recv())
        await asyncio.sleep(0)
        told = [await outcome(ws.recv()), await outcome(ws.recv(True)), await outcome(stream())]
        await ws.send("one")
        told.append(await first)
        waiting = asyncio.ensure_future(ws.recv())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        await ws.send("another")
        return [*told, await ws.recv()]

    net.run(told_by_both(net, echo, scenario))


def test_decoding_what_is_not_utf8(net: Network) -> None:
    async def scenario(ws: Any) -> list[Any]:
        await ws.send(b"\xff")
        return [await outcome(ws.recv(decode=True)), await outcome(ws.recv())]

    net.run(told_by_both(net, echo, scenario))


def test_async_with_left_by_an_error_closes_with_1011(net: Network) -> None:
    async def test() -> None:
        codes: list[Any] = []

        async def handler(ws: Any) -> None:
            await ws.wait_closed()
            codes.append(ws.close_code)

        async with their_server(net, handler) as url:
            for client in (theirs, ours):
                with pytest.raises(KeyError):
                    async with client.connect(url):
                        raise KeyError
                async with client.connect(url):
                    pass
                ws = await client.connect(url)
                with pytest.raises(KeyError):
                    async with ws:
                        raise KeyError
        assert codes == [1011, 1000, 1011] * 2

    net.run(test())


@over_every_network
def test_attributes(net: Network) -> None:
    async def test() -> None:
        async with their_server(net, echo, subprotocols=["chat"]) as url:
            ws = await ours.connect(url, subprotocols=["chat"], additional_headers=[("X-A", "1"), ("X-A", "2")], **tls_options(net))
            assert isinstance(ws.id, uuid.UUID)
            assert ws.id == ws.id
            assert ws.local_address == ws.transport.get_extra_info("sockname")
            assert ws.remote_address == ws.transport.get_extra_info("peername")
            assert (ws.request.path, ws.request.headers.get_all("X-A")) == ("/path?query=1", ["1", "2"])
            assert (ws.response.status_code, ws.response.reason_phrase) == (101, "Switching Protocols")
            assert ws.subprotocol == ws.response.headers["Sec-WebSocket-Protocol"] == "chat"
            assert (ws.state.name, ws.close_code, ws.close_reason, ws.latency) == ("OPEN", None, None, 0)
            assert ws.logger.extra["websocket"] is ws
            assert ws.logger.logger is logging.getLogger("websockets.client")
            assert "ClientConnection object at 0x" in repr(ws)
            await ws.close()
            assert (ws.state.name, ws.close_code) == ("CLOSED", 1000)

    net.run(test())


def test_the_user_may_set_attributes(net: Network) -> None:
    async def test() -> None:
        async with their_server(net, echo) as url:
            ws = await ours.connect(url)
            with pytest.raises(AttributeError, match="user"):
                _ = ws.user
            ws.user = "somebody"
            ws.id = ws.logger = ws.request = ws.response = 1
            assert (ws.user, ws.id, ws.logger, ws.request, ws.response) == ("somebody", 1, 1, 1, 1)
            assert isinstance(ws, ours.ClientConnection)
            with pytest.raises(AttributeError):
                ws.state = 1
            with pytest.raises(AttributeError, match="other"):
                _ = ws.other
            del ws.user
            assert not hasattr(ws, "user")
            await ws.send("and it goes on")
            assert await ws.recv() == "and it goes on"
            await ws.close()

    net.run(test())


def test_a_subclass(net: Network) -> None:
    class Mine(ours.ClientConnection):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.seen: list[Any] = []

        async def recv(self, decode: bool | None = None) -> Any:
            self.seen.append(await super().recv(decode))
            return self.seen[-1]

    async def test() -> None:
        async with their_server(net, echo) as url, ours.connect(url, create_connection=Mine) as ws:
            assert type(ws) is Mine
            await ws.send("x")
            assert await ws.recv() == "x"
            assert ws.seen == ["x"]

    net.run(test())


def test_nothing_keeps_a_finished_connection_alive(net: Network) -> None:
    async def test() -> None:
        async with their_server(net, echo) as url:
            ws = await ours.connect(url)
            ws.user = "somebody"
            assert ws.id
            assert ws.logger
            assert ws.request
            assert ws.response
            await ws.send("x")
            await ws.recv()
            await ws.close()
            alive = weakref.ref(ws)
            gc.disable()
            try:
                del ws
                await asyncio.sleep(0)
                assert alive() is None
            finally:
                gc.enable()

    net.run(test())


async def errors(*awaitables: Any) -> list[BaseException]:
    return [result for result in await asyncio.gather(*awaitables, return_exceptions=True) if isinstance(result, BaseException)]
