"""Auto ping, auto pong and the measuring of round trips. Time-outs are short; what is waited for is what arrives."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from picows import WSAutoPingStrategy, WSFrame, WSMsgType, WSTransport
from tests.connection.networks import (
    Echo,
    Network,
    Received,
    Recorder,
    close_state,
    over_both_loops,
    over_every_network,
    over_tcp_and_tls,
)
from tests.connection.peers import BINARY, PING, PONG, ROLES, TEXT, Peer, close_code, raw_client

IDLE = 0.03
REPLY = 0.1  # where none comes in time
PATIENCE = 0.5  # where one does: longer than the hiccups of a busy machine

over_roles = pytest.mark.parametrize("role", ROLES)
over_strategies = pytest.mark.parametrize("strategy", WSAutoPingStrategy, ids=lambda strategy: strategy.name)


def auto_ping(**options: Any) -> dict[str, Any]:
    return {
        "enable_auto_ping": True,
        "auto_ping_idle_timeout": IDLE,
        "auto_ping_reply_timeout": 20,
        **options,
    }


@over_every_network
@over_roles
def test_auto_pong(net: Network, role: str) -> None:
    """Answered at once with the same payload, in the order of the pings, and not delivered."""

    async def test() -> None:
        async with ROLES[role](net, Echo) as (peer, listener):
            payloads = [b"", b"x" * 125, b"\xff\x00", *(b"%d" % i for i in range(100))]
            for payload in payloads:
                peer.send(PING, payload)
            peer.send(TEXT, b"behind")
            assert [await peer.receive() for _ in payloads] == [Received(PONG, payload) for payload in payloads]
            assert await peer.receive() == Received(TEXT, b"behind")
            assert listener.rest() == [Received(TEXT, b"behind")]

    net.run(test())


@over_roles
def test_without_auto_pong(net: Network, role: str) -> None:
    async def test() -> None:
        async with ROLES[role](net, Echo, enable_auto_pong=False) as (peer, listener):
            peer.send(PING, b"yours")
            peer.send(TEXT, b"behind")
            assert await listener.take(2) == [Received(PING, b"yours"), Received(TEXT, b"behind")]
            assert await peer.receive() == Received(TEXT, b"behind")
            listener.transport.send_pong(b"mine")
            assert await peer.receive() == Received(PONG, b"mine")

    net.run(test())


@over_roles
def test_a_pong_that_nobody_waits_for_is_delivered(net: Network, role: str) -> None:
    async def test() -> None:
        for options in ({}, auto_ping(auto_ping_idle_timeout=20)):
            async with ROLES[role](net, Recorder, **options) as (peer, listener):
                peer.send(PONG, b"unsolicited")
                assert await listener.frames.get() == Received(PONG, b"unsolicited")

    net.run(test())


@over_tcp_and_tls
@over_roles
@over_strategies
def test_pings_go_on_while_they_are_answered(net: Network, role: str, strategy: WSAutoPingStrategy) -> None:
    async def test() -> None:
        began = time.monotonic()
        async with ROLES[role](net, Recorder, **auto_ping(auto_ping_strategy=strategy)) as (peer, listener):
            for count in range(1, 5):
                ping = await peer.receive()
                assert ping.msg_type == PING
                # None comes early.
                assert time.monotonic() - began >= count * (IDLE - 0.005)
                peer.send(PONG, ping.payload)
            peer.send(TEXT, b"behind")
            # The replies were not delivered.
            assert await listener.frames.get() == Received(TEXT, b"behind")
            assert not listener.transport.is_disconnected

    net.run(test())


async def answer_pings(peer: Peer, times: list[float]) -> None:
    while True:
        frame = await peer.receive()
        if frame.msg_type == PING:
            times.append(time.monotonic())
            peer.send(PONG, frame.payload)


@over_both_loops
@over_roles
def test_a_dead_peer_is_left(net: Network, role: str) -> None:
    """CLOSE(GOING_AWAY) and an abort; the client's waiter is not told off for it."""

    class Asking(Recorder):
        def send_user_specific_ping(self, transport: WSTransport) -> None:
            # The peer may get to see it late.
            self.asked = time.monotonic()
            super().send_user_specific_ping(transport)

    async def test() -> None:
        for strategy in WSAutoPingStrategy:
            options = auto_ping(auto_ping_reply_timeout=REPLY, auto_ping_strategy=strategy)
            async with ROLES[role](net, Asking, **options) as (peer, listener):
                assert (await peer.receive()).msg_type == PING
                assert close_code(await peer.receive()) == 1001
                assert time.monotonic() - listener.asked >= REPLY / 2
                await listener.disconnected.wait()
                await listener.transport.wait_disconnected()
                state = close_state(listener.transport)
                assert state is not None
                assert state[0][0] == 1001
                assert state[1:] == (None, False)

    net.run(test())


