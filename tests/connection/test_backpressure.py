"""A slow peer: pause_writing, resume_writing, and the memory that waits."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from picows import WSFrame, WSMsgType, WSTransport
from tests.connection.networks import Network, Received, Recorder, over_both_loops, over_every_network
from tests.connection.peers import BINARY, PING, PONG, ROLES, close_code, raw_client
from tests.connection.producers import Producer

CHUNK = bytes(1 << 16)

over_roles = pytest.mark.parametrize("role", ROLES)
over_sides = pytest.mark.parametrize("side", [0, 1], ids=["client", "server"])


@over_every_network
@over_sides
def test_a_producer_is_paused_and_resumed(net: Network, side: int) -> None:
    async def test() -> None:
        async with net.pair(Producer, Producer) as pair:
            one, other = pair[side], pair[1 - side]
            sent = 0
            for _ in range(3):
                other.transport.underlying_transport.pause_reading()
                while not one.paused.is_set():
                    one.transport.send(WSMsgType.BINARY, CHUNK)
                    sent += 1
                # It may go on, and everything is kept in order.
                one.transport.send(WSMsgType.BINARY, b"one more")
                other.transport.underlying_transport.resume_reading()
                await one.resumed.wait()
                while (await other.payload()) != b"one more":
                    sent -= 1
            assert sent == 0
            assert one.calls == ["connected"] + ["pause", "resume"] * 3
            assert other.calls == ["connected"]

    net.run(test())


@over_every_network
def test_the_marks_are_the_transports(net: Network) -> None:
    async def test() -> None:
        async with net.pair(server=Producer) as (client, server):
            underlying = server.transport.underlying_transport
            client.transport.underlying_transport.pause_reading()
            underlying.set_write_buffer_limits(high=1 << 20, low=1 << 18)
            while not server.paused.is_set():
                assert underlying.get_write_buffer_size() <= 1 << 20
                server.transport.send(WSMsgType.BINARY, CHUNK)
            assert underlying.get_write_buffer_size() > 1 << 20
            client.transport.underlying_transport.resume_reading()
            await server.resumed.wait()
            assert underlying.get_write_buffer_size() <= 1 << 18

    net.run(test())


@over_both_loops
@over_roles
def test_one_line_is_logged_when_nobody_listens(net: Network, role: str, caplog: pytest.LogCaptureFixture) -> None:
    """One for a connection, however often its peer is slow."""
    caplog.set_level(logging.INFO, "picows")

    async def test() -> None:
        for _ in range(2):
            async with ROLES[role](net, Recorder, max_write_buffer_size=None) as (peer, listener):
                caplog.clear()
                for _ in range(3):
                    peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
                    for _ in range(20):
                        listener.transport.send(WSMsgType.BINARY, bytes(1 << 20))
                    # Far above any high-water mark, and in the end far below.
                    assert listener.transport.write_buffer_size > 1 << 20
                    peer.writer.transport.resume_reading()  # type: ignore[attr-defined]
                    for _ in range(20):
                        await peer.receive()
                    while listener.transport.write_buffer_size:
                        await asyncio.sleep(0)
                (line,) = [record for record in caplog.records if record.name.startswith("picows")]
                assert line.levelno == logging.INFO
                assert "the peer is slow" in line.getMessage()
                peer.writer.transport.abort()

    net.run(test())


@over_both_loops
@over_roles
def test_nothing_is_logged_when_the_listener_is_told(net: Network, role: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "picows")

    async def test() -> None:
        async with ROLES[role](net, Producer) as (peer, listener):
            caplog.clear()
            peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
            while not listener.paused.is_set():
                listener.transport.send(WSMsgType.BINARY, CHUNK)
            assert not [record for record in caplog.records if record.name.startswith("picows")]
            peer.writer.transport.abort()

    net.run(test())


@over_both_loops
@over_sides
@pytest.mark.parametrize("callback", ["pause_writing", "resume_writing"])
def test_an_exception_closes_the_connection(net: Network, side: int, callback: str) -> None:
    class Raising(Recorder):
        pass

    def boom(self: Any) -> None:
        raise ZeroDivisionError

    setattr(Raising, callback, boom)

    async def test() -> None:
        factories = [Recorder, Recorder]
        factories[side] = Raising
        async with net.pair(*factories) as pair:
            one, other = pair[side], pair[1 - side]
            other.transport.underlying_transport.pause_reading()
            for _ in range(20):
                one.transport.send(WSMsgType.BINARY, bytes(1 << 20))
            other.transport.underlying_transport.resume_reading()
            frames = [await other.frames.get() for _ in range(1 + (callback == "resume_writing"))]
            while frames[-1].msg_type == BINARY:
                frames.append(await other.frames.get())
            assert close_code(frames[-1]) == 1011
            await one.disconnected.wait()
            if side == 0:
                with pytest.raises(ZeroDivisionError):
                    await one.transport.wait_disconnected()

    net.run(test())


@over_both_loops
def test_pausing_inside_of_a_callback(net: Network) -> None:
    """An echo server that stops reading while its client does not read: all comes back, in order."""

    class Careful(Recorder):
        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            transport.send(frame.msg_type, frame)

        def pause_writing(self) -> None:
            self.calls.append("pause")
            self.transport.underlying_transport.pause_reading()

        def resume_writing(self) -> None:
            self.transport.underlying_transport.resume_reading()

    async def test() -> None:
        async with raw_client(net, Careful) as (peer, listener):
            count = 300

            async def send() -> None:
                for i in range(count):
                    peer.send(BINARY, b"%d " % i + CHUNK)
                    await peer.writer.drain()

            sending = asyncio.ensure_future(send())
            while "pause" not in listener.calls:
                await asyncio.sleep(0)
            for i in range(count):
                frame = await peer.receive()
                assert frame.payload == b"%d " % i + CHUNK
            await sending
            peer.send(PING, b"end")
            assert await peer.receive() == Received(PONG, b"end")

    net.run(test())
