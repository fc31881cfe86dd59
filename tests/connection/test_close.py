"""How a connection ends: the closing handshake, disconnect(), and what still arrives."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import pytest

from picows import WSCloseCode, WSFrame, WSMsgType, WSProtocolError, WSTransport, ws_broadcast
from tests.connection.networks import (
    Echo,
    Network,
    Received,
    Recorder,
    all_at_once,
    close_state,
    over_both_loops,
    over_every_network,
    over_tcp_and_tls,
)
from tests.connection.peers import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    ROLES,
    TEXT,
    Peer,
    close_payload,
    raw_client,
)

MIB = 1024 * 1024

over_roles = pytest.mark.parametrize("role", ROLES)
over_sides = pytest.mark.parametrize("side", [0, 1], ids=["client", "server"])


class Polite(Recorder):
    """Answers a CLOSE as the guides say."""

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        super().on_ws_frame(transport, frame)
        if frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()


@over_every_network
@over_sides
def test_closing_handshake(net: Network, side: int) -> None:
    async def test() -> None:
        async with net.pair(Polite, Polite) as pair:
            one, other = pair[side], pair[1 - side]
            assert close_state(one.transport) is None
            assert not one.transport.is_close_frame_sent
            one.transport.send_close(3500, "grüße")
            assert one.transport.is_close_frame_sent
            assert close_state(one.transport) == ((3500, "grüße"), None, False)
            await one.disconnected.wait()
            await other.disconnected.wait()
            assert close_state(one.transport) == ((3500, "grüße"), (3500, "grüße"), False)
            assert close_state(other.transport) == ((3500, "grüße"), (3500, "grüße"), True)
            for listener in pair:
                assert listener.rest() == [Received(CLOSE, close_payload(3500, "grüße".encode()))]
                assert listener.calls == ["connected", "disconnected"]
                await listener.transport.wait_disconnected()
            # Later words change nothing.
            one.transport.send_close(1001, b"again")
            assert close_state(one.transport) == ((3500, "grüße"), (3500, "grüße"), False)

    net.run(test())


@over_roles
@pytest.mark.parametrize(
    ("arguments", "payload"),
    [
        ((), b""),
        ((WSCloseCode.NO_INFO,), b""),
        ((0,), b""),
        ((WSCloseCode.OK,), close_payload(1000)),
        ((1000,), close_payload(1000)),
        ((WSCloseCode.GOING_AWAY, b"bytes"), close_payload(1001, b"bytes")),
        ((1014, "grüße"), close_payload(1014, "grüße".encode())),
        ((3000, bytearray(b"bytearray")), close_payload(3000, b"bytearray")),
        ((4999, memoryview(b"x" * 123)), close_payload(4999, b"x" * 123)),
        ((1000, ""), close_payload(1000)),
        ((1000, None), close_payload(1000)),
    ],
    ids=["none", "no-info", "0", "ok", "1000", "bytes", "str", "bytearray", "view", "empty-reason", "no-reason"],
)
def test_close_on_the_wire(net: Network, role: str, arguments: tuple[Any, ...], payload: bytes) -> None:
    async def test() -> None:
        async with ROLES[role](net, Recorder) as (peer, listener):
            listener.transport.send_close(*arguments)
            assert await peer.receive() == Received(CLOSE, payload)

    net.run(test())


@over_sides
@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        *(((code,), ValueError) for code in (1, 999, 1004, 1005, 1006, 1015, 1016, 1999, 2999, 5000, 65535, 66536)),
        ((WSCloseCode.ABNORMAL_CLOSURE,), ValueError),
        ((-1,), ValueError),
        ((2**40,), ValueError),
        ((1000.0,), TypeError),
        ((1000, b"x" * 124), ValueError),
        ((1000, "é" * 62), ValueError),
        ((1000, b"\xff"), ValueError),
        ((WSCloseCode.NO_INFO, b"reason"), ValueError),
        (("1000",), TypeError),
        ((None,), TypeError),
        ((1000, 5), TypeError),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_a_close_may_not_be(net: Network, side: int, arguments: tuple[Any, ...], error: type[Exception]) -> None:
    async def test() -> None:
        async with net.pair() as pair:
            one, other = pair[side], pair[1 - side]
            with pytest.raises(error):
                one.transport.send_close(*arguments)
            assert close_state(one.transport) is None
            assert not one.transport.is_close_frame_sent
            one.transport.send(WSMsgType.TEXT, b"next")
            assert await other.frames.get() == Received(TEXT, b"next")

    net.run(test())


@over_tcp_and_tls
@over_roles
@pytest.mark.parametrize(
    "payload",
    [None, b"", close_payload(1000), close_payload(3000, "grüße".encode()), close_payload(4999, b"x" * 123)],
    ids=["none", "empty", "code", "reason", "longest"],
)
def test_a_close_that_is_sent_by_its_payload(net: Network, role: str, payload: bytes | None) -> None:
    """It counts as one by send_close does."""

    async def test() -> None:
        async with ROLES[role](net, Recorder) as (peer, listener):
            transport = listener.transport
            assert transport.send(WSMsgType.CLOSE, payload) is True
            assert transport.is_close_frame_sent
            payload_or_none = payload or b""
            code = int.from_bytes(payload_or_none[:2], "big")
            assert close_state(transport) == ((code, payload_or_none[2:].decode()), None, False)
            assert transport.send(WSMsgType.CLOSE, payload) is False
            assert transport.send(WSMsgType.TEXT, b"behind it") is False
            assert await peer.receive() == Received(CLOSE, payload_or_none)
            transport.disconnect()
            assert await peer.receive_all() == []

    net.run(test())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((b"x",), "1 byte"),
        ((b"\0\0",), "code 0"),
        ((b"\0\0reason",), "code 0"),
        ((close_payload(1005),), "close_code is 1005"),
        ((close_payload(999),), "close_code is 999"),
        ((close_payload(1000, b"\xff"),), "UTF-8"),
        ((close_payload(1000, b"x" * 124),), "124 bytes"),
        ((close_payload(1000), False), "one frame"),
        ((close_payload(1000), True, True), "one frame"),
    ],
)
def test_what_the_payload_of_a_close_may_not_be(net: Network, arguments: tuple[Any, ...], sentence: str) -> None:
    async def test() -> None:
        async with net.pair() as (client, server):
            with pytest.raises(ValueError, match=sentence):
                client.transport.send(WSMsgType.CLOSE, *arguments)
            with pytest.raises(TypeError):
                client.transport.send(WSMsgType.CLOSE, 1000)
            assert close_state(client.transport) is None
            client.transport.send(WSMsgType.TEXT, b"next")
            assert await server.frames.get() == Received(TEXT, b"next")

    net.run(test())


class CloseReader(Recorder):
    """Keeps what a CLOSE frame says of itself."""

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        super().on_ws_frame(transport, frame)
        if frame.msg_type == WSMsgType.CLOSE:
            self.said = (frame.get_close_code(), frame.get_close_message(), frame.get_close_reason())
            self.name = getattr(frame.get_close_code(), "name", None)
        else:
            for method in (frame.get_close_code, frame.get_close_message, frame.get_close_reason):
                with pytest.raises(Exception, match=r"(?i)close"):
                    method()


@over_roles
@pytest.mark.parametrize(
    ("payload", "said", "name", "state"),
    [
        (b"", (0, None, None), "NO_INFO", (0, "")),
        (close_payload(1000), (1000, None, None), "OK", (1000, "")),
        (close_payload(1001, "grüße".encode()), (1001, "grüße".encode(), "grüße"), "GOING_AWAY", (1001, "grüße")),
        (close_payload(4321, b"own"), (4321, b"own", "own"), None, (4321, "own")),
    ],
    ids=["empty", "code", "reason", "private"],
)
def test_what_a_close_says(
    net: Network, role: str, payload: bytes, said: Any, name: str | None, state: Any
) -> None:
    async def test() -> None:
        async with ROLES[role](net, CloseReader, enable_auto_close=False) as (peer, listener):
            peer.send(TEXT, b"no CLOSE")
            peer.send(CLOSE, payload)
            await listener.take(2)
            assert (listener.said, listener.name) == (said, name)
            assert close_state(listener.transport) == (None, state, True)

    net.run(test())


@over_sides
def test_every_send_after_a_close_does_nothing(net: Network, side: int) -> None:
    async def test() -> None:
        async with net.pair(Recorder, Recorder) as pair:
            one, other = pair[side], pair[1 - side]
            one.transport.send_close(1000)
            send_in_every_way(one.transport)
            other.transport.send_ping(b"not answered either")
            one.transport.disconnect()
            await other.disconnected.wait()
            assert other.rest() == [Received(CLOSE, close_payload(1000))]
            # So it is after the end.
            await one.disconnected.wait()
            send_in_every_way(one.transport)
            one.transport.disconnect()
            one.transport.disconnect(graceful=False)
            assert close_state(one.transport) == ((1000, ""), None, False)

    net.run(test())


def send_in_every_way(transport: WSTransport) -> None:
    transport.send(WSMsgType.TEXT, b"lost")
    transport.send(WSMsgType.BINARY, b"lost" * 100_000)
    transport.send_ping()
    transport.send_pong(b"lost")
    transport.send_close(1001, b"lost")
    transport.send_reuse_external_bytearray(WSMsgType.TEXT, bytearray(20), 14)


@over_tcp_and_tls
def test_our_close_is_the_last_on_the_wire(net: Network) -> None:
    """A ping behind it is not answered either, in a burst or alone, though the connection is open still."""

    async def test(role: str) -> None:
        async with ROLES[role](net, Recorder) as (peer, listener):
            transport = listener.transport
            transport.send_close(1000)
            peer.write(peer.encode(PING, b"burst") + peer.encode(PING, b"burst") + peer.encode(TEXT, b"burst"))
            assert await listener.payload() == b"burst"
            peer.send(PING, b"alone")
            peer.send(TEXT, b"alone")
            assert await listener.payload() == b"alone"
            send_in_every_way(transport)
            with transport.cork():
                send_in_every_way(transport)
            assert ws_broadcast([transport], WSMsgType.TEXT, b"lost") == 0
            assert not transport.send(WSMsgType.TEXT, b"lost")
            assert not transport.is_disconnected
            transport.disconnect()
            assert await peer.receive_all() == [Received(CLOSE, close_payload(1000))]

    net.run(all_at_once(*(test(role) for role in ROLES)))


@over_tcp_and_tls
def test_a_pong_that_waits_does_not_follow_our_close(net: Network) -> None:
    async def test(role: str) -> None:
        async with ROLES[role](net, Recorder) as (peer, listener):
            peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
            for _ in range(20):
                listener.transport.send(WSMsgType.BINARY, bytes(MIB))
            # While the peer does not read, the answer to its ping waits.
            peer.send(PING, b"late")
            peer.send(TEXT, b"read")
            assert await listener.payload() == b"read"
            listener.transport.send_close(1000)
            peer.writer.transport.resume_reading()  # type: ignore[attr-defined]
            assert [(await peer.receive()).msg_type for _ in range(21)] == [BINARY] * 20 + [CLOSE]
            while listener.transport.write_buffer_size:
                await asyncio.sleep(0)
            peer.send(TEXT, b"read")
            assert await listener.payload() == b"read"
            listener.transport.disconnect()
            assert await peer.receive_all() == []

    net.run(all_at_once(*(test(role) for role in ROLES)))


def test_frames_are_delivered_after_our_close(net: Network) -> None:
    """The peer may have been sending when it came."""

    async def test() -> None:
        async with net.pair() as (client, server):
            client.transport.send_close(1000)
            server.transport.send(WSMsgType.TEXT, b"on its way")
            server.transport.send_close(1000)
            assert [frame.msg_type for frame in await client.take(2)] == [TEXT, CLOSE]

    net.run(test())


@over_every_network
@over_sides
def test_disconnect_is_told_once_and_never_inside_the_call(net: Network, side: int) -> None:
    async def test() -> None:
        for graceful in (True, False):
            async with net.pair() as pair:
                transport = pair[side].transport
                transport.disconnect(graceful)
                transport.disconnect(graceful)
                assert pair[side].calls == ["connected"]
                await transport.wait_disconnected()
                assert pair[side].calls == ["connected", "disconnected"]
                assert transport.is_disconnected
                await pair[1 - side].disconnected.wait()
                transport.disconnect()
                transport.disconnect(graceful=False)
                await transport.wait_disconnected()
                assert [listener.calls for listener in pair] == [["connected", "disconnected"]] * 2
                assert close_state(transport) is None

    net.run(test())


@over_every_network
@over_sides
def test_an_abort_cuts_a_graceful_disconnect_short(net: Network, side: int) -> None:
    async def test() -> None:
        async with net.pair() as pair:
            one, other = pair[side], pair[1 - side]
            other.transport.underlying_transport.pause_reading()
            for _ in range(24):
                one.transport.send(WSMsgType.BINARY, bytes(MIB))
            one.transport.disconnect()
            began = time.monotonic()
            one.transport.disconnect(graceful=False)
            await one.disconnected.wait()
            assert time.monotonic() - began < 4  # less than any linger

    net.run(test())


@over_every_network
@over_sides
def test_an_abort_drops_what_waits(net: Network, side: int) -> None:
    async def test() -> None:
        async with net.pair() as pair:
            one, other = pair[side], pair[1 - side]
            other.transport.underlying_transport.pause_reading()
            for _ in range(24):
                one.transport.send(WSMsgType.BINARY, bytes(MIB))
            one.transport.disconnect(graceful=False)
            await one.disconnected.wait()
            other.transport.underlying_transport.resume_reading()
            await other.disconnected.wait()
            assert len(other.rest()) < 24

    net.run(test())


@over_every_network
def test_a_graceful_disconnect_reaches_a_peer_that_is_still_sending(net: Network) -> None:
    """Megabytes are under way in both directions, and the peer begins to read only after the disconnect."""

    async def test(role: str) -> None:
        limit = {"max_frame_size": 64 * MIB}
        async with ROLES[role](net, Recorder, **limit) as (peer, listener):
            sending = asyncio.ensure_future(send_megabytes(peer, 32))
            await listener.take(4)
            for i in range(16):
                listener.transport.send(WSMsgType.BINARY, bytes([i]) * MIB)
            listener.transport.send_close(1000, b"done")
            listener.transport.disconnect()
            # The peer learns of it by reading; until it has read all, nothing may reset the connection.
            *answers, close = await peer.receive_all()
            assert [answer.payload for answer in answers] == [bytes([i]) * MIB for i in range(16)]
            assert close == Received(CLOSE, close_payload(1000, b"done"))
            await sending
            await peer.close()
            await listener.disconnected.wait()
            await listener.transport.wait_disconnected()

    net.run(all_at_once(*(test(role) for role in ROLES)))


async def send_megabytes(peer: Peer, count: int) -> None:
    # What the peer sends after our end of the connection is gone may be refused.
    with contextlib.suppress(ConnectionError):
        for _ in range(count):
            peer.send(BINARY, bytes(MIB))
            await peer.writer.drain()


@over_tcp_and_tls
def test_a_graceful_disconnect_waits_for_a_slow_reader(net: Network) -> None:
    async def test(role: str) -> None:
        async with ROLES[role](net, Recorder) as (peer, listener):
            for i in range(8):
                listener.transport.send(WSMsgType.BINARY, bytes([i]) * MIB)
            listener.transport.disconnect()
            payloads = []
            for _ in range(8):
                # Not to wait for anything: this is how slow it is.
                await asyncio.sleep(0.03)
                payloads.append((await peer.receive()).payload)
            assert payloads == [bytes([i]) * MIB for i in range(8)]
            assert await peer.receive_all() == []

    net.run(all_at_once(*(test(role) for role in ROLES)))


@over_every_network
def test_both_sides_disconnect_at_once(net: Network) -> None:
    async def test(side: int) -> None:
        async with net.pair() as pair:
            for listener in pair[:: 1 - 2 * side]:
                for i in range(6):
                    listener.transport.send(WSMsgType.BINARY, bytes([i]) * 3)
                listener.transport.disconnect()
            for listener in pair:
                await listener.transport.wait_disconnected()
                assert listener.calls == ["connected", "disconnected"]

    net.run(all_at_once(test(0), test(1)))


@over_every_network
def test_the_last_words_of_a_server_arrive_with_its_end(net: Network) -> None:
    class Brief(Recorder):
        def __init__(self, payload_size: int) -> None:
            super().__init__()
            self.payload_size = payload_size

        def on_ws_connected(self, transport: WSTransport) -> None:
            super().on_ws_connected(transport)
            transport.send(WSMsgType.BINARY, bytes(self.payload_size))
            transport.send_close(1001)
            transport.disconnect()

    async def test(payload_size: int) -> None:
        async with net.pair(server=lambda: Brief(payload_size)) as (client, _):
            # It talks into the closing connection.
            for _ in range(100):
                client.transport.send(WSMsgType.BINARY, bytes(10_000))
            assert await client.take(2) == [Received(BINARY, bytes(payload_size)), Received(CLOSE, close_payload(1001))]
            await client.disconnected.wait()
            await client.transport.wait_disconnected()

    net.run(all_at_once(test(10), test(4 * MIB)))


@over_every_network
@over_roles
@pytest.mark.parametrize("how", ["eof", "reset"])
def test_the_peer_is_gone(net: Network, role: str, how: str) -> None:
    async def test() -> None:
        async with ROLES[role](net, Recorder) as (peer, listener):
            peer.send(TEXT, b"last")
            assert await listener.payload() == b"last"
            if how == "eof":
                await peer.close()
            else:
                peer.writer.transport.abort()
            await listener.transport.wait_disconnected()
            assert listener.calls == ["connected", "disconnected"]
            assert listener.transport.is_disconnected
            assert close_state(listener.transport) is None

    net.run(test())


@over_both_loops
@over_roles
def test_the_peer_leaves_in_the_middle_of_a_frame(net: Network, role: str) -> None:
    async def test() -> None:
        async with ROLES[role](net, Recorder) as (peer, listener):
            peer.send(TEXT, b"whole")
            peer.write(peer.encode(BINARY, bytes(100_000))[:50_000])
            await peer.close()
            await listener.transport.wait_disconnected()
            assert listener.rest() == [Received(TEXT, b"whole")]

    net.run(test())


@over_both_loops
def test_a_client_that_half_closes_gets_what_waits_for_it(net: Network) -> None:
    async def test() -> None:
        async with raw_client(net, Echo) as (peer, _):
            peer.send(BINARY, bytes(MIB))
            peer.writer.write_eof()
            assert await peer.receive_all() == [Received(BINARY, bytes(MIB))]

    net.run(test())


@over_both_loops
def test_closing_the_server_leaves_connections_open(net: Network) -> None:
    async def test() -> None:
        async with net.serve(lambda request: Echo()) as url:
            client = await net.connect(Recorder, url)
        # The server is closed here.
        with pytest.raises(OSError):  # noqa: PT011 - which one is the system's business
            await net.connect(Recorder, url)
        client.transport.send_ping(b"still there")
        assert await client.frames.get() == Received(PONG, b"still there")
        client.transport.disconnect()
        await client.transport.wait_disconnected()

    net.run(test())


@over_tcp_and_tls
def test_wait_disconnected(net: Network) -> None:
    """Several may wait, one may give up, and who comes late is told at once."""

    async def test() -> None:
        async with net.pair() as pair:
            for listener in pair:
                wait = listener.transport.wait_disconnected
                waiters = [asyncio.ensure_future(wait()) for _ in range(3)]
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(wait(), 0.001)
                waiters[1].cancel()
                await asyncio.wait(waiters[1:2])
                assert not listener.transport.is_disconnected
                assert listener.calls == ["connected"]
                listener.waiters = waiters
            pair[0].transport.send(WSMsgType.TEXT, b"undisturbed")
            assert await pair[1].payload() == b"undisturbed"
            pair[0].transport.disconnect()
            for listener in pair:
                assert await asyncio.gather(listener.waiters[0], listener.waiters[2]) == [None, None]
                assert listener.waiters[1].cancelled()
                assert listener.calls == ["connected", "disconnected"]
                await listener.transport.wait_disconnected()

    net.run(test())


def test_wait_disconnected_has_seen_the_callback(net: Network) -> None:
    """on_ws_disconnected has run when the first waiter goes on, and may use the transport."""

    class Closing(Recorder):
        def on_ws_disconnected(self, transport: WSTransport) -> None:
            super().on_ws_disconnected(transport)
            self.state = (transport.is_disconnected, transport is self.transport)
            send_in_every_way(transport)
            transport.disconnect()
            self.waiter = asyncio.ensure_future(transport.wait_disconnected())

    async def test() -> None:
        async with net.pair(Closing, Closing) as pair:
            pair[0].transport.disconnect()
            for listener in pair:
                await listener.transport.wait_disconnected()
                assert listener.calls == ["connected", "disconnected"]
                assert listener.state == (True, True)
                await listener.waiter

    net.run(test())


@over_both_loops
@over_roles
@pytest.mark.parametrize("wire", [b"\x88\x02\x03\xe8", b"\x83\x00"], ids=["CLOSE", "fault"])
def test_the_peer_is_gone_when_we_answer(
    net: Network, role: str, wire: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """It closes at once, and our answer is answered by a reset: nothing that a user has to hear of."""
    if role == "server":
        wire = bytes([wire[0], wire[1] | 128]) + bytes(4) + wire[2:]

    async def test() -> None:
        for _ in range(10):
            async with ROLES[role](net, Polite) as (peer, listener):
                # Both arrive before our side reads.
                peer.write(wire)
                peer.writer.close()
                await listener.disconnected.wait()
                try:
                    await listener.transport.wait_disconnected()
                except WSProtocolError:
                    assert wire[0] == 0x83
        assert not [record for record in caplog.records if record.name.startswith("picows")]

    net.run(test())
