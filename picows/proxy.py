"""Dialling: from a URL to a connected asyncio transport, directly or through a proxy.

Every socket of the client side is opened here, and closed again when dialling fails, takes too
long or is cancelled.

A proxied connection is made in three steps, each on the transport of the one before: connect to
the proxy (with TLS if its URL says https), ask it for a tunnel, and, if the server's URL says wss,
start TLS inside the tunnel.
"""

from __future__ import annotations

import asyncio
import inspect
import ipaddress
import re
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Literal, Optional, Union, cast

from ._deadline import Deadline
from .errors import WSInvalidURL
from .url import WSParsedURL, parse_proxy_url

try:
    import aiofastnet
except ImportError:
    aiofastnet = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from ._tunnel import Tunnel

SocketFactory = Callable[
    [WSParsedURL], Union[Optional[socket.socket], Awaitable[Optional[socket.socket]]]
]

# The arguments of create_connection that are about TLS, and those that are about making a socket.
_TLS_KWARGS = (
    "server_hostname",
    "ssl_handshake_timeout",
    "ssl_shutdown_timeout",
    "ssl_incoming_bio_size",
    "ssl_outgoing_bio_size",
)
_SOCKET_KWARGS = (
    "family",
    "proto",
    "flags",
    "local_addr",
    "happy_eyeballs_delay",
    "interleave",
    "all_errors",
)


def choose_aiofastnet(
    loop: asyncio.AbstractEventLoop, use_aiofastnet: bool | None, over_tls: bool
) -> bool:
    """Whether connections are made by aiofastnet. None: if it is installed, where it gains.

    That was measured: it is quicker than any loop's TLS, and than the TCP of asyncio's own loops.
    Over TCP uvloop is as quick, holds less memory and makes connections in less time.
    """
    if use_aiofastnet is None:
        return aiofastnet is not None and (over_tls or isinstance(loop, asyncio.BaseEventLoop))
    if use_aiofastnet and aiofastnet is None:
        raise ImportError(
            "use_aiofastnet=True needs the package aiofastnet, which is not installed "
            "(pip install picows[fast])"
        )
    return use_aiofastnet


def network(loop: asyncio.AbstractEventLoop, use_aiofastnet: bool, method: str) -> Any:
    """The loop's method of that name, or what aiofastnet offers in its place."""
    if not use_aiofastnet:
        return getattr(loop, method)

    function = getattr(aiofastnet, method)

    def call(*args: Any, **kwargs: Any) -> Any:
        return function(loop, *args, **kwargs)

    return call


class UnreachableByProxy(ValueError):
    """The protocol of the proxy cannot name the server."""


async def dial(
    loop: asyncio.AbstractEventLoop,
    protocol: asyncio.BaseProtocol,
    url: WSParsedURL,
    *,
    ssl_context: ssl.SSLContext | None,
    proxy: str | Literal[True] | None,
    proxy_ssl_context: ssl.SSLContext | None,
    socket_factory: SocketFactory | None,
    use_aiofastnet: bool | None,
    connect_timeout: float | None,
    tunnel_timeout: float | None,
    kwargs: dict[str, Any],
    proxy_tls: dict[str, Any] | None = None,
) -> None:
    """Connect a protocol to the server that `url` names.

    If this raises after the protocol's ``connection_made``, which can only be because it is
    cancelled, the caller has to abort the transport: an event loop may just have begun to close it
    with all the time that TLS takes, and aiofastnet closes the socket under it.

    `connect_timeout` (seconds, None: no limit) bounds all of it, and `tunnel_timeout` how long the
    proxy may take to open the tunnel.
    `kwargs` are for :meth:`asyncio.loop.create_connection`; through a proxy they are about the
    connection to the proxy, except for ``server_hostname``, which is always the server's.
    `proxy_tls` are those about TLS with the proxy, ``server_hostname`` among them; None: those in
    `kwargs` count for it as well, under the proxy's own name.

    :raises WSInvalidURL: the proxy's URL is wrong
    :raises UnreachableByProxy: the proxy's protocol cannot name the server
    :raises ValueError: nor can it carry the user name or the password for the proxy
    :raises python_socks.ProxyError: the proxy refused the tunnel, or is no such proxy
    :raises asyncio.TimeoutError: one of the times is over; the message says what was waited for
    :raises OSError: from the system, when a connection fails
    """
    if proxy is True:
        proxy = system_proxy(url)
    tunnel = None
    if proxy is not None:
        tunnel = _tunnel_through(parse_proxy_url(proxy), url, tunnel_timeout, loop)
    over_tls = url.is_secure or (tunnel is not None and tunnel.proxy.is_secure)
    dialler = _Dialler(loop, choose_aiofastnet(loop, use_aiofastnet, over_tls), kwargs)
    context = _tls_context(url, ssl_context)
    tls = _named(dialler.tls, url.host)

    with Deadline(loop, connect_timeout) as deadline:
        if tunnel is None:
            deadline.waits_for = "the socket_factory"
            sock = await _make_socket(socket_factory, url)
            deadline.waits_for = _steps(url, sock)
            await dialler.connect(protocol, url, sock, context, tls)
            return

        proxy_context = _tls_context(tunnel.proxy, proxy_ssl_context)
        if proxy_tls is None:
            proxy_tls = {**dialler.tls, "server_hostname": None}
        proxy_tls = _named(proxy_tls, tunnel.proxy.host)
        deadline.waits_for = "the socket_factory"
        sock = await _make_socket(socket_factory, tunnel.proxy)
        conversation = tunnel.conversation
        try:
            deadline.waits_for = _steps(tunnel.proxy, sock)
            transport = await dialler.connect(
                conversation, tunnel.proxy, sock, proxy_context, proxy_tls
            )
            deadline.waits_for = f"a tunnel by the {tunnel}"
            await tunnel.open()
            if context is not None:
                deadline.waits_for = f"TLS with {url.host}:{url.port}, through the proxy"
                transport = await dialler.start_tls(transport, conversation, context, tls)
                tunnel.check()
            transport.set_protocol(protocol)
            protocol.connection_made(transport)
        except BaseException:
            conversation.abort()
            raise


