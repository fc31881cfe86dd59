"""Every program of the tutorial, run as its reader would run it: as a file, in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest

from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport, ws_connect
from picows.websockets import connect

ROOT = Path(__file__).parents[2]
TUTORIAL = ROOT / "docs" / "tutorial"

Program = subprocess.Popen[str]
Start = Callable[..., Program]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a program of the tutorial; it does not outlive the test."""
    with contextlib.ExitStack() as running:

        def start_program(name: str, *args: object) -> Program:
            program = subprocess.Popen(
                [sys.executable, "-u", "-W", "error", str(TUTORIAL / name), *map(str, args)],
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            running.enter_context(program)
            running.callback(program.kill)
            return program

        # A shell's background job ignores Ctrl+C, and so would what it starts.
        previous = signal.signal(signal.SIGINT, signal.default_int_handler)
        running.callback(signal.signal, signal.SIGINT, previous)
        yield start_program


def wait_for(program: Program, pattern: str) -> str:
    """The next line that matches."""
    assert program.stdout is not None
    seen = []
    for line in program.stdout:
        seen.append(line)
        if re.fullmatch(pattern, line.rstrip("\n")):
            return line.rstrip("\n")
    pytest.fail(f"ended with no {pattern!r}:\n{''.join(seen)}")


def rest_of(program: Program) -> list[str]:
    """What it prints until it ends, which it has to do well."""
    printed, _ = program.communicate()
    assert program.returncode == 0, printed
    return printed.splitlines()


def url_of(server: Program) -> str:
    return wait_for(server, "Listening on .*").split()[-1]


def port_of(url: str) -> str:
    return re.findall(r":(\d+)/", url)[0]


def test_every_program_is_run_here() -> None:
    programs = {path.name for path in TUTORIAL.iterdir() if path.suffix == ".py"}
    assert programs == set(re.findall(r'start\("(\w+\.py)"', Path(__file__).read_text(encoding="utf-8")))


def test_the_chat_is_heard_by_all(start: Start) -> None:
    server = start("chat_server.py", 0)
    url = url_of(server)
    first, second = asyncio.run(two_in_the_room(server, url))
    assert first == second == "Ada: hello"
    assert wait_for(server, ".* in the room") == "1 in the room"
    assert wait_for(server, ".* in the room") == "0 in the room"
    assert rest_of(start("chat_client.py", "Ada", url)) == ["Ada: hello"]
    server.send_signal(signal.SIGINT)
    assert rest_of(server)[-1] == "Stopped"


async def two_in_the_room(server: Program, url: str) -> list[str | bytes]:
    async with connect(url) as first, connect(url) as second:
        for count in (1, 2):
            assert wait_for(server, ".* in the room") == f"{count} in the room"
        await first.send("Ada: hello")
        return [await first.recv(), await second.recv()]


def test_the_echo_client_talks_to_the_echo_server(start: Start) -> None:
    server = start("echo_server.py", 0)
    client = start("echo_client.py", url_of(server))
    reply, handshake = rest_of(client)
    assert reply == "Reply: Hello world"
    assert handshake.count("WSCloseInfo(code=<WSCloseCode.OK: 1000>, reason='thank you')") == 2
    assert wait_for(server, "A client has .*") == "A client has come"
    assert wait_for(server, "A client has .*") == "A client has left"
    server.send_signal(signal.SIGINT)
    assert rest_of(server) == ["Stopped"]


def test_quotes_come_to_who_subscribed(start: Start) -> None:
    server = start("quotes_server.py", 0)
    client = start("quotes_client.py", url_of(server))
    printed = rest_of(client)
    assert len(printed) == 3
    assert all(re.fullmatch(r"PICO costs \d+\.\d+", line) for line in printed)
    assert wait_for(server, r"\d subscribed") == "1 subscribed"
    assert wait_for(server, r"\d subscribed") == "0 subscribed"


@pytest.mark.parametrize("message", ['{"op": "buy"}', "{}", "[]", "7", "{"])
def test_the_quotes_server_closes_on_what_it_does_not_know(start: Start, message: str) -> None:
    url = url_of(start("quotes_server.py", 0))
    assert asyncio.run(ask(url, message)) == (WSCloseCode.POLICY_VIOLATION, 'expected {"op": "subscribe"}')


async def ask(url: str, message: str) -> tuple[int, str | None]:
    """The code and the reason of the CLOSE that answers a message."""
    transport, _ = await ws_connect(Closing, url)
    transport.send(WSMsgType.TEXT, message)
    await transport.wait_disconnected()
    assert transport.close_handshake is not None
    assert transport.close_handshake.recv is not None
    return transport.close_handshake.recv.code, transport.close_handshake.recv.reason


class Closing(WSListener):
    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            transport.disconnect()


def test_a_server_is_checked(start: Start) -> None:
    server = start("quotes_server.py", 0)
    url = url_of(server)
    assert re.fullmatch(r"It works, a round trip takes \d+\.\d+ ms", rest_of(start("check_server.py", url))[0])

    wrong_path = url.replace("/quotes", "/nothing")
    assert "404 Not Found" in rest_of(start("check_server.py", wrong_path))[0]

    server.kill()
    server.wait()
    assert rest_of(start("check_server.py", url))[0].startswith("No connection: ")


def test_a_client_reconnects(start: Start) -> None:
    server = start("quotes_server.py", 0)
    url = url_of(server)
    client = start("reconnecting_client.py", url)
    wait_for(client, "PICO costs .*")

    server.kill()
    server.wait()
    wait_for(client, ".*the connection has ended.*")
    wait_for(client, ".*no connection: ConnectionRefusedError.*")

    server = start("quotes_server.py", port_of(url))
    wait_for(client, "Connected")
    wait_for(client, "PICO costs .*")

    client.send_signal(signal.SIGINT)
    assert rest_of(client)[-1] == "Stopped"
    assert wait_for(server, "0 subscribed")
