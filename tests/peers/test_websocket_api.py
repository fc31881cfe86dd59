"""Clients with the WebSocket API of browsers: Chromium, Firefox and node, where they are installed."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from picows import WSDeflate, WSMsgType, WSUpgradeRequest, WSUpgradeResponse, WSUpgradeResponseWithListener
from tests.connection.networks import Network
from tests.connection.proxies import CERTIFICATE
from tests.peers import browsers
from tests.peers.programs import EchoMessages, program

pytestmark = pytest.mark.timeout(180)  # a busy machine is slow to start a browser

# Sends messages, and tells what came of it when the connection has ended.
TALK = """
const talk = (url, protocols, messages, close) => new Promise(resolve => {
    const ws = new WebSocket(url, protocols), received = [];
    ws.binaryType = "arraybuffer";
    ws.onopen = () => messages.forEach(message => ws.send(message));
    ws.onmessage = event => {
        received.push(typeof event.data == "string" ? event.data : Array.from(new Uint8Array(event.data)));
        if (close && received.length == messages.length) ws.close(...close);
    };
    ws.onclose = ({code, reason, wasClean}) =>
        resolve({received, code, reason, wasClean, protocol: ws.protocol, extensions: ws.extensions});
});
"""


class Client:
    """Runs an expression of JavaScript that has `talk`; in a browser on a page of this origin."""

    is_browser = True

    async def run(self, code: str, page: str) -> Any:
        raise NotImplementedError


class InBrowser(Client):
    def __init__(self, browser: browsers.Browser) -> None:
        self.browser = browser

    async def run(self, code: str, page: str) -> Any:
        async with self.browser.session() as session:
            opened = await session.open(page)
            result = await session.evaluate(opened, f"(() => {{ {TALK} return {code}; }})()")
            await session.close(opened)
            return result


class InNode(Client):
    is_browser = False

    def __init__(self, path: str) -> None:
        self.command = [path]
        for options in ([], ["--experimental-websocket"]):  # 22 has it, and 20 by this option
            there = subprocess.run([path, *options, "-e", "new WebSocket"], capture_output=True, text=True, check=False).stderr
            if "WebSocket is not defined" not in there and "bad option" not in there:
                self.command += options
                return
        pytest.skip("this node has no WebSocket")

    async def run(self, code: str, page: str) -> Any:
        script = f"{TALK} ({code}).then(result => console.log(JSON.stringify(result)))"
        env = {**os.environ, "NODE_EXTRA_CA_CERTS": str(CERTIFICATE)}
        run = functools.partial(subprocess.run, input=script.encode(), stdout=subprocess.PIPE, env=env, timeout=60, check=True)
        done = await asyncio.get_running_loop().run_in_executor(None, run, [*self.command, "-"])
        return json.loads(done.stdout)


@contextlib.contextmanager
def chromium(folder: Path) -> Iterator[Client]:
    with browsers.chromium(folder) as browser:
        yield InBrowser(browser)


@contextlib.contextmanager
def firefox(folder: Path) -> Iterator[Client]:
    with browsers.firefox(folder) as browser:
        yield InBrowser(browser)


@contextlib.contextmanager
def node(folder: Path) -> Iterator[Client]:
    yield InNode(program("node"))


@pytest.fixture(scope="module", params=[chromium, firefox, node], ids=lambda start: start.__name__)
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with request.param(tmp_path_factory.mktemp("client")) as running:
        yield running


class Site:
    """A page, and beside it a WebSocket."""

    def __init__(self) -> None:
        self.listeners: list[EchoMessages] = []
        self.accepted = asyncio.Event()

    def accept(self, request: WSUpgradeRequest) -> Any:
        if request.target_path != "/ws":
            response = WSUpgradeResponse.create_ok_response(b"<!doctype html>", {"Content-Type": "text/html"})
            return WSUpgradeResponseWithListener(response, None)
        self.listeners.append(EchoMessages())
        self.accepted.set()
        return self.listeners[-1]

    async def connected(self) -> EchoMessages:
        await self.accepted.wait()
        while not self.listeners[-1].calls:
            await asyncio.sleep(0)
        return self.listeners[-1]


async def talk(client: Client, url: str, *arguments: object, page: str = "") -> Any:
    code = f"talk({', '.join(map(json.dumps, (url + 'ws', *arguments)))})"
    return await client.run(code, page or f"http{url[2:]}")


@pytest.mark.parametrize("net", [Network(), Network(tls=True)], ids=["tcp", "tls"])
@pytest.mark.parametrize("compression", [None, WSDeflate()], ids=["plain", "compressed"])
def test_messages_come_back(net: Network, client: Client, compression: WSDeflate | None) -> None:
    async def test() -> None:
        site = Site()
        messages = ["hello \u20ac", "", "0123456789" * 20_000]
        options = {"compression": compression, "assemble_messages": True, "subprotocols": ["chat.v2", "chat"]}
        async with net.serve(site.accept, **options) as url:
            told = await talk(client, url, ["chat", "chat.v2"], messages, [3001, "done"])
            assert told["received"] == messages
            assert ("permessage-deflate" in told["extensions"]) is (compression is not None)
            assert told["protocol"] == "chat.v2"
            assert (told["code"], told["reason"], told["wasClean"]) == (3001, "done", True)
            listener = await site.connected()
            await listener.disconnected.wait()
            assert (listener.transport.close_code, listener.transport.close_reason) == (3001, "done")
            assert (listener.transport.compression is not None) is (compression is not None)

    net.run(test())


def test_fragments_pings_and_our_close(net: Network, client: Client) -> None:
    async def test() -> None:
        site = Site()
        async with net.serve(site.accept) as url:
            told = asyncio.ensure_future(talk(client, url, [], [], None))
            transport = (await site.connected()).transport
            transport.send(WSMsgType.BINARY, b"in ", fin=False)
            transport.send_ping(b"between")
            transport.send(WSMsgType.CONTINUATION, b"two ", fin=False)
            transport.send(WSMsgType.CONTINUATION, b"pieces")
            assert len(await transport.measure_roundtrip_time(2)) == 2
            await transport.close(4000, "enough \u20ac")
            assert transport.close_handshake is not None
            assert transport.close_handshake.recv is not None
            assert transport.close_handshake.recv.code == 4000
            result = await told
            assert result["received"] == [list(b"in two pieces")]
            assert (result["code"], result["reason"], result["wasClean"]) == (4000, "enough \u20ac", True)
            assert (result["protocol"], result["extensions"]) == ("", "")

    net.run(test())


@pytest.mark.parametrize("graceful", [True, False])
def test_an_end_without_a_word(net: Network, client: Client, graceful: bool) -> None:
    async def test() -> None:
        site = Site()
        async with net.serve(site.accept) as url:
            told = asyncio.ensure_future(talk(client, url, [], [], None))
            (await site.connected()).transport.disconnect(graceful)
            result = await told
            assert (result["code"], result["reason"], result["wasClean"]) == (1006, "", False)

    net.run(test())


def test_pages_of_other_origins_are_refused(net: Network, client: Client) -> None:
    async def test() -> None:
        site, pages = Site(), Site()
        async with net.serve(pages.accept) as elsewhere:
            async with net.serve(site.accept, origins=["https://example.com"]) as url:
                result = await talk(client, url, [], ["hello"], [1000, ""], page=f"http{elsewhere[2:]}")
                assert (result["code"], result["wasClean"]) == (1006, False)
                assert not site.listeners
            ours = f"http://{urlsplit(elsewhere).netloc}"
            async with net.serve(site.accept, origins=[ours], assemble_messages=True) as url:
                result = await talk(client, url, [], ["hello"], [1000, ""], page=f"http{elsewhere[2:]}")
                assert result["received"] == ["hello"]
                listener = await site.connected()
                assert listener.transport.request.headers["Origin"] == ours

    if not client.is_browser:
        pytest.skip("node has no origin")
    net.run(test())
