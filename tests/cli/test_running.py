"""What every command does alike: its event loop, limits on time, and an output that nobody reads."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from picows import WSFrame, WSListener, WSMsgType, WSTransport
from picows.cli import main
from tests.cli.programs import LIMIT, ROOT, command, environment
from tests.cli.servers import serving

Captured = pytest.CaptureFixture[str]


class Echo(WSListener):
    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.TEXT:
            transport.send(WSMsgType.TEXT, frame)


@pytest.mark.parametrize("installed", [True, False])
@pytest.mark.parametrize("name", ["auto", "asyncio", "uvloop"])
def test_the_loop_is_chosen(capsys: Captured, monkeypatch: pytest.MonkeyPatch, name: str, installed: bool) -> None:
    if installed:
        uvloop = pytest.importorskip("uvloop")
    else:
        monkeypatch.setitem(sys.modules, "uvloop", None)
    loops: list[Any] = []
    monkeypatch.setattr(asyncio, "set_event_loop", loops.append)
    with serving(lambda request: Echo()) as url:
        code = main(["ping", url, "-c", "1", "--loop", name])
    printed = capsys.readouterr()
    if name == "uvloop" and not installed:
        assert (code, printed.out) == (1, "")
        assert printed.err == "picows: --loop uvloop: uvloop is not installed\n"
    else:
        assert (code, printed.err) == (0, "")
        by_uvloop = installed and name != "asyncio"
        assert isinstance(loops[0], uvloop.Loop if by_uvloop else asyncio.SelectorEventLoop)


def test_a_server_that_says_nothing_is_given_up(capsys: Captured) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert main(["ping", f"ws://127.0.0.1:{silent.getsockname()[1]}/", "--timeout", "0.05"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("picows: ")
    assert "within 0.05 s" in printed.err


def test_a_reader_that_has_gone_ends_it_in_silence(echo: str, tmp_path: Path) -> None:
    """As `picows connect ... | head -1` does."""
    pipe = subprocess.PIPE
    buffered = environment(tmp_path, PYTHONUNBUFFERED="")
    with subprocess.Popen(command("connect", echo), env=buffered, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe) as program:
        assert program.stdin
        assert program.stdout
        assert program.stderr
        program.stdin.write(b"one\n")
        program.stdin.flush()
        assert program.stdout.readline() == b"one\n"
        program.stdout.close()
        program.stdin.write(b"two\n")
        program.stdin.flush()
        assert program.wait(LIMIT) == 1
        ours = (b"picows", b"Exception ignored in: <_io")  # coverage may say something of its own
        assert [line for line in program.stderr.read().splitlines() if line.startswith(ours)] == []
