"""A plugin of pytest: collects once, then tries each break in a process of its own, by the tests of a plan."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

SEEN, NOT_SEEN, NO_TEST = "seen", "NOT SEEN", "NO TEST"
# A test that has hung for so long will hang; the limit of each test is shorter.
TIME_LIMIT = 300.0  # seconds
SLOW = 0.5  # seconds


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool:
    plan = json.loads(Path(os.environ["MUTATION_PLAN"]).read_text(encoding="utf-8"))
    items = {item.nodeid: item for item in session.items}
    seconds: dict[str, float] = {}
    for entry in plan["breaks"]:
        entry["tests"] = [name for test in entry["tests"] for name in expanded(test, items)]
    wanted = dict.fromkeys(name for entry in plan["breaks"] for name in entry["tests"] if name in items)
    gc.freeze()  # what is never collected is shared with the processes that are forked
    with Path(plan["verdicts"]).open("a", encoding="utf-8") as verdicts:
        if plan["unbroken"]:
            run_unbroken([items[name] for name in wanted], seconds)
        for entry in plan["breaks"]:
            tests = within(plan["seconds"], [name for name in entry["tests"] if name in seconds or not plan["unbroken"]], seconds)
            outcome, by = try_break(entry["number"], [items[name] for name in tests if name in items])
            told = {"key": entry["key"], "outcome": outcome, "by": by, "tests": len(tests)}
            verdicts.write(json.dumps(told) + "\n")
            verdicts.flush()
    return True


def expanded(name: str, items: dict[str, pytest.Item]) -> list[str]:
    """A test, or those of a file or folder."""
    return [name] if "::" in name else [test for test in items if test.startswith(name)]


def within(budget: float, tests: list[str], seconds: dict[str, float]) -> list[str]:
    """As many as fit; what takes long comes last."""
    chosen = []
    for name in sorted(tests, key=lambda test: seconds.get(test, 0.0) > SLOW):
        chosen.append(name)
        budget -= seconds.get(name, 0.05)
        if budget < 0:
            break
    return chosen


def run_unbroken(items: list[pytest.Item], seconds: dict[str, float]) -> None:
    """How long each test takes; one that fails now would see every break."""
    while items:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            silence()
            for item in items:
                began = time.monotonic()
                failed = item.session.testsfailed
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
                taken = time.monotonic() - began
                os.write(writer, f"{item.nodeid}\0{-1 if item.session.testsfailed > failed else taken}\n".encode())
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader, encoding="utf-8") as told:
            done = [line.rstrip("\n").split("\0") for line in told]
        os.waitpid(child, 0)
        for name, taken in done:
            if float(taken) >= 0:
                seconds[name] = float(taken)
            else:
                print(f"fails unbroken, and is not asked: {name}", file=sys.__stderr__, flush=True)
        items = items[len(done) + 1 :]  # but for the one that ended the process


def try_break(number: int, items: list[pytest.Item]) -> tuple[str, str]:
    if not items:
        return NO_TEST, ""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        os.close(reader)
        silence()
        choose_break(number)
        for item, following in zip(items, [*items[1:], None]):
            os.write(writer, f"{item.nodeid}\n".encode())
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if item.session.testsfailed:
                os._exit(1)
        os._exit(0)
    os.close(writer)
    ended = wait_for(child)
    with os.fdopen(reader, encoding="utf-8", errors="replace") as told:
        last = told.read().splitlines()[-1:]
    if ended == 0:
        return NOT_SEEN, ""
    how = "" if ended == 1 else " (no end)" if ended is None else f" (ended by {ended})"
    return SEEN, f"{last[0] if last else ''}{how}"


def choose_break(number: int) -> None:
    os.environ["PICOWS_BREAK"] = str(number)
    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").startswith(("picows", "tests.")) and hasattr(module, "choose_break"):
            module.choose_break(number)


def silence() -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)


def wait_for(child: int) -> int | None:
    """How the process ended, and all that it started with it; None for one that would not end."""
    until = time.monotonic() + TIME_LIMIT
    status = None
    while status is None and time.monotonic() < until:
        done, told = os.waitpid(child, os.WNOHANG)
        if done:
            status = os.waitstatus_to_exitcode(told)
        else:
            time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)
    if status is None:
        os.waitpid(child, 0)
    return status
