"""A server: how it comes to listen, the connections that come of it, and how both end."""

from __future__ import annotations

import asyncio
import functools
import random
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import Any, Literal, NamedTuple, Union

from .arguments import accepts, check_context, check_optional, check_seconds
from .deflate import WSDeflate
from .picows import (
    ConnectionOptions,
    Registry,
    WSAutoPingStrategy,
    WSCloseCode,
    WSListener,
    WSProtocol,
    WSSlowPeerPolicy,
    WSTransport,
    checked_close,
    end_connections,
    refuse_handshakes,
    server_stats,
    wait_ended,
)
from .proxy import choose_aiofastnet, network
from .settings import LoggerLike, Settings, document_options
from .stats import WSServerStats
from .upgrade import WSUpgradeRequest, WSUpgradeResponseWithListener

_Decision = Union[WSListener, WSUpgradeResponseWithListener, None]
ServerListenerFactory = Callable[[WSUpgradeRequest], Union[_Decision, Awaitable[_Decision]]]


async def ws_create_server(
    ws_listener_factory: ServerListenerFactory,
    host: str | Sequence[str] | None = None,
    port: int | str | None = None,
    *,
    disconnect_on_exception: bool = True,
    websocket_handshake_timeout: float | None = 5,
    logger_name: str | LoggerLike | None = None,
    enable_auto_ping: bool = False,
    auto_ping_idle_timeout: float = 20,
    auto_ping_reply_timeout: float = 20,
    auto_ping_strategy: WSAutoPingStrategy = WSAutoPingStrategy.PING_WHEN_IDLE,
    enable_auto_pong: bool = True,
    max_frame_size: int | None = None,
    read_buffer_init_size: int = 16 * 1024,
    use_aiofastnet: bool | None = None,
    coalesce_writes: bool = True,
    enable_auto_close: bool = True,
    max_write_buffer_size: int | Literal["auto"] | None = "auto",
    slow_peer: WSSlowPeerPolicy = WSSlowPeerPolicy.DISCONNECT,
    receive_timeout: float | None = None,
    assemble_messages: bool = False,
    max_message_size: int = 10 * 1024 * 1024,
    compression: WSDeflate | None = None,
    subprotocols: Sequence[str] | None = None,
    origins: Sequence[str | re.Pattern[str] | None] | None = None,
    **kwargs: Any,
) -> WSServer:
    """Start a websocket server (RFC 6455 section 4.2).

    :param ws_listener_factory:
        Called for every well-formed request with its :class:`WSUpgradeRequest`, to decide by the
        path and the headers what becomes of it. It returns the :class:`WSListener` of the new
        connection; or a :class:`WSUpgradeResponseWithListener` to choose the response, which is
        sent to plain HTTP requests too if it is no 101 (health checks); or None for 404 Not
        Found. If it raises, the response is 500 Internal Server Error and the exception is logged.
        It may be a coroutine function, or return any other awaitable of these. That is cancelled
        when the client leaves or the server ends its clients meanwhile, and when
        `websocket_handshake_timeout` is over, which is answered by 503 Service Unavailable.
    :param host:
        The name or address to listen on, or a sequence of them. None or the empty string: all
        interfaces.
    :param port:
        The TCP port to listen on, a number or, as a str, a number or the name of a service. 0 or
        None: any free one, see the server's ``sockets``.
    .. the options, as picows/settings.py describes them
    :param kwargs:
        Further arguments for :meth:`asyncio.loop.create_server`: ``ssl``, ``backlog``,
        ``reuse_port``, ``start_serving`` and so on. A listening ``sock`` may be a Unix domain
        socket; the arguments are then for :meth:`asyncio.loop.create_unix_server`.
    :return: the :class:`WSServer`, listening already unless ``start_serving`` is False

    :raises ValueError, TypeError: an argument is wrong; nothing was opened
    :raises ImportError: `use_aiofastnet` is True, and aiofastnet is not installed
    :raises OSError: the system refused, for example because the port is taken
    """
    # So far the locals are the arguments.
    settings = Settings("server", locals())
    check_server_factory(ws_listener_factory)
    host = _checked_host(host)
    port = _checked_port(port)
    sock = kwargs.get("sock")
    check_optional("sock", sock, socket.socket)
    if sock is not None and not (host is None and port is None):
        raise ValueError("host and port must be None when there is a sock")
    check_context("ssl", kwargs.get("ssl"), ssl.PROTOCOL_TLS_CLIENT)
    loop = asyncio.get_running_loop()
    aiofastnet = choose_aiofastnet(loop, settings.use_aiofastnet, kwargs.get("ssl") is not None)
    connections = Registry()
    options = ConnectionOptions(settings, ws_listener_factory, connections)
    protocol_factory = functools.partial(WSProtocol, options)
    if sock is not None and sock.family == getattr(socket, "AF_UNIX", None):
        server = await network(loop, aiofastnet, "create_unix_server")(protocol_factory, **kwargs)
    else:
        create_server = network(loop, aiofastnet, "create_server")
        server = await create_server(protocol_factory, host, port, **kwargs)
    return WSServer(server, connections)


