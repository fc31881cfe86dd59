"""A process of the soak: its pace, its samples, and what it tells the process that has started it."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import faulthandler
import gc
import importlib
import json
import logging
import os
import random
import signal
import sys
import threading
import time
import traceback
import warnings
import weakref
from collections import Counter
from collections.abc import Awaitable, Coroutine
from typing import Any, Callable, TypeVar

from live_wire import Damaged
from live_worker import is_of_the_transport
from soak_figures import count_kinds, descriptors, own, take_sample, timers
from soak_messages import Fault, Keeper

T = TypeVar("T")

# Seconds that an answer may take. A process may be starved for long, on a machine that does other work.
PATIENCE = 180.0  # the default
# Seconds after which nothing may be left. The timers of TLS handshakes that were cancelled live for 60 seconds, with what
# they hold: they are those of uvloop and aiofastnet, and nobody else could stop them.
SETTLE = 75.0
# Seconds that a pong may take: a client that does not read answers none while the load pauses.
PONG_PATIENCE = 7200
MOST_FAULTS = 20  # that are told in full

_EXPECTED_RECORDS = (
    "slow peer",
    # Transports say this of what is sent between the peer's reset, or end, and connection_lost.
    "socket.send() raised exception", "SSL connection is closed", "write() called after connection lost",
)
# What a loop and a thread keep for the next connection, and what is made when it is used for the first time.
_KEPT = {"picows.picows.ThreadMemory": 1, "picows.picows.WSFrame": 1}


class Pace:
    """Sleeps between the actions of a process, and stretches the sleeps so that it takes no more than its share of a core.

    :param share: of one core, between 0 and 1
    :param pause_file: while it exists no sleep ends, so that the process does next to nothing
    """

    def __init__(self, share: float, pause_file: str, chance: random.Random) -> None:
        self._share, self._pause_file, self._chance = share, pause_file, chance
        self._stretch = 1.0
        self._finished = False
        self.going = asyncio.Event()
        self.going.set()
        self.active = 0.0  # seconds that were no pause

    async def turn(self, mean: float) -> None:
        await asyncio.sleep(self._chance.uniform(0, 2 * mean) * self._stretch)
        await self.going.wait()

    async def sleep(self, seconds: float) -> None:
        """For so long, pauses not counted."""
        end = self.active + seconds
        while self.active < end and not self._finished:
            await asyncio.sleep(min(end - self.active, 0.5))
            await self.going.wait()

    def finish(self) -> None:
        """Sleep no more than is needed to come to an end."""
        self._finished, self._stretch = True, 0.05
        self.going.set()

    async def keep(self) -> None:
        """Look at the time and at the file, until it is finished."""
        before, used_before = time.monotonic(), time.process_time()
        while True:
            await asyncio.sleep(0.1)
            now, used = time.monotonic(), time.process_time()
            if self._finished:
                break
            if self._pause_file and os.path.exists(self._pause_file):
                self.going.clear()
            else:
                if self.going.is_set():
                    self.active += now - before
                    took = (used - used_before) / (now - before)
                    self._stretch = min(max(self._stretch * min(max(took / self._share, 0.95), 1.05), 1.0), 1000.0)
                self.going.set()
            before, used_before = now, used


class Process:
    """One process of the soak, on one kind of event loop."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.chance = random.Random(f"{arguments.seed}/{sys.argv[0]}/{arguments.loop}")
        self.keeper = Keeper(self.chance)
        self.counts: Counter[str] = Counter()
        self.listeners: weakref.WeakSet[Any] = weakref.WeakSet()
        self.stop: asyncio.Event
        self.pace: Pace
        self._faults = 0
        self._tasks: set[asyncio.Task[Any]] = set()

    # What is told

    def say(self, kind: str, value: Any) -> None:
        os.write(1, json.dumps([kind, value]).encode() + b"\n")

    def fault(self, text: str) -> None:
        self._faults += 1
        if self._faults <= MOST_FAULTS:
            self.say("fault", text)

    @contextlib.contextmanager
    def finding(self, where: object) -> Any:
        """What is found inside is told, and goes no further."""
        try:
            yield
        except (Fault, Damaged) as error:
            self.fault(f"{where}: {error}")

    # Work

    async def within(self, work: Awaitable[T], what: str) -> T:
        try:
            return await asyncio.wait_for(work, self.arguments.patience)
        except asyncio.TimeoutError:
            raise Fault(f"not within {self.arguments.patience:g} seconds: {what}") from None

    def spawn(self, work: Coroutine[Any, Any, Any], where: object) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(self._guarded(work, where))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _guarded(self, work: Coroutine[Any, Any, Any], where: object) -> None:
        try:
            with self.finding(where):
                await work
        except Exception:
            self.fault(f"{where}: {traceback.format_exc()}")

    # The run

    def run(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        faulthandler.enable()
        logging.getLogger().addHandler(_Records(self))
        logging.getLogger("picows").setLevel(logging.WARNING)
        self._tell_of_all_that_goes_wrong()
        loop = importlib.import_module(self.arguments.loop).new_event_loop()
        loop.set_exception_handler(self._on_loop_error)
        loop.run_until_complete(self._live(loop, work))
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
        if self._faults > MOST_FAULTS:
            self.say("fault", f"and {self._faults - MOST_FAULTS} more")

    async def _live(self, loop: Any, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        arguments = self.arguments
        self.stop = asyncio.Event()
        self.pace = Pace(arguments.share, arguments.pause_file, self.chance)
        loop.add_signal_handler(signal.SIGUSR1, self._describe)
        loop.add_reader(0, self._on_word_of_the_parent, loop)
        gc.collect()
        before, kinds_before = take_sample(loop), own(count_kinds())
        watching = [loop.create_task(self.pace.keep()), loop.create_task(self._sample(loop))]
        await work()
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)
        loop.remove_reader(0)
        await self._check_left_over(loop, before, kinds_before)

    def _on_word_of_the_parent(self, loop: Any) -> None:
        """It says that it is enough, or has ended."""
        os.read(0, 100)
        loop.remove_reader(0)
        self.pace.finish()
        self.stop.set()

    def _describe(self) -> None:
        """Tell of each connection; asked for when something is wrong."""
        for listener in list(self.listeners):
            transport = listener.transport
            if transport.is_disconnected:
                continue
            name, peer = (transport.underlying_transport.get_extra_info(name) for name in ("sockname", "peername"))
            self.say("connection", f"{name} to {peer}, {listener}: disconnected {transport.is_disconnected}, "
                     f"{transport.close_handshake}, {transport.stats()}, {transport.underlying_transport}")

    async def _sample(self, loop: Any) -> None:
        while not self.stop.is_set():
            await self.pace.sleep(self.arguments.sample_seconds)
            self.say("sample", {"time": self.pace.active, **take_sample(loop), **self.counts})

    async def _check_left_over(self, loop: Any, before: dict[str, float], kinds_before: Counter[str]) -> None:
        """When all connections have ended nothing of them may be left."""
        with self.finding("kept"):
            self.keeper.close()
        for _ in range(int(self.arguments.settle * 10)):
            # Ends that only a timer or the peer brings about: lingering, the spare block, what a peer of TLS still says.
            await asyncio.sleep(0.1)
            after, kinds = take_sample(loop), own(count_kinds())
            after["timers"] = len([timer for timer in timers() if "SSL" not in repr(timer)])
            left = {name: after[name] - before[name] for name in ("descriptors", "timers", "tasks") if after[name] > before[name]}
            left.update({kind: count - kinds_before[kind] for kind, count in kinds.items()
                         if count > kinds_before[kind] + _KEPT.get(kind, 0)})
            if not left:
                break
        else:
            self.fault(f"left over when all connections had ended: {left}; descriptors of {descriptors()}, timers {timers()[:5]}")
        self.say("end", {"active": self.pace.active, "processor": time.process_time(), **after, **self.counts})

    # What goes wrong by itself

    def _tell_of_all_that_goes_wrong(self) -> None:
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, category, filename, lineno, *_: self.fault(  # type: ignore[assignment]
            f"{category.__name__}: {message} ({filename}:{lineno})")
        sys.unraisablehook = lambda args: self.fault(f"exception ignored: {args.err_msg} {args.object!r}: {_text(args.exc_value)}")
        threading.excepthook = lambda args: self.fault(f"a thread failed: {_text(args.exc_value)}")

    def _on_loop_error(self, loop: Any, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, type):
            return  # aiofastnet reports a client that is gone during the TLS handshake, by the class of the error
        if not is_of_the_transport(context):
            self.fault(f"the loop's exception handler was called: {context} {_text(error)}")


class _Records(logging.Handler):
    """What is logged, and was not provoked."""

    def __init__(self, process: Process) -> None:
        super().__init__(logging.WARNING)
        self._process = process

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        message = record.getMessage()
        if isinstance(error, Provoked) or "provoked" in message or any(part in message for part in _EXPECTED_RECORDS):
            return
        self._process.fault(f"logged by {record.name}: {message} {_text(error)}")


class Provoked(Exception):
    """What a callback raises to end its connection."""


def _text(error: BaseException | None) -> str:
    return "" if error is None else "".join(traceback.format_exception(type(error), error, error.__traceback__))


def process_arguments(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--loop", default="asyncio")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--pause-file", default="")
    parser.add_argument("--life", type=float, default=20.0)
    parser.add_argument("--sample-seconds", type=float, default=5.0)
    parser.add_argument("--patience", type=float, default=PATIENCE)
    parser.add_argument("--sabotage", default="")
    parser.add_argument("--settle", type=float, default=SETTLE)
    parser.add_argument("--servers", default="{}")
    return parser