@over_roles
def test_a_peer_that_does_not_read_is_left(net: Network, role: str) -> None:
    """The CLOSE cannot be sent, which does not hold the connection."""

    async def test() -> None:
        async with ROLES[role](net, Recorder, **auto_ping(auto_ping_reply_timeout=REPLY)) as (peer, listener):
            peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
            listener.transport.send(WSMsgType.BINARY, bytes(24 << 20))
            await listener.disconnected.wait()
            peer.writer.transport.abort()

    net.run(test())


@over_both_loops
def test_received_data_are_life_when_idle_is_watched(net: Network) -> None:
    """A pong queued behind a burst is no dead peer."""

    async def test() -> None:
        async with raw_client(net, Recorder, **auto_ping(auto_ping_reply_timeout=PATIENCE)) as (peer, listener):
            assert (await peer.receive()).msg_type == PING
            # No pong, but data for longer than the time-out.
            until = time.monotonic() + 1.3 * PATIENCE
            while time.monotonic() < until:
                peer.send(TEXT, b"alive")
                await listener.frames.get()
                await asyncio.sleep(IDLE / 3)
            assert not listener.transport.is_disconnected
            assert not listener.transport.is_close_frame_sent

    net.run(test())


@over_both_loops
@over_roles
def test_only_a_pong_is_life_when_pings_are_periodical(net: Network, role: str) -> None:
    async def test() -> None:
        options = auto_ping(auto_ping_reply_timeout=REPLY, auto_ping_strategy=WSAutoPingStrategy.PING_PERIODICALLY)
        async with ROLES[role](net, Recorder, **options) as (peer, listener):

            async def chatter() -> None:
                while True:
                    peer.send(TEXT, b"alive")
                    await asyncio.sleep(IDLE / 3)

            chattering = asyncio.ensure_future(chatter())
            try:
                assert (await peer.receive()).msg_type == PING
                assert close_code(await peer.receive()) == 1001
                await listener.disconnected.wait()
            finally:
                chattering.cancel()
                await asyncio.wait([chattering])

    net.run(test())


@over_both_loops
def test_periodical_pings_come_among_data_and_idle_ones_do_not(net: Network) -> None:
    async def test() -> None:
        counts = []
        for strategy in WSAutoPingStrategy:
            options = auto_ping(auto_ping_idle_timeout=0.1, auto_ping_strategy=strategy)
            async with raw_client(net, Recorder, **options) as (peer, _):
                times: list[float] = []
                answering = asyncio.ensure_future(answer_pings(peer, times))
                until = time.monotonic() + 0.45
                longest = last = 0.0
                while time.monotonic() < until:
                    peer.send(BINARY, b"data")
                    last = time.monotonic()
                    await asyncio.sleep(0.005)
                    longest = max(longest, time.monotonic() - last)
                answering.cancel()
                await asyncio.wait([answering])
                counts.append((strategy.name, len(times), longest))
        by_name = {name: (count, longest) for name, count, longest in counts}
        assert by_name["PING_PERIODICALLY"][0] >= 3
        count, longest = by_name["PING_WHEN_IDLE"]
        # Unless the machine itself was idle for so long.
        assert count == 0 or longest > 0.09

    net.run(test())


