"""Peers that speak the wire format themselves, rightly or wrongly, over asyncio's own streams."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import os
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from tests.connection.networks import Network, Received, Recorder, cut
from tests.connection.proxies import client_tls, server_tls

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
CONTINUATION = 0

REQUEST = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def encode(
    opcode: int, payload: bytes = b"", *, mask: bool, fin: bool = True, rsv: int = 0, length: int | None = None
) -> bytes:
    """A frame; `length` states another length than the payload has."""
    size = len(payload) if length is None else length
    head = bytes([fin << 7 | rsv << 4 | opcode])
    if size <= 125:
        head += bytes([mask << 7 | size])
    elif size <= 65535:
        head += struct.pack("!BH", mask << 7 | 126, size)
    else:
        head += struct.pack("!BQ", mask << 7 | 127, size)
    if not mask:
        return head + payload
    key = os.urandom(4)
    return head + key + apply_mask(payload, key)


def apply_mask(payload: bytes, key: bytes) -> bytes:
    if not payload:
        return b""
    keys = (key * (len(payload) // 4 + 1))[: len(payload)]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(keys, "big")).to_bytes(len(payload), "big")


def close_payload(code: int, reason: bytes = b"") -> bytes:
    return struct.pack("!H", code) + reason


def close_code(frame: Received) -> int:
    assert frame.msg_type == CLOSE
    return int(struct.unpack("!H", frame.payload[:2])[0])


class Peer:
    """One end of a connection; `masks` says which: a client masks."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, masks: bool) -> None:
        self.reader, self.writer, self.masks = reader, writer, masks
        self.keys: list[bytes] = []  # of the masked frames that were received

    def write(self, data: bytes) -> None:
        self.writer.write(data)

    def encode(self, opcode: int, payload: bytes = b"", **kwargs: Any) -> bytes:
        kwargs.setdefault("mask", self.masks)
        return encode(opcode, payload, **kwargs)

    def send(self, opcode: int, payload: bytes = b"", **kwargs: Any) -> None:
        self.write(self.encode(opcode, payload, **kwargs))

    async def receive(self) -> Received:
        """The next frame; it has to be masked if and only if it comes from a client."""
        first, second = await self.reader.readexactly(2)
        size = second & 127
        if size == 126:
            (size,) = struct.unpack("!H", await self.reader.readexactly(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", await self.reader.readexactly(8))
        assert bool(second & 128) is not self.masks
        key = b"" if self.masks else await self.reader.readexactly(4)
        payload = await self.reader.readexactly(size)
        if key:
            self.keys.append(key)
        rsv = (bool(first & 64), bool(first & 32), bool(first & 16))
        return Received(first & 15, apply_mask(payload, key) if key else payload, bool(first & 128), rsv)

    async def receive_all(self) -> list[Received]:
        """All frames to the end of the stream, which has to lie between two frames, and to be no reset."""
        frames = []
        try:
            while True:
                frames.append(await self.receive())
        except asyncio.IncompleteReadError as error:
            assert error.partial == b""
        return frames

    async def lost(self) -> None:
        """Wait until the other side is gone, in whatever way."""
        with contextlib.suppress(ConnectionError, OSError):
            while await self.reader.read(65536):
                pass

    async def close(self) -> None:
        self.writer.close()
        # The other side may have reset the connection, or sent what nobody read.
        with contextlib.suppress(ConnectionError, OSError):
            try:
                await asyncio.wait_for(self.writer.wait_closed(), 2)
            except asyncio.TimeoutError:  # TLS where what was written is never taken; up to Python 3.10 it waits for ever
                self.writer.transport.abort()


class Wire:
    """The peer's end of a plain connection, looked at from inside a callback: on loopback what was written is there."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock

    def arrived(self) -> bytes:
        """What has arrived since the last look."""
        try:
            return self.socket.recv(1 << 20)
        except BlockingIOError:
            return b""


@contextlib.contextmanager
def looked_at(peer: Peer) -> Iterator[Wire]:
    """Keeps asyncio from reading what arrives at the peer meanwhile."""
    transport: Any = peer.writer.transport
    transport.pause_reading()
    with socket.socket(fileno=socket.dup(peer.writer.get_extra_info("socket").fileno())) as sock:
        sock.setblocking(False)
        yield Wire(sock)
    transport.resume_reading()


def frame(payload: bytes, msg_type: int = TEXT) -> bytes:
    """As a server sends it."""
    return encode(msg_type, payload, mask=False)


def take_at_once(peer: Peer) -> bytes:
    """What has come to the kernel of a client, without a turn of the event loop."""
    taken = b""
    with socket.socket(fileno=os.dup(peer.writer.get_extra_info("socket").fileno())) as sock:
        sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                taken += sock.recv(1 << 20)
    return taken


@contextlib.asynccontextmanager
async def stream(net: Network, url: str) -> AsyncIterator[Peer]:
    """A client that has sent nothing yet."""
    port = int(url.split(":")[2].strip("/"))
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client_tls() if net.tls else None)
    peer = Peer(reader, writer, masks=True)
    try:
        yield peer
    finally:
        await peer.close()


@contextlib.asynccontextmanager
async def raw_client(net: Network, server: Callable[[], Any], **options: Any) -> AsyncIterator[tuple[Peer, Any]]:
    """A raw client, connected to a picows server with the given listener."""
    listeners: list[Any] = []

    def factory(request: object) -> Any:
        listeners.append(server())
        return listeners[0]

    async with net.serve(factory, **options) as url, stream(net, url) as peer:
        peer.write(REQUEST)
        await peer.reader.readuntil(b"\r\n\r\n")
        try:
            yield peer, listeners[0]
        finally:
            await cut(listeners[0])


@contextlib.asynccontextmanager
async def raw_server(net: Network, client: Callable[[], Any], **options: Any) -> AsyncIterator[tuple[Peer, Any]]:
    """A raw server, with a picows client that has the given listener."""
    peers: list[Peer] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        writer.write(upgrade_response(request))
        peers.append(Peer(reader, writer, masks=False))

    async with serve_streams(net, handle) as url:
        listener = await net.connect(client, url, **options)
        try:
            yield peers[0], listener
        finally:
            await cut(listener)
            await peers[0].close()


@contextlib.asynccontextmanager
async def raw_servers(
    net: Network, count: int, extensions: bytes = b"", **options: Any
) -> AsyncIterator[tuple[list[Peer], list[Any]]]:
    """Raw peers, and the picows clients that are connected to them, in the same order."""
    peers: list[Peer] = []
    listeners: list[Any] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        writer.write(upgrade_response(request)[:-2] + extensions + b"\r\n")
        peers.append(Peer(reader, writer, masks=False))

    async with serve_streams(net, handle) as url:
        try:
            for _ in range(count):
                listeners.append(await net.connect(Recorder, url, **options))
            yield peers, listeners
        finally:
            await cut(*listeners)
            for peer in peers:
                await peer.close()


@contextlib.asynccontextmanager
async def serve_streams(net: Network, handle: Callable[..., Any]) -> AsyncIterator[str]:
    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=server_tls() if net.tls else None)
    try:
        yield f"{'wss' if net.tls else 'ws'}://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        server.close()


def upgrade_response(request: bytes) -> bytes:
    (key,) = [line.split(b": ")[1] for line in request.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key")]
    accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )


# Which side of the connection picows is on; the peer is raw.
ROLES = {"server": raw_client, "client": raw_server}
