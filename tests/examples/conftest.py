from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.examples.program import ROOT, Program, Start


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    # A shell's background job ignores SIGINT, and so would every example that the tests start.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts an example; it does not outlive the test."""
    with contextlib.ExitStack() as running:

        def start_program(name: str, *args: object, directory: Path = ROOT) -> Program:
            program = Program(name, *args, directory=directory)
            running.callback(program.kill)
            return program

        yield start_program


@pytest.fixture(scope="session")
def echo_url() -> Iterator[str]:
    """The URL of one echo server for all the tests."""
    server = Program("echo_server", "--port", 0)
    yield server.url()
    server.kill()
