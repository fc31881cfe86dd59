"""assemble_messages: the listener sees whole, checked messages, and a faulty one never."""

from __future__ import annotations

import asyncio
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from picows import WSFrame, WSMsgType, WSProtocolError, WSTransport
from tests.connection.networks import (
    EchoInPlace,
    Network,
    Received,
    Recorder,
    over_both_loops,
    over_every_network,
    over_tcp_and_tls,
)
from tests.connection.peers import BINARY, CLOSE, CONTINUATION, PING, PONG, ROLES, TEXT, Peer, close_code, raw_client

MIB = 1024 * 1024
LIMIT = 1000
MESSAGES = {"assemble_messages": True}

over_roles = pytest.mark.parametrize("role", ROLES)


def fragments(peer: Peer, opcode: int, *payloads: bytes) -> bytes:
    """A message in fragments."""
    wire = b""
    for i, payload in enumerate(payloads):
        wire += peer.encode(opcode if i == 0 else CONTINUATION, payload, fin=i == len(payloads) - 1)
    return wire


@over_every_network
@over_roles
def test_fragments_are_joined(net: Network, role: str) -> None:
    async def test() -> None:
        async with ROLES[role](net, Recorder, **MESSAGES) as (peer, listener):
            peer.write(fragments(peer, TEXT, "grü".encode()[:3], "grü".encode()[3:] + b"\xc3", b"\x9fe"))
            peer.write(fragments(peer, BINARY, b"", b"a" * 100_000, b"", b"b" * 300_000, b"c"))
            peer.write(fragments(peer, BINARY, b"", b""))
            peer.send(TEXT, b"alone")
            assert await listener.take(4) == [
                Received(TEXT, "grüße".encode()),
                Received(BINARY, b"a" * 100_000 + b"b" * 300_000 + b"c"),
                Received(BINARY, b""),
                Received(TEXT, b"alone"),
            ]

    net.run(test())


@over_both_loops
@over_roles
def test_control_frames_come_between(net: Network, role: str) -> None:
    async def test() -> None:
        async with ROLES[role](net, Recorder, **MESSAGES, enable_auto_pong=False) as (peer, listener):
            peer.send(TEXT, b"a", fin=False)
            peer.send(PING, b"ping")
            assert await listener.take(1) == [Received(PING, b"ping")]
            peer.send(PONG, b"pong")
            peer.send(CONTINUATION, b"b")
            assert await listener.take(2) == [Received(PONG, b"pong"), Received(TEXT, b"ab")]
            peer.send(TEXT, b"never finished", fin=False)
            peer.send(CLOSE)
            assert await listener.take(1) == [Received(CLOSE, b"")]

    net.run(test())


FAULTS: dict[str, tuple[int, Any]] = {
    "continuation": (1002, lambda peer: peer.encode(CONTINUATION, b"a")),
    "unfinished": (1002, lambda peer: peer.encode(TEXT, b"a", fin=False) + peer.encode(TEXT, b"b")),
    "rsv1": (1002, lambda peer: peer.encode(TEXT, b"a", rsv=4)),
    "rsv2": (1002, lambda peer: peer.encode(BINARY, b"a", rsv=2)),
    "rsv3": (1002, lambda peer: peer.encode(BINARY, b"a", rsv=1)),
    "rsv of a ping": (1002, lambda peer: peer.encode(PING, b"a", rsv=4)),
    "rsv of a close": (1002, lambda peer: peer.encode(CLOSE, b"", rsv=1)),
    "text": (1007, lambda peer: peer.encode(TEXT, b"a\xff")),
    "cut text": (1007, lambda peer: peer.encode(TEXT, b"\xc3")),
    "text at its first fragment": (1007, lambda peer: peer.encode(TEXT, b"\xff", fin=False)),
    "text across fragments": (1007, lambda peer: fragments(peer, TEXT, b"\xe2\x82", b"a", b"b")),
    "size": (1009, lambda peer: peer.encode(BINARY, bytes(LIMIT + 1))),
    "size of fragments": (1009, lambda peer: fragments(peer, BINARY, bytes(LIMIT), b"a")),
    "announced": (1009, lambda peer: peer.encode(BINARY, b"", length=LIMIT + 1)),
    "announced behind": (1009, lambda peer: peer.encode(TEXT, b"a", fin=False) + peer.encode(CONTINUATION, length=LIMIT)),
    "empty fragments": (1009, lambda peer: peer.encode(TEXT, b"", fin=False) + peer.encode(CONTINUATION, fin=False) * 2000),
}


