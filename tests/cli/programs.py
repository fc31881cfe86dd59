"""The command line as its user has it: `python -m picows`, in a pipe or on a terminal of its own."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable

import pytest

ROOT = Path(__file__).parents[2]
LIMIT = 30.0  # seconds, until a test has failed

Environment = dict[str, str]


def environment(home: Path, **variables: str) -> Environment:
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "XDG_STATE_HOME")}
    ours = {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "HOME": str(home), "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"}
    return {**kept, **ours, **variables}


def command(*arguments: object, module: str = "picows") -> list[str]:
    return [sys.executable, "-W", "error", "-m", module, *map(str, arguments)]


class Program:
    """A command in the background whose output is read as it comes."""

    def __init__(self, home: Path, *arguments: object, directory: Path = ROOT, module: str = "picows") -> None:
        self._printed = ""
        self.process = subprocess.Popen(
            command(*arguments, module=module),
            cwd=directory,
            env=environment(home),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # or Ctrl+C of the one who runs the tests would reach it
        )

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Wait until it has printed something that matches."""
        assert self.process.stdout is not None
        while not (match := re.search(pattern, self._printed)):
            ready, _, _ = select.select([self.process.stdout], [], [], LIMIT)
            read = os.read(self.process.stdout.fileno(), 4096).decode() if ready else ""
            if not read:
                pytest.fail(f"no {pattern!r} in:\n{self._printed}")
            self._printed += read
        self._printed = self._printed[match.end() :]
        return match

    def url(self) -> str:
        return self.wait_for(r"Listening on (\S+).*\n")[1]

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self) -> tuple[int, str]:
        """The exit code, and what was left to be printed."""
        rest, _ = self.process.communicate(timeout=LIMIT)
        return self.process.returncode, self._printed + rest.decode()

    def stop(self) -> tuple[int, str]:
        self.signal(signal.SIGTERM)
        return self.end()

    def finish(self) -> None:
        """End it if it still runs: by a signal that it obeys, so that its workers end too and tell which lines they ran."""
        if self.process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.stop()
        self.kill()

    def kill(self) -> None:
        assert self.process.stdout is not None
        if not self.process.stdout.closed:
            # Its session: a worker that outlived it would keep the pipe open.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.communicate()


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, home: Path, *arguments: object, **variables: str) -> None:
        self.screen = ""
        self._status: int | None = None
        self._pid, self._fd = pty.fork()
        if self._pid == 0:
            line = command(*arguments)
            os.execve(line[0], line, environment(home, **variables))

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Wait until it has printed something that matches; what came before is forgotten."""
        while not (match := re.search(pattern, self.screen)):
            if not self._read():
                pytest.fail(f"no {pattern!r} in:\n{self.screen!r}")
        self.screen = self.screen[match.end() :]
        return match

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def type_until(self, text: str, pattern: str) -> None:
        """Type it again and again, until something matches: who reads may not be ready for it."""
        limit = time.monotonic() + LIMIT
        while not re.search(pattern, self.screen):
            assert time.monotonic() < limit, self.screen
            self.type(text)
            self._read(0.1)

    def end(self) -> tuple[int, str]:
        """The exit code, and the rest of the screen."""
        while self._read():
            pass
        self._status = os.waitpid(self._pid, 0)[1]
        return os.waitstatus_to_exitcode(self._status), self.screen

    def kill(self) -> None:
        if self._status is None:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
        os.close(self._fd)

    def _read(self, seconds: float = LIMIT) -> bool:
        ready, _, _ = select.select([self._fd], [], [], seconds)
        try:
            read = os.read(self._fd, 4096) if ready else b""
        except OSError:
            return False  # Linux says EIO when the other side has gone
        self.screen += read.decode("utf-8", "replace")
        return bool(read)


Start = Callable[..., Program]
Open = Callable[..., Terminal]
Run = Callable[..., "subprocess.CompletedProcess[str]"]  # to its end; `input` is its standard input
