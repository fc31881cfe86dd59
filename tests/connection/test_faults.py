"""A peer that breaks the protocol is told so by one CLOSE, once all that it sent rightly was delivered and answered."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from picows import WSFrame, WSMsgType, WSProtocolError, WSTransport
from tests.connection.networks import (
    Echo,
    Network,
    Received,
    Recorder,
    all_at_once,
    close_state,
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
    close_code,
    close_payload,
    encode,
    raw_client,
    stream,
)

MAX_FRAME_SIZE = 1000


class Fault(NamedTuple):
    name: str
    wire: Callable[[bool], bytes]  # of whether the peer masks
    codes: tuple[int, ...] = (1002,)


def length(mask: bool, opcode: int, form: str, size: int) -> bytes:
    """A header with a length of 16 or 64 bits, and nothing behind it."""
    return struct.pack(form, 128 | opcode, mask << 7 | (126 if form == "!BBH" else 127), size)


FAULTS = [
    # One byte is enough to know.
    *(Fault(f"opcode-{op}", lambda mask, op=op: bytes([128 | op])) for op in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)),
    *(Fault(f"fragmented-{op}", lambda mask, op=op: bytes([op])) for op in (CLOSE, PING, PONG)),
    *(Fault(f"long-control-{op}", lambda mask, op=op: length(mask, op, "!BBH", 126)) for op in (CLOSE, PING, PONG)),
    Fault("very-long-ping", lambda mask: length(mask, PING, "!BBQ", 1 << 40)),
    Fault("wrong-masking", lambda mask: encode(TEXT, b"x", mask=not mask)),
    Fault("wrong-masking-empty", lambda mask: encode(TEXT, b"", mask=not mask)),
    Fault("length-125-in-16-bits", lambda mask: length(mask, TEXT, "!BBH", 125)),
    Fault("length-0-in-16-bits", lambda mask: length(mask, TEXT, "!BBH", 0)),
    Fault("length-65535-in-64-bits", lambda mask: length(mask, TEXT, "!BBQ", 65535)),
    Fault("length-with-top-bit", lambda mask: length(mask, TEXT, "!BBQ", 1 << 63), (1002, 1009)),
    Fault("length-with-all-bits", lambda mask: length(mask, TEXT, "!BBQ", (1 << 64) - 1), (1002, 1009)),
    Fault("too-big-16-bits", lambda mask: length(mask, TEXT, "!BBH", MAX_FRAME_SIZE + 1), (1009,)),
    Fault("too-big-64-bits", lambda mask: length(mask, BINARY, "!BBQ", 65536), (1009,)),
    Fault("much-too-big", lambda mask: length(mask, BINARY, "!BBQ", (1 << 63) - 1), (1009,)),
    Fault("close-of-one-byte", lambda mask: encode(CLOSE, b"\x03", mask=mask)),
    *(
        Fault(f"close-{code}", lambda mask, code=code: encode(CLOSE, close_payload(code), mask=mask))
        for code in (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1999, 2000, 2999, 5000, 65535)
    ),
    Fault("close-reason", lambda mask: encode(CLOSE, close_payload(1000, b"\xff"), mask=mask), (1002, 1007)),
    Fault("close-reason-cut", lambda mask: encode(CLOSE, close_payload(1000, b"\xc3"), mask=mask), (1002, 1007)),
    Fault(
        "close-reason-surrogate",
        lambda mask: encode(CLOSE, close_payload(1000, b"\xed\xa0\x80"), mask=mask),
        (1002, 1007),
    ),
]

over_roles = pytest.mark.parametrize("role", ROLES)


async def check(net: Network, role: str, fault: Fault, *, behind: bytes = b"", separate: bool = False) -> None:
    async with ROLES[role](net, Echo, max_frame_size=MAX_FRAME_SIZE) as (peer, listener):
        peer.send(TEXT, b"good")
        peer.send(BINARY, b"g" * MAX_FRAME_SIZE)
        if separate:
            assert await listener.payload() == b"good"
            await listener.payload()
        peer.write(fault.wire(peer.masks) + behind)
        *answers, close = await peer.receive_all()
        assert answers == [Received(TEXT, b"good"), Received(BINARY, b"g" * MAX_FRAME_SIZE)]
        assert close_code(close) in fault.codes
        await peer.close()
        await listener.disconnected.wait()
        assert listener.rest() == ([] if separate else answers)
        assert listener.calls == ["connected", "disconnected"]
        transport = listener.transport
        assert transport.is_close_frame_sent
        assert transport.close_handshake.sent.code == close_code(close)
        assert transport.close_handshake.recv is None
        # The sentence says what was wrong, and fits.
        assert close.payload[2:].decode() == transport.close_handshake.sent.reason
        assert transport.close_handshake.sent.reason
        if role == "client":
            with pytest.raises(WSProtocolError) as caught:
                await transport.wait_disconnected()
            assert caught.value.code == close_code(close)
            assert caught.value.message
        else:
            await transport.wait_disconnected()


@over_roles
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_fault_behind_good_frames(net: Network, role: str, fault: Fault) -> None:
    """All in one read: the peek behind a good frame finds the fault, which must not overtake it."""
    net.run(check(net, role, fault))


@over_roles
@pytest.mark.parametrize("fault", FAULTS[::4], ids=lambda fault: fault.name)
def test_fault_in_a_read_of_its_own(net: Network, role: str, fault: Fault) -> None:
    net.run(check(net, role, fault, separate=True))


@over_every_network
def test_fault_with_data_behind_it(net: Network) -> None:
    """What stands behind a fault is not looked at, and does not make the kernel destroy what we sent."""
    behind = {role: encode(TEXT, b"lost", mask=role == "server") * 100_000 for role in ROLES}
    net.run(all_at_once(*(check(net, role, FAULTS[-1], behind=behind[role]) for role in ROLES)))


@over_tcp_and_tls
def test_fault_before_anything_else(net: Network) -> None:
    async def test(role: str) -> None:
        async with ROLES[role](net, Echo) as (peer, listener):
            peer.write(b"\x83")
            (close,) = await peer.receive_all()
            assert close_code(close) == 1002
            await peer.close()
            await listener.disconnected.wait()
            assert listener.rest() == []

    net.run(all_at_once(*(test(role) for role in ROLES)))


@over_roles
def test_the_rest_of_a_frame_that_is_too_big_is_not_awaited(net: Network, role: str) -> None:
    """The verdict needs the header only, whatever part of the payload came with it."""

    async def test() -> None:
        async with ROLES[role](net, Echo, max_frame_size=MAX_FRAME_SIZE) as (peer, _):
            peer.send(BINARY, b"x" * 500, length=MAX_FRAME_SIZE + 1)
            (close,) = await peer.receive_all()
            assert close_code(close) == 1009

    net.run(test())


@over_roles
@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 3999, 4000, 4999])
def test_codes_that_may_travel_are_delivered(net: Network, role: str, code: int) -> None:
    async def test() -> None:
        async with ROLES[role](net, Echo, enable_auto_close=False) as (peer, listener):
            peer.send(CLOSE, close_payload(code, "grüße".encode()))
            assert await listener.frames.get() == Received(CLOSE, close_payload(code, "grüße".encode()))
            assert close_state(listener.transport) == (None, (code, "grüße"), True)
            assert not listener.transport.is_disconnected

    net.run(test())


@over_every_network
@over_roles
def test_nothing_is_delivered_behind_a_close(net: Network, role: str) -> None:
    async def test() -> None:
        async with ROLES[role](net, Echo, enable_auto_close=False) as (peer, listener):
            peer.send(TEXT, b"good")
            peer.write(peer.encode(CLOSE) + peer.encode(TEXT, b"lost") + peer.encode(PING) + b"\x83")
            assert await listener.take(2) == [Received(TEXT, b"good"), Received(CLOSE, b"")]
            # Neither in a later read, nor is a fault there answered.
            peer.write(peer.encode(TEXT, b"lost") + b"\x83")
            assert await peer.receive() == Received(TEXT, b"good")
            listener.transport.send(WSMsgType.TEXT, b"still open")
            assert await peer.receive() == Received(TEXT, b"still open")
            await peer.close()
            await listener.disconnected.wait()
            assert listener.rest() == []
            assert not listener.transport.is_close_frame_sent
            await listener.transport.wait_disconnected()

    net.run(test())


@over_roles
def test_what_is_the_listeners_business_is_no_fault(net: Network, role: str) -> None:
    """Reserved bits, the order of fragments and the text in data frames."""

    async def test() -> None:
        async with ROLES[role](net, Echo) as (peer, listener):
            peer.send(0, b"continues nothing", fin=False)
            peer.send(TEXT, b"\xff", rsv=7)
            peer.send(TEXT, b"begins again", fin=False)
            peer.send(PING, b"", rsv=4)
            peer.send(PONG, b"x" * 125, rsv=1)
            assert [f.payload for f in await listener.take(4)] == [
                b"continues nothing",
                b"\xff",
                b"begins again",
                b"x" * 125,
            ]

    net.run(test())


@over_tcp_and_tls
def test_large_answers_leave_before_the_close(net: Network) -> None:
    """They are still queued in the transport when the fault is found."""

    class Generous(Echo):
        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            for i in range(8):
                transport.send(WSMsgType.BINARY, bytes([i]) * (1 << 20))

    async def test(role: str) -> None:
        async with ROLES[role](net, Generous) as (peer, listener):
            peer.write(peer.encode(TEXT, b"good") + b"\x83")
            *answers, close = await peer.receive_all()
            assert [frame.payload for frame in answers] == [bytes([i]) * (1 << 20) for i in range(8)]
            assert close_code(close) == 1002
            await peer.close()
            await listener.disconnected.wait()

    net.run(all_at_once(*(test(role) for role in ROLES)))


@over_tcp_and_tls
def test_other_connections_go_on(net: Network) -> None:
    async def test() -> None:
        async with net.serve(lambda request: Echo()) as url:
            good = await net.connect(Echo, url)
            async with stream(net, url) as bad:
                bad.write(b"\xff" * 1000)
                await bad.lost()
            good.transport.send(WSMsgType.PING, b"")
            assert await good.frames.get() == Received(PONG, b"")
            good.transport.disconnect()
            await asyncio.wait_for(good.disconnected.wait(), 10)

    net.run(test())


# Part of the header, of its length, of the payload.
STALLED = [b"\x82", b"\x82\xfe\x01", b"\x82\xfe\x01\x00abcd" + bytes(100)]


@over_tcp_and_tls
def test_part_of_a_frame_that_stalls(net: Network) -> None:
    async def test(part: bytes) -> None:
        async with raw_client(net, Recorder, receive_timeout=0.1) as (peer, listener):
            # Whole frames may keep us waiting.
            peer.send(TEXT, b"first")
            await asyncio.sleep(0.2)
            peer.write(part)
            close = await peer.receive()
            assert close_code(close) == 1008
            assert b"receive_timeout" in close.payload
            assert listener.rest() == [Received(TEXT, b"first")]
            await peer.close()
            await listener.disconnected.wait()

    net.run(all_at_once(*map(test, STALLED)))


def test_a_frame_that_drips_takes_one_timer(net: Network) -> None:
    async def test() -> None:
        async with raw_client(net, Recorder, receive_timeout=60) as (peer, listener):
            timers: Any = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]
            before = len(timers)
            for byte in peer.encode(TEXT, bytes(100)):
                peer.write(bytes([byte]))
                await asyncio.sleep(0)
            assert await listener.payload() == bytes(100)
            assert len(timers) <= before + 3

    net.run(test())


@over_tcp_and_tls
def test_part_of_a_frame_that_goes_on(net: Network) -> None:
    async def in_pieces() -> None:
        async with raw_client(net, Recorder, receive_timeout=0.3) as (peer, listener):
            for byte in peer.encode(TEXT, b"slowly"):
                peer.write(bytes([byte]))
                await asyncio.sleep(0.04)
            assert await listener.payload() == b"slowly"

    async def with_a_pause_behind_it() -> None:
        async with raw_client(net, Recorder, receive_timeout=0.3) as (peer, listener):
            frame = peer.encode(TEXT, b"slowly")
            peer.write(frame[:3])
            await asyncio.sleep(0.04)
            peer.write(frame[3:])
            assert await listener.payload() == b"slowly"
            await asyncio.sleep(0.4)
            peer.send(TEXT, b"later")
            assert await listener.payload() == b"later"

    net.run(all_at_once(in_pieces(), with_a_pause_behind_it()))
