"""Keepalive, and the pings whose pongs are waited for. What is waited for is what arrives; times are those that are promised."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Any

import pytest

from picows._streams import MessageStream
from tests.connection.networks import Network, Received, all_at_once, over_both_loops, over_tcp_and_tls
from tests.connection.peers import CLOSE, PING, PONG, TEXT, close_payload
from tests.streams.streams import arrived, at_once, raw_peer, say_close, send_texts, until

INTERVAL = 0.03
TIMEOUT = 0.1
LONG = 20


def kept_alive(interval: float | None, timeout: float | None, **marks: Any) -> Any:
    class KeptAlive(MessageStream):
        def on_ws_connected(self, transport: Any) -> None:
            super().on_ws_connected(transport)
            self.began = time.monotonic()
            self.keep_alive(interval, timeout)

        def pong_received(self, frame: Any) -> None:
            self.unasked = frame.get_payload_as_bytes()

    return lambda: KeptAlive(**marks)


async def ping_of(peer: Any) -> bytes:
    frame = await peer.receive()
    assert frame.msg_type == PING
    return bytes(frame.payload)


FAILED = Received(CLOSE, close_payload(1011, b"keepalive ping timeout"))


@over_tcp_and_tls
@pytest.mark.parametrize("role", ["server", "client"])
def test_pings_come_at_their_time(net: Network, role: str) -> None:
    """The first one after one interval, each with a payload of its own, while they are answered and while nobody has to."""

    async def test(pings: int, interval: float, timeout: float | None, answered: bool) -> None:
        async with raw_peer(net, kept_alive(interval, timeout), role) as (peer, stream):
            assert stream.latency == 0
            seen = set()
            for count in range(1, pings + 1):
                seen.add(payload := await ping_of(peer))
                assert time.monotonic() - stream.began >= count * (interval - 0.005)
                if answered:
                    peer.send(PONG, payload)
            assert len(seen) == pings
            assert all(len(payload) == 8 for payload in seen)
            await arrived_among_pings(peer)
            assert 0 < stream.latency < time.monotonic() - stream.began if answered else stream.latency == 0
            assert not hasattr(stream, "unasked")

    net.run(
        all_at_once(
            test(4, INTERVAL, LONG, True), test(2, 0.25, 0.2, True), test(4, INTERVAL, None, True), test(4, INTERVAL, None, False)
        )
    )


async def arrived_among_pings(peer: Any) -> None:
    peer.send(PING, b"arrived?")
    while (await peer.receive()).msg_type != PONG:
        pass


@over_tcp_and_tls
@pytest.mark.parametrize("role", ["server", "client"])
def test_a_dead_peer_is_left(net: Network, role: str) -> None:
    """By CLOSE 1011 and an abort; data are no pong."""

    async def test(interval: float) -> None:
        async with raw_peer(net, kept_alive(interval, TIMEOUT), role) as (peer, stream):
            receiving = asyncio.ensure_future(stream.recv())
            await ping_of(peer)
            send_texts(peer, "data")
            assert await receiving == "data"
            receiving = asyncio.ensure_future(stream.recv())
            assert await peer.receive() == FAILED
            # Not only when the next one were due.
            assert interval + TIMEOUT - 0.01 <= time.monotonic() - stream.began < max(2 * interval, LONG * INTERVAL)
            with pytest.raises(ConnectionResetError):
                await receiving
            sent = stream.transport.close_handshake.sent
            assert (sent.code, sent.reason) == (1011, "keepalive ping timeout")
            assert stream.close_code == 1006

    net.run(all_at_once(test(INTERVAL), test(4 * TIMEOUT)))


@over_both_loops
def test_none_at_all(net: Network) -> None:
    async def test(interval: float | None) -> None:
        async with raw_peer(net, kept_alive(interval, 0.01)) as (peer, _):
            await asyncio.sleep(0.1)
            peer.send(PING, b"ours")
            assert await peer.receive() == Received(PONG, b"ours")

    net.run(all_at_once(test(None), test(0)))


@over_both_loops
def test_no_ping_while_a_pong_may_still_come(net: Network) -> None:
    """And the next one at once behind a late pong."""

    async def test() -> None:
        async with raw_peer(net, kept_alive(INTERVAL, LONG)) as (peer, _):
            payload = await ping_of(peer)
            await asyncio.sleep(3 * INTERVAL)
            await arrived(peer)  # no other ping was there
            peer.send(PONG, payload)
            assert await asyncio.wait_for(ping_of(peer), LONG / 2) != payload

    net.run(test())


@over_tcp_and_tls
def test_no_pong_is_missed_while_nobody_takes_messages(net: Network) -> None:
    async def test() -> None:
        async with raw_peer(net, kept_alive(INTERVAL, TIMEOUT, high=0)) as (peer, stream):
            payload = await ping_of(peer)
            send_texts(peer, "not taken")
            await until(lambda: not stream.transport.underlying_transport.is_reading())
            peer.send(PONG, payload)
            await asyncio.sleep(2.5 * TIMEOUT)
            assert not stream.transport.is_close_frame_sent
            assert at_once(stream.recv()) == "not taken"
            assert await ping_of(peer) != payload
            assert await peer.receive() == FAILED

    net.run(test())


async def send_for_ever(stream: MessageStream) -> None:
    while True:
        await stream.send(bytes(1024 * 1024))


@over_tcp_and_tls
def test_a_peer_that_takes_nothing_is_left_by_who_waits_for_it_and_takes_nothing_either(net: Network) -> None:
    async def test() -> None:
        async with raw_peer(net, kept_alive(INTERVAL, TIMEOUT, high=0)) as (peer, stream):
            peer.writer.transport.pause_reading()
            send_texts(peer, "not taken")
            await until(lambda: not stream.transport.underlying_transport.is_reading())
            with pytest.raises(ConnectionResetError, match="1006"):
                await send_for_ever(stream)
            assert stream.transport.close_handshake.sent.reason == "keepalive ping timeout"

    net.run(test())


@over_both_loops
def test_no_pong_is_missed_while_the_loop_is_held_up(net: Network) -> None:
    async def test() -> None:
        async with raw_peer(net, kept_alive(INTERVAL, TIMEOUT)) as (peer, stream):
            payload = await ping_of(peer)
            loop = asyncio.get_running_loop()

            def hold_up() -> None:
                """From where the loop reads: libuv looks at its timers next."""
                loop.remove_reader(ours)
                peer.send(PONG, payload)
                time.sleep(1.5 * TIMEOUT)

            ours, other = socket.socketpair()
            with ours, other:
                loop.add_reader(ours, hold_up)
                other.send(b"now")
                await until(lambda: stream.latency > TIMEOUT or stream.ended)
            assert not stream.transport.is_close_frame_sent

    net.run(test())


@over_both_loops
def test_no_ping_behind_a_close(net: Network) -> None:
    async def test() -> None:
        async with raw_peer(net, kept_alive(INTERVAL, TIMEOUT)) as (peer, stream):
            stream.transport.send_close(4000)
            await asyncio.sleep(2 * INTERVAL + TIMEOUT)
            assert not stream.transport.is_disconnected
            assert await peer.receive() == Received(CLOSE, close_payload(4000))
            peer.send(CLOSE, close_payload(4000))
            assert await peer.receive_all() == []

    net.run(test())


@over_tcp_and_tls
def test_a_later_pong_acknowledges_earlier_pings(net: Network) -> None:
    async def test() -> None:
        async with raw_peer(net, kept_alive(None, None)) as (peer, stream):
            loop = asyncio.get_running_loop()
            waiters = [loop.create_future() for _ in range(4)]
            waiters[1].cancel()
            for i, waiter in enumerate(waiters):
                assert stream.send_ping(b"%d" % i, waiter)
                assert await ping_of(peer) == b"%d" % i
            assert stream.send_ping(b"nobody waits for it")
            assert not stream.send_ping(b"2", loop.create_future())
            await ping_of(peer)
            peer.send(PONG, b"2")
            await arrived(peer)
            assert [waiter.done() for waiter in waiters] == [True, True, True, False]
            # Each since its own ping.
            assert waiters[0].result() > waiters[2].result() > 0
            assert stream.latency == waiters[2].result()
            peer.send(PONG, b"1")
            await arrived(peer)
            assert stream.unasked == b"1"
            assert not waiters[3].done()
            assert stream.send_ping(b"2")

    net.run(test())


@over_both_loops
def test_a_pong_to_a_later_ping_of_the_user_keeps_alive(net: Network) -> None:
    async def test() -> None:
        async with raw_peer(net, kept_alive(INTERVAL, LONG)) as (peer, stream):
            await ping_of(peer)
            assert stream.send_ping(b"user's")
            assert await ping_of(peer) == b"user's"
            peer.send(PONG, b"user's")
            await ping_of(peer)
            assert not stream.transport.is_close_frame_sent

    net.run(test())


@over_tcp_and_tls
def test_the_end_is_told_to_who_waits_for_a_pong(net: Network) -> None:
    async def test() -> None:
        async with raw_peer(net) as (peer, stream):
            waiter = asyncio.get_running_loop().create_future()
            cancelled = asyncio.get_running_loop().create_future()
            cancelled.cancel()
            assert stream.send_ping(b"1", waiter)
            assert stream.send_ping(b"2", cancelled)
            assert [await ping_of(peer), await ping_of(peer)] == [b"1", b"2"]
            await say_close(peer, close_payload(4000))
            with pytest.raises(ConnectionResetError, match="4000"):
                await waiter
            with pytest.raises(ConnectionResetError, match="4000"):
                stream.send_ping(b"3")

    net.run(test())


@over_both_loops
def test_a_ping_that_is_refused_is_forgotten(net: Network) -> None:
    async def test() -> None:
        async with raw_peer(net) as (peer, stream):
            for _ in range(2):
                with pytest.raises(ValueError, match="125"):
                    stream.send_ping(bytes(126))
            with pytest.raises(TypeError, match="payload"):
                stream.send_ping("text")
            for arguments in (("1", None), (1, "1")):
                with pytest.raises(TypeError, match="must be a number of seconds"):
                    stream.keep_alive(*arguments)
            for arguments in ((-1, None), (1, 0)):
                with pytest.raises(ValueError, match="must be a positive, finite number"):
                    stream.keep_alive(*arguments)
            stream.transport.send(TEXT, b"behind")
            assert await peer.receive() == Received(TEXT, b"behind")
            stream.transport.send_close(1000)
            with pytest.raises(ConnectionResetError, match="nothing can be sent"):
                stream.send_ping(b"1")

    net.run(test())
