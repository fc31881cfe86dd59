"""Frames arrive as they were sent: every size, however cut, in order, byte for byte."""

from __future__ import annotations

import array
import asyncio
import concurrent.futures
import contextlib
import random
import tracemalloc
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from picows import WSFrame, WSMsgType, WSTransport
from tests.connection.networks import (
    NETWORKS,
    Echo,
    Network,
    Received,
    Recorder,
    cut,
    over_both_loops,
    over_every_network,
    over_tcp_and_tls,
)
from tests.connection.peers import BINARY, CONTINUATION, PING, PONG, REQUEST, ROLES, TEXT, raw_client, stream
from tests.connection.threads import call_in_thread

MIB = 1024 * 1024
SIZES = [0, 1, 2, 124, 125, 126, 127, 65535, 65536, 65537, 256 * 1024 - 7, 256 * 1024, MIB, 16 * MIB]

over_roles = pytest.mark.parametrize("role", ROLES)


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed + size).randbytes(size)


@over_every_network
def test_payloads_of_every_size_come_back(net: Network) -> None:
    async def test() -> None:
        limit = {"max_frame_size": 16 * MIB}
        async with net.pair(server=Echo, client_options=limit, server_options=limit) as (client, server):
            for size in SIZES:
                sent = Received(BINARY, noise(size))
                client.transport.send(WSMsgType.BINARY, sent.payload)
                assert await server.frames.get() == sent
                assert await client.frames.get() == sent

    net.run(test())


@over_every_network
@over_roles
def test_frames_are_whole_wherever_the_stream_is_cut(net: Network, role: str) -> None:
    async def test() -> None:
        async with ROLES[role](net, Recorder) as (peer, listener):
            frames = [
                Received(TEXT, b"first", fin=False),
                Received(CONTINUATION, b""),
                Received(BINARY, noise(300), rsv=(True, False, True)),
                Received(PONG, b"last"),
            ]
            wire = b"".join(
                peer.encode(f.msg_type, f.payload, fin=f.fin, rsv=5 if any(f.rsv) else 0) for f in frames
            )
            for at in [*range(1, 30), len(wire) - 1]:
                peer.write(wire[:at])
                await asyncio.sleep(0)  # lets the first part arrive on its own; right either way
                peer.write(wire[at:])
                assert await listener.take(len(frames)) == frames
            for byte in wire:
                peer.write(bytes([byte]))
                await asyncio.sleep(0)
            assert await listener.take(len(frames)) == frames

    net.run(test())


@over_tcp_and_tls
@over_roles
def test_a_large_frame_in_pieces_between_small_ones(net: Network, role: str) -> None:
    async def test() -> None:
        async with ROLES[role](net, Recorder) as (peer, listener):
            large = noise(3 * MIB)
            wire = peer.encode(TEXT, b"before") + peer.encode(BINARY, large) + peer.encode(TEXT, b"behind")
            sizes = random.Random(1)
            while wire:
                size = sizes.choice([1, 2, 13, 1000, 70000, 400000])
                peer.write(wire[:size])
                await peer.writer.drain()
                await asyncio.sleep(0)
                wire = wire[size:]
            assert [await listener.payload() for _ in range(3)] == [b"before", large, b"behind"]

    net.run(test())


class Positions(Recorder):
    """Keeps where each frame lay in what was read."""

    def __init__(self) -> None:
        super().__init__()
        self.positions: list[tuple[int, bool]] = []

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        self.positions.append((frame.tail_size, bool(frame.last_in_buffer)))
        super().on_ws_frame(transport, frame)


@over_every_network
@over_roles
def test_a_burst_of_small_frames_is_delivered_in_order(net: Network, role: str) -> None:
    count = 5000

    async def test() -> None:
        async with ROLES[role](net, Positions) as (peer, listener):
            peer.write(b"".join(peer.encode(TEXT, b"%d" % i) for i in range(count)))
            assert [await listener.payload() for _ in range(count)] == [b"%d" % i for i in range(count)]
        # Far fewer reads than frames, or a burst was not read as one.
        assert sum(last for _, last in listener.positions) < count / 10
        # Bytes behind a frame go down within one read, and the last frame of all has none.
        assert listener.positions[-1] == (0, True)
        for (tail, last), (next_tail, _) in zip(listener.positions, listener.positions[1:]):
            assert last or next_tail < tail

    net.run(test())


