"""Transports call pause_writing from inside their write(): what the listener does there finds, and leaves, all in order."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from picows import WSDeflate, WSFrame, WSMsgType, WSProtocolError, WSTransport, ws_broadcast
from tests.connection.networks import (
    Network,
    Received,
    Recorder,
    all_at_once,
    over_both_loops,
    over_every_network,
    over_tcp_and_tls,
)
from tests.connection.peers import BINARY, CLOSE, PING, PONG, ROLES, TEXT, Peer, apply_mask, close_payload, raw_client
from tests.connection.producers import FILLING, fill

over_roles = pytest.mark.parametrize("role", ROLES)


class Counting(Recorder):
    """Sends numbered messages: in bursts, and as often as it is told in pause_writing."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0
        self.paused = False
        self.on_pause: Callable[[], object] = int
        self.on_burst: Callable[[], object] = int

    def send(self, size: int) -> None:
        self.numbers += 1
        assert self.transport.send(WSMsgType.TEXT, b"%07d." % self.numbers + b"x" * (size - 8))

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        super().on_ws_frame(transport, frame)
        if frame.msg_type == WSMsgType.TEXT:
            self.on_burst()

    def pause_writing(self) -> None:
        self.calls.append("pause")
        self.paused = True
        self.on_pause()

    def resume_writing(self) -> None:
        self.calls.append("resume")
        self.paused = False


async def receive_numbered(peer: Peer, last: bytes) -> list[Received]:
    """All that comes behind the filling, before `last`."""
    frames = []
    while True:
        frame = await peer.receive()
        if frame.payload == last:
            return frames
        if frame.msg_type != BINARY:
            frames.append(frame)


def numbers(frames: list[Received]) -> list[int]:
    return [int(frame.payload.partition(b".")[0]) for frame in frames]


@contextlib.asynccontextmanager
async def filled(net: Network, role: str, **options: Any) -> AsyncIterator[tuple[Peer, Counting]]:
    """A raw peer that does not read, and a listener whose next write calls pause_writing."""
    async with ROLES[role](net, Counting, **options) as (peer, listener):
        fill(listener.transport)
        assert listener.calls == ["connected"]
        yield peer, listener


def a_kilobyte_each(listener: Counting) -> None:
    listener.send(1000)


def more_than_is_gathered(listener: Counting) -> None:
    for _ in range(60):
        listener.send(1000)
    listener.send(8000)


def one_too_large_to_gather(listener: Counting) -> None:
    listener.send(1000)
    listener.send(100_000)


@over_every_network
@over_roles
@pytest.mark.parametrize("burst", [a_kilobyte_each, more_than_is_gathered, one_too_large_to_gather])
def test_what_pause_writing_sends_is_neither_lost_nor_early(
    net: Network, role: str, burst: Callable[[Counting], None]
) -> None:
    def sixty() -> None:
        for _ in range(60):
            listener.send(1000)

    async def test() -> None:
        nonlocal listener
        async with filled(net, role) as (peer, listener):
            listener.on_burst = lambda: burst(listener)
            listener.on_pause = sixty
            peer.write(peer.encode(TEXT, b"1") + peer.encode(TEXT, b"2"))
            await listener.take(2)
            assert "pause" in listener.calls
            listener.transport.send(WSMsgType.TEXT, b"last")
            assert numbers(await receive_numbered(peer, b"last")) == list(range(1, listener.numbers + 1))
            assert listener.numbers > 60

    listener: Counting
    net.run(test())


@over_every_network
def test_what_pause_writing_may_do_to_a_disconnect(net: Network) -> None:
    """The gathered frames leave inside of disconnect(), and there the callback ends the connection once more."""

    def end(how: str, transport: WSTransport) -> None:
        if how == "raise":
            raise ValueError("from pause_writing")
        if how == "raise a chosen code":
            raise WSProtocolError(4000, "from pause_writing")
        transport.disconnect(graceful=how != "abort")
        if how == "twice":
            transport.disconnect()

    async def test(how: str) -> None:
        async with filled(net, "server") as (peer, listener):
            listener.on_pause = lambda: end(how, listener.transport)
            with listener.transport.cork():
                listener.send(1000)
                listener.transport.disconnect()
            assert "pause" in listener.calls
            if how != "abort":
                frames = await peer.receive_all()
                assert numbers([frame for frame in frames if frame.msg_type == TEXT]) == [1]
                assert frames[-1].msg_type == TEXT
            await peer.close()
            await listener.disconnected.wait()
            # A timer that was left behind would fail now.
            await asyncio.sleep(0.15)
            assert listener.calls.count("disconnected") == 1

    net.run(all_at_once(*map(test, ("raise", "raise a chosen code", "disconnect", "abort", "twice"))))


