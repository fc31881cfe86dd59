"""A connection belongs to the thread of its loop: every method says so when it is called from another."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from picows import WSMsgType, WSServer, WSTransport, ws_create_server
from tests.connection.networks import Echo, Network, Received, Recorder, over_both_loops
from tests.connection.peers import REQUEST, TEXT, encode
from tests.connection.threads import call_in_thread

METHODS: dict[str, Callable[[WSTransport], Any]] = {
    "send": lambda transport: transport.send(WSMsgType.TEXT, b"lost"),
    "send_ping": lambda transport: transport.send_ping(b"lost"),
    "send_pong": lambda transport: transport.send_pong(b"lost"),
    "send_close": lambda transport: transport.send_close(1000),
    "send_reuse_external_bytearray": lambda transport: transport.send_reuse_external_bytearray(
        WSMsgType.TEXT, bytearray(20), 14
    ),
    "disconnect": lambda transport: transport.disconnect(),
    "notify_user_specific_pong_received": lambda transport: transport.notify_user_specific_pong_received(),
    "flush": lambda transport: transport.flush(),
    "cork": lambda transport: transport.cork(),
    "close": lambda transport: asyncio.run(transport.close()),
    "wait_disconnected": lambda transport: asyncio.run(transport.wait_disconnected()),
    "measure_roundtrip_time": lambda transport: asyncio.run(measure(transport)),
}


async def measure(transport: WSTransport) -> None:
    await transport.measure_roundtrip_time(1)


@over_both_loops
@pytest.mark.parametrize("side", [0, 1], ids=["client", "server"])
def test_the_wrong_thread(net: Network, side: int) -> None:
    async def test() -> None:
        async with net.pair() as pair:
            one, other = pair[side], pair[1 - side]
            for name, method in METHODS.items():
                ident, error = call_in_thread(method, one.transport)
                assert isinstance(error, RuntimeError), name
                # It names the method and both threads.
                assert name in str(error)
                assert str(ident) in str(error)
                assert str(threading.get_ident()) in str(error)
            # Nothing has happened.
            assert one.transport.close_handshake is None
            one.transport.send(WSMsgType.TEXT, b"right thread")
            assert await other.frames.get() == Received(TEXT, b"right thread")
            assert one.calls == ["connected"]

    net.run(test())


def test_a_cork_in_the_wrong_thread(net: Network) -> None:
    async def test() -> None:
        async with net.pair() as (client, server):
            cork = client.transport.cork()
            assert isinstance(call_in_thread(cork.__enter__)[1], RuntimeError)
            with cork:
                client.transport.send(WSMsgType.TEXT, b"gathered")
                assert isinstance(call_in_thread(cork.__exit__, None, None, None)[1], RuntimeError)
                assert client.transport.write_buffer_size > 0
            assert client.transport.write_buffer_size == 0
            assert await server.frames.get() == Received(TEXT, b"gathered")

    net.run(test())


def test_a_loop_that_goes_on_in_another_thread(net: Network) -> None:
    """Its transport asks for memory in a thread that has its own: it is told, and the connection ends."""
    loop = asyncio.new_event_loop()
    found: list[Any] = []
    loop.set_exception_handler(lambda _, context: found.append(context["exception"]))

    async def begin() -> tuple[WSServer, Recorder, socket.socket]:
        listener = Recorder()
        server = await ws_create_server(lambda _: listener, "127.0.0.1", 0)
        peer = socket.create_connection(server.sockets[0].getsockname())
        peer.sendall(REQUEST)
        while not listener.calls:
            await asyncio.sleep(0.001)
        return server, listener, peer

    try:
        server, listener, peer = loop.run_until_complete(begin())
        with peer:
            peer.sendall(encode(TEXT, b"x", mask=True))
            ident, error = call_in_thread(loop.run_until_complete, asyncio.wait_for(listener.disconnected.wait(), 20))
        assert error is None
        assert [type(each) for each in found[:1]] == [RuntimeError]
        assert f"belongs to thread {threading.get_ident()}" in str(found[0])
        assert f"runs in thread {ident}" in str(found[0])
        assert listener.calls == ["connected", "disconnected"]
        server.close()
        loop.run_until_complete(server.wait_closed())
    finally:
        loop.close()


def test_attributes_may_be_read_from_any_thread(net: Network) -> None:
    async def test() -> None:
        async with net.pair() as (client, _):

            def look() -> None:
                transport = client.transport
                assert transport.is_client_side
                assert not transport.is_disconnected
                assert not transport.is_secure
                assert transport.request.path == b"/"
                assert transport.close_handshake is None

            assert call_in_thread(look)[1] is None

    net.run(test())


def test_what_another_thread_may_just_have_found_lives_on(net: Network) -> None:
    """Without a GIL it may be about to take its reference to what `close_handshake` was."""

    async def test() -> None:
        async with net.pair() as (client, _):
            transport = client.transport
            transport.send_close(1000)
            of_ours = transport.close_handshake
            references = sys.getrefcount(of_ours)
            await client.disconnected.wait()
            assert transport.close_handshake is not of_ours
            assert sys.getrefcount(of_ours) == references

    net.run(test())


@over_both_loops
def test_a_loop_in_each_thread(net: Network) -> None:
    """Connections of several threads do not disturb each other."""
    errors: list[BaseException] = []

    async def talk(url: str, seed: int) -> None:
        client = await net.connect(Recorder, url)
        for i in range(200):
            payload = bytes([seed]) * (i * 97 % 5000)
            client.transport.send(WSMsgType.BINARY, payload)
            assert await client.payload() == payload
        client.transport.disconnect()
        await client.transport.wait_disconnected()

    async def test() -> None:
        async with net.serve(lambda request: Echo()) as url:

            def main(seed: int) -> None:
                try:
                    net.run(talk(url, seed))
                except BaseException as error:
                    errors.append(error)

            loop = asyncio.get_running_loop()
            await asyncio.gather(*(loop.run_in_executor(None, main, seed) for seed in range(6)))

    net.run(test())
    assert errors == []


def test_threads_share_what_they_may() -> None:
    """Views, last references, lists of connections and broadcasts cross threads; `make races` does it for longer."""
    root = Path(__file__).parents[2]
    command = [sys.executable, str(root / "fuzz" / "races.py"), "--seconds", "1", "--threads", "3", "--seed", "1"]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    run = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert run.returncode == 0, run.stdout
    assert " 0 faults" in run.stdout