def _tunnel_through(
    proxy: WSParsedURL, server: WSParsedURL, timeout: float | None, loop: asyncio.AbstractEventLoop
) -> Tunnel:
    if proxy.scheme == "socks4" and _ip_version(server.host) == 6:
        raise UnreachableByProxy(f"proxy: SOCKS4 cannot connect to an IPv6 address: {server.host}")
    # It needs python-socks, which is slow to import, and few want a proxy.
    from ._tunnel import Tunnel

    return Tunnel(proxy, server, timeout, loop)


def _steps(endpoint: WSParsedURL, sock: socket.socket | None) -> str:
    """What it takes to connect to an endpoint."""
    steps = ["TCP"]
    if sock is None and not _ip_version(endpoint.host):
        steps.insert(0, "the name")
    if endpoint.is_secure:
        steps.append("TLS")
    named = " and ".join(filter(None, [", ".join(steps[:-1]), steps[-1]]))
    return f"{named} of {endpoint.host}:{endpoint.port}"


def system_proxy(server: WSParsedURL) -> str | None:
    """The URL of the proxy for a server by the rules of urllib: the environment, or else the system's settings.

    :raises WSInvalidURL: what they name is no proxy that can be used
    """
    # Slow to import, and not wanted by most.
    from urllib.request import getproxies, proxy_bypass

    host = f"[{server.host}]" if ":" in server.host else server.host
    # NO_PROXY may name an address as it is or, with a port, in brackets.
    if proxy_bypass(server.host) or proxy_bypass(f"{host}:{server.port}"):
        return None
    proxies = getproxies()
    for name in ("https" if server.is_secure else "http", "socks", "all"):
        if url := proxies.get(name):
            break
    else:
        return None
    if "://" not in url:
        url = f"http://{url}"
    # As urllib understands it.
    url = re.sub("^socks://", "socks4://", url, flags=re.IGNORECASE)
    try:
        parse_proxy_url(url)
    except WSInvalidURL as exc:
        message = f"{exc.msg} (it is the proxy that the system's settings name)"
        raise WSInvalidURL(url, message) from None
    return url


def _named(tls: dict[str, Any], host: str) -> dict[str, Any]:
    """Arguments about TLS; the certificate is checked for the host, unless they have another name."""
    return tls if tls.get("server_hostname") is not None else {**tls, "server_hostname": host}


def _tls_context(url: WSParsedURL, context: ssl.SSLContext | None) -> ssl.SSLContext | None:
    if not url.is_secure:
        return None
    return ssl.create_default_context() if context is None else context