@over_tcp_and_tls
@pytest.mark.parametrize("broadcast", [False, True], ids=["send", "broadcast"])
def test_compressed_messages_leave_in_the_order_of_their_compression(net: Network, broadcast: bool) -> None:
    options: dict[str, Any] = {"compression": WSDeflate(min_size=0)}

    class Compressing(Counting):
        sent: list[bytes]

        def send(self, size: int) -> None:
            self.numbers += 1
            message = json.dumps({"number": self.numbers, "noise": os.urandom(size).hex()}).encode()
            self.sent.append(message)
            if broadcast and self.numbers % 3 == 0:
                assert ws_broadcast([self.transport], WSMsgType.TEXT, message) == 1
            else:
                assert self.transport.send(WSMsgType.TEXT, message)

        def on_ws_connected(self, transport: WSTransport) -> None:
            super().on_ws_connected(transport)
            self.sent = []

    async def test() -> None:
        async with net.pair(server=Compressing, client_options=options, server_options=options) as (client, server):
            client.transport.underlying_transport.pause_reading()
            underlying = server.transport.underlying_transport
            underlying.set_write_buffer_limits(high=1 << 30)
            filling = 0
            while not underlying.get_write_buffer_size():
                server.transport.send(WSMsgType.BINARY, FILLING, compress=False)
                filling += 1
            underlying.set_write_buffer_limits(high=underlying.get_write_buffer_size() + 1)

            def answer() -> None:
                # More than is gathered: it is full when a message has been compressed.
                for _ in range(90):
                    server.send(1000)

            server.on_burst = answer
            server.on_pause = lambda: [server.send(100) for _ in range(10)]
            client.transport.underlying_transport.write(Peer.encode(RAW_CLIENT, TEXT, b"1") + Peer.encode(RAW_CLIENT, TEXT, b"2"))
            await server.take(2)
            assert "pause" in server.calls
            client.transport.underlying_transport.resume_reading()
            texts: list[bytes] = []
            while len(texts) < len(server.sent):
                frame = await client.frames.get()
                if frame.msg_type == TEXT:
                    texts.append(frame.payload)
            assert texts == server.sent
            assert server.numbers == 190

    net.run(test())


RAW_CLIENT = Peer(None, None, masks=True)  # type: ignore[arg-type]


@over_every_network
@over_roles
def test_a_bytearray_that_pause_writing_resizes_leaves_as_it_was(net: Network, role: str) -> None:
    size = 200_000
    buffer = bytearray(14) + b"%07d." % 2 + b"y" * size

    async def test() -> None:
        async with filled(net, role) as (peer, listener):
            listener.on_pause = buffer.clear
            with listener.transport.cork():
                listener.send(1000)
                # What was gathered before it leaves first.
                assert listener.transport.send_reuse_external_bytearray(WSMsgType.TEXT, buffer, 14)
            assert listener.paused
            assert buffer == b""
            listener.transport.send(WSMsgType.TEXT, b"last")
            first, second = await receive_numbered(peer, b"last")
            assert first.payload.startswith(b"%07d." % 1)
            assert second.payload == b"%07d." % 2 + b"y" * size

    net.run(test())


@over_every_network
@over_roles
def test_nothing_follows_a_close_that_pause_writing_interrupts(net: Network, role: str) -> None:
    def answer() -> None:
        taken.append(listener.transport.send(WSMsgType.TEXT, b"late"))
        listener.transport.send_ping(b"late")
        listener.transport.send_close(1001, "second")

    async def test() -> None:
        nonlocal listener
        async with filled(net, role) as (peer, listener):
            listener.on_pause = answer
            listener.transport.send_close(1000, "first")
            assert listener.paused
            assert taken == [False]
            listener.transport.disconnect()
            frames = await peer.receive_all()
            assert [frame for frame in frames if frame.msg_type != BINARY] == [Received(CLOSE, close_payload(1000, b"first"))]
            assert listener.transport.close_handshake.sent.reason == "first"
            await peer.close()
            await listener.disconnected.wait()

    listener: Counting
    taken: list[bool] = []
    net.run(test())


@over_tcp_and_tls
@over_roles
def test_what_was_gathered_does_not_follow_an_abort(net: Network, role: str) -> None:
    """What the transport held is dropped by it: behind that gap the peer would read anything for a header."""

    def send_and_abort() -> None:
        listener.send(1000)
        listener.transport.disconnect(graceful=False)

    async def test() -> None:
        nonlocal listener
        async with filled(net, role) as (peer, listener):
            listener.on_burst = send_and_abort
            peer.write(peer.encode(TEXT, b"1") + peer.encode(TEXT, b"2"))
            await listener.disconnected.wait()
            came = []
            with contextlib.suppress(ConnectionError):
                while data := await peer.reader.read(1 << 20):
                    came.append(data)
            # Nothing but headers, masks and the zeros of the filling, masked or not.
            assert b"xxxxxxxx" not in unmasked(b"".join(came), role)

    listener: Counting
    net.run(test())


def unmasked(wire: bytes, role: str) -> bytes:
    """As much as may be: what a client wrote is looked at under each of the keys that its zeros show."""
    if role == "server":
        return wire
    keys = {wire[at : at + 4] for at in range(0, len(wire) - 4, 4096)} | {wire[-1004:-1000], wire[-4:]}
    return b" ".join(apply_mask(wire[-2000:], key) for key in keys)