@over_both_loops
def test_the_tail_of_an_incomplete_frame_is_counted(net: Network) -> None:
    async def test() -> None:
        async with raw_client(net, Positions) as (peer, listener):
            whole, half = peer.encode(TEXT, b"one"), peer.encode(TEXT, b"two")
            peer.write(whole + half[:5])
            await listener.payload()
            peer.write(half[5:])
            await listener.payload()
            # No complete frame waited behind either of them.
            assert listener.positions == [(5, True), (0, True)]

    net.run(test())


@over_both_loops
def test_frames_that_come_with_the_handshake(net: Network) -> None:
    """A client may send frames at once; a server's first frames may come in one read with its response."""

    class Greeter(Recorder):
        def on_ws_connected(self, transport: WSTransport) -> None:
            super().on_ws_connected(transport)
            for i in range(100):
                transport.send(WSMsgType.TEXT, b"%d" % i)

    async def test() -> None:
        async with net.pair(client=Greeter, server=Greeter) as pair:
            for listener in pair:
                assert [await listener.payload() for _ in range(100)] == [b"%d" % i for i in range(100)]

    net.run(test())


def send_reusing(transport: WSTransport, msg_type: WSMsgType, payload: bytes) -> None:
    transport.send_reuse_external_bytearray(msg_type, bytearray(b"-" * 14 + payload), 14)


@over_every_network
@pytest.mark.parametrize("sender", ["client", "server"])
def test_mixed_sends_keep_their_order_through_a_full_socket(net: Network, sender: str) -> None:
    """Every way of sending, while the peer reads nothing: some frames leave at once, some in part, some are queued."""

    async def test() -> None:
        async with net.pair(
            client_options={"enable_auto_pong": False}, server_options={"enable_auto_pong": False}
        ) as (client, server):
            one, other = (client, server) if sender == "client" else (server, client)
            other.transport.underlying_transport.pause_reading()
            expected = []
            for i, size in enumerate([10, 9000, 70000, 300, 2 * MIB, 5, 66000, 4 * MIB, 8200, 0, 3 * MIB, 1] * 2):
                payload = noise(size, i)
                if i % 3:
                    one.transport.send(WSMsgType.BINARY, payload)
                else:
                    send_reusing(one.transport, WSMsgType.BINARY, payload)
                one.transport.send_ping(b"%d" % i)
                expected += [Received(BINARY, payload), Received(PING, b"%d" % i)]
            other.transport.underlying_transport.resume_reading()
            assert await other.take(len(expected)) == expected

    net.run(test())


@over_both_loops
def test_what_a_message_may_be(net: Network) -> None:
    messages: list[tuple[Any, bytes]] = [
        ("grüße \U0001f30d", "grüße \U0001f30d".encode()),
        ("", b""),
        ("x" * 100_000, b"x" * 100_000),
        (None, b""),
        (b"bytes", b"bytes"),
        (bytearray(b"bytearray"), b"bytearray"),
        (memoryview(b"0123456789")[2:5], b"234"),
        (array.array("i", [1, -1]), array.array("i", [1, -1]).tobytes()),
        (memoryview(array.array("d", [1.5])).cast("B"), array.array("d", [1.5]).tobytes()),
    ]

    async def test() -> None:
        async with net.pair() as pair:
            for one, other in (pair, pair[::-1]):
                for message, payload in messages:
                    one.transport.send(WSMsgType.TEXT, message)
                    assert await other.frames.get() == Received(TEXT, payload)
                    if len(payload) <= 125:
                        one.transport.send_pong(message)
                        assert await other.frames.get() == Received(PONG, payload)

    net.run(test())


