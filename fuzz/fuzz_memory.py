"""The life of a connection while memory runs out: behind a number of allocations one fails, or several in a row.

Every life is a process of its own: server and client over TCP or TLS, on asyncio or uvloop, connect, send, receive, compress,
broadcast and close, with callbacks and with coroutines. `_testcapi.set_nomemory` makes the allocators fail. A life may end by an
exception or as if nothing had been, within its time limits; a second one in the same process, with memory again, has to be
whole: what the connections of a thread share must not be broken. Never may it crash.

    python fuzz/fuzz_memory.py --lives 2000 [--seed 7] [--jobs 2] [--life uvloop-tls:345:347]

A life that went wrong is named by its network, and by which allocation failed first and which did not any more; `--life`
lives it again in this process, for a debugger.

The interpreter, asyncio and uvloop themselves are not safe against this. So a crash tells which
functions were running in C (crash.c): it is a finding if one of picows is among those that had been called since the last of
Python's own, and counted otherwise.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import ctypes
import gc
import importlib
import itertools
import json
import logging
import os
import random
import re
import select
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from batches import NETWORKS, Network, chosen_networks
from live_socket import client_tls, server_tls

from picows import WSDeflate, WSError, WSFrame, WSListener, WSMsgType, WSTransport, ws_broadcast, ws_connect, ws_create_server
from picows.websockets.asyncio.client import connect
from picows.websockets.asyncio.server import serve
from picows.websockets.exceptions import WebSocketException

LIFE_LIMIT = 20  # seconds that both lives may take
MESSAGES = [b"small", b"compressible " * 400, bytes(range(256)) * 400]
# What may come of it, wherever it comes from.
EXPECTED = (MemoryError, OSError, WSError, WebSocketException, asyncio.TimeoutError, asyncio.CancelledError)


class Echo(WSListener):
    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type in (WSMsgType.TEXT, WSMsgType.BINARY):
            transport.send(frame.msg_type, frame.get_payload_as_bytes())


class Collector(WSListener):
    def __init__(self) -> None:
        self.came: list[bytes] = []
        self.calls = ""
        self.enough = asyncio.Event()

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.calls += "c"

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type in (WSMsgType.TEXT, WSMsgType.BINARY):
            self.came.append(bytes(frame.get_payload_as_memoryview()))
            if len(self.came) == len(MESSAGES) + 3:
                self.enough.set()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.calls += "d"


class Lives:
    """Two lives over one network."""

    def __init__(self, network: Network, tls: dict[bool, Any]) -> None:
        self._network, self._tls = network, tls
        self.problems: list[str] = []
        self.suffered: collections.Counter[str] = collections.Counter()

    def live(self, fails: tuple[int, int] | None = None) -> None:
        loop = importlib.import_module(self._network.loop).new_event_loop()
        self._loop = loop
        loop.set_exception_handler(lambda _, context: self.judge(context.get("exception"), "the loop was told"))
        try:
            with failing(fails):
                loop.run_until_complete(self._both())
        finally:
            asyncio._set_running_loop(None)
            with contextlib.suppress(RuntimeError):
                loop.close()

    def tell_waiting(self) -> None:
        for task in asyncio.all_tasks(self._loop):
            task.print_stack(file=sys.stderr)
        traceback.print_stack()

    async def _both(self) -> None:
        for life in (self._with_callbacks, self._with_coroutines):
            try:
                await life()
            except Exception as error:
                self.judge(error, life.__name__)

    def judge(self, error: BaseException | None, where: str) -> None:
        """What is raised is expected, or comes from somewhere else."""
        if error is None or isinstance(error, type):
            return
        self.suffered[type(error).__name__] += 1
        with contextlib.suppress(MemoryError):
            if isinstance(error, (MemoryError, SystemError)):  # the latter by an interpreter that has lost the former
                print("FAILED", " ".join(calls_in_libraries(error)), file=sys.stderr)
            print(where, *traceback.format_exception(type(error), error, error.__traceback__), file=sys.stderr, flush=True)
        # What asyncio says when it had no memory to look for the running loop.
        if isinstance(error, EXPECTED) or "no running event loop" in str(error):
            return
        frames = traceback.extract_tb(error.__traceback__)
        if frames and re.search(r"(^|/)picows/(?!.*/site-packages/|fuzz/)", frames[-1].filename):
            self.problems.append(f"{where}: {''.join(traceback.format_exception(type(error), error, error.__traceback__))}")

    async def _with_callbacks(self) -> None:
        options: dict[str, Any] = {
            "compression": WSDeflate(min_size=100), "use_aiofastnet": self._network.fast, "websocket_handshake_timeout": 1}
        context = self._tls[False] if self._network.tls else None
        server = await ws_create_server(lambda _: Echo(), "127.0.0.1", 0, ssl=context, **options)
        transport = None
        try:
            transport, listener = await ws_connect(
                Collector, f"{'wss' if self._network.tls else 'ws'}://127.0.0.1:{server.sockets[0].getsockname()[1]}/",
                ssl_context=self._tls[True] if self._network.tls else None, connect_timeout=1, **options)
            await self._talk(server, transport, listener)
        finally:
            if transport is not None:
                await transport.close(timeout=0.5)
            server.close()
            server.abort_clients()
            await server.wait_closed()
        if listener.calls != "cd":
            self.problems.append(f"callbacks came as {listener.calls}, expected cd")

    async def _talk(self, server: Any, transport: WSTransport, listener: Collector) -> None:
        for message in MESSAGES:
            transport.send(WSMsgType.BINARY, message)
        with transport.cork():
            transport.send(WSMsgType.TEXT, "in ", fin=False)
            transport.send(WSMsgType.CONTINUATION, "parts")
            transport.send_reuse_external_bytearray(WSMsgType.BINARY, bytearray(14) + b"own room", 14)
        ws_broadcast(server.connections, WSMsgType.TEXT, "to all")
        await asyncio.wait_for(listener.enough.wait(), 1)
        await asyncio.wait_for(transport.measure_roundtrip_time(1), 1)
        if sorted(listener.came) != sorted([*MESSAGES, b"in parts", b"own room", b"to all"]):
            self.problems.append(f"came {[message[:20] for message in listener.came]}")

    async def _with_coroutines(self) -> None:
        async def echo(ws: Any) -> None:
            async for message in ws:
                await ws.send(message)

        context = self._tls[False] if self._network.tls else None
        async with serve(echo, "127.0.0.1", 0, ssl=context, open_timeout=1, close_timeout=0.5, ping_interval=None) as server:
            url = f"{'wss' if self._network.tls else 'ws'}://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
            context = self._tls[True] if self._network.tls else None
            async with connect(url, ssl=context, open_timeout=1, close_timeout=0.5, ping_interval=None, proxy=None) as ws:
                for message in MESSAGES:
                    await ws.send(message)
                    if await asyncio.wait_for(ws.recv(), 1) != message:
                        self.problems.append("a coroutine received another message than was sent")


def calls_in_libraries(error: BaseException) -> list[str]:
    """Where it was raised, from the innermost call of this program on."""
    calls: list[str] = []
    for frame in traceback.extract_tb(error.__traceback__):
        calls = [] if frame.filename == __file__ else [*calls, f"{frame.filename}:{frame.name}"]
    return [f"{os.sep}".join(call.split(os.sep)[-2:]) for call in calls]


@contextlib.contextmanager
def failing(fails: tuple[int, int] | None) -> Any:
    import _testcapi

    if fails is None:
        yield
        return
    _testcapi.set_nomemory(*fails)
    try:
        yield
    finally:
        _testcapi.remove_mem_hooks()


PLENTY = 1_000_000  # allocations, more than a life has


def allocations(function: Callable[[], object]) -> int:
    """About how many there are in it: as many as are missing afterwards, when memory was to run out behind many more."""
    with failing((PLENTY, 0)):
        function()
        left = until_memory_is_gone()
    with failing((PLENTY, 0)):
        all_of_them = until_memory_is_gone()
    return PLENTY - PLENTY * left // all_of_them


def until_memory_is_gone() -> int:
    count = 0
    try:
        while True:
            object()
            count += 1
    except MemoryError:
        return count


class Runner:
    """Forks a process for each life, and tells what became of it."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self._networks = chosen_networks(arguments.networks)
        self.tls = {True: client_tls(), False: server_tls()}
        self._outcomes: collections.Counter[str] = collections.Counter()
        self._findings = 0
        self._folder = tempfile.TemporaryDirectory()  # what the lives write as errors
        self._teller = crash_teller()
        self._begin = time.monotonic()

    def run(self) -> int:
        print(f"seed {self._arguments.seed}", flush=True)
        self.warm_up()
        reaches = {network: allocations(lambda: Lives(network, self.tls).live()) for network in self._networks}  # noqa: B023
        print("allocations of a life:", ", ".join(f"{network} {reach}" for network, reach in reaches.items()), flush=True)
        running: dict[int, tuple[str, int]] = {}
        for index in range(self._arguments.lives):
            while len(running) >= max(self._arguments.jobs, 1):
                self._finish_some(running)
            life = self._draw(index, reaches)
            pid, pipe = self._start(*parsed(life))
            running[pipe] = life, pid
        while running:
            self._finish_some(running)
        seconds = time.monotonic() - self._begin
        for outcome, count in sorted(self._outcomes.items()):
            print(f"{count:6} {outcome}")
        lives = sum(self._outcomes.values())
        print(f"\n{lives} lives from seed {self._arguments.seed} in {seconds:.0f} s, {self._findings} findings")
        return 1 if self._findings else 0

    def warm_up(self) -> None:
        """Fill the caches of the interpreter."""
        for network in self._networks:
            Lives(network, self.tls).live()

    def _draw(self, index: int, reaches: dict[Network, int]) -> str:
        chance = random.Random(f"{self._arguments.seed}/{index}")
        network = self._networks[index % len(self._networks)]
        start = int(chance.random() * reaches[network])
        return f"{network}:{start}:{start + chance.choice([1, 1, 1, 2, 5, 50])}"

    def _start(self, network: Network, fails: tuple[int, int]) -> tuple[int, int]:
        reading, writing = os.pipe()
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            os.dup2(os.open(self._error_file(os.getpid()), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 2)
            self._teller.tell_crashes()
            with os.fdopen(writing, "w") as output:
                output.write(json.dumps(live_twice(network, self.tls, fails, self._arguments.limit)))
            os._exit(0)
        os.close(writing)
        return pid, reading

    def _wait(self, pid: int, pipe: int) -> tuple[str, int, str]:
        with os.fdopen(pipe) as file:
            text = file.read()
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        errors = self._error_file(pid)
        try:
            return text, status, errors.read_text(errors="replace")
        finally:
            errors.unlink()

    def _error_file(self, pid: int) -> Path:
        return Path(self._folder.name) / str(pid)

    def _finish_some(self, running: dict[int, tuple[str, int]]) -> None:
        ready, _, _ = select.select(list(running), [], [])
        for pipe in ready:
            life, pid = running.pop(pipe)
            text, status, errors = self._wait(pid, pipe)
            if status == -signal.SIGKILL:
                self._hung(life, errors)
            elif status != 0 or not text:
                self._crashed(life, status, errors)
            else:
                told = json.loads(text)
                for problem in told["problems"]:
                    self._found(life, problem)
                self._outcomes[", ".join(told["suffered"]) or "nothing was seen"] += 1

    def _hung(self, life: str, errors: str) -> None:
        """asyncio loses the waking of a task, and a transport its own end, when the call that was to bring it about has failed."""
        told = [line for line in errors.split("\n") if line.startswith("FAILED ")]
        place = "" if not told else " below picows" if any("picows" in line for line in told) else f" behind {told[0]}"
        self._outcomes["did not end" + place] += 1
        if not told or "below picows" in place:
            self._found(life, f"did not end within {self._arguments.limit} seconds\n{errors}")

    def _crashed(self, life: str, status: int, errors: str) -> None:
        place = crash_place(errors)
        self._outcomes[f"crashed with status {status} {place}"] += 1
        if "picows" in place or "?" in place:
            self._found(life, f"crashed with status {status} {place}\n{errors}")

    def _found(self, life: str, text: str) -> None:
        self._findings += 1
        print(f"\nFOUND --life {life}: {text}", flush=True)


def parsed(life: str) -> tuple[Network, tuple[int, int]]:
    name, start, stop = life.split(":")
    return chosen_networks(name)[0], (int(start), int(stop))


def live_twice(network: Network, tls: dict[bool, Any], fails: tuple[int, int], limit: int) -> dict[str, Any]:
    """Once without memory, and once with it."""
    logging.getLogger().addHandler(logging.NullHandler())
    first, second = Lives(network, tls), Lives(network, tls)

    def too_late(*_: object) -> None:
        first.tell_waiting()
        os.kill(os.getpid(), signal.SIGKILL)

    signal.signal(signal.SIGALRM, too_late)
    signal.alarm(limit)
    sys.unraisablehook = lambda args: first.judge(args.exc_value, f"ignored in {args.object!r}")
    try:
        first.live(fails)
    except BaseException as error:
        first.judge(error, "the loop")
    gc.collect()
    try:
        second.live()
    except BaseException as error:
        second.problems.append(repr(error))
    if second.problems or second.suffered:
        first.problems.append(
            f"the life behind it was broken: {second.problems} {dict(second.suffered)}, after {dict(first.suffered)}")
    return {"problems": first.problems, "suffered": sorted(first.suffered)}


def crash_teller() -> Any:
    """crash.c, compiled."""
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "crash.so"
        compiler = shlex.split(os.environ.get("CC", "cc"))
        subprocess.run([*compiler, "-shared", "-fPIC", "-o", library, Path(__file__).with_name("crash.c")], check=True)
        return ctypes.CDLL(str(library))


def crash_place(stack: str) -> str:
    """In which file, and whether picows has called it and not Python's own functions since.

    A line is `file(function+0x12) [0x7f00]`, the first ones are those of the handler.
    """
    files = [line.partition("(")[0] for line in stack.split("\n") if "[0x" in line]
    files = [file for file in files if not file.endswith("/crash.so")]
    inner = list(itertools.takewhile(lambda file: "python" not in Path(file).name or "cpython-" in Path(file).name, files[1:]))
    ours = any(f"{os.sep}picows{os.sep}" in file for file in inner)
    return f"in {Path(files[1]).name if len(files) > 1 else '?'}{', called by picows' if ours else ''}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lives", type=int, default=2000, help="how many")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="start of the random numbers")
    parser.add_argument("--limit", type=int, default=LIFE_LIMIT, help="seconds that both lives of a process may take")
    parser.add_argument("--life", type=parsed, help="a single one")
    parser.add_argument("--networks", default="all", help=f"some of {','.join(map(str, NETWORKS))}")
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time")
    arguments = parser.parse_args()
    logging.raiseExceptions = False
    runner = Runner(arguments)
    if arguments.life is not None:
        runner.warm_up()
        print(live_twice(*arguments.life[:1], runner.tls, *arguments.life[1:], arguments.limit))
    else:
        sys.exit(runner.run())


if __name__ == "__main__":
    main()