SENDING: dict[str, Callable[[Counting], object]] = {
    "send": lambda listener: listener.send(1000),
    "a large message": lambda listener: listener.send(100_000),
    "send_ping": lambda listener: listener.transport.send_ping(b"x"),
    "send_pong": lambda listener: listener.transport.send_pong(b"x"),
    "send_close": lambda listener: listener.transport.send_close(1000),
    "send_reuse_external_bytearray": lambda listener: listener.transport.send_reuse_external_bytearray(
        WSMsgType.TEXT, bytearray(100), 14
    ),
    "broadcast": lambda listener: ws_broadcast([listener.transport], WSMsgType.TEXT, b"x"),
    "a view": lambda listener: listener.transport.send(WSMsgType.BINARY, memoryview(FILLING)),
}


@over_every_network
@pytest.mark.parametrize("send", SENDING.values(), ids=SENDING.keys())
def test_a_pause_is_told_before_the_call_returns(net: Network, send: Callable[[Counting], object]) -> None:
    async def test() -> None:
        async with filled(net, "server") as (_, listener):
            send(listener)
            assert listener.calls == ["connected", "pause"]

    net.run(test())


GATHERED: dict[str, Callable[[WSTransport, contextlib.ExitStack], object]] = {
    "flush": lambda transport, cork: transport.flush(),
    "the end of a cork": lambda transport, cork: cork.close(),
    "disconnect": lambda transport, cork: transport.disconnect(),
}


@over_every_network
@pytest.mark.parametrize("write", GATHERED.values(), ids=GATHERED.keys())
def test_a_pause_by_what_was_gathered_is_told_at_once(net: Network, write: Callable[..., object]) -> None:
    async def test() -> None:
        async with filled(net, "server") as (_, listener):
            with contextlib.ExitStack() as cork:
                cork.enter_context(listener.transport.cork())
                listener.send(1000)
                assert listener.calls == ["connected"]
                write(listener.transport, cork)
                assert listener.calls == ["connected", "pause"]

    net.run(test())


@over_both_loops
def test_a_pause_by_an_automatic_pong_is_told_before_the_next_frame(net: Network) -> None:
    async def test() -> None:
        async with filled(net, "server") as (peer, listener):
            told: list[bool] = []
            listener.on_burst = lambda: told.append(listener.paused)
            # Each alone in its read: nothing gathers.
            peer.write(peer.encode(PING, b"x" * 100))
            while not listener.paused:
                await asyncio.sleep(0)
            peer.write(peer.encode(TEXT, b"behind"))
            await listener.take(1)
            assert told == [True]
            frames = await receive_numbered_until_pong(peer)
            assert frames == []

    net.run(test())


async def receive_numbered_until_pong(peer: Peer) -> list[Received]:
    frames = []
    while True:
        frame = await peer.receive()
        if frame.msg_type == PONG:
            assert frame.payload == b"x" * 100
            return frames
        if frame.msg_type != BINARY:
            frames.append(frame)


@over_every_network
def test_producing_inside_of_resume_writing_is_stopped_by_the_pause(net: Network) -> None:
    total = 3000

    class Pump(Counting):
        depth = deepest = 0

        def pump(self) -> None:
            while not self.paused and self.numbers < total:
                self.send(5000)

        def pause_writing(self) -> None:
            super().pause_writing()
            self.send(100)  # one more is no fault

        def resume_writing(self) -> None:
            super().resume_writing()
            self.depth += 1
            self.deepest = max(self.deepest, self.depth)
            self.pump()
            self.depth -= 1

    async def test() -> None:
        async with raw_client(net, Pump) as (peer, listener):
            listener.transport.underlying_transport.set_write_buffer_limits(high=50_000)
            listener.pump()
            received: list[int] = []
            while len(received) < total or len(received) < listener.numbers:
                received += numbers([await peer.receive()])
            assert received == list(range(1, listener.numbers + 1))
            told = [call for call in listener.calls if call != "connected"]
            assert told == ["pause", "resume"] * (len(told) // 2) + ["pause"] * (len(told) % 2)
            assert len(told) > 2
            assert listener.deepest == 1

    net.run(test())


@over_both_loops
def test_a_message_whose_buffer_ends_the_connection_is_not_sent(net: Network) -> None:
    if sys.version_info < (3, 12):
        pytest.skip("classes of Python give buffers since 3.12")

    async def test() -> None:
        async with raw_client(net, Recorder) as (peer, listener):

            class Closing:
                def __buffer__(self, flags: int) -> memoryview:
                    listener.transport.send_close(1000)
                    return memoryview(b"late")

            assert listener.transport.send(WSMsgType.TEXT, Closing()) is False
            listener.transport.disconnect()
            assert await peer.receive_all() == [Received(CLOSE, close_payload(1000))]

    net.run(test())
