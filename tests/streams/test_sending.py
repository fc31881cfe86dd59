"""Sending: no detour for what the connection takes at once; otherwise the sender waits until there is room."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable
from typing import Any

import pytest

from tests.connection.networks import Network, over_both_loops, over_tcp_and_tls
from tests.connection.peers import BINARY, CONTINUATION, TEXT, Peer
from tests.streams import bindings
from tests.streams.streams import Suspended, at_once, awaited, pair, raw_peer, until


@over_tcp_and_tls
@pytest.mark.parametrize("role", ["server", "client"])
def test_what_is_taken_at_once_does_not_suspend(net: Network, role: str) -> None:
    messages = ["gr\u00fc\u00df", b"bytes", bytearray(b"bytearray"), memoryview(b"memoryview"), "", b""]
    payloads = ["gr\u00fc\u00df".encode(), b"bytes", b"bytearray", b"memoryview", b"", b""]

    async def test() -> None:
        async with raw_peer(net, role=role) as (peer, stream):
            for message in messages:
                assert at_once(stream.send(message)) is None
                assert at_once(awaited(stream.send(message))) is None
                assert at_once(awaited(stream.drain())) is None
            got = [await peer.receive() for _ in range(2 * len(messages))]
            assert [frame.msg_type for frame in got] == [TEXT] * 2 + [BINARY] * 6 + [TEXT] * 2 + [BINARY] * 2
            assert [frame.payload for frame in got[::2]] == payloads
            assert [frame.payload for frame in got[1::2]] == payloads

    net.run(test())


@over_both_loops
def test_send_is_a_coroutine(net: Network) -> None:
    async def test() -> None:
        async with raw_peer(net) as (peer, stream):
            operation = stream.send("never awaited, never sent")
            operation.close()
            await asyncio.create_task(stream.send("1"))
            await asyncio.gather(stream.send("2"), stream.send("3"))
            assert [(await peer.receive()).payload for _ in range(3)] == [b"1", b"2", b"3"]

    net.run(test())


@pytest.mark.parametrize("message", [None, 5, ["list"], {"a": 1}])
def test_the_wrong_type(net: Network, message: Any) -> None:
    async def test() -> None:
        async with raw_peer(net) as (peer, stream):
            with pytest.raises(TypeError, match=f"message is of type {type(message).__name__}, expected str or a buffer"):
                await stream.send(message)
            await stream.send("right type")
            assert (await peer.receive()).payload == b"right type"

    net.run(test())


def test_frames_of_a_type_for_a_dialect(net: Network) -> None:
    async def test() -> None:
        async with raw_peer(net, bindings.Dialect) as (peer, stream):
            assert stream.send_at_once(TEXT, b"as text") is True
            await stream.sending_as(BINARY, "as bytes")
            with pytest.raises(ValueError, match="CLOSE"):
                await stream.sending_as(8, b"x")
            await stream.sending_as(CONTINUATION, b"the library leaves order to its caller")
            got = [await peer.receive() for _ in range(3)]
            assert [frame.msg_type for frame in got] == [TEXT, BINARY, CONTINUATION]

    net.run(test())


def test_whoever_forgets_to_await_is_told(net: Network) -> None:
    async def test() -> None:
        async with raw_peer(net) as (peer, stream):
            with pytest.warns(RuntimeWarning, match=r"^send\(\) was never awaited$"):
                stream.send("lost")
            with pytest.warns(RuntimeWarning, match=r"^recv\(\) was never awaited$"):
                stream.recv()
            await stream.send("heard")
            assert (await peer.receive()).payload == b"heard"
            cancelled = asyncio.ensure_future(stream.send("never begun"))
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled

    net.run(test())


CHUNK = bytes(64 * 1024)


async def fill(stream: Any) -> tuple[int, list[asyncio.Task[None]]]:
    """Send until three senders wait; how many chunks were sent, and who waits."""
    sent, waiting = 0, []
    while len(waiting) < 3:
        task = asyncio.ensure_future(stream.send(CHUNK))
        sent += 1
        for _ in range(3):
            await asyncio.sleep(0)
        if not task.done():
            waiting.append(task)
    return sent, waiting


async def full(net: Network, peer: Peer, stream: Any) -> tuple[int, list[asyncio.Task[None]]]:
    peer.writer.transport.pause_reading()
    sent, waiting = await fill(stream)
    # No turn of the loop changes that.
    for _ in range(20):
        await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    with pytest.raises(Suspended):
        at_once(stream.drain())
    return sent, waiting


@over_tcp_and_tls
def test_senders_wait_for_a_peer_that_does_not_read(net: Network) -> None:
    async def test() -> None:
        async with raw_peer(net) as (peer, stream):
            sent, waiting = await full(net, peer, stream)
            drain = asyncio.ensure_future(stream.drain())
            peer.writer.transport.resume_reading()
            for _ in range(sent):
                assert (await peer.receive()).payload == CHUNK
            await asyncio.gather(*waiting, drain)
            assert at_once(stream.drain()) is None

    net.run(test())


@over_tcp_and_tls
def test_a_sender_that_is_cancelled_disturbs_no_other(net: Network) -> None:
    async def test() -> None:
        async with raw_peer(net) as (peer, stream):
            sent, (one, two, three) = await full(net, peer, stream)
            two.cancel()
            with pytest.raises(asyncio.CancelledError):
                await two
            assert not one.done()
            assert not three.done()
            peer.writer.transport.resume_reading()
            # What it sent was sent.
            for _ in range(sent):
                assert (await peer.receive()).payload == CHUNK
            await asyncio.gather(one, three)

    net.run(test())


ENDINGS: dict[str, Callable[[Peer, Any], None]] = {
    "abort": lambda _, stream: stream.transport.disconnect(graceful=False),
    "abort by the peer": lambda peer, _: peer.writer.transport.abort(),
}


@over_tcp_and_tls
@pytest.mark.parametrize("ending", ENDINGS)
def test_the_end_wakes_senders_by_its_error(net: Network, ending: str) -> None:
    async def test() -> None:
        async with raw_peer(net) as (peer, stream):
            _, waiting = await full(net, peer, stream)
            waiting.append(asyncio.ensure_future(stream.drain()))
            await asyncio.sleep(0)
            ENDINGS[ending](peer, stream)
            for task in waiting:
                with pytest.raises(ConnectionResetError, match="close code 1006"):
                    await task
            with pytest.raises(ConnectionResetError):
                await stream.send("too late")
            if ending == "abort":
                peer.writer.transport.resume_reading()  # it would not see the end

    net.run(test())


@over_tcp_and_tls
def test_who_never_stops_sending_is_told_of_the_end(net: Network) -> None:
    """A transport that has failed takes everything, and tells it when the sender gives it a turn only."""

    async def test() -> None:
        async with raw_peer(net) as (peer, stream):
            # A reset lies in the kernel, and the loop has not seen it.
            sock = peer.writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            with socket.socket(fileno=os.dup(sock.fileno())):  # keeps the connection until we have left it
                peer.writer.transport.abort()
                while sock.fileno() >= 0:
                    await asyncio.sleep(0)
                assert not stream.ended
            with pytest.raises(ConnectionResetError, match="close code 1006"):
                await send_for_ever(stream)

    async def send_for_ever(stream: Any) -> None:
        while True:
            await stream.send(b"x")

    net.run(test())


@over_both_loops
def test_who_never_stops_sending_leaves_the_loop_its_turns(net: Network) -> None:
    async def test() -> None:
        async with pair(net) as (client, server):
            others = asyncio.ensure_future(asyncio.sleep(0))
            while not others.done():
                await client.send(b"taken at once")
            assert await server.recv() == b"taken at once"

    net.run(test())


@over_both_loops
def test_receiving_goes_on_while_a_sender_waits(net: Network) -> None:
    async def test() -> None:
        async with pair(net) as (client, server):
            _, waiting = await fill(server)
            await client.send("still heard")
            assert await server.recv() == "still heard"
            assert not waiting[-1].done()
            while not all(task.done() for task in waiting):
                assert await client.recv() == CHUNK

    net.run(test())


def test_what_was_sent_leaves_before_a_close(net: Network) -> None:
    async def test() -> None:
        async with raw_peer(net) as (peer, stream):
            await stream.send("last words")
            await arrived_words(peer)
            stream.transport.disconnect()
            await peer.close()
            await until(lambda: bool(stream.ended))

    async def arrived_words(peer: Peer) -> None:
        assert (await peer.receive()).payload == b"last words"

    net.run(test())
