"""What examples/benchmark_brokers.py counts when a broker, or a server process, is killed under load.

One process publishes numbers. Two others serve clients on the same port, who come back by themselves and ask for what followed
the last position that they have seen. The broker, or one of the servers, gets a SIGKILL and is started again; then once
more. In the end each client has a list of numbers.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from picows import WSBackoff, WSError, WSFrame, WSListener, WSMsgType, WSTransport, ws_reconnect

from .benchmark import Failed, Worker
from .benchmark_broker_servers import STORES, BrokerServer
from .benchmark_report import ROOT

PEERS = Path(__file__).with_name("benchmark_broker_peers.py")
HOST, TOPIC = "127.0.0.1", "prices.btc"
BACKOFF = WSBackoff(0.02, maximum=0.5)
AT_ONCE, PAUSE = 20, 0.01  # messages, and seconds until the next ones
DOWN = 0.3  # seconds until a broker that was killed is started again
PATIENCE = 60.0  # seconds for all clients to get the last message
END = "end"


async def start_peer(library: str, kind: str, url: str, loop: str) -> Worker:
    """A process of benchmark_broker_peers.py."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return await Worker.start((sys.executable, str(PEERS), loop, library, kind, url), environment)


@dataclass
class Counts:
    """All clients together."""

    kind: str
    killed: str
    published: int  # and confirmed
    raised: int  # publishes of which nobody knows: they are neither received nor missed
    clients: int
    came_back: int  # connections, besides the first one of each client
    received: int
    missed: int
    duplicated: int
    out_of_order: int
    silence: float  # seconds: the longest that a client heard nothing

    def row(self) -> str:
        numbers = (self.published, self.raised, self.received, self.missed, self.duplicated, self.out_of_order)
        return f"{self.kind:15}{self.killed:10}" + "".join(f"{number:12,}" for number in numbers) + f"{self.silence:10.2f} s"

    @staticmethod
    def head() -> str:
        names = ("published", "raised", "received", "missed", "duplicated", "disordered")
        return f"{'broker':15}{'killed':10}" + "".join(f"{name:>12}" for name in names) + f"{'silence':>12}"


class Client:
    """Comes back whenever its connection ends, and says what it has seen last."""

    def __init__(self) -> None:
        self.position = ""
        self.numbers: list[int] = []
        self.connections = 0
        self.subscribed = self.ended = False
        self.silence, self.heard = 0.0, 0.0

    async def run(self, port: int) -> None:
        async for transport, _ in ws_reconnect(lambda: Reader(self), f"ws://{HOST}:{port}/", backoff=BACKOFF):
            with contextlib.suppress(WSError):  # comes again, whatever it was
                await transport.wait_disconnected()

    def hears(self, number: int) -> None:
        now = time.perf_counter()
        if self.numbers:
            self.silence = max(self.silence, now - self.heard)
        self.heard = now
        self.numbers.append(number)


