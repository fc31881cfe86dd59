"""ws_adopt: an HTTP server of another make hands over a connection, and what it has read of it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from picows import (
    WSCloseCode,
    WSDeflate,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
    ws_adopt,
)
from picows.proxy import network
from picows.tls import write_buffers
from tests.connection.networks import Echo, Network, Recorder, over_both_loops, over_every_network, over_tcp_and_tls
from tests.connection.peers import (
    BINARY,
    CLOSE,
    REQUEST,
    TEXT,
    Peer,
    close_code,
    close_payload,
    encode,
    stream,
    take_at_once,
)
from tests.connection.proxies import client_tls, server_tls

HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"

Handover = Callable[["Web", bytes], Any]


class Web(asyncio.Protocol):
    """A small HTTP server with keep-alive: /hello is its own, any other target is somebody else's."""

    transport: asyncio.Transport

    def __init__(self, hand_over: Handover) -> None:
        self.hand_over = hand_over
        self.received = b""
        self.calls: list[str] = []

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.calls.append("data_received")
        self.received += data
        while b"\r\n\r\n" in self.received:
            if not self.received.startswith(b"GET /hello "):
                self.hand_over(self, self.received)
                return
            self.received = self.received.partition(b"\r\n\r\n")[2]
            self.transport.write(HELLO)

    def pause_writing(self) -> None:
        self.calls.append("pause_writing")

    def resume_writing(self) -> None:
        self.calls.append("resume_writing")

    def connection_lost(self, exc: object) -> None:
        self.calls.append("connection_lost")


@contextlib.asynccontextmanager
async def web(net: Network, hand_over: Handover) -> AsyncIterator[str]:
    loop = asyncio.get_running_loop()
    create_server = network(loop, net.fast, "create_server")
    server = await create_server(lambda: Web(hand_over), "127.0.0.1", 0, ssl=server_tls() if net.tls else None)
    try:
        yield f"{'wss' if net.tls else 'ws'}://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        server.close()


class Adopted:
    """Takes over whatever it is handed, and keeps what came of it."""

    def __init__(self, listener: Callable[[], Any] = Echo, **options: Any) -> None:
        self.listener = listener() if callable(listener) else listener
        self.options = options
        self.requests: list[WSUpgradeRequest] = []

    def factory(self, request: WSUpgradeRequest) -> Any:
        self.requests.append(request)
        return self.listener

    def __call__(self, before: Web, request: bytes) -> WSTransport:
        self.before = before
        self.transport = ws_adopt(self.factory, before.transport, request, **self.options)
        return self.transport


async def upgraded(peer: Peer) -> bytes:
    head = await peer.reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in head
    return head


async def ended(adopted: Adopted, peer: Peer) -> None:
    adopted.transport.disconnect(graceful=False)
    await adopted.listener.disconnected.wait()
    await peer.lost()


