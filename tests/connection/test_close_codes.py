"""How a connection ended, in two attributes: close_code and close_reason, as the WebSocket API has them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from picows import WSFrame, WSMsgType, WSTransport
from tests.connection.networks import Network, Recorder, over_both_loops, over_tcp_and_tls
from tests.connection.peers import CLOSE, ROLES, close_payload

over_roles = pytest.mark.parametrize("role", ROLES)


class Watcher(Recorder):
    """What the two attributes were in each callback."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[tuple[Any, Any]] = []

    def note(self, transport: WSTransport) -> None:
        self.ends.append((transport.close_code, transport.close_reason))

    def on_ws_connected(self, transport: WSTransport) -> None:
        super().on_ws_connected(transport)
        self.note(transport)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        super().on_ws_frame(transport, frame)
        self.note(transport)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.note(transport)
        super().on_ws_disconnected(transport)


@over_tcp_and_tls
@over_roles
@pytest.mark.parametrize(
    ("payload", "end"),
    [
        (b"", (1005, "")),
        (close_payload(1001), (1001, "")),
        (close_payload(4000, "grüße".encode()), (4000, "grüße")),
    ],
    ids=["no code", "no reason", "both"],
)
def test_a_close_that_came(net: Network, role: str, payload: bytes, end: tuple[int, str]) -> None:
    async def test() -> None:
        async with ROLES[role](net, Watcher) as (peer, listener):
            peer.send(CLOSE, payload)
            await listener.take(1)
            await peer.close()
            listener.transport.disconnect()
            await listener.disconnected.wait()
            assert listener.ends == [(None, None), end, end]

    net.run(test())


@over_tcp_and_tls
@over_roles
def test_no_close_came(net: Network, role: str) -> None:
    async def test() -> None:
        async with ROLES[role](net, Watcher) as (peer, listener):
            await peer.close()
            await listener.disconnected.wait()
            assert listener.ends == [(None, None), (1006, "")]

    net.run(test())


@over_both_loops
@over_roles
def test_our_own_close_is_none_of_it(net: Network, role: str) -> None:
    """Nothing is known until the peer has answered, and then what it said."""

    async def test() -> None:
        async with ROLES[role](net, Watcher) as (peer, listener):
            transport = listener.transport
            transport.send_close(4001, "ours")
            assert (transport.close_code, transport.close_reason) == (None, None)
            assert (await peer.receive()).msg_type == CLOSE
            peer.send(CLOSE, close_payload(4002, b"theirs"))
            await listener.take(1)
            assert (transport.close_code, transport.close_reason) == (4002, "theirs")
            transport.disconnect(graceful=False)
            await listener.disconnected.wait()
            assert (transport.close_code, transport.close_reason) == (4002, "theirs")

    net.run(test())


@over_both_loops
@over_roles
def test_a_fault_of_the_peer(net: Network, role: str) -> None:
    """What we say to it is in close_handshake; it has said nothing."""

    async def test() -> None:
        async with ROLES[role](net, Watcher) as (peer, listener):
            peer.send(WSMsgType.PING, fin=False)
            assert (await peer.receive()).msg_type == CLOSE
            await peer.close()
            await asyncio.wait_for(listener.disconnected.wait(), 10)
            assert listener.ends == [(None, None), (1006, "")]
            assert listener.transport.close_handshake.sent.code == 1002

    net.run(test())
