"""The raw peer of the live fuzzer: a stream that may be damaged, a way of reading, a way of ending."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import random
import re
import socket
import zlib
from typing import Any

from live_socket import PeerThread, Wire
from live_wire import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Assembler,
    Damaged,
    FrameReader,
    Key,
    encode,
    keys_in,
    make_chunk,
)

_REQUEST = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


class Peer:
    """One raw peer: what it does is drawn when it is made, what it saw is kept for the check.

    :param is_client: whether picows is the server
    :param calm: whether it does nothing but what a good peer does
    """

    def __init__(self, chance: random.Random, origin: int, *, is_client: bool, thread: PeerThread, tls: bool, calm: bool) -> None:
        self._chance, self._origin, self._is_client = chance, origin, is_client
        self._context = thread.tls[is_client] if tls else None
        self._numbers = 0
        self.sent: list[Key] = []  # messages with data, if nothing was damaged
        self.keys: list[Key] = []  # of the data that came
        self.control_keys: list[Key] = []
        self.problems: list[str] = []
        self.close_code: int | None = None
        self.upgraded = False
        self.read_to_the_end = False
        self.read_error: BaseException | None = None
        self.sent_everything = False
        self._end_of_stream = asyncio.Event()
        self._released = asyncio.Event()
        self._thread = thread
        self._offers_deflate = is_client and chance.random() < 0.4
        self._accepts_deflate = chance.random() < 0.8
        self.damages = not calm and chance.random() < 0.3
        self.reading = "eager" if calm else chance.choices(
            ["eager", "late", "slow", "stops", "never"], [40, 25, 16, 18, 0.7])[0]
        self.ending = chance.choices(
            ["wait", "close", "half close", "reset", "vanish", "deaf"],
            [45, 35, 0, 0, 0, 0] if calm else [30, 35, 10, 12, 6, 0.3])[0]
        self.polite = calm or chance.random() < 0.85
        self.head_first = chance.random() < 0.8  # or frames along with the handshake
        self.small_buffer = chance.choice([0, 0, 0, 16384, 65536]) if not calm else 0
        self._deflater: Any = None
        self._reader = FrameReader(masked=not is_client)
        self._assembler = Assembler()
        self._replies: list[bytes] = []

    @property
    def reads_to_the_end(self) -> bool:
        return self.reading != "never" and self.ending in ("wait", "close")

    def __str__(self) -> str:
        traits = [*["damaging"] * self.damages, *["impolite"] * (not self.polite), *["buffer"] * (self.small_buffer > 0)]
        return f"raw {'client' if self._is_client else 'server'} reads {self.reading}, ends by {self.ending} {' '.join(traits)}"

    def release(self) -> None:
        """picows has ended the connection, so the peer may go."""
        self._thread.call(self._released.set)

    # The handshake

    async def connect(self, port: int) -> None:
        sock = socket.socket()
        self._shrink(sock)
        sock.setblocking(False)
        with sock:
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
            await self._bounded(sock)

    async def accept(self, listening: socket.socket) -> None:
        with listening:
            listening.setblocking(False)
            try:
                sock, _ = await asyncio.wait_for(asyncio.get_running_loop().sock_accept(listening), 60)
            except asyncio.TimeoutError:
                return
        with sock:
            await self._bounded(sock)

    def _shrink(self, sock: socket.socket) -> None:
        if self.small_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.small_buffer)

    def listen(self) -> socket.socket:
        sock = socket.socket()
        self._shrink(sock)
        sock.bind(("127.0.0.1", 0))
        sock.listen(1)
        return sock

    async def _bounded(self, sock: socket.socket) -> None:
        wire = Wire(sock, self._context, self._is_client)
        try:
            await asyncio.wait_for(self._talk(wire), 60)
        except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError) as error:
            self.read_error = self.read_error or error
        except Damaged as error:
            self.problems.append(str(error))

    async def _talk(self, wire: Wire) -> None:
        await wire.start()
        rest = await (self._upgrade_as_client(wire) if self._is_client else self._upgrade_as_server(wire))
        if not self.upgraded:
            while await wire.receive(65536):
                pass
            return
        self._take(rest)
        writing = asyncio.ensure_future(self._write(wire))
        reading = asyncio.ensure_future(self._read(wire))
        try:
            await self._end(wire, writing, reading)
        finally:
            for task in (writing, reading):
                task.cancel()
            for outcome in await asyncio.gather(writing, reading, return_exceptions=True):
                if isinstance(outcome, Damaged):
                    self.problems.append(str(outcome))
                elif isinstance(outcome, Exception) and not isinstance(outcome, OSError):
                    self.problems.append(f"the peer itself failed: {outcome!r}")

    async def _upgrade_as_client(self, wire: Wire) -> bytes:
        extension = b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n" * self._offers_deflate
        early = b"" if self.head_first else self._frames(self._chance.randrange(4))
        await wire.send(_REQUEST + extension + b"\r\n" + early)
        head, rest = await self._head(wire)
        self.upgraded = b" 101 " in head
        self._agree(head)
        return rest

    async def _upgrade_as_server(self, wire: Wire) -> bytes:
        head, rest = await self._head(wire)
        key = re.search(rb"(?i)sec-websocket-key: *(\S+)", head)
        assert key is not None, head
        accept = base64.b64encode(hashlib.sha1(key[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        answer += b"Sec-WebSocket-Accept: " + accept + b"\r\n"
        if b"permessage-deflate" in head and self._accepts_deflate:
            answer += b"Sec-WebSocket-Extensions: permessage-deflate"
            for name in (b"server_no_context_takeover", b"client_no_context_takeover"):
                if name in head or self._chance.random() < 0.2:
                    answer += b"; " + name
            if bits := re.search(rb"server_max_window_bits=\d+", head):
                answer += b"; " + bits[0]
            if bits := re.search(rb"client_max_window_bits(=\d+)?", head):
                answer += b"; " + (bits[0] if bits[1] else b"client_max_window_bits=%d" % self._chance.randrange(9, 16))
            answer += b"\r\n"
            self._agree(answer)
        answer += b"\r\n"
        self.upgraded = True
        await wire.send(answer if self.head_first else answer + self._frames(self._chance.randrange(4)))
        return rest

    async def _head(self, wire: Wire) -> tuple[bytes, bytes]:
        data = b""
        while b"\r\n\r\n" not in data:
            more = await wire.receive(65536)
            if not more:
                raise ConnectionError("the stream ended within the handshake")
            data += more
        head, _, rest = data.partition(b"\r\n\r\n")
        return head, rest

    def _agree(self, answer: bytes) -> None:
        """What the answer of the server says of compression."""
        if b"permessage-deflate" not in answer:
            return
        ours, theirs = (b"client", b"server") if self._is_client else (b"server", b"client")
        bits = re.search(ours + rb"_max_window_bits=(\d+)", answer)
        self._assembler = Assembler(theirs + b"_no_context_takeover" in answer)
        if bits is None or int(bits[1]) > 8:  # zlib has no window of 8 bits
            self._deflater_bits = -int(bits[1]) if bits else -15
            self._deflater_forgets = ours + b"_no_context_takeover" in answer
            self._deflater = zlib.compressobj(1, zlib.DEFLATED, self._deflater_bits)

    # Writing

    def _frame(self, opcode: int, payload: bytes, *, fin: bool = True, rsv1: bool = False) -> bytes:
        mask = self._chance.randbytes(4) if self._is_client else None
        return encode(opcode, payload, mask=mask, fin=fin, rsv1=rsv1)

    def _chunk(self, size: int) -> bytes:
        self._numbers += 1
        self._key = Key(self._origin, self._numbers)
        return make_chunk(self._key, size, self._chance)

    def _frames(self, count: int) -> bytes:
        """That many messages, some of them in fragments with control frames in between."""
        out = []
        chance = self._chance
        for _ in range(count):
            if chance.random() < 0.2:
                out.append(self._control())
            size = chance.choices([0, 60, 1000, 20_000, 150_000, 1_500_000], [10, 60, 40, 14, 4, 0.3])[0]
            payload = self._chunk(chance.randrange(size + 1))
            self.sent.append(self._key)
            deflated = self._deflater is not None and chance.random() < 0.7
            if deflated:
                payload = (self._deflater.compress(payload) + self._deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]
                if self._deflater_forgets:
                    self._deflater = zlib.compressobj(1, zlib.DEFLATED, self._deflater_bits)
            cuts = sorted(chance.randrange(len(payload) + 1) for _ in range(chance.choice([0, 0, 0, 1, 2, 5])))
            pieces = [payload[a:b] for a, b in zip([0, *cuts], [*cuts, len(payload)])]
            opcode = chance.choice([TEXT, BINARY])
            for i, piece in enumerate(pieces):
                out.append(self._frame(opcode if i == 0 else CONTINUATION, piece, fin=i == len(cuts), rsv1=deflated and i == 0))
                if i < len(cuts) and chance.random() < 0.2:
                    out.append(self._control())
        return b"".join(out)

    def _control(self) -> bytes:
        return self._frame(self._chance.choice([PING, PING, PONG]), self._chunk(self._chance.randrange(90)))

    def _damage(self, stream: bytes) -> bytes:
        chance, data = self._chance, bytearray(stream)
        for _ in range(chance.choice([1, 1, 2, 4])):
            at = chance.randrange(len(data) + 1)
            kind = chance.randrange(4)
            if kind == 0 and at < len(data):
                data[at] ^= 1 << chance.randrange(8)
            elif kind == 1:
                del data[at : at + chance.choice([1, 1, 2, 10, 1000])]
            elif kind == 2:
                data[at:at] = chance.randbytes(chance.choice([1, 1, 2, 14]))
            else:
                data[at:at] = data[: chance.randrange(200)]
        return bytes(data)

    async def _write(self, wire: Wire) -> None:
        chance = self._chance
        try:
            stream = self._frames(chance.choice([0, 1, 3, 10, 30, 60]))
            if self.damages:
                stream = self._damage(stream)
            if self._chance.random() < 0.4:
                pieces, pause = [stream], 0.0
            else:
                cuts = sorted(chance.randrange(len(stream) + 1) for _ in range(chance.choice([1, 3, 10])))
                pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)])]
                pause = chance.choice([0.0, 0.002, 0.01])
            for piece in pieces:
                await wire.send(piece)
                await asyncio.sleep(pause)
            self.sent_everything = True
        finally:
            self._end_of_stream.set()
        while self.polite:
            if self._replies:
                await wire.send(self._replies.pop(0))
            else:
                await asyncio.sleep(0.01)

    # Reading

    async def _read(self, wire: Wire) -> None:
        chance = self._chance
        steps = 0
        if self.reading == "late":
            await asyncio.sleep(chance.choice([0.01, 0.05, 0.3]))
        elif self.reading == "slow":
            steps = chance.choice([10, 40])
        elif self.reading == "stops":
            steps = 4
        elif self.reading == "never":
            await asyncio.sleep(1000)
        try:
            while True:
                data = await wire.receive(chance.choice([100, 4000, 20000]) if steps else 262144)
                if not data:
                    break
                self._take(data)
                if steps:
                    steps -= 1
                    await asyncio.sleep(0.004 if self.reading == "slow" else 0.06)
            self.read_to_the_end = True
        except OSError as error:
            self.read_error = error
            self.read_to_the_end = False

    def _take(self, data: bytes) -> None:
        for frame in self._reader.feed(data):
            message = self._assembler.feed(*frame)
            if message is None:
                continue
            opcode, payload = message
            if opcode == CLOSE:
                self.close_code = int.from_bytes(payload[:2], "big") if payload else 1005
            elif opcode & 8:
                if opcode == PING:
                    self._replies.append(self._frame(PONG, payload))
                if opcode == PING or not self.damages:  # a PONG gives back what it was sent
                    self.control_keys += [key for key in keys_in(payload) if key.origin != self._origin]
            else:
                self.keys += keys_in(payload)

    # Ending

    async def _end(self, wire: Wire, writing: asyncio.Future[None], reading: asyncio.Future[None]) -> None:
        stream = asyncio.ensure_future(self._end_of_stream.wait())
        if self.ending in ("reset", "vanish", "deaf") and self._chance.random() < 0.5:
            await asyncio.sleep(self._chance.choice([0.0, 0.005, 0.05]))
        else:
            await self._first_of(stream, reading)
        stream.cancel()
        if self.ending == "vanish":
            return
        if self.ending == "reset":
            wire.reset()
            return
        if self.ending == "close":
            await asyncio.sleep(self._chance.choice([0.0, 0.02, 0.1]))
            if self.sent_everything and not reading.done():
                self._replies.append(self._close_frame())
                if not self.polite:
                    with contextlib.suppress(OSError):
                        await wire.send(self._close_frame())
        elif self.ending in ("half close", "deaf"):
            with contextlib.suppress(OSError):
                await wire.half_close()
            if self.ending == "deaf":
                reading.cancel()
                await self._released.wait()
        if self.polite:
            await self._answer_close(reading)
        await self._first_of(reading)

    async def _first_of(self, *tasks: asyncio.Future[Any]) -> None:
        released = asyncio.ensure_future(self._released.wait())
        await asyncio.wait({released, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        if released.done() and not tasks[-1].done():
            # What came before the end of picows may still be there to read.
            await asyncio.wait({tasks[-1]}, timeout=5)
        released.cancel()

    def _close_frame(self) -> bytes:
        payload = self._chance.choice([b"", b"\x03\xe8", b"\x0b\xb8bye"])
        return self._frame(CLOSE, payload)

    async def _answer_close(self, reading: asyncio.Future[None]) -> None:
        while self.close_code is None and not reading.done() and not self._released.is_set():
            await asyncio.sleep(0.02)
        if self.close_code is None or reading.done():
            return
        if self.ending != "close":
            self._replies.append(self._close_frame())
            await asyncio.sleep(0.03)
        if not self._is_client:
            # Both sides have said CLOSE, and nothing may come behind it: the server ends TCP.
            self.read_to_the_end = True
            reading.cancel()
