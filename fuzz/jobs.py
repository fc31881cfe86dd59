"""Processes that work through numbered connections, and the report of what they found."""

from __future__ import annotations

import argparse
import collections
import re
import subprocess
import sys
import threading
import time


def add_arguments(parser: argparse.ArgumentParser, *, connections: int, parallel: int, networks: str) -> None:
    parser.add_argument("--connections", type=int, default=connections, help="how many")
    parser.add_argument("--seconds", type=float, default=0, help="begin no more after this time; 0: no limit")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="start of the random numbers")
    parser.add_argument("--only", type=int, help="the number of a single connection")
    parser.add_argument("--first", type=int, default=0, help="the number of the first connection")
    parser.add_argument("--networks", default="all", help=f"some of {networks}")
    parser.add_argument("--parallel", type=int, default=parallel, help="how many connections at a time in a process")
    parser.add_argument("--jobs", type=int, default=1, help="how many processes; 0: this one, for a debugger")
    parser.add_argument("--job", type=int, help=argparse.SUPPRESS)


def is_job(arguments: argparse.Namespace) -> bool:
    """Whether this process works itself."""
    if arguments.job is None and arguments.jobs != 0:
        return False
    arguments.job = arguments.job or 0
    arguments.jobs = max(arguments.jobs, 1)
    return True


def run_jobs(arguments: argparse.Namespace) -> int:
    """The exit status."""
    report = Report(arguments.seed)
    print(f"seed {arguments.seed}, networks {arguments.networks}", flush=True)
    for job in [Job(number, arguments, report) for number in range(arguments.jobs)]:
        job.thread.join()
    return report.end()


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
            # Of an argument that stands twice the later one counts.
            place = [f"--seed={self._arguments.seed}", f"--first={self._first}", f"--connections={end - self._first}"]
            with subprocess.Popen([sys.executable, *sys.argv, *place, f"--job={self._number}"], stdout=subprocess.PIPE) as process:
                assert process.stdout is not None
                for line in process.stdout:
                    kind, _, rest = line.decode(errors="replace").rstrip("\n").partition(" ")
                    index, _, text = rest.partition(" ")
                    if kind == "S":
                        running.add(int(index))
                        farthest = max(farthest, int(index))
                    elif kind == "E":
                        running.discard(int(index))
                        self._report.ended(text)
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


class Report:
    """What was found, the first few of each kind in full, and how connections ended."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._kinds: collections.Counter[str] = collections.Counter()
        self._outcomes: collections.Counter[str] = collections.Counter()
        self._begin = time.monotonic()
        self._lock = threading.Lock()

    def add(self, index: int, text: str, running: set[int]) -> None:
        kind = kind_of(text)
        with self._lock:
            self._kinds[kind] += 1
            if self._kinds[kind] > 3:
                return
            where = f"--only {index}" if index >= 0 else f"among {sorted(running)}"
            print(f"\nFOUND after {time.monotonic() - self._begin:.1f} s, --seed {self._seed} {where}: {text}", flush=True)

    def ended(self, outcome: str) -> None:
        with self._lock:
            self._outcomes[outcome] += 1

    def end(self) -> int:
        seconds = time.monotonic() - self._begin
        for outcome, count in sorted(self._outcomes.items()):
            if outcome:
                print(f"{count:6} {outcome}")
        done = sum(self._outcomes.values())
        print(f"\n{done} connections from seed {self._seed} in {seconds:.0f} s, {done / seconds:.0f} a second, "
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
