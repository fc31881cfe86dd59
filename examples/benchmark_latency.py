"""How long a round trip takes, and how much of it a program can avoid that has a core to spare.

    python -m examples.benchmark_latency [--seconds 5] [--runs 3] [--json latency.json]

A client sends a message of 256 bytes to an echo server in another process, waits for it to come back, and sends the
next. The ways to do that take turns: A B C, A B C. docs/guides/latency.rst says what they are. It needs a machine with at
least two cores that does nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from picows import WSFrame, WSListener, WSMsgType, WSTransport, busy_poll, ws_connect, ws_create_server

from .benchmark_report import conditions

MESSAGE = b"x" * 256
PERCENTILES = (50, 99, 99.9)
LOOPS = [name for name in ("asyncio", "uvloop") if importlib.util.find_spec(name)]


@dataclass(frozen=True)
class Way:
    """What is done for short round trips."""

    name: str
    client_awake: bool = False
    server_awake: bool = False
    pinned: bool = False
    no_gc: bool = False


WAYS = (
    Way("as usual"),
    Way("client awake", client_awake=True),
    Way("both awake", client_awake=True, server_awake=True),
    Way("both awake and pinned", client_awake=True, server_awake=True, pinned=True),
    Way("the same, no collector", client_awake=True, server_awake=True, pinned=True, no_gc=True),
)


def pin_to_core(index: int) -> None:
    """Keep this process on one of the cores that it may use, where its caches are warm."""
    if hasattr(os, "sched_setaffinity"):  # Linux
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[index % len(cores)]})


@contextlib.contextmanager
def without_collector() -> Iterator[None]:
    """Nothing looks for reference cycles inside of the block, nor ever again among what is there now."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class Echo(WSListener):
    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.BINARY:
            transport.send(WSMsgType.BINARY, frame)
        else:
            transport.disconnect()


async def serve(awake: bool) -> None:
    server = await ws_create_server(lambda request: Echo(), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    with busy_poll() if awake else contextlib.nullcontext():
        await server.serve_forever()


class Client(WSListener):
    """Measures each round trip until the time is over."""

    def __init__(self, seconds: float) -> None:
        self.times: list[int] = []  # nanoseconds
        self.end = time.perf_counter_ns() + int(seconds * 1e9)

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.send(transport)

    def send(self, transport: WSTransport) -> None:
        self.sent = time.perf_counter_ns()
        transport.send(WSMsgType.BINARY, MESSAGE)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        now = time.perf_counter_ns()
        self.times.append(now - self.sent)
        if now < self.end:
            self.send(transport)
        else:
            transport.disconnect()


async def talk(port: int, seconds: float, awake: bool) -> list[int]:
    with busy_poll() if awake else contextlib.nullcontext():
        transport, client = await ws_connect(lambda: Client(seconds), f"ws://127.0.0.1:{port}/")
        await transport.wait_disconnected()
    return client.times[len(client.times) // 20 :]  # the first few are slower


def run(loop_name: str, coroutine: Any) -> Any:
    if loop_name == "uvloop":
        import uvloop

        loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    else:
        loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(coroutine)
    finally:
        loop.close()


def process(role: str, loop: str, way: Way, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "examples.benchmark_latency", f"--{role}", loop, str(WAYS.index(way)), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def sample(loop: str, way: Way, seconds: float) -> dict[str, float]:
    """One run in two new processes; round trips per second, and percentiles in microseconds."""
    with process("server", loop, way) as server:
        assert server.stdout is not None
        with process("client", loop, way, server.stdout.readline().strip(), seconds) as client:
            printed, _ = client.communicate()
        server.kill()
    if client.returncode:
        raise SystemExit(f"the client failed: {loop}, {way.name}")
    found: dict[str, float] = json.loads(printed)
    return found


def take_role(role: str, loop: str, way: Way, arguments: list[str]) -> None:
    if way.pinned:
        pin_to_core(0 if role == "server" else 1)
    with without_collector() if way.no_gc else contextlib.nullcontext():
        if role == "server":
            run(loop, serve(way.server_awake))
        else:
            port, seconds = arguments
            times = sorted(run(loop, talk(int(port), float(seconds), way.client_awake)))
            at = {f"p{p:g}": times[min(len(times) - 1, int(len(times) * p / 100))] / 1000 for p in PERCENTILES}
            print(json.dumps({"rate": len(times) / sum(times) * 1e9, **at}))


def measure(loops: list[str], ways: list[Way], seconds: float, runs: int) -> Iterator[dict[str, Any]]:
    """The medians of the runs of each way."""
    for loop in loops:
        samples = [[sample(loop, way, seconds) for way in ways] for _ in range(runs)]
        for way, of_way in zip(ways, zip(*samples)):
            medians = {name: statistics.median(one[name] for one in of_way) for name in of_way[0]}
            yield {"loop": loop, "way": way.name, "median": medians, "samples": of_way}


def main() -> None:
    parser = argparse.ArgumentParser(description="Round-trip times with and without busy_poll. Takes three minutes.")
    parser.add_argument("--seconds", type=float, default=5, help="how long a sample takes")
    parser.add_argument("--runs", type=int, default=3, help="samples of each way")
    parser.add_argument("--loops", nargs="+", default=LOOPS, choices=LOOPS)
    parser.add_argument("--ways", nargs="+", default=range(len(WAYS)), type=int, help="some of the ways, by number from 0")
    parser.add_argument("--json", type=Path, default=Path("latency.json"), help="where the figures go")
    for role in ("server", "client"):
        parser.add_argument(f"--{role}", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    for role in ("server", "client"):
        if given := getattr(args, role):
            loop, way, *arguments = given
            take_role(role, loop, WAYS[int(way)], arguments)
            return

    about = conditions()
    results = []
    print(f"{'microseconds':32}" + "".join(f"{f'p{p:g}':>10}" for p in PERCENTILES) + f"{'trips/s':>12}")
    for result in measure(args.loops, [WAYS[number] for number in args.ways], args.seconds, args.runs):
        results.append(result)
        median = result["median"]
        figures = "".join(f"{median[f'p{p:g}']:10.1f}" for p in PERCENTILES)
        print(f"{result['loop']:9}{result['way']:23}{figures}{median['rate']:12,.0f}", flush=True)
    args.json.write_text(json.dumps({"conditions": about, "results": results}, indent=1) + "\n", encoding="utf-8")
    print(f"Wrote {args.json}")


if __name__ == "__main__":
    main()
