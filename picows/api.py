"""ws_connect and ws_create_server: options are checked, connections made, redirects followed."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import re
import socket
import ssl
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar, Union, cast
from urllib.parse import urldefrag, urljoin

from .arguments import check_bool, check_int, check_member, check_optional, check_seconds
from .deflate import WSDeflate
from .errors import WSHandshakeError, WSInvalidStatusError
from .picows import (
    ConnectionOptions,
    WSAutoPingStrategy,
    WSListener,
    WSProtocol,
    WSSlowPeerPolicy,
    WSTransport,
)
from .proxy import SocketFactory, choose_aiofastnet, dial, network
from .server import WSServer
from .upgrade import (
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
    create_request,
)
from .url import WSParsedURL, parse_url

_Listener = TypeVar("_Listener", bound=WSListener)
ClientListenerFactory = Union[
    Callable[[], _Listener], Callable[[WSUpgradeRequest, WSUpgradeResponse], _Listener]
]
ServerListenerFactory = Callable[
    [WSUpgradeRequest], Union[WSListener, WSUpgradeResponseWithListener, None]
]
LoggerLike = Union[logging.Logger, "logging.LoggerAdapter[Any]"]

_REDIRECT_STATUSES = (301, 302, 303, 307, 308)

# Meant for the server they were written for, and for no other.
_HEADERS_OF_ONE_ORIGIN = ("authorization", "cookie", "host", "proxy-authorization")

# What a connection calls, some of it only when something goes wrong.
_LOGGER_METHODS = ("isEnabledFor", "log", "debug", "info", "warning", "error", "exception")

# Arguments of create_connection that are given in another way.
_RESERVED_KWARGS = {
    "host": "the URL says where to connect",
    "port": "the URL says where to connect",
    "sock": "use socket_factory",
    "ssl": "use ssl_context",
}


async def ws_connect(
    ws_listener_factory: ClientListenerFactory[_Listener],
    url: str,
    *,
    ssl_context: ssl.SSLContext | None = None,
    disconnect_on_exception: bool = True,
    websocket_handshake_timeout: float | None = 5,
    logger_name: str | LoggerLike | None = None,
    enable_auto_ping: bool = False,
    auto_ping_idle_timeout: float = 10,
    auto_ping_reply_timeout: float = 10,
    auto_ping_strategy: WSAutoPingStrategy = WSAutoPingStrategy.PING_WHEN_IDLE,
    enable_auto_pong: bool = True,
    max_frame_size: int = 10 * 1024 * 1024,
    extra_headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
    max_redirects: int = 5,
    proxy: str | None = None,
    proxy_ssl_context: ssl.SSLContext | None = None,
    read_buffer_init_size: int = 16 * 1024,
    socket_factory: SocketFactory | None = None,
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
) -> tuple[WSTransport, _Listener]:
    """Connect to a websocket server (RFC 6455 section 4.1).

    Returns when the opening handshake is done and the listener's ``on_ws_connected`` was called.
    When it raises, or is cancelled, the connection is closed.

    :param ws_listener_factory:
        Called once the server has accepted, to make the :class:`WSListener` of the connection;
        usually the listener's class. It is called with the :class:`WSUpgradeRequest` that was
        sent and the :class:`WSUpgradeResponse` that came if it accepts two positional arguments,
        and with none otherwise. What it raises, `ws_connect` raises.
    :param url:
        ``ws://`` or ``wss://``, with the default ports 80 and 443. A user name and a password in
        it are sent as basic authentication.
    :param ssl_context:
        The TLS settings for a ``wss`` URL. Default: those of :func:`ssl.create_default_context`,
        which verify the server's certificate against the system's authorities.
    :param disconnect_on_exception:
        Whether an exception from ``on_ws_frame`` ends the connection. If not, it is only logged.
    :param websocket_handshake_timeout:
        How many seconds the server may take to answer the upgrade request, and a proxy to open
        its tunnel. None: no limit. Connecting itself is bounded by the operating system, and the
        TLS handshake by ``ssl_handshake_timeout`` (60 seconds unless given).
    :param logger_name:
        Where to log: None for the logger ``picows.client``, a str for ``picows.<logger_name>``,
        or an object with the methods of a :class:`logging.Logger`.
    :param enable_auto_ping:
        Whether to look for a dead peer by pings, and to disconnect when no reply comes.
    :param auto_ping_idle_timeout:
        With PING_WHEN_IDLE how many seconds without any received data are followed by a ping;
        with PING_PERIODICALLY the seconds between one ping and the next.
    :param auto_ping_reply_timeout:
        How many seconds the peer may take to reply before it counts as dead.
    :param auto_ping_strategy:
        When to ping: ``WSAutoPingStrategy.PING_WHEN_IDLE`` or ``PING_PERIODICALLY``.
    :param enable_auto_pong:
        Whether to reply to each received PING by a PONG. Such a PING is not given to the listener.
    :param max_frame_size:
        The largest payload in bytes (default 10 MiB) that a received frame may have. For a
        larger one CLOSE(MESSAGE_TOO_BIG) is sent, before the payload is read.
    :param extra_headers:
        Headers to add to the upgrade request, as a mapping or as (name, value) pairs. A ``Host``
        among them replaces the one made from the URL.
    :param max_redirects:
        How many HTTP redirects (301, 302, 303, 307, 308) to follow, from ``ws`` to ``wss`` but
        never back. 0: none, a redirect is a :class:`WSInvalidStatusError`. When the origin
        (scheme, host or port) changes, what was meant for the first one is not sent to the other:
        the credentials in `url`, the headers Authorization, Cookie, Proxy-Authorization and Host
        of `extra_headers`, and ``server_hostname``.
    :param proxy:
        The URL of a proxy to connect through: ``http://``, ``https://`` (both by CONNECT),
        ``socks4://`` or ``socks5://``, with ``user:password@`` if the proxy wants it. The proxy
        looks up the server's name; for SOCKS4, which knows addresses only, we do.
        The system's proxy settings are not used.
    :param proxy_ssl_context:
        The TLS settings for the connection to an ``https`` proxy, as `ssl_context` is for the
        connection to the server.
    :param read_buffer_init_size:
        A hint in bytes (default 16 KiB): for an incomplete frame up to this size no more memory
        is kept than what was received of it, for a larger one room for all of it.
    :param socket_factory:
        Called with the endpoint to connect to, a :class:`WSParsedURL`: that of the proxy if there
        is one, and of the server otherwise. It returns, or is a coroutine function that returns,
        a stream :class:`socket.socket`, or None to go on without. If the socket is connected it is
        used as it is (a Unix domain socket has to be), if not it is connected to the endpoint.
        From then on it belongs to the connection. Arguments in `kwargs` that are about making
        sockets do not apply to it.
    :param use_aiofastnet:
        Whether connections are made by the package aiofastnet in place of the event loop. None:
        if it is installed, except for plain TCP on uvloop, whose own are lighter and as quick.
    :param coalesce_writes:
        Whether what the listener sends on a connection while several frames that came in one read are
        delivered to it leaves in one write: at the end of them, when 64 KiB wait, at
        :meth:`WSTransport.flush`, before a disconnect. What answers a lone frame, and what is
        sent outside of callbacks, leaves at once in any case.
    :param enable_auto_close:
        Whether to answer a received CLOSE, with the code it has, and to end the connection after
        the listener has seen it. If not, the listener does that.
    :param max_write_buffer_size:
        How many bytes may wait for a peer that does not read (None: no limit). When a data frame
        would make it more, `slow_peer` says what happens. Control frames always pass, and so does
        a frame while nothing waits.
    :param slow_peer:
        ``WSSlowPeerPolicy.DISCONNECT``: abort the connection, with one line in the log;
        ``DROP_NEWEST``: do not send the frame, `send` returns False; ``RAISE``: `send` raises
        :class:`WSSlowPeerError`.
    :param receive_timeout:
        How many seconds the rest of a frame, or of a message that is assembled, may keep us
        waiting without a byte received, before CLOSE(POLICY_VIOLATION) is sent. None: no limit.
    :param assemble_messages:
        Whether ``on_ws_frame`` gets whole messages (TEXT or BINARY, ``fin`` set) and control
        frames, in place of frames as they come. Fragments are joined, and their order, the
        reserved bits and the UTF-8 of TEXT are checked; a faulty message ends the connection by
        the close code that fits and never reaches the listener.
    :param max_message_size:
        The largest message in bytes, decompressed, that is assembled. For a larger one
        CLOSE(MESSAGE_TOO_BIG) is sent, before memory is taken for it. `max_frame_size` bounds each
        frame of it as well.
    :param compression:
        The settings of permessage-deflate (RFC 7692): a client offers it, a server takes an offer.
        Messages are then assembled. None: no compression.
    :param kwargs:
        Further arguments for :meth:`asyncio.loop.create_connection`: ``server_hostname`` (default:
        the host of the URL), ``ssl_handshake_timeout``, ``ssl_shutdown_timeout``, ``family``,
        ``local_addr``, ``happy_eyeballs_delay`` and so on, as far as the event loop knows them.
        Those about TLS apply wherever there is TLS.

    :raises ValueError, TypeError: an argument is wrong; nothing was opened
    :raises ImportError: `use_aiofastnet` is True, and aiofastnet is not installed
    :raises WSInvalidURL: `url`, `proxy` or the Location of a redirect cannot be used
    :raises WSInvalidStatusError: the server answered by another status than 101, or by one
        redirect more than `max_redirects`
    :raises WSHandshakeError: the opening handshake failed; its subclasses say why
    :raises asyncio.TimeoutError: `websocket_handshake_timeout` is over
    :raises python_socks.ProxyError: the proxy refused to connect to the server (its
        ``error_code`` is the HTTP status or the SOCKS reply), or is no proxy of that kind
    :raises OSError: the system or TLS failed, towards the proxy just as towards the server:
        :class:`ConnectionRefusedError`, :class:`ssl.SSLError`, :class:`socket.gaierror` and so on
    """
    for name in _RESERVED_KWARGS.keys() & kwargs.keys():
        raise TypeError(f"ws_connect() takes no argument {name!r}: {_RESERVED_KWARGS[name]}")
    check_optional("server_hostname", kwargs.get("server_hostname"), str)
    _check_context("ssl_context", ssl_context, ssl.PROTOCOL_TLS_SERVER)
    _check_context("proxy_ssl_context", proxy_ssl_context, ssl.PROTOCOL_TLS_SERVER)
    check_int("max_redirects", max_redirects, 0)
    if socket_factory is not None and not callable(socket_factory):
        raise TypeError(f"socket_factory must be callable or None, got {socket_factory!r}")
    check_optional("proxy", proxy, str)
    options = _check_options(
        listener_factory=_called_with_handshake(ws_listener_factory),
        is_client_side=True,
        disconnect_on_exception=disconnect_on_exception,
        handshake_timeout=websocket_handshake_timeout,
        logger=_find_logger(logger_name, "client"),
        enable_auto_ping=enable_auto_ping,
        auto_ping_idle_timeout=auto_ping_idle_timeout,
        auto_ping_reply_timeout=auto_ping_reply_timeout,
        auto_ping_strategy=auto_ping_strategy,
        enable_auto_pong=enable_auto_pong,
        max_frame_size=max_frame_size,
        read_buffer_init_size=read_buffer_init_size,
        coalesce_writes=coalesce_writes,
        enable_auto_close=enable_auto_close,
        max_write_buffer_size=max_write_buffer_size,
        slow_peer=slow_peer,
        receive_timeout=receive_timeout,
        assemble_messages=assemble_messages,
        max_message_size=max_message_size,
        compression=compression,
    )
    target = _Target(parse_url(url), _header_list(extra_headers), dict(kwargs), compression)
    request = target.request()
    redirects = 0
    while True:
        protocol = WSProtocol(options, request, target.url.is_secure)
        try:
            await dial(
                asyncio.get_running_loop(),
                protocol,
                target.url,
                ssl_context=ssl_context,
                proxy=proxy,
                proxy_ssl_context=proxy_ssl_context,
                socket_factory=socket_factory,
                use_aiofastnet=use_aiofastnet,
                timeout=websocket_handshake_timeout,
                kwargs=target.kwargs,
            )
            transport, listener = await protocol.wait_upgraded()
            return transport, cast(_Listener, listener)
        except WSInvalidStatusError as answer:
            protocol.abort()
            if not _is_redirect(answer) or max_redirects == 0:
                raise
            if redirects == max_redirects:
                raise WSInvalidStatusError(
                    f"expected at most {max_redirects} redirects (max_redirects), got one more",
                    answer.raw_header,
                    answer.raw_body,
                    answer.response,
                ) from answer
            target = target.redirected(answer)
        except BaseException:
            protocol.abort()
            raise
        request = target.request()
        redirects += 1


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
) -> WSServer:
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
    :param disconnect_on_exception:
        Whether an exception from ``on_ws_frame`` ends the connection. If not, it is only logged.
    :param websocket_handshake_timeout:
        How many seconds a client may take from connecting to the end of its upgrade request.
        None: no limit.
    :param logger_name:
        Where to log: None for the logger ``picows.server``, a str for ``picows.<logger_name>``,
        or an object with the methods of a :class:`logging.Logger`.
    :param enable_auto_ping:
        Whether to look for dead clients by pings, and to disconnect those that do not reply.
    :param auto_ping_idle_timeout:
        With PING_WHEN_IDLE how many seconds without any received data are followed by a ping;
        with PING_PERIODICALLY the seconds between one ping and the next.
    :param auto_ping_reply_timeout:
        How many seconds the client may take to reply before it counts as dead.
    :param auto_ping_strategy:
        When to ping: ``WSAutoPingStrategy.PING_WHEN_IDLE`` or ``PING_PERIODICALLY``.
    :param enable_auto_pong:
        Whether to reply to each received PING by a PONG. Such a PING is not given to the listener.
    :param max_frame_size:
        The largest payload in bytes (default 10 MiB) that a received frame may have. For a
        larger one CLOSE(MESSAGE_TOO_BIG) is sent, before the payload is read.
    :param read_buffer_init_size:
        A hint in bytes (default 16 KiB): for an incomplete frame up to this size no more memory
        is kept than what was received of it, for a larger one room for all of it.
    :param use_aiofastnet:
        Whether connections are made by the package aiofastnet in place of the event loop. None:
        if it is installed, except for plain TCP on uvloop, whose own are lighter and as quick.
    :param coalesce_writes:
        Whether what the listener sends on a connection while several frames that came in one read are
        delivered to it leaves in one write: at the end of them, when 64 KiB wait, at
        :meth:`WSTransport.flush`, before a disconnect. What answers a lone frame, and what is
        sent outside of callbacks, leaves at once in any case.
    :param enable_auto_close:
        Whether to answer a received CLOSE, with the code it has, and to end the connection after
        the listener has seen it. If not, the listener does that.
    :param max_write_buffer_size:
        How many bytes may wait for a peer that does not read (None: no limit). When a data frame
        would make it more, `slow_peer` says what happens. Control frames always pass, and so does
        a frame while nothing waits.
    :param slow_peer:
        ``WSSlowPeerPolicy.DISCONNECT``: abort the connection, with one line in the log;
        ``DROP_NEWEST``: do not send the frame, `send` returns False; ``RAISE``: `send` raises
        :class:`WSSlowPeerError`.
    :param receive_timeout:
        How many seconds the rest of a frame, or of a message that is assembled, may keep us
        waiting without a byte received, before CLOSE(POLICY_VIOLATION) is sent. None: no limit.
    :param assemble_messages:
        Whether ``on_ws_frame`` gets whole messages (TEXT or BINARY, ``fin`` set) and control
        frames, in place of frames as they come. Fragments are joined, and their order, the
        reserved bits and the UTF-8 of TEXT are checked; a faulty message ends the connection by
        the close code that fits and never reaches the listener.
    :param max_message_size:
        The largest message in bytes, decompressed, that is assembled. For a larger one
        CLOSE(MESSAGE_TOO_BIG) is sent, before memory is taken for it. `max_frame_size` bounds each
        frame of it as well.
    :param compression:
        The settings of permessage-deflate (RFC 7692): a client offers it, a server takes an offer.
        Messages are then assembled. None: no compression.
    :param kwargs:
        Further arguments for :meth:`asyncio.loop.create_server`: ``ssl``, ``backlog``,
        ``reuse_port``, ``start_serving`` and so on. A listening ``sock`` may be a Unix domain
        socket; the arguments are then for :meth:`asyncio.loop.create_unix_server`.
    :return: the :class:`WSServer`, listening already unless ``start_serving`` is False

    :raises ValueError, TypeError: an argument is wrong; nothing was opened
    :raises ImportError: `use_aiofastnet` is True, and aiofastnet is not installed
    :raises OSError: the system refused, for example because the port is taken
    """
    if not _accepts(ws_listener_factory, 1):
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
    _check_context("ssl", kwargs.get("ssl"), ssl.PROTOCOL_TLS_CLIENT)
    loop = asyncio.get_running_loop()
    aiofastnet = choose_aiofastnet(loop, use_aiofastnet, kwargs.get("ssl") is not None)
    options = _check_options(
        listener_factory=ws_listener_factory,
        is_client_side=False,
        disconnect_on_exception=disconnect_on_exception,
        handshake_timeout=websocket_handshake_timeout,
        logger=_find_logger(logger_name, "server"),
        enable_auto_ping=enable_auto_ping,
        auto_ping_idle_timeout=auto_ping_idle_timeout,
        auto_ping_reply_timeout=auto_ping_reply_timeout,
        auto_ping_strategy=auto_ping_strategy,
        enable_auto_pong=enable_auto_pong,
        max_frame_size=max_frame_size,
        read_buffer_init_size=read_buffer_init_size,
        coalesce_writes=coalesce_writes,
        enable_auto_close=enable_auto_close,
        max_write_buffer_size=max_write_buffer_size,
        slow_peer=slow_peer,
        receive_timeout=receive_timeout,
        assemble_messages=assemble_messages,
        max_message_size=max_message_size,
        compression=compression,
    )
    protocol_factory = functools.partial(WSProtocol, options)
    if sock is not None and sock.family == getattr(socket, "AF_UNIX", None):
        server = await network(loop, aiofastnet, "create_unix_server")(protocol_factory, **kwargs)
    else:
        create_server = network(loop, aiofastnet, "create_server")
        server = await create_server(protocol_factory, host, port, **kwargs)
    return WSServer(server, options.registry)