class Reader(WSListener):
    """One connection of a client to examples/topics_workers.py."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._client.connections += 1
        transport.send(WSMsgType.TEXT, f"subscribe {TOPIC} {self._client.position}")

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type != WSMsgType.TEXT:
            return
        first, *rest = frame.get_payload_as_utf8_text().split(" ")
        if first == "subscribed":
            self._saw(rest[1])
            self._client.subscribed = True
        elif first == "error:":  # the broker is away: come again
            transport.disconnect()
        else:
            if rest:  # without a store there is no topic and no position before the message
                self._saw(rest[0])
            text = rest[1] if rest else first
            if text == END:
                self._client.ended = True
            else:
                self._client.hears(int(text))

    def _saw(self, position: str) -> None:
        if position != "None":
            self._client.position = position


def count(kind: str, killed: str, clients: Sequence[Client], load: dict[str, Any]) -> Counts:
    confirmed = set(range(load["tried"])) - set(load["raised"])
    counts = Counts(kind, killed, len(confirmed), len(load["raised"]), len(clients), 0, 0, 0, 0, 0, 0.0)
    for client in clients:
        numbers = [number for number in client.numbers if number in confirmed]
        counts.came_back += client.connections - 1
        counts.received += len(numbers)
        counts.missed += len(confirmed - set(numbers))
        counts.duplicated += len(client.numbers) - len(set(client.numbers))
        counts.out_of_order += sum(later < earlier for earlier, later in zip(client.numbers, client.numbers[1:]))
        counts.silence = max(counts.silence, client.silence)
    return counts


class Outage:
    """A broker, two servers, a publisher and clients."""

    def __init__(self, kind: str, loop: str) -> None:
        self.kind, self.loop = kind, loop
        self.servers: list[Worker] = []

    async def start_process(self) -> Worker:
        process = await start_peer("picows", self.kind, self.broker.url, self.loop)
        self.stack.push_async_callback(process.end)
        return process

    async def start_server(self) -> None:
        server = await self.start_process()
        self.servers.append(server)
        await server.ask("serve", self.port)

    async def kill_broker(self) -> None:
        await self.broker.kill()
        await asyncio.sleep(DOWN)
        await self.broker.start()

    async def kill_process(self) -> None:
        have = [await server.ask("connections") for server in self.servers]
        await self.servers.pop(have.index(max(have))).end()  # by SIGKILL
        await self.start_server()

    async def run(self, killed: str, clients: int, messages: int) -> Counts:
        """Kill twice; before, between and behind, every client hears so many messages."""
        kill = self.kill_broker if killed == "broker" else self.kill_process
        readers = [Client() for _ in range(clients)]
        async with contextlib.AsyncExitStack() as self.stack:
            folder = self.stack.enter_context(tempfile.TemporaryDirectory())
            self.broker = await self.stack.enter_async_context(BrokerServer(self.kind, Path(folder)))
            self.port = reserve_port(self.stack)
            for _ in range(2):
                await self.start_server()
            publisher = await self.start_process()
            running = [asyncio.ensure_future(reader.run(self.port)) for reader in readers]
            self.stack.push_async_callback(cancel, running)
            await until(readers, lambda client: client.subscribed, "subscribe")
            await publisher.ask("begin load", AT_ONCE, PAUSE)
            for _ in range(2):
                await hear(readers, messages)
                await kill()
            await hear(readers, messages)
            load = await publisher.ask("end load")
            await say_end(publisher, readers)
        return count(self.kind, killed, readers, load)


def reserve_port(stack: contextlib.AsyncExitStack) -> int:
    """For the servers; takes no connection itself."""
    sock = stack.enter_context(socket.socket())
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind((HOST, 0))
    port: int = sock.getsockname()[1]
    return port


async def until(clients: Sequence[Client], done: Callable[[Client], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while late := sum(not done(client) for client in clients):
        if time.monotonic() > end:
            raise Failed(f"{late} of {len(clients)} clients did not {what} within {PATIENCE:g} s")
        await asyncio.sleep(0.005)


async def hear(clients: Sequence[Client], messages: int) -> None:
    wanted = {client: len(client.numbers) + messages for client in clients}
    await until(clients, lambda client: len(client.numbers) >= wanted[client], f"hear {messages} messages")


async def say_end(publisher: Worker, clients: Sequence[Client]) -> None:
    """Again and again: without a store only those hear it who are there."""
    end = time.monotonic() + PATIENCE
    while not all(client.ended for client in clients):
        if time.monotonic() > end:
            raise Failed(f"not all clients heard the end within {PATIENCE:g} s")
        await publisher.ask("say", END)
        await asyncio.sleep(0.1)


async def cancel(tasks: Sequence[asyncio.Future[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def run_outages(kinds: Sequence[str], loop: str, clients: int, messages: int) -> list[dict[str, Any]]:
    """A row for each kind and each victim; the counts, also of those that failed."""
    print(f"\n{Counts.head()}", flush=True)
    found: list[dict[str, Any]] = []
    for kind in kinds:
        for killed in ("broker", "process"):
            try:
                counts = await Outage(kind, loop).run(killed, clients, messages)
            except Failed as error:
                print(f"{kind:15}{killed:10}failed: {error}", flush=True)
                found.append({"kind": kind, "killed": killed, "failed": str(error)})
                continue
            print(counts.row(), flush=True)
            found.append(asdict(counts))
    return found


def broken_promises(found: Sequence[dict[str, Any]]) -> list[str]:
    """What a store promises and was not kept; nothing comes twice in any case."""
    return [
        f"{each['kind']}, {each['killed']} killed: {each.get('failed') or 'missed or duplicated'}"
        for each in found
        if each.get("failed") or each["duplicated"] or each["out_of_order"] or (each["kind"] in STORES and each["missed"])
    ]
