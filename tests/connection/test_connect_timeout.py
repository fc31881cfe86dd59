"""connect_timeout: all that comes before the upgrade request, and what the error says was waited for."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

import picows._tunnel  # noqa: F401  # loaded by the first connection over a proxy, in the time that a test gives it
from picows import WSListener
from tests.connection.networks import Network, Recorder, all_at_once, cut, over_both_loops, over_every_network
from tests.connection.proxies import (
    Redirector,
    be_silent,
    client_tls,
    open_sockets,
    scripted,
    sockets_closed_down_to,
)

LIMIT = 0.1


async def times_out(net: Network, url: str, waits_for: str, **options: Any) -> None:
    """Connecting ends in a TimeoutError of that sentence."""
    sentence = re.escape(f"no connection within 0.1 seconds (connect_timeout): still waiting for {waits_for}")
    with pytest.raises(asyncio.TimeoutError, match=f"^{sentence}$"):
        await net.connect(Recorder, url, connect_timeout=LIMIT, websocket_handshake_timeout=None, **options)


@contextlib.contextmanager
def full_server() -> Iterator[int]:
    """The port of a server whose queue is full, so that the kernel answers nobody's SYN."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listening.getsockname())
        yield listening.getsockname()[1]


@over_every_network
def test_a_server_that_is_silent_before_the_upgrade(net: Network) -> None:
    """In TCP, or in TLS."""

    async def test() -> None:
        before = open_sockets()
        if net.tls:
            async with scripted(be_silent) as port:
                await times_out(net, f"wss://127.0.0.1:{port}/", f"TCP and TLS of 127.0.0.1:{port}")
                await times_out(net, f"wss://localhost:{port}/", f"the name, TCP and TLS of localhost:{port}")
        else:
            with full_server() as port:
                await times_out(net, f"ws://127.0.0.1:{port}/", f"TCP of 127.0.0.1:{port}")
                await times_out(net, f"ws://localhost:{port}/", f"the name and TCP of localhost:{port}")
        await sockets_closed_down_to(before)

    net.run(test())


async def open_tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")


@over_both_loops
def test_a_silent_proxy_and_a_server_behind_one(net: Network) -> None:
    async def silent_proxy() -> None:
        async with scripted(be_silent) as port:
            waits_for = f"a tunnel by the http proxy 127.0.0.1:{port} to example.com:80"
            await times_out(net, "ws://example.com/", waits_for, proxy=f"http://127.0.0.1:{port}")

    async def proxy_without_tls() -> None:
        async with scripted(be_silent) as port:
            waits_for = f"TCP and TLS of 127.0.0.1:{port}"
            await times_out(
                net, "ws://example.com/", waits_for, proxy=f"https://127.0.0.1:{port}", proxy_ssl_context=client_tls()
            )

    async def silent_server() -> None:
        async with scripted(open_tunnel) as port:
            waits_for = "TLS with example.com:443, through the proxy"
            # Reading the system's authorities would take the others' time, on a busy machine all of it.
            options = {"proxy": f"http://127.0.0.1:{port}", "ssl_context": client_tls()}
            await times_out(net, "wss://example.com/", waits_for, **options)

    async def test() -> None:
        before = open_sockets()
        await all_at_once(silent_proxy(), proxy_without_tls(), silent_server())
        await sockets_closed_down_to(before)

    net.run(test())


@over_both_loops
def test_a_socket_factory_that_takes_its_time(net: Network) -> None:
    async def never(endpoint: object) -> socket.socket:
        await asyncio.Event().wait()
        raise AssertionError

    async def test() -> None:
        await times_out(net, "ws://example.com/", "the socket_factory", socket_factory=never)

    net.run(test())


@over_both_loops
def test_each_redirect_has_its_own_time(net: Network) -> None:
    async def test() -> None:
        async with scripted(be_silent) as port, Redirector(f"wss://127.0.0.1:{port}/").serve() as url:
            await times_out(net, url, f"TCP and TLS of 127.0.0.1:{port}")

    net.run(test())


@over_both_loops
def test_it_ends_with_the_connecting(net: Network) -> None:
    """What takes longer is not interrupted: the upgrade, and whatever the task does next."""

    async def test() -> None:
        async with net.serve(lambda request: WSListener()) as url:
            listener = await net.connect(Recorder, url, connect_timeout=LIMIT)
            await asyncio.sleep(2 * LIMIT)
            await cut(listener)
        async with scripted(be_silent) as port:
            connecting = asyncio.ensure_future(net.connect(Recorder, f"ws://127.0.0.1:{port}/", connect_timeout=LIMIT))
            await asyncio.sleep(2 * LIMIT)
            assert not connecting.done()
            connecting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await connecting

    net.run(test())


@over_both_loops
def test_a_cancellation_is_no_time_out(net: Network) -> None:
    async def test() -> None:
        before = open_sockets()
        async with scripted(be_silent) as port:
            connecting = asyncio.ensure_future(net.connect(Recorder, f"wss://127.0.0.1:{port}/", connect_timeout=None))
            await asyncio.sleep(LIMIT)
            assert not connecting.done()
            connecting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await connecting
        await sockets_closed_down_to(before)

    net.run(test())


@over_both_loops
@pytest.mark.skipif(sys.version_info < (3, 11), reason="before Python 3.11 a task does not count who cancels it")
def test_a_cancellation_counts_in_the_moment_in_which_the_time_is_over(net: Network) -> None:
    async def test() -> None:
        async with scripted(be_silent) as port:
            connecting = asyncio.ensure_future(net.connect(Recorder, f"wss://127.0.0.1:{port}/", connect_timeout=LIMIT))
            await asyncio.sleep(0)
            asyncio.get_running_loop().call_later(LIMIT, connecting.cancel)
            time.sleep(2 * LIMIT)  # both are due when the loop looks at its timers again
            with pytest.raises(asyncio.CancelledError):
                await connecting

    net.run(test())


@over_both_loops
def test_who_does_not_obey_the_time_limit_raises_its_own(net: Network) -> None:
    async def stubborn(endpoint: object) -> socket.socket:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise OSError("no socket") from None
        raise AssertionError

    async def test() -> None:
        with pytest.raises(OSError, match="no socket"):
            await net.connect(Recorder, "ws://example.com/", connect_timeout=0.01, socket_factory=stubborn)
        await asyncio.sleep(0)  # the task is not cancelled any more

    net.run(test())
