"""A process of examples/benchmark.py: a library under test, or the fixed peer that all the libraries are tested against.

    python benchmark_peers.py ROLE LOOP [LIBRARY]

It obeys commands on standard input, a line of JSON each, and prints a line for each result, until its input ends.

The fixed peers know no more of WebSocket than the handshake. From then on they send frames that were built before and
count the bytes that come back, without a look at them: so they are quick, and the same for every library.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import importlib
import json
import logging
import math
import random
import re
import resource
import socket
import ssl
import struct
import sys
import time
import zlib
from collections.abc import Awaitable
from importlib import metadata
from pathlib import Path
from time import perf_counter
from typing import Any, Callable

from benchmark_coroutine_libraries import COROUTINES
from benchmark_libraries import HOST, LIBRARIES, Exchange, Run

CERTIFICATE = Path(__file__).with_name("localhost.pem")
AT_ONCE = 64  # connections that are being opened
HANDSHAKES_AT_ONCE = 8

Commands = dict[str, Callable[..., Awaitable[Any]]]


async def obey(commands: Commands) -> None:
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        name, *arguments = json.loads(line)
        print(json.dumps(await commands[name](*arguments)), flush=True)


BINARY, COMPRESSED_TEXT, PONG = 0x82, 0xC1, 0x8A  # with FIN, and RSV1 (RFC 7692)


def build_frame(payload: bytes, masked: bool, first: int = BINARY) -> bytes:
    size, mask_bit = len(payload), 0x80 if masked else 0
    if size < 126:
        head = struct.pack("!BB", first, mask_bit | size)
    elif size < 1 << 16:
        head = struct.pack("!BBH", first, mask_bit | 126, size)
    else:
        head = struct.pack("!BBQ", first, mask_bit | 127, size)
    if not masked:
        return head + payload
    mask = b"\x9d\x3c\x71\xa5"
    repeated = int.from_bytes((mask * (size // 4 + 1))[:size], "little")
    return head + mask + (int.from_bytes(payload, "little") ^ repeated).to_bytes(size, "little")


def frame_size(data: bytes | bytearray) -> int:
    """Of the frame without a mask that `data` begins with, as far as that is known; else more than there is."""
    if len(data) < 10:
        return 10
    small = data[1] & 127
    if small < 126:
        return 2 + small
    return 4 + int.from_bytes(data[2:4], "big") if small == 126 else 10 + int.from_bytes(data[2:10], "big")


def json_text(size: int) -> bytes:
    """Orders as an exchange may tell them, the same ones every time."""
    chosen = random.Random(size)
    orders: list[dict[str, object]] = []
    while len(text := json.dumps(orders).encode()) < size:
        orders.append(
            {
                "id": f"{chosen.getrandbits(64):016x}",
                "symbol": chosen.choice(("BTC-USDT", "ETH-USDT", "SOL-USDT")),
                "side": chosen.choice(("buy", "sell")),
                "price": f"{chosen.uniform(60000, 70000):.2f}",
                "quantity": f"{chosen.expovariate(5):.4f}",
                "time": 1_700_000_000_000 + chosen.randrange(10**9),
            }
        )
    return text[:size]


def deflated(text: bytes) -> bytes:
    """The payload of a message that is compressed by itself."""
    compressor = zlib.compressobj(6, zlib.DEFLATED, -12, 5)
    return (compressor.compress(text) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


def server_context(tls: bool) -> ssl.SSLContext | None:
    if not tls:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    return context


def client_context(tls: bool) -> ssl.SSLContext | None:
    return ssl.create_default_context(cafile=str(CERTIFICATE)) if tls else None


# The libraries


class Library:
    """The process of a library: its own processor time and memory are what the benchmark is about."""

    def __init__(self, name: str) -> None:
        self.serve_library, self.connect_library = {**LIBRARIES, **COROUTINES}[name]

    def commands(self) -> Commands:
        return {"versions": self.versions, "serve": self.serve, "connect": self.connect, "run": self.run, "usage": self.usage}

    async def versions(self, *packages: str) -> dict[str, str]:
        """Of the interpreter and of each package."""
        return {"python": sys.version.split()[0], **{package: version_of(package) for package in packages}}

    async def serve(self, tls: bool, mode: str) -> int | None:
        """The port; None if the library cannot do that."""
        sock = socket.create_server((HOST, 0), backlog=2 * AT_ONCE)
        sock.setblocking(False)
        port: int = sock.getsockname()[1]
        self.server = await self.serve_library(sock, server_context(tls), mode)
        return None if self.server is None else port

    async def connect(self, port: int, tls: bool, out: int, size: int, back: int, reply: int, in_flight: int) -> None:
        exchange = Exchange(out, size, back, in_flight)
        url = f"{'wss' if tls else 'ws'}://{HOST}:{port}{Answering.path_for(exchange, reply)}"
        self.exchange: Run = await self.connect_library(url, client_context(tls), exchange)

    async def run(self, seconds: float) -> dict[str, float]:
        start, cpu = perf_counter(), time.process_time()
        exchanges = await self.exchange(seconds)
        return {"count": exchanges, "seconds": perf_counter() - start, "cpu": time.process_time() - cpu}

    async def usage(self) -> dict[str, float]:
        return {"cpu": time.process_time(), "kib": resident_kib()}


def version_of(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # it may lie in a checkout
        pass
    try:
        return str(importlib.import_module(package).__version__)
    except ModuleNotFoundError:
        return "not installed"


def resident_kib() -> float:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except FileNotFoundError:  # not Linux; this never goes down again, which does no harm here
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / 1024 if sys.platform == "darwin" else peak
    return pages * resource.getpagesize() / 1024


# The fixed client


class Opening(asyncio.Protocol):
    """Asks for the upgrade."""

    REQUEST = (
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    )
    # Each message by itself: then every answer to the same message is as long as the first one.
    EXTENSIONS = (
        b"Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover; "
        b"client_max_window_bits\r\n"
    )

    def __init__(self, compression: bool = False) -> None:
        self.compression = compression
        self.head = b""
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        transport.write(self.REQUEST + self.EXTENSIONS * self.compression + b"\r\n")

    def data_received(self, data: bytes) -> None:
        self.head += data
        if not self.head.endswith(b"\r\n\r\n") or self.opened.done():
            return
        if self.compression and b"permessage-deflate" not in self.head:
            self.opened.set_exception(ConnectionError(f"no compression: {self.head!r}"))
        elif self.head.startswith(b"HTTP/1.1 101 "):
            self.opened.set_result(None)
        else:
            self.opened.set_exception(ConnectionError(f"no upgrade: {self.head[:40]!r}"))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.opened.done():
            self.opened.set_exception(ConnectionError("connection closed in the handshake"))


class Counting(asyncio.BufferedProtocol):
    """Counts what comes back for a batch of frames, then sends the batch again.

    Each connection of an echo has its own. One serves all the subscribers of a broadcast, of whom one sends.
    """

    space = memoryview(bytearray(1 << 20))  # for everybody: nobody looks at what is in it

    def __init__(self, load: Load, transport: asyncio.Transport, batch: bytes, expected: int) -> None:
        self.load, self.transport, self.batch, self.expected = load, transport, batch, expected
        self.batches = 0

    def send(self) -> None:
        self.due = self.expected
        self.transport.write(self.batch)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.space

    def buffer_updated(self, nbytes: int) -> None:
        self.due -= nbytes
        if self.due > 0:
            return
        if self.due < 0:
            self.load.fail(f"{-self.due} bytes more than expected")
        self.batches += 1
        if perf_counter() < self.load.end:
            self.send()
        else:
            self.load.one_finished()

    def connection_lost(self, exc: Exception | None) -> None:
        self.load.fail("the server closed a connection")


class FirstFrame(asyncio.Protocol):
    """Tells how long the answer to a message is."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.size: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.data += data
        if len(self.data) >= frame_size(self.data) and not self.size.done():
            self.size.set_result(len(self.data))


