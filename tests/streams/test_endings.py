"""The end of a connection is told to everybody who waits, behind all that was received before it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from picows import WSFrame, WSProtocolError, WSTransport
from picows._streams import MessageStream
from tests.connection.networks import Network, over_both_loops, over_tcp_and_tls
from tests.connection.peers import CLOSE, PING, Peer, close_payload
from tests.streams.streams import arrived, at_once, raw_peer, say_close, send_texts, until


class Fragile(MessageStream):
    calls = 0

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        self.calls += 1
        super().on_ws_frame(transport, frame)

    def ping_received(self, frame: WSFrame) -> None:
        if frame.get_payload_as_bytes() == b"raise":
            raise WSProtocolError(4000, "as told")


Ending = Callable[[Peer, Any], None]

# How it ends, and the code and reason that are seen here.
ENDINGS: dict[str, tuple[Ending, int, str]] = {
    "CLOSE": (lambda peer, _: peer.send(CLOSE, close_payload(3999, b"reason")), 3999, "reason"),
    "CLOSE without a code": (lambda peer, _: peer.send(CLOSE), 1005, ""),
    "abort by the peer": (lambda peer, _: peer.writer.transport.abort(), 1006, ""),
    "end of the stream": (lambda peer, _: peer.writer.close(), 1006, ""),
    "protocol error": (lambda peer, _: peer.write(peer.encode(3)), 1006, ""),
    "exception in a callback": (lambda peer, _: peer.send(PING, b"raise"), 1006, ""),
    "abort": (lambda _, stream: stream.transport.disconnect(graceful=False), 1006, ""),
    "disconnect": (lambda peer, stream: (stream.transport.disconnect(), peer.writer.close())[0], 1006, ""),
}
over_every_ending = pytest.mark.parametrize("ending", ENDINGS)


@over_tcp_and_tls
@over_every_ending
@pytest.mark.parametrize("role", ["server", "client"])
def test_the_end_is_told_behind_the_messages(net: Network, ending: str, role: str) -> None:
    end, code, reason = ENDINGS[ending]

    async def test() -> None:
        async with raw_peer(net, Fragile, role, enable_auto_pong=False) as (peer, stream):
            assert (stream.close_code, stream.close_reason, stream.ended) == (None, None, False)
            send_texts(peer, *range(2))
            if ending in ("abort by the peer", "abort", "disconnect"):
                # An abort destroys what is on its way.
                await until(lambda: stream.calls == 2)
            end(peer, stream)
            if not peer.writer.is_closing():
                await until(lambda: stream.transport.close_handshake is not None or stream.ended)
                peer.writer.close()
            await stream.wait_closed()
            assert stream.ended
            assert [at_once(stream.recv()) for _ in range(2)] == ["0", "1"]
            for _ in range(2):
                with pytest.raises(ConnectionResetError, match=f"close code {code}"):
                    at_once(stream.recv())
                with pytest.raises(ConnectionResetError, match=f"close code {code}"):
                    at_once(stream.send("too late"))
                with pytest.raises(ConnectionResetError, match=f"close code {code}"):
                    at_once(stream.drain())
            assert (stream.close_code, stream.close_reason) == (code, reason)

    net.run(test())


@over_tcp_and_tls
@over_every_ending
def test_the_end_wakes_who_receives(net: Network, ending: str) -> None:
    end, code, _ = ENDINGS[ending]

    async def test() -> None:
        async with raw_peer(net, Fragile, enable_auto_pong=False) as (peer, stream):
            task = asyncio.ensure_future(stream.recv())
            await asyncio.sleep(0)
            end(peer, stream)
            if not peer.writer.is_closing():
                await until(lambda: stream.transport.close_handshake is not None or stream.ended)
                peer.writer.close()
            with pytest.raises(ConnectionResetError, match=f"close code {code}"):
                await task

    net.run(test())


@over_both_loops
@pytest.mark.parametrize(
    ("payload", "ends"), [(close_payload(1000), True), (close_payload(1001), True), (b"", True), (close_payload(1011), False)]
)
def test_an_iteration_stops_or_raises(net: Network, payload: bytes, ends: bool) -> None:
    async def test() -> None:
        async with raw_peer(net) as (peer, stream):
            messages = []

            async def iterate() -> None:
                async for message in stream:
                    messages.append(message)

            task = asyncio.ensure_future(iterate())
            send_texts(peer, "1", "2")
            await say_close(peer, payload)
            if ends:
                await task
            else:
                with pytest.raises(ConnectionResetError, match="1011"):
                    await task
            assert messages == ["1", "2"]

    net.run(test())


@over_both_loops
def test_a_class_on_top_has_its_own_errors(net: Network) -> None:
    class OwnError(Exception):
        pass

    class Own(MessageStream):
        def end_error(self) -> Exception:
            return OwnError(self.close_code)

        def concurrency_error(self) -> Exception:
            return OwnError("concurrency")

        def ended_well(self) -> bool:
            return self.close_code == 4000

    async def test() -> None:
        async with raw_peer(net, Own) as (peer, stream):
            task = asyncio.ensure_future(stream.recv())
            await asyncio.sleep(0)
            with pytest.raises(OwnError, match="concurrency"):
                await stream.recv()
            await say_close(peer, close_payload(4000))
            with pytest.raises(OwnError, match="4000"):
                await task
            with pytest.raises(OwnError, match="4000"):
                await stream.send("too late")
            assert [message async for message in stream] == []

    net.run(test())


@over_both_loops
def test_closing_tells_both_sides(net: Network) -> None:
    async def test() -> None:
        async with raw_peer(net) as (peer, stream):
            send_texts(peer, "before")
            await arrived(peer)
            closing = asyncio.ensure_future(stream.close(1001, "leaving"))
            closed = await peer.receive()
            assert (closed.msg_type, closed.payload) == (CLOSE, close_payload(1001, b"leaving"))
            with pytest.raises(ConnectionResetError, match="nothing can be sent any more"):
                await stream.send("too late")
            send_texts(peer, "meanwhile")
            peer.send(CLOSE, close_payload(1001))
            await peer.close()
            await closing
            assert [message async for message in stream] == ["before", "meanwhile"]

    net.run(test())


@over_both_loops
def test_waiting_for_the_end_raises_nothing_and_can_be_cancelled(net: Network) -> None:
    async def test() -> None:
        async with raw_peer(net, role="client") as (peer, stream):
            task = asyncio.ensure_future(stream.wait_closed())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            task = asyncio.ensure_future(stream.wait_closed())
            peer.write(peer.encode(3))
            await until(lambda: stream.transport.is_close_frame_sent)
            peer.writer.close()
            await task
            # The transport still tells what happened.
            with pytest.raises(WSProtocolError):
                await stream.transport.wait_disconnected()

    net.run(test())
