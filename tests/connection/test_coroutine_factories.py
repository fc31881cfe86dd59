"""Listener factories of a server that are coroutines: what they may decide, and what else may happen meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import weakref
from collections.abc import Awaitable, Generator
from typing import Any, Callable

import pytest

from picows import (
    WSInvalidStatusError,
    WSServer,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
    ws_adopt,
    ws_create_server,
)
from picows.upgrade import RequestReader
from tests.connection.lifetimes import Watch, without_cycle_collector
from tests.connection.networks import (
    Echo,
    Network,
    Received,
    Recorder,
    cut,
    over_both_loops,
    over_every_network,
    over_tcp_and_tls,
)
from tests.connection.peers import REQUEST, TEXT, Peer, encode, serve_streams, stream
from tests.connection.proxies import server_tls

EARLY = 64 * 1024  # bytes behind a request after which reading is paused
FRAMES = [b"%d" % i for i in range(500)]


class Undecided:
    """A factory that takes its time: until `result` is set, or it is cancelled."""

    def __init__(self) -> None:
        self.result: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.asked = asyncio.Event()
        self.ended = asyncio.Event()
        self.cancelled = False

    async def __call__(self, request: WSUpgradeRequest) -> Any:
        self.asked.set()
        try:
            return await self.result
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        finally:
            await asyncio.sleep(0)  # cleaning up may take a while, too
            self.ended.set()


def errors(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.levelno >= logging.WARNING]


async def upgraded(peer: Peer) -> None:
    assert (await peer.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")


# -- what it may decide --


@over_every_network
def test_the_upgrade_is_answered_when_it_has_decided(net: Network) -> None:
    """Frames that came behind the request, in the same read or meanwhile, are delivered then."""

    async def test() -> None:
        decide, listener = Undecided(), Echo()
        async with net.serve(decide) as url, stream(net, url) as peer:
            frames = [encode(TEXT, word, mask=True) for word in FRAMES]
            peer.write(REQUEST + b"".join(frames[:200]))
            await decide.asked.wait()
            peer.write(b"".join(frames[200:])[:-3])
            for _ in range(20):
                await asyncio.sleep(0)
            assert listener.calls == []
            decide.result.set_result(listener)
            await upgraded(peer)
            peer.write(frames[-1][-3:])
            for word in FRAMES:
                assert await peer.receive() == Received(TEXT, word)
            assert not decide.cancelled
            await cut(listener)

    net.run(test())


@over_both_loops
def test_it_decides_as_any_other(net: Network) -> None:
    async def factory(request: WSUpgradeRequest) -> Any:
        await asyncio.sleep(0)
        if request.path == b"/missing":
            return None
        if request.path == b"/forbidden":
            return WSUpgradeResponseWithListener(WSUpgradeResponse.create_error_response(403, b"no"), None)
        if request.path == b"/told":
            return WSUpgradeResponseWithListener(WSUpgradeResponse.create_101_response({"X-A": "b"}), Echo())
        return Echo()

    async def test() -> None:
        async with net.serve(factory) as url:
            for path, status in (("missing", 404), ("forbidden", 403)):
                with pytest.raises(WSInvalidStatusError) as caught:
                    await net.connect(Recorder, url + path)
                assert caught.value.response is not None
                assert caught.value.response.status == status
            for path, told in (("told", "b"), ("", None)):
                client = await net.connect(Recorder, url + path)
                assert client.transport.response.headers.get("X-A") == told
                client.transport.send(TEXT, b"hello")
                assert await client.payload() == b"hello"
                await cut(client)

    net.run(test())


class Waiting:
    """Awaitable, and no coroutine."""

    def __init__(self, future: asyncio.Future[Any]) -> None:
        self.future = future

    def __await__(self) -> Generator[Any, None, Any]:
        return self.future.__await__()


class AwaitableListener(Echo):
    def __await__(self) -> Generator[Any, None, None]:
        raise AssertionError("it was to be a listener")


AWAITABLES: dict[str, Callable[[asyncio.Future[Any]], Any]] = {
    "future": lambda future: future,
    "object": Waiting,
    "listener that is awaitable": lambda future: AwaitableListener(),
}


@over_both_loops
@pytest.mark.parametrize("kind", AWAITABLES)
def test_any_awaitable_will_do(net: Network, kind: str) -> None:
    async def test() -> None:
        def factory(request: object) -> Awaitable[Any]:
            future = asyncio.get_running_loop().create_future()
            future.set_result(Echo())
            result: Awaitable[Any] = AWAITABLES[kind](future)
            return result

        async with net.serve(factory) as url:
            client = await net.connect(Recorder, url)
            client.transport.send(TEXT, b"hello")
            assert await client.payload() == b"hello"
            await cut(client)

    net.run(test())


async def raises() -> None:
    await asyncio.sleep(0)
    raise LookupError("secret of the server")


async def meets_a_cancellation() -> None:
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


async def returns_nonsense() -> str:
    return "secret nonsense"


@over_both_loops
@pytest.mark.parametrize("failing", [raises, meets_a_cancellation, returns_nonsense])
def test_one_that_fails(net: Network, failing: Callable[[], Any], caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async with net.serve(lambda request: failing()) as url, stream(net, url) as peer:
            peer.write(REQUEST)
            answer = await peer.reader.read()
            assert answer.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
            assert b"secret" not in answer

    net.run(test())
    (record,) = errors(caplog)
    assert record.levelno == logging.ERROR
    assert record.exc_info


# -- what may happen meanwhile --


@over_tcp_and_tls
def test_what_comes_meanwhile_is_bounded_and_not_lost(net: Network) -> None:
    async def test() -> None:
        decide, listener = Undecided(), Recorder()
        adopted: list[WSTransport] = []
        writers: list[asyncio.StreamWriter] = []  # whoever drops his closes the transport

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            request = await reader.readuntil(b"\r\n\r\n")
            writers.append(writer)
            adopted.append(ws_adopt(decide, writer.transport, request))

        async with serve_streams(net, handle) as url, stream(net, url) as peer:
            peer.write(REQUEST)
            await decide.asked.wait()
            assert adopted[0].response is None
            underlying: Any = adopted[0].underlying_transport
            # A little does not hinder the server from seeing the end.
            peer.send(TEXT, bytes(EARLY // 2))
            for _ in range(20):
                await asyncio.sleep(0)
            assert underlying.is_reading()
            for i in range(1000):
                peer.send(TEXT, b"%d" % i + bytes(EARLY // 8))
            while underlying.is_reading():
                await asyncio.sleep(0)
            decide.result.set_result(listener)
            await upgraded(peer)
            assert len(await listener.payload()) == EARLY // 2
            for i in range(1000):
                assert (await listener.payload()).startswith(b"%d\0" % i)
            await cut(listener)

    net.run(test())


def say_no_more(peer: Peer) -> None:
    if peer.writer.can_write_eof():
        peer.writer.write_eof()
    else:
        peer.writer.close()


LEAVING: dict[str, Callable[[Peer], None]] = {
    "end": say_no_more,
    "reset": lambda peer: peer.writer.transport.abort(),
}


@over_every_network
@pytest.mark.parametrize("how", LEAVING)
def test_a_client_that_leaves(net: Network, how: str, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        decide = Undecided()
        async with net.serve(decide) as url, stream(net, url) as peer:
            peer.write(REQUEST)
            await decide.asked.wait()
            LEAVING[how](peer)
            await decide.ended.wait()
            assert decide.cancelled
            assert await peer.reader.read() == b""

    net.run(test())
    assert errors(caplog) == []


def test_a_client_that_leaves_and_does_not_read(net: Network) -> None:
    """It is not waited for what was written before, which takes until the client has read it."""

    async def test() -> None:
        decide = Undecided()
        writers: list[asyncio.StreamWriter] = []

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers.append(writer)
            writer.write(bytes(16 << 20))
            ws_adopt(decide, writer.transport, await reader.readuntil(b"\r\n\r\n"))

        async with serve_streams(net, handle) as url, stream(net, url) as peer:
            peer.write(REQUEST)
            await decide.asked.wait()
            peer.writer.write_eof()
            await decide.ended.wait()
            assert decide.cancelled
            assert len(await peer.reader.read()) == 16 << 20

    net.run(test())


async def cancel_serving(server: WSServer) -> None:
    serving = asyncio.ensure_future(server.serve_forever())
    await asyncio.sleep(0)
    serving.cancel()
    await asyncio.wait([serving])


async def close_clients(server: WSServer) -> None:
    server.close_clients()


async def abort_clients(server: WSServer) -> None:
    server.abort_clients()


@over_tcp_and_tls
@pytest.mark.parametrize("end", [cancel_serving, close_clients, abort_clients])
def test_a_server_that_ends(net: Network, end: Callable[[WSServer], Any], caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        decide = Undecided()
        server = await ws_create_server(decide, "127.0.0.1", 0, ssl=server_tls() if net.tls else None)
        async with stream(net, f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}") as peer:
            peer.write(REQUEST)
            await decide.asked.wait()
            await end(server)
            await decide.ended.wait()
            assert decide.cancelled
            await peer.lost()
        server.close()
        await server.wait_closed()

    net.run(test())
    assert errors(caplog) == []


@over_both_loops
def test_the_time_limit(net: Network, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def test() -> None:
        decide = Undecided()
        async with net.serve(decide, websocket_handshake_timeout=0.1) as url, stream(net, url) as peer:
            # More than is read before the answer: it would destroy the answer if the connection were not ended gracefully.
            peer.write(REQUEST + bytes(4 << 20))
            assert (await peer.reader.read()).startswith(b"HTTP/1.1 503 ")
            await decide.ended.wait()
            assert decide.cancelled

    net.run(test())
    (record,) = caplog.records
    assert "within 0.1 seconds" in record.getMessage()


@over_both_loops
def test_one_that_does_not_obey(net: Network) -> None:
    """What it returns after it was cancelled opens nothing."""

    async def test() -> None:
        listener, asked, ended = Recorder(), asyncio.Event(), asyncio.Event()

        async def factory(request: object) -> Recorder:
            asked.set()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            ended.set()
            return listener

        async with net.serve(factory) as url, stream(net, url) as peer:
            peer.write(REQUEST)
            await asked.wait()
            peer.writer.transport.abort()
            await ended.wait()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert listener.calls == []

    net.run(test())


def test_one_that_fails_when_it_is_cancelled(net: Network, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        asked = asyncio.Event()

        async def factory(request: object) -> None:
            asked.set()
            try:
                await asyncio.Event().wait()
            finally:
                raise LookupError("what was to be cleaned up")

        async with net.serve(factory) as url, stream(net, url) as peer:
            peer.write(REQUEST)
            await asked.wait()
            peer.writer.transport.abort()
            while not errors(caplog):
                await asyncio.sleep(0)

    net.run(test())
    (record,) = errors(caplog)
    assert "'/'" in record.getMessage()
    assert record.exc_info


@over_both_loops
@pytest.mark.parametrize("when", ["soon", "already"])
def test_a_connection_that_ends_before_the_coroutine_begins(net: Network, when: str) -> None:
    """It is not one that "was never awaited"."""
    if (net.loop, when) == ("uvloop", "already"):
        pytest.skip("uvloop cannot be run inside of itself")

    async def test() -> None:
        begun = []

        async def decide() -> None:
            begun.append(True)

        def factory(request: object) -> Any:
            server.abort_clients()
            if when == "already":
                loop: Any = asyncio.get_running_loop()
                loop._run_once()
            return decide()

        server = await ws_create_server(factory, "127.0.0.1", 0, use_aiofastnet=net.fast)
        async with stream(net, f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}") as peer:
            peer.write(REQUEST)
            await peer.lost()
        server.close()
        gc.collect()
        await asyncio.sleep(0)
        assert begun == []

    net.run(test())


@over_both_loops
def test_it_is_kept_until_it_has_cleaned_up(net: Network) -> None:
    """Though its connection is gone, and the loop itself refers to tasks weakly."""

    async def test() -> None:
        asked, cleaning, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()
        waits_for: list[weakref.ref[asyncio.Future[None]]] = []

        async def factory(request: object) -> None:
            asked.set()
            try:
                await asyncio.Event().wait()
            finally:
                future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                waits_for.append(weakref.ref(future))
                cleaning.set()
                await future
                ended.set()

        async with net.serve(factory) as url, stream(net, url) as peer:
            peer.write(REQUEST)
            await asked.wait()
            peer.writer.transport.abort()
            await cleaning.wait()
            await asyncio.sleep(0.01)
            gc.collect()
            future = waits_for[0]()
            assert future is not None
            future.set_result(None)
            await ended.wait()

    net.run(test())


def test_an_open_connection_keeps_nothing_of_its_handshake(net: Network) -> None:
    async def test() -> None:
        async def factory(request: WSUpgradeRequest) -> Any:
            await asyncio.sleep(0)
            return Echo()

        async with net.serve(factory) as url, stream(net, url) as peer:
            peer.write(REQUEST)
            await upgraded(peer)
            peer.send(TEXT, b"open")
            assert (await peer.receive()).payload == b"open"
            assert not [each for each in gc.get_objects() if isinstance(each, RequestReader)]

    net.run(test())


@over_both_loops
@pytest.mark.parametrize("ending", ["open", "refused", "cancelled"])
def test_a_finished_connection_is_freed(net: Network, ending: str) -> None:
    async def test() -> None:
        watch, asked = Watch(), asyncio.Event()

        async def factory(request: WSUpgradeRequest) -> Any:
            watch.add(asyncio.current_task())
            asked.set()
            await (asyncio.Event().wait() if ending == "cancelled" else asyncio.sleep(0))
            if ending == "refused":
                return None
            listener = Echo()
            watch.add(listener)
            return listener

        with without_cycle_collector():
            async with net.serve(factory) as url, stream(net, url) as peer:
                peer.write(REQUEST)
                await asked.wait()
                if ending != "cancelled":
                    await peer.reader.readuntil(b"\r\n\r\n")
                peer.writer.transport.abort()
                await peer.lost()
                await watch.all_gone()

    net.run(test())