def _called_with_handshake(
    factory: ClientListenerFactory[_Listener],
) -> Callable[[WSUpgradeRequest, WSUpgradeResponse], _Listener]:
    """The user's client factory as one that takes the request and the response in any case."""
    if _accepts(factory, 2):
        return cast("Callable[[WSUpgradeRequest, WSUpgradeResponse], _Listener]", factory)
    if not _accepts(factory, 0):
        raise TypeError(
            "ws_listener_factory must be callable with no argument or with two, "
            f"the request and the response, got {factory!r}"
        )
    make = cast("Callable[[], _Listener]", factory)
    return lambda request, response: make()


def _accepts(function: object, arguments: int) -> bool:
    """Whether it can be called with so many positional arguments."""
    if not callable(function):
        return False
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):
        # Compiled classes and functions need not have a signature.
        return arguments < 2
    try:
        signature.bind(*[None] * arguments)
    except TypeError:
        return False
    return True


@dataclass
class _Target:
    """A server to ask for the upgrade, and what is meant for that server only."""

    url: WSParsedURL
    extra_headers: list[tuple[str, str]]
    kwargs: dict[str, Any]
    compression: WSDeflate | None

    def request(self) -> WSUpgradeRequest:
        return create_request(self.url, self.extra_headers, self.compression)

    def redirected(self, answer: WSInvalidStatusError) -> _Target:
        """Where a redirect leads."""
        assert answer.response is not None
        location = answer.response.headers.get("Location")
        if location is None:
            raise _redirect_error("a redirect has no Location header", answer)
        location = urldefrag(urljoin(self.url.url, location)).url
        # Servers that know HTTP only write http and https, and mean the same.
        url = parse_url(re.sub("^http", "ws", location, flags=re.IGNORECASE))
        if self.url.is_secure and not url.is_secure:
            raise _redirect_error(f"a redirect leads from wss to ws: {location}", answer)
        if (url.scheme, url.host, url.port) == (self.url.scheme, self.url.host, self.url.port):
            if url.user_info is None:
                url = replace(url, username=self.url.username, password=self.url.password)
            return replace(self, url=url)
        headers = [
            (name, value)
            for name, value in self.extra_headers
            if name.lower() not in _HEADERS_OF_ONE_ORIGIN
        ]
        kwargs = {name: value for name, value in self.kwargs.items() if name != "server_hostname"}
        return replace(self, url=url, extra_headers=headers, kwargs=kwargs)


