"""A connection that there is no memory for ends at once, and leaves the others alone."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import zlib
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from picows import WSDeflate, ws_connect, ws_create_server
from tests.connection.networks import TIME_LIMIT, Recorder, cut


class Loop(asyncio.SelectorEventLoop):
    """The transports of one side have no memory for the first that picows asks of them."""

    failing: str | None = None

    def _make_socket_transport(self, *args: Any, **kwargs: Any) -> Any:
        transport = super()._make_socket_transport(*args, **kwargs)  # type: ignore[misc]
        if self.failing == ("server" if kwargs.get("server") else "client"):
            transport.get_extra_info = no_memory
        return transport


def no_memory(*_: object, **__: object) -> Any:
    raise MemoryError("there is none")


def run(test: Callable[[Loop], Coroutine[Any, Any, None]]) -> list[object]:
    """What the loop's exception handler was told."""
    loop = Loop()
    told: list[object] = []
    loop.set_exception_handler(lambda _, context: told.append(context["exception"]))
    try:
        loop.run_until_complete(asyncio.wait_for(test(loop), TIME_LIMIT))
    finally:
        loop.close()
    return told


def test_a_client_without_memory_is_told_so() -> None:
    async def test(loop: Loop) -> None:
        loop.failing = "client"
        # It accepts nobody, so no connection of its own is left over when the loop ends.
        with socket.create_server(("127.0.0.1", 0)) as server:
            host, port = server.getsockname()
            with pytest.raises(MemoryError):
                await ws_connect(Recorder, f"ws://{host}:{port}/", use_aiofastnet=False)

    assert all(isinstance(error, MemoryError) for error in run(test))


def test_a_server_without_memory_for_a_client_closes_it_and_keeps_the_others() -> None:
    async def test(loop: Loop) -> None:
        server = await ws_create_server(
            lambda _: Recorder(), "127.0.0.1", 0, use_aiofastnet=False, websocket_handshake_timeout=None)
        host, port = server.sockets[0].getsockname()
        clients = [(await ws_connect(Recorder, f"ws://{host}:{port}/", use_aiofastnet=False))[1] for _ in range(2)]
        connections = set(server.connections)
        loop.failing = "server"
        reader, writer = await asyncio.open_connection(host, port)
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()
        assert set(server.connections) == connections
        loop.failing = None
        await cut(*clients)
        await asyncio.gather(*(transport.wait_disconnected() for transport in connections))
        assert len(server.connections) == 0
        server.close()

    assert any(isinstance(error, MemoryError) for error in run(test))


class FullZlib:
    """A module like zlib."""

    __name__ = "zlib"
    error = zlib.error
    compressobj = decompressobj = staticmethod(no_memory)


def test_missing_memory_is_no_wrong_argument() -> None:
    with pytest.raises(MemoryError):
        WSDeflate(zlib=FullZlib)  # type: ignore[arg-type]