async def _make_socket(
    socket_factory: SocketFactory | None, endpoint: WSParsedURL
) -> socket.socket | None:
    """Ask the user's factory for a socket to that endpoint."""
    if socket_factory is None:
        return None
    made = socket_factory(endpoint)
    sock = await made if inspect.isawaitable(made) else made
    if sock is None:
        return None
    if not isinstance(sock, socket.socket):
        raise TypeError(f"socket_factory returned {sock!r}, expected a socket.socket or None")
    if isinstance(sock, ssl.SSLSocket):
        sock.close()
        raise TypeError(
            "socket_factory returned an ssl.SSLSocket, expected a plain socket: "
            "TLS is started on it when the URL asks for TLS"
        )
    if sock.type != socket.SOCK_STREAM:
        sock.close()
        raise ValueError(f"socket_factory returned a {sock.type!r} socket, expected SOCK_STREAM")
    return sock


class _Dialler:
    """The event loop's ways of connecting, with the arguments that the user gave for them."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, use_aiofastnet: bool, kwargs: dict[str, Any]
    ) -> None:
        self._loop = loop
        self._use_aiofastnet = use_aiofastnet
        self._kwargs = dict(kwargs)
        # There may be no TLS that they count for.
        self.tls = {k: self._kwargs.pop(k) for k in _TLS_KWARGS if k in self._kwargs}

    async def connect(
        self,
        protocol: asyncio.BaseProtocol,
        endpoint: WSParsedURL,
        sock: socket.socket | None,
        context: ssl.SSLContext | None,
        tls: dict[str, Any],
    ) -> asyncio.Transport:
        """Connect to the endpoint, over the socket if there is one."""
        kwargs = dict(self._kwargs)
        if context is not None:
            kwargs.update(tls, ssl=context)
        create_connection = network(self._loop, self._use_aiofastnet, "create_connection")
        if sock is None:
            transport, _ = await create_connection(
                lambda: protocol, endpoint.host, endpoint.port, **kwargs
            )
            return cast(asyncio.Transport, transport)

        for name in _SOCKET_KWARGS:
            kwargs.pop(name, None)
        if sock.family == getattr(socket, "AF_UNIX", None):
            create_connection = network(self._loop, self._use_aiofastnet, "create_unix_connection")
        try:
            sock.setblocking(False)
            await self._connect_socket(sock, endpoint)
            transport, _ = await create_connection(lambda: protocol, sock=sock, **kwargs)
        except BaseException:
            sock.close()
            raise
        return cast(asyncio.Transport, transport)

    async def start_tls(
        self,
        transport: asyncio.Transport,
        protocol: asyncio.BaseProtocol,
        context: ssl.SSLContext,
        tls: dict[str, Any],
    ) -> asyncio.Transport:
        """Start TLS on a connected transport, which may be a TLS one itself."""
        _allow_tls_in_tls(transport)
        start_tls = network(self._loop, self._use_aiofastnet, "start_tls")
        secure: asyncio.Transport | None = await start_tls(transport, protocol, context, **tls)
        # Event loops take a connection that was just closed for the end of the handshake.
        if secure is None or secure.is_closing() or transport.is_closing():
            raise ConnectionResetError(
                f"{tls['server_hostname']} closed the connection in the TLS handshake"
            )
        return secure

    async def _connect_socket(self, sock: socket.socket, endpoint: WSParsedURL) -> None:
        if _is_connected(sock):
            return
        if sock.family not in (socket.AF_INET, socket.AF_INET6):
            raise ValueError(
                f"socket_factory returned an unconnected {sock.family!r} socket, expected a "
                f"connected one: {endpoint.host}:{endpoint.port} is no address of that family"
            )
        # The first one only: a socket that failed to connect is not good for another attempt.
        (*_, address), *_ = await self._loop.getaddrinfo(
            endpoint.host, endpoint.port, family=sock.family, type=sock.type, proto=sock.proto
        )
        await self._loop.sock_connect(sock, address)


if sys.version_info >= (3, 13):

    def _allow_tls_in_tls(transport: asyncio.Transport) -> None:
        pass

else:
    from asyncio.sslproto import _SSLProtocolTransport

    class _CarrierTransport(_SSLProtocolTransport):
        """asyncio's TLS transport, made fit to carry TLS.

        It does not offer that before Python 3.11, and cannot be closed by an error of what it
        carries before 3.13.
        """

        _start_tls_compatible = True

        def _force_close(self, exc: BaseException | None) -> None:
            self._closed = True
            carrier: Any = self._ssl_protocol and self._ssl_protocol._transport
            if carrier is not None:
                carrier._force_close(exc)

    def _allow_tls_in_tls(transport: asyncio.Transport) -> None:
        if type(transport) is _SSLProtocolTransport:
            transport.__class__ = _CarrierTransport


def _is_connected(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


def _ip_version(host: str) -> int:
    """4 or 6; 0: it is a name."""
    try:
        return ipaddress.ip_address(host.partition("%")[0]).version
    except ValueError:
        return 0
