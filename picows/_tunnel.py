"""The way through a proxy: what is said on a connection to it before the server is at its other end.

python-socks knows what to say. It talks over a :class:`Conversation`, and so need not know what
carries the bytes. Importing it takes time, so this module is imported when a proxy is wanted.
"""

from __future__ import annotations

import asyncio
from typing import cast

from python_socks import ProxyError, ProxyTimeoutError, ProxyType
from python_socks.async_.asyncio.v2 import Proxy

from .url import WSParsedURL

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


class Conversation(asyncio.Protocol):
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


class Tunnel:
    """A way through a proxy to a server. What cannot be asked of the proxy is found out at once."""

    def __init__(
        self,
        proxy: WSParsedURL,
        server: WSParsedURL,
        timeout: float | None,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.proxy = proxy
        self.conversation = Conversation(loop)
        self._server = server
        self._timeout = timeout
        user, password = proxy.user_info or ("", "")
        if proxy.scheme == "socks4":
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

    async def open(self) -> None:
        """Have the proxy connect us to the server."""
        negotiator = Proxy(
            _PROXY_TYPES[self.proxy.scheme],
            self.proxy.host,
            self.proxy.port,
            self._user,
            self._password,
            forward=cast(Proxy, _Connected(self.conversation)),
        )
        timeout = _NO_TIMEOUT if self._timeout is None else self._timeout
        try:
            await negotiator.connect(self._server.host, self._server.port, timeout=timeout)
        except ProxyTimeoutError as exc:
            raise asyncio.TimeoutError(f"{self}: no tunnel within {timeout} s") from exc
        except ProxyError as exc:
            if self.proxy.scheme.startswith("socks5") and _keeps_us_out(self.conversation.answers):
                exc.error_code = _NO_ACCEPTABLE_METHOD
            raise self._named(exc) from exc
        self.check()

    def check(self) -> None:
        """Raise unless the tunnel stands and nothing has come through it yet."""
        try:
            self.conversation.check()
        except ProxyError as exc:
            raise self._named(exc) from exc

    def _named(self, exc: ProxyError) -> ProxyError:
        return ProxyError(f"{self}: {exc}", error_code=exc.error_code)


class _Connected:
    """A connection that is made already, in the shape of a proxy to go through first."""

    def __init__(self, stream: Conversation) -> None:
        self._stream = stream

    async def connect(self, **_: object) -> Conversation:
        return self._stream


def _keeps_us_out(answers: bytes) -> bool:
    """Whether a SOCKS5 proxy refused our ways to log in (RFC 1928 3), or our password (RFC 1929 2)."""
    if answers[:2] == b"\5\2":
        return len(answers) == 4 and answers[2] == 1 and answers[3] != 0
    return answers == b"\5\xff"
