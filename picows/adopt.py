"""ws_adopt: a websocket connection out of one that another server has accepted."""

from __future__ import annotations

import asyncio
from typing import Any

from .deflate import WSDeflate
from .picows import (
    ConnectionOptions,
    WSAutoPingStrategy,
    WSProtocol,
    WSSlowPeerPolicy,
    WSTransport,
    adopt,
)
from .server import ServerListenerFactory, check_server_factory
from .settings import LoggerLike, Settings, document_options

# What a connection calls. Reading may be paused by others only, so there need be no way to do so.
_TRANSPORT_METHODS = (
    "abort",
    "can_write_eof",
    "close",
    "get_extra_info",
    "get_write_buffer_size",
    "is_closing",
    "set_protocol",
    "write",
    "write_eof",
    "writelines",
)


def ws_adopt(
    ws_listener_factory: ServerListenerFactory,
    transport: asyncio.Transport,
    request: bytes | bytearray | memoryview,
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
    coalesce_writes: bool = True,
    enable_auto_close: bool = False,
    max_write_buffer_size: int | None = None,
    slow_peer: WSSlowPeerPolicy = WSSlowPeerPolicy.DISCONNECT,
    receive_timeout: float | None = None,
    assemble_messages: bool = False,
    max_message_size: int = 10 * 1024 * 1024,
    compression: WSDeflate | None = None,
) -> WSTransport:
    """Take over a client that another server has accepted and whose request it has read.

    From then on picows is the protocol of the transport, and all is as on a connection of
    :func:`ws_create_server`: the request is checked and answered (RFC 6455 section 4.2), and what
    is read goes to the listener. It may be called anywhere in the thread of the event loop, from
    ``data_received`` of the protocol before or from a coroutine. Frames that came right behind the
    request are delivered before it returns.

    The connection belongs to no :class:`WSServer`: whoever accepted it also ends it.

    :param ws_listener_factory:
        As for :func:`ws_create_server`: called with the :class:`WSUpgradeRequest`, it returns a
        listener, or refuses by a response.
    :param transport:
        The asyncio transport of the connection: TCP, TLS or any other that has the methods of a
        :class:`asyncio.Transport`. Frames are written straight to its socket, unless it has none
        (``get_extra_info("socket")`` is None) or TLS lies above it. What was written to it before
        goes out first. Reading is resumed if it is paused. The transport of an
        :class:`asyncio.StreamWriter` is closed when nothing refers to the writer any more: keep the
        writer until the connection has ended.
    :param request:
        All bytes that were read: the request, with its head as it came or written anew, and what
        came behind it. If it is not complete yet, the rest is awaited.
    .. the options, as picows/settings.py describes them
    :return:
        The transport of the connection. Its `response` is what was answered: with the status 101
        it is open; otherwise it is being closed; None while the request is not complete, or a
        listener factory that is a coroutine decides about it.

    :raises ValueError, TypeError: an argument is wrong; nothing was written, and the transport
        still has its protocol
    :raises ConnectionResetError: the transport is closed or closing already
    :raises RuntimeError: no event loop runs in this thread
    """
    # So far the locals are the arguments.
    settings = Settings("server", locals())
    check_server_factory(ws_listener_factory)
    _check_transport(transport)
    try:
        received = memoryview(request).cast("B")
    except TypeError:
        raise TypeError(f"request must be bytes, got {request!r}") from None
    options = ConnectionOptions(settings, ws_listener_factory)
    asyncio.get_running_loop()
    if transport.is_closing():
        # Its protocol of before was told of the end, or will be; nobody would tell us.
        raise ConnectionResetError(f"the connection ended before it was taken over: {transport!r}")
    protocol = WSProtocol(options)
    transport.set_protocol(protocol)
    return adopt(protocol, transport, received)


document_options(ws_adopt)


def _check_transport(transport: Any) -> None:
    for method in _TRANSPORT_METHODS:
        if not callable(getattr(transport, method, None)):
            raise TypeError(
                f"transport must be an asyncio.Transport, got {transport!r}, "
                f"which has no method {method}()"
            )
