"""WSFrame: what it says of itself, its memory, and how long both last."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import random
import socket
import threading
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from picows import WSFrame, WSMsgType, WSTransport
from tests.connection.networks import Network, Received, Recorder, over_both_loops, over_every_network
from tests.connection.peers import BINARY, PING, REQUEST, ROLES, TEXT, encode, raw_client, raw_server

over_roles = pytest.mark.parametrize("role", ROLES)


def view_of(frame: WSFrame) -> memoryview:
    # Type checkers know that a frame is a buffer from Python 3.12 on.
    return memoryview(frame)  # type: ignore[arg-type]


class Keeper(Recorder):
    """Keeps what ``keep(frame)`` returns for each frame."""

    def __init__(self, keep: Callable[[WSFrame], Any]) -> None:
        super().__init__()
        self.keep = keep
        self.kept: list[Any] = []

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        self.kept.append(self.keep(frame))
        super().on_ws_frame(transport, frame)


def looked_at(net: Network, look: Callable[[WSFrame], Any], wire: Callable[..., bytes], **options: Any) -> list[Any]:
    """What `look` says of each frame that was received by a server and by a client; they have to agree."""
    seen = []

    async def test() -> None:
        for role in ROLES.values():
            async with role(net, lambda: Keeper(look), **options) as (peer, listener):
                peer.write(wire(peer.encode))
                peer.send(BINARY, b"end")
                while await listener.payload() != b"end":
                    pass
                seen.append(listener.kept[:-1])

    net.run(test())
    assert seen[0] == seen[1]
    return seen[0]


def test_what_a_frame_says_of_itself(net: Network) -> None:
    def fields(frame: WSFrame) -> Any:
        assert isinstance(frame.msg_type, WSMsgType)
        return frame.msg_type, bool(frame.fin), bool(frame.rsv1), bool(frame.rsv2), bool(frame.rsv3), frame.payload_size

    def wire(encode: Callable[..., bytes]) -> bytes:
        return encode(TEXT, b"hello") + encode(0, b"", fin=False, rsv=4) + encode(PING, b"x", rsv=3)

    assert looked_at(net, fields, wire, enable_auto_pong=False) == [
        (WSMsgType.TEXT, True, False, False, False, 5),
        (WSMsgType.CONTINUATION, False, True, False, False, 0),
        (WSMsgType.PING, True, False, True, True, 1),
    ]


def test_the_string_of_a_frame(net: Network) -> None:
    async def test() -> None:
        async with raw_client(net, lambda: Keeper(str)) as (peer, listener):
            peer.write(peer.encode(TEXT, b"hello") + peer.encode(BINARY, b"", fin=False, rsv=5)[:3])
            await listener.payload()
            peer.write(peer.encode(BINARY, b"", fin=False, rsv=5)[3:])
            await listener.payload()
            assert listener.kept == [
                "WSFrame(TEXT, fin=True, rsv1=False, rsv2=False, rsv3=False, "
                "last_in_buffer=True, payload_sz=5, tail_sz=3)",
                "WSFrame(BINARY, fin=False, rsv1=True, rsv2=False, rsv3=True, "
                "last_in_buffer=True, payload_sz=0, tail_sz=0)",
            ]
            peer.write(peer.encode(TEXT, b"one") + peer.encode(TEXT, b"two"))
            await listener.take(2)
            head = 6  # of a masked frame
            assert [string.partition("rsv3=False, ")[2] for string in listener.kept[2:]] == [
                f"last_in_buffer=False, payload_sz=3, tail_sz={head + 3})",
                "last_in_buffer=True, payload_sz=3, tail_sz=0)",
            ]

    net.run(test())


@pytest.mark.parametrize("payload", [b"", b"ascii", "grüße \U0001f30d".encode(), b"\xff\x00"], ids=repr)
def test_the_payload_as_text(net: Network, payload: bytes) -> None:
    def texts(frame: WSFrame) -> Any:
        return [
            attempt(method)
            for method in (frame.get_payload_as_bytes, frame.get_payload_as_utf8_text, frame.get_payload_as_ascii_text)
        ]

    def attempt(method: Callable[[], Any]) -> Any:
        try:
            return method()
        except UnicodeDecodeError:
            return UnicodeDecodeError

    def expected(encoding: str) -> Any:
        return attempt(lambda: payload.decode(encoding))

    (seen,) = looked_at(net, texts, lambda encode: encode(TEXT, payload))
    assert seen == [payload, expected("utf-8"), expected("ascii")]


def test_a_frame_is_a_buffer(net: Network) -> None:
    def buffers(frame: WSFrame) -> Any:
        for view in (view_of(frame), frame.get_payload_as_memoryview()):
            assert (view.readonly, view.format, view.ndim, view.itemsize) == (True, "B", 1, 1)
            assert view.c_contiguous
            assert view.nbytes == frame.payload_size
            with pytest.raises(TypeError):
                view[:1] = b"x"
        # Who asks for memory to write to gets none.
        with pytest.raises((TypeError, BufferError)):
            io.BytesIO(b"xx").readinto(frame)  # type: ignore[arg-type]
        assert view == view_of(frame)
        copied = bytearray()
        copied += frame  # type: ignore[arg-type]
        return bytes(frame), bytes(copied), b"".join([frame]), int.from_bytes(frame, "big")  # type: ignore

    (seen,) = looked_at(net, buffers, lambda encode: encode(BINARY, b"\x01\x02"))
    assert seen == (b"\x01\x02", b"\x01\x02", b"\x01\x02", 0x102)
    (empty,) = looked_at(net, buffers, lambda encode: encode(BINARY))
    assert empty == (b"", b"", b"", 0)


@over_both_loops
@over_roles
def test_views_of_some_large_frames(net: Network, role: str) -> None:
    """The block of one that nobody looked at is used again, until somebody does."""
    size = 300_000

    def keep(frame: WSFrame) -> Any:
        payload = frame.get_payload_as_bytes()
        return view_of(frame) if payload[0] % 3 == 2 else payload

    async def test() -> None:
        async with ROLES[role](net, lambda: Keeper(keep)) as (peer, listener):
            for i in range(12):
                peer.send(BINARY, bytes([i]) * size)
                await listener.payload()
            assert [bytes(kept) == bytes([i]) * size for i, kept in enumerate(listener.kept)] == [True] * 12
            listener.kept.clear()

    net.run(test())


@over_every_network
@pytest.mark.parametrize("size", [0, 5, 300_000])
def test_a_frame_can_be_sent_on(net: Network, size: int) -> None:
    class Mirror(Recorder):
        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            if frame.payload_size <= 125:
                transport.send_pong(frame)
            transport.send(frame.msg_type, frame)
            transport.send(WSMsgType.TEXT, json.dumps(len(view_of(frame))))

    async def test() -> None:
        payload = random.Random(size).randbytes(size)
        async with net.pair(server=Mirror) as (client, _):
            client.transport.send(WSMsgType.BINARY, payload)
            if size <= 125:
                assert (await client.frames.get()).payload == payload
            assert await client.take(2) == [Received(BINARY, payload), Received(TEXT, b"%d" % size)]

    net.run(test())


USES: dict[str, Callable[[WSFrame], Any]] = {
    **{
        name: lambda frame, name=name: getattr(frame, name)  # type: ignore[misc]
        for name in ("msg_type", "fin", "rsv1", "rsv2", "rsv3", "payload_size", "tail_size", "last_in_buffer")
    },
    **{
        name: lambda frame, name=name: getattr(frame, name)()  # type: ignore[misc]
        for name in (
            "get_payload_as_bytes",
            "get_payload_as_utf8_text",
            "get_payload_as_ascii_text",
            "get_payload_as_memoryview",
            "get_close_code",
            "get_close_message",
            "get_close_reason",
        )
    },
    "str": str,
    "memoryview": memoryview,
    "bytes": bytes,
}


@over_roles
@pytest.mark.parametrize("use", USES)
def test_a_kept_frame_raises_on_use(net: Network, role: str, use: str) -> None:
    async def test() -> None:
        async with ROLES[role](net, lambda: Keeper(lambda frame: frame)) as (peer, listener):
            peer.write(peer.encode(TEXT, b"one") + peer.encode(TEXT, b"two"))
            # What is delivered is right, whatever becomes of the kept ones.
            assert await listener.take(2) == [Received(TEXT, b"one"), Received(TEXT, b"two")]
            for frame in listener.kept:
                with pytest.raises(RuntimeError, match="callback"):
                    USES[use](frame)
                repr(frame)

    net.run(test())


def test_a_kept_frame_raises_in_the_next_callback_already(net: Network) -> None:
    class Comparing(Recorder):
        previous: WSFrame | None = None
        failed: Exception | None = None

        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            if self.previous is not None:
                try:
                    self.previous.get_payload_as_bytes()
                except Exception as error:
                    self.failed = error
            self.previous = frame
            super().on_ws_frame(transport, frame)

    async def test() -> None:
        async with raw_client(net, Comparing) as (peer, listener):
            peer.write(peer.encode(TEXT, b"one") + peer.encode(TEXT, b"two"))
            await listener.take(2)
            assert isinstance(listener.failed, RuntimeError)

    net.run(test())


@over_roles
def test_a_frame_kept_by_a_callback_that_fails_raises_too(net: Network, role: str) -> None:
    class Failing(Recorder):
        first: WSFrame | None = None

        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            super().on_ws_frame(transport, frame)
            if self.first is None:
                self.first = frame
                raise ValueError("the frame was kept")
            assert frame is not self.first
            with pytest.raises(RuntimeError, match="callback"):
                self.first.get_payload_as_bytes()
            transport.send(WSMsgType.TEXT, b"right")

    async def test() -> None:
        async with ROLES[role](net, Failing, disconnect_on_exception=False) as (peer, listener):
            peer.write(peer.encode(TEXT, b"one") + peer.encode(TEXT, b"two"))
            peer.send(TEXT, b"three")
            assert [(await peer.receive()).payload for _ in range(2)] == [b"right"] * 2
            assert await listener.take(3) == [Received(TEXT, payload) for payload in (b"one", b"two", b"three")]

    net.run(test())


def test_the_memory_behind_a_view_is_lent_to_nobody(net: Network) -> None:
    refused: list[BufferError] = []

    class Looking(Recorder):
        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            try:
                memoryview(frame.get_payload_as_memoryview().obj)
            except BufferError as error:
                refused.append(error)
            super().on_ws_frame(transport, frame)

    async def test() -> None:
        async with raw_client(net, Looking) as (peer, listener):
            peer.send(TEXT, b"x")
            assert await listener.payload() == b"x"

    net.run(test())
    assert [str(error) for error in refused] == ["a read buffer can be written by the connection's transport only"]


@over_every_network
@over_roles
def test_kept_views_still_hold_their_bytes(net: Network, role: str) -> None:
    """200 views of one connection, over 10,000 later frames, its end, and the end of everything it belonged to."""
    views: list[memoryview] = []
    payloads = [random.Random(i).randbytes(random.Random(i).randrange(2000)) for i in range(200)]

    class Collector(Recorder):
        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            if frame.msg_type == WSMsgType.BINARY:
                views.append(frame.get_payload_as_memoryview() if len(views) % 2 else view_of(frame))
            self.frames.put_nowait(frame.payload_size)  # type: ignore[arg-type]

    async def test() -> None:
        async with ROLES[role](net, Collector) as (peer, listener):
            for i, payload in enumerate(payloads):
                # In one read with other frames, or alone.
                peer.write(peer.encode(TEXT, b"?" * i) + peer.encode(BINARY, payload) + peer.encode(TEXT, b"?" * 9))
                if i % 3:
                    await listener.take(listener.frames.qsize() + 1)
            later = b"".join(peer.encode(TEXT, b"\xee" * (i % 300)) for i in range(1000))
            for _ in range(10):
                peer.write(later)
            peer.send(TEXT, b"end of all")
            while await listener.frames.get() != len(b"end of all"):
                pass
            assert views == payloads

    net.run(test())
    gc.collect()
    assert [bytes(view) for view in views] == payloads


@over_both_loops
@over_roles
def test_a_slice_keeps_the_memory(net: Network, role: str) -> None:
    async def test() -> None:
        async with ROLES[role](net, lambda: Keeper(lambda frame: view_of(frame)[3:7][1:])) as (peer, listener):
            for size in (10, 300_000):
                peer.send(BINARY, b"0123456789" * (size // 10))
                await listener.payload()
                for _ in range(20):
                    peer.send(BINARY, b"x" * size)
                    await listener.payload()
                assert listener.kept[0] == b"456"
                assert listener.kept[0].readonly
                del listener.kept[:]

    net.run(test())


@over_both_loops
@pytest.mark.parametrize("size", [1 << 20, 5 << 20])
def test_views_of_large_frames(net: Network, size: int) -> None:
    """Each lies in a block of its own, together with what was read behind it."""

    async def test() -> None:
        async with raw_server(net, lambda: Keeper(view_of), max_frame_size=size) as (peer, listener):
            for i in range(6):
                peer.write(peer.encode(BINARY, bytes([i]) * size) + peer.encode(TEXT, b"%d" % i))
            await listener.take(12)
            assert listener.kept[::2] == [bytes([i]) * size for i in range(6)]
            assert listener.kept[1::2] == [b"%d" % i for i in range(6)]

    net.run(test())


def test_the_memory_of_a_view_is_freed_with_it(net: Network) -> None:
    size = 8 << 20

    async def test() -> None:
        async with raw_server(net, lambda: Keeper(view_of)) as (peer, listener):

            def look(transport: WSTransport, frame: WSFrame) -> None:
                listener.kept.append(view_of(frame))
                listener.frames.put_nowait(frame.payload_size)

            listener.on_ws_frame = look
            frame = peer.encode(BINARY, bytes(size))
            tracemalloc.start()
            try:
                for _ in range(3):
                    before = tracemalloc.get_traced_memory()[0]
                    peer.write(frame)
                    await peer.writer.drain()
                    assert await listener.frames.get() == size
                    assert tracemalloc.get_traced_memory()[0] - before >= size
                    listener.kept.clear()
                    # What is left over is the peer's, and small.
                    assert tracemalloc.get_traced_memory()[0] - before < size // 2
            finally:
                tracemalloc.stop()

    net.run(test())


class Counting(Recorder):
    """Takes a view of each frame, keeps none, and allocates nothing of note."""

    total = 0

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        self.total += len(view_of(frame)) > 0
        if frame.payload_size == 3:
            self.frames.put_nowait(Received(TEXT, b"end"))


def test_frames_of_which_no_view_is_kept_allocate_no_buffer(net: Network) -> None:
    count = 100_000

    async def test() -> None:
        burst = b"".join(encode(BINARY, b"x" * (i % 40 + 10), mask=True) for i in range(1000))
        listener = Counting()

        def send(port: int) -> None:
            with socket.create_connection(("127.0.0.1", port)) as sock:
                sock.sendall(REQUEST)
                sock.recv(4096)
                for _ in range(count // 1000):
                    sock.sendall(burst)
                sock.sendall(encode(TEXT, b"end", mask=True))
                sock.recv(4096)

        async with net.serve(lambda request: listener) as url:
            sender = threading.Thread(target=send, args=(int(url.split(":")[2].strip("/")),))
            sender.start()
            # The first frames bring the thread's blocks.
            tracemalloc.start()
            try:
                while listener.total < count // 10:
                    await asyncio.sleep(0)
                tracemalloc.reset_peak()
                before = tracemalloc.get_traced_memory()[0]
                await listener.frames.get()
                grown = tracemalloc.get_traced_memory()[1] - before
            finally:
                tracemalloc.stop()
            listener.transport.disconnect()
            await listener.disconnected.wait()
            sender.join()
        assert listener.total == count + 1
        assert grown < 64 * 1024

    net.run(test())
