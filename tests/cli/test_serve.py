"""Servers from the command line: one process and several, and how they are replaced and end."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect
from tests.cli.programs import LIMIT, ROOT, Run, Start, environment

CERTIFICATE = Path(__file__).parents[2] / "examples" / "localhost.pem"

SERVER = """
import os
from picows import WSListener, WSMsgType

VERSION = "first"

class Greeter(WSListener):
    def on_ws_connected(self, transport):
        transport.send(WSMsgType.TEXT, f"{VERSION} {os.getpid()}")

    def on_ws_frame(self, transport, frame):
        if frame.get_payload_as_bytes() == b"die":
            os._exit(3)

def accept(request):
    return Greeter()
"""

APPLICATION = """
import os
from picows.web import ASyncApp, Route, WebSocket
from picows.web.exceptions import WebSocketDisconnect

async def greet(ws: WebSocket):
    await ws.connect()
    await ws.send(f"application {os.getpid()}")
    try:
        await ws.receive()
    except WebSocketDisconnect as error:
        print("the client has gone:", error.code)

async def page():
    return "a page"

app = ASyncApp([Route("/greet", greet), Route("/", "GET", page)])
"""


ENDLESS = """
import asyncio
from picows.web import ASyncApp, Route, WebSocket

async def stay(ws: WebSocket):
    await ws.connect()
    try:
        await asyncio.sleep(1000)
    except asyncio.CancelledError:
        print("cancelled")
        raise

app = ASyncApp([Route("/", stay)])
"""


class Client(WSListener):
    """Keeps the greeting."""

    def __init__(self) -> None:
        self.greeting = ""

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.TEXT:
            self.greeting = frame.get_payload_as_utf8_text()


async def greeted(url: str, **options: Any) -> tuple[WSTransport, str, int]:
    """A connection, and what the server says to be: its version and process."""
    transport, client = await ws_connect(Client, url, **options)
    await transport.measure_roundtrip_time(1)  # the greeting was before the pong
    version, process = client.greeting.split()
    return transport, version, int(process)


def process_of(url: str, version: str = "first") -> int:
    async def ask() -> int:
        transport, told, process = await greeted(url)
        transport.disconnect()
        await transport.wait_disconnected()
        assert told == version
        return process

    return asyncio.run(ask())


def processes_of(url: str, count: int) -> set[int]:
    """The processes that answer, as soon as there are `count` of them."""
    seen: set[int] = set()
    for _ in range(500):
        seen.add(process_of(url))
        if len(seen) == count:
            return seen
    pytest.fail(f"{count} processes expected, only {seen} answer")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "greeting.py").write_text(SERVER)
    return tmp_path


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_server_takes_leave_of_its_clients(start: Start, folder: Path, number: int, workers: int) -> None:
    server = start("serve", "greeting:accept", "--port", 0, "--workers", workers, directory=folder)
    url = server.url()

    async def main() -> int | None:
        transport, _, _ = await greeted(url)
        server.signal(number)
        await transport.wait_disconnected()
        return transport.close_code

    assert asyncio.run(main()) == 1001
    code, printed = server.end()
    assert (code, printed) == (0, "")


def test_an_application_is_served_with_its_pages(start: Start, tmp_path: Path) -> None:
    (tmp_path / "application.py").write_text(APPLICATION)
    server = start("serve", "application:app", "--port", 0, directory=tmp_path)
    url = server.url()

    async def main() -> int | None:
        transport, version, _ = await greeted(f"{url}greet")
        assert version == "application"
        server.signal(signal.SIGTERM)
        await transport.wait_disconnected()
        return transport.close_code

    with urllib.request.urlopen(url.replace("ws:", "http:")) as page:
        assert page.read() == b"a page"
    assert asyncio.run(main()) == 1001
    assert server.end() == (0, "the client has gone: 1001\n")


def test_a_server_speaks_tls(start: Start, folder: Path) -> None:
    server = start("serve", "greeting:accept", "--port", 0, "--tls-cert", CERTIFICATE, directory=folder)
    url = server.url()
    assert url.startswith("wss://127.0.0.1:")
    context = ssl.create_default_context(cafile=str(CERTIFICATE))

    async def main() -> str:
        transport, version, _ = await greeted(url.replace("127.0.0.1", "localhost"), ssl_context=context)
        transport.disconnect()
        await transport.wait_disconnected()
        return version

    assert asyncio.run(main()) == "first"


def test_a_handler_that_does_not_end_is_cancelled(start: Start, tmp_path: Path) -> None:
    (tmp_path / "application.py").write_text(ENDLESS)
    server = start("serve", "application:app", "--port", 0, "--shutdown-timeout", 0.05, directory=tmp_path)
    url = server.url()

    async def main() -> None:
        transport, _ = await ws_connect(Client, url)
        await transport.measure_roundtrip_time(1)
        server.signal(signal.SIGTERM)
        await transport.wait_disconnected()

    asyncio.run(main())
    assert server.end() == (0, "cancelled\n")


def test_every_address_of_both_families(start: Start, folder: Path) -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    server = start("serve", "greeting:accept", "--host", "", "--port", 0, directory=folder)
    url = server.url()
    assert re.fullmatch(r"ws://\[::\]:\d+/", url)
    assert process_of(url.replace("[::]", "[::1]")) == process_of(url.replace("[::]", "127.0.0.1")) == server.process.pid


def test_one_address_of_ipv6(start: Start, folder: Path) -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    server = start("serve", "greeting:accept", "--host", "::1", "--port", 0, directory=folder)
    url = server.url()
    assert re.fullmatch(r"ws://\[::1\]:\d+/", url)
    assert process_of(url) == server.process.pid


def test_the_installed_script_finds_modules_of_the_working_folder(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Python looks for modules where a script lies, which is not where its user is."""
    script = tmp_path_factory.mktemp("bin") / "picows"
    script.write_text("import sys\nfrom picows.cli import main\nsys.exit(main())\n")
    (folder / "greeting.py").write_text("accept = 7")
    line = [sys.executable, str(script), "serve", "greeting:accept", "--port", "0"]
    ended = subprocess.run(line, cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=LIMIT, check=False)
    assert ended.stderr == "picows: greeting:accept is neither a listener factory nor an application: 7\n"


