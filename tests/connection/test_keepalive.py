"""Auto ping, auto pong and the measuring of round trips. Time-outs are short; what is waited for is what arrives."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any, cast

import pytest

from picows import WSAutoPingStrategy, WSFrame, WSMsgType, WSTransport
from tests.connection.networks import (
    Echo,
    Network,
    Received,
    Recorder,
    all_at_once,
    close_state,
    cut,
    over_both_loops,
    over_every_network,
    over_tcp_and_tls,
)
from tests.connection.peers import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    REQUEST,
    ROLES,
    TEXT,
    Peer,
    close_code,
    close_payload,
    raw_client,
    upgrade_response,
)
from tests.connection.proxies import client_tls, server_tls

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
def test_pings_go_on_while_they_are_answered(net: Network) -> None:
    async def test(role: str, strategy: WSAutoPingStrategy) -> None:
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

    net.run(all_at_once(*(test(role, strategy) for role in ROLES for strategy in WSAutoPingStrategy)))


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
    async def test(strategy: WSAutoPingStrategy) -> None:
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
        if strategy == WSAutoPingStrategy.PING_PERIODICALLY:
            assert len(times) >= 3
        else:
            # Unless the machine itself was idle for so long.
            assert not times or longest > 0.09

    net.run(all_at_once(*(test(strategy) for strategy in WSAutoPingStrategy)))


@over_both_loops
def test_periodical_pings_keep_their_time(net: Network) -> None:
    """From ping to ping, however long the reply takes."""

    class Timing(Recorder):
        def __init__(self) -> None:
            super().__init__()
            self.asked: list[float] = []
            self.answered: list[float] = []

        def send_user_specific_ping(self, transport: WSTransport) -> None:
            self.asked.append(time.monotonic())
            transport.send_ping()

        def is_user_specific_pong(self, frame: WSFrame) -> bool:
            self.answered.append(time.monotonic())
            return True

    async def test() -> None:
        period = 0.1
        options = auto_ping(auto_ping_idle_timeout=period, auto_ping_strategy=WSAutoPingStrategy.PING_PERIODICALLY)
        async with raw_client(net, Timing, **options) as (peer, listener):
            for _ in range(4):
                assert (await peer.receive()).msg_type == PING
                await asyncio.sleep(0.7 * period)
                peer.send(PONG)
            assert (await peer.receive()).msg_type == PING
            # A timer may be late, but no timer is early: one that was set by a reply leaves a whole period every time.
            pauses = [asked - answered for answered, asked in zip(listener.answered, listener.asked[1:])]
            assert min(pauses) < 0.8 * period

    net.run(test())


@over_tcp_and_tls
def test_no_reply_is_missed_while_reading_is_paused(net: Network) -> None:
    async def test() -> None:
        async with raw_client(net, Recorder, **auto_ping(auto_ping_reply_timeout=REPLY)) as (peer, listener):
            ping = await peer.receive()
            listener.transport.underlying_transport.pause_reading()
            peer.send(PONG, ping.payload)
            peer.send(TEXT, b"behind")
            await asyncio.sleep(2.5 * REPLY)
            assert not listener.transport.is_close_frame_sent
            listener.transport.underlying_transport.resume_reading()
            assert await listener.frames.get() == Received(TEXT, b"behind")
            # Now it is missed.
            while (frame := await peer.receive()).msg_type == PING:
                pass
            assert close_code(frame) == 1001

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
def test_exceptions_in_user_specific_pings(
    net: Network, role: str, callback: str, caplog: pytest.LogCaptureFixture
) -> None:
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
            else:
                assert [record.getMessage() for record in caplog.records if record.exc_info] == [f"{callback} failed"]

    net.run(test())


@over_both_loops
def test_a_failing_look_for_the_pong_may_be_logged_only(net: Network, caplog: pytest.LogCaptureFixture) -> None:
    """By its own name; the frame is dropped, and what fails behind it has another name."""

    class Raising(Recorder):
        failing = True

        def is_user_specific_pong(self, frame: WSFrame) -> bool:
            if self.failing:
                self.failing = False
                raise ZeroDivisionError
            return True

        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            raise ZeroDivisionError

    async def messages(*payloads: bytes) -> list[str]:
        caplog.clear()
        options = auto_ping(auto_ping_reply_timeout=10, disconnect_on_exception=False)
        async with ROLES["server"](net, Raising, **options) as (peer, _listener):
            assert (await peer.receive()).msg_type == PING
            for payload in payloads:
                peer.send(TEXT, payload)
            assert (await peer.receive()).msg_type == PING
            return [record.getMessage() for record in caplog.records if record.exc_info]

    async def test() -> None:
        caplog.set_level(logging.DEBUG, "picows")
        failed = "is_user_specific_pong failed, the connection stays open"
        assert await messages(b"seen as none", b"the pong") == [failed]
        assert await messages(b"seen as none", b"the pong", b"a message") == [
            failed,
            "on_ws_frame failed, the connection stays open",
        ]

    net.run(test())


@over_both_loops
def test_data_right_behind_a_ping_is_a_sign_of_life(net: Network) -> None:
    """Though it comes so soon that the time since then is as good as the whole time for the reply."""

    async def test() -> None:
        async with ROLES["server"](net, Recorder, **auto_ping(auto_ping_reply_timeout=REPLY)) as (peer, _):
            for _ in range(3):
                assert (await peer.receive()).msg_type == PING
                peer.send(TEXT, b"here I am")
            assert (await peer.receive()).msg_type == PING

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


def test_who_measures_waits_for_a_pong_behind_data(net: Network) -> None:
    """As long as something comes, where that counts as life; the time limit is that of silence."""

    async def test() -> None:
        options = auto_ping(
            auto_ping_idle_timeout=IDLE, auto_ping_reply_timeout=PATIENCE, auto_ping_strategy=WSAutoPingStrategy.PING_WHEN_IDLE
        )
        async with raw_client(net, Recorder, **options) as (peer, listener):
            measuring = asyncio.ensure_future(listener.transport.measure_roundtrip_time(1))
            pings = [await peer.receive()]
            until = time.monotonic() + PATIENCE + 0.1
            while time.monotonic() < until:
                peer.send(TEXT, b"life")
                await asyncio.sleep(0.01)
            assert not measuring.done()
            assert not listener.transport.is_disconnected
            peer.send(PONG, pings[0].payload)
            (taken,) = await measuring
            assert taken > PATIENCE

    net.run(test())


def test_a_pong_of_another_size_is_no_reply(net: Network) -> None:
    async def test() -> None:
        async with raw_client(net, Recorder) as (peer, listener):
            measuring = asyncio.ensure_future(listener.transport.measure_roundtrip_time(1))
            number = (await peer.receive()).payload
            for payload in (number + b"x", number[:-1], b""):
                peer.send(PONG, payload)
                peer.send(PING, b"behind")
                assert await peer.receive() == Received(PONG, b"behind")
                assert not measuring.done()
            peer.send(PONG, number)
            assert len(await measuring) == 1

    net.run(test())


def test_a_close_right_behind_the_pong_ends_the_measuring(net: Network) -> None:
    async def test() -> None:
        async with raw_client(net, Recorder, enable_auto_close=False) as (peer, listener):
            measuring = asyncio.ensure_future(listener.transport.measure_roundtrip_time(2))
            ping = await peer.receive()
            peer.write(peer.encode(PONG, ping.payload) + peer.encode(CLOSE, close_payload(1000)))
            with pytest.raises(ConnectionResetError, match="cannot be measured"):
                await measuring
            listener.transport.send_close(1000)
            assert (await peer.receive()).msg_type == CLOSE  # no second ping

    net.run(test())


# -- while the connection is closing --


@over_both_loops
def test_a_peer_that_said_close_is_not_pinged(net: Network) -> None:
    """Nor missed: it is told all that the listener still has to say."""

    async def test(role: str, strategy: WSAutoPingStrategy) -> None:
        options = auto_ping(auto_ping_reply_timeout=REPLY, auto_ping_strategy=strategy, enable_auto_close=False)
        async with ROLES[role](net, Recorder, **options) as (peer, listener):
            # Its reply to this one could not come any more.
            assert (await peer.receive()).msg_type == PING
            peer.send(CLOSE, close_payload(1000))
            assert (await listener.frames.get()).msg_type == CLOSE
            for _ in range(10):
                assert listener.transport.send(WSMsgType.TEXT, b"my last")
                await asyncio.sleep((IDLE + REPLY) / 5)
            listener.transport.send_close(1000)
            listener.transport.disconnect()
            *data, close = await peer.receive_all()
            assert data == [Received(TEXT, b"my last")] * 10
            assert close_code(close) == 1000
            await peer.close()
            await listener.disconnected.wait()

    net.run(all_at_once(*(test(role, strategy) for role in ROLES for strategy in WSAutoPingStrategy)))


@over_both_loops
def test_the_last_data_of_a_peer_are_life(net: Network) -> None:
    """After our CLOSE no ping can be sent, whose reply could be missed."""

    class Asking(Recorder):
        asked_when_closing = 0

        def send_user_specific_ping(self, transport: WSTransport) -> None:
            self.asked_when_closing += transport.is_close_frame_sent
            transport.send_ping()

    async def test(role: str) -> None:
        reply = 0.3
        options = auto_ping(auto_ping_reply_timeout=reply, auto_ping_strategy=WSAutoPingStrategy.PING_PERIODICALLY)
        async with ROLES[role](net, Asking, **options) as (peer, listener):
            listener.transport.send_close(1000)
            assert close_code(await peer.receive()) == 1000
            until = time.monotonic() + 1.5 * reply
            count = 0
            while time.monotonic() < until:
                peer.send(TEXT, b"my last")
                count += 1
                await asyncio.sleep(IDLE / 3)
            peer.send(CLOSE, close_payload(1000))
            assert await listener.take(count) == [Received(TEXT, b"my last")] * count
            assert (await listener.frames.get()).msg_type == CLOSE
            assert listener.asked_when_closing == 0

    net.run(all_at_once(*(test(role) for role in ROLES)))


@over_both_loops
def test_a_peer_that_is_silent_after_our_close_is_left(net: Network) -> None:
    async def test(role: str, strategy: WSAutoPingStrategy) -> None:
        options = auto_ping(auto_ping_idle_timeout=6 * REPLY, auto_ping_reply_timeout=REPLY, auto_ping_strategy=strategy)
        async with ROLES[role](net, Recorder, **options) as (peer, listener):
            # Silence before it does not count. A loaded machine must not be as late as the idle time-out is long.
            await asyncio.sleep(1.5 * REPLY)
            closed = time.monotonic()
            listener.transport.send_close(1000)
            await listener.disconnected.wait()
            assert time.monotonic() - closed >= REPLY - 0.005
            assert [close_code(frame) for frame in await peer.receive_all() if frame.msg_type != PING] == [1000]

    net.run(all_at_once(*(test(role, strategy) for role in ROLES for strategy in WSAutoPingStrategy)))


@over_tcp_and_tls
@over_roles
def test_who_measures_is_told_of_a_close(net: Network, role: str) -> None:
    """At once: the connection itself may go on for long."""

    async def test() -> None:
        async with ROLES[role](net, Recorder, enable_auto_close=False) as (peer, listener):
            measuring = [asyncio.ensure_future(listener.transport.measure_roundtrip_time(3)) for _ in range(2)]
            assert (await peer.receive()).msg_type == PING
            peer.send(CLOSE, close_payload(1000))
            await asyncio.wait(measuring, timeout=10)
            for task in [*measuring, asyncio.ensure_future(listener.transport.measure_roundtrip_time(1))]:
                with pytest.raises(ConnectionResetError):
                    await task
            assert listener.transport.send(WSMsgType.TEXT, b"my last")
            assert await peer.receive() == Received(TEXT, b"my last")
        async with ROLES[role](net, Recorder) as (_, listener):
            listener.transport.send_close(1000)
            with pytest.raises(ConnectionResetError):
                await asyncio.wait_for(listener.transport.measure_roundtrip_time(1), 10)
            assert not listener.transport.is_disconnected

    net.run(test())


@over_both_loops
@over_roles
def test_a_reply_in_front_of_a_close_counts(net: Network, role: str) -> None:
    async def test() -> None:
        async with ROLES[role](net, Recorder) as (peer, listener):
            measuring = asyncio.ensure_future(listener.transport.measure_roundtrip_time(1))
            ping = await peer.receive()
            peer.write(peer.encode(PONG, ping.payload) + peer.encode(CLOSE, close_payload(1000)))
            assert len(await measuring) == 1

    net.run(test())


@pytest.mark.parametrize("net", [Network("asyncio", tls=True)], ids=str)
def test_a_disconnect_while_a_close_is_looked_at(net: Network) -> None:
    """It ends as any other; TLS, because that does not wait for long."""

    class Leaving(Recorder):
        def is_user_specific_pong(self, frame: WSFrame) -> bool:
            self.transport.disconnect()
            return False

    async def test() -> None:
        async with raw_client(net, Leaving, **auto_ping()) as (peer, listener):
            assert (await peer.receive()).msg_type == PING
            peer.send(CLOSE, close_payload(1000))
            await asyncio.wait_for(listener.disconnected.wait(), 10)

    net.run(test())


@pytest.mark.parametrize("net", [Network("asyncio", tls=True)], ids=str)
def test_tls_is_closed_when_the_peer_is_silent(net: Network) -> None:
    """A peer that has just sent may be sending more, by which the TLS shutdown would fail."""

    class Leaving(Recorder):
        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            self.left = time.monotonic()
            transport.disconnect()

    async def test() -> None:
        async with raw_client(net, Leaving) as (peer, listener):
            peer.send(TEXT, b"leave")
            assert await peer.receive_all() == []
            assert time.monotonic() - listener.left >= 0.2
            await listener.disconnected.wait()

    net.run(test())


# -- limits that are over while the loop was held up: the peer's bytes lie in the kernel --

LIMIT = 0.8  # all that is prepared has to be done before, on a busy machine too


class BlockingStream:
    """What a Peer reads and writes, on a blocking socket: it can write while the loop is held up."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(10)
        self.sock = sock

    def write(self, data: bytes) -> None:
        self.sock.sendall(data)

    async def readexactly(self, size: int) -> bytes:
        data: bytes = await in_thread(self._read, lambda data: len(data) == size)
        return data

    async def read_head(self) -> bytes:
        head: bytes = await in_thread(self._read, lambda data: data.endswith(b"\r\n\r\n"))
        return head

    def _read(self, is_all: Callable[[bytes], bool]) -> bytes:
        data = b""
        while not is_all(data):
            byte = self.sock.recv(1)
            if not byte:
                raise EOFError
            data += byte
        return data


