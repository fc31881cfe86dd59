"""drain(): a coroutine waits for room behind what it has sent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from picows import WSMsgType, WSTransport
from tests.connection.networks import Network, Recorder, over_both_loops, over_every_network, over_tcp_and_tls
from tests.connection.peers import BINARY, CLOSE, ROLES, TEXT, Peer, close_payload
from tests.connection.producers import Producer

CHUNK = bytes(1 << 16)

over_roles = pytest.mark.parametrize("role", ROLES)


def pause_peer(peer: Peer) -> None:
    peer.writer.transport.pause_reading()  # type: ignore[attr-defined]


def resume_peer(peer: Peer) -> None:
    peer.writer.transport.resume_reading()  # type: ignore[attr-defined]


def send_until_paused(listener: Producer) -> int:
    """And more than the kernel takes while nobody reads; how many chunks were sent."""
    sent = 0
    while not listener.paused.is_set():
        listener.transport.send(WSMsgType.BINARY, CHUNK)
        sent += 1
    for _ in range(128):
        listener.transport.send(WSMsgType.BINARY, CHUNK)
    return sent + 128


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@over_every_network
@over_roles
def test_it_waits_from_the_high_mark_to_the_low_one(net: Network, role: str) -> None:
    async def test() -> None:
        async with ROLES[role](net, Producer) as (peer, listener):
            transport = listener.transport
            for _ in range(2):
                listener.calls.clear()
                pause_peer(peer)
                sent = send_until_paused(listener)
                waiting = [asyncio.ensure_future(transport.drain()) for _ in range(3)]
                await turns(20)
                assert not any(task.done() for task in waiting), (waiting, listener.calls, transport.write_buffer_size)
                resume_peer(peer)
                for _ in range(sent):
                    assert (await peer.receive()).msg_type == BINARY
                assert await asyncio.gather(*waiting) == [None] * 3
                assert listener.calls == ["pause", "resume"]

    net.run(test())


@over_both_loops
def test_what_waits_is_below_the_low_mark(net: Network) -> None:
    async def test() -> None:
        async with ROLES["server"](net, Recorder) as (peer, listener):
            underlying = listener.transport.underlying_transport
            underlying.set_write_buffer_limits(high=1 << 20, low=1 << 18)
            received = asyncio.ensure_future(peer.reader.readexactly(64 << 20))
            most = 0
            for _ in range(1024):
                listener.transport.send(WSMsgType.BINARY, CHUNK)
                waits = underlying.get_write_buffer_size()
                await listener.transport.drain()
                if waits > 1 << 20:
                    assert underlying.get_write_buffer_size() <= 1 << 18
                    most = max(most, waits)
            assert 1 << 20 < most < (1 << 20) + 2 * len(CHUNK)
            await received

    net.run(test())


@over_tcp_and_tls
@over_roles
def test_it_returns_at_once_when_nothing_waits(net: Network, role: str) -> None:
    async def test() -> None:
        async with ROLES[role](net, Recorder) as (peer, listener):
            with listener.transport.cork():
                listener.transport.send(WSMsgType.TEXT, b"gathered")
                drained = listener.transport.drain()
                with pytest.raises(StopIteration):
                    drained.send(None)
                assert (await peer.receive()).payload == b"gathered"

    net.run(test())


ENDS: dict[str, Callable[[WSTransport, Peer], Any]] = {
    "peer resets": lambda transport, peer: peer.writer.transport.abort(),
    "abort": lambda transport, peer: transport.disconnect(graceful=False),
    "disconnect": lambda transport, peer: transport.disconnect(),
    "own close": lambda transport, peer: transport.send_close(1000),
    "peer's close": lambda transport, peer: peer.send(CLOSE, close_payload(1000)),
}


@over_tcp_and_tls
@over_roles
@pytest.mark.parametrize("end", ENDS)
def test_it_raises_when_the_connection_ends(net: Network, role: str, end: str) -> None:
    async def test() -> None:
        async with ROLES[role](net, Producer) as (peer, listener):
            pause_peer(peer)
            send_until_paused(listener)
            waiting = [asyncio.ensure_future(listener.transport.drain()) for _ in range(2)]
            await turns(2)
            ENDS[end](listener.transport, peer)
            for task in waiting:
                with pytest.raises(ConnectionResetError, match="nothing can be sent any more"):
                    await task
            with pytest.raises(ConnectionResetError, match="nothing can be sent any more"):
                await listener.transport.drain()

    net.run(test())


@over_both_loops
def test_cancelling_one_disturbs_no_other(net: Network) -> None:
    async def test() -> None:
        async with ROLES["server"](net, Producer) as (peer, listener):
            pause_peer(peer)
            sent = send_until_paused(listener)
            waiting = [asyncio.ensure_future(listener.transport.drain()) for _ in range(3)]
            await turns(2)
            waiting[1].cancel()
            await turns(2)
            assert [task.done() for task in waiting] == [False, True, False]
            resume_peer(peer)
            for _ in range(sent):
                await peer.receive()
            await asyncio.gather(waiting[0], waiting[2])
            # One that is cancelled in the very turn in which it is woken.
            pause_peer(peer)
            send_until_paused(listener)
            last = asyncio.ensure_future(listener.transport.drain())
            await turns(2)
            listener.transport.disconnect(graceful=False)
            last.cancel()
            with pytest.raises(asyncio.CancelledError):
                await last

    net.run(test())


@over_tcp_and_tls
def test_who_sends_in_a_loop_leaves_others_their_turns(net: Network) -> None:
    """Though nothing ever waits."""

    async def test() -> None:
        async with ROLES["server"](net, Recorder) as (_, listener):
            turns = 0

            def turn() -> None:
                nonlocal turns
                turns += 1
                asyncio.get_running_loop().call_soon(turn)

            turn()
            for _ in range(500):
                listener.transport.send(WSMsgType.TEXT, b"x")
                await listener.transport.drain()
            assert 1 < turns < 100

    net.run(test())


@over_tcp_and_tls
def test_who_sends_in_a_loop_hears_of_the_end(net: Network) -> None:
    """Though nothing ever waits: a transport that has lost its connection takes everything."""

    async def test() -> None:
        async with ROLES["server"](net, Recorder) as (peer, listener):

            async def send_for_ever() -> None:
                while True:
                    listener.transport.send(WSMsgType.TEXT, b"x")
                    await listener.transport.drain()

            others = asyncio.ensure_future(turns(5))
            sending = asyncio.ensure_future(send_for_ever())
            assert (await peer.receive()).msg_type == TEXT
            await others
            peer.writer.transport.abort()
            with pytest.raises(ConnectionResetError):
                await sending

    net.run(test())
