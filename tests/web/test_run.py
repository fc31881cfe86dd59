"""app.run and app.serve: where an application listens, and how it stops."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import websockets

from picows.web import ASyncApp, Route, WebSocket, WebSocketDisconnect
from tests.connection.peers import CLOSE, REQUEST, TEXT, encode
from tests.web.places import Place, closed, over_own_networks

ROOT = Path(__file__).parents[2]


class Running:
    """The program, listening."""

    def __init__(self, args: tuple[str, ...]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-W", "error", "-m", "tests.web.runner", *args],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self.process.stdout is not None
        self.printed = self.process.stdout
        told = re.fullmatch(r"Listening on http://127\.0\.0\.1:(\d+)/\n", self.printed.readline())
        assert told
        self.port = int(told[1])

    def connect(self, path: str = "/") -> Any:
        return websockets.connect(f"ws://127.0.0.1:{self.port}{path}", proxy=None)

    def rest(self) -> str:
        """What it prints to its end, which is a good one."""
        printed = self.printed.read()
        assert self.process.wait() == 0, printed
        return printed


@contextlib.contextmanager
def running_program(*args: str) -> Iterator[Running]:
    running = Running(args)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.wait()
        running.printed.close()


LOOPS = [
    "asyncio",
    pytest.param("uvloop", marks=pytest.mark.skipif(importlib.util.find_spec("uvloop") is None, reason="no uvloop")),
]


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_it_stops_in_peace(signum: int, loop: str) -> None:
    """Clients see CLOSE 1001, and so do the handlers, which may finish."""

    async def test(running: Running) -> None:
        async with running.connect() as client:
            assert str(await client.recv()).startswith(loop)
            running.process.send_signal(signum)
            assert await closed(client) == (1001, "")

    with running_program(loop) as running:
        asyncio.run(test(running))
        assert running.rest() == "the handler saw 1001\n"


def test_uvloop_is_used_if_it_is_installed() -> None:
    pytest.importorskip("uvloop")

    async def test(running: Running) -> None:
        async with running.connect() as client:
            assert str(await client.recv()).startswith("uvloop")
            running.process.send_signal(signal.SIGTERM)
            assert await closed(client) == (1001, "")

    with running_program("default") as running:
        asyncio.run(test(running))
        assert running.rest() == "the handler saw 1001\n"


def test_handlers_that_stay_are_cancelled() -> None:
    async def test(running: Running) -> None:
        async with running.connect("/stay") as client:
            await client.recv()
            running.process.send_signal(signal.SIGTERM)
            assert await closed(client) == (1001, "")

    with running_program("asyncio", "impatient") as running:
        asyncio.run(test(running))
        assert running.rest() == "the handler was cancelled\n"


def test_a_second_signal_does_not_wait_for_the_clients() -> None:
    """One that goes on sending keeps the server for five seconds otherwise."""

    def go_on(client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client.sendall(encode(TEXT, b"more", mask=True))
                time.sleep(0.01)

    with running_program("asyncio") as running, socket.create_connection(("127.0.0.1", running.port)) as client:
        client.sendall(REQUEST)
        while not client.recv(65536).endswith(b"asyncio.unix_events"):
            pass
        running.process.send_signal(signal.SIGINT)
        assert client.recv(100)[0] & 15 == CLOSE
        sending = threading.Thread(target=go_on, args=[client])
        sending.start()
        begun = time.monotonic()
        running.process.send_signal(signal.SIGINT)
        assert running.rest() == "the handler saw 1001\n"
        assert time.monotonic() - begun < 4
        sending.join()


@over_own_networks
def test_a_cancelled_handler_tells_its_client(place: Place) -> None:
    """1001 when it was connected, and 503 before."""
    tasks: list[Any] = []

    async def wait(ws: WebSocket) -> None:
        tasks.append(asyncio.current_task())
        if ws.query_params:
            await ws.connect()
            await ws.send("connected")
        else:
            tasks[0].cancel()
        await asyncio.sleep(100)

    async def test() -> None:
        async with place.handler(wait) as served:
            assert (await served.rejected())[0] == 503
            async with served.connect("/?x=1") as client:
                assert await client.recv() == "connected"
                tasks[1].cancel()
                assert await closed(client) == (1001, "")

    place.run(test())


@over_own_networks
def test_options_go_to_the_server(place: Place) -> None:
    async def echo(ws: WebSocket) -> None:
        await ws.connect()
        with pytest.raises(WebSocketDisconnect) as caught:
            await ws.receive()
        codes.append(caught.value.code)

    codes: list[int] = []

    async def test() -> None:
        async with place.handler(echo, max_message_size=10) as served, served.connect() as client:
            await client.send("x" * 11)
            assert (await closed(client))[0] == 1009

    place.run(test())
    assert codes == [1009]


@pytest.mark.parametrize("option", ["assemble_messages", "enable_auto_close"])
def test_two_options_are_the_applications_own(option: str) -> None:
    with pytest.raises(TypeError, match=option):
        asyncio.run(ASyncApp([]).serve("127.0.0.1", 0, **{option: False}))


def test_a_unix_socket(place: Place, tmp_path: Path) -> None:
    async def look(ws: WebSocket) -> None:
        await ws.connect()
        await ws.send_json(ws.client)

    async def test() -> None:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(os.fspath(tmp_path / "socket"))
            server = await ASyncApp([Route("/", look)]).serve(None, None, sock=sock)
            async with websockets.unix_connect(os.fspath(tmp_path / "socket"), "ws://localhost/") as client:
                assert await client.recv() == "null"
            server.close()
            await server.wait_closed()

    place.run(test())


def test_a_loop_of_eager_tasks(place: Place) -> None:
    if sys.version_info < (3, 12):
        pytest.skip("tasks start eagerly from Python 3.12 on")

    async def hello(ws: WebSocket) -> None:
        await ws.connect()
        await ws.send("hello")

    async def test() -> None:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        async with place.handler(hello) as served, served.connect() as client:
            assert await client.recv() == "hello"

    place.run(test())


@pytest.mark.parametrize("loop", LOOPS)
def test_a_unix_socket_is_told(loop: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = os.fspath(tmp_path / "socket")

    async def stop() -> str:
        os.kill(os.getpid(), signal.SIGTERM)
        return "stopping"

    def ask() -> None:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(30)
            while client.connect_ex(path):
                time.sleep(0.001)
            client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answers.append(client.recv(65536))

    answers: list[bytes] = []
    client = threading.Thread(target=ask)
    client.start()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
        ASyncApp([Route("/", "GET", stop)]).run(None, None, use_uvloop=loop == "uvloop", sock=sock)
    client.join()
    assert answers[0].endswith(b"stopping")
    assert capsys.readouterr().out == f"Listening on unix socket {path!r}\n"