async def in_thread(function: Callable[..., Any], *args: Any) -> Any:
    return await asyncio.get_running_loop().run_in_executor(None, function, *args)


def blocking_peer(sock: socket.socket, *, masks: bool) -> Peer:
    stream = BlockingStream(sock)
    return Peer(cast(Any, stream), cast(Any, stream), masks=masks)


@contextlib.asynccontextmanager
async def blocking_client(net: Network, server: Callable[[], Any], **options: Any) -> AsyncIterator[Peer]:
    """Has sent nothing yet."""

    def connect() -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", int(url.split(":")[2].strip("/"))))
        return client_tls().wrap_socket(sock, server_hostname="127.0.0.1") if net.tls else sock

    async with net.serve(lambda request: server(), **options) as url:
        with await in_thread(connect) as sock:
            yield blocking_peer(sock, masks=True)


@contextlib.asynccontextmanager
async def blocking_server(
    net: Network, client: Callable[[], Any], **options: Any
) -> AsyncIterator[tuple[Peer, asyncio.Future[Any]]]:
    """Has read nothing yet; the future is that of the client's listener."""

    def accept() -> socket.socket:
        sock, _ = listening.accept()
        return server_tls().wrap_socket(sock, server_side=True) if net.tls else sock

    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(10)
        url = f"{'wss' if net.tls else 'ws'}://127.0.0.1:{listening.getsockname()[1]}/"
        connecting = asyncio.ensure_future(net.connect(client, url, **options))
        with await in_thread(accept) as sock:
            yield blocking_peer(sock, masks=False), connecting


