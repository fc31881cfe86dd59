"""Help, versions, and arguments that are wrong."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Sequence

import pytest

import picows
from picows.cli import main

COMMANDS = ("connect", "ping", "bench", "echo", "serve")

Captured = pytest.CaptureFixture[str]


def ended_with(arguments: Sequence[object]) -> int:
    """The exit code of a command."""
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as end:
        return int(end.code or 0)


def test_help_names_every_command(capsys: Captured) -> None:
    assert ended_with(["--help"]) == 0
    helped = capsys.readouterr()
    assert helped.err == ""
    assert all(f"    {command} " in helped.out for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(capsys: Captured, command: str) -> None:
    assert ended_with([command, "--help"]) == 0
    helped = capsys.readouterr()
    assert helped.out.startswith(f"usage: picows {command}")
    assert helped.err == ""


def test_the_version_is_told(capsys: Captured) -> None:
    assert ended_with(["--version"]) == 0
    assert capsys.readouterr().out == f"picows {picows.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ((), "required: COMMAND"),
        (("conect", "ws://127.0.0.1/"), "invalid choice: 'conect'"),
        (("connect",), "required: URL"),
        (("connect", "ws://127.0.0.1/", "--header", "novalue"), "must be NAME:VALUE, got 'novalue'"),
        (("connect", "ws://127.0.0.1/", "-n", "0"), "must be at least 1, got 0"),
        (("ping", "ws://127.0.0.1/", "--timeout", "0"), "must be seconds, more than 0, got 0"),
        (("bench", "ws://127.0.0.1/", "--size", "-1"), "--size: must be at least 0, got -1"),
        (("bench", "ws://127.0.0.1/", "--time", "inf"), "must be seconds, at least 0, got inf"),
        (("echo", "--port", "65536"), "must be from 0 to 65535, got 65536"),
        (("echo", "--port", "http"), "invalid number value: 'http'"),
        (("serve", "module"), "must be MODULE:NAME, got 'module'"),
        (("serve", "module:name", "--shutdown-spread", "-1"), "must be seconds, at least 0, got -1"),
        (("echo", "--shutdown-timeout", "0"), "must be seconds, more than 0, got 0"),
    ],
)
def test_wrong_arguments_are_a_line_and_exit_code_2(
    capsys: Captured, arguments: tuple[str, ...], problem: str
) -> None:
    assert ended_with(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert problem in printed.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("connect", "http://127.0.0.1/"), "http"),
        (("ping", "ws://127.0.0.1:1/"), "refused|failed"),
        (("connect", "ws://127.0.0.1:1/", "--header", "a b:c"), "a b"),
        (("connect", "wss://127.0.0.1:1/", "--ca", "/nonexistent"), "No such file"),
        (("echo", "--port", 0, "--tls-key", "key.pem"), "--tls-key needs --tls-cert"),
        (("echo", "--port", 0, "--tls-cert", "/nonexistent"), "No such file"),
        (("serve", "--port", 0, "nonexistent_module:accept"), "there is no module 'nonexistent_module'"),
        (("serve", "--port", 0, "picows:nothing"), "'picows' has no 'nothing'"),
        (("serve", "--port", 0, "picows:__version__"), "is neither a listener factory nor an application"),
    ],
)
def test_what_cannot_be_done_is_a_line_and_exit_code_1(
    capsys: Captured, arguments: tuple[object, ...], problem: str
) -> None:
    assert ended_with(arguments) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith("picows: ")
    assert re.search(problem, printed.err)
    assert len(printed.err.splitlines()) == 1


def test_a_proxy_that_refuses_is_a_line_and_exit_code_1(capsys: Captured) -> None:
    def refuse() -> None:
        with listening.accept()[0] as client:
            client.recv(4096)
            client.sendall(b"HTTP/1.1 403 Forbidden\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        proxy = threading.Thread(target=refuse)
        proxy.start()
        port = listening.getsockname()[1]
        assert ended_with(["ping", "ws://127.0.0.1:1/", "--proxy", f"http://user:secret@127.0.0.1:{port}"]) == 1
        proxy.join()
    printed = capsys.readouterr()
    assert re.fullmatch(r"picows: .*403.*\n", printed.err)
    assert "secret" not in printed.err
