"""Worker processes that share one listening socket."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

from .. import WSCloseCode
from .running import fail, run
from .serving import load, serve

STOP_GRACE = 4.0  # seconds that a worker has to end, beside those that its connections have, before it is killed
LOOK_AT_FILES = 0.5  # seconds

# Forked processes would share the event loop's insides.
_processes = multiprocessing.get_context("spawn")


def _work(options: argparse.Namespace, sock: socket.socket, parent: Connection) -> None:
    """What a worker process does."""
    # Ctrl+C goes to all processes of a terminal. The parent decides who stops when.
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    async def main() -> int:
        loop = asyncio.get_running_loop()
        this = asyncio.current_task()
        assert this is not None
        codes: list[int] = []  # what clients are to be told

        def stop(code: int) -> None:
            # Once: service managers send SIGTERM to the parent and to us, and the parent sends it on.
            if not codes:
                codes.append(code)
                this.cancel()

        def hear_parent() -> None:
            try:
                stop(parent.recv())
            except (EOFError, ConnectionError):
                # It has died, or has no time left.
                loop.remove_reader(parent.fileno())
                codes.append(WSCloseCode.GOING_AWAY)
                this.cancel()

        loop.add_signal_handler(signal.SIGTERM, stop, WSCloseCode.GOING_AWAY)
        loop.add_reader(parent.fileno(), hear_parent)
        try:
            with sock:
                return await serve(
                    load(options.target), sock, options, lambda: parent.send("ready"), lambda: codes[0]
                )
        finally:
            loop.remove_reader(parent.fileno())

    sys.exit(run(main(), options, stop_signals=[]))


class Worker:
    """One process."""

    def __init__(self, options: argparse.Namespace, sock: socket.socket) -> None:
        self._connection, theirs = _processes.Pipe()
        self._process = _processes.Process(target=_work, args=(options, sock, theirs))
        self._patience = options.shutdown_spread + options.shutdown_timeout + STOP_GRACE
        self._process.start()
        theirs.close()

    async def ready(self) -> bool:
        """Whether it serves; or has ended before it did."""
        await _readable(self._connection.fileno())
        try:
            self._connection.recv()
            return True
        except EOFError:
            return False

    async def ended(self) -> None:
        await _readable(self._process.sentinel)

    async def restart(self) -> None:
        """End it, and tell its clients to come back, to its successor."""
        with contextlib.suppress(OSError):  # it has died
            self._connection.send(int(WSCloseCode.SERVICE_RESTART))
        await self._end()
        self._connection.close()

    async def stop(self) -> None:
        """End it and its connections, in peace if it can."""
        self._process.terminate()
        try:
            await self._end()
        finally:
            self._connection.close()  # one that is still there has no time left

    async def _end(self) -> None:
        try:
            await asyncio.wait_for(self.ended(), self._patience)
        except asyncio.TimeoutError:
            self._process.kill()
            await self.ended()
        self._process.join()


async def _readable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    # A descriptor has one reader, and several may wait: each has its own.
    copy = os.dup(fd)
    readable = asyncio.Event()
    loop.add_reader(copy, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(copy)
        os.close(copy)


class Workers:
    """All processes of a server.

    One that dies is replaced. SIGHUP, or a changed file with ``--reload``, replaces them one by one: the
    next one is stopped when its successor serves. The socket stays open, so no client is refused.
    """

    def __init__(self, options: argparse.Namespace, sock: socket.socket) -> None:
        self._options = options
        self._socket = sock
        self._workers: list[Worker] = []
        self._leaving: list[Worker] = []
        self._renew = asyncio.Event()

    async def run(self) -> int:
        """Serve until cancelled; the exit code."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self._renew.set)
        tasks = []
        stamps = dict(_stamps())  # before the code is loaded: what changes meanwhile is to be seen
        try:
            self._workers = [Worker(self._options, self._socket) for _ in range(self._options.workers)]
            if not all(await asyncio.gather(*(worker.ready() for worker in self._workers))):
                if not self._options.reload:
                    return fail("a worker could not start")
                print("picows: waiting for a change", file=sys.stderr, flush=True)
            duties = [self._renew_on_demand()]
            if self._options.reload:  # a worker that has died waits for a change
                duties.append(self._watch_files(stamps))
            else:
                duties += map(self._keep, range(len(self._workers)))
            tasks = [asyncio.ensure_future(duty) for duty in duties]
            await asyncio.gather(*tasks)
        except asyncio.CancelledError:
            pass
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*(worker.stop() for worker in self._workers + self._leaving))
            loop.remove_signal_handler(signal.SIGHUP)
        return 0

    async def _keep(self, place: int) -> None:
        """Replace the worker of a place when it dies."""
        while True:
            worker = self._workers[place]
            await worker.ended()
            if worker is not self._workers[place]:
                continue  # it was replaced
            print("picows: a worker has died, starting another", file=sys.stderr, flush=True)
            await worker.stop()
            self._workers[place] = Worker(self._options, self._socket)
            if not await self._workers[place].ready():
                await asyncio.sleep(1)  # one that always dies at once

    async def _renew_on_demand(self) -> None:
        while True:
            await self._renew.wait()
            self._renew.clear()
            for place, old in enumerate(self._workers):
                new = Worker(self._options, self._socket)
                if not await new.ready():
                    print("picows: the new worker could not start, the old ones go on", file=sys.stderr, flush=True)
                    await new.stop()
                    break
                self._workers[place] = new
                self._leaving = [old]
                await old.restart()
                self._leaving = []
            else:
                print("picows: all workers are new", file=sys.stderr, flush=True)

    async def _watch_files(self, before: dict[str, int]) -> None:
        while True:
            await asyncio.sleep(LOOK_AT_FILES)
            now = dict(_stamps())
            if now != before:
                changed = next(iter(set(now.items()) ^ set(before.items())))[0]
                print(f"picows: {changed} has changed", file=sys.stderr, flush=True)
                before = now
                self._renew.set()


def _stamps() -> Iterator[tuple[str, int]]:
    """The Python files below the working folder, and when they were changed."""
    for folder, folders, files in os.walk("."):
        folders[:] = [name for name in folders if not name.startswith(".") and name != "__pycache__"]
        for name in files:
            if name.endswith(".py"):
                path = Path(folder, name)
                with contextlib.suppress(OSError):
                    yield str(path), path.stat().st_mtime_ns