async def upgrade(peer: Peer, connecting: asyncio.Future[Any]) -> Any:
    request = await cast(Any, peer.reader).read_head()
    peer.write(upgrade_response(request))
    return await connecting


@contextlib.asynccontextmanager
async def connected(net: Network, role: str, **options: Any) -> AsyncIterator[tuple[Peer, Any]]:
    listener = Recorder()
    if role == "server":
        async with blocking_client(net, lambda: listener, **options) as peer:
            peer.write(REQUEST)
            await cast(Any, peer.reader).read_head()
            yield peer, listener
            await cut(listener)
    else:
        async with blocking_server(net, lambda: listener, **options) as (peer, connecting):
            yield peer, await upgrade(peer, connecting)
            await cut(listener)


# Each case runs up to where a limit counts, then gives what the peer does while the loop is held up, and goes on to see
# that the peer was heard.
Case = AsyncGenerator[Callable[[], None], None]


async def server_handshake_case(net: Network) -> Case:
    listener = Recorder()
    async with blocking_client(net, lambda: listener, websocket_handshake_timeout=LIMIT) as peer:
        yield lambda: peer.write(REQUEST)
        assert (await cast(Any, peer.reader).read_head()).startswith(b"HTTP/1.1 101 ")
        await cut(listener)


async def client_handshake_case(net: Network) -> Case:
    async with blocking_server(net, Recorder, websocket_handshake_timeout=LIMIT) as (peer, connecting):
        request = await cast(Any, peer.reader).read_head()
        yield lambda: peer.write(upgrade_response(request))
        await cut(await connecting)


