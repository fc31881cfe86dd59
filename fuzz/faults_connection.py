"""One connection over the faulty proxy: drawn from a seed, opened, used and ended, whatever happens to it; and checked."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from typing import Any

from batches import Batches, Network
from faults_proxy import CLOSING, OPEN, FaultyProxy, Plan
from faults_sides import Awaiting, Listening, Side

from picows import WSDeflate, WSError, WSUpgradeRequest, ws_connect, ws_create_server
from picows.websockets.asyncio.client import connect
from picows.websockets.asyncio.server import serve
from picows.websockets.exceptions import InvalidHandshake

PATIENT = 20.0  # seconds, where the network is slow at most
SLACK = 4.0  # seconds that a busy machine may add to a time limit
SILENT = ("deaf", "black hole", "black hole to one", "cut to one", "reset to one")  # one side at least learns nothing of it


class Options:
    """What a connection is opened with."""

    def __init__(self, chance: random.Random, breaks: bool) -> None:
        self.mode = chance.choice(["frames", "messages", "deflate"])
        self.dialing, self.handshake = (chance.choice([0.4, 0.8]), chance.choice([0.4, 0.8])) if breaks else (PATIENT, PATIENT)
        self.close_timeout = chance.choice([0.1, 0.3]) if breaks else PATIENT
        self.arguments: dict[str, Any] = {
            "websocket_handshake_timeout": self.handshake,
            "coalesce_writes": chance.random() < 0.8,
            "assemble_messages": self.mode == "messages",
            "compression": self.deflate(chance) if self.mode == "deflate" else None,
            "read_buffer_init_size": chance.choice([1, 16384]),
        }
        if breaks and chance.random() < 0.2:
            self.arguments.update(
                enable_auto_ping=True, auto_ping_idle_timeout=chance.choice([0.02, 0.1]), auto_ping_reply_timeout=0.1)
        if breaks and chance.random() < 0.2:
            self.arguments["receive_timeout"] = chance.choice([0.05, 0.2])

    @staticmethod
    def deflate(chance: random.Random) -> WSDeflate:
        return WSDeflate(
            level=1, min_size=chance.choice([0, 64]),
            server_no_context_takeover=chance.random() < 0.3, client_no_context_takeover=chance.random() < 0.3)


class FaultyConnection:
    """The number of a connection and the seed say all of it."""

    def __init__(self, batches: Batches, network: Network, index: int, chance: random.Random) -> None:
        self._batches, self._network, self.index, self._chance = batches, network, index, chance
        self._plan = Plan(chance, network.tls)
        self._options = {name: Options(chance, self._plan.breaks) for name in ("client", "server")}
        coroutines = chance.random() < 0.25
        self._sides = {
            name: self._side(name, origin, coroutines and chance.random() < 0.7)
            for origin, name in enumerate(("client", "server"), 2 * index)
        }
        self._finale = [chance.choices(["close", "disconnect", "send close", "abort"], [45, 30, 15, 10])[0] for _ in range(2)]
        self._client_first = chance.random() < 0.5
        self._together = chance.random() < 0.1
        self._life = chance.choice([0.0, 0.002, 0.02, 0.1])
        self._proxy: FaultyProxy | None = None
        self._began = time.monotonic()
        self._stage = "start"
        self._first: Side | None = None  # who has ended it

    def _side(self, name: str, origin: int, coroutines: bool) -> Side:
        options = self._options[name]
        chance = random.Random(self._chance.getrandbits(64))
        if coroutines:
            return Awaiting(name, chance, origin, options.close_timeout)
        return Listening(name, chance, origin, options.close_timeout, options.mode != "frames")

    @property
    def outcome(self) -> str:
        fault = self._proxy and self._proxy.happened
        how = f"{fault.kind}, {fault.phase}" if fault else "whole"
        return how if self._sides["client"].connected else f"{how}, not connected"

    def __str__(self) -> str:
        return "; ".join([
            f"in {self._stage}", str(self._network), *map(str, self._sides.values()), f"finale {self._finale}, "
            f"client first {self._client_first}, together {self._together}", f"planned: {self._plan}", str(self._proxy),
            *(f"{name} {options.mode} {options.arguments}" for name, options in self._options.items())])

    def _found(self, text: str) -> None:
        self._batches.found(self.index, f"{text}; {self}")

    def abort(self) -> None:
        for side in self._sides.values():
            side.abort()

    # Its life

    async def run(self) -> None:
        host = own_address(self.index)
        server = await self._serve(host)
        peers = self._batches.peers
        proxy = self._proxy = await asyncio.wrap_future(peers.run(self._open_proxy(host, server.sockets[0].getsockname()[1])))
        relaying = asyncio.wrap_future(peers.run(proxy.run()))
        try:
            client_ended = await self._connect(host, proxy.port)
            peers.call(lambda: proxy.enter(OPEN))
            await self._talk()
            peers.call(lambda: proxy.enter(CLOSING))
            await self._end()
            await client_ended
            self._stage = "the end of the sockets"
        finally:
            peers.call(proxy.release)
            server.close()
        await self._end_late(relaying)
        await relaying
        await server.wait_closed()
        self._check()

    async def _open_proxy(self, host: str, port: int) -> FaultyProxy:
        return FaultyProxy(self._plan, host, (host, port))

    async def _serve(self, host: str) -> Any:
        side, options = self._sides["server"], self._options["server"]
        tls: dict[str, Any] = {}
        if self._network.tls:
            tls = {"ssl": self._batches.peers.tls[False], "ssl_handshake_timeout": options.handshake}
        if isinstance(side, Awaiting):
            return await serve(
                side.begin, host, 0, open_timeout=options.handshake, close_timeout=options.close_timeout,
                compression="deflate" if options.mode == "deflate" else None, max_size=None, **{**tls, "ping_interval": None})
        assert isinstance(side, Listening)

        def factory(request: WSUpgradeRequest) -> Any:
            return self._watched(side)

        return await ws_create_server(factory, host, 0, use_aiofastnet=self._network.fast, **tls, **options.arguments)

    def _watched(self, side: Listening) -> Any:
        listener = side.listener()
        self._batches.watch(listener, self.index)
        return listener

    async def _connect(self, host: str, port: int) -> Any:
        """Something to await at the end."""
        self._stage = "connecting"
        side, options = self._sides["client"], self._options["client"]
        url = f"{'wss' if self._network.tls else 'ws'}://{host}:{port}/"
        tls = {"ssl_handshake_timeout": PATIENT} if self._network.tls else {}
        context = self._batches.peers.tls[True] if self._network.tls else None
        begin = time.monotonic()
        limit = options.dialing + options.handshake
        try:
            if isinstance(side, Awaiting):
                ws = await connect(
                    url, ssl=context, open_timeout=options.dialing, close_timeout=options.close_timeout, proxy=None,
                    compression="deflate" if options.mode == "deflate" else None, max_size=None, ping_interval=None)
                return side.begin(ws)
            assert isinstance(side, Listening)
            await ws_connect(
                lambda: self._watched(side), url, ssl_context=context, use_aiofastnet=self._network.fast,
                connect_timeout=options.dialing, **tls, **options.arguments)
        except (WSError, OSError, InvalidHandshake, asyncio.TimeoutError) as error:
            if not self._plan.breaks:
                self._found(f"connecting raised {error!r}, though the network was whole")
            if side.calls:
                self._found(f"connecting raised {error!r}, and callbacks were called")
        else:
            if not side.connected:
                self._found("connecting returned, and on_ws_connected was not called")
        self._check_time("connecting", begin, limit)
        return asyncio.sleep(0)

    def _check_time(self, what: str, begin: float, limit: float) -> None:
        seconds = time.monotonic() - begin
        if seconds > limit + SLACK and not self._batches.stalled_since(begin):
            self._found(f"{what} took {seconds:.1f} seconds, expected {limit:g} at most")

    @property
    def _open(self) -> list[Side]:
        return [side for side in self._sides.values() if side.connected]

    async def _talk(self) -> None:
        self._stage = "talking"
        if not self._plan.breaks:
            # The server learns by the end of the request, which is on its way, that it is connected.
            for side in self._open:
                await side.talk()
        else:
            talking = [asyncio.ensure_future(side.talk()) for side in self._open]
            await asyncio.sleep(self._life)
            for task in talking:
                task.cancel()
            await asyncio.gather(*talking, return_exceptions=True)

    async def _end(self) -> None:
        self._stage = "ending"
        sides = self._open
        if not self._client_first:
            sides.reverse()
        self._first = sides[0] if sides else None
        if self._together:
            await asyncio.gather(*(self._end_one(side, how) for side, how in zip(sides, self._finale)))
            return
        for side, how in zip(sides, self._finale):
            if side is not sides[0]:
                await self._wait_ended(side)
            await self._end_one(side, how)

    async def _end_one(self, side: Side, how: str) -> None:
        begin = time.monotonic()
        await side.end(how)
        self._check_time(f"{how} of the {side.name}", begin, side.limit(how))

    async def _wait_ended(self, side: Side) -> None:
        """The other side has ended: this one learns it, unless the network keeps it back."""
        assert self._proxy is not None
        fault = self._proxy.happened
        kept_back = fault is not None and fault.kind in SILENT
        waiting = asyncio.ensure_future(side.disconnected.wait())
        done, _ = await asyncio.wait([waiting], timeout=0.1 if kept_back else PATIENT)
        waiting.cancel()
        if not done and not (fault or self._proxy.happened):
            self._found(f"the {side.name} does not learn that the other side has ended")

    async def _end_late(self, relaying: asyncio.Future[Any]) -> None:
        """A server may be connected when the client has long given up."""
        while not relaying.done():
            for side in self._open:
                if not side.disconnected.is_set():
                    await self._end_one(side, "disconnect")
            await asyncio.wait([relaying], timeout=0.05)

    # The check

    def _all_arrives(self, sender: Side, receiver: Side) -> bool:
        """Whether all that was sent has to come."""
        if receiver.close_seen:
            return True
        if self._plan.breaks or self._together or sender is not self._first or self._finale[0] == "abort":
            return False
        # A TLS connection cannot be half closed: what the peer still sends is answered by a reset.
        return self._finale[0] != "disconnect" or isinstance(sender, Awaiting) or not (self._network.tls and receiver.sent)

    def _check(self) -> None:
        assert self._proxy is not None
        client, server = self._sides["client"], self._sides["server"]
        for side, other in ((client, server), (server, client)):
            side.check_order()
            side.check_against(other, self._all_arrives(other, side))
            for problem in side.problems:
                self._found(f"the {side.name}: {problem}")
        for who in self._proxy.left_open:
            self._found(f"{who} has not closed its socket")
        if not self._plan.breaks and not (client.connected and server.connected):
            self._found("the network was whole, and not both sides were connected")


def own_address(index: int) -> str:
    """What was closed holds its port for a minute, and there are not so many ports."""
    if sys.platform != "linux":
        return "127.0.0.1"
    return f"127.{1 + (index >> 16) % 250}.{index >> 8 & 255}.{index & 255 or 1}"
