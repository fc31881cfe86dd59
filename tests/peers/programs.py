"""Programs of others, where they are installed, and what their tests have in common."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from picows import WSFrame, WSMsgType, WSTransport
from tests.connection.networks import Recorder

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "docs" / "recipes"

PATH = os.environ.get("PATH", os.defpath) + os.pathsep + "/usr/local/sbin:/usr/sbin"


def program(name: str) -> str:
    found = shutil.which(name, path=PATH)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


@contextlib.asynccontextmanager
async def running(log: Path, *command: str, **environment: str) -> AsyncIterator[subprocess.Popen[bytes]]:
    """A program that is killed at the end. What it wrote is shown when the test fails."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, **environment})
        with process:
            try:
                yield process
            except BaseException:
                print(log.read_text())
                raise
            finally:
                process.kill()


async def listening(process: subprocess.Popen[bytes], port: int) -> None:
    """Until the program takes connections."""
    while True:
        assert process.poll() is None, "it has ended"
        with contextlib.suppress(ConnectionRefusedError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            await writer.wait_closed()
            return
        await asyncio.sleep(0.01)


class EchoMessages(Recorder):
    """For assembled messages."""

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        super().on_ws_frame(transport, frame)
        if frame.msg_type in (WSMsgType.TEXT, WSMsgType.BINARY):
            transport.send(frame.msg_type, frame)

# One process that leaves nothing outside of its directory.
NGINX = """\
daemon off;
master_process off;
pid {directory}/pid;
error_log stderr;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    {site}
}}
"""
