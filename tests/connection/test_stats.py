"""transport.stats() and server.stats(): what was sent, received, waits, was dropped."""

from __future__ import annotations

import asyncio
import math
import time
import zlib
from typing import Any

import pytest

from picows import WSDeflate, WSMsgType, WSSlowPeerPolicy, WSStats, WSTransport, ws_broadcast
from tests.connection.networks import Network, Recorder, over_every_network, over_tcp_and_tls
from tests.connection.peers import CLOSE, PING, PONG, REQUEST, ROLES, TEXT, close_payload, encode, raw_client, stream
from tests.connection.producers import FILLING, Producer, payloads, send_all, skip, stall
from tests.connection.servers import serving
from tests.connection.threads import call_in_thread

over_roles = pytest.mark.parametrize("role", ROLES)


def sent(transport: WSTransport) -> tuple[int, int, int]:
    stats = transport.stats()
    return stats.bytes_sent, stats.frames_sent, stats.control_frames_sent


def received(transport: WSTransport) -> tuple[int, int, int]:
    stats = transport.stats()
    return stats.bytes_received, stats.frames_received, stats.control_frames_received


@over_every_network
@over_roles
def test_a_new_connection(net: Network, role: str) -> None:
    async def test() -> None:
        before = time.time()
        async with ROLES[role](net, Recorder) as (_, listener):
            stats = listener.transport.stats()
            assert before <= stats.since <= time.time()
            assert math.isnan(stats.roundtrip_time)
            assert stats._replace(since=0, max_queued=0, roundtrip_time=0) == WSStats(*[0] * 12)

    net.run(test())


@over_every_network
@over_roles
def test_every_way_out_is_counted(net: Network, role: str) -> None:
    async def test() -> None:
        async with ROLES[role](net, Recorder) as (peer, listener):
            transport = listener.transport
            wire = frames = control = 0

            def expect(*sizes: int, of_control: int = 0) -> None:
                nonlocal wire, frames, control
                wire += sum(len(encode(TEXT, bytes(size), mask=role == "client")) for size in sizes)
                frames += len(sizes)
                control += of_control
                assert sent(transport) == (wire, frames, control)

            for size in (0, 125, 126, 65535, 65536, 300_000):
                transport.send(WSMsgType.BINARY, bytes(size))
                expect(size)
                ws_broadcast([transport], WSMsgType.BINARY, bytes(size))
                expect(size)
                transport.send_reuse_external_bytearray(WSMsgType.BINARY, bytearray(14 + size), 14)
                expect(size)
                transport.send_latest("key", WSMsgType.BINARY, memoryview(bytearray(size)))
                expect(size)
            with transport.cork():
                transport.send(WSMsgType.TEXT, b"one", fin=False)
                transport.send_ping(b"!")
                transport.send(WSMsgType.CONTINUATION, b"two", fin=False)
                transport.send(WSMsgType.CONTINUATION, b"")
                transport.send_pong()
            expect(3, 1, 3, 0, 0, of_control=2)
            transport.send_close(1000)
            expect(2, of_control=1)
            assert not transport.send(WSMsgType.TEXT, b"too late")
            expect()
            for _ in range(frames):
                await peer.receive()

    net.run(test())


@over_every_network
@over_roles
@pytest.mark.parametrize("options", [{}, {"assemble_messages": True}], ids=["frames", "messages"])
def test_what_comes_in(net: Network, role: str, options: dict[str, Any]) -> None:
    async def test() -> None:
        async with ROLES[role](net, Recorder, **options) as (peer, listener):
            frames = [
                peer.encode(TEXT, b"be", fin=False), peer.encode(PING, b"!"), peer.encode(0, b"gin"), peer.encode(PONG),
                peer.encode(TEXT, bytes(300_000)), peer.encode(TEXT, b"end"),
            ]  # fmt: skip
            peer.write(b"".join(frames) + peer.encode(TEXT, b"part")[:3])
            while await listener.payload() != b"end":
                pass
            while received(listener.transport)[0] < sum(map(len, frames)) + 3:
                await asyncio.sleep(0)
            assert received(listener.transport) == (sum(map(len, frames)) + 3, 6, 2)
            # The PING was answered.
            assert listener.transport.stats().control_frames_sent == 1

    net.run(test())


def test_frames_behind_the_request(net: Network) -> None:
    async def test() -> None:
        async with serving(net) as (_, url, listeners), stream(net, url) as peer:
            frame = peer.encode(TEXT, b"early")
            peer.write(REQUEST + frame)
            await peer.reader.readuntil(b"\r\n\r\n")
            assert await listeners[0].payload() == b"early"
            assert received(listeners[0].transport) == (len(frame), 1, 0)

    net.run(test())


