"""WSServer: what listens, the connections that came of it, and how both end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Collection

from .picows import Registry, WSTransport, end_connections, wait_ended

# How many seconds connections may take to end before nobody waits for them any longer.
CLOSE_TIMEOUT = 5.0


class WSServer(asyncio.AbstractServer):
    """A server that :func:`ws_create_server` has started, and its connections.

    It has all that :class:`asyncio.Server` has in the newest Python, on every event loop. Unlike
    the loop's own it never waits for clients that stay: not in :meth:`wait_closed`, not in
    :meth:`serve_forever`, and not at the end of ``async with``, which is :meth:`close` and
    :meth:`wait_closed`.

    Belongs to the thread of its event loop, apart from :attr:`connections`.
    """

    def __init__(self, server: asyncio.AbstractServer, connections: Registry) -> None:
        self._server = server  # the event loop's, or aiofastnet's
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._closed = self._loop.create_future()  # done once close() was called
        self._serves_forever = False

    def __repr__(self) -> str:
        return f"<WSServer sockets={self.sockets!r}, {len(self._connections)} connections>"

    @property
    def connections(self) -> Collection[WSTransport]:
        """The connections that are there: their number by ``len()``, iteration, and ``in``.

        A live view. It has a connection from just before ``on_ws_connected`` is called until
        just before ``on_ws_disconnected`` is: not in the opening handshake, but still while it is
        being closed. An iteration goes over those that are there when it begins, whatever comes
        or ends meanwhile, so ``ws_broadcast(server.connections, ...)`` sends to all. Any thread may
        look at it.
        """
        return self._connections

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """What it listens on; nothing once it is closed."""
        # uvloop has a list.
        return tuple(self._server.sockets)  # type: ignore[attr-defined]

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """The event loop it runs on."""
        return self._loop

    def is_serving(self) -> bool:
        """Whether it accepts new connections."""
        return self._server.is_serving()

    async def start_serving(self) -> None:
        """Begin to accept connections, after ``start_serving=False``; otherwise it has already.

        :raises RuntimeError: it is closed
        """
        self._check_open()
        await self._server.start_serving()

    async def serve_forever(self) -> None:
        """Accept connections until this is cancelled, as :func:`asyncio.run` does on Ctrl+C.

        Then it closes, sends CLOSE(GOING_AWAY) to every client, ends the connections gracefully, and
        aborts those that have not ended after 5 seconds, or when it is cancelled once more.

        When :meth:`close` is called meanwhile it ends at once, and leaves the connections alone.

        :raises asyncio.CancelledError: always, as the event loop's own does
        :raises RuntimeError: it is closed, or somebody else awaits this already
        """
        self._check_open()
        if self._serves_forever:
            raise RuntimeError(f"{self!r} is already being awaited on serve_forever()")
        self._serves_forever = True
        try:
            await self._server.start_serving()
            await asyncio.shield(self._closed)
        except asyncio.CancelledError:
            self.close()
            await self._end_connections()
            raise
        finally:
            self._serves_forever = False
        raise asyncio.CancelledError(f"{self!r} was closed")

    def close(self) -> None:
        """Listen no more. The connections that there are go on."""
        self._server.close()
        if not self._closed.done():
            self._closed.set_result(None)

    def close_clients(self) -> None:
        """End every connection: CLOSE(GOING_AWAY) is sent, behind all that was sent before.

        As after :meth:`WSTransport.disconnect` nothing more is delivered, and each ends within a
        bounded time, for which :meth:`wait_closed` waits. Clients in the opening handshake are
        cut. The server itself goes on, unless it is closed: first close it, then its clients.
        """
        end_connections(self._connections, graceful=True, refuse=self._closed.done())

    def abort_clients(self) -> None:
        """End every connection at once, without a CLOSE; what waits to be sent is dropped."""
        end_connections(self._connections, graceful=False, refuse=self._closed.done())
        self._abort_half_open()

    async def wait_closed(self) -> None:
        """Wait until :meth:`close` is called, and the connections that are then being closed have ended.

        For these, which may be all after :meth:`close_clients`, it waits 5 seconds at most; for
        clients that stay it does not wait.
        """
        await asyncio.shield(self._closed)
        await self._wait_ended()

    async def _end_connections(self) -> None:
        end_connections(self._connections, graceful=True, refuse=True)
        try:
            await self._wait_ended()
        finally:
            self.abort_clients()
        # Aborted or not, each is to see its on_ws_disconnected before the event loop is gone.
        await self._wait_ended()

    async def _wait_ended(self) -> None:
        # Not wait_for: before Python 3.12 it forgets a cancellation that comes with the result.
        waiting = self._loop.create_task(wait_ended(self._connections))
        try:
            await asyncio.wait([waiting], timeout=CLOSE_TIMEOUT)
        finally:
            waiting.cancel()

    def _abort_half_open(self) -> None:
        """Clients in the TLS handshake, of whom nobody knows but the server below, if it tells."""
        abort_clients = getattr(self._server, "abort_clients", None)
        if abort_clients is not None:
            abort_clients()

    def _check_open(self) -> None:
        if self._closed.done():
            raise RuntimeError(f"{self!r} is closed")
