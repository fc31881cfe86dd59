"""What a stream costs while nothing happens, and that nothing keeps it when all is over."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest

from picows._streams import MessageStream
from tests.connection.lifetimes import Watch, without_cycle_collector
from tests.connection.networks import Network, over_both_loops, over_tcp_and_tls
from tests.streams.streams import OPTIONS, arrived, raw_peer, send_texts, waiting

pytestmark = pytest.mark.skipif(sys.implementation.name != "cpython", reason="only CPython frees an object with the last reference")

GC_HEADER = 16


@pytest.fixture(autouse=True)
def _no_cycle_collector() -> Iterator[None]:
    with without_cycle_collector():
        yield


def test_an_idle_stream_is_one_object() -> None:
    size = sys.getsizeof(MessageStream())
    assert size < 400
    streams: list[Any] = [None] * 1000
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for i in range(len(streams)):
            streams[i] = MessageStream()
        used = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert used <= len(streams) * (size + GC_HEADER) + 1000


@over_both_loops
def test_messages_and_their_places_are_freed_when_they_are_taken(net: Network) -> None:
    async def test() -> None:
        async with raw_peer(net) as (peer, stream):
            tracemalloc.start()
            try:
                send_texts(peer, *["x" * 200] * 1000)
                await arrived(peer)
                held = tracemalloc.get_traced_memory()[0]
                assert len(waiting(stream)) == 1000
                assert tracemalloc.get_traced_memory()[0] <= held - 1000 * (sys.getsizeof("x" * 200) + 8)
            finally:
                tracemalloc.stop()

    net.run(test())


@over_tcp_and_tls
@pytest.mark.parametrize("ending", ["close", "abort"])
@pytest.mark.parametrize("busy", ["idle", "kept alive", "receiving", "with messages left", "sending", "gathering"])
def test_a_finished_stream_is_freed_by_reference_counting(net: Network, ending: str, busy: str) -> None:
    async def use(watch: Watch) -> None:
        # A factory that kept the stream would be a cycle of its own: the transport refers to it.
        made = [MessageStream()]
        server = made[0]
        async with net.serve(lambda _: made.pop(), **OPTIONS) as url:
            client = await net.connect(MessageStream, url, **OPTIONS)
            tasks: list[Any] = []
            for stream in (client, server):
                watch.add(stream)
                watch.add(stream.transport)
            if busy == "receiving":
                tasks = [asyncio.ensure_future(receive(client)), asyncio.ensure_future(receive(server))]
            elif busy == "sending":
                tasks = [asyncio.ensure_future(flood(server))]
            elif busy == "kept alive":
                for stream in (client, server):
                    stream.keep_alive(20, 20)
                    stream.send_ping(b"ping", asyncio.get_running_loop().create_future())
            else:
                for i in range(20 * (busy != "idle")):
                    await client.send(str(i))
                if busy == "gathering":
                    await server.send(await server.recv())
            for _ in range(5):
                await asyncio.sleep(0)
            if ending == "close":
                await client.close()
            else:
                client.transport.disconnect(graceful=False)
            for stream in (client, server):
                await stream.wait_closed()
            await asyncio.gather(*tasks)

    async def receive(stream: MessageStream) -> None:
        with contextlib.suppress(ConnectionResetError):
            await stream.recv()

    async def flood(stream: MessageStream) -> None:
        with contextlib.suppress(ConnectionResetError):
            while True:
                await stream.send(bytes(100_000))

    async def test() -> None:
        assert not gc.isenabled()
        watch = Watch()
        await use(watch)
        assert len(watch.references) == 4
        await watch.all_gone()

    net.run(test())


def test_messages_that_nobody_took_are_freed(net: Network) -> None:
    async def test() -> None:
        async with raw_peer(net) as (peer, stream):
            send_texts(peer, *[f"message {i}" for i in range(3000)])
            await arrived(peer)
            held.append(stream)

    held: list[Any] = []
    tracemalloc.start()
    try:
        net.run(test())
        before = tracemalloc.get_traced_memory()[0]
        held.clear()
        gc.collect()  # the server that made it knew it
        assert tracemalloc.get_traced_memory()[0] < before - 3000 * 50
    finally:
        tracemalloc.stop()
