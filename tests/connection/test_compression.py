"""permessage-deflate on real connections: what is agreed on, what is compressed, and what bombs cost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import resource
import sys
import zlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from picows import (
    WSDeflate,
    WSInvalidHeaderError,
    WSMsgType,
    WSSlowPeerPolicy,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
    ws_broadcast,
    ws_connect,
)
from tests.connection.networks import (
    EchoInPlace,
    Network,
    Received,
    Recorder,
    cut,
    over_both_loops,
    over_every_network,
    over_tcp_and_tls,
    transports,
)
from tests.connection.peers import BINARY, CLOSE, CONTINUATION, TEXT, Peer, close_code, stream

DOCUMENT = json.dumps([{"id": i, "name": f"user {i}", "tags": ["a", "b"]} for i in range(200)]).encode()
DEFLATE = {"compression": WSDeflate()}
TAIL = b"\x00\x00\xff\xff"
MIB = 1024 * 1024


def request(extensions: str) -> bytes:
    return (
        b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        b"Sec-WebSocket-Extensions: " + extensions.encode() + b"\r\n\r\n"
    )


async def upgraded(peer: Peer, extensions: str = "permessage-deflate") -> bytes:
    """The server's answer to a raw client that offers these."""
    peer.write(request(extensions))
    return await peer.reader.readuntil(b"\r\n\r\n")


@over_tcp_and_tls
def test_the_latest_is_compressed_for_a_peer_that_keeps_up(net: Network) -> None:
    async def test() -> None:
        async with compressing_server(net) as (peer, listener):
            assert listener.transport.send_latest("key", WSMsgType.TEXT, DOCUMENT) is True
            frame = await peer.receive()
            assert frame.rsv[0]
            assert zlib.decompressobj(-15).decompress(frame.payload + TAIL) == DOCUMENT
            assert listener.transport.send_latest("key", WSMsgType.TEXT, DOCUMENT, compress=False) is True
            assert await peer.receive() == Received(TEXT, DOCUMENT)

    net.run(test())


def deflated(payload: bytes) -> bytes:
    context = zlib.compressobj(wbits=-12)
    return (context.compress(payload) + context.flush(zlib.Z_SYNC_FLUSH))[:-4]


SETTINGS = {
    "no takeover": {"server_no_context_takeover": True, "client_no_context_takeover": True},
    "windows": {"server_max_window_bits": 9, "client_max_window_bits": 15},
    "smallest": {"server_max_window_bits": 8, "client_max_window_bits": 8},
    "all": {"min_size": 0, "level": 9, "mem_level": 9},
}


@over_every_network
def test_messages_come_back_over_every_network(net: Network) -> None:
    check_that_messages_come_back(net, {})


@over_both_loops
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
def test_messages_come_back_with_all_settings(net: Network, settings: dict[str, Any]) -> None:
    check_that_messages_come_back(net, settings)


def check_that_messages_come_back(net: Network, settings: dict[str, Any]) -> None:
    options: dict[str, Any] = {"compression": WSDeflate(**settings)}

    async def test() -> None:
        async with net.pair(server=EchoInPlace, client_options=options, server_options=options) as (client, _):
            assert "permessage-deflate" in client.transport.response.headers["Sec-WebSocket-Extensions"]
            messages = [b"", b"short", DOCUMENT, DOCUMENT[::-1], bytes(3 * MIB), DOCUMENT]
            for compress in (None, True, False):
                for message in messages:
                    client.transport.send(WSMsgType.BINARY, message, compress=compress)
                assert [await client.payload() for _ in messages] == messages
            client.transport.send(WSMsgType.TEXT, "grüße" * 100)
            assert await client.take(1) == [Received(TEXT, ("grüße" * 100).encode())]

    net.run(test())


@over_both_loops
@pytest.mark.parametrize("sides", [(True, False), (False, True)], ids=["client", "server"])
def test_one_side_alone_compresses_nothing(net: Network, sides: tuple[bool, bool]) -> None:
    async def test() -> None:
        client_options, server_options = ({**DEFLATE} if side else {} for side in sides)
        async with net.pair(
            server=EchoInPlace, client_options=client_options, server_options=server_options
        ) as (client, server):
            assert "Sec-WebSocket-Extensions" not in client.transport.response.headers
            client.transport.send(WSMsgType.BINARY, DOCUMENT, compress=True)
            assert await server.payload() == DOCUMENT

    net.run(test())


