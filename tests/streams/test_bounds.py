"""What waits to be taken is bounded, in messages and in bytes: above that the peer has to wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from picows import WSMsgType
from picows._streams import MessageStream
from tests.connection.networks import Network, over_both_loops, over_tcp_and_tls
from tests.connection.peers import BINARY, CLOSE, close_payload
from tests.streams.streams import arrived, at_once, pair, raw_peer, say_close, send_texts, until, waiting

ONE_READ = 256 * 1024  # the shared read buffer


def bounded(*args: Any, **kwargs: Any) -> Callable[[], MessageStream]:
    return lambda: MessageStream(*args, **kwargs)


def is_read(stream: Any) -> bool:
    return bool(stream.transport.underlying_transport.is_reading())


@over_tcp_and_tls
@pytest.mark.parametrize("role", ["server", "client"])
def test_who_does_not_receive_is_not_flooded(net: Network, role: str) -> None:
    """The peer is paused by TCP, no more waits here than told, and then all of it comes in order."""
    payload = bytes(996)
    count = 16_000

    async def test() -> None:
        async with raw_peer(net, bounded(high=50), role) as (peer, stream):

            async def flood() -> None:
                for i in range(0, count, 100):
                    peer.write(b"".join(peer.encode(BINARY, b"%04x" % j + payload) for j in range(i, i + 100)))
                    await peer.writer.drain()

            task = asyncio.ensure_future(flood())
            await until(lambda: not is_read(stream))
            await until(lambda: peer.writer.transport.get_write_buffer_size() > 0)
            first = waiting(stream)
            assert 50 < len(first) <= 51 + ONE_READ // 1000
            assert not task.done()
            rest = [await stream.recv() for _ in range(count - len(first))]
            assert [message[:4] for message in first + rest] == [b"%04x" % i for i in range(count)]
            await task

    net.run(test())


@over_tcp_and_tls
def test_it_is_read_again_at_the_low_mark(net: Network) -> None:
    async def test() -> None:
        async with raw_peer(net, bounded(high=4, low=1)) as (peer, stream):
            send_texts(peer, *range(4))
            await arrived(peer)
            assert is_read(stream)
            send_texts(peer, 4)
            await until(lambda: not is_read(stream))
            for i in range(3):
                assert at_once(stream.recv()) == str(i)
                assert not is_read(stream)
            assert at_once(stream.recv()) == "3"
            await until(lambda: is_read(stream))
            send_texts(peer, 5)
            assert [await stream.recv(), await stream.recv()] == ["4", "5"]

    net.run(test())


@over_both_loops
@pytest.mark.parametrize(("text", "memory"), [("x" * 1000, 1000), ("\u20ac" * 500, 1000), ("\U0001f600" * 250, 1000)])
def test_bytes_are_those_of_memory(net: Network, text: str, memory: int) -> None:
    async def test() -> None:
        async with raw_peer(net, bounded(high=None, high_bytes=5 * memory, low_bytes=2 * memory)) as (peer, stream):
            for _ in range(5):
                peer.send(WSMsgType.TEXT, text.encode())
            await arrived(peer)
            assert is_read(stream)
            peer.send(BINARY, b"1")
            await until(lambda: not is_read(stream))
            for _ in range(3):
                assert at_once(stream.recv()) == text
                assert not is_read(stream)
            at_once(stream.recv())
            assert is_read(stream)
            assert waiting(stream) == [text, b"1"]

    net.run(test())


@over_both_loops
def test_a_message_over_the_mark_is_received(net: Network) -> None:
    async def test() -> None:
        async with raw_peer(net, bounded(high_bytes=1000)) as (peer, stream):
            for _ in range(3):
                peer.send(BINARY, bytes(100_000))
            assert [await stream.recv() for _ in range(3)] == [bytes(100_000)] * 3

    net.run(test())


@over_both_loops
def test_what_was_read_already_is_queued_above_the_mark(net: Network) -> None:
    async def test() -> None:
        async with raw_peer(net, bounded(high=0)) as (peer, stream):
            send_texts(peer, *range(20))
            await until(lambda: not is_read(stream))
            assert waiting(stream) == [str(i) for i in range(20)]
            assert is_read(stream)

    net.run(test())


@over_both_loops
def test_no_bound(net: Network) -> None:
    async def test() -> None:
        async with raw_peer(net, bounded(high=None, high_bytes=None)) as (peer, stream):
            send_texts(peer, *["x" * 100] * 20_000)
            await arrived(peer)
            assert len(waiting(stream)) == 20_000

    net.run(test())


@over_tcp_and_tls
def test_the_end_is_seen_when_there_is_room_again(net: Network) -> None:
    async def test() -> None:
        async with raw_peer(net, bounded(high=1)) as (peer, stream):
            send_texts(peer, *range(3))
            await until(lambda: not is_read(stream))
            send_texts(peer, *range(3, 6))
            closing = asyncio.ensure_future(say_close(peer, close_payload(1001, b"bye")))
            assert [message async for message in stream] == [str(i) for i in range(6)]
            assert (stream.close_code, stream.close_reason) == (1001, "bye")
            await closing

    net.run(test())


@over_tcp_and_tls
def test_close_reads_on_to_the_peers_close(net: Network) -> None:
    """Nobody takes messages any more, and it ends by the handshake all the same."""

    async def test() -> None:
        async with raw_peer(net, bounded(high=10)) as (peer, stream):
            send_texts(peer, *range(11))
            await until(lambda: not is_read(stream))
            send_texts(peer, *range(11, 5000))
            closing = asyncio.ensure_future(stream.close(4000, "enough"))
            frames = []
            while not frames or frames[-1].msg_type != CLOSE:
                frames.append(await peer.receive())
            peer.send(CLOSE, close_payload(4000, b"agreed"))
            await peer.close()
            await closing
            assert (stream.close_code, stream.close_reason) == (4000, "agreed")
            kept = [at_once(stream.recv()) for _ in range(12)]
            assert kept == [str(i) for i in range(12)]
            with pytest.raises(ConnectionResetError):
                at_once(stream.recv())

    net.run(test())


@over_both_loops
def test_a_close_that_is_refused_changes_nothing(net: Network) -> None:
    async def test() -> None:
        async with raw_peer(net, bounded(high=1)) as (peer, stream):
            with pytest.raises(ValueError, match="close_code"):
                await stream.close(999)
            send_texts(peer, *range(2000))
            assert [await stream.recv() for _ in range(2000)] == [str(i) for i in range(2000)]

    net.run(test())


@over_both_loops
def test_a_fast_sender_waits_for_a_slow_receiver(net: Network) -> None:
    async def test() -> None:
        async with pair(net, client=bounded(high=10)) as (client, server):
            sent = 0

            async def produce() -> None:
                nonlocal sent
                for i in range(1000):
                    await server.send(b"%03d" % i + bytes(50_000))
                    sent += 1

            task = asyncio.ensure_future(produce())
            await until(lambda: not is_read(client) and server.transport.write_buffer_size > 0)
            for _ in range(20):
                await asyncio.sleep(0)
            assert sent < 1000
            assert [(await client.recv())[:3] for _ in range(1000)] == [b"%03d" % i for i in range(1000)]
            await task

    net.run(test())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"high": -1}, ValueError, "^high must be from 0"),
        ({"high": "1"}, TypeError, "^high must be an int"),
        ({"low": 1.0}, TypeError, "^low must be an int"),
        ({"high": 1, "low": 2}, ValueError, "^low must be at most high, which is 1, got 2"),
        ({"high_bytes": True}, TypeError, "^high_bytes must be an int"),
        ({"high_bytes": 10, "low_bytes": 11}, ValueError, "^low_bytes must be at most high_bytes"),
    ],
)
def test_wrong_marks(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        MessageStream(**options)
