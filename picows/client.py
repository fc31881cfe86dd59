"""ws_connect: how a client gets its connection, redirects included."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Optional, TypeVar, Union, cast
from urllib.parse import urldefrag, urljoin

from .arguments import accepts, check_optional
from .deflate import WSDeflate
from .errors import WSHandshakeError, WSInvalidLocation, WSInvalidStatusError, WSInvalidURL
from .picows import (
    ConnectionOptions,
    WSAutoPingStrategy,
    WSListener,
    WSProtocol,
    WSSlowPeerPolicy,
    WSTransport,
)
from .proxy import SocketFactory, UnreachableByProxy, dial
from .settings import OPTIONS, LoggerLike, Settings, document_options
from .upgrade import WSUpgradeRequest, WSUpgradeResponse, create_request
from .url import WSParsedURL, parse_proxy_url, parse_url

_Listener = TypeVar("_Listener", bound=WSListener)
_Factory = Callable[[WSUpgradeRequest, WSUpgradeResponse], _Listener]
ClientListenerFactory = Union[Callable[[], _Listener], _Factory[_Listener]]

# Head, body and the response itself.
_Received = tuple[Optional[bytes], Optional[bytes], Optional[WSUpgradeResponse]]

_REDIRECT_STATUSES = (301, 302, 303, 307, 308)

# Meant for the server they were written for, and for no other.
HEADERS_OF_ONE_ORIGIN = ("authorization", "cookie", "host", "proxy-authorization")

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
    max_frame_size: int | None = None,
    extra_headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
    max_redirects: int = 5,
    proxy: str | Literal[True] | None = None,
    proxy_ssl_context: ssl.SSLContext | None = None,
    read_buffer_init_size: int = 16 * 1024,
    socket_factory: SocketFactory | None = None,
    use_aiofastnet: bool | None = None,
    coalesce_writes: bool = True,
    enable_auto_close: bool = True,
    max_write_buffer_size: int | Literal["auto"] | None = "auto",
    slow_peer: WSSlowPeerPolicy = WSSlowPeerPolicy.DISCONNECT,
    receive_timeout: float | None = None,
    assemble_messages: bool = False,
    max_message_size: int = 10 * 1024 * 1024,
    compression: WSDeflate | None = None,
    connect_timeout: float | None = 10,
    subprotocols: Sequence[str] | None = None,
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
    .. the options, as picows/settings.py describes them
    :param kwargs:
        Further arguments for :meth:`asyncio.loop.create_connection`: ``server_hostname`` (default:
        the host of the URL), ``ssl_handshake_timeout``, ``ssl_shutdown_timeout``, ``family``,
        ``local_addr``, ``happy_eyeballs_delay`` and so on, as far as the event loop knows them.
        Those about TLS apply wherever there is TLS.

    :raises ValueError, TypeError: an argument is wrong; nothing was opened
    :raises ImportError: `use_aiofastnet` is True, and aiofastnet is not installed
    :raises WSInvalidURL: `url`, `proxy` or the Location of a redirect cannot be used; in the last
        case it is a :class:`WSHandshakeError`, too
    :raises WSInvalidStatusError: the server answered by another status than 101, or by one
        redirect more than `max_redirects`
    :raises WSHandshakeError: the opening handshake failed; its subclasses say why
    :raises asyncio.TimeoutError: `connect_timeout` or `websocket_handshake_timeout` is over; the
        message says what was waited for
    :raises python_socks.ProxyError: the proxy refused to connect to the server, or is no proxy of
        that kind; ``error_code`` is the HTTP status or the SOCKS reply, 255 where a SOCKS5 proxy
        wants another user name, password or method
    :raises OSError: the system or TLS failed, towards the proxy just as towards the server:
        :class:`ConnectionRefusedError`, :class:`ssl.SSLError`, :class:`socket.gaierror` and so on
    """
    # So far the locals are the arguments.
    settings = Settings("client", locals())
    factory, target, request = _checked(settings, ws_listener_factory, url, kwargs)
    options = ConnectionOptions(settings, factory)
    redirects = 0
    # Of the redirect to the target; its error would lead back to this frame.
    received: _Received | None = None
    while True:
        protocol = WSProtocol(options, request, target.url.is_secure)
        try:
            await dial(
                asyncio.get_running_loop(),
                protocol,
                target.url,
                ssl_context=settings.ssl_context,
                proxy=settings.proxy,
                proxy_ssl_context=settings.proxy_ssl_context,
                socket_factory=settings.socket_factory,
                use_aiofastnet=settings.use_aiofastnet,
                connect_timeout=settings.connect_timeout,
                tunnel_timeout=settings.websocket_handshake_timeout,
                kwargs=target.kwargs,
            )
            transport, listener = await protocol.wait_upgraded()
            return transport, cast(_Listener, listener)
        except WSInvalidStatusError as answer:
            # It is closed already.
            if not _is_redirect(answer) or settings.max_redirects == 0:
                raise
            if redirects == settings.max_redirects:
                raise WSInvalidStatusError(
                    f"expected at most {settings.max_redirects} redirects (max_redirects), "
                    "got one more",
                    answer.raw_header,
                    answer.raw_body,
                    answer.response,
                ) from answer
            target, received = target.redirected(answer), _received(answer)
        except UnreachableByProxy as exc:
            # Nothing was opened.
            if received is None:
                raise
            raise _invalid_location(target.url.url, str(exc), received) from exc
        except BaseException:
            protocol.abort()
            raise
        request = target.request()
        redirects += 1


