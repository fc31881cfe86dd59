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
import collections
import re
import subprocess
import sys
import threading
import time

from live_worker import NETWORKS, TIME_LIMIT, work


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
                   "limit": arguments.limit, "without": arguments.without}
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
    parser.add_argument("--without", default="", help="names of actions to leave out, for example leave,fail,run_nested")
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
