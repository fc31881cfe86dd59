"""`make test` by every interpreter, each in the environment that the Makefile makes for it; a table at the end."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from release.interpreters import FOUND, Interpreter, interpreters

RESULTS = Path("build", "test-all")


class Result(NamedTuple):
    interpreter: str
    passed: int
    failed: int
    skipped: int
    seconds: float
    problem: str  # why the figures are not those of a run from its beginning to its end; empty if they are

    @property
    def is_good(self) -> bool:
        return not self.failed and not self.problem and self.passed > 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--interpreters", default=FOUND, help="names and paths; 'found' stands for all that the machine has")
    parser.add_argument("--seconds", type=float, default=1800, help="how long the tests of one may take")
    parser.add_argument("--pytest-args", default="")
    options = parser.parse_args()
    results = []
    try:
        for interpreter in interpreters(options.interpreters):
            print(f"{interpreter}: {interpreter.path}", flush=True)
            results.append(test(interpreter, options.pytest_args, options.seconds))
            print(line(results[-1]), flush=True)
    finally:
        print_table(results)
    return 0 if results and all(result.is_good for result in results) else 1


def test(interpreter: Interpreter, pytest_args: str, seconds: float) -> Result:
    RESULTS.mkdir(parents=True, exist_ok=True)
    report, log = (RESULTS / f"{interpreter.version}.{kind}" for kind in ("xml", "log"))
    report.unlink(missing_ok=True)
    # What was said to this make is not said to that one.
    environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    arguments = [f"PYTHON={interpreter.path}", f"PYTEST_ARGS={pytest_args} --junitxml={report}"]
    began = time.monotonic()
    with log.open("w") as output:
        status = run(["make", "test", *arguments], output, environment, seconds)
    took = time.monotonic() - began
    if status is None:
        problem = f"not done in {seconds:g} seconds, see {log}"
    elif not report.exists():
        problem = f"no tests were run, see {log}"
    else:
        problem = "" if status == 0 else f"see {log}"
    return Result(str(interpreter), *counts(report), took, problem)


def run(command: list[str], output: object, environment: dict[str, str], seconds: float) -> int | None:
    """The exit status; None when the time was over."""
    process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True)  # type: ignore[call-overload]
    try:
        return int(process.wait(seconds))
    except subprocess.TimeoutExpired:
        return None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def counts(report: Path) -> tuple[int, int, int]:
    """Passed, failed and skipped by a report of pytest."""
    if not report.exists():
        return 0, 0, 0
    suites = list(ElementTree.parse(report).getroot().iter("testsuite"))
    tests, skipped = (sum(int(suite.get(name, 0)) for suite in suites) for name in ("tests", "skipped"))
    failed = sum(int(suite.get(name, 0)) for suite in suites for name in ("failures", "errors"))
    return tests - failed - skipped, failed, skipped


def line(result: Result) -> str:
    figures = f"{result.passed:7} {result.failed:7} {result.skipped:8} {result.seconds:8.0f}"
    return f"{result.interpreter:12} {figures}  {result.problem}".rstrip()


def print_table(results: list[Result]) -> None:
    print(f"\n{'interpreter':12} {'passed':>7} {'failed':>7} {'skipped':>8} {'seconds':>8}")
    for result in results:
        print(line(result))


if __name__ == "__main__":
    sys.exit(main())
