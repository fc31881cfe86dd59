"""One read, one write: what is sent during a burst, or corked, leaves together, in order, and never later than promised."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from picows import WSCloseCode, WSFrame, WSMsgType, WSTransport
from tests.connection.networks import Network, Recorder, over_both_loops, over_tcp_and_tls
from tests.connection.peers import BINARY, CLOSE, TEXT, Wire, frame, looked_at, raw_client

Callback = Callable[[WSTransport, bytes, "Wire"], None]


def burst_test(net: Network, callback: Callback, *payloads: bytes, **options: Any) -> bytes:
    """Send a burst of frames and call `callback` for each; what arrived behind the burst."""
    rest: list[bytes] = []

    class Server(Recorder):
        wire: Wire

        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            try:
                callback(transport, frame.get_payload_as_bytes(), self.wire)
            finally:
                super().on_ws_frame(transport, frame)

    async def test() -> None:
        async with raw_client(net, Server, **options) as (peer, listener):
            with looked_at(peer) as listener.wire:
                peer.write(b"".join(peer.encode(TEXT, payload) for payload in payloads))
                await listener.take(len(payloads))
                rest.append(listener.wire.arrived())

    net.run(test())
    return rest[0]


@over_both_loops
def test_a_burst_is_answered_by_one_write(net: Network) -> None:
    def answer(transport: WSTransport, payload: bytes, wire: Wire) -> None:
        transport.send(WSMsgType.TEXT, payload)
        assert wire.arrived() == b""
        assert transport.write_buffer_size > 0

    assert burst_test(net, answer, b"1", b"22", b"333") == frame(b"1") + frame(b"22") + frame(b"333")


@over_both_loops
def test_a_lone_frame_is_answered_at_once(net: Network) -> None:
    def answer(transport: WSTransport, payload: bytes, wire: Wire) -> None:
        for answer in (b"one", b"two"):
            transport.send(WSMsgType.TEXT, answer)
            assert wire.arrived() == frame(answer)
            assert transport.write_buffer_size == 0

    assert burst_test(net, answer, b"alone") == b""


@over_both_loops
def test_coalescing_turned_off(net: Network) -> None:
    def answer(transport: WSTransport, payload: bytes, wire: Wire) -> None:
        transport.send(WSMsgType.TEXT, payload)
        assert wire.arrived() == frame(payload)

    assert burst_test(net, answer, b"1", b"2", b"3", coalesce_writes=False) == b""


@over_both_loops
def test_flush_in_a_burst(net: Network) -> None:
    def answer(transport: WSTransport, payload: bytes, wire: Wire) -> None:
        transport.send(WSMsgType.TEXT, payload)
        if payload == b"flush":
            transport.flush()
            assert wire.arrived() == frame(b"wait") + frame(b"flush")
            transport.flush()
            assert wire.arrived() == b""

    assert burst_test(net, answer, b"wait", b"flush", b"rest") == frame(b"rest")


@over_both_loops
def test_64_kib_do_not_wait(net: Network) -> None:
    chunk = bytes(20_000)
    seen = []

    def answer(transport: WSTransport, payload: bytes, wire: Wire) -> None:
        transport.send(WSMsgType.BINARY, chunk)
        seen.append(wire.arrived())

    rest = burst_test(net, answer, *[b"%d" % i for i in range(5)])
    assert seen[:3] == [b"", b"", b""]
    assert seen[3] == frame(chunk, BINARY) * 3
    assert b"".join(seen) + rest == frame(chunk, BINARY) * 5


@over_both_loops
@pytest.mark.parametrize("size", [65_000, 65_536, 300_000])
def test_a_large_frame_leaves_behind_what_waits(net: Network, size: int) -> None:
    def answer(transport: WSTransport, payload: bytes, wire: Wire) -> None:
        transport.send(WSMsgType.TEXT, payload)
        if payload == b"large":
            transport.send(WSMsgType.BINARY, bytes(size))
        transport.send_reuse_external_bytearray(WSMsgType.TEXT, bytearray(14) + payload, 14)

    expected = frame(b"a") * 2 + frame(b"large") + frame(bytes(size), BINARY) + frame(b"large") + frame(b"b") * 2
    got = b""

    class Server(Recorder):
        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            answer(transport, frame.get_payload_as_bytes(), None)  # type: ignore[arg-type]

    async def test() -> None:
        nonlocal got
        async with raw_client(net, Server) as (peer, _):
            peer.write(b"".join(peer.encode(TEXT, payload) for payload in (b"a", b"large", b"b")))
            got = await peer.reader.readexactly(len(expected))

    net.run(test())
    assert got == expected


@over_both_loops
def test_an_exception_flushes_before_the_close(net: Network) -> None:
    def answer(transport: WSTransport, payload: bytes, wire: Wire) -> None:
        transport.send(WSMsgType.TEXT, payload)
        if payload == b"fail":
            raise ValueError("as told")

    class Server(Recorder):
        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            answer(transport, frame.get_payload_as_bytes(), None)  # type: ignore[arg-type]

    async def test() -> None:
        async with raw_client(net, Server) as (peer, _):
            peer.write(b"".join(peer.encode(TEXT, payload) for payload in (b"good", b"fail", b"never")))
            assert (await peer.receive()).payload == b"good"
            assert (await peer.receive()).payload == b"fail"
            closing = await peer.receive()
            assert (closing.msg_type, closing.payload) == (CLOSE, WSCloseCode.INTERNAL_ERROR.to_bytes(2, "big"))
            assert await peer.reader.read() == b""

    net.run(test())


@over_both_loops
def test_an_exception_that_is_only_logged_flushes_too(net: Network) -> None:
    def answer(transport: WSTransport, payload: bytes, wire: Wire) -> None:
        assert wire.arrived() == (frame(b"fail") if payload == b"next" else b"")
        transport.send(WSMsgType.TEXT, payload)
        if payload == b"fail":
            raise ValueError("as told")

    assert burst_test(net, answer, b"fail", b"next", b"last", disconnect_on_exception=False) == frame(b"next") + frame(b"last")


@over_both_loops
@pytest.mark.parametrize("graceful", [True, False])
def test_disconnect_in_a_burst(net: Network, graceful: bool) -> None:
    class Server(Recorder):
        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            transport.send(WSMsgType.TEXT, frame)
            transport.disconnect(graceful)

    async def test() -> None:
        async with raw_client(net, Server) as (peer, listener):
            peer.write(peer.encode(TEXT, b"last") + peer.encode(TEXT, b"never"))
            if graceful:
                assert (await peer.receive()).payload == b"last"
                assert await peer.reader.read() == b""
            peer.writer.close()
            await listener.disconnected.wait()
            listener.transport.send(WSMsgType.TEXT, b"too late")
            listener.transport.flush()
            assert listener.transport.write_buffer_size == 0

    net.run(test())


@over_both_loops
def test_another_connection_does_not_wait(net: Network) -> None:
    others: list[Any] = []

    def answer(transport: WSTransport, payload: bytes, wire: Wire) -> None:
        transport.send(WSMsgType.TEXT, b"own " + payload)
        other, other_wire = others
        other.transport.send(WSMsgType.TEXT, b"other " + payload)
        assert other_wire.arrived() == frame(b"other " + payload)
        assert wire.arrived() == b""

    class Server(Recorder):
        wire: Wire

        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            answer(transport, frame.get_payload_as_bytes(), self.wire)
            super().on_ws_frame(transport, frame)

    async def test() -> None:
        async with raw_client(net, Recorder) as (other, at_other), raw_client(net, Server) as (peer, listener):
            with looked_at(other) as other_wire, looked_at(peer) as listener.wire:
                others.extend((at_other, other_wire))
                peer.write(peer.encode(TEXT, b"1") + peer.encode(TEXT, b"2"))
                await listener.take(2)
                assert listener.wire.arrived() == frame(b"own 1") + frame(b"own 2")
                others.clear()

    net.run(test())


def send_and_fail(transport: WSTransport) -> None:
    with transport.cork():
        transport.send(WSMsgType.TEXT, b"3")
        raise KeyError


@over_both_loops
def test_corked_outside_of_callbacks(net: Network) -> None:
    async def test() -> None:
        async with raw_client(net, Recorder) as (peer, listener):
            transport = listener.transport
            with looked_at(peer) as wire:
                with transport.cork():
                    transport.send(WSMsgType.TEXT, b"1")
                    with transport.cork():
                        transport.send_ping(b"2")
                    assert wire.arrived() == b""
                    assert transport.write_buffer_size == len(frame(b"1") + frame(b"2"))
                assert wire.arrived() == frame(b"1") + frame(b"2", WSMsgType.PING)
                with pytest.raises(KeyError):
                    send_and_fail(transport)
                assert wire.arrived() == frame(b"3")
                with transport.cork():
                    transport.send(WSMsgType.TEXT, b"4")
                    transport.flush()
                    assert wire.arrived() == frame(b"4")
                transport.send(WSMsgType.TEXT, b"5")
                assert wire.arrived() == frame(b"5")

    net.run(test())


@over_both_loops
def test_the_end_of_a_burst_writes_what_was_corked_in_it(net: Network) -> None:
    def answer(transport: WSTransport, payload: bytes, wire: Wire) -> None:
        with transport.cork():
            transport.send(WSMsgType.TEXT, payload)
        assert wire.arrived() == b""

    assert burst_test(net, answer, b"1", b"2") == frame(b"1") + frame(b"2")


@over_both_loops
def test_a_cork_that_was_not_entered(net: Network) -> None:
    def answer(transport: WSTransport, payload: bytes, wire: Wire) -> None:
        # What the burst gathers is none of a cork's.
        transport.send(WSMsgType.TEXT, payload)
        with pytest.raises(RuntimeError, match=r"cork\(\) was left without being entered"):
            transport.cork().__exit__(None, None, None)
        assert wire.arrived() == b""

    async def test() -> None:
        async with raw_client(net, Recorder) as (peer, listener):
            cork = listener.transport.cork()
            with pytest.raises(RuntimeError, match=r"cork\(\) was left without being entered"):
                cork.__exit__(None, None, None)
            with cork:
                listener.transport.send(WSMsgType.TEXT, b"entered")
            with pytest.raises(RuntimeError, match=r"cork\(\) was left without being entered"):
                cork.__exit__(None, None, None)
            assert (await peer.receive()).payload == b"entered"

    net.run(test())
    assert burst_test(net, answer, b"1", b"2") == frame(b"1") + frame(b"2")


@over_both_loops
def test_a_cork_outlives_its_connection(net: Network) -> None:
    async def test() -> None:
        async with raw_client(net, Recorder) as (peer, listener), raw_client(net, Recorder) as (other, at_other):
            with listener.transport.cork():
                listener.transport.send(WSMsgType.TEXT, b"lost")
                peer.writer.transport.abort()
                await listener.disconnected.wait()
                listener.transport.send(WSMsgType.TEXT, b"too late")
            assert listener.transport.write_buffer_size == 0
            with listener.transport.cork():
                listener.transport.send(WSMsgType.TEXT, b"too late")
            # What it gathered is no other connection's.
            with at_other.transport.cork():
                at_other.transport.send(WSMsgType.TEXT, b"sent")
            assert (await other.receive()).payload == b"sent"
            await listener.transport.wait_disconnected()

    net.run(test())


@over_both_loops
def test_corked_while_a_burst_comes_in(net: Network) -> None:
    class Server(Recorder):
        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            with transport.cork():
                transport.send(WSMsgType.TEXT, frame)
            super().on_ws_frame(transport, frame)

    async def test() -> None:
        async with raw_client(net, Server) as (peer, listener):
            with looked_at(peer) as wire:
                with listener.transport.cork():
                    listener.transport.send(WSMsgType.TEXT, b"0")
                    peer.write(peer.encode(TEXT, b"1") + peer.encode(TEXT, b"2"))
                    await listener.take(2)
                    assert wire.arrived() == b""
                assert wire.arrived() == frame(b"0") + frame(b"1") + frame(b"2")

    net.run(test())


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.sampled_from([0, 1, 125, 126, 3000, 40_000, 65_530, 70_000])),
        st.tuples(st.just("flush"), st.just(0)),
        st.tuples(st.just("cork"), st.integers(1, 3)),
    ),
    max_size=12,
)


@over_tcp_and_tls
@settings(max_examples=15, deadline=None)
@given(bursts=st.lists(st.lists(STEPS, min_size=1, max_size=5), min_size=1, max_size=3))
def test_the_order_is_that_of_the_sends(net: Network, bursts: list[list[list[tuple[str, int]]]]) -> None:
    """Whatever a listener does for the frames of some bursts, its peer receives what was sent, as it was sent."""
    scripts = [steps for burst in bursts for steps in burst]
    expected: list[bytes] = []

    class Server(Recorder):
        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            if frame.msg_type == WSMsgType.CLOSE:
                transport.send_close()
                return
            for action, argument in scripts[int(frame.get_payload_as_bytes())]:
                if action == "flush":
                    transport.flush()
                elif action == "send":
                    self.send(transport, argument)
                else:
                    with transport.cork():
                        for _ in range(argument):
                            self.send(transport, argument)

        def send(self, transport: WSTransport, size: int) -> None:
            expected.append(bytes([len(expected) % 251]) * size)
            transport.send(WSMsgType.BINARY, expected[-1])

    async def test() -> None:
        async with raw_client(net, Server) as (peer, _):
            number = 0
            for burst in bursts:
                peer.write(b"".join(peer.encode(TEXT, b"%d" % (number + i)) for i in range(len(burst))))
                number += len(burst)
            peer.send(CLOSE)
            got = []
            while (answer := await peer.receive()).msg_type != CLOSE:
                got.append(answer.payload)
            assert got == expected

    net.run(test())
