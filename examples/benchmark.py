"""Compares picows with its published version and with other libraries, on this machine.

    python -m examples.benchmark [--quick] [--only "echo 256"] [--contenders picows,websockets]

Each library gets an environment of its own under build/, made once. For each case, every contender gets a process of its
own and, as its peer, a fixed client or server; then they take turns: A B C, A B C. docs/benchmarks.rst says what
the cases are and how to read the figures. `make bench` builds picows and installs what this needs.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import json
import os
import resource
import shutil
import sys
import tempfile
from collections.abc import Awaitable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

from .benchmark_report import (
    ROOT,
    TABLE_FOOT,
    Case,
    Progress,
    Result,
    Sample,
    conditions,
    draw_charts,
    failures,
    label,
    measure,
    unsteady,
    write_json,
)

PEERS = Path(__file__).with_name("benchmark_peers.py")
PATIENCE = 120  # seconds for a command that takes no time of its own


class Failed(Exception):
    """A contender did not do what it should; the message says why, in one line."""


# Contenders


@dataclass(frozen=True)
class Contender:
    name: str
    library: str
    packages: tuple[str, ...]
    from_checkout: bool = False

    @property
    def python(self) -> Path:
        """The picows of this checkout runs where this program runs, the others have an environment each."""
        if self.from_checkout:
            return Path(sys.executable)
        version = "{}.{}{}".format(*sys.version_info[:2], getattr(sys, "abiflags", ""))
        return ROOT / "build" / f"benchmark-{version}" / self.name / "bin" / "python"

    @property
    def environment(self) -> dict[str, str]:
        variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        return {**variables, "PYTHONPATH": str(ROOT)} if self.from_checkout else variables

    async def install(self) -> None:
        """Make the environment, unless it is there with these packages."""
        folder = self.python.parents[1]
        stamp = folder / "packages.txt"
        wanted = "\n".join(self.packages)
        if self.from_checkout or (stamp.exists() and stamp.read_text() == wanted):
            return
        print(f"Installing {', '.join(self.packages)} for {self.name}", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        await self.run_to_end(sys.executable, "-m", "venv", str(folder))
        pip = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--prefer-binary")
        await self.run_to_end(str(self.python), *pip, *self.packages)
        stamp.write_text(wanted)

    async def run_to_end(self, *command: str) -> None:
        process = await asyncio.create_subprocess_exec(
            *command, env=self.environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        printed, _ = await process.communicate()
        if process.returncode:
            raise Failed(last_line(printed.decode()) or f"exit code {process.returncode} of {' '.join(command)}")


CONTENDERS = {
    contender.name: contender
    for contender in (
        Contender("picows", "picows", ("picows", "aiofastnet", "uvloop"), from_checkout=True),
        Contender("picows-messages", "picows messages", ("picows", "aiofastnet", "uvloop"), from_checkout=True),
        Contender("picows-published", "picows", ("picows", "aiofastnet", "uvloop")),
        Contender("websockets", "websockets", ("websockets", "uvloop")),
        Contender("aiohttp", "aiohttp", ("aiohttp", "uvloop")),
        Contender("tornado", "tornado", ("tornado", "uvloop")),
        Contender("wsproto", "wsproto", ("wsproto", "uvloop")),
    )
}


def last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


# Processes


class Worker:
    """A process of benchmark_peers.py."""

    def __init__(self, process: asyncio.subprocess.Process, errors: Any) -> None:
        self._process, self._errors = process, errors

    @classmethod
    async def library(cls, contender: Contender, loop: str) -> Worker:
        command = (str(contender.python), str(PEERS), "library", loop, contender.library)
        return await cls.start(command, contender.environment)

    @classmethod
    async def peer(cls, role: str) -> Worker:
        """A fixed peer: as quick as it can be here."""
        loop = "uvloop" if importlib.util.find_spec("uvloop") else "asyncio"
        return await cls.start((sys.executable, str(PEERS), role, loop), dict(os.environ))

    @classmethod
    async def start(cls, command: Sequence[str], environment: dict[str, str]) -> Worker:
        errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the process has ended
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*command, env=environment, stdin=pipe, stdout=pipe, stderr=errors)
        return cls(process, errors)

    async def ask(self, command: str, *arguments: object, patience: float = PATIENCE) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps([command, *arguments]).encode() + b"\n")
            line = await asyncio.wait_for(self._process.stdout.readline(), patience)
        except asyncio.TimeoutError:
            raise Failed(f"no answer to {command!r} within {patience:g} s") from None
        except ConnectionError:
            line = b""
        if not line:
            await self._process.wait()
            self._errors.seek(0)
            words = last_line(self._errors.read().decode(errors="replace"))
            raise Failed(words or f"ended by {self._process.returncode} in {command!r}")
        return json.loads(line)

    async def end(self) -> None:
        assert self._process.stdin is not None
        if self._process.returncode is None:
            self._process.kill()
        self._process.stdin.close()
        await self._process.wait()
        self._errors.close()


# Trials


class Trial:
    """One contender in one case: its process and its peer's, of which samples are taken, a while apart."""

    def __init__(self, case: Case, contender: Contender) -> None:
        self.case, self.contender = case, contender
        self.result = Result(case, contender.name)
        self.workers: list[Worker] = []
        self.skipped = False  # the library does not have what the case is about

    async def attempt(self, step: Callable[..., Awaitable[None]], *arguments: float) -> None:
        """Do a step, unless one failed before."""
        if self.result.failed or self.skipped:
            return
        try:
            await step(*arguments)
        except Failed as exc:
            self.result.failed = str(exc)
            self.result.samples.clear()
            await self.end()

    async def start(self) -> None:
        """The library's process and the peer's."""
        self.library = await Worker.library(self.contender, self.case.loop)
        self.workers.append(self.library)
        self.peer = await Worker.peer(self.peer_role)
        self.workers.append(self.peer)

    @property
    def peer_role(self) -> str:
        return "load"

    async def warm_up(self, seconds: float) -> None:
        """What happens only once shall not weigh on the first sample."""
        await self.sample(seconds / 4)

    async def measure(self, seconds: float) -> None:
        self.result.samples.append(await self.sample(seconds))
        self.result.seconds = seconds

    async def sample(self, seconds: float) -> Sample:
        raise NotImplementedError

    async def end(self) -> None:
        for worker in self.workers:
            await worker.end()
        self.workers.clear()


