"""ws_reconnect: one connection after another, and every way to leave the loop."""

from __future__ import annotations

import asyncio
import itertools
import sys
import threading
from typing import Any

import pytest

from picows import WSTransport
from tests.connection.networks import Network, Recorder, over_both_loops, over_every_network, over_tcp_and_tls
from tests.connection.peers import CLOSE, Peer, close_code, serve_streams, upgrade_response
from tests.connection.reconnecting import ACCEPT, NEVER, Answers, reconnect, said_before_it_ended, status
from tests.ports import free_port

# One connection after another


@over_every_network
def test_each_round_has_a_connection_of_its_own(net: Network) -> None:
    async def test() -> None:
        accepted: list[Recorder] = []

        class Leaving(Recorder):
            def on_ws_connected(self, transport: WSTransport) -> None:
                super().on_ws_connected(transport)
                transport.disconnect()

        def factory(request: object) -> Recorder:
            accepted.append(Leaving())
            return accepted[-1]

        listeners = []
        async with net.serve(factory) as url:
            async for transport, listener in reconnect(net, url):
                assert listener.transport is transport
                await transport.wait_disconnected()
                listeners.append(listener)
                if len(listeners) == 3:
                    break
        assert len(set(map(id, listeners))) == len(accepted) == 3
        assert {tuple(listener.calls) for listener in listeners} == {("connected", "disconnected")}

    net.run(test())


@over_both_loops
def test_a_server_comes_and_goes(net: Network, delays: list[float]) -> None:
    async def test() -> None:
        port = free_port()
        came = asyncio.Event()

        async def stay() -> None:
            async for transport, _ in reconnect(net, f"ws://127.0.0.1:{port}/", logger_name="delays"):
                came.set()
                await transport.wait_disconnected()

        client = asyncio.ensure_future(stay())
        for _ in range(2):
            attempts = len(delays)
            while len(delays) < attempts + 3:  # nobody is there
                await asyncio.sleep(0)
            server = await asyncio.start_server(self_closing, "127.0.0.1", port)
            await came.wait()
            server.close()
            came.clear()
        client.cancel()
        await asyncio.wait({client})
        assert client.cancelled()

    async def self_closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(upgrade_response(await reader.readuntil(b"\r\n\r\n")))
        writer.close()

    net.run(test())


@over_tcp_and_tls
def test_a_connection_that_the_body_leaves_open_is_closed_before_the_next(net: Network) -> None:
    async def test() -> None:
        answers = Answers(ACCEPT)
        async with answers.serve(net) as url:
            async with reconnect(net, url) as connections:
                first, _ = await connections.__anext__()
                peer = await answers.peers.get()
                following = asyncio.ensure_future(connections.__anext__())
                assert close_code(await peer.receive()) == 1000
                assert len(answers.requests) == 1
                peer.send(CLOSE, b"\x03\xe8")
                await peer.close()
                second, _ = await following
                assert first.is_disconnected
                assert not second.is_disconnected
                ending = asyncio.ensure_future(said_before_it_ended(await answers.peers.get()))
            assert second.is_disconnected
            assert await ending == [1000]

    net.run(test())


# The ways out


@over_tcp_and_tls
@pytest.mark.parametrize("way", ["break", "return", "raise", "cancel"])
def test_a_loop_that_is_left_leaves_no_connection(net: Network, way: str) -> None:
    """By itself, without `async with`: the server hears a CLOSE, and `net.run` finds no socket and no task."""

    async def leave(url: str) -> None:
        async for transport, _ in reconnect(net, url):
            if way == "break":
                break
            if way == "return":
                return
            if way == "raise":
                raise LookupError("mine")
            asyncio.current_task().cancel()  # type: ignore[union-attr]
            await transport.wait_disconnected()

    async def test() -> None:
        answers = Answers(ACCEPT)
        async with answers.serve(net) as url:
            task = asyncio.ensure_future(leave(url))
            assert await said_before_it_ended(await answers.peers.get()) == [1001]
            await asyncio.wait({task})
            assert task.cancelled() or isinstance(task.exception(), LookupError if way == "raise" else type(None))

    net.run(test())


