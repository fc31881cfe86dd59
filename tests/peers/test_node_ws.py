"""The package `ws` of node on the other side, where it is installed: `make peers` does that, into build/peers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from picows import WSDeflate, WSMsgType
from tests.connection.networks import Network, Recorder, cut
from tests.peers.programs import ROOT, EchoMessages, program

SCRIPT = Path(__file__).with_name("ws_peer.cjs")
MODULES = os.pathsep.join(filter(None, (str(ROOT / "build" / "peers" / "node_modules"), os.environ.get("NODE_PATH"))))


@pytest.fixture(scope="module")
def node() -> str:
    found, environment = program("node"), {**os.environ, "NODE_PATH": MODULES}
    if subprocess.run([found, "-e", "require('ws')"], env=environment, stderr=subprocess.DEVNULL, check=False).returncode:
        pytest.skip("node has no package ws: `make peers` installs it")
    return found


class Told:
    """What the peer tells, line by line."""

    def __init__(self, lines: asyncio.StreamReader) -> None:
        self.lines = lines

    async def next(self) -> Any:
        return json.loads(await self.lines.readline())

    async def all(self) -> list[Any]:
        return [json.loads(line) for line in (await self.lines.read()).splitlines()]


@contextlib.asynccontextmanager
async def running(*command: str) -> AsyncIterator[Told]:
    environment = {**os.environ, "NODE_PATH": MODULES}
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, env=environment)
    assert process.stdout is not None
    try:
        yield Told(process.stdout)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        process._transport.close()  # type: ignore[attr-defined] # asyncio leaves its pipe to the garbage collector


def test_their_client(net: Network, node: str) -> None:
    async def test() -> None:
        listeners = []

        def accept(request: object) -> EchoMessages:
            listeners.append(EchoMessages())
            return listeners[-1]

        options = {"assemble_messages": True, "compression": WSDeflate(), "subprotocols": ["chat"]}
        async with net.serve(accept, **options) as url, running(node, str(SCRIPT), "client", url) as told:
            opened, *rest = await told.all()
            assert opened["protocol"] == "chat"
            assert opened["extensions"].startswith("permessage-deflate")
            assert [each["pong"] for each in rest if "pong" in each] == ["are you there", "between"]
            assert [each for each in rest if "size" in each] == [
                {"isBinary": False, "size": 9, "text": "hello \u20ac"},
                {"isBinary": False, "size": 9, "text": "in pieces"},
                {"isBinary": True, "size": 1 << 20, "text": ""},
            ]
            assert rest[-1] == {"closed": 4000, "reason": "done"}
            await listeners[0].disconnected.wait()
            transport = listeners[0].transport
            assert (transport.close_code, transport.close_reason) == (4000, "done")
            assert transport.compression is not None

    net.run(test())


@pytest.mark.parametrize("compression", [None, WSDeflate()], ids=["plain", "compressed"])
def test_their_server(net: Network, node: str, compression: WSDeflate | None) -> None:
    async def test() -> None:
        async with running(node, str(SCRIPT), "server") as told:
            url = f"ws://127.0.0.1:{(await told.next())['port']}/room?a=b"

            async def connect() -> Recorder:
                options = {"assemble_messages": True, "compression": compression, "subprotocols": ["chat"]}
                client: Recorder = await net.connect(Recorder, url, **options)
                opened = await told.next()
                assert (opened["path"], opened["protocol"]) == ("/room?a=b", "chat")
                assert opened["extensions"].startswith("permessage-deflate" if compression else "")
                assert bool(opened["extensions"]) is (client.transport.compression is not None) is (compression is not None)
                return client

            client = await connect()
            large = bytes(range(256)) * 4096
            client.transport.send(WSMsgType.TEXT, "hello \u20ac" * 20)
            client.transport.send(WSMsgType.TEXT, "in ", fin=False)
            client.transport.send_ping("between")
            client.transport.send(WSMsgType.CONTINUATION, "pieces")
            client.transport.send(WSMsgType.BINARY, large)
            assert await told.next() == {"ping": "between"}
            frames = [frame for frame in await client.take(4) if frame.msg_type != WSMsgType.PONG]
            assert [frame.payload for frame in frames] == [("hello \u20ac" * 20).encode(), b"in pieces", large]
            assert [frame.msg_type for frame in frames] == [WSMsgType.TEXT, WSMsgType.TEXT, WSMsgType.BINARY]
            await client.transport.close(4000, "done")
            assert await told.next() == {"closed": 4000, "reason": "done"}

            for word, code, reason in (("close", 4001, "as you wish"), ("terminate", 1006, "")):
                client = await connect()
                client.transport.send(WSMsgType.TEXT, word)
                await client.disconnected.wait()
                assert (client.transport.close_code, client.transport.close_reason) == (code, reason)
                assert (await told.next())["closed"] == code
                await cut(client)

    net.run(test())