@pytest.mark.parametrize(
    "message",
    [5, object(), [b"x"], memoryview(b"0123")[::2], "\ud800"],
    ids=["int", "object", "list", "not-contiguous", "lone-surrogate"],
)
@pytest.mark.parametrize("side", [0, 1], ids=["client", "server"])
def test_what_a_message_may_not_be(net: Network, message: object, side: int) -> None:
    async def test() -> None:
        async with net.pair() as pair:
            one, other = pair[side], pair[1 - side]
            expected = UnicodeEncodeError if isinstance(message, str) else TypeError
            for send in (one.transport.send_ping, one.transport.send_pong):
                with pytest.raises(expected):
                    send(message)
            with pytest.raises(expected):
                one.transport.send(WSMsgType.BINARY, message)
            one.transport.send(WSMsgType.TEXT, b"next")
            assert await other.frames.get() == Received(TEXT, b"next")

    net.run(test())


def test_flags_and_types_travel(net: Network) -> None:
    async def test() -> None:
        async with net.pair() as pair:
            for one, other in (pair, pair[::-1]):
                send = one.transport.send
                send(WSMsgType.TEXT, b"a", False)
                send(WSMsgType.CONTINUATION, b"b", False, True)
                send(WSMsgType.CONTINUATION, b"c", True, False, True)
                send(WSMsgType.BINARY, b"d", rsv3=True)
                send(2, b"e")  # type: ignore[arg-type]  # an int does
                buffer = bytearray(14 + 1)
                one.transport.send_reuse_external_bytearray(WSMsgType.BINARY, buffer, 14, False, True, True, True)
                assert await other.take(6) == [
                    Received(TEXT, b"a", fin=False),
                    Received(CONTINUATION, b"b", fin=False, rsv=(True, False, False)),
                    Received(CONTINUATION, b"c", rsv=(False, True, False)),
                    Received(BINARY, b"d", rsv=(False, False, True)),
                    Received(BINARY, b"e"),
                    Received(BINARY, b"\0", fin=False, rsv=(True, True, True)),
                ]

    net.run(test())


@pytest.mark.parametrize("side", [0, 1], ids=["client", "server"])
def test_refused_sends_put_nothing_on_the_wire(net: Network, side: int) -> None:
    async def test() -> None:
        async with net.pair() as pair:
            transport, other = pair[side].transport, pair[1 - side]
            refused: list[tuple[type[Exception], Any, tuple[Any, ...]]] = [
                (ValueError, transport.send, (WSMsgType.CLOSE, b"x")),
                (ValueError, transport.send, (WSMsgType.PING, b"x" * 126)),
                (ValueError, transport.send, (WSMsgType.PONG, "é" * 63)),
                (ValueError, transport.send_ping, (b"x" * 126,)),
                (ValueError, transport.send_pong, (b"x" * 126,)),
                (TypeError, transport.send, (None, b"")),
                (TypeError, transport.send, ("TEXT", b"")),
                (ValueError, transport.send_reuse_external_bytearray, (WSMsgType.CLOSE, bytearray(20), 14)),
                (ValueError, transport.send_reuse_external_bytearray, (WSMsgType.PING, bytearray(14 + 126), 14)),
                (ValueError, transport.send_reuse_external_bytearray, (WSMsgType.TEXT, None, 14)),
                (TypeError, transport.send_reuse_external_bytearray, (WSMsgType.TEXT, bytes(20), 14)),
                (ValueError, transport.send_reuse_external_bytearray, (WSMsgType.TEXT, bytearray(20), 13)),
                (ValueError, transport.send_reuse_external_bytearray, (WSMsgType.TEXT, bytearray(20), 0)),
                (ValueError, transport.send_reuse_external_bytearray, (WSMsgType.TEXT, bytearray(20), -1)),
                (ValueError, transport.send_reuse_external_bytearray, (WSMsgType.TEXT, bytearray(20), 21)),
                (ValueError, transport.send_reuse_external_bytearray, (WSMsgType.TEXT, bytearray(5), 14)),
            ]
            for error, send, arguments in refused:
                with pytest.raises(error):
                    send(*arguments)
            # The largest that may be sent, and the emptiest.
            transport.send_pong(b"x" * 125)
            transport.send_reuse_external_bytearray(WSMsgType.TEXT, bytearray(20), 20)
            assert await other.take(2) == [Received(PONG, b"x" * 125), Received(TEXT, b"")]

    net.run(test())


