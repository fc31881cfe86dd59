"""A process of the live fuzzer: event loops, the connections on them, and what is left over."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import contextvars
import errno
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
from typing import Any

from live_actions import ACTIONS
from live_connection import LiveConnection, Network
from live_side import Side, is_exit, is_ours
from live_socket import PeerThread

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


def chosen_networks(names: str) -> list[Network]:
    if names == "all":
        return NETWORKS
    known = {str(network): network for network in NETWORKS}
    return [known[name] for name in names.split(",")]


class Worker:
    """Runs connections one event loop after the other, and tells on standard output what begins, ends and goes wrong."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.networks = chosen_networks(arguments.networks)
        self.peers = PeerThread()
        self.live: list[Side] = []
        left_out = arguments.without.split(",")
        self._actions = [action for action in ACTIONS if action[0].__name__ not in left_out]
        self.broadcasts = self.judging = self.comparing = 0
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
            connection = LiveConnection(
                self, self.peers, network, side.index, chance, next(self._nested_origins), self._actions, nested=True)
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
        if isinstance(error, type):
            return  # aiofastnet reports a client that is gone during the TLS handshake, by the class of the error
        if is_exit(error) or is_of_the_transport(context):
            return
        detail = "".join(traceback.format_exception(type(error), error, error.__traceback__)) if error else ""
        transport = getattr(context.get("protocol"), "transport", None)
        index = next((side.index for side in self.live if side.transport is transport), -1)
        self.found(index, f"the loop's exception handler was called: {context} {detail}")

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
            connection = LiveConnection(self, self.peers, network, index, chance, (index << 2) + 0x1000000, self._actions)
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


def is_of_the_transport(context: dict[str, Any]) -> bool:
    """Whether asyncio's or uvloop's own transports failed, in ways that picows cannot prevent."""
    error = context.get("exception")
    # asyncio's loop, run again inside a callback, writes what a handle behind it was to write.
    was_written = isinstance(error, AssertionError) and "Data should not be empty" in error.args
    # aiofastnet half-closes behind what it holds, and the peer may be gone by then.
    is_late_shutdown = isinstance(error, OSError) and error.errno == errno.ENOTCONN
    # asyncio's TLS was ended by a loop inside a callback, and goes on behind it.
    was_ended = isinstance(error, RuntimeError) and "cannot switch state" in str(error)
    was_lost = isinstance(error, AttributeError) and "NoneType" in str(error)
    if not (was_written or was_ended or was_lost or is_late_shutdown):
        return False
    if "_writing() failed" in context["message"]:
        return context["transport"] is None  # what TLS transports do between their end and connection_lost
    at = error.__traceback__ if error is not None else None
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    # A loop that was run again inside a callback of a transport may have ended that transport.
    where = "aiofastnet/" if is_late_shutdown else f"{os.sep}asyncio{os.sep}"
    return at is not None and where in at.tb_frame.f_code.co_filename


def renew_handles(loop: Any) -> None:
    """Make asyncio's loop fit to run inside a callback of its own."""
    handles = {handle for key in loop._selector.get_map().values() for handle in key.data if handle is not None}
    for handle in handles:
        # That of the callback which is running has been entered, and cannot be twice.
        handle._context = contextvars.copy_context()
    for _ in range(len(loop._ready)):
        handle = loop._ready.popleft()
        # The selector reports these again; they would run twice.
        if handle not in handles:
            loop._ready.append(handle)


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
