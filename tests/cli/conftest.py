"""Commands that do not outlive their test."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.programs import LIMIT, ROOT, Open, Program, Run, Start, Terminal, command, environment


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    with contextlib.ExitStack() as running:

        def start_program(*arguments: object, **options: Any) -> Program:
            program = Program(tmp_path, *arguments, **options)
            running.callback(program.finish)
            return program

        yield start_program


@pytest.fixture
def open_terminal(tmp_path: Path) -> Iterator[Open]:
    with contextlib.ExitStack() as running:

        def start_terminal(*arguments: object, **variables: str) -> Terminal:
            terminal = Terminal(tmp_path, *arguments, **variables)
            running.callback(terminal.kill)
            return terminal

        yield start_terminal


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a command to its end, with `input` on its standard input."""

    def run_command(*arguments: object, input: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(*arguments),
            cwd=ROOT,
            env=environment(tmp_path, **variables),
            input=input,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )

    return run_command


@pytest.fixture
def echo(start: Start) -> Iterator[str]:
    """The URL of an echo server, which has to end well."""
    server = start("echo", "--port", 0)
    yield server.url()
    assert server.stop() == (0, "")
