"""Runs pytest again and again, each time in a fork of a process that has imported all but what is tested.

A line of JSON in, the arguments and the seconds it may take, and one out, how it ended and what it printed.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import tempfile
import time

# What takes long to import and knows nothing of the package.
import aiofastnet  # noqa: F401
import httptools  # noqa: F401
import hypothesis  # noqa: F401
import multidict  # noqa: F401
import pytest
import python_socks.async_.asyncio  # noqa: F401

with contextlib.suppress(ImportError):
    import uvloop  # noqa: F401


def main() -> None:
    sys.path.pop(0)  # of this program
    assert "picows" not in sys.modules
    for line in sys.stdin:
        code, output = run(**json.loads(line))
        print(json.dumps({"code": code, "output": output}), flush=True)


def run(args: list[str], seconds: float) -> tuple[int | None, str]:
    """The exit status, None if it did not end in time. What the tests have started ends with them."""
    with tempfile.TemporaryFile() as output:
        pid = os.fork()
        if pid == 0:
            _run_here(args, output.fileno())
        code = _ended(pid, seconds)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        if code is None:
            os.waitpid(pid, 0)
        output.seek(0)
        return code, output.read().decode(errors="replace")


def _run_here(args: list[str], output: int) -> None:
    code = 100
    try:
        os.setsid()
        for descriptor, other in ((0, os.open(os.devnull, os.O_RDONLY)), (1, output), (2, output)):
            os.dup2(other, descriptor)
        code = int(pytest.main(args))
        sys.stdout.flush()
    finally:
        os._exit(code)


def _ended(pid: int, seconds: float) -> int | None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    return None


if __name__ == "__main__":
    main()