document_options(ws_connect)


def check_arguments(
    ws_listener_factory: ClientListenerFactory[_Listener], url: str, arguments: Mapping[str, Any]
) -> Settings:
    """Raise what `ws_connect` would raise for these arguments before it opens anything."""
    settings = Settings("client", arguments)
    options = {option.name for option in OPTIONS}
    kwargs = {name: value for name, value in arguments.items() if name not in options}
    _checked(settings, ws_listener_factory, url, kwargs)
    return settings


def _checked(
    settings: Settings,
    ws_listener_factory: ClientListenerFactory[_Listener],
    url: str,
    kwargs: dict[str, Any],
) -> tuple[_Factory[_Listener], _Target, WSUpgradeRequest]:
    """The rest of the arguments, found right: the factory, where to connect, and what to ask for there."""
    for name in _RESERVED_KWARGS.keys() & kwargs.keys():
        raise TypeError(f"ws_connect() takes no argument {name!r}: {_RESERVED_KWARGS[name]}")
    check_optional("server_hostname", kwargs.get("server_hostname"), str)
    if isinstance(settings.proxy, str):
        parse_proxy_url(settings.proxy)
    factory = _called_with_handshake(ws_listener_factory)
    target = _Target(
        parse_url(url),
        _header_list(settings.extra_headers),
        dict(kwargs),
        settings.compression,
        tuple(settings.subprotocols or ()),
    )
    return factory, target, target.request()


def _called_with_handshake(
    factory: ClientListenerFactory[_Listener],
) -> _Factory[_Listener]:
    """The user's client factory as one that takes the request and the response in any case."""
    if accepts(factory, 2):
        return cast("_Factory[_Listener]", factory)
    if not accepts(factory, 0):
        raise TypeError(
            "ws_listener_factory must be callable with no argument or with two, "
            f"the request and the response, got {factory!r}"
        )
    make = cast("Callable[[], _Listener]", factory)
    return lambda request, response: make()


@dataclass
class _Target:
    """A server to ask for the upgrade, and what is meant for that server only."""

    url: WSParsedURL
    extra_headers: list[tuple[str, str]]
    kwargs: dict[str, Any]
    compression: WSDeflate | None
    subprotocols: tuple[str, ...]

    def request(self) -> WSUpgradeRequest:
        return create_request(self.url, self.extra_headers, self.compression, self.subprotocols)

    def redirected(self, answer: WSInvalidStatusError) -> _Target:
        """Where a redirect leads."""
        assert answer.response is not None
        location = answer.response.headers.get("Location")
        if location is None:
            raise _redirect_error("a redirect has no Location header", answer)
        try:
            location = urldefrag(urljoin(self.url.url, location)).url
            # Servers that know HTTP only write http and https, and mean the same.
            url = parse_url(re.sub("^http", "ws", location, flags=re.IGNORECASE))
        except ValueError as exc:
            fault = exc.msg if isinstance(exc, WSInvalidURL) else str(exc)
            raise _invalid_location(location, fault, _received(answer)) from exc
        if self.url.is_secure and not url.is_secure:
            raise _redirect_error(f"a redirect leads from wss to ws: {location}", answer)
        if (url.scheme, url.host, url.port) == (self.url.scheme, self.url.host, self.url.port):
            if url.user_info is None:
                url = replace(url, username=self.url.username, password=self.url.password)
            return replace(self, url=url)
        headers = [
            (name, value)
            for name, value in self.extra_headers
            if name.lower() not in HEADERS_OF_ONE_ORIGIN
        ]
        kwargs = {name: value for name, value in self.kwargs.items() if name != "server_hostname"}
        return replace(self, url=url, extra_headers=headers, kwargs=kwargs)


def _is_redirect(answer: WSInvalidStatusError) -> bool:
    return answer.response is not None and answer.response.status in _REDIRECT_STATUSES


def _received(answer: WSInvalidStatusError) -> _Received:
    return answer.raw_header, answer.raw_body, answer.response


def _invalid_location(location: str, fault: str, received: _Received) -> WSInvalidLocation:
    error = WSInvalidLocation(location, f"a redirect leads there, {fault}")
    error.raw_header, error.raw_body, error.response = received
    return error


def _redirect_error(description: str, answer: WSInvalidStatusError) -> WSHandshakeError:
    return WSHandshakeError(description, answer.raw_header, answer.raw_body, answer.response)


def _header_list(
    headers: Mapping[str, str] | Iterable[tuple[str, str]] | None,
) -> list[tuple[str, str]]:
    """The headers as pairs that can be gone through more than once."""
    if headers is None:
        return []
    if isinstance(headers, Mapping):
        return list(headers.items())
    return list(headers)