def test_a_target_that_cannot_be_imported_tells_where(run: Run, folder: Path) -> None:
    (folder / "greeting.py").write_text("import nonexistent_module")
    ended = run("serve", "greeting:accept", "--port", 0, PYTHONPATH=f"{folder}:{ROOT}")
    assert ended.returncode == 1
    assert 'greeting.py", line 1, in <module>' in ended.stderr
    assert "No module named 'nonexistent_module'" in ended.stderr


def test_workers_share_the_port_and_leave_nobody_behind(start: Start, folder: Path) -> None:
    server = start("serve", "greeting:accept", "--port", 0, "--workers", 2, directory=folder)
    processes = processes_of(server.url(), 2)
    assert server.process.pid not in processes
    assert server.stop() == (0, "")
    for process in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


def test_a_dead_worker_is_replaced(start: Start, folder: Path) -> None:
    server = start("serve", "greeting:accept", "--port", 0, "--workers", 2, directory=folder)
    url = server.url()

    async def kill_one() -> int:
        transport, _, process = await greeted(url)
        transport.send(WSMsgType.TEXT, "die")
        await transport.wait_disconnected()
        return process

    dead = asyncio.run(kill_one())
    server.wait_for("a worker has died, starting another")
    assert dead not in processes_of(url, 2)


def test_a_worker_that_dies_at_once_is_not_replaced_at_once(start: Start, folder: Path) -> None:
    server = start("serve", "greeting:accept", "--port", 0, "--workers", 2, directory=folder)
    url = server.url()
    processes_of(url, 2)  # both have read the module

    async def kill_one() -> None:
        transport, _, _ = await greeted(url)
        (folder / "greeting.py").write_text("raise SystemExit(7)")
        transport.send(WSMsgType.TEXT, "die")
        await transport.wait_disconnected()

    asyncio.run(kill_one())
    server.wait_for("a worker has died, starting another")
    began = time.monotonic()
    server.wait_for("a worker has died, starting another")
    assert time.monotonic() - began > 0.9
    (folder / "greeting.py").write_text(SERVER.replace('"first"', '"second"'))
    server.signal(signal.SIGHUP)
    server.wait_for("all workers are new")
    assert process_of(url, "second")


def test_sighup_replaces_all_workers_one_by_one(start: Start, folder: Path) -> None:
    server = start("serve", "greeting:accept", "--port", 0, "--workers", 2, directory=folder)
    url = server.url()
    before = processes_of(url, 2)

    async def main() -> int | None:
        transport, _, _ = await greeted(url)
        (folder / "greeting.py").write_text(SERVER.replace('"first"', '"second"'))
        server.signal(signal.SIGHUP)
        await transport.wait_disconnected()
        return transport.close_code

    assert asyncio.run(main()) == 1012
    server.wait_for("all workers are new")
    assert process_of(url, "second") not in before


def test_a_new_worker_that_cannot_start_stops_the_replacement(start: Start, folder: Path) -> None:
    server = start("serve", "greeting:accept", "--port", 0, "--workers", 2, directory=folder)
    url = server.url()
    before = processes_of(url, 2)
    (folder / "greeting.py").write_text("raise SystemExit(7)")
    server.signal(signal.SIGHUP)
    server.wait_for("the new worker could not start, the old ones go on")
    assert process_of(url) in before


def test_changed_code_is_loaded_anew(start: Start, folder: Path) -> None:
    server = start("serve", "greeting:accept", "--port", 0, "--reload", directory=folder)
    url = server.url()
    assert process_of(url)
    (folder / "greeting.py").write_text(SERVER.replace('"first"', '"second"'))
    server.wait_for("greeting.py has changed")
    server.wait_for("all workers are new")
    assert process_of(url, "second")


def test_reloading_survives_a_mistake(start: Start, folder: Path) -> None:
    (folder / "greeting.py").write_text("oh no")
    server = start("serve", "greeting:accept", "--port", 0, "--reload", directory=folder)
    url = server.url()
    server.wait_for("SyntaxError")
    server.wait_for("waiting for a change")
    (folder / "greeting.py").write_text(SERVER)
    server.wait_for("all workers are new")
    assert process_of(url)


def test_workers_that_cannot_start_end_the_server(run: Run, folder: Path) -> None:
    ended = run("serve", "nonexistent_module:accept", "--port", 0, "--workers", 2)
    assert ended.returncode == 1
    assert ended.stderr.count("there is no module 'nonexistent_module'") == 2
    assert ended.stderr.splitlines()[-1] == "picows: a worker could not start"
