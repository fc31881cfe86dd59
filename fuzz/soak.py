"""A soak: servers and clients in processes of their own, under mixed loads for a long time.

Every message carries a number and a checksum: one that is lost, repeated, reordered or damaged is found. Resident memory,
descriptors, timers, tasks and objects of every process are sampled, and have to be flat: the slope by least squares over
the second half may make no more of any of them than a stated bound. When all connections have ended nothing may be left of them.
The exit status tells.

    python fuzz/soak.py --seconds 600 [--seed 7] [--loops asyncio,uvloop] [--share 1.0] [--samples /tmp/samples.json]

There is a server and a process of clients on each kind of event loop; every client goes to every server. While the file exists that
the environment variable SOAK_PAUSE_FILE names, the load pauses, for measuring something else meanwhile; that time does not count.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import platform
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from soak_figures import growths

FOLDER = Path(__file__).parent
LOOPS = [name for name in ("asyncio", "uvloop") if importlib.util.find_spec(name)]
REPORT_SECONDS = 60.0


class Child:
    """A process of the soak, and what it has told."""

    def __init__(self, kind: str, loop: str, arguments: list[str], told: queue.Queue[tuple[Child, str, Any]]) -> None:
        self.name = f"{kind} on {loop}"
        self.samples: list[dict[str, float]] = []
        self.said: dict[str, Any] = {}  # the last of each other kind
        command = [sys.executable, str(FOLDER / f"soak_{kind}.py"), f"--loop={loop}", *arguments]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._told = told
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            kind, value = json.loads(line)
            self._told.put((self, kind, value))
        self._told.put((self, "gone", self._process.wait()))

    def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()

    def ask(self) -> None:
        """What becomes of its connections, for whoever looks for the reason of a fault."""
        self._process.send_signal(signal.SIGUSR1)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


class Soak:
    """The processes, from the first to the last word."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self._told: queue.Queue[tuple[Child, str, Any]] = queue.Queue()
        self._children: list[Child] = []
        self._gone: set[Child] = set()
        self._stopping: set[Child] = set()
        self.faults: list[str] = []

    def run(self) -> int:
        arguments = self._arguments
        print(f"CPython {platform.python_version()}, seed {arguments.seed}, {arguments.seconds:g} s", flush=True)
        loops = arguments.loops.split(",")
        try:
            servers = [self._start("server", loop) for loop in loops]
            ports = {server.name.split()[-1]: self._wait(server, "ports") for server in servers}
            clients = [self._start("clients", loop, f"--servers={json.dumps(ports)}") for loop in loops]
            for client in clients:
                self._wait(client, "ready")
            self._watch(clients)
            self._stop(clients)
            self._stop(servers)
        except Found:
            for child in self._children:
                child.ask()
            self._take_what_is_left(2.0)
        finally:
            for child in self._children:
                child.kill()
        return self._report()

    def _start(self, kind: str, loop: str, *more: str) -> Child:
        arguments = self._arguments
        options = {
            "seed": arguments.seed, "share": arguments.share / (2 * len(arguments.loops.split(","))),
            "pause-file": os.environ.get("SOAK_PAUSE_FILE", ""), "life": arguments.life or min(20.0, arguments.seconds / 10),
            "sample-seconds": min(5.0, arguments.seconds / 100), "patience": arguments.patience, "settle": arguments.settle,
            "sabotage": arguments.sabotage}
        passed_on = [f"--{name}={value}" for name, value in options.items()]
        child = Child(kind, loop, [*passed_on, *more], self._told)
        self._children.append(child)
        return child

    def _wait(self, child: Child, kind: str) -> Any:
        while kind not in child.said:
            self._next(1.0)
        return child.said[kind]

    def _next(self, timeout: float) -> None:
        """Listen for a word of a child; what is wrong ends the run."""
        try:
            child, kind, value = self._told.get(timeout=max(timeout, 0))
        except queue.Empty:
            return
        if kind == "sample":
            child.samples.append(value)
        elif kind == "gone":
            self._gone.add(child)
            if value != 0 or child not in self._stopping:
                self._found(f"{child.name} ended with status {value}")
        elif kind == "fault":
            self._found(f"{child.name}: {value}")
        elif kind == "connection":
            print(f"{child.name}: {value}")
        else:
            child.said[kind] = value

    def _found(self, text: str) -> None:
        self.faults.append(text)
        print(f"FOUND {text}", flush=True)
        raise Found

    def _take_what_is_left(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with contextlib.suppress(Found):
                self._next(end - time.monotonic())

    def _watch(self, clients: list[Child]) -> None:
        """Until there was load for as long as is wanted; its time is that of the first process of clients."""
        reported = time.monotonic()
        while not clients[0].samples or clients[0].samples[-1]["time"] < self._arguments.seconds:
            self._next(1.0)
            if time.monotonic() - reported >= REPORT_SECONDS:
                reported = time.monotonic()
                for child in self._children:
                    print(f"{time.strftime('%H:%M:%S')} {child.name}: {child.samples[-1:]}", flush=True)

    def _stop(self, children: list[Child]) -> None:
        self._stopping.update(children)
        for child in children:
            child.stop()
        while not self._gone.issuperset(children):
            self._next(1.0)

    def _report(self) -> int:
        growing = []
        for child in self._children:
            print(f"\n{child.name}: {child.said.get('end', 'did not come to its end')}")
            found = growths(child.samples)
            for growth in found:
                print(growth)
            growing += [growth for growth in found if growth.too_much]
            if not found:
                print(f"{len(child.samples)} samples: too short for a slope")
        if self._arguments.samples:
            Path(self._arguments.samples).write_text(json.dumps({child.name: child.samples for child in self._children}))
        messages = sum(child.said.get("end", {}).get("messages", 0) for child in self._children)
        connections = sum(child.said.get("end", {}).get("connections", 0) for child in self._children)
        print(f"\n{connections:,.0f} connections, {messages:,.0f} messages checked, {len(self.faults)} faults, "
              f"{len(growing)} figures that grow")
        return 1 if self.faults or growing else 0


class Found(Exception):
    """Something is wrong, which ends the soak."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600, help="how long; pauses do not count")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="start of the random numbers")
    parser.add_argument("--loops", default=",".join(LOOPS), help=f"some of {','.join(LOOPS)}")
    parser.add_argument("--share", type=float, default=1.0, help="of one core, that all processes take together")
    parser.add_argument("--life", type=float, default=0, help="seconds that most connections live; 0: by the length of the run")
    parser.add_argument("--patience", type=float, default=180, help="seconds that an answer may take")
    parser.add_argument("--settle", type=float, default=75, help="seconds until nothing may be left; TLS needs 60")
    parser.add_argument("--samples", help="a file for all samples, in JSON")
    parser.add_argument("--sabotage", default="", help="lose, repeat, swap, damage or leak: the servers do what has to be found")
    sys.exit(Soak(parser.parse_args()).run())


if __name__ == "__main__":
    main()