@over_tcp_and_tls
def test_what_is_compressed(net: Network) -> None:
    """By size, or as `send` is told; fragments share the choice of the first."""

    async def test() -> None:
        servers = []

        def factory(request: object) -> Recorder:
            servers.append(Recorder())
            return servers[0]

        options: dict[str, Any] = {"compression": WSDeflate(min_size=100, server_no_context_takeover=True, zlib=zlib)}
        async with net.serve(factory, **options) as url, stream(net, url) as peer:
            head = await upgraded(peer)
            assert b"Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover" in head
            send = servers[0].transport.send

            async def received() -> tuple[bool, bytes]:
                frame = await peer.receive()
                return frame.rsv[0], frame.payload

            send(WSMsgType.TEXT, b"a" * 99)
            assert await received() == (False, b"a" * 99)
            send(WSMsgType.TEXT, b"a" * 100)
            assert await received() == (True, deflated(b"a" * 100))
            send(WSMsgType.TEXT, b"a" * 100, compress=False)
            assert await received() == (False, b"a" * 100)
            send(WSMsgType.TEXT, b"a", compress=True)
            assert await received() == (True, deflated(b"a"))
            send(WSMsgType.TEXT, b"", compress=True)
            assert await received() == (True, b"\x00")
            # A control frame between the fragments is none of theirs.
            send(WSMsgType.BINARY, b"a" * 10, fin=False)
            servers[0].transport.send_ping(b"ping")
            send(WSMsgType.CONTINUATION, b"b" * 10, fin=False)
            send(WSMsgType.CONTINUATION, b"c" * 10)
            frames = [await peer.receive() for _ in range(4)]
            assert frames.pop(1) == Received(WSMsgType.PING, b"ping")
            assert [(f.msg_type, f.fin, f.rsv[0]) for f in frames] == [
                (BINARY, False, True), (CONTINUATION, False, False), (CONTINUATION, True, False)
            ]  # fmt: skip
            whole = b"".join(frame.payload for frame in frames) + TAIL
            assert zlib.decompressobj(-15).decompress(whole) == b"a" * 10 + b"b" * 10 + b"c" * 10
            send(WSMsgType.BINARY, b"d" * 200, fin=False, compress=False)
            send(WSMsgType.CONTINUATION, b"e" * 200, compress=True)
            assert [await received(), await received()] == [(False, b"d" * 200), (False, b"e" * 200)]
            with pytest.raises(ValueError, match="rsv1"):
                send(WSMsgType.TEXT, b"", rsv1=True)
            with pytest.raises(TypeError, match="compress must be a bool or None"):
                send(WSMsgType.TEXT, b"a", compress=1)
            send(WSMsgType.TEXT, b"a", fin=False, compress=True)
            with pytest.raises(ValueError, match="begun compressed"):
                servers[0].transport.send_reuse_external_bytearray(WSMsgType.CONTINUATION, bytearray(20), 14)
            servers[0].transport.disconnect(graceful=False)

    net.run(test())


@contextlib.asynccontextmanager
async def compressing_server(net: Network, **options: Any) -> AsyncIterator[tuple[Peer, Recorder]]:
    """A raw client and the listener of the server, which agreed on compression."""
    servers: list[Recorder] = []

    def factory(request: object) -> Recorder:
        servers.append(Recorder())
        return servers[0]

    async with net.serve(factory, **{**DEFLATE, **options}) as url, stream(net, url) as peer:
        assert b"permessage-deflate" in await upgraded(peer)
        try:
            yield peer, servers[0]
        finally:
            await cut(servers[0])


@over_both_loops
def test_control_frames_are_never_compressed(net: Network) -> None:
    payload = b"a" * 125

    async def test() -> None:
        async with compressing_server(net, compression=WSDeflate(min_size=0)) as (peer, server):
            transport = server.transport
            transport.send_ping(payload)
            assert transport.send(WSMsgType.PONG, payload, compress=True)
            assert ws_broadcast([transport], WSMsgType.PING, payload, compress=True) == 1
            peer.send(WSMsgType.PING, payload)
            assert [await peer.receive() for _ in range(4)] == [
                Received(msg_type, payload) for msg_type in (WSMsgType.PING, WSMsgType.PONG, WSMsgType.PING, WSMsgType.PONG)
            ]

    net.run(test())


