"""Live connections on loopback, whose listeners do all that a listener may do inside every callback.

picows is on one side, against a raw peer that damages its stream, reads slowly or not, half-closes and resets; or on both
sides. Every message carries a number and a checksum: what arrives has to be what `send` took, in order and undamaged, and all
of it after a graceful end towards a peer that reads. TCP and TLS, asyncio and uvloop, with and without aiofastnet.

    python fuzz/fuzz_live.py --connections 1000 [--seed 7] [--only 345] [--networks asyncio-tcp,uvloop-tls-aiofastnet] [--jobs 2]

The seed and the number of a connection that went wrong are printed, and give the same connection again (its options, its
peer and the random numbers of its listeners; the moment of each event is the machine's). `--first 300 --connections 64` repeats it
among its neighbours, which share its event loop and its thread.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import contextvars
import faulthandler
import gc
import importlib
import importlib.util
import itertools
import logging
import os
import random
import re
import stat
import subprocess
import sys
import threading
import time
import traceback
import warnings
import weakref
from typing import Any

from live_connection import LiveConnection, Network
from live_listener import Side, is_exit, is_ours
from live_peer import PeerThread

TIME_LIMIT = 30.0  # seconds that a connection may take
NESTED_TIME_LIMIT = 1.5  # seconds that one inside a callback may take, before it is cut
STALL_LIMIT = 90.0  # seconds that the event loop may stand still
BATCH = 2000  # connections on one event loop
EXPECTED_RECORDS = (
    "slow peer", "that cannot be sent",
    # Transports say this of what is sent between the peer's reset, or end, and connection_lost.
    "socket.send() raised exception", "SSL connection is closed", "write() called after connection lost",
)
NETWORKS = [
    Network(loop, tls, fast)
    for fast, tls, loop in itertools.product((False, True), (False, True), ("asyncio", "uvloop"))
    if all(importlib.util.find_spec(module) for module in [loop, *["aiofastnet"] * fast])
]


class Worker:
    """Runs connections one event loop after the other, and tells on standard output what begins, ends and goes wrong."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.networks = chosen_networks(arguments.networks)
        self.peers = PeerThread()
        self.live: list[Side] = []
        self.broadcasts = self.judging = 0
        self._nesting = self._entered = 0
        self._nested_loops: dict[tuple[str, int], Any] = {}
        self._nested_origins = itertools.count(0xF0000000, 4)
        self._watched: list[tuple[weakref.ref[Any], int]] = []
        self._running: set[int] = set()
        self._last_stall = 0.0
        self._deadline = time.monotonic() + arguments.seconds if arguments.seconds else float("inf")

    # What the listeners ask for

    def found(self, index: int, text: str) -> None:
        say("F", index, text)

    def watch(self, thing: object, index: int) -> None:
        self._watched.append((weakref.ref(thing), index))

    def stalled_since(self, moment: float) -> bool:
        """Whether the loop has stood still since then."""
        return self._last_stall > moment

    def run_nested(self, side: Side) -> None:
        """Run a connection on another loop of this thread, inside a callback."""
        if self._nesting >= 2 or not self.arguments.nested:
            return
        chance = random.Random(side.chance.getrandbits(64))
        network = chance.choice(self.networks)
        outer = asyncio._get_running_loop()
        loop = self._nested_loop(network.loop)
        self._nesting += 1
        asyncio._set_running_loop(None)
        try:
            connection = LiveConnection(self, self.peers, network, side.index, chance, next(self._nested_origins), nested=True)
            # Everything else stands still meanwhile.
            self._run_through(loop, loop.create_task(self._bounded(connection, NESTED_TIME_LIMIT)))
        finally:
            asyncio._set_running_loop(outer)
            self._nesting -= 1

    def _nested_loop(self, kind: str) -> Any:
        key = kind, self._nesting
        if key not in self._nested_loops:
            self._nested_loops[key] = self._new_loop(kind)
        return self._nested_loops[key]

    def run_again(self, side: Side) -> None:
        """Run a few steps of the loop that is running, inside a callback; asyncio's own can."""
        loop: Any = asyncio._get_running_loop()
        if not isinstance(loop, asyncio.SelectorEventLoop) or self._entered >= 3 or not self.arguments.nested:
            return
        waiting = len(loop._ready)
        task = asyncio.current_task(loop)
        if task is not None:
            asyncio.tasks._leave_task(loop, task)
        self._entered += 1
        try:
            for _ in range(side.chance.randrange(1, 5)):
                loop.call_soon(nothing)  # so that it does not wait
                renew_handles(loop)
                loop._run_once()
        finally:
            self._entered -= 1
            # The outer step goes on to take as many as there were.
            for _ in range(waiting - len(loop._ready)):
                loop.call_soon(nothing)
            if task is not None:
                asyncio.tasks._enter_task(loop, task)

    # Loops

    def _new_loop(self, kind: str) -> Any:
        loop = importlib.import_module(kind).new_event_loop()
        loop.set_exception_handler(self._on_loop_error)
        return loop

    def _on_loop_error(self, loop: Any, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if is_exit(error) or (context["message"].startswith("protocol.pause_writing() failed") and context["transport"] is None):
            return  # the latter: TLS transports, of what happens between their end and connection_lost
        detail = "".join(traceback.format_exception(type(error), error, error.__traceback__)) if error else ""
        self.found(-1, f"the loop's exception handler was called: {context} {detail}")

    def _run_through(self, loop: Any, task: asyncio.Task[None]) -> None:
        """Run a task to its end; a callback that exits leaves the loop, which is then run on."""
        while not task.done():
            try:
                loop.run_until_complete(task)
            except BaseException as error:
                if not is_ours(error):
                    raise

    def run(self) -> None:
        for kind in dict.fromkeys(network.loop for network in self.networks):
            indices = [i for i in self._indices() if self.networks[i % len(self.networks)].loop == kind]
            for at in range(0, len(indices), BATCH):
                self._run_batch(kind, indices[at : at + BATCH])

    def _indices(self) -> list[int]:
        arguments = self.arguments
        if arguments.only is not None:
            return [arguments.only]
        return [i for i in range(arguments.first, arguments.first + arguments.connections)
                if i // len(self.networks) % arguments.jobs == arguments.job]

    def _run_batch(self, kind: str, indices: list[int]) -> None:
        before = open_sockets()
        loop = self._new_loop(kind)
        self._run_through(loop, loop.create_task(self._drive(indices)))
        for nested in self._nested_loops.values():
            finish(nested)
        self._nested_loops.clear()
        finish(loop)
        self._check_left_over(before)

    async def _drive(self, indices: list[int]) -> None:
        turns = asyncio.ensure_future(self._note_turns())
        left = iter(indices)
        await asyncio.gather(*(self._one_by_one(left) for _ in range(self.arguments.parallel)))
        turns.cancel()

    async def _note_turns(self) -> None:
        while True:
            faulthandler.dump_traceback_later(STALL_LIMIT, exit=True)
            before = time.monotonic()
            await asyncio.sleep(0.1)
            if time.monotonic() - before > 0.3:
                self._last_stall = time.monotonic()

    async def _one_by_one(self, indices: Any) -> None:
        for index in indices:
            if time.monotonic() > self._deadline:
                return
            say("S", index)
            chance = random.Random(f"{self.arguments.seed}/{index}")
            network = self.networks[index % len(self.networks)]
            connection = LiveConnection(self, self.peers, network, index, chance, (index << 2) + 0x1000000)
            await self._bounded(connection, self.arguments.limit)
            say("E", index)

    async def _bounded(self, connection: LiveConnection, limit: float) -> None:
        try:
            await asyncio.wait_for(connection.run(), limit)
        except asyncio.TimeoutError:
            if limit != NESTED_TIME_LIMIT:
                self.found(connection.index, f"not ended within {limit:g} seconds, {connection}")
            for side in connection.sides:
                if side.transport is not None:
                    with contextlib.suppress(Exception):
                        side.transport.underlying_transport.abort()
        except BaseException as error:
            if not is_ours(error):
                self.found(connection.index, f"{traceback.format_exc()} {connection}")

    def _check_left_over(self, before: int) -> None:
        self.live.clear()
        for _ in range(20):
            gc.collect()
            if open_sockets() <= before and not any(thing() is not None for thing, _ in self._watched):
                break
            time.sleep(0.1)
        if (sockets := open_sockets() - before) > 0:
            self.found(-1, f"{sockets} sockets are left open")
        for thing, index in self._watched:
            if (alive := thing()) is not None:
                holders = [type(holder).__name__ for holder in gc.get_referrers(alive)]
                self.found(index, f"{alive!r} is alive after its end, held by {holders}")
        self._watched.clear()


def renew_handles(loop: Any) -> None:
    """Make asyncio's loop fit to run inside a callback of its own."""
    handles = [handle for key in loop._selector.get_map().values() for handle in key.data if handle is not None]
    for handle in handles:
        # That of the callback which is running has been entered, and cannot be twice.
        handle._context = contextvars.copy_context()
        # It would run twice: the selector reports it again.
        with contextlib.suppress(ValueError):
            loop._ready.remove(handle)


def nothing() -> None:
    """Takes a place among the callbacks of a loop."""


def finish(loop: Any) -> None:
    """Let a loop do what it has left, and close it."""

    async def rest() -> None:
        for _ in range(3):
            await asyncio.sleep(0)
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.05)

    for _ in range(3):
        with contextlib.suppress(KeyboardInterrupt, SystemExit):
            loop.run_until_complete(rest())
            break
    loop.close()


def open_sockets() -> int:
    count = 0
    for fd in os.listdir("/dev/fd"):
        with contextlib.suppress(OSError):
            count += stat.S_ISSOCK(os.fstat(int(fd)).st_mode)
    return count


_output = threading.Lock()


def say(kind: str, index: int, text: str = "") -> None:
    """A line for the parent process, at once: this one may crash."""
    line = f"{kind} {index} {text}".rstrip().replace("\n", "\\n")
    with _output:
        os.write(1, line.encode(errors="replace") + b"\n")


class Records(logging.Handler):
    """What is logged, and not of our making."""

    def __init__(self, worker: Worker) -> None:
        super().__init__(logging.WARNING)
        self._worker = worker

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if is_ours(error) or any(is_ours(argument) for argument in record.args or () if isinstance(argument, BaseException)):
            return
        message = record.getMessage()
        if any(part in message for part in EXPECTED_RECORDS):
            return
        detail = "".join(traceback.format_exception(type(error), error, error.__traceback__)) if error else ""
        self._worker.found(-1, f"logged by {record.name}: {message} {detail}")


def work(arguments: argparse.Namespace) -> None:
    faulthandler.enable()
    sys.setswitchinterval(0.0005)
    worker = Worker(arguments)
    logging.getLogger().addHandler(Records(worker))
    warnings.simplefilter("always")
    warnings.showwarning = lambda message, category, filename, lineno, *_: worker.found(  # type: ignore[assignment]
        -1, f"{category.__name__}: {message} ({filename}:{lineno})")

    def unraisable(args: Any) -> None:
        if not is_exit(args.exc_value):
            detail = "".join(traceback.format_exception(args.exc_type, args.exc_value, args.exc_traceback))
            worker.found(-1, f"exception ignored: {args.err_msg} {args.object!r}: {detail}")

    sys.unraisablehook = unraisable
    threading.excepthook = lambda args: worker.found(-1, f"a thread failed: {args.exc_value!r}")
    worker.run()


class Job:
    """A process that works, and is started again behind the place where it crashed."""

    def __init__(self, number: int, arguments: argparse.Namespace, report: Report) -> None:
        self._number, self._arguments, self._report = number, arguments, report
        self._first = arguments.first
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        end = self._arguments.first + self._arguments.connections
        for _ in range(20):
            running: set[int] = set()
            farthest = self._first
            command = [sys.executable, __file__, "--job", str(self._number), *self._passed_on(end - self._first)]
            with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
                assert process.stdout is not None
                for line in process.stdout:
                    kind, _, rest = line.decode(errors="replace").rstrip("\n").partition(" ")
                    index, _, text = rest.partition(" ")
                    if kind == "S":
                        running.add(int(index))
                        farthest = max(farthest, int(index))
                    elif kind == "E":
                        running.discard(int(index))
                        self._report.done += 1
                    elif kind == "F":
                        self._report.add(int(index), text.replace("\\n", "\n"), running)
                    else:
                        print(line)
            if process.returncode == 0:
                return
            self._report.add(-1, f"the process crashed, exit status {process.returncode}", running)
            self._first = farthest + 1
            if self._arguments.only is not None or self._first >= end:
                return

    def _passed_on(self, connections: int) -> list[str]:
        arguments = self._arguments
        options = {"seed": arguments.seed, "first": self._first, "connections": connections, "networks": arguments.networks,
                   "parallel": arguments.parallel, "jobs": arguments.jobs, "seconds": arguments.seconds,
                   "limit": arguments.limit}
        if arguments.only is not None:
            options["only"] = arguments.only
        return [f"--{name}={value}" for name, value in options.items()] + ["--no-nested"] * (not arguments.nested)


class Report:
    """What was found, the first few of each kind in full."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._kinds: collections.Counter[str] = collections.Counter()
        self._begin = time.monotonic()
        self._lock = threading.Lock()
        self.done = 0

    def add(self, index: int, text: str, running: set[int]) -> None:
        kind = kind_of(text)
        with self._lock:
            self._kinds[kind] += 1
            if self._kinds[kind] > 3:
                return
            where = f"--only {index}" if index >= 0 else f"among {sorted(running)}"
            print(f"\nFOUND after {time.monotonic() - self._begin:.1f} s, --seed {self._seed} {where}: {text}", flush=True)

    def end(self) -> int:
        seconds = time.monotonic() - self._begin
        print(f"\n{self.done} connections from seed {self._seed} in {seconds:.0f} s, {self.done / seconds:.0f} a second, "
              f"{sum(self._kinds.values())} findings")
        for kind, count in self._kinds.most_common():
            print(f"{count:6} {kind}")
        return 1 if self._kinds else 0


def kind_of(text: str) -> str:
    """A finding without its numbers, so that the same ones are counted together."""
    lines = text.strip().split("\n")
    line = lines[0].partition(";")[0][:100]
    if len(lines) > 1:
        line = f"{line[:60]} ... {lines[-1]}"
    return re.sub(r"\b[0-9a-f]*\d[0-9a-f]*\b", "#", line)[:150]


def chosen_networks(names: str) -> list[Network]:
    if names == "all":
        return NETWORKS
    known = {str(network): network for network in NETWORKS}
    return [known[name] for name in names.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=1000, help="how many")
    parser.add_argument("--seconds", type=float, default=0, help="begin no more after this time; 0: no limit")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="start of the random numbers")
    parser.add_argument("--only", type=int, help="the number of a single connection")
    parser.add_argument("--first", type=int, default=0, help="the number of the first connection")
    parser.add_argument("--networks", default="all", help=f"some of {','.join(map(str, NETWORKS))}")
    parser.add_argument("--parallel", type=int, default=64, help="how many connections at a time in a process")
    parser.add_argument("--jobs", type=int, default=1, help="how many processes; 0: this one, for a debugger")
    parser.add_argument("--limit", type=float, default=TIME_LIMIT, help="seconds that a connection may take")
    parser.add_argument("--no-nested", dest="nested", action="store_false", help="run no loop inside a callback")
    parser.add_argument("--job", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job is not None or arguments.jobs == 0:
        arguments.job = arguments.job or 0
        arguments.jobs = max(arguments.jobs, 1)
        work(arguments)
        return
    report = Report(arguments.seed)
    print(f"seed {arguments.seed}, networks {arguments.networks}", flush=True)
    for job in [Job(number, arguments, report) for number in range(arguments.jobs)]:
        job.thread.join()
    sys.exit(report.end())


if __name__ == "__main__":
    main()