@over_tcp_and_tls
@over_roles
@pytest.mark.parametrize(("code", "wire"), FAULTS.values(), ids=FAULTS.keys())
def test_faults(net: Network, role: str, code: int, wire: Any) -> None:
    """What came before the fault is delivered and answered, and nothing of the faulty message."""

    async def test() -> None:
        async with ROLES[role](net, EchoInPlace, **MESSAGES, max_message_size=LIMIT) as (peer, listener):
            peer.write(fragments(peer, TEXT, b"be", b"fore") + wire(peer) + peer.encode(TEXT, b"behind"))
            assert await peer.receive() == Received(TEXT, b"before")
            close = await peer.receive()
            assert close_code(close) == code
            await peer.close()
            await listener.disconnected.wait()
            assert listener.rest() == [Received(TEXT, b"before")]
            if role == "client":
                with pytest.raises(WSProtocolError) as caught:
                    await listener.transport.wait_disconnected()
                assert caught.value.code == code
                assert str(caught.value).encode().startswith(close.payload[2:])

    net.run(test())


@over_tcp_and_tls
def test_exactly_the_limit(net: Network) -> None:
    async def test() -> None:
        async with raw_client(net, Recorder, **MESSAGES, max_message_size=LIMIT) as (peer, listener):
            for _ in range(2):
                peer.send(BINARY, bytes(LIMIT))
                peer.write(fragments(peer, BINARY, bytes(LIMIT - 1), b"a", b""))
                # Control frames are no part of it.
                peer.send(TEXT, bytes(LIMIT), fin=False)
                peer.send(PING, bytes(125))
                peer.send(CONTINUATION)
                assert [len(frame.payload) for frame in await listener.take(3)] == [LIMIT] * 3
                assert await peer.receive() == Received(PONG, bytes(125))

    net.run(test())


@over_both_loops
def test_the_very_first_frame_is_limited(net: Network) -> None:
    """By its header alone: nothing of the payload has come."""

    async def test() -> None:
        async with raw_client(net, Recorder, **MESSAGES, max_message_size=LIMIT) as (peer, listener):
            peer.send(BINARY, length=LIMIT + 1)
            assert close_code(await peer.receive()) == 1009
            await peer.close()
            await listener.disconnected.wait()

    net.run(test())


@over_both_loops
def test_one_limit_is_raised_for_a_larger_message(net: Network) -> None:
    """Whether it comes in one frame or in several."""
    size = 11 << 20

    async def test() -> None:
        async with raw_client(net, Recorder, **MESSAGES, max_message_size=size) as (peer, listener):
            peer.write(fragments(peer, BINARY, bytes(1 << 20), bytes(size - (1 << 20))))
            assert len(await listener.payload()) == size
            peer.send(BINARY, bytes(size))
            assert len(await listener.payload()) == size
            peer.send(BINARY, length=size + 1)
            assert close_code(await peer.receive()) == 1009
        # Of frames as they come it is no business.
        async with raw_client(net, Recorder, max_message_size=size) as (peer, listener):
            peer.send(BINARY, length=(10 << 20) + 1)
            assert close_code(await peer.receive()) == 1009

    net.run(test())


@over_both_loops
def test_each_frame_keeps_to_its_own_limit(net: Network) -> None:
    """max_frame_size holds for the fragments, however large a message may be."""

    async def test() -> None:
        for first in ([], [100], [100, 100]):
            async with raw_client(net, Recorder, **MESSAGES, max_frame_size=100, max_message_size=LIMIT) as (peer, listener):
                peer.write(fragments(peer, BINARY, *[bytes(100)] * 10))
                assert await listener.payload() == bytes(1000)
                for i, size in enumerate(first):
                    peer.send(CONTINUATION if i else BINARY, bytes(size), fin=False)
                peer.send(CONTINUATION if first else BINARY, length=101)
                close = await peer.receive()
                assert close_code(close) == 1009
                assert b"max_frame_size" in close.payload
                await peer.close()
                await listener.disconnected.wait()

    net.run(test())


