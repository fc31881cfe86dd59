"""Handlers by path; `werkzeug` has the maps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from picows.websockets.asyncio.router import Router, route, unix_route
from picows.websockets.asyncio.server import Server
from tests.connection.networks import Network, over_both_loops
from tests.connection.peers import Peer
from tests.connection.proxies import server_tls
from tests.websockets.servers import answer, client, head_of, request, url_of

routing = pytest.importorskip("werkzeug.routing")


async def tell(ws: Any, **parameters: Any) -> None:
    await ws.send(f"{ws.request.path} {parameters}")


def url_map() -> Any:
    rule = routing.Rule
    rules = [rule("/n/<int:n>", endpoint=tell), rule("/s/", endpoint=tell), rule("/old", redirect_to="/n/1")]
    return routing.Map(rules)


@asynccontextmanager
async def routing_server(**options: Any) -> AsyncIterator[Server]:
    async with route(url_map(), "127.0.0.1", 0, **options) as server:
        yield server


@over_both_loops
def test_a_handler_is_chosen_by_the_path(net: Network) -> None:
    async def test() -> None:
        async with routing_server() as server:
            async with client(url_of(server) + "n/5?x=y") as ws:
                assert await ws.recv() == "/n/5?x=y {'n': 5}"
            status, _, body = await answer(server, request(path="/n/five"))
            assert (status, body) == (404, "Not Found")

    net.run(test())


@pytest.mark.parametrize(
    ("path", "options", "url"),
    [
        ("/old", {}, "ws://localhost/n/1"),
        ("/s?a=b", {}, "ws://localhost/s/?a=b"),
        ("/old", {"server_name": "example.org", "ssl": True}, "wss://example.org/n/1"),
    ],
)
def test_redirects(net: Network, path: str, options: dict[str, Any], url: str) -> None:
    async def test() -> None:
        async with routing_server(**options) as server:
            status, headers, body = await answer(server, request(path=path))
            assert (status, headers["Location"], body) == (302, url, f"Found at {url}")

    net.run(test())


def test_a_process_request_comes_first(net: Network) -> None:
    seen = []

    async def process_request(connection: Any, request: Any) -> Any:
        seen.append(request.path)
        return connection.respond(200, "mine") if request.path == "/n/1" else None

    async def test() -> None:
        async with routing_server(process_request=process_request) as server:
            assert (await answer(server, request(path="/n/1")))[::2] == (200, "mine")
            assert (await answer(server, request(path="/zz")))[0] == 404
            async with client(url_of(server) + "s/") as ws:
                assert await ws.recv() == "/s/ {}"

    net.run(test())
    assert seen == ["/n/1", "/zz", "/s/"]


def test_a_process_request_that_is_no_coroutine(net: Network) -> None:
    async def test() -> None:
        async with routing_server(process_request=lambda connection, request: connection.respond(200, "mine")) as server:
            assert (await answer(server, request(path="/n/1")))[::2] == (200, "mine")

    net.run(test())


def test_routes_over_tls(net: Network) -> None:
    async def test() -> None:
        async with routing_server(ssl=server_tls()) as server, client(url_of(server).replace("ws:", "wss:") + "s/") as ws:
            assert await ws.recv() == "/s/ {}"

    net.run(test())


def test_a_router_of_ones_own(net: Network) -> None:
    class Own(Router):
        def get_server_name(self, connection: Any, request: Any) -> str:
            return "own"

        def not_found(self, connection: Any) -> Any:
            return connection.respond(410, "gone")

        async def handler(self, connection: Any) -> None:
            await connection.send("before")
            await super().handler(connection)

    async def test() -> None:
        async with routing_server(create_router=Own) as server:
            assert (await answer(server, request(path="/zz")))[::2] == (410, "gone")
            assert (await answer(server, request(path="/old")))[1]["Location"] == "ws://own/n/1"
            async with client(url_of(server) + "s/") as ws:
                assert [await ws.recv(), await ws.recv()] == ["before", "/s/ {}"]

    net.run(test())


def test_unix_route(net: Network, tmp_path: Path) -> None:
    async def test() -> None:
        async with unix_route(url_map(), tmp_path / "socket"):
            reader, writer = await asyncio.open_unix_connection(tmp_path / "socket")
            peer = Peer(reader, writer, masks=True)
            peer.write(request(path="/n/3"))
            await head_of(peer)
            assert (await peer.receive()).payload == b"/n/3 {'n': 3}"
            await peer.close()

    net.run(test())


def test_wrong_arguments() -> None:
    with pytest.raises(AttributeError):
        route(1)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        route(url_map(), create_router=1)  # type: ignore[arg-type]
