"""One message to very many subscribers: what a publish costs, what stalled subscribers do to the others, and how a server leaves.

    python -m examples.benchmark_topics [--quick] [--only publish,stalled,shutdown]

The server has one core, its subscribers (benchmark_c/readers.c) another. docs/benchmarks.rst says what the cases are and
how to read the figures. Linux only, and it needs a C compiler.
"""

from __future__ import annotations

import argparse
import array
import asyncio
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import islice
from pathlib import Path
from statistics import fmean, median
from typing import Any

from .benchmark import CONTENDERS, Contender, Failed, Worker, most_connections, prepare
from .benchmark_checks import Figure, Outcome, at_least, at_most, exactly, write_outcomes
from .benchmark_report import ROOT, conditions

SERVERS = Path(__file__).with_name("benchmark_topics_servers.py")
SOURCES = Path(__file__).with_name("benchmark_c")

SIZE = 256  # bytes of a message
KEYS = 100
TOPICS = 200  # who reads has one of them, which is one of 200 publishes: more deliveries than that no core could do
RECEIVE_BUFFER = 16 * 1024  # bytes the kernel may keep for a stalled subscriber: it shall not hide for long that he is
WARM_UP = 3  # rounds
BURST = 20  # messages to each right before the shutdown
TOPICS_IN_SHUTDOWN = 10  # so that no publish holds up the loop for long
RATE_IN_SHUTDOWN = 20.0  # messages a second to one topic of those who are left
BINS = 20
SETTLED = 0.2  # of a run: until then memory may grow


# Processes