def test_a_bytearray_is_sent_from_any_offset(net: Network) -> None:
    async def test() -> None:
        async with net.pair() as pair:
            for one, other in (pair, pair[::-1]):
                for size in (0, 1, 125, 126, 65535, 65536, MIB):
                    for offset in (14, 15, 100):
                        payload = noise(size)
                        buffer = bytearray(b"-" * offset + payload)
                        one.transport.send_reuse_external_bytearray(WSMsgType.BINARY, buffer, offset)
                        # What lies further in front is not the frame's.
                        assert buffer[: offset - 14] == b"-" * (offset - 14)
                        del buffer[:]  # the memory is the user's again, whether or not all was sent
                        assert await other.frames.get() == Received(BINARY, payload)

    net.run(test())


sends = st.lists(
    st.tuples(
        st.sampled_from([WSMsgType.CONTINUATION, WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.PONG]),
        st.one_of(
            st.integers(0, 200),
            st.sampled_from([8191, 8192, 8193, 65521, 65535, 65536, 65537, 262144, 300_000]),
        ),
        st.booleans(),
        st.tuples(st.booleans(), st.booleans(), st.booleans()),
        st.sampled_from(["bytes", "bytearray", "reuse", "turn"]),
    ),
    max_size=30,
)


@over_tcp_and_tls
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(script=sends, from_client=st.booleans())
def test_any_script_of_sends_arrives_as_it_was_sent(net: Network, script: list[Any], from_client: bool) -> None:
    async def test() -> None:
        async with net.pair() as pair:
            one, other = pair if from_client else pair[::-1]
            expected = []
            for i, (msg_type, size, fin, rsv, how) in enumerate(script):
                if msg_type == WSMsgType.PONG:
                    size, fin = min(size, 125), True
                payload = noise(size, i)
                expected.append(Received(msg_type, payload, fin, rsv))
                if how == "reuse":
                    one.transport.send_reuse_external_bytearray(
                        msg_type, bytearray(b"-" * 20 + payload), 20, fin, *rsv
                    )
                else:
                    message = bytearray(payload) if how == "bytearray" else payload
                    one.transport.send(msg_type, message, fin, *rsv)
                if how == "turn":
                    await asyncio.sleep(0)
            # Nothing of it is lost by ending right behind it.
            one.transport.disconnect()
            await other.disconnected.wait()
            assert other.rest() == expected

    net.run(test())


