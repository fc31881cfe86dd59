"""uvicorn as a program of its own."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


class Server:
    """A running ``uvicorn``, and what it prints."""

    def __init__(self, *arguments: object) -> None:
        command = [sys.executable, "-m", "uvicorn", *map(str, arguments), "--ws", "picows.uvicorn:PicowsProtocol"]
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.printed: list[str] = []

    def wait_for(self, pattern: str) -> str:
        """The first group of the next line that matches."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.printed.append(line)
            if match := re.search(pattern, line):
                return match[1] if match.groups() else ""
        pytest.fail(f"ended with no {pattern!r}:\n{''.join(self.printed)}")

    def url(self) -> str:
        return "ws" + self.wait_for(r"running on http(s?://[^ ]+)") + "/"

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def finish(self) -> str:
        assert self.process.stdout is not None
        if not self.process.stdout.closed:
            with self.process.stdout:
                self.printed += self.process.stdout
        self.process.wait()
        return "".join(self.printed)


@contextlib.contextmanager
def running(*arguments: object) -> Iterator[Server]:
    server = Server(*arguments)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.process.terminate()
        server.finish()
