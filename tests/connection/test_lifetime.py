"""A finished connection is freed by reference counting alone, and may be referred to weakly while it lives."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import sys
import weakref
from collections.abc import Iterator
from typing import Any, Callable

import pytest

from picows import WSFrame, WSListener, WSMsgType, WSProtocolError, WSTransport
from tests.connection.lifetimes import Watch, without_cycle_collector
from tests.connection.networks import Network, Recorder, over_both_loops, over_every_network
from tests.connection.peers import REQUEST, TEXT, encode, stream

pytestmark = pytest.mark.skipif(
    sys.implementation.name != "cpython", reason="only CPython frees an object with the last reference"
)


@pytest.fixture(autouse=True)
def _no_cycle_collector() -> Iterator[None]:
    with without_cycle_collector():
        yield


Ending = Callable[[WSTransport, WSTransport], None]

ENDINGS: dict[str, Ending] = {
    "client disconnects": lambda client, server: client.disconnect(),
    "server disconnects": lambda client, server: server.disconnect(),
    "client aborts": lambda client, server: client.disconnect(graceful=False),
    "server aborts": lambda client, server: server.disconnect(graceful=False),
    "closed": lambda client, server: (client.send_close(1000), client.disconnect()),  # type: ignore[func-returns-value]
    "client callback raises": lambda client, server: server.send(WSMsgType.TEXT, b"raise"),
    "server callback raises": lambda client, server: client.send(WSMsgType.TEXT, b"raise"),
    "client breaks the protocol": lambda client, server: client.underlying_transport.write(b"\x83"),
    "server breaks the protocol": lambda client, server: server.underlying_transport.write(b"\x83"),
    "much is queued": lambda client, server: (  # type: ignore[func-returns-value]
        server.send(WSMsgType.BINARY, bytes(8 << 20)),
        server.disconnect(),
    ),
}


class Ordinary(WSListener):
    """Refers to its transport and its frame, as listeners do."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        watch.add(self)

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport
        self.watch.add(transport)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        self.view = frame.get_payload_as_memoryview()
        if self.view == b"raise":
            raise WSProtocolError(4000, "as told")


async def use_connection(net: Network, watch: Watch, end: Ending, **options: Any) -> None:
    """One connection, used and ended; when this returns only the library could hold it."""
    servers: list[Ordinary] = []

    def factory(request: object) -> Ordinary:
        servers.append(Ordinary(watch))
        return servers[0]

    # What is logged about an exception may be kept by a handler, as pytest's does.
    options["logger_name"] = logging.Logger("picows.unheard", logging.CRITICAL + 1)
    async with net.serve(factory, **options) as url:
        client = await net.connect(lambda: Ordinary(watch), url, **options)
        client.transport.send(WSMsgType.TEXT, b"to the server")
        servers[0].transport.send(WSMsgType.TEXT, b"to the client")
        await client.transport.measure_roundtrip_time(1)
        end(client.transport, servers[0].transport)
        for listener in (client, servers[0]):
            with contextlib.suppress(WSProtocolError):
                await listener.transport.wait_disconnected()
            # What holds them together is the user's own.
            del listener.transport


@over_every_network
def test_a_finished_connection_is_freed(net: Network) -> None:
    async def test() -> None:
        watch = Watch()
        await use_connection(net, watch, ENDINGS["client callback raises"])
        assert len(watch.references) == 4
        await watch.all_gone()

    net.run(test())


@over_both_loops
@pytest.mark.parametrize("ending", ENDINGS)
def test_however_it_ended(net: Network, ending: str) -> None:
    async def test() -> None:
        watch = Watch()
        await use_connection(net, watch, ENDINGS[ending])
        assert len(watch.references) == 4
        await watch.all_gone()

    net.run(test())


@over_both_loops
def test_with_auto_ping(net: Network) -> None:
    async def test() -> None:
        watch = Watch()
        await use_connection(net, watch, ENDINGS["client disconnects"], enable_auto_ping=True)
        await watch.all_gone()

    net.run(test())