class ServerTrial(Trial):
    """The library serves."""

    async def start(self) -> None:
        await super().start()
        self.port = await self.library.ask("serve", self.case.tls, self.serve_mode())
        if self.port is None:
            self.skipped = True
        else:
            await self.prepare()

    def serve_mode(self) -> str:
        return self.case.kind if self.case.kind in ("broadcast", "send to all") else "echo"

    async def prepare(self) -> None:
        await self.peer.ask("open", self.port, self.case.tls, self.case.connections)
        if self.case.depth:
            self.messages = self.case.depth
            await self.peer.ask("echo", self.case.depth, self.case.size)
        else:
            self.messages = self.case.connections
            await self.peer.ask("broadcast", self.case.size)

    async def sample(self, seconds: float) -> Sample:
        before = await self.library.ask("usage")
        done = await self.work(seconds)
        after = await self.library.ask("usage")
        count, cpu = done["count"] * self.messages, after["cpu"] - before["cpu"]
        return Sample(count / done["seconds"], cpu / count * 1e6, cpu / done["seconds"])

    async def work(self, seconds: float) -> Any:
        return await self.peer.ask("run", seconds, patience=seconds + PATIENCE)


class HandshakeTrial(ServerTrial):
    async def prepare(self) -> None:
        self.messages = 1

    async def work(self, seconds: float) -> Any:
        return await self.peer.ask("handshakes", self.port, self.case.tls, seconds, patience=seconds + PATIENCE)


class IdleTrial(ServerTrial):
    """Each sample opens that many connections more."""

    async def prepare(self) -> None:
        pass

    async def warm_up(self, seconds: float) -> None:
        await self.peer.ask("open", self.port, self.case.tls, 10)

    async def sample(self, seconds: float) -> Sample:
        before = await self.library.ask("usage")
        await self.peer.ask("open", self.port, self.case.tls, self.case.connections)
        await asyncio.sleep(0.1)
        after = await self.library.ask("usage")
        return Sample(kib=(after["kib"] - before["kib"]) / self.case.connections)