@over_every_network
def test_a_server_hands_over_where_it_reads(net: Network) -> None:
    async def test() -> None:
        adopted = Adopted()
        async with web(net, adopted) as url, stream(net, url) as peer:
            peer.write(b"GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert await peer.reader.readexactly(len(HELLO)) == HELLO
            peer.write(REQUEST)
            await upgraded(peer)
            transport = adopted.transport
            assert transport.response.status == 101
            assert transport.underlying_transport is adopted.before.transport
            assert transport.underlying_transport.get_protocol() is not adopted.before
            assert transport.is_secure is net.tls
            assert not transport.is_client_side
            assert adopted.requests == [transport.request]
            for size in (5, 300, 200_000):
                peer.send(BINARY, bytes(size))
                assert (await peer.receive()).payload == bytes(size)
            peer.send(CLOSE, close_payload(1000))
            assert (await adopted.listener.take(4))[-1].msg_type == CLOSE
            transport.send_close(WSCloseCode.OK)
            transport.disconnect()
            assert close_code(await peer.receive()) == 1000
            assert await peer.receive_all() == []
            await peer.close()
            await adopted.listener.disconnected.wait()
            assert adopted.listener.calls == ["connected", "disconnected"]
            assert adopted.before.calls == ["data_received"] * 2

    net.run(test())


@over_every_network
def test_a_client_of_ours_notices_nothing(net: Network) -> None:
    async def test() -> None:
        adopted = Adopted(enable_auto_close=True, compression=WSDeflate())
        async with web(net, adopted) as url:
            client = await net.connect(Recorder, url, compression=WSDeflate())
            client.transport.send(WSMsgType.TEXT, "x" * 1000)
            assert await client.payload() == b"x" * 1000
            await client.transport.close()
            await adopted.listener.disconnected.wait()

    net.run(test())


@over_every_network
def test_frames_behind_the_request_are_not_lost(net: Network) -> None:
    async def test() -> None:
        adopted = Adopted()
        # More than one read, and the last frame is cut.
        frames = [encode(BINARY, bytes([number]) * size, mask=True) for number, size in enumerate((1, 70_000, 2, 300_000, 9))]

        def hand_over(before: Web, request: bytes) -> None:
            sent = adopted(before, request + b"".join(frames)[:-5])
            assert not sent.is_disconnected
            assert adopted.listener.frames.qsize() == 4

        async with web(net, hand_over) as url, stream(net, url) as peer:
            peer.write(REQUEST)
            await upgraded(peer)
            peer.write(frames[-1][-5:])
            sizes = [len((await peer.receive()).payload) for _ in frames]
            assert sizes == [1, 70_000, 2, 300_000, 9]
            assert [frame.payload[:1] for frame in await adopted.listener.take(5)] == [bytes([number]) for number in range(5)]
            await ended(adopted, peer)

    net.run(test())


@over_every_network
def test_a_coroutine_hands_over_while_reading_is_paused(net: Network) -> None:
    async def test() -> None:
        adopted = Adopted()
        tasks = []

        async def later(before: Web, request: bytes) -> None:
            await asyncio.sleep(0.01)
            adopted(before, request)

        def hand_over(before: Web, request: bytes) -> None:
            before.transport.pause_reading()
            tasks.append(asyncio.ensure_future(later(before, request)))

        async with web(net, hand_over) as url, stream(net, url) as peer:
            peer.write(REQUEST)
            await peer.writer.drain()
            await asyncio.sleep(0)
            peer.send(TEXT, b"early")
            await upgraded(peer)
            assert (await peer.receive()).payload == b"early"
            await asyncio.gather(*tasks)
            await ended(adopted, peer)

    net.run(test())


@over_every_network
def test_the_rest_of_the_request_may_follow(net: Network) -> None:
    async def test() -> None:
        adopted = Adopted()

        class Early(Web):
            def data_received(self, data: bytes) -> None:
                self.hand_over(self, data)

        loop = asyncio.get_running_loop()
        create_server = network(loop, net.fast, "create_server")
        server = await create_server(lambda: Early(adopted), "127.0.0.1", 0, ssl=server_tls() if net.tls else None)
        async with stream(net, f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/") as peer:
            peer.write(REQUEST[:50])
            while not hasattr(adopted, "transport"):
                await asyncio.sleep(0)
            assert adopted.transport.response is None
            peer.write(REQUEST[50:])
            await upgraded(peer)
            assert adopted.transport.response.status == 101
            await ended(adopted, peer)
        server.close()

    net.run(test())


@over_every_network
def test_what_the_server_has_written_goes_first(net: Network) -> None:
    """It waits in the transport, and the socket would take more: whoever writes there overtakes it."""

    async def test() -> None:
        class Telling(Recorder):
            def pause_writing(self) -> None:
                self.calls.append("pause")

            def resume_writing(self) -> None:
                self.calls.append("resume")
                resumed.set()

        resumed = asyncio.Event()
        handed_over = asyncio.Event()
        adopted = Adopted(Telling)
        page = bytes(16 << 20)
        taken = b""

        def hand_over(before: Web, request: bytes) -> None:
            nonlocal taken
            before.transport.write(page)
            if not net.tls:
                taken = take_at_once(peer)
            assert sum(size() for size in write_buffers(before.transport)) > 0
            adopted(before, request)
            assert adopted.transport.send(WSMsgType.TEXT, "behind")
            handed_over.set()

        async with web(net, hand_over) as url, stream(net, url) as peer:
            peer.write(REQUEST)
            await handed_over.wait()
            assert taken + await peer.reader.readexactly(len(page) - len(taken)) == page
            await upgraded(peer)
            assert (await peer.receive()).payload == b"behind"
            # What lies below TLS not every event loop tells.
            told = "pause_writing" in adopted.before.calls
            assert told or net.tls
            if told:
                await asyncio.wait_for(resumed.wait(), 10)
            assert adopted.listener.calls == ["connected", *["pause", "resume"] * told]
            assert "resume_writing" not in adopted.before.calls
            await ended(adopted, peer)

    net.run(test())


def test_a_transport_that_is_to_hold_nothing_has_not_paused(net: Network) -> None:
    async def test() -> None:
        class Telling(Recorder):
            def pause_writing(self) -> None:
                self.calls.append("pause")

        adopted = Adopted(Telling)

        def hand_over(before: Web, request: bytes) -> None:
            before.transport.set_write_buffer_limits(high=0)
            adopted(before, request)

        async with web(net, hand_over) as url, stream(net, url) as peer:
            peer.write(REQUEST)
            await upgraded(peer)
            assert adopted.listener.calls == ["connected"]
            await ended(adopted, peer)

    net.run(test())


@over_every_network
@pytest.mark.parametrize(
    ("result", "status"),
    [
        (None, 404),
        (WSUpgradeResponseWithListener(WSUpgradeResponse.create_error_response(403, b"not you"), None), 403),
        (ValueError("a bug"), 500),
    ],
)
def test_the_factory_may_refuse(net: Network, result: Any, status: int, caplog: pytest.LogCaptureFixture) -> None:
    def factory(request: WSUpgradeRequest) -> Any:
        if isinstance(result, Exception):
            raise result
        return result

    async def test() -> None:
        answered = []

        def hand_over(before: Web, request: bytes) -> None:
            answered.append(ws_adopt(factory, before.transport, request))

        async with web(net, hand_over) as url, stream(net, url) as peer:
            peer.write(REQUEST + encode(TEXT, b"in vain", mask=True))
            assert (await peer.reader.read()).startswith(b"HTTP/1.1 %d " % status)
            assert answered[0].response.status == status
            await peer.close()
            await answered[0].wait_disconnected()

    with caplog.at_level(logging.CRITICAL if status == 500 else logging.DEBUG, "picows"):
        net.run(test())


@over_both_loops
def test_a_bad_request_is_refused(net: Network) -> None:
    async def test() -> None:
        adopted = Adopted()
        async with web(net, adopted) as url, stream(net, url) as peer:
            peer.write(REQUEST.replace(b"Version: 13", b"Version: 12"))
            assert (await peer.reader.read()).startswith(b"HTTP/1.1 426 ")
            assert adopted.transport.response.status == 426
            assert adopted.requests == []
            await peer.close()
            await adopted.transport.wait_disconnected()

    net.run(test())


WRONG: dict[str, tuple[type[Exception], str, dict[str, Any]]] = {
    "factory": (TypeError, "ws_listener_factory must be callable", {"ws_listener_factory": lambda: None}),
    "transport": (TypeError, "has no method abort", {"transport": object()}),
    "str": (TypeError, "request must be bytes", {"request": "GET"}),
    "strided": (TypeError, "request must be bytes", {"request": memoryview(REQUEST)[::2]}),
    "option": (ValueError, "max_frame_size", {"max_frame_size": 0}),
    "logger": (TypeError, "logger_name", {"logger_name": 5}),
    "unknown": (TypeError, "host", {"host": "localhost"}),
}


@over_both_loops
@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_argument_leaves_the_connection_alone(net: Network, wrong: str) -> None:
    async def test() -> None:
        error, words, arguments = WRONG[wrong]

        def hand_over(before: Web, request: bytes) -> None:
            right = {"ws_listener_factory": lambda _: Recorder(), "transport": before.transport, "request": request}
            with pytest.raises(error, match=words):
                ws_adopt(**{**right, **arguments})
            assert before.transport.get_protocol() is before
            before.transport.write(HELLO)

        async with web(net, hand_over) as url, stream(net, url) as peer:
            peer.write(REQUEST)
            assert await peer.reader.readexactly(len(HELLO)) == HELLO

    net.run(test())


@over_every_network
def test_a_connection_that_has_ended_is_not_taken(net: Network) -> None:
    async def test() -> None:
        raised = []

        def hand_over(before: Web, request: bytes) -> None:
            before.transport.close()
            with pytest.raises(ConnectionResetError, match="before it was taken over"):
                Adopted()(before, request)
            raised.append(before)

        async with web(net, hand_over) as url, stream(net, url) as peer:
            peer.write(REQUEST)
            assert await peer.reader.read() == b""
            while "connection_lost" not in raised[0].calls:
                await asyncio.sleep(0)

    net.run(test())


def test_it_needs_the_running_loop() -> None:
    transport = Memory("the protocol before")
    with pytest.raises(RuntimeError, match="no running event loop"):
        ws_adopt(lambda request: None, transport, REQUEST)
    assert transport.protocol == "the protocol before"


class Memory(asyncio.Transport):
    """A transport without a socket, in which nothing waits."""

    def __init__(self, protocol: Any = None) -> None:
        super().__init__()
        self.protocol = protocol
        self.written = b""
        self.closing = False

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, data: Any) -> None:
        self.written += data

    def can_write_eof(self) -> bool:
        return False

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True
        asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    abort = close

    def receive(self, data: bytes) -> None:
        while data:
            buffer = self.protocol.get_buffer(-1)
            size = min(len(data), len(buffer))
            memoryview(buffer)[:size] = data[:size]
            self.protocol.buffer_updated(size)
            data = data[size:]


@over_both_loops
def test_a_transport_without_a_socket(net: Network) -> None:
    async def test() -> None:
        memory = Memory()
        listener = Echo()
        transport = ws_adopt(lambda request: listener, memory, bytearray(REQUEST + encode(TEXT, b"one", mask=True)))
        head, _, frames = memory.written.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        assert frames == encode(TEXT, b"one", mask=False)
        assert not transport.is_secure
        memory.written = b""
        memory.receive(encode(TEXT, b"two", mask=True))
        assert memory.written == encode(TEXT, b"two", mask=False)
        transport.disconnect(graceful=False)
        await transport.wait_disconnected()
        assert listener.calls == ["connected", "disconnected"]

    net.run(test())


class StrangeTls(Memory):
    """TLS that looks like asyncio's, and is not."""

    _ssl_protocol = object()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return client_tls() if name == "sslcontext" else default

    def get_write_buffer_size(self) -> int:
        return 7


@over_both_loops
def test_what_waits_in_a_tls_that_nobody_knows_is_what_it_says(net: Network) -> None:
    async def test() -> None:
        transport = ws_adopt(lambda request: Echo(), StrangeTls(), REQUEST)
        assert transport.is_secure
        assert transport.write_buffer_size == 7
        transport.disconnect(graceful=False)
        await transport.wait_disconnected()

    net.run(test())


@over_tcp_and_tls
def test_what_a_callback_raises_is_as_on_a_server(net: Network, caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Recorder):
        def on_ws_connected(self, transport: WSTransport) -> None:
            super().on_ws_connected(transport)
            raise LookupError("a bug")

    async def test() -> None:
        adopted = Adopted(Failing)
        async with web(net, adopted) as url, stream(net, url) as peer:
            peer.write(REQUEST + encode(TEXT, b"in vain", mask=True))
            await upgraded(peer)
            assert [close_code(frame) for frame in await peer.receive_all()] == [WSCloseCode.INTERNAL_ERROR]
            await peer.close()
            await adopted.listener.disconnected.wait()
            assert adopted.listener.rest() == []

    with caplog.at_level(logging.CRITICAL, "picows"):
        net.run(test())
