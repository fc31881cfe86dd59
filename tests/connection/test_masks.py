"""Masking keys (RFC 6455 5.3, 10.3): fresh for every frame, whichever way it was sent, and not foreseeable."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from picows import WSDeflate, WSMsgType, WSTransport, ws_broadcast
from tests.connection.networks import Network, Recorder, over_both_loops, over_tcp_and_tls
from tests.connection.peers import BINARY, CLOSE, PING, PONG, TEXT, Peer, raw_server, raw_servers

ROOT = Path(__file__).parents[2]
MIB = 1024 * 1024
DEFLATE = b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=12\r\n"


def repeated(keys: list[bytes]) -> int:
    """How often a key was one of those before it. Two of 3000 are equal by chance once in a thousand times; three such
    pairs never are."""
    return len(keys) - len(set(keys))


@over_both_loops
def test_keys_are_random_bits_and_never_run_out(net: Network) -> None:
    """The keys come out of the operating system's source in stocks; here several of those are used up."""
    count = 3500

    async def test() -> None:
        async with raw_server(net, Recorder) as (peer, listener):
            with listener.transport.cork():
                for _ in range(count):
                    listener.transport.send(WSMsgType.BINARY, None)
            for _ in range(count):
                await peer.receive()
            assert repeated(peer.keys) < 3
            for bit in range(32):
                ones = sum(int.from_bytes(key, "big") >> bit & 1 for key in peer.keys)
                assert 0.4 * count < ones < 0.6 * count, f"bit {bit} is set in {ones} of {count} keys"

    net.run(test())


# Forks twice in a row when connections are open, so that parent, child and grandchild each send on one of their own,
# and prints the keys of each. No thread is started: a fork with threads is deprecated.
FORKING_PROGRAM = """
import asyncio, json, os, socket
from picows import WSListener, WSMsgType, ws_connect
from tests.connection.peers import upgrade_response

COUNT = 200

async def connect(ours, theirs):
    loop = asyncio.get_running_loop()
    theirs.setblocking(False)

    async def answer():
        await loop.sock_sendall(theirs, upgrade_response(await loop.sock_recv(theirs, 10_000)))

    answering = asyncio.ensure_future(answer())
    transport, _ = await ws_connect(WSListener, "ws://localhost/", socket_factory=lambda url: ours, use_aiofastnet=False)
    await answering
    transport.send(WSMsgType.BINARY, None)  # there are keys before the fork
    return transport

def generation(transports):
    transport, *descendants = transports
    child = os.fork() if descendants else None
    if child == 0:
        status = 1
        try:
            generation(descendants)
            status = 0
        finally:
            os._exit(status)
    with transport.cork():
        for _ in range(COUNT):
            transport.send(WSMsgType.BINARY, None)
    if child:
        assert os.waitpid(child, 0)[1] == 0

def keys(sock):
    sock.setblocking(True)
    wire = b""
    while len(wire) < (COUNT + 1) * 6:
        wire += sock.recv(65536)
    assert wire[::6] + wire[1::6] == b"\\x82" * (COUNT + 1) + b"\\x80" * (COUNT + 1)
    return [wire[at + 2 : at + 6].hex() for at in range(0, len(wire), 6)]

async def main():
    pairs = [socket.socketpair() for _ in range(3)]
    transports = [await connect(*pair) for pair in pairs]
    generation(transports)
    print(json.dumps([keys(theirs) for _, theirs in pairs]))
    for transport in transports:
        transport.disconnect(graceful=False)
        await transport.wait_disconnected()
    for _, theirs in pairs:
        theirs.close()

asyncio.run(main())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks")
def test_the_child_of_a_fork_has_keys_of_its_own() -> None:
    program = subprocess.run(
        [sys.executable, "-W", "error", "-c", FORKING_PROGRAM],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        timeout=50,
        check=True,
    )
    parent, child, grandchild = json.loads(program.stdout)
    assert len(parent) == len(child) == len(grandchild) == 201
    assert repeated(parent + child + grandchild) < 3


Send = Callable[[WSTransport, Peer], Any]


def cork(transport: WSTransport, peer: Peer) -> None:
    with transport.cork():
        transport.send(WSMsgType.TEXT, b"corked")
        transport.send_ping(b"corked")
        transport.send_reuse_external_bytearray(WSMsgType.BINARY, bytearray(20), 14)


# What to do twice with a connection, and the frames that each time arrive.
WAYS: dict[str, tuple[list[int], Send]] = {
    "send": ([TEXT], lambda transport, peer: transport.send(WSMsgType.TEXT, "text")),
    "empty": ([BINARY], lambda transport, peer: transport.send(WSMsgType.BINARY, None)),
    "64 KiB": ([BINARY], lambda transport, peer: transport.send(WSMsgType.BINARY, bytes(65_536))),
    "chunk by chunk": ([BINARY], lambda transport, peer: transport.send(WSMsgType.BINARY, bytes(2 * MIB + 1))),
    "queued": ([BINARY] * 6, lambda transport, peer: [transport.send(WSMsgType.BINARY, bytes(MIB)) for _ in range(6)]),
    "ping": ([PING], lambda transport, peer: transport.send_ping(b"ping")),
    "pong": ([PONG], lambda transport, peer: transport.send_pong(b"pong")),
    "auto pong": ([PONG], lambda transport, peer: peer.send(PING, b"ping")),
    "in place": (
        [BINARY],
        lambda transport, peer: transport.send_reuse_external_bytearray(WSMsgType.BINARY, bytearray(20), 14),
    ),
    "corked": ([TEXT, PING, BINARY], cork),
    "burst": ([PONG, PONG], lambda transport, peer: peer.write(peer.encode(PING) + peer.encode(PING))),
    "broadcast": ([BINARY], lambda transport, peer: ws_broadcast([transport], WSMsgType.BINARY, b"to all")),
    "compressed": ([TEXT], lambda transport, peer: transport.send(WSMsgType.TEXT, b"packed", compress=True)),
    "compressed broadcast": (
        [TEXT],
        lambda transport, peer: ws_broadcast([transport], WSMsgType.TEXT, b"packed", compress=True),
    ),
}


@over_tcp_and_tls
@pytest.mark.parametrize("way", WAYS)
def test_every_frame_has_a_key_of_its_own(net: Network, way: str) -> None:
    types, send = WAYS[way]
    compressed = way.startswith("compressed")

    async def test() -> None:
        options: dict[str, Any] = {"compression": WSDeflate()} if compressed else {}
        async with raw_servers(net, 1, DEFLATE if compressed else b"", **options) as ((peer,), (listener,)):
            for _ in range(2):
                send(listener.transport, peer)
                frames = [await peer.receive() for _ in types]
                assert [frame.msg_type for frame in frames] == types
                assert all(frame.rsv[0] is compressed for frame in frames)
            # The close frame as well.
            listener.transport.send_close(1000, "the last")
            assert (await peer.receive()).msg_type == CLOSE
            assert len(peer.keys) == 2 * len(types) + 1
            assert len(set(peer.keys)) == len(peer.keys)
            assert bytes(4) not in peer.keys

    net.run(test())
