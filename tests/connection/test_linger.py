"""How long a connection may take to end, and what waits meanwhile: a peer that reads gets all, one that does not is cut off."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import importlib.util
import itertools
import os
import selectors
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from picows import WSCloseCode, WSFrame, WSMsgType, WSSlowPeerPolicy, WSTransport, ws_connect
from tests.connection.networks import (
    LOOPS,
    Network,
    Recorder,
    over_both_loops,
    over_every_network,
    over_every_tls,
    over_tcp_and_tls,
)
from tests.connection.peers import (
    BINARY,
    CLOSE,
    REQUEST,
    TEXT,
    Peer,
    close_code,
    close_payload,
    encode,
    raw_client,
    serve_streams,
    upgrade_response,
)
from tests.connection.proxies import client_tls

KIB, MIB = 1024, 1024 * 1024


def shrink(sock: Any, option: int, size: int = 64 * KIB) -> None:
    """Have the kernel hold little, so that most of a few bytes waits in the transports."""
    sock.setsockopt(socket.SOL_SOCKET, option, size)


def socket_of(side: Any) -> Any:
    transport = side.writer if isinstance(side, Peer) else side.transport.underlying_transport
    return transport.get_extra_info("socket")


# How long it takes to end.


class Clock:
    """Seconds, and those among them in which the loop ran: a loaded machine may stop us, and late is not wrong then."""

    def __init__(self) -> None:
        self.ran = 0.0
        self._beating = asyncio.ensure_future(self._beat())

    async def _beat(self) -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.01)
            self.ran += min(time.monotonic() - before, 0.03)

    def stop(self) -> None:
        self._beating.cancel()

    async def measure(self, event: Any, since: float, at_least: float, below: float, what: str) -> None:
        ran_before = self.ran
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(event, 2 * below + 2)
        took, ran = time.monotonic() - since, self.ran - ran_before
        assert at_least <= took, f"{what}: over after {took} seconds"
        assert ran < below, f"{what}: over after {took} seconds, {ran} of them running"


async def silent(peer: Peer) -> None:
    await asyncio.Event().wait()


async def flooding(peer: Peer) -> None:
    with contextlib.suppress(ConnectionError):
        while True:
            peer.send(BINARY, bytes(10_000))
            await peer.writer.drain()
            await asyncio.sleep(0.01)


class Timed(Recorder):
    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        self.received_at = time.monotonic()
        super().on_ws_frame(transport, frame)


@contextlib.asynccontextmanager
async def behaving(net: Network, behaviour: Callable[[Peer], Any], reads: bool) -> AsyncIterator[tuple[Peer, Timed]]:
    async with raw_client(net, Timed) as (peer, listener):
        # The last that was received: over TLS silence counts from here.
        peer.send(TEXT, b"now")
        await listener.payload()
        shrink(socket_of(listener), socket.SO_SNDBUF)
        shrink(socket_of(peer), socket.SO_RCVBUF)
        if not reads:
            peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
        task = asyncio.ensure_future(behaviour(peer))
        try:
            yield peer, listener
        finally:
            task.cancel()
            await asyncio.wait([task])
            peer.writer.transport.abort()


async def ends(
    clock: Clock, net: Network, behaviour: Callable[[Peer], Any], waiting: int, at_least: float, below: float, *, reads: bool
) -> None:
    async with behaving(net, behaviour, reads) as (_, listener):
        listener.transport.send(WSMsgType.BINARY, bytes(waiting))
        since = listener.received_at if net.tls else time.monotonic()
        listener.transport.disconnect()
        await clock.measure(
            listener.disconnected.wait(), since, at_least, below, f"{net} {behaviour.__name__} {reads=} {waiting=}"
        )
        await listener.transport.wait_disconnected()


async def takes_too_little(clock: Clock, net: Network) -> None:
    """2 KB a second, of which the kernel tells us every second or two."""
    async with blocking_client(net, Recorder, receive_size=4 * KIB) as (peer, listener):

        async def trickle() -> None:
            while True:
                await asyncio.sleep(0.25)
                peer.recv(500)

        shrink(socket_of(listener), socket.SO_SNDBUF)
        listener.transport.send(WSMsgType.BINARY, bytes(MIB))
        since = time.monotonic()
        listener.transport.disconnect()
        task = asyncio.ensure_future(trickle())
        await clock.measure(listener.disconnected.wait(), since, 4.7, 7, f"{net} takes too little")
        task.cancel()
        await asyncio.wait([task])


async def ends_half_closed(clock: Clock, net: Network, who_closes: str) -> None:
    """The peer ends its side and does not read."""
    async with behaving(net, silent, reads=False) as (peer, listener):
        listener.transport.send(WSMsgType.BINARY, bytes(2 * MIB))
        since = time.monotonic()  # its end begins somewhere in the following, which takes its time on a loaded machine
        if who_closes == "user":
            listener.transport.underlying_transport.close()
        else:
            with socket.socket(fileno=os.dup(socket_of(peer).fileno())) as same:
                same.shutdown(socket.SHUT_WR)
            await asyncio.sleep(0.2)
        if who_closes != "nobody":
            listener.transport.disconnect()
            listener.transport.disconnect()
        assert not listener.disconnected.is_set()
        await clock.measure(listener.disconnected.wait(), since, 4.9, 7, f"{net} half closed, {who_closes} closes")


async def reads_slowly(net: Network) -> None:
    """For longer than we wait for a peer that takes nothing."""
    size, duration = 4 * MIB, 6.5
    async with blocking_client(net, Recorder) as (peer, listener):
        shrink(socket_of(listener), socket.SO_SNDBUF)
        listener.transport.send(WSMsgType.BINARY, bytes(size))
        listener.transport.disconnect()
        assert listener.transport.write_buffer_size > size // 2
        receive = functools.partial(asyncio.get_running_loop().run_in_executor, None, peer.recv, 32 * KIB)
        began = time.monotonic()
        got = 0
        while data := await receive():
            got += len(data)
            await asyncio.sleep(max(0.0, began + duration * got / size - time.monotonic()))
        assert got == size + 10, f"{net}: {got} bytes came"
        peer.close()
        await listener.disconnected.wait()


async def later(delay: float, case: Coroutine[Any, Any, None]) -> None:
    """When the others do no more than wait: what takes a moment only is measured then."""
    await asyncio.sleep(delay)
    await case


def test_the_times_of_the_linger() -> None:
    """All at once, because they are real seconds. The peer is silent, floods us, takes too little, or reads slowly."""

    async def test(loop: str) -> None:
        clock = Clock()
        tcp, tls = Network(loop), Network(loop, tls=True)
        over_tls = [tls, *[Network(loop, tls=True, fast=True)] * bool(importlib.util.find_spec("aiofastnet"))]
        cases = [
            later(1.5, ends(clock, tcp, silent, 10, 0.99, 1.8, reads=True)),
            ends(clock, tcp, flooding, 10, 4.9, 7, reads=True),
            takes_too_little(clock, tcp),
        ]
        for net in over_tls:
            cases += [
                later(1.5, ends(clock, net, silent, 10, 0.24, 0.45, reads=True)),
                later(1.5, ends(clock, net, flooding, 10, 0.49, 0.9, reads=True)),
            ]
        for net in [tcp, *over_tls]:
            cases += [
                *(ends(clock, net, behaviour, 2 * MIB, 4.7, 7, reads=False) for behaviour in (silent, flooding)),
                reads_slowly(net),
                ends_half_closed(clock, net, "user"),
            ]
        for net in (tcp, tls):
            cases.append(ends_half_closed(clock, net, "disconnect"))
        # uvloop's TLS tells nobody of an end without close_notify.
        for net in (tcp, tls) if loop == "asyncio" else (tcp,):
            cases.append(ends_half_closed(clock, net, "nobody"))
        failures = [result for result in await asyncio.gather(*cases, return_exceptions=True) if result is not None]
        clock.stop()
        assert not failures, failures

    with concurrent.futures.ThreadPoolExecutor() as threads:
        runs = [threads.submit(Network(loop).run, test(loop)) for loop in LOOPS]
    for run in runs:
        run.result()


class QuickSelector(selectors.DefaultSelector):
    def select(self, timeout: float | None = None) -> Any:
        return super().select(timeout and timeout / QuickLoop.SPEED)


class QuickLoop(asyncio.SelectorEventLoop):
    """A loop whose clock runs ten times as fast."""

    SPEED = 10

    def __init__(self) -> None:
        super().__init__(QuickSelector())

    def time(self) -> float:
        return super().time() * self.SPEED


def test_a_client_waits_ten_seconds_for_the_server_to_end_tcp() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(upgrade_response(await reader.readuntil(b"\r\n\r\n")))
        Peer(reader, writer, masks=False).send(CLOSE, close_payload(1000))
        # Neither it nor the client ends the connection.
        while await reader.read(1000):
            pass
        writer.close()

    async def test() -> None:
        async with serve_streams(Network(), handle) as url:
            options: dict[str, Any] = {"websocket_handshake_timeout": 300, "use_aiofastnet": False}
            transport, listener = await ws_connect(Recorder, url, enable_auto_close=True, **options)
            await listener.payload()
            began = asyncio.get_running_loop().time()
            await transport.wait_disconnected()
            assert 9.9 < asyncio.get_running_loop().time() - began < 19
            await asyncio.sleep(0.1)

    loop = QuickLoop()
    try:
        loop.run_until_complete(test())
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


def test_a_server_whose_listener_only_answers_a_close_ends_tcp_after_ten_seconds() -> None:
    class Answering(Recorder):
        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            super().on_ws_frame(transport, frame)
            transport.send_close(1000)

    async def test() -> None:
        options = {"websocket_handshake_timeout": 300, "use_aiofastnet": False, "enable_auto_close": False}
        async with raw_client(Network(), Answering, enable_auto_ping=True, **options) as (peer, listener):
            peer.send(CLOSE, close_payload(1000))
            await listener.payload()
            began = asyncio.get_running_loop().time()
            assert [close_code(frame) for frame in await peer.receive_all()] == [1000]
            assert 9.9 < asyncio.get_running_loop().time() - began < 19
            await peer.close()
            await listener.transport.wait_disconnected()
            await asyncio.sleep(0.1)

    loop = QuickLoop()
    try:
        loop.run_until_complete(test())
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


@over_every_tls
def test_tls_is_closed_at_once_behind_the_peers_close(net: Network) -> None:
    """Nothing comes behind a CLOSE that could disturb the end of TLS; otherwise silence is waited for."""

    class Polite(Recorder):
        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            transport.send_close(WSCloseCode.OK)
            transport.disconnect()

    async def test() -> None:
        times: list[float] = []
        # One of three is quick even on a loaded machine.
        while len(times) < 3 and min(times, default=1) > 0.2:
            async with raw_client(net, Polite) as (peer, listener):
                began = time.monotonic()
                peer.send(CLOSE, close_payload(1000))
                await listener.disconnected.wait()
                times.append(time.monotonic() - began)
        assert min(times) < 0.2

    net.run(test())


@over_both_loops
def test_a_loop_that_stood_still_reads_before_it_judges(net: Network) -> None:
    """The peer was not silent: its bytes wait in the kernel."""

    async def test() -> None:
        loop = asyncio.get_running_loop()
        stalled = asyncio.Event()
        one, other = socket.socketpair()
        async with blocking_client(net, Recorder) as (peer, listener):

            def stall() -> None:
                time.sleep(1.1)  # longer than a silence that ends it
                peer.send(b"x")
                loop.remove_reader(one)
                stalled.set()

            # Of all callbacks those for reading are the last in a turn of uvloop, and the next one begins with its timers.
            loop.add_reader(one, stall)
            listener.transport.disconnect()
            await asyncio.sleep(0.02)
            other.send(b"now")
            await stalled.wait()
            await asyncio.sleep(0.05)
            assert not listener.transport.is_disconnected
            # Closed with bytes unread, it would have reset the connection.
            peer.send(b"x")
            await asyncio.sleep(0.02)
            peer.send(b"x")
            assert peer.recv(100) == b""
            peer.close()
            await listener.disconnected.wait()
            one.close()
            other.close()

    net.run(test())


@pytest.mark.skipif("uvloop" not in LOOPS, reason="asyncio reads before it looks at its timers")
def test_a_loop_that_is_always_late_reads_before_it_judges() -> None:
    """The peer goes on sending; closed with bytes unread, the connection would be reset."""
    net = Network("uvloop", True)
    pairs = [socket.socketpair() for _ in range(2)]

    class Leaving(Recorder):
        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            wait_for(0)
            transport.disconnect()

    def wait_for(turn: int) -> None:
        one, other = pairs[turn % 2]
        loop = asyncio.get_running_loop()
        loop.remove_reader(one)
        loop.add_reader(one, stall, turn)
        other.send(b"x")

    def stall(turn: int) -> None:
        pairs[turn % 2][0].recv(1)
        time.sleep(0.3)  # longer than a silence that ends TLS
        # Read ahead of the next stall, for which another socket becomes readable only now.
        peer.send(b"x")
        if turn < 3:
            wait_for(turn + 1)
        else:
            over.set()

    async def test() -> None:
        nonlocal peer, over
        over = asyncio.Event()
        async with blocking_client(net, Leaving) as (peer, listener):
            peer.send(encode(TEXT, b"now", mask=True))
            await over.wait()
            assert not listener.transport.underlying_transport.is_closing()
            for one, _ in pairs:
                asyncio.get_running_loop().remove_reader(one)

    peer: Any = None
    over: Any = None
    net.run(test())
    for sock in itertools.chain(*pairs):
        sock.close()


# Who has paused reading, and who has closed.


@over_every_network
def test_a_disconnect_reads_again_where_the_user_had_paused(net: Network) -> None:
    """What the peer still sends is dropped, and the peer is not reset."""

    async def test() -> None:
        async with raw_client(net, Recorder) as (peer, listener):
            listener.transport.underlying_transport.pause_reading()
            listener.transport.disconnect()
            if net.tls:
                # It cannot be half closed, so that nothing can be sent to the end.
                await listener.disconnected.wait()
                return
            for _ in range(16):
                peer.send(BINARY, bytes(MIB))
                await peer.writer.drain()
            assert await peer.reader.read() == b""
            await peer.close()
            await listener.disconnected.wait()

    net.run(test())


def reset(peer: Peer) -> None:
    socket_of(peer).setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.writer.transport.abort()


@over_every_network
@pytest.mark.parametrize("then", ["disconnect", "send", "resume"])
def test_a_reset_while_reading_is_paused(net: Network, then: str) -> None:
    """Whoever does not read may not learn of it, but by the next thing that is done."""

    async def test() -> None:
        async with raw_client(net, Recorder) as (peer, listener):
            underlying = listener.transport.underlying_transport
            underlying.pause_reading()
            reset(peer)
            await asyncio.sleep(0.05)
            if then == "disconnect":
                listener.transport.disconnect()
            elif then == "send":
                listener.transport.send(WSMsgType.BINARY, b"to nobody")
            elif not listener.disconnected.is_set():
                underlying.resume_reading()
            await asyncio.wait_for(listener.disconnected.wait(), 4)

    net.run(test())


def test_a_disconnect_ends_the_stream_at_once(net: Network) -> None:
    """On uvloop in the next turn of the loop."""

    async def test() -> None:
        listener = Recorder()
        async with net.serve(lambda _: listener) as url:
            loop = asyncio.get_running_loop()
            with socket.socket() as sock:
                sock.setblocking(False)
                await loop.sock_connect(sock, ("127.0.0.1", int(url.split(":")[2].strip("/"))))
                await loop.sock_sendall(sock, REQUEST)
                assert (await loop.sock_recv(sock, 4096)).endswith(b"\r\n\r\n")
                listener.transport.disconnect()
                sock.settimeout(5)  # in which the loop has no turn
                assert sock.recv(1) == b""
            await listener.disconnected.wait()

    net.run(test())


@over_tcp_and_tls
def test_a_disconnect_of_what_the_user_has_closed(net: Network) -> None:
    async def test() -> None:
        async with raw_client(net, Recorder) as (peer, listener):
            listener.transport.underlying_transport.close()
            listener.transport.underlying_transport.close()
            listener.transport.disconnect()
            assert listener.transport.write_buffer_size == 0
            await peer.lost()
            await peer.close()
            await listener.disconnected.wait()

    net.run(test())


@over_every_tls
def test_a_disconnect_when_tcp_is_lost_and_tls_has_not_told_us_yet(net: Network) -> None:
    async def test() -> None:
        async with raw_client(net, Recorder) as (peer, listener):
            transport = listener.transport
            reset(peer)
            while transport.underlying_transport.get_extra_info("peername") and not transport.is_disconnected:
                await asyncio.sleep(0)
            listener.transport.disconnect()
            assert listener.transport.write_buffer_size == 0
            await listener.disconnected.wait()

    net.run(test())


@over_both_loops
def test_a_callback_disconnects_while_a_disconnect_flushes(net: Network) -> None:
    """There is one linger timer then; a second one would come behind the end of the connection."""

    class Leaving(Recorder):
        def pause_writing(self) -> None:
            self.calls.append("pause")
            self.transport.disconnect()

    async def test() -> None:
        async with blocking_client(net, Leaving) as (_, listener):
            transport = listener.transport
            shrink(socket_of(listener), socket.SO_SNDBUF)
            transport.underlying_transport.set_write_buffer_limits(high=MIB)
            while not transport.write_buffer_size:
                transport.send(WSMsgType.BINARY, bytes(8 * KIB))
            transport.underlying_transport.set_write_buffer_limits(high=16 * KIB)
            with transport.cork():
                transport.send(WSMsgType.BINARY, bytes(32 * KIB))
                assert listener.calls == ["connected"]
                transport.disconnect()
                assert listener.calls == ["connected", "pause"]
            transport.disconnect(graceful=False)
            await listener.disconnected.wait()
            await asyncio.sleep(0.12)

    net.run(test())


# What waits.


@contextlib.asynccontextmanager
async def blocking_client(
    net: Network, server: Callable[[], Any], receive_size: int = 64 * KIB, **options: Any
) -> AsyncIterator[tuple[Any, Any]]:
    """A connected socket that reads when it is told to, and nobody behind it who would read ahead."""
    listeners: list[Any] = []

    def factory(request: object) -> Any:
        listeners.append(server())
        return listeners[0]

    def connect(port: int) -> Any:
        sock: Any = socket.socket()
        shrink(sock, socket.SO_RCVBUF, receive_size)
        sock.connect(("127.0.0.1", port))
        if net.tls:
            sock = client_tls().wrap_socket(sock, server_hostname="127.0.0.1")
        sock.sendall(REQUEST)
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += sock.recv(1)
        return sock

    async with net.serve(factory, **options) as url:
        connecting = functools.partial(connect, int(url.split(":")[2].strip("/")))
        with contextlib.closing(await asyncio.get_running_loop().run_in_executor(None, connecting)) as sock:
            try:
                yield sock, listeners[0]
            finally:
                listeners[0].transport.disconnect(graceful=False)
                await listeners[0].transport.wait_disconnected()


def in_the_kernel(listener: Any, peer: Any) -> int:
    """Bytes that it has taken and the peer has not read; a few may be counted at both ends."""
    fcntl, termios = pytest.importorskip("fcntl"), pytest.importorskip("termios")

    def ask(sock: Any, what: int) -> int:
        return int(struct.unpack("i", fcntl.ioctl(sock.fileno(), what, bytes(4)))[0])

    return ask(socket_of(listener), termios.TIOCOUTQ) + ask(peer, termios.FIONREAD)


only_linux = pytest.mark.skipif(not os.path.exists("/proc/self"), reason="asks Linux what the kernel holds")


@only_linux
@over_every_network
def test_what_waits_is_told_from_the_first_byte(net: Network) -> None:
    async def test() -> None:
        async with blocking_client(net, Recorder) as (peer, listener):
            shrink(socket_of(listener), socket.SO_SNDBUF)
            sent = 0
            while not listener.transport.write_buffer_size:
                listener.transport.send(WSMsgType.BINARY, bytes(4 * KIB))
                sent += 4 * KIB
            assert sent - in_the_kernel(listener, peer) < 8 * KIB
            # Wherever it goes meanwhile.
            for _ in range(8):
                listener.transport.send(WSMsgType.BINARY, bytes(64 * KIB))
                sent += 64 * KIB
                await asyncio.sleep(0.005)
            # An acknowledgement may be delayed by 40 ms, and till then the kernel has some bytes twice.
            await asyncio.sleep(0.06)
            waits = sent - in_the_kernel(listener, peer)
            assert waits - 32 * KIB < listener.transport.write_buffer_size < waits + 64 * KIB

    net.run(test())


@only_linux
@over_every_network
def test_the_limit_holds_while_the_peer_reads_slowly(net: Network) -> None:
    limit, frame = 256 * KIB, 16 * KIB
    options = {"max_write_buffer_size": limit, "slow_peer": WSSlowPeerPolicy.DROP_NEWEST}

    async def test() -> None:
        async with blocking_client(net, Recorder, **options) as (peer, listener):
            shrink(socket_of(listener), socket.SO_SNDBUF)
            sent = received = 0
            for _ in range(6):
                while listener.transport.send(WSMsgType.BINARY, bytes(frame)):
                    sent += frame
                assert sent - received - in_the_kernel(listener, peer) <= limit
                target = received + 100 * KIB
                while received < target:
                    received += len(await asyncio.get_running_loop().run_in_executor(None, peer.recv, 64 * KIB))
            assert sent > limit + 400 * KIB

    net.run(test())


@over_every_network
def test_the_limit_counts_what_is_gathered(net: Network) -> None:
    limit = 256 * KIB
    options = {"max_write_buffer_size": limit, "slow_peer": WSSlowPeerPolicy.DROP_NEWEST}

    async def test() -> None:
        async with blocking_client(net, Recorder, **options) as (_, listener):
            transport = listener.transport
            while transport.send(WSMsgType.BINARY, bytes(16 * KIB)):
                pass
            with transport.cork():
                while transport.send(WSMsgType.BINARY, bytes(500)):
                    pass
                assert limit - 500 < transport.write_buffer_size <= limit + 10

    net.run(test())
