"""ws_broadcast: one frame to many connections, in order with everything else, and never half to some."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from picows import WSMsgType, WSTransport, ws_broadcast
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
from tests.connection.peers import raw_servers
from tests.connection.threads import call_in_thread


@over_every_network
@pytest.mark.parametrize(
    "message", ["text", b"bytes", None, memoryview(b"view"), bytes(70_000)], ids=["str", "bytes", "None", "view", "large"]
)
def test_all_that_are_open_receive_it(net: Network, message: Any) -> None:
    async def test() -> None:
        async with subscribers(net, 5) as (clients, servers):
            servers[1].transport.disconnect(graceful=False)
            servers[2].transport.send_close(1000)
            assert ws_broadcast(transports(servers), WSMsgType.TEXT, message) == 3
            payload = message.encode() if isinstance(message, str) else bytes(message or b"")
            expected = Received(WSMsgType.TEXT, payload)
            for i in (0, 3, 4):
                assert await clients[i].take(1) == [expected]
            await clients[1].disconnected.wait()
            assert clients[1].frames.empty()
            assert (await clients[2].take(1))[0].msg_type == WSMsgType.CLOSE
            assert ws_broadcast([], WSMsgType.TEXT, message) == 0

    net.run(test())


@over_tcp_and_tls
def test_fragments_and_pings(net: Network) -> None:
    async def test() -> None:
        async with subscribers(net, 2) as (clients, servers):
            targets = transports(servers)
            assert ws_broadcast(iter(targets), WSMsgType.BINARY, b"a", fin=False) == 2
            assert ws_broadcast(set(targets), WSMsgType.PING, b"p") == 2
            assert ws_broadcast(tuple(targets), WSMsgType.CONTINUATION, b"b") == 2
            for client in clients:
                assert await client.take(2) == [
                    Received(WSMsgType.BINARY, b"a", fin=False),
                    Received(WSMsgType.CONTINUATION, b"b"),
                ]

    net.run(test())


@over_tcp_and_tls
def test_clients_mask_each_frame_anew(net: Network) -> None:
    async def test() -> None:
        async with raw_servers(net, 3) as (peers, clients):
            for _ in range(2):
                assert ws_broadcast(transports(clients), WSMsgType.BINARY, b"to the servers") == 3
                for peer in peers:
                    assert (await peer.receive()).payload == b"to the servers"
            keys = {key for peer in peers for key in peer.keys}
            assert len(keys) == 6

    net.run(test())


@over_both_loops
@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ((WSMsgType.CLOSE, b""), ValueError, "CLOSE"),
        ((3, b""), ValueError, "msg_type is 3"),
        ((WSMsgType.PING, bytes(126)), ValueError, "126 bytes"),
        ((WSMsgType.PING, b"", False), ValueError, "fin is False"),
        ((WSMsgType.TEXT, 5), TypeError, "message is of type int"),
        ((WSMsgType.TEXT, "\ud800"), UnicodeEncodeError, "surrogates"),
        ((WSMsgType.TEXT, b"", True, 1), TypeError, "compress must be a bool or None"),
    ],
)
def test_nothing_is_sent_for_a_wrong_argument(
    net: Network, arguments: Any, error: type[Exception], sentence: str
) -> None:
    async def test() -> None:
        async with subscribers(net, 2) as (clients, servers):
            targets = transports(servers)
            with pytest.raises(error, match=sentence):
                ws_broadcast(targets, *arguments)
            with pytest.raises(TypeError, match="transports holds a Recorder"):
                ws_broadcast([*targets, servers[0]], WSMsgType.TEXT, b"")  # type: ignore[list-item]
            _, failure = call_in_thread(ws_broadcast, targets, WSMsgType.TEXT, b"")
            assert isinstance(failure, RuntimeError)
            assert ws_broadcast(targets, WSMsgType.TEXT, b"first") == 2
            for client in clients:
                assert await client.payload() == b"first"

    net.run(test())


@over_every_network
def test_a_peer_that_does_not_read_costs_the_others_nothing(net: Network) -> None:
    count, size = 40, 300_000

    async def test() -> None:
        async with subscribers(net, 3) as (clients, servers):
            slow = clients[1].transport.underlying_transport
            slow.pause_reading()
            for i in range(count):
                assert ws_broadcast(transports(servers), WSMsgType.BINARY, bytes([i]) * size) == 3
                for client in (clients[0], clients[2]):
                    assert await client.payload() == bytes([i]) * size
            assert servers[1].transport.write_buffer_size > size
            slow.resume_reading()
            for i in range(count):
                assert await clients[1].payload() == bytes([i]) * size

    net.run(test())


@over_both_loops
def test_a_callback_may_end_connections_meanwhile(net: Network) -> None:
    targets: set[WSTransport] = set()

    class Impatient(Recorder):
        def pause_writing(self) -> None:
            for transport in tuple(targets):
                transport.disconnect(graceful=False)
            targets.clear()

    async def test() -> None:
        async with subscribers(net, 4, Impatient) as (clients, servers):
            targets.update(transports(servers))
            for client in clients:
                client.transport.underlying_transport.pause_reading()
            sent = []
            while targets:
                sent.append(ws_broadcast(targets, WSMsgType.BINARY, bytes(1 << 20)))
            assert sent[-1] == 1
            assert ws_broadcast(transports(servers), WSMsgType.TEXT, b"") == 0
            for client in clients:
                client.transport.underlying_transport.resume_reading()
                await client.disconnected.wait()

    net.run(test())


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("broadcast"), st.sampled_from([0, 1, 125, 126, 40_000, 65_530, 70_000, 300_000])),
        st.tuples(st.just("send"), st.sampled_from([0, 126, 70_000])),
        st.tuples(st.just("cork"), st.integers(0, 2)),
    ),
    max_size=12,
)


@over_tcp_and_tls
@settings(max_examples=15, deadline=None)
@given(steps=STEPS)
def test_the_order_is_that_of_the_sends(net: Network, steps: list[tuple[str, int]]) -> None:
    """Broadcasts, sends and corks in any order: each peer receives what was sent to it, as it was sent."""
    expected: list[list[bytes]] = [[], [], []]

    async def test() -> None:
        async with subscribers(net, 3) as (clients, servers):
            with contextlib.ExitStack() as corks:
                for number, (action, argument) in enumerate(steps):
                    if action == "cork":
                        corks.enter_context(servers[argument].transport.cork())
                        continue
                    payload = bytes([number]) * argument
                    for i in range(3) if action == "broadcast" else [number % 3]:
                        expected[i].append(payload)
                    if action == "broadcast":
                        assert ws_broadcast(transports(servers), WSMsgType.BINARY, payload) == 3
                    else:
                        servers[number % 3].transport.send(WSMsgType.BINARY, payload)
            for client, payloads in zip(clients, expected):
                assert [await client.payload() for _ in payloads] == payloads

    net.run(asyncio.wait_for(test(), 20))
