"""Runs the examples as their reader would, `python -m examples.NAME`, and reads what they print."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Callable

import pytest

ROOT = Path(__file__).parents[2]


class Program:
    """One example, running. A warning counts as a failure, and so does a traceback."""

    def __init__(self, name: str, *args: object, directory: Path = ROOT) -> None:
        self._printed: list[str] = []
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", f"examples.{name}", *map(str, args)],
            cwd=directory,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def wait_for(self, text: str) -> str:
        """The next line with that text in it."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._printed.append(line)
            if text in line:
                return line.rstrip("\n")
        pytest.fail(f"ended with no {text!r}:\n{''.join(self._printed)}")

    def url(self) -> str:
        """Where the server listens, once it does."""
        return self.wait_for("Listening on ").split()[-1]

    def finish(self, exit_code: int = 0) -> list[str]:
        """Wait for the end; all the lines it printed."""
        ended_with = self.end()
        printed = "".join(self._printed)
        assert ended_with == exit_code, printed
        assert "Traceback" not in printed, printed
        assert "Exception ignored" not in printed, printed
        return printed.splitlines()

    def end(self) -> int:
        """Wait for the end, whatever it prints; the exit code."""
        assert self._process.stdout is not None
        self._printed += self._process.stdout
        return self._process.wait()

    def interrupt(self) -> None:
        """Press Ctrl+C."""
        self._process.send_signal(signal.SIGINT)

    def terminate(self) -> None:
        """End it as service managers do."""
        self._process.terminate()

    def hang_up(self) -> None:
        """Ask it to restart what it is made of."""
        self._process.send_signal(signal.SIGHUP)

    def kill(self) -> None:
        """End it without a chance to say goodbye."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


Start = Callable[..., Program]