async def auto_ping_case(net: Network, role: str, strategy: WSAutoPingStrategy) -> Case:
    options = auto_ping(auto_ping_reply_timeout=LIMIT, auto_ping_strategy=strategy)
    async with connected(net, role, **options) as (peer, listener):
        ping = await peer.receive()
        yield lambda: peer.send(PONG, ping.payload)
        peer.send(TEXT, b"behind")
        assert await listener.frames.get() == Received(TEXT, b"behind")


async def stall_case(net: Network, role: str) -> Case:
    async with connected(net, role, receive_timeout=LIMIT) as (peer, listener):
        frame = peer.encode(TEXT, b"the whole of it")
        peer.write(peer.encode(PING) + frame[:9])
        assert (await peer.receive()).msg_type == PONG
        yield lambda: peer.write(frame[9:])
        assert await listener.payload() == b"the whole of it"


async def close_case(net: Network, role: str) -> Case:
    async with connected(net, role) as (peer, listener):
        closing = asyncio.ensure_future(listener.transport.close(timeout=LIMIT))
        assert close_code(await peer.receive()) == 1000
        yield lambda: peer.send(CLOSE, close_payload(1000, b"me too"))
        await closing
        state = close_state(listener.transport)
        assert state is not None
        assert state[1] == (1000, "me too")


