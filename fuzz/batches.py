"""Connections by the thousand on one event loop after the other, in a process of their own; and what is left over of them."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import faulthandler
import gc
import importlib
import importlib.util
import itertools
import logging
import os
import random
import stat
import sys
import threading
import time
import traceback
import warnings
import weakref
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from live_socket import PeerThread

STALL = 0.3  # seconds: other work of the machine keeps the event loop from its turn
STALL_LIMIT = 90.0  # seconds that the event loop may stand still


@dataclass(frozen=True)
class Network:
    loop: str
    tls: bool
    fast: bool

    def __str__(self) -> str:
        return "-".join([self.loop, "tls" if self.tls else "tcp", *["aiofastnet"] * self.fast])


NETWORKS = [
    Network(loop, tls, fast)
    for fast, tls, loop in itertools.product((False, True), (False, True), ("asyncio", "uvloop"))
    if all(importlib.util.find_spec(module) for module in [loop, *["aiofastnet"] * fast])
]


def chosen_networks(names: str) -> list[Network]:
    if names == "all":
        return NETWORKS
    known = {str(network): network for network in NETWORKS}
    return [known[name] for name in names.split(",")]


class Numbered(Protocol):
    """One connection, drawn from a seed and its number."""

    index: int
    outcome: str  # how it ended, for the report; may be empty

    async def run(self) -> None: ...
    def abort(self) -> None:
        """It has taken too long."""


class Batches:
    """Runs connections, and tells on standard output what begins, ends and goes wrong."""

    block = 4000  # how many numbers share an event loop

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.networks = chosen_networks(arguments.networks)
        self.peers = PeerThread()
        self._watched: list[tuple[weakref.ref[Any], int]] = []
        self._last_stall, self._last_turn = 0.0, time.monotonic()
        self._deadline = time.monotonic() + arguments.seconds if arguments.seconds else float("inf")

    # What a fuzzer says of its connections

    def connection(self, network: Network, index: int, chance: random.Random) -> Numbered:
        raise NotImplementedError

    def is_ours(self, error: BaseException | None) -> bool:
        """Whether the fuzzer itself has raised it."""
        return False

    def expects_unraisable(self, error: BaseException | None) -> bool:
        return False

    def expects_record(self, record: logging.LogRecord) -> bool:
        return False

    def expects_loop_error(self, context: dict[str, Any]) -> bool:
        return False

    def expects_warning(self, message: str) -> bool:
        return False

    def during_block(self, number: int) -> AbstractContextManager[object]:
        return contextlib.nullcontext()

    async def settle(self) -> None:
        """When the last connection of an event loop has ended."""

    def end_of_loop(self) -> None:
        """Before an event loop is finished."""

    # What connections ask for

    def found(self, index: int, text: str) -> None:
        say("F", index, text)

    def watch(self, thing: object, index: int) -> None:
        """It has to be gone when the event loop is."""
        self._watched.append((weakref.ref(thing), index))

    def stalled_since(self, moment: float) -> bool:
        """Whether the loop has stood still since then. In the turn behind that, those who ask may come before `_note_turns`."""
        return self._last_stall > moment or time.monotonic() - self._last_turn > STALL

    # Loops

    def new_loop(self, kind: str) -> Any:
        return self.watched_loop(importlib.import_module(kind).new_event_loop())

    def watched_loop(self, loop: Any) -> Any:
        loop.set_exception_handler(self._on_loop_error)
        return loop

    def _on_loop_error(self, loop: Any, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, type):
            return  # aiofastnet reports a client that is gone during the TLS handshake, by the class of the error
        if self.expects_loop_error(context):
            return
        transport = getattr(context.get("protocol"), "transport", None)
        self.found(self.index_of(transport), f"the loop's exception handler was called: {context} {detail_of(error)}")

    def index_of(self, transport: object) -> int:
        """The number of the connection that a transport of picows belongs to, if it is known."""
        return -1

    def run_through(self, loop: Any, task: asyncio.Task[None]) -> None:
        loop.run_until_complete(task)

    def run(self) -> None:
        for number, block in itertools.groupby(self._indices(), lambda index: index // self.block):
            by_loop: dict[str, list[int]] = {}
            for index in block:
                by_loop.setdefault(self.networks[index % len(self.networks)].loop, []).append(index)
            for kind, indices in by_loop.items():
                with self.during_block(number):
                    self._run_block(kind, indices)

    def _indices(self) -> list[int]:
        arguments = self.arguments
        if arguments.only is not None:
            return [arguments.only]
        return [i for i in range(arguments.first, arguments.first + arguments.connections)
                if i // len(self.networks) % arguments.jobs == arguments.job]

    def _run_block(self, kind: str, indices: list[int]) -> None:
        before = open_sockets()
        loop = self.new_loop(kind)
        self.run_through(loop, loop.create_task(self._drive(indices)))
        self.end_of_loop()
        finish(loop)
        self._check_left_over(before)

    async def _drive(self, indices: list[int]) -> None:
        turns = asyncio.ensure_future(self._note_turns())
        left = iter(indices)
        await asyncio.gather(*(self._one_by_one(left) for _ in range(self.arguments.parallel)))
        turns.cancel()
        await self.settle()

    async def _note_turns(self) -> None:
        while True:
            faulthandler.dump_traceback_later(STALL_LIMIT, exit=True)
            before = time.monotonic()
            self._last_turn = before
            await asyncio.sleep(0.1)
            if time.monotonic() - before > STALL:
                self._last_stall = time.monotonic()

    async def _one_by_one(self, indices: Any) -> None:
        for index in indices:
            if time.monotonic() > self._deadline:
                return
            say("S", index)
            chance = random.Random(f"{self.arguments.seed}/{index}")
            connection = self.connection(self.networks[index % len(self.networks)], index, chance)
            await self.bounded(connection, self.arguments.limit)
            say("E", index, connection.outcome)

    async def bounded(self, connection: Numbered, limit: float) -> None:
        try:
            await asyncio.wait_for(connection.run(), limit)
        except asyncio.TimeoutError:
            self.out_of_time(connection, limit)
            connection.abort()
        except BaseException as error:
            if not self.is_ours(error):
                self.found(connection.index, f"{traceback.format_exc()} {connection}")

    def out_of_time(self, connection: Numbered, limit: float) -> None:
        self.found(connection.index, f"not ended within {limit:g} seconds, {connection}")

    def _check_left_over(self, before: int) -> None:
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


def detail_of(error: BaseException | None) -> str:
    return "".join(traceback.format_exception(type(error), error, error.__traceback__)) if error else ""


_output = threading.Lock()


def say(kind: str, index: int, text: str = "") -> None:
    """A line for the parent process, at once: this one may crash."""
    line = f"{kind} {index} {text}".rstrip().replace("\n", "\\n")
    with _output:
        os.write(1, line.encode(errors="replace") + b"\n")


class Records(logging.Handler):
    """What is logged, and not of our making."""

    def __init__(self, batches: Batches) -> None:
        super().__init__(logging.WARNING)
        self._batches = batches

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        told = [error, *(argument for argument in record.args or () if isinstance(argument, BaseException))]
        if not any(map(self._batches.is_ours, told)) and not self._batches.expects_record(record):
            self._batches.found(-1, f"logged by {record.name}: {record.getMessage()} {detail_of(error)}")


def work(batches: Batches) -> None:
    """Run them, and tell whatever the interpreter has to say."""
    faulthandler.enable()
    sys.setswitchinterval(0.0005)
    logging.getLogger().addHandler(Records(batches))
    warnings.simplefilter("always")

    def warned(message: object, category: type[Warning], filename: str, lineno: int, *_: object) -> None:
        if not batches.expects_warning(str(message)):
            batches.found(-1, f"{category.__name__}: {message} ({filename}:{lineno})")

    warnings.showwarning = warned  # type: ignore[assignment]

    def unraisable(args: Any) -> None:
        if not batches.expects_unraisable(args.exc_value):
            batches.found(-1, f"exception ignored: {args.err_msg} {args.object!r}: {detail_of(args.exc_value)}")

    sys.unraisablehook = unraisable
    threading.excepthook = lambda args: batches.found(-1, f"a thread failed: {args.exc_value!r}")
    batches.run()
