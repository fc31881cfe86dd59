"""Real proxies to go through, tiny-proxy's, and scripted peers: for what a real one does not do, and for redirects."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import re
import ssl
import stat
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import tiny_proxy
from anyio.streams.tls import TLSListener

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]

SCHEMES = ("http", "https", "socks4", "socks5")

USER, PASSWORD = "alice", "p:ss@word"
USER_INFO = "alice:p%3Ass%40word"

CERTIFICATE = Path(__file__).parents[2] / "examples" / "localhost.pem"


# Reading certificates takes longer than most of the tests. Whoever changes a context makes one by `new_server_tls`.
@functools.cache
def server_tls() -> ssl.SSLContext:
    """TLS for a server that is called localhost, 127.0.0.1 or ::1; for all who change nothing."""
    return new_server_tls()


def new_server_tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    return context


@functools.cache
def client_tls() -> ssl.SSLContext:
    """TLS for a client that trusts such a server, and verifies its name; for all who change nothing."""
    return ssl.create_default_context(cafile=CERTIFICATE)


class RunningProxy:
    """Where a proxy listens, and the (host, port) pairs it was asked for."""

    def __init__(self, scheme: str, port: int, asked: list[tuple[str, int]]) -> None:
        self.port = port
        self.url = f"{scheme}://127.0.0.1:{port}"
        self.asked = asked

    def url_for(self, user_info: str) -> str:
        return self.url.replace("://", f"://{user_info}@")


@contextlib.asynccontextmanager
async def running_proxy(
    scheme: str, auth: bool = False, path: Path | None = None
) -> AsyncIterator[RunningProxy]:
    """Run a proxy of that scheme, on a port or, if there is a path, on a Unix domain socket.

    With `auth` it lets in USER only, by PASSWORD.
    """
    handler = _handler(scheme, auth)
    asked = _record(handler)
    listener: Any
    if path is None:
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
    else:
        listener = await anyio.create_unix_listener(path)
        port = 0
    if scheme == "https":
        listener = TLSListener(listener, server_tls(), standard_compatible=False)
    async with listener:
        serving = asyncio.ensure_future(listener.serve(handler.handle))
        try:
            yield RunningProxy(scheme, port, asked)
        finally:
            serving.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await serving


def _handler(scheme: str, auth: bool) -> Any:
    if scheme == "socks4":
        return tiny_proxy.Socks4ProxyHandler(username=USER if auth else None)
    handler = tiny_proxy.Socks5ProxyHandler if scheme.startswith("socks5") else tiny_proxy.HttpProxyHandler
    return handler(username=USER, password=PASSWORD) if auth else handler()


def _record(handler: Any) -> list[tuple[str, int]]:
    """Note where the handler's proxies are asked to connect to."""
    asked: list[tuple[str, int]] = []
    create_proxy = handler.create_proxy

    def create_recording_proxy(stream: Any) -> Any:
        proxy = create_proxy(stream)
        negotiate = proxy.negotiate

        async def record() -> tuple[str, int]:
            asked.append(await negotiate())
            return asked[-1]

        proxy.negotiate = record
        return proxy

    handler.create_proxy = create_recording_proxy
    return asked


@contextlib.asynccontextmanager
async def scripted(script: Script, tls: bool = False) -> AsyncIterator[int]:
    """Yields the port of a server that follows a script, then waits for the other side's end."""
    ended: list[asyncio.Future[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        end = asyncio.get_running_loop().create_future()
        ended.append(end)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await script(reader, writer)
            await reader.read()
        writer.close()
        end.set_result(None)

    context = server_tls() if tls else None
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await asyncio.gather(*ended)


class Redirector:
    """Answers by `answers` in turn, and keeps the requests."""

    def __init__(self, *answers: str | bytes, tls: bool = False, status: int = 302) -> None:
        self._answers = iter(answers)
        self._status = status
        self._tls = tls
        self.requests: list[bytes] = []

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.requests.append(await reader.readuntil(b"\r\n\r\n"))
        location = next(self._answers)
        if isinstance(location, str):
            location = f"Location: {location}\r\n".encode()
        head = b"HTTP/1.1 %d Elsewhere\r\n%bContent-Length: 4\r\n\r\nbody"
        writer.write(head % (self._status, location))

    @contextlib.asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        async with scripted(self._answer, self._tls) as port:
            yield f"{'wss' if self._tls else 'ws'}://localhost:{port}"

    def header(self, name: str, request: int = -1) -> str | None:
        found = re.search(rf"\r\n{name}: (.*?)\r\n".encode(), self.requests[request], re.I)
        return found and found[1].decode()


async def be_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    pass


def open_sockets() -> int:
    """How many sockets this process has open."""
    count = 0
    for fd in os.listdir("/dev/fd"):
        with contextlib.suppress(OSError):  # the one that listed the directory is closed again
            count += stat.S_ISSOCK(os.fstat(int(fd)).st_mode)
    return count


async def sockets_closed_down_to(count: int) -> None:
    """Let the event loop run until no more than so many sockets are open."""
    while open_sockets() > count:
        await asyncio.sleep(0)
