"""WSServer: what listens, its connections, and how both end, with clients in every state."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import signal
import ssl
import struct
import sys
import threading
from collections.abc import AsyncIterator, Callable, Collection
from typing import Any

import pytest

import picows.server
from picows import WSCloseCode, WSMsgType, WSServer, WSTransport, ws_broadcast
from tests.connection.networks import (
    Echo,
    Network,
    Recorder,
    cut,
    over_both_loops,
    over_every_network,
    over_every_tls,
    over_tcp_and_tls,
)
from tests.connection.peers import CLOSE, REQUEST, TEXT, close_code, stream
from tests.connection.proxies import client_tls
from tests.connection.servers import Served, all_frames, block, handshake_begun, leave, serving, turned_away, upgraded

HANG = 10.0  # seconds; longer than anything here waits that is not meant to hang


async def canceled(task: asyncio.Future[Any]) -> None:
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(asyncio.shield(task), HANG)


@over_every_network
def test_it_has_all_that_the_loops_own_server_has(net: Network) -> None:
    async def test() -> None:
        own = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0)
        own.close()
        public = {name for name in (*dir(own), *dir(asyncio.Server)) if not name.startswith("_")}
        async with serving(net) as (server, _, _):
            assert isinstance(server, WSServer)
            assert isinstance(server, asyncio.AbstractServer)
            assert {"close_clients", "abort_clients", "__aenter__", "__aexit__", *public} <= {*dir(server)}
            assert isinstance(server.sockets, tuple)
            assert server.get_loop() is asyncio.get_running_loop()
            assert server.is_serving()

    net.run(test())


@over_every_network
def test_connections_are_there_from_connected_to_disconnected(net: Network) -> None:
    async def test() -> None:
        seen: list[tuple[str, bool, int]] = []

        class Looking(Recorder):
            def on_ws_connected(self, transport: WSTransport) -> None:
                super().on_ws_connected(transport)
                seen.append(("connected", transport in connections, len(connections)))

            def on_ws_disconnected(self, transport: WSTransport) -> None:
                super().on_ws_disconnected(transport)
                seen.append(("disconnected", transport in connections, len(connections)))

        async with serving(net, Looking) as served, stream(net, served.url) as early:
            connections = served.server.connections
            assert isinstance(connections, Collection)
            await handshake_begun(net, served, early)
            seen.clear()
            while len(connections):
                await asyncio.sleep(0)
            client = await net.connect(Recorder, served.url)
            own = served.listeners[-1].transport
            assert len(connections) == 1
            assert list(connections) == [own]
            assert own in connections
            assert client.transport not in connections
            assert None not in connections
            await cut(client)
            await served.listeners[-1].disconnected.wait()
            assert list(connections) == []
            assert own not in connections
        assert seen[-2:] == [("connected", True, 1), ("disconnected", False, 0)]

    net.run(test())


@over_both_loops
def test_a_connection_that_is_being_closed_still_counts(net: Network) -> None:
    async def test() -> None:
        async with serving(net) as served, upgraded(net, served) as peer:
            transport = served.listeners[0].transport
            transport.send_close(WSCloseCode.OK)
            transport.disconnect()
            await peer.receive_all()
            assert not transport.is_disconnected
            assert list(served.server.connections) == [transport]
            assert transport in served.server.connections

    net.run(test())


@over_both_loops
def test_an_iteration_goes_over_those_that_were_there(net: Network) -> None:
    async def test() -> None:
        async with serving(net) as served:
            clients = [await net.connect(Recorder, served.url) for _ in range(4)]
            transports = {listener.transport for listener in served.listeners}
            met = []
            for transport in served.server.connections:
                met.append(transport)
                transport.disconnect(graceful=False)
                await transport.wait_disconnected()
            assert len(met) == 4
            assert set(met) == transports
            assert len(served.server.connections) == 0
            await cut(*clients)

    net.run(test())


@over_both_loops
def test_whoever_ends_first_the_others_stay(net: Network) -> None:
    async def test() -> None:
        async with serving(net) as served:
            clients = [await net.connect(Recorder, served.url) for _ in range(16)]
            left = {listener.transport for listener in served.listeners}
            order = list(left)
            random.Random(9).shuffle(order)
            for transport in order:
                transport.disconnect(graceful=False)
                await transport.wait_disconnected()
                left.remove(transport)
                assert set(served.server.connections) == left
                assert len(served.server.connections) == len(left)
            await cut(*clients)

    net.run(test())


@over_both_loops
def test_a_frame_can_be_sent_to_all(net: Network) -> None:
    async def test() -> None:
        async with serving(net) as served:
            clients = [await net.connect(Recorder, served.url) for _ in range(2)]
            assert ws_broadcast(served.server.connections, WSMsgType.TEXT, "news") == 2
            assert [await client.payload() for client in clients] == [b"news"] * 2
            await cut(*clients)

    net.run(test())


@over_every_network
def test_close_leaves_connections_alone_and_nobody_waits_for_them(net: Network) -> None:
    async def test() -> None:
        async with serving(net, Echo) as served, stream(net, served.url) as early:
            await handshake_begun(net, served, early)
            idle = await net.connect(Recorder, served.url)
            stuck = await net.connect(Recorder, served.url)
            stuck.transport.underlying_transport.pause_reading()
            block(served.listeners[-1].transport)
            served.server.close()
            served.server.close()
            await asyncio.wait_for(served.server.wait_closed(), HANG)
            assert served.server.sockets == ()
            assert not served.server.is_serving()
            assert await turned_away(served.url)
            idle.transport.send(WSMsgType.TEXT, b"still here")
            assert await idle.payload() == b"still here"
            await cut(idle, stuck)

    net.run(test())


@over_every_network
def test_wait_closed_waits_for_close(net: Network) -> None:
    async def test() -> None:
        async with serving(net) as served:
            waiting = [asyncio.ensure_future(served.server.wait_closed()) for _ in range(2)]
            await asyncio.sleep(0)
            waiting[0].cancel()
            await canceled(waiting[0])
            await cut(await net.connect(Recorder, served.url))
            assert not waiting[1].done()
            served.server.close()
            await asyncio.wait_for(waiting[1], HANG)

    net.run(test())


@over_every_network
def test_close_clients_tells_each_and_they_are_waited_for(net: Network) -> None:
    async def test() -> None:
        async with serving(net) as served, upgraded(net, served) as raw, stream(net, served.url) as early:
            client = await net.connect(Recorder, served.url, enable_auto_close=True)
            await handshake_begun(net, served, early)
            for transport in served.server.connections:
                transport.send(WSMsgType.TEXT, "last words")
            served.server.close()
            served.server.close_clients()
            reading = asyncio.ensure_future(all_frames(raw))
            await asyncio.wait_for(served.server.wait_closed(), HANG)
            assert [listener.calls for listener in served.listeners] == [["connected", "disconnected"]] * len(served.listeners)
            assert len(served.server.connections) == 0
            last, close = await reading
            assert last.payload == b"last words"
            assert close_code(close) == WSCloseCode.GOING_AWAY
            assert [frame.msg_type for frame in await client.take(2)] == [TEXT, CLOSE]
            await early.lost()
            await client.transport.wait_disconnected()
            assert client.transport.close_handshake.recv.code == WSCloseCode.GOING_AWAY

    net.run(test())


@over_every_network
def test_a_server_whose_clients_were_ended_goes_on(net: Network) -> None:
    @contextlib.asynccontextmanager
    async def ended(served: Served, end: Callable[[], None]) -> AsyncIterator[Any]:
        client = await net.connect(Recorder, served.url)
        end()
        await client.disconnected.wait()
        yield client
        await client.transport.wait_disconnected()

    async def test() -> None:
        async with serving(net, Echo) as served:
            async with ended(served, served.server.close_clients) as client:
                assert [close_code(frame) for frame in client.rest()] == [WSCloseCode.GOING_AWAY]
            async with ended(served, served.server.abort_clients) as client:
                assert client.rest() == []
            client = await net.connect(Recorder, served.url)
            client.transport.send(WSMsgType.TEXT, b"again")
            assert await client.payload() == b"again"
            await cut(client)

    net.run(test())


@over_tcp_and_tls
def test_abort_clients_drops_what_waits(net: Network) -> None:
    async def test() -> None:
        async with serving(net) as served, upgraded(net, served) as peer, stream(net, served.url) as early:
            await handshake_begun(net, served, early)
            block(served.listeners[0].transport)
            served.server.close()
            served.server.abort_clients()
            leave(peer)
            await asyncio.wait_for(served.server.wait_closed(), HANG)
            assert len(served.server.connections) == 0
            await early.lost()

    net.run(test())


@over_both_loops
def test_who_takes_too_long_to_end_is_waited_for_a_while(net: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picows.server, "CLOSE_TIMEOUT", 0.05)

    async def test() -> None:
        async with serving(net) as served, upgraded(net, served):
            transport = served.listeners[0].transport
            block(transport)
            served.server.close()
            served.server.close_clients()
            before = asyncio.all_tasks()
            await asyncio.wait_for(served.server.wait_closed(), HANG)
            # It may take longer than somebody waits: nothing was cut.
            assert list(served.server.connections) == [transport]
            assert transport.write_buffer_size > 0
            await asyncio.sleep(0)
            assert asyncio.all_tasks() == before  # nobody goes on waiting

    net.run(test())


@over_every_tls
@pytest.mark.parametrize("cancelled", [False, True], ids=["close_clients", "serve_forever"])
def test_who_comes_out_of_the_tls_handshake_too_late_is_cut(net: Network, cancelled: bool) -> None:
    async def test() -> None:
        # While a client stays that does not answer.
        async with serving(net) as served, upgraded(net, served) as staying:
            forever = asyncio.ensure_future(served.server.serve_forever()) if cancelled else None
            host, port = served.server.sockets[0].getsockname()
            reader, writer = await asyncio.open_connection(host, port)
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            client = client_tls().wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
            with pytest.raises(ssl.SSLWantReadError):
                client.do_handshake()
            writer.write(outgoing.read())
            while True:
                incoming.write(await reader.read(65536))
                with contextlib.suppress(ssl.SSLWantReadError):
                    client.do_handshake()
                    break
            # The server waits for the last words of the handshake.
            if forever is not None:
                forever.cancel()
                await asyncio.sleep(0)
            else:
                served.server.close()
                served.server.close_clients()
            client.write(REQUEST)
            writer.write(outgoing.read())
            with contextlib.suppress(ConnectionError):
                while data := await asyncio.wait_for(reader.read(65536), HANG):
                    incoming.write(data)
            with contextlib.suppress(ssl.SSLError):
                assert client.read(65536) == b""
            assert len(served.listeners) == 1
            writer.close()
            leave(staying)
            if forever is not None:
                await canceled(forever)

    net.run(test())


@over_every_network
def test_serve_forever_tells_every_client_when_it_is_cancelled(net: Network) -> None:
    async def test() -> None:
        async with serving(net, Echo) as served, upgraded(net, served) as raw, stream(net, served.url) as early:
            forever = asyncio.ensure_future(served.server.serve_forever())
            client = await net.connect(Recorder, served.url, enable_auto_close=True)
            await handshake_begun(net, served, early)
            client.transport.send(WSMsgType.TEXT, b"echo")
            assert await client.payload() == b"echo"
            forever.cancel()
            reading = asyncio.ensure_future(all_frames(raw))
            await canceled(forever)
            assert len(served.server.connections) == 0
            assert all(listener.calls == ["connected", "disconnected"] for listener in served.listeners)
            assert [close_code(frame) for frame in await reading] == [WSCloseCode.GOING_AWAY]
            assert [close_code(frame) for frame in await client.take(1)] == [WSCloseCode.GOING_AWAY]
            await early.lost()
            assert await turned_away(served.url)
            await client.transport.wait_disconnected()

    net.run(test())


@over_tcp_and_tls
def test_serve_forever_aborts_who_does_not_end_in_time(net: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picows.server, "CLOSE_TIMEOUT", 0.05)

    async def test() -> None:
        async with serving(net) as served, upgraded(net, served) as peer:
            forever = asyncio.ensure_future(served.server.serve_forever())
            await asyncio.sleep(0)
            block(served.listeners[0].transport)
            forever.cancel()
            await canceled(forever)
            leave(peer)
            assert served.listeners[0].calls == ["connected", "disconnected"]
            assert len(served.server.connections) == 0

    net.run(test())


@over_both_loops
def test_whoever_cancels_twice_does_not_want_to_wait(net: Network) -> None:
    async def test() -> None:
        async with serving(net) as served, upgraded(net, served):
            forever = asyncio.ensure_future(served.server.serve_forever())
            await asyncio.sleep(0)
            transport = served.listeners[0].transport
            block(transport)
            forever.cancel()
            await asyncio.sleep(0)
            assert transport in served.server.connections
            assert not forever.done()
            forever.cancel()
            with pytest.raises(asyncio.CancelledError):
                await forever
            assert transport.write_buffer_size == 0 or transport.underlying_transport.is_closing()
            await served.listeners[0].disconnected.wait()

    net.run(test())


@over_every_network
def test_close_ends_serve_forever_and_leaves_connections_alone(net: Network) -> None:
    async def test() -> None:
        async with serving(net, Echo) as served:
            client = await net.connect(Recorder, served.url)
            forever = asyncio.ensure_future(served.server.serve_forever())
            await asyncio.sleep(0)
            served.server.close()
            await canceled(forever)
            client.transport.send(WSMsgType.TEXT, b"still here")
            assert await client.payload() == b"still here"
            await cut(client)

    net.run(test())


@over_both_loops
def test_both_close_and_cancel_end_the_clients(net: Network) -> None:
    async def test() -> None:
        async with serving(net) as served:
            client = await net.connect(Recorder, served.url, enable_auto_close=True)
            forever = asyncio.ensure_future(served.server.serve_forever())
            await asyncio.sleep(0)
            served.server.close()
            forever.cancel()
            await canceled(forever)
            assert [close_code(frame) for frame in await client.take(1)] == [WSCloseCode.GOING_AWAY]
            await client.transport.wait_disconnected()

    net.run(test())


@over_every_network
def test_it_starts_to_serve_when_told(net: Network) -> None:
    async def test() -> None:
        for start in ("start_serving", "serve_forever"):
            async with serving(net, start_serving=False) as served:
                assert not served.server.is_serving()
                starting = asyncio.ensure_future(getattr(served.server, start)())
                await cut(await connect_when_it_listens(net, served))
                assert served.server.is_serving()
                if start == "serve_forever":
                    with pytest.raises(RuntimeError, match="already being awaited"):
                        await served.server.serve_forever()
                    starting.cancel()
                    await canceled(starting)
                    await asyncio.wait_for(served.server.wait_closed(), HANG)
                    with pytest.raises(RuntimeError, match="is closed"):
                        await served.server.serve_forever()
                    with pytest.raises(RuntimeError, match="is closed"):
                        await served.server.start_serving()
                else:
                    await starting

    net.run(test())


async def connect_when_it_listens(net: Network, served: Served) -> Any:
    while True:
        await asyncio.sleep(0)
        with contextlib.suppress(ConnectionError):
            return await net.connect(Recorder, served.url)


@over_every_network
def test_async_with_closes_and_does_not_wait_for_clients(net: Network) -> None:
    async def test() -> None:
        async with serving(net, Echo) as served:
            client = await net.connect(Recorder, served.url)

            async def use() -> None:
                async with served.server as entered:
                    assert entered is served.server
                    raise LookupError

            with pytest.raises(LookupError):
                await asyncio.wait_for(use(), HANG)
            assert not served.server.is_serving()
            client.transport.send(WSMsgType.TEXT, b"still here")
            assert await client.payload() == b"still here"
            await cut(client)

    net.run(test())


@over_both_loops
def test_another_thread_may_look_and_not_end(net: Network) -> None:
    async def test() -> None:
        async with serving(net) as served:
            client = await net.connect(Recorder, served.url)
            found: list[Any] = []

            def look() -> None:
                found.append((len(served.server.connections), list(served.server.connections)))
                for end in (served.server.close_clients, served.server.abort_clients):
                    with pytest.raises(RuntimeError, match=f"thread {threading.get_ident()}.*thread {own}"):
                        end()
                found.append("refused")

            own = threading.get_ident()
            thread = threading.Thread(target=look)
            thread.start()
            thread.join()
            assert found == [(1, [served.listeners[0].transport]), "refused"]
            assert not client.transport.is_disconnected
            await cut(client)

    net.run(test())


@over_both_loops
def test_the_repr_says_where_and_how_many(net: Network) -> None:
    async def test() -> None:
        async with serving(net) as served:
            assert str(served.server.sockets[0].getsockname()[1]) in repr(served.server)
            assert "0 connections" in repr(served.server)
            assert repr(served.server.connections) == "<0 connections of a server>"

    net.run(test())


def test_a_connection_takes_32_bytes_in_the_list_at_most() -> None:
    async def test() -> None:
        net = Network()
        async with serving(net) as served:
            (listing,) = [found for found in gc.get_referents(served.server.connections) if isinstance(found, list)]
            empty = sys.getsizeof(listing)
            clients = [await net.connect(Recorder, served.url) for _ in range(65)]
            its_number = struct.calcsize("n")  # in the connection itself
            assert (sys.getsizeof(listing) - empty) / len(clients) + its_number <= 32
            await cut(*clients)

    Network().run(test())


SERVE = """
import asyncio, signal, sys
from picows import WSListener, ws_create_server
from tests.connection.proxies import server_tls