@over_both_loops
def test_no_timer_keeps_what_is_left(net: Network) -> None:
    """Nor the loop, though part of a frame was there, and a ping would have been due."""
    options = {"receive_timeout": 60, "enable_auto_ping": True, "websocket_handshake_timeout": 60}

    class Forgetful(WSListener):
        def __init__(self) -> None:
            self.told = asyncio.Event()
            listeners.append(self)

        def on_ws_connected(self, transport: WSTransport) -> None:
            underlying = transport.underlying_transport
            protocols.add(type(underlying.get_protocol()))
            ends.append((underlying, encode(TEXT, b"whole", mask=transport.is_client_side) + b"\x82"))

        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            self.told.set()

    protocols: set[type] = set()
    listeners: list[Forgetful] = []
    ends: list[tuple[Any, bytes]] = []

    async def test() -> None:
        async with net.serve(lambda request: Forgetful(), **options) as url:
            await net.connect(Forgetful, url, **options)
            for underlying, wire in ends:
                underlying.write(wire)
            for listener in listeners:
                await listener.told.wait()
            ends.pop()[0].abort()
            ends.clear()
            del underlying
            (protocol,) = protocols
            await asyncio.wait_for(no_new_object_of(protocol), 10)

    async def no_new_object_of(kind: type) -> None:
        while any(type(thing) is kind and id(thing) not in known for thing in gc.get_objects()):
            await asyncio.sleep(0.01)

    others = gc.get_objects()  # other tests may have left some in errors that they keep
    known = {id(thing) for thing in others}
    net.run(test())


@over_both_loops
def test_the_own_cycle_of_a_listener_goes_too(net: Network) -> None:
    """A listener keeps its transport for ever in most programs: the library has let go of both sides."""

    async def test() -> None:
        watch = Watch()

        async def use() -> None:
            async with net.serve(lambda request: Ordinary(watch)) as url:
                client = await net.connect(lambda: Ordinary(watch), url)
                client.transport.disconnect()
                await client.transport.wait_disconnected()

        await use()
        # A transport does not lead to its listener any more, so this is no cycle.
        await watch.all_gone()

    net.run(test())


@over_both_loops
def test_gone_before_ws_connect_returns(net: Network) -> None:
    class Leaver(Ordinary):
        def on_ws_connected(self, transport: WSTransport) -> None:
            super().on_ws_connected(transport)
            transport.disconnect(graceful=False)

    async def test() -> None:
        watch = Watch()

        async def use() -> None:
            async with net.serve(lambda request: Ordinary(watch)) as url:
                client = await net.connect(lambda: Leaver(watch), url)
                await client.transport.wait_disconnected()

        await use()
        assert len(watch.references) == 4
        await watch.all_gone()

    net.run(test())


@over_both_loops
def test_an_open_connection_is_kept_alive_by_the_loop(net: Network) -> None:
    async def test() -> None:
        watch = Watch()
        told = asyncio.Event()

        class Telling(Ordinary):
            def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
                told.set()
                transport.disconnect()

        async with net.serve(lambda request: Telling(watch)) as url:

            async def connect_and_forget() -> None:
                client = await net.connect(lambda: Ordinary(watch), url)
                client.transport.send(WSMsgType.TEXT, b"tell")

            await connect_and_forget()
            await told.wait()
            await watch.all_gone()

    net.run(test())


@over_both_loops
def test_refused_requests_leave_nothing(net: Network) -> None:
    async def test() -> None:
        watch = Watch()

        class Tag(str):
            __slots__ = ("__weakref__",)

        def factory(request: Any) -> None:
            # Lives as long as the request does.
            request.headers["tag"] = tag = Tag("tag")
            watch.add(tag)

        async with net.serve(factory) as url:
            for _ in range(3):
                async with stream(net, url) as peer:
                    peer.write(REQUEST)
                    assert (await peer.reader.read()).startswith(b"HTTP/1.1 404 ")
            assert len(watch.references) == 3
            await watch.all_gone()

    net.run(test())


@over_both_loops
def test_weak_references(net: Network) -> None:
    async def test() -> None:
        class Simple(WSListener):
            def on_ws_connected(self, transport: WSTransport) -> None:
                self.transport = weakref.ref(transport)

        bare = WSListener()
        assert weakref.ref(bare)() is bare
        async with net.serve(lambda request: Simple()) as url:
            client = await net.connect(Simple, url)
            listener = weakref.ref(client)
            transport = client.transport()
            assert listener() is client
            assert transport is not None
            transport.send(WSMsgType(TEXT), b"in use")
            transport.disconnect()
            await transport.wait_disconnected()

    net.run(test())


@over_both_loops
def test_an_error_whose_causes_form_a_ring(net: Network) -> None:
    class Failing(Recorder):
        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            one, other = ValueError("one"), ValueError("other")
            one.__cause__, other.__cause__ = other, one
            raise one

    async def test() -> None:
        async with net.pair(client=Failing) as (client, server):
            server.transport.send(WSMsgType.TEXT, b"")
            with pytest.raises(ValueError, match="one"):
                await client.transport.wait_disconnected()

    net.run(test())
