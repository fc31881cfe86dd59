"""The Autobahn testsuite against an echo server and an echo client in message mode, with compression.

$ AUTOBAHN=path/to/runner python -m conformance.run [--sides server] [--loops uvloop] [options of the runner]

Each side runs on each event loop. The results are printed as a table, and with them the cases that are not OK or INFORMATIONAL.
The reports stay in build/conformance. Exit status: 0 all is as it should be, 1 it is not, 2 the testsuite could not be run.

docs/conformance.rst says what the variable AUTOBAHN may name, and how to get the testsuite.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import textwrap
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from conformance.echo import LOOPS

REPORTS = Path("build", "conformance")
SIDES = ("server", "client")

PASSED = ("OK", "INFORMATIONAL")
# A frame that is not UTF-8 and not complete yet: the testsuite likes an answer before the end of the frame.
EXPLAINED = ("6.4.3", "6.4.4")

COLUMNS = ("Side, event loop", "Cases", "OK", "NON-STRICT", "INFORMATIONAL", "Failed")

MISSING = """\
conformance: {}.
The variable AUTOBAHN has to name a program that runs the Autobahn testsuite. Where its command wstest is installed,
conformance/with_wstest.py is such a program:
    make conformance AUTOBAHN='python3 conformance/with_wstest.py'
docs/conformance.rst says how to get the testsuite, and what the program has to do."""

Results = dict[str, dict[str, str]]


class NotRunError(Exception):
    """The testsuite could not be run."""


def find_runner() -> list[str]:
    """The command that the variable names."""
    command = shlex.split(os.environ.get("AUTOBAHN", ""))
    if not command:
        raise NotRunError(MISSING.format("AUTOBAHN is not set"))
    if shutil.which(command[0]) is None:
        raise NotRunError(MISSING.format(f"AUTOBAHN names {command[0]}, which is no program"))
    return command


def program(name: str, loop: str) -> list[str]:
    return [sys.executable, "-m", f"conformance.{name}", "--loop", loop]


@contextlib.contextmanager
def running_server(loop: str) -> Iterator[str]:
    """The URL of an echo server."""
    with subprocess.Popen(program("echo_server", loop), stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            url = server.stdout.readline().strip()
            if not url:
                raise NotRunError(f"conformance: the echo server on {loop} did not start")
            yield url
            if server.poll() is not None:
                raise NotRunError(f"conformance: the echo server on {loop} ended by itself, status {server.returncode}")
        finally:
            server.terminate()


def run(runner: list[str], side: str, loop: str, options: list[str]) -> tuple[Results, list[str]]:
    """Run the testsuite against one side on one event loop: what became of each case, and what else went wrong."""
    directory = REPORTS / f"{side}-{loop}"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    options = [*options, "--out", str(directory)]
    if side == "server":
        with running_server(loop) as url:
            status = subprocess.run([*runner, "server", url, *options], check=False).returncode
    else:
        command = [*runner, "client", "--port", "0", *options, "--", *program("echo_client", loop)]
        status = subprocess.run(command, check=False).returncode
    summary = directory / "summary.json"
    if not summary.exists():
        raise NotRunError(f"conformance: the runner ended with status {status} and left no {summary}")
    report = json.loads(summary.read_text(encoding="utf-8"))
    return report["results"], report["problems"]


def failed(result: dict[str, str]) -> bool:
    return result["behavior"] not in (*PASSED, "NON-STRICT") or result["behaviorClose"] not in PASSED


def findings(results: Results) -> Iterator[tuple[str, bool]]:
    """The cases that are not OK or INFORMATIONAL, by what became of them, and whether that is as it should be."""
    cases = defaultdict(list)
    for case, result in results.items():
        what = f"{result['behavior']}, close {result['behaviorClose']}"
        if failed(result):
            cases[f"{what} ({result['reason']})" if result["reason"] else what, False].append(case)
        elif result["behavior"] == "NON-STRICT":
            explained = case in EXPLAINED
            cases[what if explained else f"{what}, not explained", explained].append(case)
    for (what, as_expected), names in cases.items():
        yield f"{what}: {' '.join(names)}", as_expected


def row(name: str, results: Results) -> tuple[str, ...]:
    good = Counter(result["behavior"] for result in results.values() if not failed(result))
    bad = len(results) - sum(good.values())
    counts = (len(results), good["OK"], good["NON-STRICT"], good["INFORMATIONAL"], bad)
    return (name, *map(str, counts))


def table(rows: list[tuple[str, ...]]) -> str:
    """In reStructuredText, as docs/conformance.rst shows it."""
    widths = [max(map(len, column)) for column in zip(COLUMNS, *rows)]
    rule = "  ".join("=" * width for width in widths)
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(cells, widths)).rstrip() for cells in (COLUMNS, *rows)]
    return "\n".join([rule, lines[0], rule, *lines[1:], rule])


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Other options are handed to the runner, --quick for example.",
        allow_abbrev=False,
    )
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES)
    parser.add_argument("--loops", nargs="+", choices=LOOPS, default=LOOPS)
    arguments, options = parser.parse_known_args()
    runner = find_runner()
    rows, lines, good = [], [], True
    for side in arguments.sides:
        for loop in arguments.loops:
            name = f"{side}, {loop}"
            print(f"--- {name}", flush=True)
            results, problems = run(runner, side, loop, options)
            rows.append(row(name, results))
            for line, as_expected in [*findings(results), *((problem, False) for problem in problems)]:
                lines.append(textwrap.fill(f"{name}: {line}", 120, subsequent_indent="    ", break_on_hyphens=False))
                good = good and as_expected
    print("", table(rows), *lines, sep="\n")
    print(f"The reports are in {REPORTS}.")
    return 0 if good else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except NotRunError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