class Listener(WSListener):
    def on_ws_connected(self, transport):
        if len(server.connections) == 3:
            # When nothing is left to do. Before Python 3.11 a KeyboardInterrupt is raised wherever the program is, and
            # uvloop takes one in the callback of a transport for an error of the connection.
            asyncio.get_running_loop().call_later(0.1, print, "idle")

    def on_ws_disconnected(self, transport):
        print("disconnected")

async def main():
    global server
    tls = {"ssl": server_tls()} if sys.argv[2] == "tls" else {}
    server = await ws_create_server(lambda request: Listener(), "127.0.0.1", 0, use_aiofastnet=sys.argv[3] == "fast", **tls)
    print(server.sockets[0].getsockname()[1])
    await server.serve_forever()

if sys.argv[1] == "uvloop":
    import uvloop
    uvloop.install()
# Where the tests themselves run in the background, SIGINT was ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT for one process")
@over_every_network
def test_ctrl_c_ends_it_and_clients_are_told(net: Network) -> None:
    async def test() -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-u", "-W", "ignore::DeprecationWarning", "-c", SERVE,
            net.loop, "tls" if net.tls else "tcp", "fast" if net.fast else "own",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
        try:
            await asyncio.wait_for(interrupt(process), 2 * HANG)
        finally:
            if process.returncode is None:
                process.kill()
                await process.communicate()

    async def interrupt(process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        url = f"ws://127.0.0.1:{int(await process.stdout.readline())}/"
        served = Served(None, url, [])  # type: ignore[arg-type]
        async with contextlib.AsyncExitStack() as stack:
            early = await stack.enter_async_context(stream(net, url))
            early.write(REQUEST[:20])
            peers = [await stack.enter_async_context(upgraded(net, served)) for _ in range(3)]
            assert await process.stdout.readline() == b"idle\n"
            process.send_signal(signal.SIGINT)
            began = asyncio.get_running_loop().time()
            for peer in peers:
                assert [close_code(frame) for frame in await all_frames(peer)] == [WSCloseCode.GOING_AWAY]
            await early.lost()
            output, errors = await process.communicate()
            assert errors.decode() == ""
            assert output.decode().split() == ["disconnected"] * 3 + ["interrupted"]
            assert process.returncode == 0
            assert asyncio.get_running_loop().time() - began < picows.server.CLOSE_TIMEOUT

    asyncio.run(test())
