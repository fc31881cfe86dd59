"""max_write_buffer_size and slow_peer: what may wait for a peer that does not read."""

from __future__ import annotations

import itertools
import logging
import socket
import tracemalloc
from typing import Any

import pytest

from picows import WSCloseCode, WSFrame, WSMsgType, WSSlowPeerError, WSSlowPeerPolicy, WSTransport, ws_broadcast
from tests.connection.networks import (
    Network,
    Received,
    Recorder,
    over_both_loops,
    over_every_network,
    over_tcp_and_tls,
    subscribers,
    transports,
)
from tests.connection.peers import CLOSE, PING, PONG, ROLES, TEXT, close_payload, raw_client
from tests.connection.producers import Producer

LIMIT = 1 << 20
CHUNK = bytes(1 << 16)

over_roles = pytest.mark.parametrize("role", ROLES)


def limited(policy: WSSlowPeerPolicy) -> dict[str, Any]:
    return {"max_write_buffer_size": LIMIT, "slow_peer": policy}


def pause(peer: Any) -> None:
    peer.writer.transport.pause_reading()


def resume(peer: Any) -> None:
    peer.writer.transport.resume_reading()


def fill(transport: WSTransport, taken: list[bytes]) -> None:
    """Send until a frame is not taken."""
    while transport.send(WSMsgType.BINARY, CHUNK):
        taken.append(CHUNK)
        assert transport.write_buffer_size <= LIMIT + 1000


@over_every_network
@over_roles
def test_the_newest_is_dropped(net: Network, role: str) -> None:
    async def test() -> None:
        async with ROLES[role](net, Recorder, **limited(WSSlowPeerPolicy.DROP_NEWEST)) as (peer, listener):
            transport = listener.transport
            pause(peer)
            taken: list[bytes] = []
            fill(transport, taken)
            assert transport.write_buffer_size > LIMIT - 2 * len(CHUNK)
            # Control frames always pass, and smaller frames as far as they fit.
            transport.send_ping(b"alive?")
            assert transport.send_reuse_external_bytearray(WSMsgType.BINARY, bytearray(14) + CHUNK, 14) is False
            assert transport.send(WSMsgType.TEXT, b"small") is True
            transport.send_close(WSCloseCode.OK)
            assert transport.send(WSMsgType.TEXT, b"") is False
            resume(peer)
            for payload in taken:
                assert (await peer.receive()).payload == payload
            assert await peer.receive() == Received(PING, b"alive?")
            assert await peer.receive() == Received(WSMsgType.TEXT, b"small")
            assert await peer.receive() == Received(CLOSE, close_payload(1000))
            peer.writer.transport.abort()

    net.run(test())


@over_every_network
@over_roles
def test_it_goes_on_when_the_peer_reads_again(net: Network, role: str) -> None:
    async def test() -> None:
        async with ROLES[role](net, Recorder, **limited(WSSlowPeerPolicy.RAISE)) as (peer, listener):
            transport = listener.transport
            for _ in range(2):
                pause(peer)
                taken: list[bytes] = []
                with pytest.raises(WSSlowPeerError, match=r"65536 more .* 1048576 at most") as caught:
                    fill(transport, taken)
                assert (caught.value.size, caught.value.limit) == (len(CHUNK), LIMIT)
                assert caught.value.waiting + len(CHUNK) > LIMIT
                resume(peer)
                for payload in taken:
                    assert (await peer.receive()).payload == payload
            peer.writer.transport.abort()

    net.run(test())


def test_a_connection_that_has_its_line_in_the_log_gets_no_second_one(net: Network, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "picows")

    class Raising(Recorder):
        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            super().on_ws_frame(transport, frame)
            raise ValueError("the first line")

    async def test() -> None:
        async with raw_client(net, Raising, max_write_buffer_size=LIMIT, disconnect_on_exception=False) as (peer, listener):
            peer.send(TEXT, b"x")
            await listener.frames.get()
            pause(peer)
            fill(listener.transport, [])
            assert listener.transport.send(WSMsgType.TEXT, b"") is False
            await listener.disconnected.wait()
            lines = [record for record in caplog.records if record.name.startswith("picows")]
            assert [record.levelno for record in lines if "slow peer" in record.getMessage()] == [logging.DEBUG]
            assert len([record for record in lines if record.levelno >= logging.WARNING]) == 1
            peer.writer.transport.abort()

    net.run(test())


@over_every_network
@over_roles
def test_the_peer_is_disconnected(net: Network, role: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "picows")

    async def test() -> None:
        async with ROLES[role](net, Recorder, max_write_buffer_size=LIMIT) as (peer, listener):
            pause(peer)
            fill(listener.transport, [])
            assert listener.transport.send(WSMsgType.TEXT, b"") is False
            await listener.disconnected.wait()
            if role == "client":
                with pytest.raises(WSSlowPeerError):
                    await listener.transport.wait_disconnected()
            else:
                await listener.transport.wait_disconnected()
            (line,) = [record for record in caplog.records if record.name.startswith("picows")]
            assert "slow peer" in line.getMessage()
            peer.writer.transport.abort()

    net.run(test())