@over_both_loops
def test_what_send_tells_of_a_compressed_message(net: Network) -> None:
    async def test() -> None:
        async with compressing_server(net) as (peer, server):
            transport = server.transport
            assert transport.send(WSMsgType.BINARY, DOCUMENT) is True
            assert transport.send(WSMsgType.BINARY, b"plain") is True
            with pytest.raises(ValueError, match="rsv1"):
                transport.send_reuse_external_bytearray(WSMsgType.BINARY, bytearray(20), 14, rsv1=True)
            transport.send_close(1000)
            for compress in (None, True, False):
                assert transport.send(WSMsgType.BINARY, DOCUMENT, compress=compress) is False
                assert ws_broadcast([transport], WSMsgType.BINARY, DOCUMENT, compress=compress) == 0
            transport.disconnect()
            assert [frame.msg_type for frame in await peer.receive_all()] == [BINARY, BINARY, CLOSE]

    net.run(test())


@over_both_loops
@pytest.mark.parametrize("broadcast", [False, True])
def test_a_compressed_message_that_is_dropped(net: Network, broadcast: bool) -> None:
    """The limit holds, and the peer understands all that follows, though it looks like what was dropped."""
    limit, size = 1 << 18, 1 << 16
    noise = random.Random(limit)
    options = {**DEFLATE, "max_write_buffer_size": limit, "slow_peer": WSSlowPeerPolicy.DROP_NEWEST}

    async def test() -> None:
        async with net.pair(client_options=DEFLATE, server_options=options) as (client, server):
            transport = server.transport

            def taken(message: bytes) -> bool:
                if broadcast:
                    return ws_broadcast([transport], WSMsgType.BINARY, message) == 1
                return transport.send(WSMsgType.BINARY, message)

            client.transport.underlying_transport.pause_reading()
            sent = []
            for _ in range(500):
                message = noise.randbytes(size)
                if not taken(message):
                    break
                sent.append(message)
                assert transport.write_buffer_size <= limit + size
            else:
                pytest.fail("nothing was dropped")
            client.transport.underlying_transport.resume_reading()
            for earlier in sent:
                assert await client.payload() == earlier
            while transport.write_buffer_size:
                await asyncio.sleep(0)
            for _ in range(2):
                assert taken(message[-2000:])
                assert await client.payload() == message[-2000:]

    net.run(test())