async def hold_up(actions: list[Callable[[], None]]) -> None:
    """Keep the loop from turning for longer than LIMIT, from where it reads: libuv looks at its timers next."""
    loop = asyncio.get_running_loop()
    held = loop.create_future()

    def hold() -> None:
        loop.remove_reader(ours)
        for action in actions:
            action()
        time.sleep(1.05 * LIMIT)
        held.set_result(None)

    ours, other = socket.socketpair()
    with ours, other:
        loop.add_reader(ours, hold)
        other.send(b"now")
        await held


@over_tcp_and_tls
def test_a_peer_is_heard_before_it_is_judged(net: Network) -> None:
    """One hold-up for all limits, because it takes its time."""

    async def go_on(case: Case) -> None:
        with pytest.raises(StopAsyncIteration):
            await asyncio.wait_for(case.__anext__(), 5)

    async def test() -> None:
        cases = [server_handshake_case(net), client_handshake_case(net)]
        for role in ROLES:
            cases += [auto_ping_case(net, role, strategy) for strategy in WSAutoPingStrategy]
            cases += [stall_case(net, role), close_case(net, role)]
        actions = await asyncio.gather(*(case.__anext__() for case in cases))
        await hold_up(actions)
        outcomes = await asyncio.gather(*map(go_on, cases), return_exceptions=True)
        assert [(case.__name__, outcome) for case, outcome in zip(cases, outcomes) if outcome is not None] == []

    net.run(test())


# -- part of a frame --


@over_both_loops
def test_a_stall_begins_with_the_last_byte(net: Network) -> None:
    async def test() -> None:
        limit = 0.2
        async with raw_client(net, Recorder, receive_timeout=limit) as (peer, _):
            part = peer.encode(TEXT, b"no more than this", length=100)
            peer.write(part[:-1])
            await asyncio.sleep(limit / 2)
            peer.write(part[-1:])
            written = time.monotonic()
            assert close_code(await peer.receive()) == 1008
            assert time.monotonic() - written >= limit - 0.005

    net.run(test())


@over_tcp_and_tls
def test_a_pause_of_ours_is_not_the_peers_silence(net: Network) -> None:
    async def test(pause: float) -> None:
        limit = 0.15
        async with raw_client(net, Recorder, receive_timeout=limit) as (peer, listener):
            frame = peer.encode(TEXT, b"in two parts")

            async def send_and_pause(data: bytes) -> None:
                peer.write(peer.encode(PING) + data)
                assert (await peer.receive()).msg_type == PONG
                listener.transport.underlying_transport.pause_reading()
                await asyncio.sleep(pause * limit)
                listener.transport.underlying_transport.resume_reading()

            await send_and_pause(frame[:9])
            await asyncio.sleep(limit / 2)
            peer.write(frame[9:])
            assert await listener.payload() == b"in two parts"
            # Behind it silence is silence.
            await send_and_pause(frame[:9])
            resumed = time.monotonic()
            assert close_code(await peer.receive()) == 1008
            assert time.monotonic() - resumed >= limit - 0.005

    # Within the limit, and beyond it.
    net.run(all_at_once(test(0.9), test(2)))


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
                peer.send(PONG, getting.result().payload)
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