def compiled(source: str, *options: str) -> str:
    """What the C compiler makes of it, once."""
    path = SOURCES / source
    folder = ROOT / "build" / "benchmark-c"
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / f"{path.stem}-{hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"
    if not program.exists():
        compiler = os.environ.get("CC") or shutil.which("cc")
        if compiler is None:
            raise Failed("no C compiler: install gcc or clang, or name one by CC")
        made = program.with_suffix(f".{os.getpid()}")
        done = subprocess.run(
            [*compiler.split(), "-O2", "-Wall", "-Wextra", *options, "-o", made, path], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise Failed(f"{source} was not compiled: {done.stderr.strip()}")
        made.replace(program)
    return str(program)


class Pair:
    """A server and its subscribers, each on a core of its own."""

    def __init__(self, server: Worker, readers: Worker) -> None:
        self.server, self.readers = server, readers
        self.messages = 0  # that have come in all

    async def open(self, port: int, count: int, topics: int, *, reads: bool = True) -> None:
        await self.readers.ask("open", port, count, topics, 0 if reads else RECEIVE_BUFFER, int(reads))

    async def publish(self, way: str, subscribers: int) -> float:
        """Microseconds of processor time that each delivery took the server."""
        self.messages += subscribers
        waiting = asyncio.ensure_future(self.wait(self.messages, spin=True))
        await asyncio.sleep(0.002)  # they are awake from here on
        cpu, taken = await self.server.ask("publish", way, SIZE, 1)
        came = await waiting
        if (taken, came) != (subscribers, self.messages):
            raise Failed(f"{way}: {taken} of {subscribers} took the message, {self.messages - came} did not get it")
        return float(cpu / subscribers * 1e6)

    async def wait(self, messages: int, seconds: float = 10, *, spin: bool = False) -> int:
        """Until so many have come, or the time is over; how many have. Readers that spin need no waking, which costs the
        sender more than the send."""
        return int(await self.readers.ask("wait", messages, int(seconds * 1000), int(spin), patience=seconds + 60))

    async def reset(self) -> None:
        await self.readers.ask("reset")
        self.messages = 0


@asynccontextmanager
async def pair(contender: Contender, loop: str) -> AsyncIterator[Pair]:
    cores = sorted(os.sched_getaffinity(0))
    arguments = (compiled("send_loop.c", "-shared", "-fPIC"),) if contender.from_checkout else ()
    workers = []
    try:
        command = (str(contender.python), str(SERVERS), loop, contender.library, *arguments)
        workers.append(await Worker.start(command, contender.environment))
        workers.append(await Worker.start((compiled("readers.c"),), dict(os.environ)))
        for worker, core in zip(workers, (cores[0], cores[-1])):
            await worker.ask("pin", core)
        yield Pair(*workers)
    finally:
        for worker in workers:
            await worker.end()


# What a publish costs


async def publish(args: argparse.Namespace) -> Outcome:
    """Processor time of a delivery, by turns: A B C, B C A."""
    outcome = Outcome(f"publish: {SIZE} bytes to {args.subscribers:,} subscribers, on one core")
    async with AsyncExitStack() as stack:
        ours = await stack.enter_async_context(pair(CONTENDERS["picows"], args.loop))
        await ours.open(await ours.server.ask("serve", 1), args.subscribers, 1)
        bare, publishing, broadcast = "bare send() in C", "WSTopics.publish", "ws_broadcast"
        ways = [(publishing, ours, "publish_topic"), (broadcast, ours, "broadcast"), (bare, ours, "bare")]
        if "websockets" in args.contenders:
            theirs = await stack.enter_async_context(pair(CONTENDERS["websockets"], args.loop))
            await theirs.open(await theirs.server.ask("serve"), args.subscribers, 1)
            ways.append(("websockets' broadcast", theirs, "broadcast"))
        rounds = []
        for number in range(WARM_UP + args.rounds):
            first = number % len(ways)
            rounds.append({name: await each.publish(way, args.subscribers) for name, each, way in (*ways[first:], *ways[:first])})
    rounds = rounds[WARM_UP:]
    for name, _, _ in ways:
        outcome.figures.append(Figure(f"{name}, a delivery", median(each[name] for each in rounds), "us"))

    def ratio(one: str, other: str) -> float:
        return median(each[one] / each[other] for each in rounds)

    for name, _, _ in ways[3:]:
        outcome.figures.append(Figure(f"{name}, times {publishing}", ratio(name, publishing)))
    for name in (publishing, broadcast):
        outcome.checks.append(at_most(f"{name}, times {bare}", ratio(name, bare), 1.15))
    outcome.notes.append(
        f"Medians of {len(rounds)} rounds; ratios are those inside of a round. All of picows and C share their sockets"
    )
    return outcome


# What stalled subscribers do to the others


async def load(args: argparse.Namespace, stalled: int) -> dict[str, Any]:
    """One run: what the server and the readers say of it, and what those who stalled have got."""
    reading = args.subscribers - stalled
    async with pair(CONTENDERS["picows"], args.loop) as both:
        port = await both.server.ask("serve", TOPICS)
        found: dict[str, Any] = {}
        if stalled:  # the first of each topic, so that all others wait for what is done about them
            await both.open(port, stalled, 0, reads=False)
        await both.open(port, reading, TOPICS)
        if not stalled:
            found["bare"] = median([await both.publish("bare", reading) for _ in range(WARM_UP)])
            await both.reset()
        expected = deliveries(reading, int(args.rate * args.seconds))
        waiting = asyncio.ensure_future(both.wait(expected, args.seconds + 10, spin=True))
        found.update(await both.server.ask("load", SIZE, KEYS, args.rate, args.seconds, patience=args.seconds + 60))
        await waiting
        await both.wait(expected)  # a busy machine may have taken longer than they spin
        found["readers"] = await both.readers.ask("report")
        found["missed"] = expected - found["readers"]["messages"] + found["readers"]["gaps"]
        if stalled:
            await both.readers.ask("resume")
            arriving = sum(found["published"] - replaced for replaced in found["replaced"])
            await both.wait(expected + arriving)
            await asyncio.sleep(0.2)  # for what should not come
            found["recorded"] = await recorded(both.readers)
    return found


def deliveries(reading: int, published: int) -> int:
    """To those who read: subscriber n has topic n % TOPICS, and so has message n."""
    return sum(len(range(topic, reading, TOPICS)) * len(range(topic, published, TOPICS)) for topic in range(TOPICS))


async def recorded(readers: Worker) -> list[Sequence[int]]:
    with tempfile.NamedTemporaryFile() as file:
        await readers.ask("recorded", file.name)
        numbers = iter(array.array("I", Path(file.name).read_bytes()))
    return [list(islice(numbers, count)) for count in numbers]


def kept_in_kernel(numbers: Sequence[int]) -> int:
    """How many came before the first gap: those went out at once, and waited in the kernel."""
    return next((place for place, number in enumerate(numbers) if number != place), len(numbers))


def got_newest(numbers: Sequence[int], published: int) -> bool:
    """Whether the last message of each key is its newest, and none came behind a newer one. Message n has the key n % KEYS.

    That nothing arrived which was replaced is told by the number of messages. What the kernel had kept comes first, and once
    more what waited when it had room again.
    """
    last: dict[int, int] = {}
    for number in numbers:
        if number <= last.get(number % KEYS, -1):
            return False
        last[number % KEYS] = number
    return last == {number % KEYS: number for number in range(published)}


def growth(memory: Sequence[tuple[float, float]]) -> float:
    """Of resident memory over the whole run, by a straight line through what was sampled; a part of it."""
    settled = memory[int(len(memory) * SETTLED) :]
    times, sizes = zip(*settled)
    time, size = fmean(times), fmean(sizes)
    slope = sum((at - time) * (kib - size) for at, kib in settled) / sum((at - time) ** 2 for at in times)
    return float(slope * (memory[-1][0] - memory[0][0]) / size)


async def stalled(args: argparse.Namespace) -> Outcome:
    outcome = Outcome(
        f"stalled: {args.subscribers:,} subscribers, {args.stalled} of them stalled, {args.rate:,.0f} publishes a second under "
        f"{KEYS} keys for {args.seconds:g} s"
    )
    none, some = await load(args, 0), await load(args, args.stalled)
    reading = args.subscribers - args.stalled
    p99 = [run["readers"]["p99"] for run in (none, some)]
    outcome.figures += [
        Figure("deliveries, and messages kept for the stalled", some["delivered"] / args.seconds, "/s"),
        Figure("of it to those who read", some["readers"]["messages"] / args.seconds, "/s"),
        Figure("the most that bare send() would deliver on this core", 1e6 / none["bare"], "/s"),
        Figure("all keys to all subscribers would be", float(args.rate * args.subscribers), "/s"),
        Figure("server's core, none stalled", none["busy"], "%"),
        Figure("server's core, some stalled", some["busy"], "%"),
        *(Figure(f"latency p{p}, none stalled", none["readers"][f"p{p}"], "us") for p in ("50", "99", "99.9")),
        *(Figure(f"latency p{p}, some stalled", some["readers"][f"p{p}"], "us") for p in ("50", "99", "99.9")),
        Figure("latest publish behind its time, none stalled", none["late"] * 1000, "ms"),
        Figure("latest publish behind its time, some stalled", some["late"] * 1000, "ms"),
        Figure("resident memory of the server", some["memory"][-1][1] / 1024, "MiB"),
        Figure("replaced", sum(some["replaced"])),
        Figure("waiting for one of the stalled, at most", some["most_waiting"] / 1024, "KiB"),
    ]
    published = some["published"]
    arrived = [len(numbers) for numbers in some["recorded"]]
    exact = sum(got_newest(numbers, published) for numbers in some["recorded"])
    outdated = sum(abs(published - replaced - count) for replaced, count in zip(some["replaced"], arrived))
    before = [kept_in_kernel(numbers) for numbers in some["recorded"]]
    outcome.figures.append(Figure("messages before the first gap of one of the stalled, at most", max(before)))
    outcome.checks += [
        at_least("publishes a second", min(none["rate"], some["rate"]), 0.99 * args.rate, "/s"),
        exactly(f"messages missed by the {reading:,} who read", some["missed"] + none["missed"], 0),
        at_most("growth of resident memory over the run", growth(some["memory"]), 0.01, "%"),
        at_most("latency p99, times that with none stalled", p99[1] / max(p99[0], 1), 1.3),
        exactly("stalled who got exactly the newest of each key, once they read", exact, args.stalled),
        exactly("messages that were replaced and arrived, or were neither", outdated, 0),
    ]
    outcome.notes.append(f"Who reads has one of {TOPICS} topics, who stalls has all of them. docs/benchmarks.rst says why")
    return outcome


# How a server leaves


async def shutdown(args: argparse.Namespace) -> Outcome:
    outcome = Outcome(f"shutdown: {args.subscribers:,} connections, over {args.spread:g} s")
    async with pair(CONTENDERS["picows"], args.loop) as both:
        await both.open(await both.server.ask("serve", TOPICS_IN_SHUTDOWN), args.subscribers, TOPICS_IN_SHUTDOWN)
        said = await both.server.ask("shutdown", SIZE, BURST, RATE_IN_SHUTDOWN, args.spread, patience=args.spread + 60)
        await both.wait(said["delivered"])
        for _ in range(50):
            seen = await both.readers.ask("report")
            if seen["ends"] == args.subscribers:
                break
            await asyncio.sleep(0.1)
        with tempfile.NamedTemporaryFile() as file:
            await both.readers.ask("ended", file.name)
            lines = [tuple(map(int, line.split())) for line in Path(file.name).read_text(encoding="ascii").splitlines()]
    times = sorted(closed_at for closed_at, _, _, _ in lines if closed_at)
    per_bin = [0] * BINS
    for time in times:
        per_bin[min(BINS - 1, int((time - times[0]) / 1e9 / args.spread * BINS))] += 1
    even = len(times) / BINS
    outcome.figures += [
        Figure("messages published", said["published"]),
        Figure("messages delivered", said["delivered"]),
        Figure("first CLOSE to last", (times[-1] - times[0]) / 1e9 if times else 0.0, "s"),
        Figure("time of the shutdown", said["seconds"], "s"),
        Figure("processor time of it, a connection", said["cpu"] / args.subscribers * 1e6, "us"),
        Figure(f"fewest CLOSEs in one of {BINS} parts of the time", min(per_bin)),
        Figure(f"most CLOSEs in one of {BINS} parts of the time", max(per_bin)),
    ]
    outcome.checks += [
        at_most("CLOSEs a second, furthest from even", max(abs(n / even - 1) for n in per_bin) if even else 1.0, 0.2, "%"),
        exactly("closed in both directions, by the server's report", said["closed"], args.subscribers),
        exactly("got CLOSE 1012", sum(code == 1012 for _, code, _, _ in lines), args.subscribers),
        exactly("ended by the server, in order", sum(end == 1 for _, _, _, end in lines), args.subscribers),
        exactly("reset", seen["resets"], 0),
        exactly("messages sent and not received", said["delivered"] - seen["messages"], 0),
        exactly("got less than was sent before the shutdown, or with gaps", lost(lines, seen["gaps"]), 0),
    ]
    return outcome


def lost(lines: Sequence[tuple[int, ...]], gaps: int) -> int:
    return gaps + sum(messages < BURST for _, _, messages, _ in lines)


# The run


CASES: dict[str, Callable[[argparse.Namespace], Awaitable[Outcome]]] = {
    "publish": publish,
    "stalled": stalled,
    "shutdown": shutdown,
}


async def run_benchmark(args: argparse.Namespace) -> list[Outcome]:
    about: dict[str, Any] = {"conditions": conditions()}
    about["versions"], broken = await prepare([CONTENDERS[name] for name in args.contenders])
    args.contenders = [name for name in args.contenders if name not in broken]
    most = most_connections()
    if args.subscribers > most:
        print(f"Only {most} connections instead of {args.subscribers}: the limit of open files (ulimit -n) is too low")
        args.subscribers = most
    outcomes = []
    for name in args.only:
        try:
            outcome = await CASES[name](args)
        except Failed as exc:
            outcome = Outcome(name, failed=str(exc))
        outcomes.append(outcome)
        print("\n".join(outcome.lines()), flush=True)
    write_outcomes(args.json, about, outcomes)
    print(f"\nWrote {args.json}")
    return outcomes


def parse_arguments() -> argparse.Namespace:
    def names(text: str) -> list[str]:
        return [part.strip() for part in text.split(",") if part.strip()]

    parser = argparse.ArgumentParser(description="One message to very many subscribers. Takes two minutes.")
    parser.add_argument("--quick", action="store_true", help="fewer subscribers, shorter runs: 20 seconds")
    parser.add_argument("--only", type=names, default=list(CASES), help=f"some of {','.join(CASES)}")
    parser.add_argument("--contenders", type=names, default=["picows", "websockets"], help="picows,websockets")
    parser.add_argument("--loop", default="uvloop", help="asyncio or uvloop, of the servers")
    parser.add_argument("--subscribers", type=int, help="how many there are (default: 10000, quick: 1000)")
    parser.add_argument("--stalled", type=int, help="how many of them stall (default: 1 %% of them)")
    parser.add_argument("--rounds", type=int, help="of publish (default: 24, quick: 12)")
    parser.add_argument("--rate", type=float, default=1000, help="publishes a second in the case stalled (default: 1000)")
    parser.add_argument("--seconds", type=float, help="how long that takes (default: 30, quick: 3)")
    parser.add_argument("--spread", type=float, help="of the shutdown, in seconds (default: 5, quick: 2)")
    parser.add_argument("--json", type=Path, default=Path("benchmark_topics.json"), help="where the figures go")
    args = parser.parse_args()
    for given, known in ((args.contenders, ("picows", "websockets")), (args.only, CASES), ([args.loop], ("asyncio", "uvloop"))):
        if not given or set(given) - set(known):
            parser.error(f"choose from {', '.join(known)}, not {','.join(given)!r}")
    args.subscribers = args.subscribers or (1000 if args.quick else 10_000)
    args.stalled = args.stalled or max(1, args.subscribers // 100)
    args.rounds = args.rounds or (12 if args.quick else 24)
    args.seconds = args.seconds or (3 if args.quick else 30)
    args.spread = args.spread or (2 if args.quick else 5)
    return args


def main() -> None:
    if sys.platform != "linux":
        raise SystemExit("The subscribers of this benchmark know Linux only")
    outcomes = asyncio.run(run_benchmark(parse_arguments()))
    if any(outcome.failed for outcome in outcomes):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
