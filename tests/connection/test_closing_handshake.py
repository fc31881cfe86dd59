"""The closing handshake that picows performs itself: enable_auto_close and close()."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from picows import WSCloseCode, WSFrame, WSMsgType, WSTransport
from tests.connection.networks import (
    Network,
    Received,
    Recorder,
    all_at_once,
    close_state,
    over_both_loops,
    over_every_network,
    over_tcp_and_tls,
)
from tests.connection.peers import BINARY, CLOSE, ROLES, TEXT, Peer, close_payload, raw_client, raw_server

MIB = 1024 * 1024
AUTO: dict[str, Any] = {}  # it is the default
BY_HAND = {"enable_auto_close": False}

over_roles = pytest.mark.parametrize("role", ROLES)
over_sides = pytest.mark.parametrize("side", [0, 1], ids=["client", "server"])


async def end_of_stream(peer: Peer) -> bool:
    """Whether the stream ends here, and is not reset."""
    return await peer.reader.read(1) == b""


@over_every_network
@over_roles
@pytest.mark.parametrize("payload", [b"", close_payload(3500, b"reason")], ids=["empty", "code"])
def test_a_close_is_answered_after_the_callback(net: Network, role: str, payload: bytes) -> None:
    class Last(Recorder):
        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            super().on_ws_frame(transport, frame)
            transport.send(WSMsgType.TEXT, b"last words")

    async def test() -> None:
        async with ROLES[role](net, Last, **AUTO) as (peer, listener):
            peer.send(CLOSE, payload)
            assert await peer.receive() == Received(TEXT, b"last words")
            assert await peer.receive() == Received(CLOSE, payload)
            if role == "server":
                assert await end_of_stream(peer)
            await peer.close()
            await listener.disconnected.wait()
            await listener.transport.wait_disconnected()
            assert [frame.msg_type for frame in listener.rest()] == [CLOSE]
            assert listener.calls == ["connected", "disconnected"]

    net.run(test())


@over_tcp_and_tls
def test_close_ends_a_connection_that_answers_nothing_itself(net: Network) -> None:
    async def test() -> None:
        async with raw_client(net, Recorder, **BY_HAND) as (peer, listener):
            closing = asyncio.ensure_future(listener.transport.close(1000, timeout=None))
            assert await peer.receive() == Received(CLOSE, close_payload(1000))
            peer.send(CLOSE, close_payload(1000))
            assert await end_of_stream(peer)
            await peer.close()
            await closing
            assert close_state(listener.transport) == ((1000, ""), (1000, ""), False)

    net.run(test())


@over_tcp_and_tls
@over_roles
def test_the_listeners_own_answer_stands(net: Network, role: str) -> None:
    class Polite(Recorder):
        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            transport.send_close(4000, b"mine")

    async def test() -> None:
        async with ROLES[role](net, Polite, **AUTO) as (peer, listener):
            peer.send(CLOSE, close_payload(1000))
            assert await peer.receive() == Received(CLOSE, close_payload(4000, b"mine"))
            await peer.close()
            await listener.disconnected.wait()

    net.run(test())


@over_tcp_and_tls
@over_roles
@pytest.mark.parametrize("steps", ["close disconnect", "disconnect close", "disconnect", "abort", "close abort"])
def test_a_listener_that_ends_it_itself_sees_no_difference(net: Network, role: str, steps: str) -> None:
    class Own(Recorder):
        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            super().on_ws_frame(transport, frame)
            for step in steps.split():
                if step == "close":
                    transport.send_close(4000, b"mine")
                else:
                    transport.disconnect(graceful=step == "disconnect")

    async def outcome(options: dict[str, Any]) -> Any:
        async with ROLES[role](net, Own, **options) as (peer, listener):
            peer.send(CLOSE, close_payload(1000, b"theirs"))
            try:
                frames = await peer.receive_all()
            except ConnectionError:
                frames = []
            await peer.close()
            await listener.disconnected.wait()
            return frames, listener.rest(), listener.calls, close_state(listener.transport)

    async def test() -> None:
        frames, *rest = await outcome(AUTO)
        by_hand, *rest_by_hand = await outcome(BY_HAND)
        assert rest == rest_by_hand
        if "abort" not in steps:  # which may overtake what was sent
            assert frames == by_hand == [Received(CLOSE, close_payload(4000, b"mine"))] * steps.startswith("close")

    net.run(test())


@over_both_loops
def test_it_can_be_left_to_the_listener(net: Network) -> None:
    """Which may take its time, and goes on sending."""

    async def test(role: str) -> None:
        async with ROLES[role](net, Recorder, **BY_HAND) as (peer, listener):
            peer.send(CLOSE, close_payload(1000))
            await listener.take(1)
            await asyncio.sleep(0.05)
            assert listener.transport.send(WSMsgType.TEXT, b"last words")
            assert await peer.receive() == Received(TEXT, b"last words")
            assert not listener.transport.is_close_frame_sent

    net.run(all_at_once(*(test(role) for role in ROLES)))


@over_both_loops
def test_the_client_waits_for_the_server_to_end_tcp(net: Network) -> None:
    async def test() -> None:
        async with raw_server(net, Recorder, **AUTO) as (peer, listener):
            peer.send(CLOSE, close_payload(1000))
            assert await peer.receive() == Received(CLOSE, close_payload(1000))
            # Time enough for an end of the stream, if it were sent.
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(peer.reader.read(1), 0.05)
            assert not listener.disconnected.is_set()
            peer.writer.close()
            await listener.disconnected.wait()

    net.run(test())


@over_every_network
@over_sides
def test_close_performs_the_whole_handshake(net: Network, side: int) -> None:
    async def test() -> None:
        async with net.pair(client_options=AUTO, server_options=AUTO) as pair:
            one, other = pair[side], pair[1 - side]
            one.transport.send(WSMsgType.TEXT, b"before")
            await one.transport.close(3500, "grüße")
            assert one.transport.is_disconnected
            assert one.calls == ["connected", "disconnected"]
            await other.disconnected.wait()
            expected = close_payload(3500, "grüße".encode())
            assert other.rest() == [Received(TEXT, b"before"), Received(CLOSE, expected)]
            assert one.rest() == [Received(CLOSE, expected)]
            assert close_state(one.transport) == ((3500, "grüße"), (3500, "grüße"), False)
            for listener in pair:
                await listener.transport.wait_disconnected()
                await listener.transport.close()

    net.run(test())


@over_every_network
@over_sides
def test_all_that_was_sent_before_is_received(net: Network, side: int) -> None:
    """By a peer that reads slowly, and sends as much itself meanwhile, which is delivered until its CLOSE."""
    count = 30

    class Late(Recorder):
        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            super().on_ws_frame(transport, frame)
            if frame.msg_type == WSMsgType.BINARY:
                transport.send(WSMsgType.BINARY, frame)

    async def test() -> None:
        factories: list[Any] = [Recorder, Recorder]
        factories[1 - side] = Late
        async with net.pair(*factories, client_options=AUTO, server_options=AUTO) as pair:
            one, other = pair[side], pair[1 - side]
            other.transport.underlying_transport.pause_reading()
            messages = [bytes([i]) * (MIB // 4) for i in range(count)]
            for message in messages:
                one.transport.send(WSMsgType.BINARY, message)
            closing = asyncio.ensure_future(one.transport.close())
            await asyncio.sleep(0)
            other.transport.underlying_transport.resume_reading()
            await closing
            await other.disconnected.wait()
            expected = [Received(BINARY, message) for message in messages] + [Received(CLOSE, close_payload(1000))]
            assert other.rest() == expected
            assert one.rest() == expected

    net.run(test())


@over_tcp_and_tls
def test_a_peer_that_does_not_answer_is_cut_off(net: Network) -> None:
    async def test(role: str) -> None:
        async with ROLES[role](net, Recorder) as (peer, listener):
            closing = asyncio.ensure_future(listener.transport.close(timeout=0.2))
            assert await peer.receive() == Received(CLOSE, close_payload(1000))
            peer.send(TEXT, b"still here")
            assert await listener.payload() == b"still here"
            await closing
            assert listener.transport.is_disconnected
            await peer.lost()
            await listener.transport.wait_disconnected()

    net.run(all_at_once(*(test(role) for role in ROLES)))


@over_tcp_and_tls
@over_roles
def test_cancelling_it_cuts_the_connection(net: Network, role: str) -> None:
    async def test() -> None:
        async with ROLES[role](net, Recorder) as (peer, listener):
            closing = asyncio.ensure_future(listener.transport.close())
            await peer.receive()
            closing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await closing
            await listener.disconnected.wait()

    net.run(test())


@over_both_loops
@pytest.mark.parametrize("turns", range(4))
def test_cancelling_it_counts_in_the_moment_of_success(net: Network, turns: int) -> None:
    async def test() -> None:
        async with raw_server(net, Recorder) as (peer, listener):
            closing = asyncio.ensure_future(listener.transport.close())
            peer.send(CLOSE, (await peer.receive()).payload)
            await peer.close()
            await listener.disconnected.wait()
            for _ in range(turns):
                await asyncio.sleep(0)
            if closing.cancel():
                with pytest.raises(asyncio.CancelledError):
                    await closing

    net.run(test())


@over_tcp_and_tls
@over_roles
def test_the_peer_was_first(net: Network, role: str) -> None:
    """Without enable_auto_close, close() answers a CLOSE that came before."""

    async def test() -> None:
        async with ROLES[role](net, Recorder, **BY_HAND) as (peer, listener):
            peer.send(CLOSE, close_payload(1001))
            await listener.take(1)
            closing = asyncio.ensure_future(listener.transport.close(WSCloseCode.GOING_AWAY))
            assert await peer.receive() == Received(CLOSE, close_payload(1001))
            await peer.close()
            await closing
            assert close_state(listener.transport) == ((1001, ""), (1001, ""), True)

    net.run(test())


@over_both_loops
def test_auto_ping_does_not_disturb_it(net: Network) -> None:
    options = {"enable_auto_ping": True, "auto_ping_idle_timeout": 0.02, "auto_ping_reply_timeout": 0.02}

    async def test() -> None:
        async with raw_client(net, Recorder, **options) as (peer, listener):
            while (await peer.receive()).msg_type != WSMsgType.PING:
                pass
            closing = asyncio.ensure_future(listener.transport.close())
            while (await peer.receive()).msg_type != CLOSE:
                pass
            peer.send(WSMsgType.PONG)
            await asyncio.sleep(0.1)
            assert not closing.done()
            peer.send(CLOSE, close_payload(1000))
            assert await end_of_stream(peer)
            await peer.close()
            await closing

    net.run(test())


@over_both_loops
@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"timeout": 0}, ValueError),
        ({"timeout": -1}, ValueError),
        ({"timeout": "1"}, TypeError),
        ({"code": 1005}, ValueError),
        ({"code": 1000, "reason": "x" * 124}, ValueError),
        ({"code": 0, "reason": "x"}, ValueError),
    ],
)
def test_wrong_arguments(net: Network, arguments: Any, error: type[Exception]) -> None:
    async def test() -> None:
        async with net.pair(client_options=AUTO, server_options=AUTO) as (client, server):
            with pytest.raises(error):
                await client.transport.close(**arguments)
            assert not client.transport.is_close_frame_sent
            client.transport.send(WSMsgType.TEXT, b"open")
            assert await server.payload() == b"open"
            await client.transport.close()

    net.run(test())
