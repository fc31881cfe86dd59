"""The client as the package `websockets` has it: `connect`, its arguments, errors, redirects and reconnecting."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
import ssl as ssl_module
import traceback
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Literal, NamedTuple, cast
from urllib.parse import urljoin

from ..._deadline import Deadline
from ...client import HEADERS_OF_ONE_ORIGIN
from ...errors import WSHandshakeError, WSInvalidURL
from ...picows import ConnectionOptions, WSProtocol
from ...proxy import SocketFactory, dial
from ...settings import Settings
from ...upgrade import create_request
from ...url import WSParsedURL, parse_url
from .._errors import from_handshake, from_lost_connection, from_proxy
from .._options import (
    check_limits,
    check_logger,
    check_open_timeout,
    compression_settings,
    header_list,
    message_limits,
)
from .._proxy import checked_proxy, system_proxy, take_tls
from ..datastructures import HeadersLike
from ..exceptions import (
    InvalidMessage,
    InvalidStatus,
    InvalidURI,
    SecurityError,
)
from ..headers import validate_subprotocols
from ..http11 import USER_AGENT
from ..typing import LoggerLike, Origin, Subprotocol
from ..uri import parse_uri
from .connection import ClientConnection, Protocol

__all__ = ["ClientConnection", "connect", "unix_connect"]

MAX_REDIRECTS = int(os.environ.get("WEBSOCKETS_MAX_REDIRECTS", "10"))
INITIAL_DELAY = float(os.environ.get("WEBSOCKETS_BACKOFF_INITIAL_DELAY", "5"))
MIN_DELAY = float(os.environ.get("WEBSOCKETS_BACKOFF_MIN_DELAY", "3.1"))
MAX_DELAY = float(os.environ.get("WEBSOCKETS_BACKOFF_MAX_DELAY", "90"))
FACTOR = float(os.environ.get("WEBSOCKETS_BACKOFF_FACTOR", "1.618"))

_REDIRECT_STATUSES = (300, 301, 302, 303, 307, 308)
_TRANSIENT_STATUSES = (500, 502, 503, 504)

_TIMED_OUT = "timed out during opening handshake"

# Which choose where to connect, so that another server cannot be meant.
_OWN_DESTINATION = {
    "sock": "a preexisting socket",
    "unix": "a Unix socket",
    "host": "an explicit host or port",
    "port": "an explicit host or port",
}


def backoff(
    initial_delay: float = INITIAL_DELAY,
    min_delay: float = MIN_DELAY,
    max_delay: float = MAX_DELAY,
    factor: float = FACTOR,
) -> Generator[float, None, None]:
    """Delays in seconds: a random one up to `initial_delay`, then longer and longer ones."""
    yield random.random() * initial_delay
    delay = min_delay
    while True:
        yield min(delay, max_delay)
        delay = min(delay * factor, max_delay)


def process_exception(exc: Exception) -> Exception | None:
    """Whether connecting is tried again: None for what may pass, else the exception to raise.

    What the network fails by may pass, so do a connection that ends before the answer and the
    statuses 500, 502, 503 and 504.
    """
    if isinstance(exc, (OSError, TimeoutError, asyncio.TimeoutError)):
        return None
    if isinstance(exc, InvalidMessage) and isinstance(exc.__cause__, EOFError):
        return None
    if isinstance(exc, InvalidStatus) and exc.response.status_code in _TRANSIENT_STATUSES:
        return None
    return exc


class connect:
    """Connect to a WebSocket server: to be awaited, or for ``async with`` or ``async for``.

    ``await connect(...)`` is a connection, ``async with`` closes it, and ``async for`` connects
    again whenever the connection has ended, after longer and longer delays.

    :param uri: ``ws://`` or ``wss://``; a user name and a password are sent as basic authentication
    :param origin: the header Origin
    :param extensions: factories as `websockets.extensions.permessage_deflate` has them
    :param subprotocols: those that are offered, the preferred first
    :param compression: ``"deflate"``, or None for none
    :param additional_headers: further headers of the request; they win over our own
    :param user_agent_header: the header User-Agent, None: none
    :param proxy: the URL of a proxy, True: the system's, None: none
    :param process_exception: as :func:`process_exception`
    :param open_timeout: how many seconds connecting may take, None: no limit
    :param ping_interval: seconds between two pings, None: no pings
    :param ping_timeout: how many seconds a pong may take, None: no limit
    :param close_timeout: how many seconds closing may take, None: no limit
    :param reconnect_delays: makes the delays in seconds
    :param max_size: the largest message in bytes, or that and the largest frame; None: no limit
    :param max_queue: above how many waiting messages the socket is not read, or that and with how
        many it is again; None: any number
    :param write_limit: above how many bytes that wait to be written `send` waits, or that and
        below how many it goes on
    :param logger: in place of the logger ``websockets.client``
    :param create_connection: makes the connection: a subclass of :class:`ClientConnection`
    :param kwargs: `ssl`, `server_hostname`, `sock`, `host`, `port`, and what
        :meth:`asyncio.loop.create_connection` takes; for TLS with an HTTPS proxy `proxy_ssl`,
        `proxy_server_hostname`, `proxy_ssl_handshake_timeout` and `proxy_ssl_shutdown_timeout`

    :raises InvalidURI, InvalidProxy: a URL is wrong
    :raises OSError: the network failed
    :raises InvalidHandshake: the server, or the proxy, did not accept
    :raises TimeoutError: `open_timeout` is over
    """

    def __init__(
        self,
        uri: str,
        *,
        origin: Origin | None = None,
        extensions: Sequence[Any] | None = None,
        subprotocols: Sequence[Subprotocol] | None = None,
        compression: str | None = "deflate",
        additional_headers: HeadersLike | None = None,
        user_agent_header: str | None = USER_AGENT,
        proxy: str | Literal[True] | None = True,
        process_exception: Callable[[Exception], Exception | None] = process_exception,
        open_timeout: float | None = 10,
        ping_interval: float | None = 20,
        ping_timeout: float | None = 20,
        close_timeout: float | None = 10,
        reconnect_delays: Callable[[], Generator[float, None, None]] = backoff,
        max_size: int | tuple[int | None, int | None] | None = 1024 * 1024,
        max_queue: int | tuple[int | None, int | None] | None = 16,
        write_limit: int | tuple[int, int | None] = 32768,
        logger: LoggerLike | None = None,
        create_connection: Callable[..., ClientConnection] | None = None,
        **kwargs: Any,
    ) -> None:
        secure = parse_uri(uri).secure
        if not secure and kwargs.get("ssl") is not None:
            raise ValueError("ssl argument is incompatible with a ws:// URI")
        if subprotocols is not None:
            validate_subprotocols(subprotocols)
        self.uri = uri
        self.process_exception = process_exception
        self.open_timeout = open_timeout
        self.reconnect_delays = reconnect_delays
        self.logger: LoggerLike = logging.getLogger("websockets.client") if logger is None else logger
        self.connection: ClientConnection
        self._compression = compression_settings(compression, extensions)
        self._headers = (origin, subprotocols, additional_headers, user_agent_header)
        self._proxy = proxy
        self._max_size = max_size
        self._create_connection = ClientConnection if create_connection is None else create_connection
        self._connection_options: dict[str, Any] = {
            "ping_interval": ping_interval,
            "ping_timeout": ping_timeout,
            "close_timeout": close_timeout,
            "max_queue": max_queue,
            "write_limit": write_limit,
        }
        self._kwargs = kwargs

    # Connecting.

    def __await__(self) -> Generator[Any, None, ClientConnection]:
        return self._connect_in_time().__await__()

    async def _connect_in_time(self) -> ClientConnection:
        check_open_timeout(self.open_timeout)
        if self.open_timeout is not None and self.open_timeout <= 0:
            raise TimeoutError(_TIMED_OUT)
        try:
            # wait_for() lost a cancellation in the moment of success, before Python 3.12.
            with Deadline(asyncio.get_running_loop(), self.open_timeout):
                self.connection = await self._connect()
        except asyncio.TimeoutError as exc:
            if isinstance(exc, OSError) and exc.errno is not None:
                raise   # the system's own
            raise TimeoutError(_TIMED_OUT) from exc.__cause__
        return self.connection

    async def _connect(self) -> ClientConnection:
        options = self._options()
        target = self._target()
        for _ in range(MAX_REDIRECTS + 1):
            try:
                return await self._connect_to(target, options)
            except InvalidStatus as answer:
                target = target.redirected(answer)
        raise SecurityError(f"more than {MAX_REDIRECTS} redirects")

    def _options(self) -> ConnectionOptions:
        """What all connections of this object have in common; whatever is wrong raises here."""
        check_limits(**self._connection_options)
        check_logger(self.logger)
        if not callable(self._create_connection):
            raise TypeError(f"create_connection must be callable, got {self._create_connection!r}")
        max_message_size, max_frame_size = message_limits(self._max_size)
        settings = Settings(
            "client",
            {
                "websocket_handshake_timeout": None,    # open_timeout is for all of it
                "logger_name": self.logger,
                "max_frame_size": max_frame_size,
                "max_message_size": max_message_size,
                "enable_auto_close": True,
                "assemble_messages": True,
                "compression": self._compression,
            },
        )
        protocol = Protocol(self.logger)
        create_connection, connection_options = self._create_connection, self._connection_options

        # It does not know `self`, which knows the connection that knows this.
        def factory(request: object, response: object) -> ClientConnection:
            return create_connection(protocol, **connection_options)

        return ConnectionOptions(settings, factory)

    def _target(self) -> _Target:
        origin, subprotocols, additional_headers, user_agent = self._headers
        headers = header_list(additional_headers)
        given = {name.lower() for name, _ in headers}
        own = {
            "Origin": origin,
            "Sec-WebSocket-Protocol": ", ".join(subprotocols) if subprotocols else None,
            "User-Agent": user_agent,
        }
        own_list = [(name, value) for name, value in own.items() if value is not None and name.lower() not in given]
        return _Target(self.uri, header_list(own_list) + headers, self._proxy, self._kwargs)

    async def _connect_to(self, target: _Target, options: ConnectionOptions) -> ClientConnection:
        url = target.url()
        request = create_request(url, target.headers, self._compression)
        proxy = target.proxy_for(url)
        destination = target.destination(url, proxy)
        protocol = WSProtocol(options, request, url.is_secure)
        loop = asyncio.get_running_loop()
        try:
            try:
                await dial(loop, protocol, proxy=proxy, **destination)
            except Exception as exc:
                error = from_proxy(exc, proxy)
                raise error from error.__cause__
            try:
                _, connection = await protocol.wait_upgraded()
            except WSHandshakeError as exc:
                failure = from_handshake(exc)
                raise failure from failure.__cause__
            except ConnectionError as exc:
                lost = from_lost_connection(exc)
                raise lost from lost.__cause__
        except BaseException:
            protocol.abort()
            raise
        return cast(ClientConnection, connection)

    # async with

    async def __aenter__(self) -> ClientConnection:
        return await self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.connection.__aexit__(kind, error, trace)

    # async for

    async def __aiter__(self) -> AsyncIterator[ClientConnection]:
        delays: Generator[float, None, None] | None = None
        while True:
            try:
                connection = await self
            except Exception as exc:
                fatal = self.process_exception(exc)
                if fatal is exc:
                    raise
                if fatal is not None:
                    raise fatal from exc
                if delays is None:
                    delays = self.reconnect_delays()
                delay = next(delays)
                description = "".join(traceback.format_exception_only(type(exc), exc)).strip()
                self.logger.info("connect failed; reconnecting in %.1f seconds: %s", delay, description)
                await asyncio.sleep(delay)
                continue
            delays = None
            async with connection:
                yield connection


def unix_connect(path: str | os.PathLike[str] | None = None, uri: str | None = None, **kwargs: Any) -> connect:
    """As :class:`connect`, to a Unix domain socket.

    :param path: of the socket
    :param uri: its host stands in the header Host, and is what a certificate is checked for;
        ``ws://localhost/`` by default, ``wss://localhost/`` with `ssl`
    """
    if uri is None:
        uri = "ws://localhost/" if kwargs.get("ssl") is None else "wss://localhost/"
    return connect(uri, unix=True, path=path, **kwargs)


class _Target(NamedTuple):
    """A server to ask for the upgrade, and what is meant for that server only."""

    uri: str
    headers: list[tuple[str, str]]
    proxy: str | Literal[True] | None
    kwargs: dict[str, Any]

    def url(self) -> WSParsedURL:
        try:
            return parse_url(self.uri)
        except WSInvalidURL as exc:
            raise InvalidURI(self.uri, exc.msg) from exc

    def proxy_for(self, url: WSParsedURL) -> str | None:
        if self.proxy is None or self._own_destination() is not None:
            return None
        proxy = system_proxy(url) if self.proxy is True else self.proxy
        return None if proxy is None else checked_proxy(proxy)

    def _own_destination(self) -> str | None:
        return next((what for name, what in _OWN_DESTINATION.items() if self.kwargs.get(name) is not None), None)

    def destination(self, url: WSParsedURL, proxy: str | None) -> dict[str, Any]:
        """The arguments of `dial` that say where to, and by what TLS."""
        kwargs = dict(self.kwargs)
        context = kwargs.pop("ssl", True)
        if not url.is_secure:
            context = None
            if kwargs.get("server_hostname") is not None:
                raise ValueError("server_hostname is only meaningful with ssl")
        elif context is True:
            context = ssl_module.create_default_context()
        elif context is None or context is False:
            raise ValueError(f"ssl={context} is incompatible with a wss:// URI")
        Settings("client", {"ssl_context": context})
        proxy_tls = take_tls(kwargs, proxy)
        # Where to, in place of the URI; the certificate is still that of the URI's host.
        host, port = kwargs.pop("host", None), kwargs.pop("port", None)
        if host is not None and not isinstance(host, str):
            raise TypeError(f"host must be a str, got {host!r}")
        if port is not None and not isinstance(port, int):
            raise TypeError(f"port must be an int, got {port!r}")
        if url.is_secure and kwargs.get("server_hostname") is None:
            kwargs["server_hostname"] = url.host
        return {
            "url": replace(url, host=host or url.host, port=port or url.port),
            "ssl_context": context,
            "socket_factory": _socket_factory(kwargs),
            "use_aiofastnet": None,
            "connect_timeout": None,
            "tunnel_timeout": None,
            "kwargs": kwargs,
            **proxy_tls,
        }

    def redirected(self, answer: InvalidStatus) -> _Target:
        """Where a redirect leads; raises `answer` if it is none."""
        if answer.response.status_code not in _REDIRECT_STATUSES or "Location" not in answer.response.headers:
            raise answer
        uri = urljoin(self.uri, answer.response.headers["Location"])
        old, new = parse_uri(self.uri), parse_uri(uri)
        if old.secure and not new.secure:
            raise SecurityError(f"cannot follow redirect to non-secure URI {uri}") from answer
        if (old.secure, old.host, old.port) == (new.secure, new.host, new.port):
            if new.username is None and old.username is not None:
                uri = _with_user_info(uri, self.uri)
            return self._replace(uri=uri)
        own_destination = self._own_destination()
        if own_destination is not None:
            raise ValueError(f"cannot follow cross-origin redirect to {uri} with {own_destination}") from answer
        # Meant for the server they were written for, and for no other.
        headers = [(name, value) for name, value in self.headers if name.lower() not in HEADERS_OF_ONE_ORIGIN]
        kwargs = {name: value for name, value in self.kwargs.items() if name != "server_hostname"}
        return self._replace(uri=uri, headers=headers, kwargs=kwargs)


def _with_user_info(uri: str, source: str) -> str:
    user_info = source.partition("://")[2].partition("/")[0].rpartition("@")[0]
    scheme, _, rest = uri.partition("://")
    return f"{scheme}://{user_info}@{rest}"


def _socket_factory(kwargs: dict[str, Any]) -> SocketFactory | None:
    """What gives the socket, if there is one already, or it is a Unix one; takes its arguments out."""
    sock = kwargs.pop("sock", None)
    unix, path = kwargs.pop("unix", False), kwargs.pop("path", None)
    if sock is not None and not isinstance(sock, socket.socket):
        raise TypeError(f"sock must be a socket.socket, got {sock!r}")
    if unix:
        if path is None and sock is None:
            raise ValueError("no path and sock were specified")
        if path is not None and sock is not None:
            raise ValueError("path and sock can not be specified at the same time")
        if sock is None:
            return lambda endpoint: _unix_socket(path)
    return None if sock is None else lambda endpoint: sock


async def _unix_socket(path: Any) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, os.fspath(path))
    except BaseException:
        sock.close()
        raise
    return sock
