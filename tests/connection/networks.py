"""What a connection is tested on (event loop x TCP or TLS x aiofastnet or not), and the listener to watch it by."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import importlib.util
import itertools
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest

from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect, ws_create_server
from tests.connection.proxies import client_tls, open_sockets, server_tls, sockets_closed_down_to

_ALL_LOOPS = ("asyncio", "uvloop")
LOOPS = [name for name in _ALL_LOOPS if importlib.util.find_spec(name) is not None]

TIME_LIMIT = 30.0  # seconds; only a test that hangs meets it


class Received(NamedTuple):
    """A frame as a test compares it."""

    msg_type: int
    payload: bytes
    fin: bool = True
    rsv: tuple[bool, bool, bool] = (False, False, False)


class Recorder(WSListener):
    """Keeps what it was told, and lets a test wait for it."""

    transport: WSTransport

    def __init__(self) -> None:
        self.frames: asyncio.Queue[Received] = asyncio.Queue()
        self.disconnected = asyncio.Event()
        self.calls: list[str] = []

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.calls.append("connected")
        self.transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        self.frames.put_nowait(received(frame))

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.calls.append("disconnected")
        self.disconnected.set()

    async def take(self, count: int) -> list[Received]:
        return [await self.frames.get() for _ in range(count)]

    async def payload(self) -> bytes:
        return (await self.frames.get()).payload

    def rest(self) -> list[Received]:
        """What was received and not taken yet."""
        return [self.frames.get_nowait() for _ in range(self.frames.qsize())]


class Echo(Recorder):
    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        super().on_ws_frame(transport, frame)
        if frame.msg_type in (WSMsgType.TEXT, WSMsgType.BINARY):
            transport.send(frame.msg_type, frame.get_payload_as_bytes())


class EchoInPlace(Recorder):
    """Sends the frame itself, without a copy of its payload."""

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        super().on_ws_frame(transport, frame)
        if frame.msg_type in (WSMsgType.TEXT, WSMsgType.BINARY):
            transport.send(frame.msg_type, frame)


def received(frame: WSFrame) -> Received:
    rsv = (bool(frame.rsv1), bool(frame.rsv2), bool(frame.rsv3))
    return Received(frame.msg_type, frame.get_payload_as_bytes(), bool(frame.fin), rsv)


def close_state(transport: WSTransport) -> tuple[Any, Any, bool] | None:
    """The closing handshake as (sent, recv, recv_then_sent), with (code, reason) pairs."""
    state = transport.close_handshake
    if state is None:
        return None
    sent, recv = (info and (info.code, info.reason or "") for info in (state.sent, state.recv))
    return sent, recv, state.recv_then_sent


@dataclass(frozen=True)
class Network:
    loop: str = "asyncio"
    tls: bool = False
    fast: bool = False

    def __str__(self) -> str:
        return "-".join([self.loop, "tls" if self.tls else "tcp", *["aiofastnet"] * self.fast])

    @property
    def modules(self) -> list[str]:
        return ["uvloop"] * (self.loop == "uvloop") + ["aiofastnet"] * self.fast

    def run(self, test: Coroutine[Any, Any, None]) -> None:
        """Run a test on a new loop. What reaches the loop's exception handler fails it, so does a socket left open."""

        async def run_to_the_end() -> None:
            count = open_sockets()
            await test
            await sockets_closed_down_to(count)

        loop = importlib.import_module(self.loop).new_event_loop()
        problems: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, context: problems.append(context))
        try:
            loop.run_until_complete(asyncio.wait_for(run_to_the_end(), TIME_LIMIT))
            unfinished = asyncio.all_tasks(loop)
            loop.run_until_complete(loop.shutdown_default_executor())
        finally:
            loop.close()
        assert not problems, problems
        assert not unfinished, unfinished

    @contextlib.asynccontextmanager
    async def serve(self, factory: Callable[..., Any], **options: Any) -> AsyncIterator[str]:
        """A server that calls ``factory(request)``; gives its URL."""
        options.setdefault("use_aiofastnet", self.fast)
        if self.tls:
            options.setdefault("ssl", server_tls())
        server = await ws_create_server(factory, "127.0.0.1", 0, **options)
        scheme = "wss" if self.tls else "ws"
        try:
            yield f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        finally:
            server.close()

    async def connect(self, factory: Callable[..., Any], url: str, **options: Any) -> Any:
        """The client's listener; a Recorder knows its transport."""
        options.setdefault("use_aiofastnet", self.fast)
        if self.tls:
            options.setdefault("ssl_context", client_tls())
        _, listener = await ws_connect(factory, url, **options)
        return listener

    @contextlib.asynccontextmanager
    async def pair(
        self,
        client: Callable[[], Any] = Recorder,
        server: Callable[[], Any] = Recorder,
        *,
        client_options: dict[str, Any] | None = None,
        server_options: dict[str, Any] | None = None,
    ) -> AsyncIterator[tuple[Any, Any]]:
        """Two connected Recorders, the client's and the server's. At the end both connections are cut."""
        at_server = []

        def factory(request: object) -> Any:
            at_server.append(server())
            return at_server[-1]

        async with self.serve(factory, **server_options or {}) as url:
            at_client = await self.connect(client, url, **client_options or {})
            try:
                yield at_client, at_server[0]
            finally:
                await cut(at_client, at_server[0])