def test_compressed_bytes_are_counted_as_they_travel(net: Network) -> None:
    async def test() -> None:
        async with serving(net, compression=WSDeflate()) as (_, url, listeners), stream(net, url) as peer:
            peer.write(REQUEST[:-2] + b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n")
            await peer.reader.readuntil(b"\r\n\r\n")
            listeners[0].transport.send(WSMsgType.TEXT, bytes(10_000))
            frame = await peer.receive()
            assert zlib.decompressobj(-15).decompress(frame.payload) == bytes(10_000)
            assert sent(listeners[0].transport) == (2 + len(frame.payload), 1, 0)

    net.run(test())


@over_every_network
@over_roles
def test_what_waits_and_what_was_replaced(net: Network, role: str) -> None:
    async def test() -> None:
        async with ROLES[role](net, Recorder) as (peer, listener):
            transport = listener.transport
            fillers = await stall(peer, transport)
            send_all(transport, "a1", "b1", "a2", "a3")
            stats = transport.stats()
            assert stats.queued == transport.write_buffer_size > 8 * len(FILLING)
            assert stats.max_queued >= stats.queued
            assert (stats.replaced, stats.dropped, stats.frames_sent) == (2, 0, fillers)
            await skip(peer, fillers)
            assert await payloads(peer, 2) == [b"a3", b"b1"]
            drained = transport.stats()
            assert (drained.queued, drained.max_queued, drained.frames_sent) == (0, stats.max_queued, fillers + 2)

    net.run(test())


@over_every_network
def test_the_most_that_waited_though_nobody_looked(net: Network) -> None:
    async def test() -> None:
        async with raw_client(net, Producer, max_write_buffer_size=None) as (peer, listener):
            peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
            frames = 20
            for _ in range(frames):
                listener.transport.send(WSMsgType.BINARY, bytes(1 << 20))
            peer.writer.transport.resume_reading()  # type: ignore[attr-defined]
            for _ in range(frames):
                await peer.receive()
            stats = listener.transport.stats()
            # Over TLS the mark was passed and was looked at.
            assert stats.max_queued > (0 if net.tls else 10 << 20)
            assert stats.max_queued <= stats.bytes_sent + 100_000
            assert stats.queued == 0

    net.run(test())


@over_tcp_and_tls
@pytest.mark.parametrize("policy", [WSSlowPeerPolicy.DROP_NEWEST, WSSlowPeerPolicy.RAISE], ids=lambda policy: policy.name)
def test_what_was_dropped(net: Network, policy: WSSlowPeerPolicy) -> None:
    async def test() -> None:
        async with raw_client(net, Recorder, max_write_buffer_size=1 << 20, slow_peer=policy) as (peer, listener):
            transport = listener.transport
            fillers = await stall(peer, transport)
            # A broadcast raises nothing.
            assert ws_broadcast([transport], WSMsgType.BINARY, bytes(1 << 20)) == 0
            assert ws_broadcast([transport], WSMsgType.BINARY, bytes(1 << 20), latest="key") == 0
            assert transport.stats().dropped == 2
            assert transport.stats().frames_sent == fillers
            peer.writer.transport.abort()

    net.run(test())


@over_tcp_and_tls
@over_roles
def test_the_last_round_trip(net: Network, role: str) -> None:
    async def test() -> None:
        async with ROLES[role](net, Recorder) as (peer, listener):
            measuring = asyncio.ensure_future(listener.transport.measure_roundtrip_time(2))
            for _ in range(2):
                await asyncio.sleep(0.005)
                peer.send(PONG, (await peer.receive()).payload)
            times = await measuring
            assert listener.transport.stats().roundtrip_time == times[-1] >= 0.004

    net.run(test())


@over_tcp_and_tls
def test_a_server_adds_them_up(net: Network) -> None:
    async def test() -> None:
        before = time.time()
        async with serving(net) as (server, url, listeners):
            empty = server.stats()
            assert before <= empty.since <= time.time()
            assert empty[1:] == (0,) * (len(empty) - 1)
            async with stream(net, url) as one, stream(net, url) as two, stream(net, url) as refused:
                for peer in (one, two):
                    peer.write(REQUEST)
                    await peer.reader.readuntil(b"\r\n\r\n")
                while server.stats()[1:5] != (2, 1, 2, 0):  # a client's TLS is done before the server's
                    await asyncio.sleep(0)
                refused.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                await refused.lost()
                refused.writer.close()
                for listener in listeners[:2]:
                    listener.transport.send(WSMsgType.TEXT, b"12345")
                one.send(CLOSE, close_payload(1000))
                await one.receive_all()
                await one.close()
                await listeners[0].disconnected.wait()
                fillers = await stall(two, listeners[1].transport)
                send_all(listeners[1].transport, "a1", "a2")
                while server.stats().not_upgraded < 1:
                    await asyncio.sleep(0)
                stats = server.stats()
                assert stats[1:5] == (1, 0, 2, 1)
                assert stats.bytes_sent == 2 * (2 + 5) + 4 + fillers * (10 + len(FILLING))
                assert stats.frames_sent == 2 + 1 + fillers
                assert (stats.bytes_received, stats.frames_received) == (6 + 2, 1)
                assert (stats.control_frames_sent, stats.control_frames_received) == (1, 1)
                assert (stats.replaced, stats.dropped) == (1, 0)
                assert stats.max_queued >= stats.queued == listeners[1].transport.write_buffer_size > 0
                _, failure = call_in_thread(server.stats)
                assert isinstance(failure, RuntimeError)
                two.writer.transport.abort()  # type: ignore[attr-defined]
                await listeners[1].disconnected.wait()
                ended = server.stats()
                assert ended == stats._replace(connections=0, queued=0)
                assert listeners[1].transport.stats().frames_sent == 1 + fillers
                assert listeners[1].transport.stats().queued == 0

    net.run(test())
