"""Where an application of picows.web runs, and the clients of it: a real one, and one of plain HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib.util
import sys
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from typing import Any

import pytest
import websockets

from picows.web import ASyncApp, Route
from tests.connection.networks import Network
from tests.connection.proxies import client_tls, server_tls

PLAIN = Network()


@dataclass(frozen=True)
class Place:
    """Our own server, or uvicorn, on a network."""

    net: Network = PLAIN
    uvicorn: bool = False

    def __str__(self) -> str:
        return f"{'uvicorn' if self.uvicorn else 'own'}-{self.net}"

    def run(self, test: Coroutine[Any, Any, None]) -> None:
        self.net.run(test)

    @contextlib.asynccontextmanager
    async def serve(self, app: ASyncApp, **options: Any) -> AsyncIterator[Served]:
        """The options are for our own server only."""
        if self.uvicorn:
            async with under_uvicorn(app) as port:
                yield Served(port, tls=False)
            return
        if self.net.tls:
            options.setdefault("ssl", server_tls())
        server = await app.serve("127.0.0.1", 0, use_aiofastnet=self.net.fast, **options)
        try:
            yield Served(server.sockets[0].getsockname()[1], self.net.tls)
        finally:
            server.close()
            server.close_clients()
            await server.wait_closed()

    def handler(self, handler: Any, path: str = "/", **options: Any) -> contextlib.AbstractAsyncContextManager[Served]:
        """An application of one WebSocket handler."""
        return self.serve(ASyncApp([Route(path, handler)]), **options)


@contextlib.asynccontextmanager
async def under_uvicorn(app: Any, **options: Any) -> AsyncIterator[int]:
    import uvicorn

    # Its newest class, which raises no warning of a deprecated one.
    options = {"ws": "websockets-sansio", "lifespan": "on", "log_config": None, **options}
    server = uvicorn.Server(uvicorn.Config(app, "127.0.0.1", 0, **options))
    serving = asyncio.ensure_future(server.serve())
    while not server.started:
        assert not serving.done()
        await asyncio.sleep(0.001)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await serving


@dataclass(frozen=True)
class Served:
    """A running application, to a client."""

    port: int
    tls: bool

    def connect(self, path: str = "/", **options: Any) -> Any:
        scheme = "wss" if self.tls else "ws"
        if self.tls:
            options["ssl"] = client_tls()
        return websockets.connect(f"{scheme}://127.0.0.1:{self.port}{path}", compression=None, proxy=None, **options)

    async def rejected(self, path: str = "/", **options: Any) -> tuple[int, bytes]:
        """Status and body of the answer to who wants a WebSocket."""
        with pytest.raises(websockets.InvalidStatus) as caught:
            await self.connect(path, **options)
        response = caught.value.response
        return response.status_code, bytes(response.body or b"")

    async def get(self, path: str = "/", method: str = "GET") -> tuple[int, dict[str, str], bytes]:
        """A page: its status, headers with their names in lower case, and body."""
        tls = client_tls() if self.tls else None
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=tls)
        writer.write(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        first, *lines = head.decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        return int(first.split()[1]), {name.lower(): value for name, value in headers.items()}, body


async def closed(client: Any) -> tuple[int, str]:
    """The code and reason that the server has closed with; messages before it are dropped."""
    await client.wait_closed()
    assert client.close_code is not None
    assert client.close_reason is not None
    return client.close_code, client.close_reason


def passing_on(handler: Any) -> Any:
    """A decorator that does nothing. In this module the names of the handler's annotations are not known."""

    @functools.wraps(handler)
    async def wrapper(*args: Any, **kwargs: Any) -> None:
        await handler(*args, **kwargs)

    return wrapper


def _over(*places: Place) -> pytest.MarkDecorator:
    def parameter(place: Place) -> Any:
        modules = place.net.modules + ["uvicorn"] * place.uvicorn
        missing = [name for name in modules if importlib.util.find_spec(name) is None]
        if place.uvicorn and sys.version_info < (3, 10):
            missing.append("uvicorn for this Python that knows empty messages")
        if place.net.tls and place.net.loop == "asyncio" and sys.version_info < (3, 11):
            missing.append("client over TLS that does not warn when the server closes first")
        return pytest.param(place, id=str(place), marks=pytest.mark.skipif(bool(missing), reason=f"no {missing}"))

    return pytest.mark.parametrize("place", [parameter(place) for place in places])


over_own_networks = _over(*(Place(Network(loop, tls)) for loop in ("asyncio", "uvloop") for tls in (False, True)))
over_own_loops = _over(*(Place(Network(loop)) for loop in ("asyncio", "uvloop")))
over_both_places = _over(Place(), Place(uvicorn=True))
over_every_place = _over(
    *(Place(Network(loop, tls)) for loop in ("asyncio", "uvloop") for tls in (False, True)),
    *(Place(Network(loop), uvicorn=True) for loop in ("asyncio", "uvloop")),
)