class Custom(Recorder):
    """TEXT frames as ping and pong."""

    def send_user_specific_ping(self, transport: WSTransport) -> None:
        transport.send(WSMsgType.TEXT, b"ping?")

    def is_user_specific_pong(self, frame: WSFrame) -> bool:
        return frame.msg_type == WSMsgType.TEXT and frame.get_payload_as_memoryview() == b"pong!"


@over_both_loops
@over_roles
def test_user_specific_pings(net: Network, role: str) -> None:
    async def test() -> None:
        async with ROLES[role](net, Custom, **auto_ping()) as (peer, listener):
            for _ in range(3):
                assert await peer.receive() == Received(TEXT, b"ping?")
                peer.send(TEXT, b"something else")
                peer.send(TEXT, b"pong!")
                assert await listener.frames.get() == Received(TEXT, b"something else")
            assert not listener.transport.is_disconnected

    net.run(test())


@over_both_loops
def test_user_specific_pong_found_by_the_listener(net: Network) -> None:
    class Late(Custom):
        def is_user_specific_pong(self, frame: WSFrame) -> bool:
            return False

        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            if frame.get_payload_as_memoryview() == b"pong!":
                transport.notify_user_specific_pong_received()
            super().on_ws_frame(transport, frame)

    async def test() -> None:
        strategy = WSAutoPingStrategy.PING_PERIODICALLY
        options = auto_ping(auto_ping_reply_timeout=PATIENCE, auto_ping_strategy=strategy)
        async with raw_client(net, Late, **options) as (peer, listener):
            for _ in range(3):
                assert await peer.receive() == Received(TEXT, b"ping?")
                peer.send(TEXT, b"pong!")
            assert await listener.take(3) == [Received(TEXT, b"pong!")] * 3
            # One that nobody waits for does no harm.
            listener.transport.notify_user_specific_pong_received()
            # Without it the peer counts as dead, though data come.
            while (frame := await peer.receive()).msg_type != 8:
                assert frame == Received(TEXT, b"ping?")
                peer.send(TEXT, b"something else")
            assert close_code(frame) == 1001

    net.run(test())


@over_both_loops
@over_roles
@pytest.mark.parametrize("callback", ["send_user_specific_ping", "is_user_specific_pong"])
def test_exceptions_in_user_specific_pings(net: Network, role: str, callback: str) -> None:
    class Raising(Recorder):
        pass

    def boom(*args: object) -> None:
        raise ZeroDivisionError

    setattr(Raising, callback, boom)

    async def test() -> None:
        async with ROLES[role](net, Raising, **auto_ping()) as (peer, listener):
            frame = await peer.receive()
            if frame.msg_type == PING:
                peer.send(PONG, b"")
                frame = await peer.receive()
            assert close_code(frame) == 1011
            await peer.close()
            await listener.disconnected.wait()
            if role == "client":
                with pytest.raises(ZeroDivisionError):
                    await listener.transport.wait_disconnected()

    net.run(test())


@over_both_loops
def test_no_timer_outlives_the_connection(net: Network) -> None:
    async def test() -> None:
        class Counting(Recorder):
            pings_when_over = 0

            def send_user_specific_ping(self, transport: WSTransport) -> None:
                self.pings_when_over += self.disconnected.is_set()
                transport.send_ping()

        options = auto_ping(auto_ping_idle_timeout=0.001, auto_ping_strategy=WSAutoPingStrategy.PING_PERIODICALLY)
        async with net.pair(Counting, Counting, client_options=options, server_options=options) as pair:
            await pair[0].transport.measure_roundtrip_time(5)
            pair[0].transport.disconnect()
            for listener in pair:
                await listener.disconnected.wait()
            await asyncio.sleep(0.01)  # time in which nothing may happen
            assert [listener.pings_when_over for listener in pair] == [0, 0]

    net.run(test())


# -- the measuring of round trips --