def _is_redirect(answer: WSInvalidStatusError) -> bool:
    return answer.response is not None and answer.response.status in _REDIRECT_STATUSES


def _redirect_error(description: str, answer: WSInvalidStatusError) -> WSHandshakeError:
    return WSHandshakeError(description, answer.raw_header, answer.raw_body, answer.response)


def _header_list(
    extra_headers: Mapping[str, str] | Iterable[tuple[str, str]] | None,
) -> list[tuple[str, str]]:
    """The headers as pairs that can be gone through more than once."""
    if extra_headers is None:
        return []
    if isinstance(extra_headers, Mapping):
        return list(extra_headers.items())
    if not isinstance(extra_headers, Iterable):
        raise TypeError(
            f"extra_headers must be a mapping, an iterable of pairs or None, got {extra_headers!r}"
        )
    return list(extra_headers)


def _find_logger(logger: object, default: str) -> Any:
    if logger is None:
        logger = default
    if isinstance(logger, str):
        return logging.getLogger(f"picows.{logger}")
    for method in _LOGGER_METHODS:
        if not callable(getattr(logger, method, None)):
            raise TypeError(
                "logger_name must be a str, a logger or None, "
                f"got {logger!r}, which has no method {method}()"
            )
    return logger


def _check_options(
    *,
    handshake_timeout: float | None,
    auto_ping_idle_timeout: float,
    auto_ping_reply_timeout: float,
    auto_ping_strategy: WSAutoPingStrategy,
    max_frame_size: int,
    read_buffer_init_size: int,
    disconnect_on_exception: bool,
    enable_auto_ping: bool,
    enable_auto_pong: bool,
    coalesce_writes: bool,
    enable_auto_close: bool,
    max_write_buffer_size: int | None,
    slow_peer: WSSlowPeerPolicy,
    receive_timeout: float | None,
    assemble_messages: bool,
    max_message_size: int,
    compression: WSDeflate | None,
    **others: Any,
) -> ConnectionOptions:
    """The options of a connection, once each of them has been found right."""
    if handshake_timeout is not None:
        check_seconds("websocket_handshake_timeout", handshake_timeout)
    check_seconds("auto_ping_idle_timeout", auto_ping_idle_timeout)
    check_seconds("auto_ping_reply_timeout", auto_ping_reply_timeout)
    check_member("auto_ping_strategy", auto_ping_strategy, WSAutoPingStrategy)
    check_int("max_frame_size", max_frame_size, 1)
    check_int("read_buffer_init_size", read_buffer_init_size, 1)
    check_bool("disconnect_on_exception", disconnect_on_exception)
    check_bool("enable_auto_ping", enable_auto_ping)
    check_bool("enable_auto_pong", enable_auto_pong)
    check_bool("coalesce_writes", coalesce_writes)
    check_bool("enable_auto_close", enable_auto_close)
    if max_write_buffer_size is not None:
        check_int("max_write_buffer_size", max_write_buffer_size, 1)
    check_member("slow_peer", slow_peer, WSSlowPeerPolicy)
    if receive_timeout is not None:
        check_seconds("receive_timeout", receive_timeout)
    check_bool("assemble_messages", assemble_messages)
    check_int("max_message_size", max_message_size, 1)
    check_optional("compression", compression, WSDeflate)
    return ConnectionOptions(
        handshake_timeout=handshake_timeout,
        auto_ping_idle_timeout=auto_ping_idle_timeout,
        auto_ping_reply_timeout=auto_ping_reply_timeout,
        auto_ping_strategy=auto_ping_strategy,
        max_frame_size=max_frame_size,
        read_buffer_init_size=read_buffer_init_size,
        disconnect_on_exception=disconnect_on_exception,
        enable_auto_ping=enable_auto_ping,
        enable_auto_pong=enable_auto_pong,
        coalesce_writes=coalesce_writes,
        enable_auto_close=enable_auto_close,
        max_write_buffer_size=max_write_buffer_size or 0,
        slow_peer=slow_peer,
        receive_timeout=receive_timeout or 0,
        assemble_messages=assemble_messages,
        max_message_size=max_message_size,
        compression=compression,
        **others,
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


def _check_port(port: object) -> None:
    if port is None:
        return
    if not isinstance(port, int) or isinstance(port, bool):
        raise TypeError(f"port must be an int or None, got {port!r}")
    if not 0 <= port <= 65535:
        raise ValueError(f"port must be from 0 to 65535, got {port!r}")


def _check_context(name: str, value: object, wrong_protocol: int) -> None:
    """Refuse a TLS context of the other side, by which every handshake would fail."""
    if value is None:
        return
    if not isinstance(value, ssl.SSLContext):
        raise TypeError(f"{name} must be an ssl.SSLContext or None, got {value!r}")
    if value.protocol == wrong_protocol:
        raise ValueError(f"{name} is a context for the other side: {value.protocol!r}")
