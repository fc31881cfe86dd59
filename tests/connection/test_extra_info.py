"""What a listener factory can ask the request about its connection."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Any

from picows import WSUpgradeRequest, ws_adopt
from tests.connection.lifetimes import Watch, without_cycle_collector
from tests.connection.networks import Network, Recorder, cut, over_every_network, over_tcp_and_tls
from tests.connection.peers import REQUEST, serve_streams, stream


@over_every_network
def test_before_anything_is_answered_and_later(net: Network) -> None:
    async def test() -> None:
        asked: list[WSUpgradeRequest] = []
        told: list[dict[str, Any]] = []

        def factory(request: WSUpgradeRequest) -> Recorder:
            asked.append(request)
            names = ("peername", "sockname", "socket", "sslcontext", "ssl_object", "nothing")
            told.append({name: request.get_extra_info(name) for name in names})
            return Recorder()

        async with net.serve(factory) as url:
            client = await net.connect(Recorder, url)
            near = client.transport.underlying_transport.get_extra_info("sockname")
            assert told[0]["peername"] == near
            assert told[0]["sockname"][1] == int(url.split(":")[2].strip("/"))
            assert told[0]["socket"].family == socket.AF_INET
            assert isinstance(told[0]["sslcontext"], ssl.SSLContext) is net.tls
            assert (told[0]["ssl_object"] is not None) is net.tls
            assert told[0]["nothing"] is None
            assert asked[0].get_extra_info("nothing", 7) == 7
            assert asked[0].get_extra_info("peername") == near
            # A client has its transport for that.
            assert client.transport.request.get_extra_info("peername") is None
            await cut(client)

    net.run(test())


@over_tcp_and_tls
def test_a_connection_that_was_adopted(net: Network) -> None:
    async def test() -> None:
        asked: list[Any] = []
        writers: list[asyncio.StreamWriter] = []

        def factory(request: WSUpgradeRequest) -> None:
            asked.append(request.get_extra_info("peername"))

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers.append(writer)
            ws_adopt(factory, writer.transport, await reader.readuntil(b"\r\n\r\n"))

        async with serve_streams(net, handle) as url, stream(net, url) as peer:
            peer.write(REQUEST)
            await peer.reader.readuntil(b"\r\n\r\n")
            assert asked == [peer.writer.get_extra_info("sockname")]

    net.run(test())


@over_every_network
def test_a_request_that_is_kept_keeps_no_connection(net: Network) -> None:
    async def test() -> None:
        watch, asked = Watch(), []

        class Watched(Recorder):
            def __init__(self, request: WSUpgradeRequest) -> None:
                super().__init__()
                self.request = request
                asked.append(request)
                watch.add(self)

            def on_ws_connected(self, transport: Any) -> None:
                super().on_ws_connected(transport)
                watch.add(transport)
                del self.transport

        with without_cycle_collector():
            async with net.serve(Watched) as url:
                client = await net.connect(Recorder, url)
                await cut(client)
                await watch.all_gone()
        assert len(watch.references) == 2
        assert asked[0].path == b"/"

    net.run(test())
