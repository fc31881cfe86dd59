"""Dialling: from a URL to a connected asyncio transport, directly or through a proxy.

Every socket of the client side is opened here, and closed again when dialling fails, takes too
long or is cancelled.

A proxied connection is made in three steps, each on the transport of the one before: connect to
the proxy (with TLS if its URL says https), ask it for a tunnel, and, if the server's URL says wss,
start TLS inside the tunnel. python-socks knows what to say to a proxy; it talks over a
:class:`_Conversation`, and so need not know what carries the bytes.
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
from typing import Any, Literal, Optional, Union, cast

from python_socks import ProxyError, ProxyTimeoutError, ProxyType
from python_socks.async_.asyncio.v2 import Proxy

from ._deadline import Deadline
from .errors import WSInvalidURL
from .url import WSParsedURL, parse_proxy_url

try:
    import aiofastnet
except ImportError:
    aiofastnet = None  # type: ignore[assignment]

SocketFactory = Callable[
    [WSParsedURL], Union[Optional[socket.socket], Awaitable[Optional[socket.socket]]]
]

# A proxy answers CONNECT with a status line and a few headers.
_MAX_ANSWER_SIZE = 16 * 1024

# RFC 1929: the lengths of the user name and of the password are one byte each.
_MAX_SOCKS5_CREDENTIAL = 255

# python-socks takes None for one minute.
_NO_TIMEOUT = 10 * 365 * 86400.0

_PROXY_TYPES = {
    "http": ProxyType.HTTP,
    "https": ProxyType.HTTP,
    "socks4": ProxyType.SOCKS4,
    "socks5": ProxyType.SOCKS5,
    # Some programs resolve names themselves for socks5, and write this where the proxy is to.
    "socks5h": ProxyType.SOCKS5,
}

# RFC 1928 section 3. A refused password counts as that: what RFC 1929 says then, any byte but 0,
# may be what a later reply says for another reason.
_NO_ACCEPTABLE_METHOD = 0xFF

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
    tunnel = None if proxy is None else _Tunnel(parse_proxy_url(proxy), url, tunnel_timeout)
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
        conversation = _Conversation(loop)
        try:
            deadline.waits_for = _steps(tunnel.proxy, sock)
            transport = await dialler.connect(
                conversation, tunnel.proxy, sock, proxy_context, proxy_tls
            )
            deadline.waits_for = f"a tunnel by the {tunnel}"
            await tunnel.open(conversation)
            if context is not None:
                deadline.waits_for = f"TLS with {url.host}:{url.port}, through the proxy"
                transport = await dialler.start_tls(transport, conversation, context, tls)
                tunnel.check(conversation)
            transport.set_protocol(protocol)
            protocol.connection_made(transport)
        except BaseException:
            conversation.abort()
            raise


def _steps(endpoint: WSParsedURL, sock: socket.socket | None) -> str:
    """What it takes to connect to an endpoint."""
    steps = ["TCP"]
    if sock is None and not _is_address(endpoint.host):
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


class _Conversation(asyncio.Protocol):
    """What is said on a connection to a proxy before the server is at its other end.

    The coroutine methods are what python-socks wants of a stream.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self.answers = b""  # all that was read
        self._ended = False
        self._error: Exception | None = None
        self._arrival: asyncio.Future[None] | None = None

    async def write(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.write(data)

    async def read(self, max_bytes: int = _MAX_ANSWER_SIZE) -> bytes:
        """Read the head of an HTTP answer: python-socks takes one read for all of it."""
        while (end := self._received.find(b"\r\n\r\n")) < 0:
            if len(self._received) > max_bytes:
                raise ProxyError(f"expected an HTTP answer of at most {max_bytes} bytes, got more")
            await self._more()
        return self._take(end + 4)

    async def read_exactly(self, n: int) -> bytes:
        while len(self._received) < n:
            await self._more()
        return self._take(n)

    async def close(self) -> None:
        self.abort()

    def abort(self) -> None:
        """Close the connection, if there is one, without waiting for anything."""
        if self._transport is not None:
            self._transport.abort()

    def check(self) -> None:
        """Raise unless the connection stands and all that came was read."""
        if self._ended:
            # As in _more(). That an end is known here already takes luck, which no test can have.
            raise self._error or ProxyError("the connection was closed")
        if self._received:
            raise ProxyError(
                f"expected silence until the upgrade request, got {bytes(self._received[:64])!r}"
            )

    def _take(self, n: int) -> bytes:
        taken = bytes(self._received[:n])
        del self._received[:n]
        self.answers += taken
        return taken

    async def _more(self) -> None:
        if self._ended:
            raise self._error or ProxyError(
                f"the connection was closed after {bytes(self._received[:64])!r}"
            )
        self._arrival = self._loop.create_future()
        await self._arrival

    def _notify(self) -> None:
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        self._notify()

    def eof_received(self) -> None:
        self._ended = True
        self._notify()

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = True
        self._error = exc
        self._notify()


class _Tunnel:
    """A way through a proxy to a server. What cannot be asked of the proxy is found out at once."""

    def __init__(self, proxy: WSParsedURL, server: WSParsedURL, timeout: float | None) -> None:
        self.proxy = proxy
        self._server = server
        self._timeout = timeout
        user, password = proxy.user_info or ("", "")
        if proxy.scheme == "socks4":
            if _is_ipv6(server.host):
                raise UnreachableByProxy(
                    f"proxy: SOCKS4 cannot connect to an IPv6 address: {server.host}"
                )
            if not user.isascii() or "\0" in user:
                raise ValueError("proxy: a SOCKS4 user name must be ASCII")
        elif proxy.scheme in ("socks5", "socks5h"):
            for credential in (user, password):
                if not credential.isascii() or len(credential) > _MAX_SOCKS5_CREDENTIAL:
                    raise ValueError(
                        "proxy: a SOCKS5 user name or password must be ASCII, at most "
                        f"{_MAX_SOCKS5_CREDENTIAL} characters (RFC 1929)"
                    )
        elif ":" in user:
            raise ValueError("proxy: a user name must not contain a colon (RFC 7617)")
        else:
            # RFC 7617 leaves the encoding to the two sides. python-socks encodes by Latin-1, and
            # so sends the bytes of UTF-8 when given these.
            user = user.encode().decode("latin-1")
            password = password.encode().decode("latin-1")
        self._user, self._password = user, password

    def __str__(self) -> str:
        proxy, server = self.proxy, self._server
        return f"{proxy.scheme} proxy {proxy.host}:{proxy.port} to {server.host}:{server.port}"

    async def open(self, conversation: _Conversation) -> None:
        """Have the proxy connect us to the server."""
        negotiator = Proxy(
            _PROXY_TYPES[self.proxy.scheme],
            self.proxy.host,
            self.proxy.port,
            self._user,
            self._password,
            forward=cast(Proxy, _Connected(conversation)),
        )
        timeout = _NO_TIMEOUT if self._timeout is None else self._timeout
        try:
            await negotiator.connect(self._server.host, self._server.port, timeout=timeout)
        except ProxyTimeoutError as exc:
            raise asyncio.TimeoutError(f"{self}: no tunnel within {timeout} s") from exc
        except ProxyError as exc:
            if self.proxy.scheme.startswith("socks5") and _keeps_us_out(conversation.answers):
                exc.error_code = _NO_ACCEPTABLE_METHOD
            raise self._named(exc) from exc
        self.check(conversation)

    def check(self, conversation: _Conversation) -> None:
        """Raise unless the tunnel stands and nothing has come through it yet."""
        try:
            conversation.check()
        except ProxyError as exc:
            raise self._named(exc) from exc

    def _named(self, exc: ProxyError) -> ProxyError:
        return ProxyError(f"{self}: {exc}", error_code=exc.error_code)


class _Connected:
    """A connection that is made already, in the shape of a proxy to go through first."""

    def __init__(self, stream: _Conversation) -> None:
        self._stream = stream

    async def connect(self, **_: object) -> _Conversation:
        return self._stream


def _keeps_us_out(answers: bytes) -> bool:
    """Whether a SOCKS5 proxy refused our ways to log in (RFC 1928 3), or our password (RFC 1929 2)."""
    if answers[:2] == b"\5\2":
        return len(answers) == 4 and answers[2] == 1 and answers[3] != 0
    return answers == b"\5\xff"


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def _is_ipv6(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).version == 6
    except ValueError:
        return False