@over_every_network
@pytest.mark.parametrize("side", [0, 1], ids=["client", "server"])
def test_round_trips(net: Network, side: int) -> None:
    async def test() -> None:
        async with net.pair() as pair:
            began = time.monotonic()
            times = await pair[side].transport.measure_roundtrip_time(7)
            took = time.monotonic() - began
            assert len(times) == 7
            assert all(isinstance(seconds, float) and 0 < seconds < took for seconds in times)
            assert sum(times) <= took
            assert await pair[side].transport.measure_roundtrip_time(0) == []
            pair[1 - side].transport.send(WSMsgType.TEXT, b"behind")
            # The replies were not delivered.
            assert await pair[side].frames.get() == Received(TEXT, b"behind")

    net.run(test())


@over_both_loops
def test_two_measure_at_the_same_time(net: Network) -> None:
    async def test() -> None:
        async with net.pair() as (client, _):
            both = await asyncio.gather(*(client.transport.measure_roundtrip_time(n) for n in (3, 5)))
            assert [len(times) for times in both] == [3, 5]

    net.run(test())


@over_both_loops
@over_roles
def test_measuring_waits_for_an_auto_ping_and_holds_it_back(net: Network, role: str) -> None:
    async def test() -> None:
        options = auto_ping(auto_ping_idle_timeout=0.001, auto_ping_strategy=WSAutoPingStrategy.PING_PERIODICALLY)
        async with ROLES[role](net, Recorder, **options) as (peer, listener):
            assert (await peer.receive()).msg_type == PING
            measuring = asyncio.ensure_future(listener.transport.measure_roundtrip_time(4))
            await asyncio.sleep(0.01)  # time for a second ping, which must not come
            outstanding = 0
            answered = 0
            # Never more than one ping under way, whoever sent it.
            peer.send(PONG, b"")
            while not measuring.done():
                getting = asyncio.ensure_future(peer.receive())
                await asyncio.wait([getting, measuring], return_when=asyncio.FIRST_COMPLETED)
                if not getting.done():
                    getting.cancel()
                    await asyncio.wait([getting])
                    break
                assert getting.result().msg_type == PING
                assert outstanding == 0
                outstanding += 1
                await asyncio.sleep(0.003)
                outstanding -= 1
                answered += 1
                peer.send(PONG, b"")
            times = await measuring
            assert len(times) == 4
            # Each measures its own reply.
            assert all(seconds >= 0.0025 for seconds in times)
            assert answered >= 4

    net.run(test())


@over_both_loops
@over_roles
@pytest.mark.parametrize("how", ["disconnect", "abort", "peer"])
def test_the_connection_ends_while_it_is_measured(net: Network, role: str, how: str) -> None:
    async def test() -> None:
        async with ROLES[role](net, Recorder) as (peer, listener):
            measuring = [asyncio.ensure_future(listener.transport.measure_roundtrip_time(3)) for _ in range(2)]
            assert (await peer.receive()).msg_type == PING
            if how == "peer":
                await peer.close()
            else:
                listener.transport.disconnect(graceful=how == "disconnect")
            for task in measuring:
                with pytest.raises(ConnectionResetError):
                    await task
            with pytest.raises(ConnectionResetError):
                await listener.transport.measure_roundtrip_time(1)

    net.run(test())


@over_both_loops
def test_who_measures_may_give_up(net: Network) -> None:
    async def test() -> None:
        async with raw_client(net, Recorder) as (peer, listener):
            measuring = asyncio.ensure_future(listener.transport.measure_roundtrip_time(3))
            assert (await peer.receive()).msg_type == PING
            measuring.cancel()
            await asyncio.wait([measuring])
            assert not listener.transport.is_disconnected
            times: list[float] = []
            answering = asyncio.ensure_future(answer_pings(peer, times))
            assert len(await listener.transport.measure_roundtrip_time(2)) == 2
            answering.cancel()
            await asyncio.wait([answering])

    net.run(test())


def test_measuring_uses_the_users_ping(net: Network) -> None:
    async def test() -> None:
        async with raw_client(net, Custom) as (peer, listener):
            measuring = asyncio.ensure_future(listener.transport.measure_roundtrip_time(2))
            for _ in range(2):
                assert await peer.receive() == Received(TEXT, b"ping?")
                peer.send(TEXT, b"pong!")
            assert len(await measuring) == 2
            assert listener.rest() == []

    net.run(test())
