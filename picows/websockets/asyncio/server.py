"""The server as the package `websockets` has it: `serve`, its arguments, handlers and shutdown."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import re
import socket
import stat
import sys
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable, Sequence
from types import TracebackType
from typing import Any

from ...picows import WSMsgType, ws_broadcast
from ...server import WSServer, ws_create_server
from .._options import check_limits, check_logger, check_open_timeout, compression_settings, message_limits
from ..exceptions import ConcurrencyError, ProtocolError
from ..frames import Close, CloseCode
from ..headers import validate_subprotocols
from ..http11 import SERVER
from ..protocol import State
from ..typing import DataLike, LoggerLike, Origin, Subprotocol
from ._basic_auth import basic_auth
from ._handshake import Handshake, ProcessRequest, ProcessResponse, SelectSubprotocol
from .connection import Connection, Protocol, ServerConnection

__all__ = ["Server", "ServerConnection", "basic_auth", "broadcast", "serve", "unix_serve"]

Handler = Callable[[ServerConnection], Awaitable[None]]

_HANDLER_NAME = "connection handler"
_LARGEST_CONTROL_PAYLOAD = 125  # RFC 6455 section 5.5


def serve(
    handler: Handler,
    host: str | Sequence[str] | None = None,
    port: int | None = None,
    *,
    origins: Sequence[Origin | re.Pattern[str] | None] | None = None,
    extensions: Sequence[Any] | None = None,
    subprotocols: Sequence[Subprotocol] | None = None,
    select_subprotocol: SelectSubprotocol | None = None,
    compression: str | None = "deflate",
    process_request: ProcessRequest | None = None,
    process_response: ProcessResponse | None = None,
    server_header: str | None = SERVER,
    open_timeout: float | None = 10,
    ping_interval: float | None = 20,
    ping_timeout: float | None = 20,
    close_timeout: float | None = 10,
    max_size: int | tuple[int | None, int | None] | None = 1024 * 1024,
    max_queue: int | tuple[int | None, int | None] | None = 16,
    write_limit: int | tuple[int, int | None] = 32768,
    logger: LoggerLike | None = None,
    create_connection: Callable[..., ServerConnection] | None = None,
    **kwargs: Any,
) -> Server:
    """Start a server: to be awaited, or for ``async with``, which closes it at the end.

    For each connection `handler` is called with the :class:`ServerConnection`. When it returns the
    connection is closed with code 1000; when it raises, with 1011, and the error is logged.

    :param handler: a coroutine function
    :param host: the names or addresses to listen on; None: all interfaces
    :param port: 0 or None: any free one
    :param origins: the values of the header Origin that are accepted: strings, patterns that match
        all of it, and None for a request without one. Others get 403
    :param extensions: factories as `websockets.extensions.permessage_deflate` has them
    :param subprotocols: those that are known, the preferred first; a client that offers none of
        them gets 400
    :param select_subprotocol: chooses in place of that: called with the connection and the
        subprotocols offered, returns one, or None for none; raises
        :exc:`~picows.websockets.NegotiationError` for a 400
    :param compression: ``"deflate"``, or None for none
    :param process_request: a function or coroutine function, called with the connection and the
        :class:`~picows.websockets.Request`; a :class:`~picows.websockets.Response` that it returns
        is sent in place of an upgrade
    :param process_response: the same, called with the :class:`~picows.websockets.Response` as well,
        which it may change or replace
    :param server_header: the header Server, None: none
    :param open_timeout: how many seconds the opening handshake may take, that of TLS the same
        again; None: no limit
    :param ping_interval: seconds between two pings, None: no pings
    :param ping_timeout: how many seconds a pong may take, None: no limit
    :param close_timeout: how many seconds closing may take, None: no limit
    :param max_size: the largest message in bytes, or that and the largest frame; None: no limit
    :param max_queue: above how many waiting messages the socket is not read, or that and with how
        many it is again; None: any number
    :param write_limit: above how many bytes that wait to be written `send` waits, or that and below
        how many it goes on
    :param logger: in place of the logger ``websockets.server``
    :param create_connection: makes a connection: a subclass of :class:`ServerConnection`
    :param kwargs: what :meth:`asyncio.loop.create_server` takes: `ssl`, `sock` and so on
    """
    if subprotocols is not None:
        validate_subprotocols(subprotocols)
    for name, hook in (
        ("handler", handler),
        ("select_subprotocol", select_subprotocol),
        ("process_request", process_request),
        ("process_response", process_response),
        ("create_connection", create_connection),
    ):
        if not callable(hook) and (hook is not None or name == "handler"):
            raise TypeError(f"{name} must be callable, got {hook!r}")
    if origins is not None:
        origins = _checked_origins(origins)
    if server_header is not None and not isinstance(server_header, str):
        raise TypeError(f"server_header must be a str or None, got {server_header!r}")
    check_open_timeout(open_timeout)
    limits: dict[str, Any] = {
        "ping_interval": ping_interval,
        "ping_timeout": ping_timeout,
        "close_timeout": close_timeout,
        "max_queue": max_queue,
        "write_limit": write_limit,
    }
    check_limits(**limits)
    max_message_size, max_frame_size = message_limits(max_size)
    if logger is None:
        logger = logging.getLogger("websockets.server")
    check_logger(logger)
    if kwargs.get("ssl") is not None:
        kwargs.setdefault("ssl_handshake_timeout", open_timeout or None)
    options: dict[str, Any] = {
        "websocket_handshake_timeout": open_timeout,
        "logger_name": logger,
        "max_frame_size": max_frame_size,
        "max_message_size": max_message_size,
        "enable_auto_close": True,
        "assemble_messages": True,
        "compression": compression_settings(compression, extensions),
    }

    async def listen(server: Server) -> WSServer:
        handshake = Handshake(
            server,
            functools.partial(
                create_connection or ServerConnection, Protocol(logger), server, **limits
            ),
            origins=origins,
            subprotocols=subprotocols,
            select_subprotocol=select_subprotocol,
            process_request=process_request,
            process_response=process_response,
            server_header=server_header,
        )
        if kwargs.pop("unix", False):
            kwargs["sock"] = _unix_socket(kwargs.pop("path", None), kwargs.get("sock"))
        return await ws_create_server(handshake, host, port, **options, **kwargs)

    return Server(listen, handler, logger)


def unix_serve(
    handler: Handler, path: str | os.PathLike[str] | None = None, **kwargs: Any
) -> Server:
    """As :func:`serve`, on a Unix domain socket.

    :param path: of the socket
    """
    return serve(handler, unix=True, path=path, **kwargs)


class Server:
    """A server that :func:`serve` starts when it is awaited or entered, and its connections.

    :param listen: a coroutine function, called with this server: starts to listen
    """

    def __init__(
        self,
        listen: Callable[[Server], Coroutine[Any, Any, WSServer]],
        handler: Handler,
        logger: LoggerLike | None = None,
    ) -> None:
        self.handler = handler
        self.logger: LoggerLike = (
            logging.getLogger("websockets.server") if logger is None else logger
        )
        self._listen = listen
        self._server: WSServer | None = None
        self._handlers: dict[asyncio.Future[None], ServerConnection] = {}  # those that run
        self._closings: set[asyncio.Task[None]] = set()  # of connections whose handler is done
        self._stopped: asyncio.Future[asyncio.Task[None]]  # what close() has begun
        # One object each for all connections.
        self._on_handler_done = self._handler_done
        self._on_closed = self._closings.discard

    # What `serve` returns.

    def __await__(self) -> Generator[Any, None, Server]:
        return self._start().__await__()

    async def _start(self) -> Server:
        if self._server is None:
            self._stopped = asyncio.get_running_loop().create_future()
            self._server = await self._listen(self)
            for sock in self._server.sockets:
                self.logger.info("server listening on %s", _name_of(sock))
        return self

    async def __aenter__(self) -> Server:  # noqa: PYI034  needs no newer Python
        return await self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
        await self.wait_closed()

    # As `asyncio.Server` has it.

    @property
    def _started(self) -> WSServer:
        if self._server is None:
            raise RuntimeError("the server was not started: await it")
        return self._server

    @property
    def connections(self) -> set[ServerConnection]:
        """Those that are open: through the opening handshake, and not in the closing one."""
        return {
            connection for connection in self._handlers.values() if connection.state is State.OPEN
        }

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """What it listens on; nothing once it is closed."""
        return self._started.sockets

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """The event loop it runs on."""
        return self._started.get_loop()

    def is_serving(self) -> bool:
        """Whether it accepts new connections."""
        return self._started.is_serving()

    async def start_serving(self) -> None:
        """Begin to accept connections, after ``start_serving=False``."""
        await self._started.start_serving()

    async def serve_forever(self) -> None:
        """Accept connections until this is cancelled; then close the server and the connections."""
        await self._started.start_serving()
        try:
            await asyncio.shield(self._stopped)
        except asyncio.CancelledError:
            self.close()
            await self.wait_closed()
            raise
        raise asyncio.CancelledError(f"{self!r} was closed")

    def close(
        self,
        close_connections: bool = True,
        code: CloseCode | int = CloseCode.GOING_AWAY,
        reason: str = "",
    ) -> None:
        """Accept no more connections, and close those that are there. Does nothing the second time.

        Opening handshakes get 503. See :meth:`wait_closed`.

        :param close_connections: False: leave them, until their handlers return
        :param code: what they are closed with
        :param reason: the same
        :raises ProtocolError: they may not be sent in a close frame
        """
        if len(Close(code, reason).serialize()) > _LARGEST_CONTROL_PAYLOAD:
            raise ProtocolError("control frame too long")
        server = self._started
        if not self._stopped.done():
            server.close()
            server.refuse_clients()
            closing = self._close(close_connections, code, reason)
            self._stopped.set_result(self.get_loop().create_task(closing))

    async def wait_closed(self) -> None:
        """Wait until :meth:`close` has done all: connections have ended, handlers returned."""
        closing = await asyncio.shield(self._stopped)
        await asyncio.shield(closing)

    async def _close(self, close_connections: bool, code: CloseCode | int, reason: str) -> None:
        server = self._started
        self.logger.info("server closing")
        if close_connections:
            for connection in self.connections:
                self._close_later(connection, code, reason)
        while waiting := [*self._handlers, *self._closings]:
            done, _ = await asyncio.wait(waiting)
            for task in done:
                # They have left, unless there was no memory for it.
                self._handlers.pop(task, None)
        if close_connections:
            server.abort_clients()  # who is in the handshake of TLS
        await server.wait_closed()
        self.logger.info("server closed")

    def _close_later(
        self, connection: ServerConnection, code: CloseCode | int, reason: str = ""
    ) -> None:
        task = self.get_loop().create_task(connection.close(code, reason))
        self._closings.add(task)
        task.add_done_callback(self._on_closed)

    # What connections call.

    def connection_open(self, connection: ServerConnection) -> None:
        if self.logger.isEnabledFor(logging.INFO):
            connection.logger.info("connection open")
        loop = self.get_loop()
        task: asyncio.Future[None]
        try:
            handling = self.handler(connection)
            if asyncio.iscoroutine(handling):
                # All have one name: before Python 3.12 each would keep a string of its own.
                task = loop.create_task(handling, name=_HANDLER_NAME)
            else:
                task = asyncio.ensure_future(handling, loop=loop)
        except Exception as error:
            task = loop.create_future()
            task.set_exception(error)
        self._handlers[task] = connection
        task.add_done_callback(self._on_handler_done)

    def connection_closed(self, connection: ServerConnection) -> None:
        if self.logger.isEnabledFor(logging.INFO):
            connection.logger.info("connection closed")

    def _handler_done(self, task: asyncio.Future[None]) -> None:
        connection = self._handlers.pop(task)
        code = CloseCode.NORMAL_CLOSURE
        if task.cancelled():
            code = CloseCode.INTERNAL_ERROR
        elif task.exception() is not None:
            code = CloseCode.INTERNAL_ERROR
            connection.logger.error("connection handler failed", exc_info=task.exception())
        if connection.state is not State.CLOSED:
            self._close_later(connection, code)


def _name_of(sock: socket.socket) -> str:
    name = sock.getsockname()
    if sock.family == socket.AF_INET:
        return f"{name[0]}:{name[1]}"
    return f"[{name[0]}]:{name[1]}" if sock.family == socket.AF_INET6 else str(name)


def _unix_socket(path: Any, sock: socket.socket | None) -> socket.socket:
    """A socket bound to `path`; what was left there gives way, as in `create_unix_server`."""
    if sock is not None:
        if path is not None:
            raise ValueError("path and sock can not be specified at the same time")
        return sock
    if path is None:
        raise ValueError("path was not specified, and no sock specified")
    name = os.fspath(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if (
            name[:1] not in ("\0", b"\0")
            and os.path.exists(name)
            and stat.S_ISSOCK(os.stat(name).st_mode)
        ):
            os.remove(name)
        sock.bind(name)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def _checked_origins(origins: Any) -> list[Origin | re.Pattern[str] | None]:
    if isinstance(origins, str) or not isinstance(origins, Iterable):
        raise TypeError(f"origins must be a list, got {origins!r}")
    checked = list(origins)
    for origin in checked:
        if origin is not None and not isinstance(origin, (str, re.Pattern)):
            raise TypeError(f"origins must be strings, patterns or None, got {origin!r}")
    return checked


def broadcast(
    connections: Iterable[Connection],
    message: DataLike,
    *,
    text: bool | None = None,
    raise_exceptions: bool = False,
) -> None:
    """Send one message to many connections, without waiting for any of them.

    Those that are not open are skipped. What slow ones do not take is queued: the time limit for
    pings ends the connection of a peer that takes nothing at all.

    :param connections: an iterable of connections
    :param message: a `str` is sent as TEXT, and `bytes`, a `bytearray` or a `memoryview` as BINARY
    :param text: True: as TEXT, False: as BINARY, whatever the type
    :param raise_exceptions: whether to raise an :exc:`ExceptionGroup`, in the end, of what
        otherwise is logged at WARNING (Python 3.11 and later)
    :raises TypeError: for a message of another type
    """
    if not isinstance(message, (str, bytes, bytearray, memoryview)):
        raise TypeError("data must be str or bytes")
    if raise_exceptions and sys.version_info < (3, 11):
        raise ValueError("raise_exceptions requires at least Python 3.11")
    as_text = isinstance(message, str) if text is None else text
    transports, errors = [], []
    for connection in connections:
        if connection.state is not State.OPEN:
            continue
        if connection.is_fragmenting:
            error = ConcurrencyError("sending a fragmented message")
            if raise_exceptions:
                errors.append(error)
            else:
                connection.logger.warning("skipped broadcast: %s", error)
            continue
        transports.append(connection.ws_transport)
    ws_broadcast(transports, WSMsgType.TEXT if as_text else WSMsgType.BINARY, message)
    if sys.version_info >= (3, 11) and errors:  # without it errors were refused above
        raise ExceptionGroup("skipped broadcast", errors)  # noqa: F821