class ClientTrial(Trial):
    """The library is the client of a fixed server."""

    @property
    def peer_role(self) -> str:
        return "server"

    async def start(self) -> None:
        await super().start()
        port = await self.peer.ask("listen", self.case.tls)
        exchange = self.exchange()
        self.messages = max(exchange[0], exchange[2])
        await self.library.ask("connect", port, self.case.tls, *exchange)

    def exchange(self) -> tuple[int, int, int, int, int]:
        """Messages out and their size, back and their size, and how many of such exchanges at a time."""
        size, few = self.case.size, 2
        many = max(4, min(1000, (1 << 20) // size))
        return {
            "round trip": (self.case.depth, size, self.case.depth, size, 1),
            "receive": (1, few, many, size, 2),
            "send": (many, size, 1, few, 2),
        }[self.case.kind]

    async def sample(self, seconds: float) -> Sample:
        done = await self.library.ask("run", seconds, patience=seconds + PATIENCE)
        count = done["count"] * self.messages
        return Sample(count / done["seconds"], done["cpu"] / count * 1e6, done["cpu"] / done["seconds"])


TRIALS: dict[str, type[Trial]] = {
    "echo": ServerTrial,
    "broadcast": ServerTrial,
    "send to all": ServerTrial,
    "handshake": HandshakeTrial,
    "idle": IdleTrial,
    "round trip": ClientTrial,
    "receive": ClientTrial,
    "send": ClientTrial,
}


# Cases

# Of these each sample leaves something behind: its connections, and more time changes nothing.
LASTING = ("idle", "idle asgi", "pings")
LARGEST_BATCH = 1 << 20  # bytes in flight on a connection


def all_cases(loops: Sequence[str], quick: bool) -> Iterator[Case]:
    """Everything over TCP on one loop, uvloop if it may be; a part of it over TLS and on the other loop."""
    main = "uvloop" if "uvloop" in loops else loops[0]
    for loop in sorted(loops, key=lambda loop: loop != main):
        for tls in (False, True):
            if quick and tls and loop != main:
                continue
            yield from traffic(loop, tls, full=not quick and loop == main and not tls, quick=quick)
            if loop == main or not tls:
                yield Case("handshake", tls=tls, loop=loop)
                yield Case("idle", connections=200 if quick or tls else 1000, tls=tls, loop=loop)
    for kind in ("broadcast", "send to all"):
        yield Case(kind, 256, connections=1000, loop=main)
    yield from scaling(main, quick)


def traffic(loop: str, tls: bool, full: bool, quick: bool) -> Iterator[Case]:
    sizes = (32, 256, 8192, 262144) if full else (256,) if quick else (256, 262144)
    depths = (1, 16, 64) if full else (1, 64)
    for size in sizes:
        for depth in depths:
            if size * depth <= LARGEST_BATCH:
                yield Case("echo", size, depth, 8, tls, loop)
    for size in sizes:
        for depth in depths if size == 256 and full else (1,):
            yield Case("round trip", size, depth, tls=tls, loop=loop)
    for kind in ("receive", "send"):
        for size in sizes:
            yield Case(kind, size, tls=tls, loop=loop)


def scaling(loop: str, quick: bool) -> Iterator[Case]:
    for connections in (1, 100, 1000) if quick else (1, 10, 100, 1000, 10_000):
        yield Case("echo", 256, 1, connections, loop=loop)
    for depth in (1, 16, 256) if quick else (1, 4, 16, 64, 256):
        yield Case("echo", 32, depth, 1, loop=loop)


def within_limits(cases: Iterable[Case], most: int) -> Iterator[Case]:
    """With fewer connections, where the system does not allow as many."""
    reduced = set()
    for case in cases:
        if case.connections > most:
            reduced.add(case.connections)
            case = Case(case.kind, case.size, case.depth, most, case.tls, case.loop)
        yield case
    if reduced:
        print(f"Only {most} connections instead of {max(reduced)}: the limit of open files (ulimit -n) is too low")


def most_connections() -> int:
    """As many as files may be open, once the limit is as high as it may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 20_000
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < limit:
        with contextlib.suppress(ValueError, OSError):  # macOS has a limit of its own besides
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
            soft = limit
    reserve = 100  # for the interpreter, and the loop
    return wanted if soft == resource.RLIM_INFINITY else soft - reserve


# The run


async def run_case(
    case: Case, contenders: list[Contender], broken: dict[str, str], runs: int, seconds: float, progress: Progress
) -> list[Result]:
    """Take turns: one sample of each contender, then the next one of each."""
    trials = [TRIALS[case.kind](case, contender) for contender in contenders]
    for trial in trials:
        trial.result.failed = broken.get(trial.contender.name, "")
    try:
        await asyncio.gather(*(trial.attempt(trial.start) for trial in trials))
        for trial in trials:
            await trial.attempt(trial.warm_up, seconds)
        for _ in range(runs):
            for trial in trials:
                await trial.attempt(trial.measure, seconds)
                progress.step()
        await measure_longer([trial for trial in trials if case.kind not in LASTING], runs, seconds)
    finally:
        for trial in trials:
            await trial.end()
    return [trial.result for trial in trials]


async def measure_longer(trials: list[Trial], runs: int, seconds: float) -> None:
    """What varies too much is measured anew, for twice as long each time."""
    for factor in (2, 4, 8, 16):
        unsteady = [trial for trial in trials if trial.result.unsteady]
        for trial in unsteady:
            trial.result.samples.clear()
        for _ in range(runs):
            for trial in unsteady:
                await trial.attempt(trial.measure, seconds * factor)


async def prepare(contenders: list[Contender]) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
    """The versions of what each contender consists of, and for those that cannot take part, why."""
    versions: dict[str, dict[str, str]] = {}
    broken: dict[str, str] = {}
    for contender in contenders:
        try:
            await contender.install()
            worker = await Worker.library(contender, "asyncio")
            try:
                versions[contender.name] = await worker.ask("versions", *contender.packages)
            finally:
                await worker.end()
        except Failed as exc:
            broken[contender.name] = str(exc)
            print(f"{contender.name} cannot take part: {exc}", flush=True)
    return versions, broken


async def run_benchmark(args: argparse.Namespace) -> list[Result]:
    contenders = [CONTENDERS[name] for name in args.contenders]
    chosen = (case for case in all_cases(args.loops, args.quick) if any(part in case.name for part in args.only or [""]))
    cases = list(dict.fromkeys(within_limits(chosen, most_connections())))
    if not cases:
        raise SystemExit(f"No case has {' or '.join(map(repr, args.only))} in its name")
    about: dict[str, Any] = {"conditions": conditions()}
    about["conditions"].update(seconds=args.seconds, runs=args.runs)
    about["versions"], broken = await prepare(contenders)
    results = await measure(
        cases,
        [label(name, about) for name in args.contenders],
        args.runs,
        lambda case, progress: run_case(case, contenders, broken, args.runs, args.seconds, progress),
    )
    print(TABLE_FOOT)
    for line in (*failures(results), *unsteady(results)):
        print(line)
    publish(args, about, results)
    return results


def publish(args: argparse.Namespace, about: dict[str, Any], results: list[Result]) -> None:
    write_json(args.json, about, results)
    print(f"Wrote {args.json}")
    if args.no_charts:
        return
    try:
        charts = draw_charts(args.charts, about, results)
    except ImportError as exc:
        print(f"No charts: {exc}. It is in requirements-benchmark.txt")
    else:
        print(*(f"Wrote {chart}" for chart in charts), sep="\n")


def parse_arguments() -> argparse.Namespace:
    def names(text: str) -> list[str]:
        return [part.strip() for part in text.split(",") if part.strip()]

    parser = argparse.ArgumentParser(description="Compares WebSocket libraries. The whole takes about a quarter of an hour.")
    parser.add_argument("--quick", action="store_true", help="fewer cases, shorter runs: under three minutes")
    parser.add_argument("--only", type=names, default=[], metavar="TEXT,...", help="cases with one of these texts in the name")
    parser.add_argument("--contenders", type=names, default=list(CONTENDERS), help=f"some of {','.join(CONTENDERS)}")
    parser.add_argument("--loops", type=names, default=["asyncio", "uvloop"], help="asyncio,uvloop")
    parser.add_argument("--runs", type=int, help="samples of each contender in each case (default: 3, quick: 2)")
    parser.add_argument("--seconds", type=float, help="how long a sample takes (default: 0.4, quick: 0.2)")
    parser.add_argument("--json", type=Path, default=Path("benchmark.json"), help="where the figures go")
    parser.add_argument("--charts", type=Path, default=Path(), metavar="FOLDER", help="where the charts go")
    parser.add_argument("--no-charts", action="store_true", help="draw none")
    args = parser.parse_args()
    for given, known in ((args.contenders, CONTENDERS), (args.loops, ("asyncio", "uvloop"))):
        if not given or set(given) - set(known):
            parser.error(f"choose from {', '.join(known)}, not {','.join(given)!r}")
    args.runs = args.runs or (2 if args.quick else 3)
    args.seconds = args.seconds or (0.2 if args.quick else 0.4)
    return args


def main() -> None:
    args = parse_arguments()
    try:
        results = asyncio.run(run_benchmark(args))
    except KeyboardInterrupt:
        raise SystemExit("Stopped; nothing was written") from None
    if not any(result.samples for result in results):
        raise SystemExit("Nothing was measured")


if __name__ == "__main__":
    main()
