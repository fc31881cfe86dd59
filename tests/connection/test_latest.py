"""send_latest: who keeps up gets everything, who does not gets the newest value of each key."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
import weakref
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from picows import (
    WSDeflate,
    WSFrame,
    WSListener,
    WSMsgType,
    WSSlowPeerError,
    WSSlowPeerPolicy,
    WSTransport,
    ws_broadcast,
)
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
from tests.connection.peers import CLOSE, REQUEST, ROLES, TEXT, Peer, close_payload, raw_client, stream
from tests.connection.producers import FILLING, fill_kernels, payloads, resume, send_all, skip, stall
from tests.connection.threads import call_in_thread

over_roles = pytest.mark.parametrize("role", ROLES)


@over_every_network
@over_roles
def test_a_slow_peer_gets_the_newest_of_each_key(net: Network, role: str) -> None:
    async def test() -> None:
        async with ROLES[role](net, Recorder) as (peer, listener):
            for _ in range(2):
                sent = await stall(peer, listener.transport)
                send_all(listener.transport, "a1", "b1", "a2", "c1", "b2", "a3")
                await skip(peer, sent)
                assert await payloads(peer, 3) == [b"a3", b"b2", b"c1"]
                # Now it keeps up, with another order.
                send_all(listener.transport, "c2", "b3")
                assert await payloads(peer, 2) == [b"c2", b"b3"]

    net.run(test())


@over_every_network
@over_roles
def test_who_keeps_up_gets_everything(net: Network, role: str) -> None:
    """Though it is sent in one turn of the loop, in which some transports do not write."""

    async def test() -> None:
        async with ROLES[role](net, Recorder) as (peer, listener):
            messages = [f"k{i}" for i in range(100)]
            send_all(listener.transport, *messages)
            assert await payloads(peer, 100) == [message.encode() for message in messages]

    net.run(test())


@over_tcp_and_tls
@over_roles
def test_each_send_looks_whether_the_peer_has_caught_up(net: Network, role: str) -> None:
    """What waited goes first."""

    async def test() -> None:
        async with ROLES[role](net, Recorder) as (peer, listener):
            sent = await stall(peer, listener.transport)
            send_all(listener.transport, "a1", "b1")
            reading = asyncio.ensure_future(skip(peer, sent))
            # Counted from the fill: what is smaller than all of it waits under keys only.
            while listener.transport.write_buffer_size > 100:
                await asyncio.sleep(0)
            send_all(listener.transport, "b2", "c1")
            await reading
            rest = await payloads(peer, 3)
            while rest[-1] != b"c1":
                rest += await payloads(peer, 1)
            assert rest in ([b"a1", b"b1", b"b2", b"c1"], [b"a1", b"b2", b"c1"])

    net.run(test())


@over_every_network
@over_roles
def test_a_cork_gathers_and_lets_nothing_wait(net: Network, role: str) -> None:
    async def test() -> None:
        async with ROLES[role](net, Recorder) as (peer, listener):
            transport = listener.transport
            with transport.cork():
                send_all(transport, "a1")
                transport.send(WSMsgType.TEXT, "between")
                send_all(transport, "a2")
            assert await payloads(peer, 3) == [b"a1", b"between", b"a2"]
            sent = await stall(peer, transport)
            with transport.cork():
                send_all(transport, "a3", "a4")
            await skip(peer, sent)
            assert await payloads(peer, 1) == [b"a4"]

    net.run(test())


@over_tcp_and_tls
def test_so_does_a_burst(net: Network) -> None:
    class Answering(Recorder):
        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            transport.send_latest("key", frame.msg_type, frame)

    async def test() -> None:
        async with raw_client(net, Answering) as (peer, _):
            peer.write(b"".join(peer.encode(TEXT, b"%d" % i) for i in range(50)))
            assert await payloads(peer, 50) == [b"%d" % i for i in range(50)]

    net.run(test())


@over_tcp_and_tls
@over_roles
def test_a_message_in_fragments_is_not_interrupted(net: Network, role: str) -> None:
    async def test() -> None:
        async with ROLES[role](net, Recorder) as (peer, listener):
            transport = listener.transport
            transport.send(WSMsgType.TEXT, "be", fin=False)
            send_all(transport, "a1", "a2")
            transport.send_ping(b"!")
            transport.send(WSMsgType.CONTINUATION, "gin")
            assert await payloads(peer, 4) == [b"be", b"!", b"gin", b"a2"]
            # Nor at the end, which comes before it is whole.
            transport.send(WSMsgType.TEXT, "be", fin=False)
            send_all(transport, "a3")
            transport.send_close(1000)
            assert await payloads(peer, 2) == [b"be", close_payload(1000)]

    net.run(test())


@over_tcp_and_tls
def test_what_waits_is_compressed_when_it_goes_out(net: Network) -> None:
    """Frames may refer to those sent before them, so an order of compressing that is not that of sending shows."""
    document = b"a text that occurs again and again, " * 5

    async def test() -> None:
        listeners = []

        def factory(request: object) -> WSListener:
            listeners.append(Recorder())
            return listeners[0]

        async with net.serve(factory, compression=WSDeflate(min_size=10)) as url, stream(net, url) as peer:
            peer.write(REQUEST[:-2] + b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n")
            await peer.reader.readuntil(b"\r\n\r\n")
            transport = listeners[0].transport
            peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
            while transport.write_buffer_size < 8 * len(FILLING):
                transport.send(WSMsgType.BINARY, FILLING, compress=False)
                await asyncio.sleep(0)
            transport.send_latest(1, WSMsgType.TEXT, document + b"1")
            transport.send_latest(2, WSMsgType.TEXT, b"small")
            transport.send_latest(3, WSMsgType.TEXT, document + b"3", compress=False)
            ws_broadcast([transport], WSMsgType.TEXT, document + b"4", latest=4)
            transport.send(WSMsgType.TEXT, document + b"first")
            resume(peer)
            while (frame := await peer.receive()).payload == FILLING:
                pass
            inflate = zlib.decompressobj(-15)
            received = []
            for _ in range(5):
                is_compressed = frame.rsv[0]
                received.append((inflate.decompress(frame.payload + b"\x00\x00\xff\xff") if is_compressed else frame.payload,
                                 is_compressed))
                if len(received) < 5:
                    frame = await peer.receive()
            assert received == [(document + b"first", True), (document + b"1", True), (b"small", False),
                                (document + b"3", False), (document + b"4", True)]
            transport.disconnect(graceful=False)
            await listeners[0].disconnected.wait()

    net.run(test())


@over_every_network
def test_a_broadcast_of_the_newest(net: Network) -> None:
    async def test() -> None:
        async with subscribers(net, 3) as (clients, servers):
            clients[1].transport.underlying_transport.pause_reading()
            sent = await fill_kernels(servers[1].transport)
            for i in range(5):
                assert ws_broadcast(transports(servers), WSMsgType.TEXT, f"a{i}", latest="a") == 3
                assert ws_broadcast(transports(servers), WSMsgType.TEXT, f"b{i}", latest="b") == 3
            for client in (clients[0], clients[2]):
                assert [await client.payload() for _ in range(10)] == [b"%s%d" % (k, i) for i in range(5) for k in (b"a", b"b")]
            clients[1].transport.underlying_transport.resume_reading()
            await clients[1].take(sent)
            assert [await clients[1].payload() for _ in range(2)] == [b"a4", b"b4"]

    net.run(test())


@over_tcp_and_tls
def test_slow_peers_share_what_waits(net: Network) -> None:
    size = 1 << 20

    async def test() -> None:
        async with subscribers(net, 10) as (clients, servers):
            for client in clients:
                client.transport.underlying_transport.pause_reading()
            while sum([await fill_kernels(server.transport) for server in servers]):
                pass  # TLS reads ahead
            message = bytes(size)
            tracemalloc.start()
            for _ in range(3):
                assert ws_broadcast(transports(servers), WSMsgType.BINARY, message, latest="key") == 10
            assert all(server.transport.write_buffer_size > size for server in servers)
            waiting, _ = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert waiting < 4 * size

    net.run(test())


@over_every_network
def test_what_waits_counts(net: Network) -> None:
    async def test() -> None:
        async with raw_client(net, Recorder) as (peer, listener):
            transport = listener.transport
            await stall(peer, transport)
            before = transport.write_buffer_size
            transport.send_latest("a", WSMsgType.BINARY, bytes(10_000))
            transport.send_latest("b", WSMsgType.BINARY, bytes(100))
            assert transport.write_buffer_size == before + 4 + 10_000 + 2 + 100
            transport.send_latest("a", WSMsgType.BINARY, bytes(10))
            assert transport.write_buffer_size == before + 2 + 10 + 2 + 100
            peer.writer.transport.abort()

    net.run(test())


@over_tcp_and_tls
@over_roles
@pytest.mark.parametrize("policy", list(WSSlowPeerPolicy), ids=lambda policy: policy.name)
def test_there_is_room_for_so_much(net: Network, role: str, policy: WSSlowPeerPolicy) -> None:
    limit = 1 << 20

    async def test() -> None:
        options = {"max_write_buffer_size": limit, "slow_peer": policy}
        async with ROLES[role](net, Recorder, **options) as (peer, listener):
            transport = listener.transport
            sent = await stall(peer, transport)
            big = bytes(limit - transport.write_buffer_size - 500)
            assert transport.send_latest("a", WSMsgType.BINARY, big) is True
            assert transport.send_latest("a", WSMsgType.BINARY, big) is True  # in place of the other
            if policy == WSSlowPeerPolicy.RAISE:
                with pytest.raises(WSSlowPeerError):
                    transport.send_latest("b", WSMsgType.BINARY, bytes(1000))
            else:
                assert transport.send_latest("b", WSMsgType.BINARY, bytes(1000)) is False
            if policy == WSSlowPeerPolicy.DISCONNECT:
                await listener.disconnected.wait()
                peer.writer.transport.abort()
                return
            assert ws_broadcast([transport], WSMsgType.BINARY, bytes(1000), latest="b") == 0
            # What waits leaves the less for others.
            if policy == WSSlowPeerPolicy.DROP_NEWEST:
                assert transport.send(WSMsgType.BINARY, bytes(1000)) is False
            assert transport.send_latest("c", WSMsgType.BINARY, b"small") is True
            await skip(peer, sent)
            assert await payloads(peer, 2) == [big, b"small"]

    net.run(test())


def test_the_limit_that_nobody_gave_counts_it(net: Network) -> None:
    async def test() -> None:
        async with raw_client(net, Recorder) as (peer, listener):
            listener.transport.underlying_transport.set_write_buffer_limits(high=1 << 30)
            await stall(peer, listener.transport)
            message = bytes(16 << 20)
            assert [listener.transport.send_latest(key, WSMsgType.BINARY, message) for key in range(3)] == [True] * 3
            assert listener.transport.send(WSMsgType.BINARY, message) is False
            await listener.disconnected.wait()
            peer.writer.transport.abort()

    net.run(test())


@over_every_network
@over_roles
def test_drain_waits_for_it(net: Network, role: str) -> None:
    async def test() -> None:
        async with ROLES[role](net, Recorder) as (peer, listener):
            transport = listener.transport
            transport.underlying_transport.set_write_buffer_limits(high=4 << 20, low=1 << 20)
            sent = await stall(peer, transport)
            await transport.drain()
            transport.send_latest("a", WSMsgType.BINARY, bytes(5 << 20))
            waiting = asyncio.ensure_future(transport.drain())
            for _ in range(20):
                await asyncio.sleep(0)
            assert not waiting.done()
            await skip(peer, sent)
            assert len((await peer.receive()).payload) == 5 << 20
            await waiting

    net.run(test())


GRACEFUL: dict[str, Callable[[WSTransport], Any]] = {
    "send_close": lambda transport: transport.send_close(1000),
    "close": lambda transport: asyncio.ensure_future(transport.close(1000)),
    "disconnect": lambda transport: transport.disconnect(),
}


@over_every_network
@over_roles
@pytest.mark.parametrize("end", GRACEFUL)
def test_it_goes_out_before_the_end(net: Network, role: str, end: str) -> None:
    async def test() -> None:
        async with ROLES[role](net, Recorder) as (peer, listener):
            transport = listener.transport
            sent = await stall(peer, transport)
            send_all(transport, "a1", "b1", "a2")
            ending = GRACEFUL[end](transport)
            await asyncio.sleep(0)
            assert transport.send_latest("a", WSMsgType.TEXT, "too late") is False
            await skip(peer, sent)
            assert await payloads(peer, 2) == [b"a2", b"b1"]
            if end == "disconnect":
                assert await peer.receive_all() == []
            else:
                assert await peer.receive() == Received(CLOSE, close_payload(1000))
                peer.send(CLOSE, close_payload(1000))
            await peer.close()
            await listener.disconnected.wait()
            if end == "close":
                await ending

    net.run(test())


class Key:
    """Can be referred to weakly."""


ENDS: dict[str, Callable[[WSTransport, Peer], Any]] = {
    "abort": lambda transport, peer: transport.disconnect(graceful=False),
    "reset": lambda transport, peer: peer.writer.transport.abort(),
    "sent": lambda transport, peer: resume(peer),
}


@over_tcp_and_tls
@over_roles
@pytest.mark.parametrize("end", ENDS)
def test_what_waited_is_let_go_of(net: Network, role: str, end: str) -> None:
    async def test() -> None:
        async with ROLES[role](net, Recorder) as (peer, listener):
            sent = await stall(peer, listener.transport)
            key = Key()
            listener.transport.send_latest(key, WSMsgType.TEXT, "message")
            gone = weakref.ref(key)
            del key
            assert gone() is not None
            ENDS[end](listener.transport, peer)
            if end == "sent":
                await skip(peer, sent)
                assert await payloads(peer, 1) == [b"message"]
            else:
                await listener.disconnected.wait()
                peer.writer.transport.abort()
                assert listener.transport.send_latest("a", WSMsgType.TEXT, b"") is False
            gc.collect()
            assert gone() is None

    net.run(test())


@over_both_loops
@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        (([], WSMsgType.TEXT, b""), TypeError, "key must be hashable, got a list"),
        (("a", WSMsgType.PING, b""), ValueError, "expected TEXT or BINARY"),
        (("a", WSMsgType.CONTINUATION, b""), ValueError, "expected TEXT or BINARY"),
        (("a", WSMsgType.CLOSE, b""), ValueError, "msg_type is"),
        (("a", 1.0, b""), TypeError, "msg_type is 1.0"),
        (("a", WSMsgType.TEXT, 5), TypeError, "message is of type int"),
        (("a", WSMsgType.TEXT, "\ud800"), UnicodeEncodeError, "surrogates"),
    ],
)
@pytest.mark.parametrize("slow", [False, True], ids=["keeps up", "slow"])
def test_a_wrong_argument(net: Network, arguments: Any, error: type[Exception], sentence: str, slow: bool) -> None:
    async def test() -> None:
        async with raw_client(net, Recorder) as (peer, listener):
            transport = listener.transport
            sent = await stall(peer, transport) if slow else 0
            before = transport.write_buffer_size
            with pytest.raises(error, match=sentence):
                transport.send_latest(*arguments)
            with pytest.raises(error, match=sentence.replace("key", "latest")):
                ws_broadcast([transport], *arguments[1:], latest=arguments[0])
            with pytest.raises(TypeError, match="compress must be"):
                transport.send_latest("a", WSMsgType.TEXT, b"", compress=1)  # type: ignore[arg-type]
            with pytest.raises(ValueError, match="fin is False"):
                ws_broadcast([transport], WSMsgType.TEXT, b"", fin=False, latest="a")
            _, failure = call_in_thread(transport.send_latest, "a", WSMsgType.TEXT, b"")
            assert isinstance(failure, RuntimeError)
            assert transport.write_buffer_size == before
            transport.send(WSMsgType.TEXT, b"nothing came before")
            await skip(peer, sent)
            assert await payloads(peer, 1) == [b"nothing came before"]

    net.run(test())
