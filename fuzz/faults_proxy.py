"""A proxy that breaks connections: at a byte that was drawn from a seed it changes the pace of a stream, or ends it."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from dataclasses import dataclass
from typing import Any

OPENING, OPEN, CLOSING = "opening", "open", "closing"
PHASES = (OPENING, OPEN, CLOSING)
TO_CLIENT, TO_SERVER = "to the client", "to the server"

# Within this time after the end of both sides their sockets have to be closed, too.
DRAIN_LIMIT = 10.0
# Only a proxy that is forgotten lives longer.
LIFE_LIMIT = 120.0


@dataclass(frozen=True)
class Fault:
    """What happens behind the given number of bytes of a phase, in one direction."""

    kind: str
    direction: str
    phase: str
    at: int
    piece: int = 0  # pace: the next `span` bytes go in pieces of this size, each followed by `pause` seconds
    pause: float = 0.0
    span: int = 0

    @property
    def ends(self) -> bool:
        return self.span == 0

    def __str__(self) -> str:
        pace = "" if self.ends else f" of {self.span} in pieces of {self.piece}, {self.pause} s apart"
        return f"{self.kind}{pace} {self.direction} behind byte {self.at} of {self.phase}"


_ENDS = {
    "cut": 20,  # both streams end, as if either side had closed
    "cut to one": 8,  # this stream ends and the socket is closed, the other side learns nothing
    "reset": 20,  # both sides are reset
    "reset to one": 10,  # the other side learns nothing
    "half-close": 18,  # this stream ends, the other goes on
    "black hole": 6,  # what comes is lost, both ways
    "black hole to one": 6,  # one way
    "deaf": 6,  # nothing is read any more, both ways
}


class Plan:
    """The faults of one connection."""

    def __init__(self, chance: random.Random, tls: bool) -> None:
        self._chance, self._tls = chance, tls
        self.faults = [self._pace() for _ in range(chance.choice([0, 0, 1, 1, 2, 4]))]
        self.breaks = chance.random() < 0.8
        if self.breaks:
            kind = chance.choices(list(_ENDS), list(_ENDS.values()))[0]
            self.faults.append(Fault(kind, *self._place()))

    def _place(self) -> tuple[str, str, int]:
        chance = self._chance
        phase = chance.choices(PHASES, [40, 35, 25])[0]
        ranges = {OPENING: [1, 30, 300, 4000] if self._tls else [1, 30, 300, 500],
                  OPEN: [6, 20, 200, 3000, 100_000], CLOSING: [3, 10, 30, 200]}[phase]
        return chance.choice([TO_CLIENT, TO_SERVER]), phase, chance.randrange(chance.choice(ranges))

    def _pace(self) -> Fault:
        chance = self._chance
        kind, piece, pause, span = chance.choice([
            ("delay", 1 << 20, chance.choice([0.001, 0.02, 0.1]), 1),
            ("single bytes", 1, 0.0, chance.choice([20, 200, 600])),
            ("throttle", chance.choice([1, 7, 100, 1460]), 0.001, chance.choice([50, 3000])),
            ("merge", 1 << 20, chance.choice([0.003, 0.02]), chance.choice([3000, 100_000])),
        ])
        return Fault(kind, *self._place(), piece, pause, min(span, 60 * piece))

    def __str__(self) -> str:
        return "; ".join(map(str, self.faults)) or "nothing"


class Direction:
    """One of the two streams."""

    def __init__(self, proxy: FaultyProxy, name: str, source: socket.socket, target: socket.socket) -> None:
        self._proxy, self.name, self._source, self._target = proxy, name, source, target
        self._loop = asyncio.get_running_loop()
        self._lost = False  # nothing is passed on any more
        self.came = 0  # bytes
        self._pace: Fault | None = None
        self._paced = 0
        self.enter(OPENING)

    def enter(self, phase: str) -> None:
        self._passed = 0
        self._due = sorted((fault for fault in self._proxy.plan.faults if fault.direction == self.name and fault.phase == phase),
                           key=lambda fault: fault.at)

    def lose(self) -> None:
        self._lost = True

    def end(self) -> None:
        self._lost = True
        with contextlib.suppress(OSError):
            self._target.shutdown(socket.SHUT_WR)

    async def run(self) -> None:
        """Returns at the end of the stream."""
        await self._pass(b"")
        while True:
            try:
                data = await self._loop.sock_recv(self._source, 65536)
            except OSError:
                data = b""
            if not data:
                break
            self.came += len(data)
            await self._pass(data)
        if not self._lost:
            self.end()

    async def _pass(self, data: bytes) -> None:
        while self._due and self._due[0].at <= self._passed + len(data):
            fault = self._due.pop(0)
            size = max(fault.at - self._passed, 0)
            await self._send(data[:size])
            data = data[size:]
            if fault.ends:
                await self._proxy.happen(fault)
            else:
                self._pace, self._paced = fault, 0
        await self._send(data)

    async def _send(self, data: bytes) -> None:
        at = 0
        while at < len(data) and not self._lost:
            pace = self._pace
            size = len(data) if pace is None else pace.piece
            try:
                await self._loop.sock_sendall(self._target, data[at : at + size])
            except OSError:
                self._lost = True
            at += size
            if pace is not None:
                await asyncio.sleep(pace.pause)
                self._paced += size
                if self._paced >= pace.span:
                    self._pace = None
        self._passed += len(data)


class FaultyProxy:
    """Between one client and one server, in the event loop of the peers."""

    def __init__(self, plan: Plan, host: str, server: tuple[str, int]) -> None:
        self.plan = plan
        self._server = server
        self._listening = socket.socket()
        self._listening.bind((host, 0))
        self._listening.listen(1)
        self._listening.setblocking(False)
        self.port: int = self._listening.getsockname()[1]
        self.happened: Fault | None = None  # that which ended a stream
        self.left_open: list[str] = []  # who did not close its socket
        self._sockets: dict[str, socket.socket] = {}
        self._directions: list[Direction] = []
        self._broken = asyncio.Event()
        self._over = asyncio.Event()

    def enter(self, phase: str) -> None:
        for direction in self._directions:
            direction.enter(phase)

    def release(self) -> None:
        """Both sides have ended, as far as they know."""
        self._over.set()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        with self._listening:
            accepting = asyncio.ensure_future(loop.sock_accept(self._listening))
            await self._first_of(accepting, self._over)
        if accepting.cancelled():
            return
        client, _ = accepting.result()
        server = socket.socket()
        self._sockets = {TO_CLIENT: client, TO_SERVER: server}
        try:
            for sock in self._sockets.values():
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with contextlib.suppress(OSError):
                await loop.sock_connect(server, self._server)
                await self._relay(client, server)
        finally:
            for sock in self._sockets.values():
                sock.close()

    async def _relay(self, client: socket.socket, server: socket.socket) -> None:
        self._directions = [Direction(self, TO_SERVER, client, server), Direction(self, TO_CLIENT, server, client)]
        streams = asyncio.gather(*(direction.run() for direction in self._directions))
        await self._first_of(streams, self._broken, self._over)
        if self._broken.is_set():
            assert self.happened is not None
            self._close(self.happened)
            await asyncio.wait_for(self._over.wait(), LIFE_LIMIT)
        await asyncio.gather(*(self._drain(name, sock) for name, sock in self._sockets.items() if sock.fileno() >= 0))

    async def _first_of(self, work: asyncio.Future[Any], *events: asyncio.Event) -> None:
        """Wait until the work is done or one of the events has come, and leave nothing behind that waits for a socket."""
        waiting = [work, *(asyncio.ensure_future(event.wait()) for event in events)]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED, timeout=LIFE_LIMIT)
        for each in waiting:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    def __str__(self) -> str:
        came = [f"{direction.came} bytes {direction.name}" for direction in self._directions] or ["no connection"]
        return f"happened: {self.happened}, came {', '.join(came)}"

    async def happen(self, fault: Fault) -> None:
        """Called by the stream in which it happens."""
        self.happened = fault
        if fault.kind == "half-close":
            self._direction(fault).end()
        elif fault.kind == "black hole to one":
            self._direction(fault).lose()
        elif fault.kind == "black hole":
            for direction in self._directions:
                direction.lose()
        else:
            self._broken.set()
            await asyncio.Event().wait()  # to be cancelled

    def _direction(self, fault: Fault) -> Direction:
        return next(direction for direction in self._directions if direction.name == fault.direction)

    def _close(self, fault: Fault) -> None:
        for name, sock in self._sockets.items():
            if fault.kind != "deaf" and (name == fault.direction or not fault.kind.endswith("to one")):
                if fault.kind.startswith("reset"):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                sock.close()

    async def _drain(self, name: str, sock: socket.socket) -> None:
        """Wait until the peer has closed."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + DRAIN_LIMIT
        try:
            while await asyncio.wait_for(loop.sock_recv(sock, 65536), deadline - loop.time()):
                pass
        except asyncio.TimeoutError:
            self.left_open.append("the client" if name == TO_CLIENT else "the server")
        except OSError:
            pass
