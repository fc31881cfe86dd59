"""What a broker costs between two processes by WSTopics, and what arrives when it, or a process, is killed.

    python -m examples.benchmark_brokers [--quick] [--only jetstream] [--json benchmark_brokers.json]

Two processes are joined by NATS, and by Redis, without and with a store: messages a second from publish in one to a WebSocket
client in the other, beside the broker's own client for Python, which does the same without the last step. Then the broker
is killed under load, and a server process. docs/benchmarks.rst says how to read the figures.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from .benchmark import Contender, Failed, Trial
from .benchmark_broker_outages import broken_promises, run_outages, start_peer
from .benchmark_broker_servers import NATS, REDIS, BrokerServer, NotInstalled, program, version
from .benchmark_report import (
    TABLE_FOOT,
    Case,
    Progress,
    Result,
    Sample,
    conditions,
    failures,
    measure,
    unsteady,
    write_json,
)

KINDS = ("nats", "jetstream", "redis", "redis-streams")
DEPTHS = (1, 100)
SIZE = 256
CONTENDERS = [Contender(name, name, (), from_checkout=True) for name in ("picows", "bare client")]
LOOP = "uvloop" if importlib.util.find_spec("uvloop") else "asyncio"


class BrokerTrial(Trial):
    """A broker and a process on each side of it."""

    def __init__(self, case: Case, contender: Contender) -> None:
        super().__init__(case, contender)
        self.stack = contextlib.AsyncExitStack()

    async def start(self) -> None:
        folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        server = await self.stack.enter_async_context(BrokerServer(self.case.kind, folder))
        for _ in range(2):
            process = await start_peer(self.contender.library, self.case.kind, server.url, self.case.loop)
            self.workers.append(process)
        self.publisher, self.receiver = self.workers
        await self.receiver.ask("subscribe")

    async def sample(self, seconds: float) -> Sample:
        before = [await worker.ask("usage") for worker in self.workers]
        sent = await self.publisher.ask("publish", seconds, self.case.depth, self.case.size)
        got = await self.receiver.ask("wait", sent["count"])
        used = [await worker.ask("usage") - cpu for worker, cpu in zip(self.workers, before)]
        if got["received"] != sent["count"]:
            raise Failed(f"{got['received']} of {sent['count']} messages arrived")
        elapsed = got["last"] - sent["begun"]
        return Sample(sent["count"] / elapsed, sum(used) / sent["count"] * 1e6, max(used) / elapsed)

    async def end(self) -> None:
        await super().end()
        await self.stack.aclose()


async def run_case(case: Case, args: argparse.Namespace, progress: Progress) -> list[Result]:
    """Take turns: one sample of each contender, then the next one of each."""
    trials = [BrokerTrial(case, contender) for contender in CONTENDERS]
    try:
        for trial in trials:
            await trial.attempt(trial.start)
            await trial.attempt(trial.warm_up, args.seconds)
        for _ in range(args.runs):
            for trial in trials:
                await trial.attempt(trial.measure, args.seconds)
                progress.step()
    finally:
        for trial in trials:
            await trial.end()
    return [trial.result for trial in trials]


async def run_cases(kinds: Sequence[str], args: argparse.Namespace) -> list[Result]:
    cases = [Case(kind, SIZE, depth, loop=LOOP) for kind in kinds for depth in DEPTHS]
    names = [each.name for each in CONTENDERS]
    results = await measure(cases, names, args.runs, lambda case, progress: run_case(case, args, progress))
    print(TABLE_FOOT)
    for line in (*failures(results), *unsteady(results)):
        print(line)
    return results


def installed(kinds: Sequence[str]) -> list[str]:
    """Those whose server is there; for the others, how to get it."""
    missing = set()
    for kind in kinds:
        try:
            program(kind)
        except NotInstalled as error:
            missing.add(kind)
            print(f"{kind} cannot take part: {error}", flush=True)
    return [kind for kind in kinds if kind not in missing]


def versions(kinds: Sequence[str]) -> dict[str, str]:
    found = {}
    for of_one, package in ((NATS, "nats-py"), (REDIS, "redis")):
        if used := [kind for kind in kinds if kind in of_one]:
            found[package] = metadata.version(package)
            found[of_one[0]] = version(used[0])
    return found


async def run_benchmark(args: argparse.Namespace) -> bool:
    kinds = installed([kind for kind in KINDS if any(text in kind for text in args.only.split(","))])
    if not kinds:
        raise SystemExit("Nothing was measured")
    about: dict[str, Any] = {"conditions": conditions(), "versions": versions(kinds)}
    about["conditions"].update(seconds=args.seconds, runs=args.runs)
    results = await run_cases(kinds, args)
    about["outages"] = await run_outages(kinds, LOOP, args.clients, args.messages)
    write_json(args.json, about, results)
    print(f"Wrote {args.json}")
    wrong = broken_promises(about["outages"])
    print(*wrong, sep="\n", end="\n" * bool(wrong))
    return not wrong and not failures(results)


def main() -> None:
    parser = argparse.ArgumentParser(description="Topics over brokers, and what outages cost. Takes four minutes.")
    parser.add_argument("--quick", action="store_true", help="shorter runs, fewer clients: a minute")
    parser.add_argument("--only", default="", metavar="TEXT,...", help="brokers with one of these texts in the name")
    parser.add_argument("--runs", type=int, help="samples of each contender in each case (default: 5, quick: 2)")
    parser.add_argument("--seconds", type=float, help="how long a sample takes (default: 1, quick: 0.2)")
    parser.add_argument("--clients", type=int, help="who are there when something is killed (default: 20, quick: 6)")
    parser.add_argument("--messages", type=int, help="that each of them hears between (default: 2000, quick: 200)")
    parser.add_argument("--json", type=Path, default=Path("benchmark_brokers.json"), help="where the figures go")
    args = parser.parse_args()
    args.runs = args.runs or (2 if args.quick else 5)
    args.seconds = args.seconds or (0.2 if args.quick else 1.0)
    args.clients = args.clients or (6 if args.quick else 20)
    args.messages = args.messages or (200 if args.quick else 2000)
    if not asyncio.run(run_benchmark(args)):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