@over_both_loops
def test_a_program_may_end_with_the_loop(net: Network) -> None:
    """As by Ctrl+C: with `async with` nothing is left open, hence no warning."""
    program = f"""
import asyncio, sys, {net.loop}, picows

async def main():
    async with picows.ws_reconnect(picows.WSListener, sys.argv[1]) as connections:
        async for transport, _ in connections:
            asyncio.current_task().cancel()
            await transport.wait_disconnected()

try:
    {net.loop}.run(main())
except asyncio.CancelledError:
    print("Stopped")
"""

    async def test() -> None:
        answers = Answers(ACCEPT)
        async with answers.serve(net) as url:
            command = [sys.executable, "-W", "error", "-c", program, url]
            pipe, into_it = asyncio.subprocess.PIPE, asyncio.subprocess.STDOUT
            process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=into_it)
            peer = await answers.peers.get()
            assert await said_before_it_ended(peer) == [1000]
            assert await process.communicate() == (b"Stopped\n", None)

    net.run(test())


@over_both_loops
def test_an_iterator_that_is_dropped_in_another_thread(net: Network) -> None:
    async def test() -> None:
        answers = Answers(ACCEPT)
        async with answers.serve(net) as url:
            connections = [reconnect(net, url)]
            transport, _ = await connections[0].__anext__()
            thread = threading.Thread(target=connections.clear)
            thread.start()
            thread.join()
            assert await said_before_it_ended(await answers.peers.get()) == [1001]
            await transport.wait_disconnected()

    net.run(test())


@over_both_loops
@pytest.mark.parametrize("moment", ["body", "delay", "connecting"])
def test_aclose_ends_a_loop_from_outside(net: Network, moment: str, delays: list[float]) -> None:
    async def stay(connections: Any, in_body: asyncio.Future[None]) -> int:
        rounds = 0
        async for transport, _ in connections:
            rounds += 1
            in_body.set_result(None)
            await transport.wait_disconnected()
        return rounds

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await Peer(reader, writer, masks=False).lost()
        writer.close()

    async def test() -> None:
        answers = Answers(ACCEPT if moment == "body" else status(500))
        served = serve_streams(net, silent) if moment == "connecting" else answers.serve(net)
        async with served as url:
            connections = reconnect(net, url, backoff=NEVER, logger_name="delays")
            in_body = asyncio.get_running_loop().create_future()
            client = asyncio.ensure_future(stay(connections, in_body))
            if moment == "body":
                peer = await answers.peers.get()
                await in_body
                _, codes = await asyncio.gather(connections.aclose(), said_before_it_ended(peer))
                assert codes == [1000]
            else:
                while moment == "delay" and not delays:
                    await asyncio.sleep(0)
                await asyncio.sleep(0.01)
                await connections.aclose()
            assert await client == (moment == "body")
            assert await stay(connections, in_body) == 0

    net.run(test())


@over_both_loops
def test_cancelled_at_every_step(net: Network) -> None:
    """While it connects, and while it waits and tries again; `net.run` finds what is left open."""

    async def stay(connections: Any) -> None:
        async with connections:
            async for transport, _ in connections:
                await transport.wait_disconnected()

    async def test() -> None:
        server = net.serve(lambda request: Recorder(), enable_auto_close=True)
        async with server as url, Answers(status(500)).serve(net) as refusing:
            for connect_to, steps in itertools.product((url, refusing), range(25)):
                task = asyncio.ensure_future(stay(reconnect(net, connect_to)))
                for _ in range(steps):
                    await asyncio.sleep(0)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task

    net.run(test())


def test_an_attempt_at_a_time(net: Network) -> None:
    async def test() -> None:
        connections = reconnect(net, f"ws://127.0.0.1:{free_port()}/", backoff=NEVER)
        waiting = asyncio.ensure_future(connections.__anext__())
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="being waited for already"):
            await connections.__anext__()
        await connections.aclose()
        with pytest.raises(StopAsyncIteration):
            await waiting

    net.run(test())
