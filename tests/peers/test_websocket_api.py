"""Clients with the WebSocket API of browsers: Chromium, Firefox and node, where they are installed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from picows import WSDeflate, WSMsgType, WSUpgradeRequest, WSUpgradeResponse, WSUpgradeResponseWithListener
from tests.connection.networks import Network
from tests.peers.programs import PATH, EchoMessages, chromium_driver, program

pytestmark = [
    pytest.mark.timeout(180),  # a busy machine is slow to start a browser
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # of the browsers' drivers
]

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

    def run(self, code: str, page: str) -> Any:
        raise NotImplementedError

    def close(self) -> None: ...


class Browser(Client):
    def __init__(self, driver: Any) -> None:
        self.driver = driver
        driver.set_script_timeout(60)

    def run(self, code: str, page: str) -> Any:
        self.driver.get(page)
        script = f"const done = arguments[0]; {TALK} ({code}).then(done, error => done(String(error)))"
        return self.driver.execute_async_script(script)

    def close(self) -> None:
        self.driver.quit()


class Node(Client):
    is_browser = False

    def __init__(self, path: str) -> None:
        self.command = [path]
        for options in ([], ["--experimental-websocket"]):  # 22 has it, and 20 by this option
            there = subprocess.run([path, *options, "-e", "new WebSocket"], capture_output=True, text=True, check=False).stderr
            if "WebSocket is not defined" not in there and "bad option" not in there:
                self.command += options
                return
        pytest.skip("this node has no WebSocket")

    def run(self, code: str, page: str) -> Any:
        script = f"{TALK} ({code}).then(result => console.log(JSON.stringify(result)))"
        done = subprocess.run([*self.command, "-"], input=script.encode(), stdout=subprocess.PIPE, timeout=60, check=True)
        return json.loads(done.stdout)


def chromium(folder: Path) -> Client:
    return Browser(chromium_driver(folder))


def firefox(folder: Path) -> Client:
    webdriver = pytest.importorskip("selenium.webdriver", reason="no selenium")
    options = webdriver.FirefoxOptions()
    options.binary_location = shutil.which("firefox", path=PATH) or program("firefox-esr")
    options.add_argument("-headless")
    service = webdriver.FirefoxService(program("geckodriver"), log_output=str(folder / "log"))
    return Browser(webdriver.Firefox(options=options, service=service))


def node(folder: Path) -> Client:
    return Node(program("node"))


@pytest.fixture(scope="module", params=[chromium, firefox, node], ids=lambda start: start.__name__)
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with contextlib.closing(request.param(tmp_path_factory.mktemp("client"))) as running:
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
    page = page or f"http{url[2:]}"
    return await asyncio.get_running_loop().run_in_executor(None, client.run, code, page)


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
