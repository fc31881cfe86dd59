"""Through nginx and HAProxy as the recipes set them up, and out through squid, where they are installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from picows import WSDeflate, WSMsgType, WSUpgradeRequest, WSUpgradeResponse, WSUpgradeResponseWithListener
from tests.connection.networks import Network, Recorder
from tests.peers.programs import NGINX, RECIPES, EchoMessages, listening, program, running
from tests.ports import free_port

LARGE = bytes(range(256)) * 8192  # 2 MiB


class Site:
    """A server as in examples/health_check.py, and what it was asked."""

    def __init__(self) -> None:
        self.requests: list[WSUpgradeRequest] = []
        self.listeners: list[EchoMessages] = []

    def accept(self, request: WSUpgradeRequest) -> EchoMessages | WSUpgradeResponseWithListener:
        if request.target_path == "/health":
            return WSUpgradeResponseWithListener(WSUpgradeResponse.create_ok_response(b"alive\n"), None)
        self.requests.append(request)
        self.listeners.append(EchoMessages())
        return self.listeners[-1]


async def talk(net: Network, url: str, site: Site, **options: object) -> None:
    """All that a connection can do, through whatever lies between."""
    client: Recorder = await net.connect(
        Recorder, url, compression=WSDeflate(), assemble_messages=True, subprotocols=["chat"], **options
    )
    transport = client.transport
    assert transport.subprotocol == "chat"
    assert transport.compression is not None
    # There is something between.
    assert site.requests[-1].get_extra_info("peername") != transport.underlying_transport.get_extra_info("sockname")
    transport.send(WSMsgType.TEXT, "hello \u20ac")
    transport.send(WSMsgType.BINARY, LARGE)
    transport.send(WSMsgType.TEXT, "in ", fin=False)
    transport.send(WSMsgType.CONTINUATION, "pieces")
    assert [frame.payload for frame in await client.take(3)] == ["hello \u20ac".encode(), LARGE, b"in pieces"]
    assert len(await transport.measure_roundtrip_time(1)) == 1
    await transport.close(4000, "done")
    await site.listeners[-1].disconnected.wait()
    at_server = site.listeners[-1].transport
    assert (at_server.close_code, at_server.close_reason) == (4000, "done")
    assert (transport.close_code, transport.close_reason) == (4000, "done")


HAPROXY_OF_TCP = """\
defaults
    mode tcp
    timeout connect 5s
    timeout client 1m
    timeout server 1m
frontend websocket
    bind :8080
    default_backend picows
backend picows
    server one 127.0.0.1:9001
"""


@pytest.mark.parametrize("gateway", ["nginx", "haproxy", "haproxy-tcp"])
def test_behind_a_gateway(net: Network, tmp_path: Path, gateway: str) -> None:
    async def test() -> None:
        site, port = Site(), free_port()
        options = {"compression": WSDeflate(), "assemble_messages": True, "subprotocols": ["chat"]}
        async with net.serve(site.accept, **options) as url:
            address = url[5:-1]

            def placed(recipe: str) -> str:
                assert recipe.count("127.0.0.1:9001") == recipe.count(":8080") + recipe.count("listen 8080") == 1
                recipe = recipe.replace("127.0.0.1:9001", address)
                return recipe.replace("bind :8080", f"bind 127.0.0.1:{port}").replace("listen 8080", f"listen 127.0.0.1:{port}")

            config = tmp_path / "config"
            if gateway == "nginx":
                recipe = placed((RECIPES / "nginx.conf").read_text())
                config.write_text(NGINX.format(directory=tmp_path, site=recipe))
                command = [binary, "-c", str(config), "-e", "stderr"]
            else:
                config.write_text(placed(HAPROXY_OF_TCP if "tcp" in gateway else (RECIPES / "haproxy.cfg").read_text()))
                command = [binary, "-db", "-f", str(config)]
            async with running(tmp_path / "log", *command) as process:
                await listening(process, port)
                site.requests.clear()
                await talk(net, f"ws://127.0.0.1:{port}/ws?room=tea", site)
                # The one before tells of the client, except where only bytes are passed on.
                (request,) = site.requests
                assert request.path == b"/ws?room=tea"
                assert request.headers["Host"] == f"127.0.0.1:{port}"
                assert request.headers.get("X-Forwarded-For") == (None if gateway == "haproxy-tcp" else "127.0.0.1")

    binary = program(gateway.partition("-")[0])
    net.run(test())


SQUID = """\
http_port 127.0.0.1:{port}
acl picows port {server_port}
http_access allow CONNECT picows
http_access deny all
cache deny all
access_log none
cache_log {directory}/cache.log
pid_filename none
coredump_dir {directory}
"""


@pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
def test_a_client_goes_out_through_squid(tmp_path: Path, tls: bool) -> None:
    net = Network(tls=tls)

    async def test() -> None:
        site, port = Site(), free_port()
        options = {"compression": WSDeflate(), "assemble_messages": True, "subprotocols": ["chat"]}
        async with net.serve(site.accept, **options) as url:
            server_port = int(url.split(":")[2].strip("/"))
            (tmp_path / "squid.conf").write_text(SQUID.format(directory=tmp_path, port=port, server_port=server_port))
            tmp_path.chmod(0o777)  # squid lays its rights down
            async with running(tmp_path / "log", squid, "-N", "-f", str(tmp_path / "squid.conf")) as process:
                await listening(process, port)
                await talk(net, url, site, proxy=f"http://127.0.0.1:{port}")

    squid = program("squid")
    net.run(test())