@over_every_network
def test_large_frames_of_several_connections_at_once(net: Network) -> None:
    """A block that was used before is read into by one of them only."""
    first, second, other = (noise(MIB, seed) for seed in range(3))

    async def test() -> None:
        async with raw_client(net, Recorder) as (peer, listener), raw_client(net, Recorder) as (its_peer, neighbour):
            for _ in range(2):
                peer.send(BINARY, first)
                assert await listener.payload() == first
                wire = peer.encode(BINARY, second)
                peer.write(wire[: MIB // 2])
                await peer.writer.drain()
                its_peer.send(TEXT, b"read by now")
                assert await neighbour.payload() == b"read by now"
                its_peer.send(BINARY, other)
                assert await neighbour.payload() == other
                peer.write(wire[MIB // 2 :])
                assert await listener.payload() == second

    net.run(test())


def test_the_memory_of_a_large_frame_is_given_up() -> None:
    """It is kept while large frames come, and not for long behind the last. Over all networks at once, as it takes seconds."""

    async def test(net: Network) -> None:
        async with net.pair(client_options={"max_frame_size": 16 * MIB}) as (client, server):
            for _ in range(3):
                server.transport.send(WSMsgType.BINARY, bytes(9 * MIB))
                assert len(await client.payload()) == 9 * MIB
            assert holds_large_blocks()
            while holds_large_blocks():
                await asyncio.sleep(0.1)

    def holds_large_blocks() -> bool:
        return any(trace.size >= 9 * MIB for trace in tracemalloc.take_snapshot().traces)

    tracemalloc.start()
    try:
        # A thread keeps memory of its own, and a new one nothing of other tests.
        with concurrent.futures.ThreadPoolExecutor(len(NETWORKS)) as threads:
            runs = [threads.submit(net.run, test(net)) for net in NETWORKS]
        for run in runs:
            run.result()
    finally:
        tracemalloc.stop()


def test_the_memory_of_a_large_frame_is_given_up_on_another_loop(net: Network) -> None:
    """The first loop of the thread has ended before the second of keeping was over."""

    async def test(to_the_end: bool) -> None:
        async with net.pair(client_options={"max_frame_size": 16 * MIB}) as (client, server):
            server.transport.send(WSMsgType.BINARY, bytes(9 * MIB))
            assert len(await client.payload()) == 9 * MIB
            while to_the_end and tracemalloc.get_traced_memory()[0] > 4 * MIB:
                await asyncio.sleep(0.05)

    def one_loop_after_another() -> None:
        net.run(test(False))
        assert tracemalloc.get_traced_memory()[0] > 9 * MIB
        net.run(asyncio.wait_for(test(True), 20))

    tracemalloc.start()
    try:
        # A thread keeps memory of its own, and a new one nothing of other tests.
        _, failure = call_in_thread(one_loop_after_another)
    finally:
        tracemalloc.stop()
    assert failure is None, failure


def test_the_memory_of_a_very_large_frame_is_given_up_at_once(net: Network) -> None:
    async def test() -> None:
        async with net.pair(client_options={"max_frame_size": 17 * MIB}) as (client, server):
            server.transport.send(WSMsgType.BINARY, bytes(17 * MIB))
            assert len(await client.payload()) == 17 * MIB
            assert tracemalloc.get_traced_memory()[0] < 4 * MIB

    tracemalloc.start()
    try:
        net.run(test())
    finally:
        tracemalloc.stop()


def test_an_unfinished_frame_takes_memory_of_its_own_size(net: Network) -> None:
    count = 20
    listeners: list[Recorder] = []

    def factory(request: object) -> Recorder:
        listeners.append(Recorder())
        return listeners[-1]

    async def test() -> None:
        async with net.serve(factory) as url, contextlib.AsyncExitStack() as stack:
            peers = [await stack.enter_async_context(stream(net, url)) for _ in range(count)]
            for peer in peers:
                peer.write(REQUEST)
                await peer.reader.readuntil(b"\r\n\r\n")
            tracemalloc.start()
            try:
                for peer, listener in zip(peers, listeners):
                    peer.write(peer.encode(TEXT, b"whole") + peer.encode(BINARY, bytes(10), length=1000))
                    assert await listener.payload() == b"whole"
                assert tracemalloc.get_traced_memory()[0] < count * MIB // 10
            finally:
                tracemalloc.stop()
            await cut(*listeners)

    net.run(test())


@pytest.mark.parametrize("role", ["client", "server"])
def test_the_memory_of_an_unfinished_frame_goes_with_the_connection(net: Network, role: str) -> None:
    """The user keeps the transport, the connection has kept nothing."""

    async def test() -> None:
        async with ROLES[role](net, Recorder) as (peer, listener):
            peer.send(BINARY, bytes(MIB), length=9 * MIB)
            while tracemalloc.get_traced_memory()[0] < 9 * MIB:
                await asyncio.sleep(0)
            peer.writer.transport.abort()
            await listener.disconnected.wait()
            assert tracemalloc.get_traced_memory()[0] < 8 * MIB

    tracemalloc.start()
    try:
        # A new thread, so that no block of another test is used again.
        _, failure = call_in_thread(net.run, test())
    finally:
        tracemalloc.stop()
    assert failure is None, failure


@over_every_network
def test_a_view_may_be_released_behind_the_send(net: Network) -> None:
    """Though the peer does not read yet, so that what was sent still waits."""
    message = noise(300_000)
    count = 40

    async def test() -> None:
        async with net.pair() as (client, server):
            client.transport.underlying_transport.pause_reading()
            for _ in range(count):
                with memoryview(message) as view:
                    server.transport.send(WSMsgType.BINARY, view)
            assert server.transport.write_buffer_size > 0
            client.transport.underlying_transport.resume_reading()
            for _ in range(count):
                assert await client.payload() == message

    net.run(test())