@over_both_loops
def test_a_frame_over_the_limit_while_nothing_waits(net: Network) -> None:
    async def test() -> None:
        async with net.pair(server_options=limited(WSSlowPeerPolicy.DROP_NEWEST)) as (client, server):
            for _ in range(3):
                assert server.transport.send(WSMsgType.BINARY, bytes(4 * LIMIT)) is True
                assert len(await client.payload()) == 4 * LIMIT

    net.run(test())


def hold_little(transport: WSTransport, buffer: int) -> None:
    """Have the kernel hold little of what is not read, so that it is not megabytes later that we notice."""
    transport.underlying_transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, buffer, 1 << 16)


@over_tcp_and_tls
@pytest.mark.parametrize("policy", list(WSSlowPeerPolicy), ids=lambda policy: policy.name)
def test_five_of_a_hundred_never_read(net: Network, policy: WSSlowPeerPolicy) -> None:
    """Memory stays bounded, and the other 95 lose nothing."""
    size, limit = 200_000, 512 * 1024
    options = {"max_write_buffer_size": limit, "slow_peer": policy}

    async def test() -> None:
        async with subscribers(net, 100, **options) as (clients, servers):
            slow, quick = clients[::20], [client for i, client in enumerate(clients) if i % 20]
            for client, server in zip(slow, servers[::20]):
                client.transport.underlying_transport.pause_reading()
                hold_little(client.transport, socket.SO_RCVBUF)
                hold_little(server.transport, socket.SO_SNDBUF)
            targets = transports(servers)
            tracemalloc.start()
            # Until the kernel, too, holds all that it may for the slow ones.
            for i in itertools.count():
                message = bytes([i % 251]) * size
                taken = ws_broadcast(targets, WSMsgType.BINARY, message)
                for client in quick:
                    assert await client.payload() == message
                for server in servers:
                    # The last frame's header and TLS records come on top.
                    assert server.transport.write_buffer_size <= limit + 1000
                if taken == len(quick):
                    break
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert peak < len(slow) * limit + 100 * 2 * size

    net.run(test())


@over_every_network
@over_roles
def test_pings_of_a_peer_that_does_not_read_do_not_pile_up(net: Network, role: str) -> None:
    """The last one is answered when it reads again (RFC 6455 5.5.3)."""

    async def test() -> None:
        async with ROLES[role](net, Producer) as (peer, listener):
            transport = listener.transport
            pause(peer)
            while not listener.paused.is_set():
                transport.send(WSMsgType.BINARY, CHUNK)
            waiting = transport.write_buffer_size
            for i in range(2000):
                peer.send(PING, b"%d" % i)
            peer.send(WSMsgType.TEXT, b"end")
            assert await listener.payload() == b"end"
            assert transport.write_buffer_size <= waiting
            resume(peer)
            while (frame := await peer.receive()).msg_type != PONG:
                pass
            assert frame.payload == b"1999"
            peer.send(PING, b"again")
            assert await peer.receive() == Received(PONG, b"again")
            peer.writer.transport.abort()

    net.run(test())


MIB = 1 << 20


@over_tcp_and_tls
@over_roles
def test_the_limit_that_nobody_gave(net: Network, role: str, caplog: pytest.LogCaptureFixture) -> None:
    """A peer that never reads costs no more than 64 MiB, and then its connection."""
    caplog.set_level(logging.WARNING, "picows")

    async def test() -> None:
        async with ROLES[role](net, Recorder) as (peer, listener):
            pause(peer)
            most = 0
            while listener.transport.send(WSMsgType.BINARY, bytes(4 * MIB)):
                most = max(most, listener.transport.write_buffer_size)
                assert most <= 65 * MIB
            assert most > 56 * MIB
            await listener.disconnected.wait()
            (line,) = [record for record in caplog.records if record.name.startswith("picows")]
            assert "67108864 at most" in line.getMessage()
            peer.writer.transport.abort()

    net.run(test())


class Judge(Producer):
    """Overrides pause_writing, and goes on all the same."""


@over_tcp_and_tls
@pytest.mark.parametrize(
    ("listener_class", "options", "limit"),
    [
        (Judge, {}, None),
        (Recorder, {"max_write_buffer_size": None}, None),
        (Judge, {"max_write_buffer_size": LIMIT}, LIMIT),
    ],
    ids=["own judgement", "none wanted", "given to who judges"],
)
def test_who_has_no_limit(net: Network, listener_class: Any, options: Any, limit: int | None) -> None:
    async def test() -> None:
        async with ROLES["server"](net, listener_class, **options) as (peer, listener):
            pause(peer)
            taken = sum(listener.transport.send(WSMsgType.BINARY, bytes(4 * MIB)) for _ in range(20))
            assert taken == 20 if limit is None else taken < 3
            peer.writer.transport.abort()

    net.run(test())