async def cancel_at_every_step(connect: Callable[[], Coroutine[Any, Any, Any]], open_behind: int) -> None:
    """Cancel a connect after ever more steps of the loop, until it is done first; no more sockets may stay open than told."""
    for steps in itertools.count():
        task = asyncio.ensure_future(connect())
        for _ in range(steps):
            await asyncio.sleep(0)
        if not task.cancel():
            break
        with pytest.raises(asyncio.CancelledError):
            await task
        await sockets_closed_down_to(open_behind)
    await cut(await task)


@contextlib.asynccontextmanager
async def subscribers(
    net: Network, count: int, server: Any = Recorder, **options: Any
) -> AsyncIterator[tuple[list[Recorder], list[Any]]]:
    """Connected listeners: the clients', and the server's in the same order."""
    clients: list[Recorder] = []
    servers: list[Any] = []

    def factory(request: object) -> Any:
        servers.append(server())
        return servers[-1]

    async with net.serve(factory, **options) as url:
        try:
            for _ in range(count):
                clients.append(await net.connect(Recorder, url))
            yield clients, servers
        finally:
            await cut(*clients, *servers)


def transports(listeners: list[Any]) -> list[WSTransport]:
    return [listener.transport for listener in listeners]


async def all_at_once(*tests: Coroutine[Any, Any, None]) -> None:
    """Run tests that mostly wait, each on connections of its own; the first failure is raised when all have ended."""
    for outcome in await asyncio.gather(*tests, return_exceptions=True):
        if outcome is not None:
            raise outcome


async def cut(*listeners: Recorder) -> None:
    """End what is left of some connections."""
    for listener in listeners:
        listener.transport.disconnect(graceful=False)
        # How it ended is the business of the test.
        with contextlib.suppress(Exception):
            await listener.transport.wait_disconnected()


def _missing(network: Network) -> list[str]:
    return [name for name in network.modules if importlib.util.find_spec(name) is None]


def _over(*networks: Network) -> pytest.MarkDecorator:
    def parameter(network: Network) -> Any:
        missing = _missing(network)
        return pytest.param(network, id=str(network), marks=pytest.mark.skipif(bool(missing), reason=f"no {missing}"))

    return pytest.mark.parametrize("net", [parameter(network) for network in networks])


_EVERY_NETWORK = [Network(loop, tls, fast) for loop in _ALL_LOOPS for tls in (False, True) for fast in (False, True)]
NETWORKS = [network for network in _EVERY_NETWORK if not _missing(network)]

over_every_network = _over(*_EVERY_NETWORK)
over_every_tls = _over(*(Network(loop, True, fast) for loop in _ALL_LOOPS for fast in (False, True)))
over_tcp_and_tls = _over(*(Network(loop, tls) for loop in _ALL_LOOPS for tls in (False, True)))
over_both_loops = _over(*(Network(loop) for loop in _ALL_LOOPS))
