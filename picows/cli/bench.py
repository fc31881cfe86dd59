"""``picows bench``: messages in flight on many connections, their rate and their latency."""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import sys
from bisect import bisect_left
from collections import Counter, deque
from itertools import accumulate
from time import perf_counter

from .. import WSFrame, WSListener, WSMsgType, WSTransport
from .dialing import dial
from .running import fail
from .terminal import is_terminal

BAR = 40  # characters
REFRESH = 0.2  # seconds

# Latencies are counted in steps of 2 %, so that a long run needs no more memory than a short one.
STEP = math.log(1.02)


class Histogram:
    """How often each latency came, in seconds. It can be read once it has one."""

    def __init__(self) -> None:
        self.total: int = 0
        self._counts: Counter[int] = Counter()
        self.maximum: float = 0.0

    def add(self, seconds: float) -> None:
        self.total += 1
        self._counts[round(math.log(max(seconds, 1e-9)) / STEP)] += 1
        if seconds > self.maximum:
            self.maximum = seconds

    def percentile(self, share: float) -> float:
        """What `share` of all, from 0 to 1, have not exceeded."""
        steps = sorted(self._counts)
        seen = list(accumulate(self._counts[step] for step in steps))
        step = steps[bisect_left(seen, share * self.total)]
        return min(math.exp(step * STEP), self.maximum)

    def lines(self) -> list[str]:
        """A bar for each doubling of the latency."""
        rows: Counter[int] = Counter()
        for step, count in self._counts.items():
            rows[math.ceil(step * STEP / math.log(2))] += count
        most = max(rows.values())
        return [
            f"{_milliseconds(2.0**row):>14}  {'#' * math.ceil(BAR * rows[row] / most):<{BAR}} {rows[row]:,}"
            for row in range(min(rows), max(rows) + 1)
        ]


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.3f} ms"


class Run:
    """What all connections of a run share."""

    def __init__(self, options: argparse.Namespace) -> None:
        payload = os.urandom((options.size + 1) // 2).hex()[: options.size]
        self.msg_type = WSMsgType.TEXT if options.text else WSMsgType.BINARY
        self.payload: bytes = payload.encode()
        self.depth: int = options.depth
        self.latencies: Histogram = Histogram()
        self.running = False
        self.problem: str | None = None


class Load(WSListener):
    """Keeps messages in flight on one connection."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._sent: deque[float] = deque()

    def start(self, transport: WSTransport) -> None:
        for _ in range(self._run.depth):
            self._send(transport)

    def _send(self, transport: WSTransport) -> None:
        self._sent.append(perf_counter())
        transport.send(self._run.msg_type, self._run.payload)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        run = self._run
        if frame.msg_type not in (WSMsgType.TEXT, WSMsgType.BINARY) or not run.running:
            return
        if frame.payload_size != len(run.payload) or not self._sent:
            run.problem = "the server does not echo: what it sends is not what was sent"
            run.running = False
            return
        run.latencies.add(perf_counter() - self._sent.popleft())
        self._send(transport)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        if self._run.running:
            self._run.problem = f"the server has closed a connection: {transport.close_code}"
            self._run.running = False


async def main(options: argparse.Namespace) -> int:
    run = Run(options)
    connections = []
    try:
        for _ in range(options.connections):
            connections.append(await dial(Load(run), options))
        print(
            f"{options.connections} connections, {options.depth} in flight on each, "
            f"{options.size} bytes, {options.time:g} s"
        )
        run.running = True
        started = perf_counter()
        for transport, load in connections:
            load.start(transport)
        await _watch(run, started, options.time)
        seconds = perf_counter() - started
        run.running = False
    finally:
        run.running = False
        await asyncio.gather(*(transport.close(timeout=2) for transport, _ in connections))
    if run.latencies.total:
        _report(run.latencies, seconds, options.size)
    if run.problem is not None:
        return fail(run.problem)
    return 0 if run.latencies.total else fail("no message has come back")


async def _watch(run: Run, started: float, limit: float) -> None:
    """Wait for the end, with a bar that grows where a person looks on."""
    show = is_terminal(sys.stderr)
    while run.running and (left := started + limit - perf_counter()) > 0:
        if show:
            done = round(BAR * (1 - left / limit))
            line = f"\r[{'#' * done:<{BAR}}] {run.latencies.total:,} messages"
            print(line, end="", file=sys.stderr, flush=True)
        await asyncio.sleep(min(REFRESH, left))
    if show:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _report(latencies: Histogram, seconds: float, size: int) -> None:
    rate = latencies.total / seconds
    print(f"{latencies.total:,} messages, {rate:,.0f} a second, {rate * size / 1e6:,.1f} MB/s each way")
    for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)):
        print(f"{name:>6} {_milliseconds(latencies.percentile(share)):>12}")
    print(f"{'max':>6} {_milliseconds(latencies.maximum):>12}")
    print("latency up to")
    for line in latencies.lines():
        print(line)