class Ponging(asyncio.Protocol):
    """Answers pings, and counts them."""

    pings = 0

    def __init__(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self.data = bytearray()

    def data_received(self, data: bytes) -> None:
        self.data += data
        while len(self.data) >= 2 and len(self.data) >= 2 + (self.data[1] & 127):
            size = 2 + (self.data[1] & 127)
            self.transport.write(build_frame(bytes(self.data[2:size]), masked=True, first=PONG))
            del self.data[:size]
            Ponging.pings += 1


class Load:
    """Makes work for a server."""

    def __init__(self) -> None:
        self.transports: list[asyncio.Transport] = []
        self.counting: list[Counting] = []
        self.finished: asyncio.Future[None] | None = None

    def commands(self) -> Commands:
        return {
            "open": self.open,
            "echo": self.echo,
            "echo json": self.echo_json,
            "answer pings": self.answer_pings,
            "pings": self.pings,
            "broadcast": self.broadcast,
            "run": self.run,
            "handshakes": self.handshakes,
        }

    async def open(self, port: int, tls: bool, count: int, compression: bool = False) -> None:
        context, places = client_context(tls), asyncio.Semaphore(AT_ONCE)

        async def open_one() -> None:
            async with places:
                self.transports.append(await self.dial(port, context, compression))

        await asyncio.gather(*(open_one() for _ in range(count)))

    async def dial(self, port: int, context: ssl.SSLContext | None, compression: bool = False) -> asyncio.Transport:
        loop = asyncio.get_running_loop()
        transport, opening = await loop.create_connection(lambda: Opening(compression), HOST, port, ssl=context)
        await opening.opened
        return transport

    async def echo(self, depth: int, size: int) -> None:
        """Each connection keeps so many messages in flight."""
        payload = bytes(size)
        batch, expected = build_frame(payload, masked=True) * depth, len(build_frame(payload, masked=False)) * depth
        for transport in self.transports:
            self.counting.append(Counting(self, transport, batch, expected))
            transport.set_protocol(self.counting[-1])

    async def echo_json(self, depth: int, size: int) -> None:
        """The same with compressed messages, whose answers are as long as the library makes them."""
        message = build_frame(deflated(json_text(size)), masked=True, first=COMPRESSED_TEXT)
        for transport in self.transports:
            first = FirstFrame()
            transport.set_protocol(first)
            transport.write(message)
            expected = await first.size * depth
            self.counting.append(Counting(self, transport, message * depth, expected))
            transport.set_protocol(self.counting[-1])

    async def answer_pings(self) -> None:
        for transport in self.transports:
            transport.set_protocol(Ponging(transport))

    async def pings(self) -> int:
        """How many came until now."""
        return Ponging.pings

    async def broadcast(self, size: int) -> None:
        """One sends, all hear it."""
        expected = len(build_frame(bytes(size), masked=False)) * len(self.transports)
        self.counting = [Counting(self, self.transports[0], build_frame(bytes(size), masked=True), expected)]
        for transport in self.transports:
            transport.set_protocol(self.counting[0])

    async def run(self, seconds: float) -> dict[str, float]:
        """How many batches came back in how much time. The last ones are waited for."""
        before = sum(each.batches for each in self.counting)
        self.unfinished = len(self.counting)
        self.finished = asyncio.get_running_loop().create_future()
        start = perf_counter()
        self.end = start + seconds
        for each in self.counting:
            each.send()
        await self.finished
        return {"count": sum(each.batches for each in self.counting) - before, "seconds": perf_counter() - start}

    def one_finished(self) -> None:
        self.unfinished -= 1
        if not self.unfinished and self.finished is not None and not self.finished.done():
            self.finished.set_result(None)

    def fail(self, reason: str) -> None:
        if self.finished is not None and not self.finished.done():
            self.finished.set_exception(ConnectionError(reason))

    async def handshakes(self, port: int, tls: bool, seconds: float) -> dict[str, float]:
        """Connections opened, upgraded and cut off."""
        start, count, context = perf_counter(), 0, client_context(tls)

        async def repeat() -> None:
            nonlocal count
            while count == 0 or perf_counter() < start + seconds:
                transport = await self.dial(port, context)
                # By a reset: thousands of ports would have to wait otherwise.
                sock = transport.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                transport.abort()
                count += 1

        await asyncio.gather(*(repeat() for _ in range(HANDSHAKES_AT_ONCE)))
        took = perf_counter() - start
        await asyncio.sleep(0.02)  # so that the server notices the last end, too
        return {"count": count, "seconds": took}


# The fixed server


class Accepting(asyncio.Protocol):
    """Answers the request for the upgrade."""

    def __init__(self) -> None:
        self.head = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.head += data
        if not self.head.endswith(b"\r\n\r\n"):
            return
        (key,) = re.findall(rb"(?i)\r\nsec-websocket-key: *([^\r]+)", self.head)
        accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        self.transport.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        path = self.head.split(b" ", 2)[1]
        self.transport.set_protocol(Answering(self.transport, *map(int, path[1:].split(b"/"))))


class Answering(asyncio.BufferedProtocol):
    """Sends so many frames of so many bytes whenever it has received so many bytes."""

    def __init__(self, transport: asyncio.Transport, after: int, frames: int, size: int) -> None:
        self.transport, self.after = transport, after
        self.batch = build_frame(bytes(size), masked=False) * frames
        self.received = 0

    @staticmethod
    def path_for(exchange: Exchange, reply: int) -> str:
        """What a client has to ask for to get its replies, of so many bytes each."""
        common = math.gcd(exchange.out, exchange.back)
        after = exchange.out // common * len(build_frame(bytes(exchange.size), masked=True))
        return f"/{after}/{exchange.back // common}/{reply}"

    def get_buffer(self, sizehint: int) -> memoryview:
        return Counting.space

    def buffer_updated(self, nbytes: int) -> None:
        answers, self.received = divmod(self.received + nbytes, self.after)
        if answers:
            self.transport.write(self.batch * answers)


async def listen(tls: bool) -> int:
    server = await asyncio.get_running_loop().create_server(Accepting, HOST, 0, ssl=server_context(tls))
    port: int = server.sockets[0].getsockname()[1]
    KEPT.append(server)
    return port


KEPT: list[Any] = []  # what would close if nobody held it


async def main(role: str, library: str | None = None) -> None:
    logging.disable()  # connections that are cut off are no news here
    commands: dict[str, Callable[[], Commands]] = {
        "library": lambda: Library(str(library)).commands(),
        "load": lambda: Load().commands(),
        "server": lambda: {"listen": listen},
    }
    await obey(commands[role]())


def new_loop(name: str) -> asyncio.AbstractEventLoop:
    if name == "asyncio":
        return asyncio.new_event_loop()
    import uvloop

    return uvloop.new_event_loop()


if __name__ == "__main__":
    role, loop_name, *rest = sys.argv[1:]
    event_loop = new_loop(loop_name)
    asyncio.set_event_loop(event_loop)
    event_loop.run_until_complete(main(role, *rest))