document_options(ws_create_server)


def check_server_factory(factory: object) -> None:
    if not accepts(factory, 1):
        raise TypeError(
            "ws_listener_factory must be callable with one argument, the request, "
            f"got {factory!r}"
        )


def _checked_host(host: object) -> Any:
    if host is None or isinstance(host, str):
        return host
    hosts = list(host) if isinstance(host, Iterable) else [host]
    if not hosts:
        raise ValueError(f"host must name at least one address, got {host!r}")
    if not isinstance(host, Iterable) or not all(isinstance(name, str) for name in hosts):
        raise TypeError(f"host must be a str, a sequence of them or None, got {host!r}")
    return hosts


def _checked_port(port: object) -> int | None:
    if port is None:
        return None
    number = port
    if isinstance(port, str):
        try:
            number = int(port) if port.isascii() and port.isdigit() else socket.getservbyname(port)
        except OSError:
            raise ValueError(f"port must be a number or the name of a service, got {port!r}") from None
    if not isinstance(number, int) or isinstance(number, bool):
        raise TypeError(f"port must be an int, a str or None, got {port!r}")
    if not 0 <= number <= 65535:
        raise ValueError(f"port must be from 0 to 65535, got {port!r}")
    return number


# How many seconds connections may take to end before nobody waits for them any longer: more than the limit that each has
# for itself, so that it has told its listener.
CLOSE_TIMEOUT = 6.0


class WSShutdownReport(NamedTuple):
    """What became of the connections in :meth:`WSServer.shutdown`."""

    closed: int
    """Both sides have said CLOSE."""
    aborted: int
    """The others: the client did not answer in time, or was lost."""


def _said_close_both(transport: WSTransport) -> bool:
    handshake = transport.close_handshake
    return handshake is not None and handshake.sent is not None and handshake.recv is not None


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

    def stats(self) -> WSServerStats:
        """What it and its connections have done so far, in figures.

        It takes a moment for each connection that there is, more for those for which something waits.

        :raises RuntimeError: called in another thread than that of the connections
        """
        return server_stats(self._connections)

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
        aborts those that have not ended after 6 seconds, or when it is cancelled once more.

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

    def refuse_clients(self) -> None:
        """End the opening handshakes that are under way, and those to come: the open connections go on.

        Clients that wait for the decision of a listener factory get 503 Service Unavailable.
        """
        refuse_handshakes(self._connections)

    async def shutdown(
        self,
        code: int = WSCloseCode.GOING_AWAY,
        reason: str | None = None,
        *,
        spread: float = 0.0,
        timeout: float = 10.0,
    ) -> WSShutdownReport:
        """Go away politely: listen no more, say CLOSE to every client, and wait for the answers.

        What was sent before reaches each client that reads. Clients in the opening handshake are
        cut. Until its CLOSE a connection goes on as before. When this is cancelled, the
        connections that are left are aborted.

        :param code: of the CLOSE, as for :meth:`WSTransport.send_close`: GOING_AWAY, or
            ``SERVICE_RESTART`` where clients shall come back
        :param reason: of the CLOSE
        :param spread: over how many seconds the CLOSEs are spread evenly, in a random order, so that
            clients who come back at once do not come in the same moment. 0: at once
        :param timeout: how many seconds each connection may take from its CLOSE to its end, before
            it is aborted
        :return: what became of the connections that were there
        :raises ValueError, TypeError: an argument is wrong; nothing has ended
        :raises RuntimeError: called in another event loop
        """
        checked_close(code, reason)
        if isinstance(spread, bool) or spread != 0:
            check_seconds("spread", spread)
        check_seconds("timeout", timeout)
        if asyncio.get_running_loop() is not self._loop:
            raise RuntimeError(f"{self!r} belongs to another event loop")
        self.close()
        refuse_handshakes(self._connections)
        transports = list(self._connections)
        random.shuffle(transports)
        closing = []
        try:
            begin = self._loop.time()
            for number, transport in enumerate(transports):
                if spread:
                    # Those that are late go one in each turn of the loop: in one lump they would make the next ones late.
                    due = begin + spread * number / len(transports)
                    await asyncio.sleep(max(0.0, due - self._loop.time()))
                closing.append(self._loop.create_task(transport.close(code, reason, timeout)))
            await asyncio.gather(*closing)
        except asyncio.CancelledError:
            for task in closing:
                task.cancel()
            self.abort_clients()
            raise
        closed = sum(map(_said_close_both, transports))
        return WSShutdownReport(closed, len(transports) - closed)

    async def wait_closed(self) -> None:
        """Wait until :meth:`close` is called, and the connections that are then being closed have ended.

        For these, which may be all after :meth:`close_clients`, it waits 6 seconds at most; for
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
