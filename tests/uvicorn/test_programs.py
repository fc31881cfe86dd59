"""uvicorn's command line, workers, reloading and graceful end, with applications of the frameworks that most use."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from picows import WSCloseCode, WSInvalidStatusError, WSMsgType, ws_connect
from tests.connection.networks import Network, Recorder, cut
from tests.connection.peers import CLOSE
from tests.uvicorn.programs import ROOT, running

pytest.importorskip("uvicorn", reason="PicowsProtocol is for uvicorn")
pytest.importorskip("starlette", reason="the applications are Starlette's")

CERTIFICATE = ROOT / "examples" / "localhost.pem"
STARLETTE = "tests.uvicorn.application:starlette"


async def connected(net: Network, url: str, **options: object) -> Recorder:
    """A client, as soon as a worker listens."""
    while True:
        try:
            client: Recorder = await net.connect(Recorder, url, **options)
            return client
        except ConnectionRefusedError:
            await asyncio.sleep(0.01)


async def echoed(client: Recorder, message: str) -> None:
    client.transport.send(WSMsgType.TEXT, message)
    assert await client.payload() == message.encode()


@pytest.mark.parametrize("http", ["h11", "httptools"])
def test_starlette(net: Network, http: str) -> None:
    async def test(url: str) -> None:
        client = await connected(net, url, extra_headers={"Sec-WebSocket-Protocol": "one, two"})
        assert client.transport.response.headers["Sec-WebSocket-Protocol"] == "one"
        await echoed(client, "hello")
        client.transport.send_close(WSCloseCode.OK)
        assert (await client.frames.get()).msg_type == CLOSE
        await cut(client)

        client = await connected(net, url + "cookie?a=1", extra_headers={"Cookie": "b=2"})
        assert json.loads(await client.payload()) == {"cookies": {"b": "2"}, "query": {"a": "1"}}
        assert (await client.frames.get()).payload == b"\x0f\xa0enough"
        await cut(client)

        with pytest.raises(WSInvalidStatusError) as denied:
            await connected(net, url + "denied")
        response = denied.value.response
        assert (response.status, response.body, response.headers["WWW-Authenticate"]) == (401, b"not you", "Basic")
        with pytest.raises(WSInvalidStatusError) as unknown:
            await connected(net, url + "unknown")
        assert unknown.value.response.status in (403, 404)

    with running(STARLETTE, "--port", 0, "--http", http, "--loop", "asyncio") as server:
        net.run(test(server.url()))
        server.interrupt()
        assert "Traceback" not in server.finish()


def test_fastapi_over_tls_on_uvloop() -> None:
    pytest.importorskip("fastapi", reason="the application is FastAPI's")
    pytest.importorskip("uvloop", reason="the loop is uvloop")
    net = Network("uvloop", tls=True)

    async def test(url: str) -> None:
        client = await connected(net, url + "7?name=I")
        client.transport.send(WSMsgType.TEXT, '"hi"')
        assert json.loads(await client.payload()) == {"room": 7, "name": "I", "said": "hi"}
        await cut(client)

    tls = ["--ssl-certfile", CERTIFICATE, "--ssl-keyfile", CERTIFICATE]
    with running("tests.uvicorn.application:fastapi", "--factory", "--port", 0, "--loop", "uvloop", *tls) as server:
        net.run(test(server.url()))


def test_a_server_that_ends_tells_its_clients(net: Network) -> None:
    async def test(server: object, url: str) -> None:
        client = await connected(net, url)
        await echoed(client, "hello")
        server.interrupt()  # type: ignore[attr-defined]
        frame = await client.frames.get()
        assert (frame.msg_type, frame.payload) == (CLOSE, b"\x03\xf4")
        await cut(client)

    with running(STARLETTE, "--port", 0) as server:
        net.run(test(server, server.url()))
        printed = server.finish()
        assert "Finished server process" in printed
        assert "Traceback" not in printed
        assert server.process.returncode in (0, -2, 130)


def test_several_workers_serve(net: Network) -> None:
    async def test(url: str) -> None:
        pids = set()
        clients = []
        for _ in range(200):
            clients.append(await connected(net, url))
            pids.add(clients[-1].transport.response.headers["pid"])
            if len(pids) == 2:
                break
        await echoed(clients[0], "hello")
        await echoed(clients[-1], "hello")
        await cut(*clients)
        assert len(pids) == 2

    with running(STARLETTE, "--port", 0, "--workers", 2) as server:
        url = server.url()
        for _ in range(2):
            server.wait_for("Application startup complete")
        net.run(test(url))


def test_a_server_is_reloaded(net: Network, tmp_path: Path) -> None:
    module = tmp_path / "reloaded.py"
    source = """
async def app(scope, receive, send):
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "VERSION"})
        while (await receive())["type"] != "websocket.disconnect":
            pass
"""
    module.write_text(source.replace("VERSION", "one"))

    async def says(url: str) -> bytes:
        client = await connected(net, url)
        said = await client.payload()
        await cut(client)
        return said

    async def told_of_the_end(server: object, url: str) -> None:
        client = await connected(net, url)
        assert await client.payload() == b"one"
        module.write_text(source.replace("VERSION", "the other"))
        assert (await client.frames.get()).payload == b"\x03\xf4"
        await cut(client)

    arguments = ["reloaded:app", "--port", 0, "--app-dir", tmp_path, "--reload", "--reload-dir", tmp_path, "--reload-delay", 0.05]
    with running(*arguments) as server:
        url = server.url()
        server.wait_for("startup complete|ASGI 'lifespan'")
        net.run(told_of_the_end(server, url))
        server.wait_for("Started server process")
        server.wait_for("startup complete|ASGI 'lifespan'")

        async def test() -> None:
            assert await says(url) == b"the other"

        net.run(test())


def test_a_string_or_the_class_name_it(net: Network) -> None:
    import uvicorn

    from picows.uvicorn import PicowsProtocol

    for name in ("picows.uvicorn:PicowsProtocol", PicowsProtocol):
        config = uvicorn.Config("tests.uvicorn.application:starlette", ws=name)
        config.load()
        assert config.ws_protocol_class is PicowsProtocol


def test_an_idle_server_ends_its_loop(net: Network) -> None:
    """Inside of a program that goes on, a server leaves no task or timer."""
    import uvicorn

    async def test() -> None:
        config = uvicorn.Config(STARLETTE, port=0, ws="picows.uvicorn:PicowsProtocol", log_config=None)
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.001)
        port = server.servers[0].sockets[0].getsockname()[1]
        transport, client = await ws_connect(Recorder, f"ws://127.0.0.1:{port}/")
        await echoed(client, "hello")
        server.should_exit = True
        assert (await client.frames.get()).payload == b"\x03\xf4"
        transport.disconnect()
        await serving
        assert not server.server_state.connections
        assert not server.server_state.tasks

    net.run(test())