@over_both_loops
@over_roles
def test_a_late_reply_is_not_taken_for_another(net: Network, role: str) -> None:
    async def test() -> None:
        async with ROLES[role](net, Recorder) as (peer, listener):
            given_up = []
            for _ in range(3):
                measuring = asyncio.ensure_future(listener.transport.measure_roundtrip_time(1))
                given_up.append(await peer.receive())
                measuring.cancel()
                await asyncio.wait([measuring])
            measuring = asyncio.ensure_future(listener.transport.measure_roundtrip_time(1))
            ping = await peer.receive()
            payloads = [frame.payload for frame in [*given_up, ping]]
            assert [len(payload) for payload in payloads] == [8] * 4
            assert len(set(payloads)) == 4
            # Whatever else a peer may answer or say of itself.
            others = [Received(PONG, payload) for payload in (b"", ping.payload[:7], bytes(8), b"heartbeat")]
            for frame in [*others[:2], *given_up, *others[2:]]:
                peer.send(PONG, frame.payload)
            # Replies to ourselves are nobody else's business.
            assert await listener.take(4) == others
            await asyncio.wait([measuring], timeout=0.02)  # time to wake up, for which there is no reason
            assert not measuring.done()
            peer.send(PONG, ping.payload)
            assert len(await measuring) == 1
            # Nor is one that nobody waits for.
            peer.send(PONG, ping.payload)
            peer.send(TEXT, b"behind")
            assert await listener.frames.get() == Received(TEXT, b"behind")

    net.run(test())


@over_both_loops
def test_any_pong_is_life_while_it_is_measured(net: Network) -> None:
    """Some peers answer with an empty one. They cannot be measured, but they live."""

    async def test(strategy: WSAutoPingStrategy) -> None:
        reply = 0.2
        options = auto_ping(auto_ping_reply_timeout=reply, auto_ping_strategy=strategy)
        async with raw_client(net, Recorder, **options) as (peer, listener):

            async def answer() -> None:
                while (await peer.receive()).msg_type == PING:
                    peer.send(PONG)

            answering = asyncio.ensure_future(answer())
            measuring = asyncio.ensure_future(listener.transport.measure_roundtrip_time(1))
            await asyncio.sleep(3 * (IDLE + reply))
            assert not answering.done()
            assert not measuring.done()
            # When it dies it is found as ever.
            answering.cancel()
            await asyncio.wait([answering])
            with pytest.raises(ConnectionResetError):
                await measuring
            await listener.disconnected.wait()
            state = close_state(listener.transport)
            assert state is not None
            assert state[0][0] == 1001

    net.run(all_at_once(*(test(strategy) for strategy in WSAutoPingStrategy)))


@over_both_loops
@pytest.mark.parametrize("method", ["send_user_specific_ping", "is_user_specific_pong"])
@pytest.mark.parametrize("where", ["class", "instance"])
def test_who_overrides_a_method_decides_what_replies(net: Network, method: str, where: str) -> None:
    class Overriding(Recorder):
        pass

    def send_user_specific_ping(transport: WSTransport) -> None:
        transport.send_ping(b"mine")

    def is_user_specific_pong(frame: WSFrame) -> bool:
        return frame.msg_type == PONG

    async def test() -> None:
        async with raw_client(net, Overriding) as (peer, listener):
            override: Any = {
                "send_user_specific_ping": send_user_specific_ping,
                "is_user_specific_pong": is_user_specific_pong,
            }[method]
            if where == "class":
                setattr(Overriding, method, staticmethod(override))
            else:
                setattr(listener, method, override)
            measuring = asyncio.ensure_future(listener.transport.measure_roundtrip_time(1))
            assert (await peer.receive()).payload == (b"mine" if method == "send_user_specific_ping" else b"")
            peer.send(PONG, b"whatever")
            assert len(await measuring) == 1
            assert listener.rest() == []

    net.run(test())
