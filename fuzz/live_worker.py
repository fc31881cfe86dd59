"""A process of the live fuzzer: its event loops, those that run inside of callbacks, and what of errors is its own."""

from __future__ import annotations

import argparse
import asyncio
import contextvars
import errno
import itertools
import logging
import os
import random
from typing import Any

import batches
from batches import Batches, Network, finish
from live_actions import ACTIONS
from live_connection import LiveConnection
from live_side import Side, is_exit, is_ours

TIME_LIMIT = 30.0  # seconds that a connection may take
NESTED_TIME_LIMIT = 1.5  # seconds that one inside a callback may take, before it is cut
EXPECTED_RECORDS = (
    "slow peer", "that cannot be sent",
    # Transports say this of what is sent between the peer's reset, or end, and connection_lost.
    "socket.send() raised exception", "SSL connection is closed", "write() called after connection lost",
)


class Worker(Batches):
    """What the listeners of one event loop share, and may ask for."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        super().__init__(arguments)
        self.live: list[Side] = []
        left_out = arguments.without.split(",")
        self._actions = [action for action in ACTIONS if action[0].__name__ not in left_out]
        self.broadcasts = self.judging = self.comparing = 0
        self._nesting = self._entered = 0
        self._nested_loops: dict[tuple[str, int], Any] = {}
        self._nested_origins = itertools.count(0xF0000000, 4)

    def connection(self, network: Network, index: int, chance: random.Random) -> LiveConnection:
        return LiveConnection(self, self.peers, network, index, chance, (index << 2) + 0x1000000, self._actions)

    def is_ours(self, error: BaseException | None) -> bool:
        return is_ours(error)

    def expects_unraisable(self, error: BaseException | None) -> bool:
        return is_exit(error)

    def expects_record(self, record: logging.LogRecord) -> bool:
        return any(part in record.getMessage() for part in EXPECTED_RECORDS)

    def expects_loop_error(self, context: dict[str, Any]) -> bool:
        return is_exit(context.get("exception")) or is_of_the_transport(context)

    def index_of(self, transport: object) -> int:
        return next((side.index for side in self.live if side.transport is transport), -1)

    def out_of_time(self, connection: Any, limit: float) -> None:
        if limit != NESTED_TIME_LIMIT:
            super().out_of_time(connection, limit)

    def end_of_loop(self) -> None:
        for nested in self._nested_loops.values():
            finish(nested)
        self._nested_loops.clear()
        self.live.clear()

    # What the listeners ask for

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
            self.run_through(loop, loop.create_task(self.bounded(connection, NESTED_TIME_LIMIT)))
        finally:
            asyncio._set_running_loop(outer)
            self._nesting -= 1

    def _nested_loop(self, kind: str) -> Any:
        key = kind, self._nesting
        if key not in self._nested_loops:
            self._nested_loops[key] = self.new_loop(kind)
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

    def run_through(self, loop: Any, task: asyncio.Task[None]) -> None:
        """Run a task to its end; a callback that exits leaves the loop, which is then run on."""
        while not task.done():
            try:
                loop.run_until_complete(task)
            except BaseException as error:
                if not is_ours(error):
                    raise


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


def work(arguments: argparse.Namespace) -> None:
    batches.work(Worker(arguments))
