"""Compares the coroutine interfaces of picows with others, on this machine.

    python -m examples.benchmark_coroutines [--quick] [--only "echo 256"]

A table for each way to write a program: connections to await as a server and as a client, applications under uvicorn,
compressed "json". How it is measured is that of examples/benchmark.py; docs/benchmarks.rst has the rest.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from . import benchmark
from .benchmark import TRIALS, Contender, Failed, IdleTrial, ServerTrial, prepare, run_case, within_limits
from .benchmark_report import (
    ROOT,
    TABLE_FOOT,
    Case,
    Result,
    Sample,
    conditions,
    failures,
    measure,
    write_json,
)

# Contenders


@dataclass(frozen=True)
class NewerPython(Contender):
    """A library that has no wheel for older interpreters than this; it takes another one if this one is older."""

    least: tuple[int, int] = (3, 12)

    @property
    def python(self) -> Path:
        if sys.version_info >= self.least:
            return super().python
        return ROOT / "build" / f"benchmark-{self.least[0]}.{self.least[1]}" / self.name / "bin" / "python"

    async def install(self) -> None:
        if not self.python.exists() and sys.version_info < self.least:
            folder = self.python.parents[1]
            await self.run_to_end(self.interpreter(), "-m", "venv", str(folder))
            print(f"Installing {', '.join(self.packages)} for {self.name}, in an environment of Python 3.12 or later", flush=True)
            await self.run_to_end(str(self.python), "-m", "pip", "install", "--quiet", *self.packages)
        elif sys.version_info >= self.least:
            await super().install()

    def interpreter(self) -> str:
        names = (os.environ.get("NEWER_PYTHON", ""), *(f"python3.{minor}" for minor in range(20, self.least[1] - 1, -1)))
        for found in filter(None, map(shutil.which, filter(None, names))):
            if subprocess.run([found, "-c", ""], capture_output=True, check=False).returncode == 0:
                return found
        raise Failed(f"it needs Python {self.least[0]}.{self.least[1]}, which is not on the PATH; NEWER_PYTHON may name one")


OURS = Contender("picows", "picows.websockets", ("picows", "uvloop"), from_checkout=True)
WEB = Contender("picows.web", "picows.web", ("picows", "uvloop"), from_checkout=True)
CALLBACKS = Contender("callbacks", "picows", ("picows", "uvloop"), from_checkout=True)
# These share their environments with examples/benchmark.py, which names them so.
PUBLISHED = Contender("picows-published", "picows.websockets", ("picows", "aiofastnet", "uvloop"))
WEBSOCKETS = Contender("websockets", "websockets.asyncio", ("websockets", "uvloop"))
WEBSOCKET_RS = NewerPython("websocket-rs", "websocket_rs", ("websocket-rs", "uvloop"))

UNDER_UVICORN = ("uvicorn", "starlette", "httptools", "websockets", "wsproto", "uvloop")
APPLICATIONS = [
    Contender("uvicorn-picows", "uvicorn picows", ("picows", *UNDER_UVICORN), from_checkout=True),
    *(Contender(f"uvicorn-{name}", f"uvicorn {name}", UNDER_UVICORN) for name in ("websockets", "websockets-sansio", "wsproto")),
]


# Trials


class ModeTrial(ServerTrial):
    """An echo by another kind of server; its name is the first word of the case."""

    def serve_mode(self) -> str:
        return self.case.kind.partition(" ")[0]


class JsonTrial(ModeTrial):
    async def prepare(self) -> None:
        self.messages = self.case.depth
        await self.peer.ask("open", self.port, False, self.case.connections, True)
        await self.peer.ask("echo json", self.case.depth, self.case.size)


class IdleUnderUvicorn(IdleTrial):
    def serve_mode(self) -> str:
        return "asgi"


class PingTrial(ModeTrial):
    """Nothing is sent but pings. A sample takes two rounds of them."""

    interval = 2.0  # seconds

    def serve_mode(self) -> str:
        return f"pings {self.interval}"

    async def prepare(self) -> None:
        await self.peer.ask("open", self.port, False, self.case.connections)
        await self.peer.ask("answer pings")

    async def warm_up(self, seconds: float) -> None:
        await asyncio.sleep(self.interval)

    async def sample(self, seconds: float) -> Sample:
        cpu, count, begun = (await self.library.ask("usage"))["cpu"], await self.peer.ask("pings"), time.perf_counter()
        await asyncio.sleep(2 * self.interval)
        cpu = (await self.library.ask("usage"))["cpu"] - cpu
        seconds = time.perf_counter() - begun
        count = await self.peer.ask("pings") - count
        return Sample(count / seconds, cpu / max(count, 1) * 1e6, cpu / seconds)


class PipelineTrial(benchmark.ClientTrial):
    """As many messages in flight all the time: each answer is followed by the next message."""

    def exchange(self) -> tuple[int, int, int, int, int]:
        return 1, self.case.size, 1, self.case.size, self.case.depth


TRIALS.update(
    {
        "pipeline": PipelineTrial,
        "asgi": ModeTrial,
        "starlette": ModeTrial,
        "json": JsonTrial,
        "pings": PingTrial,
        "idle asgi": IdleUnderUvicorn,
    }
)


# Cases


class Part(NamedTuple):
    title: str
    contenders: list[Contender]
    cases: list[Case]


def all_parts(quick: bool) -> list[Part]:
    idle, kept_alive = (200, 1000) if quick else (1000, 10_000)
    return [
        Part(
            "A server of connections to await",
            [OURS, PUBLISHED, WEBSOCKETS],
            [
                Case("echo", 256, 1, 50),
                Case("echo", 256, 16, 50),
                Case("idle", connections=idle),
                Case("pings", connections=kept_alive),
            ],
        ),
        Part(
            "The same server, by what picows has",
            [CALLBACKS, OURS, WEB],
            [Case("echo", 256, 1, 50), Case("echo", 256, 16, 50), Case("idle", connections=idle)],
        ),
        Part(
            "A client to await",
            [OURS, WEBSOCKET_RS, PUBLISHED, WEBSOCKETS],
            [Case("round trip", 256, 1), Case("pipeline", 256, 100), Case("receive", 256)],
        ),
        Part(
            "An application under uvicorn, by its WebSocket classes",
            APPLICATIONS,
            [
                Case("asgi", 256, 1, 50),
                Case("asgi", 256, 16, 50),
                Case("starlette", 256, 16, 50),
                Case("idle asgi", connections=idle),
            ],
        ),
        Part("Compressed JSON, echoed", [OURS, WEBSOCKETS], [Case("json", 1024, 1, 8), Case("json", 65536, 1, 8)]),
    ]


# The run


async def run_part(part: Part, cases: list[Case], args: argparse.Namespace, versions: dict[str, Any]) -> list[Result]:
    found, broken = await prepare(part.contenders)
    versions.update(found)
    print(f"\n{part.title}\n")
    names = [each.name for each in part.contenders]
    results = await measure(
        cases,
        names,
        args.runs,
        lambda case, progress: run_case(case, part.contenders, broken, args.runs, args.seconds, progress),
    )
    for line in failures(results):
        print(line)
    return results


async def run_benchmark(args: argparse.Namespace) -> list[Result]:
    about: dict[str, Any] = {"conditions": conditions(), "versions": {}}
    about["conditions"].update(seconds=args.seconds, runs=args.runs)
    results: list[Result] = []
    for title, contenders, cases_of_all in all_parts(args.quick):
        chosen = [each for each in contenders if not args.contenders or each.name in args.contenders]
        part = Part(title, chosen, cases_of_all if chosen else [])
        cases = [
            case
            for case in within_limits(part.cases, benchmark.most_connections())
            if any(text in case.name for text in args.only.split(","))
        ]
        if cases:
            results += await run_part(part, cases, args, about["versions"])
    if not results:
        raise SystemExit(f"No case has {args.only!r} in its name")
    print(f"\n{TABLE_FOOT}")
    write_json(args.json, about, results)
    print(f"Wrote {args.json}")
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description="Compares coroutine interfaces to WebSocket. Takes three minutes.")
    parser.add_argument("--quick", action="store_true", help="fewer connections, shorter runs: a minute")
    parser.add_argument("--only", default="", metavar="TEXT,...", help="cases with one of these texts in the name")
    parser.add_argument("--contenders", type=lambda text: text.split(","), help="only these, by their names in the tables")
    parser.add_argument("--runs", type=int, help="samples of each contender in each case (default: 3, quick: 2)")
    parser.add_argument("--seconds", type=float, help="how long a sample takes (default: 0.4, quick: 0.2)")
    parser.add_argument("--json", type=Path, default=Path("benchmark_coroutines.json"), help="where the figures go")
    args = parser.parse_args()
    if args.quick:
        PingTrial.interval = 0.5
    args.runs = args.runs or (2 if args.quick else 3)
    args.seconds = args.seconds or (0.2 if args.quick else 0.4)
    if not any(result.samples for result in asyncio.run(run_benchmark(args))):
        raise SystemExit("Nothing was measured")


if __name__ == "__main__":
    main()