@over_both_loops
def test_no_memory_is_taken_for_what_is_too_large(net: Network) -> None:
    async def test() -> None:
        async with raw_client(net, Recorder, **MESSAGES, max_message_size=MIB) as (peer, listener):
            tracemalloc.start()
            # The header is read together with the frame before it, and would be right but for that frame.
            peer.write(peer.encode(BINARY, bytes(1000), fin=False) + peer.encode(CONTINUATION, length=MIB))
            close = await peer.receive()
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert close_code(close) == 1009
            assert b"max_message_size" in close.payload
            assert peak < MIB // 2
            await peer.close()
            await listener.disconnected.wait()

    net.run(test())


@over_both_loops
def test_views_of_messages_can_be_kept(net: Network) -> None:
    class Keeper(Recorder):
        def __init__(self) -> None:
            super().__init__()
            self.views: list[memoryview] = []
            self.copies: list[bytes] = []

        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            self.views.append(memoryview(frame))
            self.copies.append(frame.get_payload_as_bytes())
            assert frame.get_payload_as_memoryview() == self.copies[-1]
            # What was joined is bytes already, and is not copied again.
            joined = frame.payload_size > 99
            assert (frame.get_payload_as_bytes() is self.copies[-1]) is joined
            super().on_ws_frame(transport, frame)

    async def test() -> None:
        async with raw_client(net, Keeper, **MESSAGES) as (peer, listener):
            for i in range(50):
                peer.write(fragments(peer, BINARY, bytes([i]) * 5000, bytes([i]) * 5000) + peer.encode(BINARY, bytes([i]) * 99))
            await listener.take(100)
            assert [view.tobytes() for view in listener.views] == listener.copies
            assert [len(copy) for copy in listener.copies] == [10_000, 99] * 50

    net.run(test())


@over_both_loops
def test_a_message_that_stalls(net: Network) -> None:
    async def test() -> None:
        async with raw_client(net, Recorder, **MESSAGES, receive_timeout=0.1) as (peer, listener):
            peer.send(TEXT, b"part", fin=False)
            assert close_code(await peer.receive()) == 1008
            await peer.close()
            await listener.disconnected.wait()
            assert listener.rest() == []

    net.run(test())


@over_both_loops
def test_a_message_that_a_close_cut_short_does_not_stall(net: Network) -> None:
    options = {**MESSAGES, "receive_timeout": 0.1, "enable_auto_close": False}

    async def test() -> None:
        async with raw_client(net, Recorder, **options) as (peer, listener):
            peer.send(TEXT, b"part", fin=False)
            await asyncio.sleep(0.05)
            peer.write(peer.encode(CLOSE) + peer.encode(TEXT, b"more"))
            assert await listener.take(1) == [Received(CLOSE, b"")]
            await asyncio.sleep(0.2)
            listener.transport.send(WSMsgType.TEXT, b"the last word")
            assert await peer.receive() == Received(TEXT, b"the last word")

    net.run(test())


@over_both_loops
@settings(max_examples=25, deadline=None)
@given(
    messages=st.lists(st.lists(st.sampled_from([0, 1, 125, 126, 3000, 70_000]), min_size=1, max_size=5), max_size=8),
    cuts=st.lists(st.integers(1, 5000), max_size=20),
)
def test_whatever_the_fragments_and_the_reads(net: Network, messages: list[list[int]], cuts: list[int]) -> None:
    async def test() -> None:
        async with raw_client(net, EchoInPlace, **MESSAGES) as (peer, _):
            expected = []
            wire = b""
            for i, sizes in enumerate(messages):
                payloads = [bytes([i + 1]) * size for size in sizes]
                expected.append(Received(BINARY, b"".join(payloads)))
                wire += fragments(peer, BINARY, *payloads)
            for cut in cuts:
                peer.write(wire[:cut])
                wire = wire[cut:]
            peer.write(wire)
            for message in expected:
                assert await peer.receive() == message

    net.run(test())
