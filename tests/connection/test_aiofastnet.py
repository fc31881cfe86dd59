"""When aiofastnet is used; and the faults of its version that docs/guides/speed.rst tells of: a mended one is noticed here."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from picows import ws_connect
from tests.connection.networks import NETWORKS, Network, Recorder, over_every_tls, over_tcp_and_tls


@over_tcp_and_tls
def test_it_is_used_by_itself_where_it_is_quicker(net: Network) -> None:
    pytest.importorskip("aiofastnet")

    async def test() -> None:
        default = {"use_aiofastnet": None}
        async with net.pair(client_options=default, server_options=default) as ends:
            makers = [type(end.transport.underlying_transport).__module__.split(".")[0] for end in ends]
            gains = net.tls or isinstance(asyncio.get_running_loop(), asyncio.BaseEventLoop)
            assert [maker == "aiofastnet" for maker in makers] == [gains, gains]

    net.run(test())

ROOT = Path(__file__).parents[2]


@over_every_tls
@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01"], ids=["nothing", "part"])
def test_a_client_that_leaves_during_the_tls_handshake(net: Network, sent: bytes) -> None:
    """A health check opens a TCP connection and closes it. aiofastnet reports a class in place of an exception."""

    async def test() -> None:
        loop = asyncio.get_running_loop()
        reported: list[dict[str, Any]] = []
        others = loop.get_exception_handler()
        loop.set_exception_handler(lambda _, context: reported.append(context))
        async with net.serve(lambda request: Recorder()) as url:
            _, writer = await asyncio.open_connection("127.0.0.1", int(url.split(":")[2].strip("/")))
            writer.write(sent)
            writer.close()
            while net.fast and not reported:
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.02)
        loop.set_exception_handler(others)
        assert [context["exception"] for context in reported] == [ConnectionResetError] * net.fast

    net.run(test())


@pytest.mark.skipif(sys.platform == "win32", reason="numbers of sockets there are given again as it likes")
@pytest.mark.parametrize("net", [net for net in NETWORKS if net.fast and not net.tls], ids=str)
def test_a_connection_that_ends_while_it_is_made(net: Network) -> None:
    """aiofastnet lets the loop watch the socket behind connection_made even then: the next one of that number gets no events."""

    async def test() -> None:
        loop = asyncio.get_running_loop()
        numbers = []

        def broken(url: object) -> socket.socket:
            sock = socket.create_connection(listening.getsockname())
            sock.shutdown(socket.SHUT_WR)  # the request cannot be written
            numbers.append(sock.fileno())
            return sock

        with socket.create_server(("127.0.0.1", 0)) as listening:
            with pytest.raises(ConnectionError):
                await ws_connect(Recorder, "ws://127.0.0.1/", socket_factory=broken, use_aiofastnet=net.fast)
            await asyncio.sleep(0)
            with contextlib.ExitStack() as stack:
                ends: list[socket.socket] = []
                while numbers[0] not in [end.fileno() for end in ends]:  # the system gives the lowest number that is free
                    ends = [stack.enter_context(end) for end in socket.socketpair()]
                    assert min(end.fileno() for end in ends) <= numbers[0]
                ends.sort(key=lambda end: end.fileno() != numbers[0])
                ends[0].setblocking(False)
                receiving = asyncio.ensure_future(loop.sock_recv(ends[0], 1))
                await asyncio.sleep(0)
                ends[1].send(b"x")
                assert await asyncio.wait_for(receiving, 5) == b"x"

    net.run(test())


def test_it_need_not_be_installed() -> None:
    """What wants it says so; nothing else needs it."""
    code = (
        "import asyncio, sys\n"
        "sys.modules['aiofastnet'] = None\n"
        "from picows import WSListener, ws_connect, ws_create_server\n"
        "async def main():\n"
        "    server = await ws_create_server(lambda request: WSListener(), '127.0.0.1', 0)\n"
        "    url = 'ws://127.0.0.1:%d/' % server.sockets[0].getsockname()[1]\n"
        "    transport, _ = await ws_connect(WSListener, url)\n"
        "    print(type(transport.underlying_transport).__module__)\n"
        "    await transport.close()\n"
        "    try:\n"
        "        await ws_connect(WSListener, url, use_aiofastnet=True)\n"
        "    except ImportError as error:\n"
        "        print(error)\n"
        "    server.close()\n"
        "    await server.wait_closed()\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.stderr, done.returncode) == ("", 0)
    module, error = done.stdout.splitlines()
    assert module == "asyncio.selector_events"
    assert error == "use_aiofastnet=True needs the package aiofastnet, which is not installed (pip install picows[fast])"