@over_tcp_and_tls
@pytest.mark.parametrize(
    ("wire", "code"),
    [
        (lambda peer: peer.encode(TEXT, b"\xff\xff\xff", rsv=4), 1007),
        (lambda peer: peer.encode(TEXT, deflated(b"\xff"), rsv=4), 1007),
        (lambda peer: peer.encode(TEXT, deflated(b"a"), rsv=4, fin=False) + peer.encode(CONTINUATION, b"", rsv=4), 1002),
        (lambda peer: peer.encode(WSMsgType.PING, b"", rsv=4), 1002),
        (lambda peer: peer.encode(BINARY, deflated(bytes(1001)), rsv=4), 1009),
        (lambda peer: peer.encode(BINARY, bytes(1001)), 1009),
        (lambda peer: peer.encode(BINARY, b"", rsv=4, length=10_000), 1009),
    ],
    ids=["damaged", "text", "continuation", "ping", "inflated size", "size", "announced"],
)
def test_faults(net: Network, wire: Any, code: int, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        server = Recorder()
        async with net.serve(lambda request: server, **DEFLATE, max_message_size=1000) as url, stream(net, url) as peer:
            await upgraded(peer)
            peer.write(peer.encode(TEXT, deflated(b"before"), rsv=4) + wire(peer))
            assert close_code(await peer.receive()) == code
            await peer.close()
            await server.disconnected.wait()
            assert server.rest() == [Received(TEXT, b"before")]
            # What a peer does wrong is no error of ours.
            assert not [record for record in caplog.records if record.name.startswith("picows")]

    net.run(test())


@over_both_loops
@pytest.mark.parametrize("extensions", ["permessage-deflate; =", "permessage-deflate;", "a b", '"x"'])
def test_an_unreadable_offer_is_refused(net: Network, extensions: str) -> None:
    async def test() -> None:
        async with net.serve(lambda request: Recorder(), **DEFLATE) as url, stream(net, url) as peer:
            assert (await upgraded(peer, extensions)).startswith(b"HTTP/1.1 400 ")

    net.run(test())


@over_both_loops
@pytest.mark.parametrize(
    "answer", ["permessage-deflate; server_max_window_bits=16", "x-other", "permessage-deflate; unknown"]
)
def test_a_wrong_answer_is_refused(net: Network, answer: str) -> None:
    def factory(request: object) -> WSUpgradeResponseWithListener:
        response = WSUpgradeResponse.create_101_response({"Sec-WebSocket-Extensions": answer})
        return WSUpgradeResponseWithListener(response, Recorder())

    async def test() -> None:
        async with net.serve(factory) as url:
            with pytest.raises(WSInvalidHeaderError, match="Sec-WebSocket-Extensions"):
                await net.connect(Recorder, url, **DEFLATE)

    net.run(test())


@over_both_loops
def test_the_header_belongs_to_one(net: Network) -> None:
    async def test() -> None:
        with pytest.raises(ValueError, match="Sec-WebSocket-Extensions"):
            await ws_connect(
                Recorder, "ws://localhost:1/", extra_headers={"Sec-WebSocket-Extensions": "x"}, **DEFLATE
            )

    net.run(test())


@over_every_network
def test_a_broadcast_is_compressed_once_for_each_setting(net: Network) -> None:
    """And every connection's stream goes on behind it."""

    async def test() -> None:
        servers: list[Any] = []

        def factory(request: object) -> Any:
            servers.append(Recorder())
            return servers[-1]

        clients = []
        async with net.serve(factory, **DEFLATE) as url:
            for options in ({}, DEFLATE, DEFLATE, {"compression": WSDeflate(server_max_window_bits=9)}):
                clients.append(await net.connect(Recorder, url, **options))
            for i in range(3):
                message = b"%d" % i + DOCUMENT
                for server in servers:
                    server.transport.send(WSMsgType.TEXT, message)
                assert ws_broadcast(transports(servers), WSMsgType.TEXT, message[::-1]) == 4
                assert ws_broadcast(transports(servers), WSMsgType.BINARY, message, False) == 4
                assert ws_broadcast(transports(servers), WSMsgType.CONTINUATION, b"end") == 4
                assert ws_broadcast(transports(servers), WSMsgType.BINARY, message, compress=False) == 4
                expected = [message, message[::-1], message + b"end", message]
                for client in clients[1:]:
                    assert [await client.payload() for _ in expected] == expected
                assert [await clients[0].payload() for _ in range(5)] == [message, message[::-1], message, b"end", message]
            # Of the clients those that agreed on compression mask what was compressed once.
            assert ws_broadcast(transports(clients), WSMsgType.TEXT, DOCUMENT) == 4
            for server in servers:
                assert await server.payload() == DOCUMENT
            for listener in (*clients, *servers):
                listener.transport.disconnect(graceful=False)
                await listener.transport.wait_disconnected()

    net.run(test())


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak of the resident memory as Linux tells it")
@over_both_loops
def test_a_zip_bomb_costs_little(net: Network) -> None:
    """10 MiB that would be 10 GiB."""
    block = zlib.compressobj(9, wbits=-15)
    part = block.compress(bytes(MIB)) + block.flush(zlib.Z_FULL_FLUSH)
    bomb = part * (10 * MIB // len(part))

    async def test() -> None:
        server = Recorder()
        async with net.serve(lambda request: server, **DEFLATE) as url, stream(net, url) as peer:
            await upgraded(peer, "permessage-deflate; client_max_window_bits")
            wire = peer.encode(BINARY, bomb, rsv=4)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            for at in range(0, len(wire), MIB):
                peer.write(wire[at : at + MIB])
                await asyncio.sleep(0)
            assert close_code(await peer.receive()) == 1009
            after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            await peer.close()
            await server.disconnected.wait()
            # The raw client's own copies of what it sends count, too.
            assert (after - before) / 1024 < 20 + 2 * len(wire) / MIB
            assert server.rest() == []

    net.run(test())


@over_both_loops
def test_with_the_websockets_package(net: Network) -> None:
    client_module = pytest.importorskip("websockets.asyncio.client")
    server_module = pytest.importorskip("websockets.asyncio.server")
    messages = [DOCUMENT.decode(), "short", DOCUMENT, b"", "grüße" * 1000, DOCUMENT]

    async def echo(connection: Any) -> None:
        async for message in connection:
            await connection.send(message)

    async def test() -> None:
        options: dict[str, Any] = {**DEFLATE, "enable_auto_close": True}
        async with net.serve(lambda request: EchoInPlace(), **options) as url, client_module.connect(url) as theirs:
            assert [extension.name for extension in theirs.protocol.extensions] == ["permessage-deflate"]
            for message in messages:
                await theirs.send(message)
                assert await theirs.recv() == message
        async with server_module.serve(echo, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            ours = await net.connect(Recorder, f"ws://127.0.0.1:{port}/", **options)
            for message in messages:
                ours.transport.send(WSMsgType.TEXT if isinstance(message, str) else WSMsgType.BINARY, message)
                payload = await ours.payload()
                assert payload == (message.encode() if isinstance(message, str) else message)
            await ours.transport.close()

    net.run(test())
