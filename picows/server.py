"""ws_create_server: how a server comes to listen."""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Union, cast

from .arguments import accepts, check_context, check_optional
from .deflate import WSDeflate
from .picows import (
    ConnectionOptions,
    WSAutoPingStrategy,
    WSListener,
    WSProtocol,
    WSSlowPeerPolicy,
)
from .proxy import choose_aiofastnet, network
from .settings import LoggerLike, Settings, document_options
from .upgrade import WSUpgradeRequest, WSUpgradeResponseWithListener

ServerListenerFactory = Callable[
    [WSUpgradeRequest], Union[WSListener, WSUpgradeResponseWithListener, None]
]


async def ws_create_server(
    ws_listener_factory: ServerListenerFactory,
    host: str | Sequence[str] | None = None,
    port: int | None = None,
    *,
    disconnect_on_exception: bool = True,
    websocket_handshake_timeout: float | None = 5,
    logger_name: str | LoggerLike | None = None,
    enable_auto_ping: bool = False,
    auto_ping_idle_timeout: float = 20,
    auto_ping_reply_timeout: float = 20,
    auto_ping_strategy: WSAutoPingStrategy = WSAutoPingStrategy.PING_WHEN_IDLE,
    enable_auto_pong: bool = True,
    max_frame_size: int = 10 * 1024 * 1024,
    read_buffer_init_size: int = 16 * 1024,
    use_aiofastnet: bool | None = None,
    coalesce_writes: bool = True,
    enable_auto_close: bool = False,
    max_write_buffer_size: int | None = None,
    slow_peer: WSSlowPeerPolicy = WSSlowPeerPolicy.DISCONNECT,
    receive_timeout: float | None = None,
    assemble_messages: bool = False,
    max_message_size: int = 10 * 1024 * 1024,
    compression: WSDeflate | None = None,
    **kwargs: Any,
) -> asyncio.Server:
    """Start a websocket server (RFC 6455 section 4.2).

    :param ws_listener_factory:
        Called for every well-formed request with its :class:`WSUpgradeRequest`, to decide by the
        path and the headers what becomes of it. It returns the :class:`WSListener` of the new
        connection; or a :class:`WSUpgradeResponseWithListener` to choose the response, which is
        sent to plain HTTP requests too if it is no 101 (health checks); or None for 404 Not
        Found. If it raises, the response is 500 Internal Server Error and the exception is logged.
    :param host:
        The name or address to listen on, or a sequence of them. None or the empty string: all
        interfaces.
    :param port:
        The TCP port to listen on. 0 or None: any free one, see the server's ``sockets``.
    .. the options, as picows/settings.py describes them
    :param kwargs:
        Further arguments for :meth:`asyncio.loop.create_server`: ``ssl``, ``backlog``,
        ``reuse_port``, ``start_serving`` and so on. A listening ``sock`` may be a Unix domain
        socket; the arguments are then for :meth:`asyncio.loop.create_unix_server`.
    :return: the server, listening already unless ``start_serving`` is False

    :raises ValueError, TypeError: an argument is wrong; nothing was opened
    :raises ImportError: `use_aiofastnet` is True, and aiofastnet is not installed
    :raises OSError: the system refused, for example because the port is taken
    """
    # So far the locals are the arguments.
    settings = Settings("server", locals())
    if not accepts(ws_listener_factory, 1):
        raise TypeError(
            "ws_listener_factory must be callable with one argument, the request, "
            f"got {ws_listener_factory!r}"
        )
    host = _checked_host(host)
    _check_port(port)
    sock = kwargs.get("sock")
    check_optional("sock", sock, socket.socket)
    if sock is not None and not (host is None and port is None):
        raise ValueError("host and port must be None when there is a sock")
    check_context("ssl", kwargs.get("ssl"), ssl.PROTOCOL_TLS_CLIENT)
    loop = asyncio.get_running_loop()
    aiofastnet = choose_aiofastnet(loop, settings.use_aiofastnet, kwargs.get("ssl") is not None)
    options = ConnectionOptions(settings, ws_listener_factory)
    protocol_factory = functools.partial(WSProtocol, options)
    if sock is not None and sock.family == getattr(socket, "AF_UNIX", None):
        server = await network(loop, aiofastnet, "create_unix_server")(protocol_factory, **kwargs)
    else:
        create_server = network(loop, aiofastnet, "create_server")
        server = await create_server(protocol_factory, host, port, **kwargs)
    return cast(asyncio.Server, server)


document_options(ws_create_server, "server")


def _checked_host(host: object) -> Any:
    if host is None or isinstance(host, str):
        return host
    hosts = list(host) if isinstance(host, Iterable) else [host]
    if not hosts:
        raise ValueError(f"host must name at least one address, got {host!r}")
    if not isinstance(host, Iterable) or not all(isinstance(name, str) for name in hosts):
        raise TypeError(f"host must be a str, a sequence of them or None, got {host!r}")
    return hosts


def _check_port(port: object) -> None:
    if port is None:
        return
    if not isinstance(port, int) or isinstance(port, bool):
        raise TypeError(f"port must be an int or None, got {port!r}")
    if not 0 <= port <= 65535:
        raise ValueError(f"port must be from 0 to 65535, got {port!r}")
