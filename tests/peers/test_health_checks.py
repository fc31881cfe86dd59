"""Health checks by HAProxy and nginx themselves, where they are installed."""

from __future__ import annotations

import asyncio
import contextlib
import csv
from pathlib import Path
from typing import Any

from picows import WSUpgradeRequest, WSUpgradeResponse, WSUpgradeResponseWithListener
from tests.connection.networks import Echo, Network
from tests.peers.programs import NGINX, program, running


def factory(request: WSUpgradeRequest) -> Any:
    if request.target_path == "/health":
        return WSUpgradeResponseWithListener(WSUpgradeResponse.create_ok_response(b"fine"), None)
    return Echo() if request.target_path == "/" else None


async def exchange(path: Path, data: bytes) -> bytes:
    """All that comes back through a Unix socket, which may not be there yet."""
    while True:
        with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
            reader, writer = await asyncio.open_unix_connection(str(path))
            break
        await asyncio.sleep(0.01)
    writer.write(data)
    answer = await reader.read()
    writer.close()
    return answer


HAPROXY = """\
global
    stats socket {directory}/stats.sock level admin
defaults
    mode http
    timeout connect 5s
    timeout client 5s
    timeout server 5s
    timeout check 5s
"""
# The checks, and what HAProxy is to think of them.
CHECKS = {
    "bare": ("option httpchk", "L7OK"),
    "get": ("option httpchk GET /health", "L7OK"),
    "head": ("option httpchk HEAD /health", "L7OK"),
    "get_1_1": ("option httpchk\n    http-check send meth GET uri /health ver HTTP/1.1 hdr Host a", "L7OK"),
    "options_1_1": ("option httpchk\n    http-check send meth OPTIONS uri / ver HTTP/1.1 hdr Host a", "L7OK"),
    "missing": ("option httpchk GET /missing", "L7STS"),
}


def test_haproxy(net: Network, tmp_path: Path) -> None:
    async def test() -> None:
        async with net.serve(factory) as url:
            config = HAPROXY.format(directory=tmp_path)
            for name, (check, _) in CHECKS.items():
                server = f"server picows {url[5:-1]} check inter 100ms"
                config += f"backend {name}\n    {check}\n    {server}\n"
            (tmp_path / "haproxy.cfg").write_text(config)
            async with running(tmp_path / "log", haproxy, "-db", "-f", str(tmp_path / "haproxy.cfg")):
                # On a busy machine a check may time out before one gets through.
                found: dict[str, str] = {}
                while found != expected:
                    table = (await exchange(tmp_path / "stats.sock", b"show stat\n")).decode().lstrip("# ")
                    for row in csv.DictReader(table.splitlines()):
                        if row["svname"] == "picows":
                            found[row["pxname"]] = row["check_status"].lstrip("* ")
                    await asyncio.sleep(0.02)

    expected = {name: status for name, (_, status) in CHECKS.items()}
    haproxy = program("haproxy")
    net.run(test())


SITE = """\
server {{
    listen unix:{directory}/nginx.sock;
    location / {{ proxy_pass http://{address}; }}
}}
"""


def test_nginx_without_http_1_1(net: Network, tmp_path: Path) -> None:
    async def test() -> None:
        async with net.serve(factory) as url:
            config = NGINX.format(directory=tmp_path, site=SITE.format(directory=tmp_path, address=url[5:-1]))
            (tmp_path / "nginx.conf").write_text(config)
            async with running(tmp_path / "log", nginx, "-c", str(tmp_path / "nginx.conf"), "-e", "stderr"):
                rest = b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
                answer = await exchange(tmp_path / "nginx.sock", b"GET /health" + rest)
                assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
                assert answer.endswith(b"\r\n\r\nfine")
                answer = await exchange(tmp_path / "nginx.sock", b"HEAD /health" + rest)
                assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
                assert b"\r\nContent-Length: 4\r\n" in answer
                assert answer.endswith(b"\r\n\r\n")
                answer = await exchange(tmp_path / "nginx.sock", b"GET /" + rest)
                assert answer.startswith(b"HTTP/1.1 426 ")

    nginx = program("nginx")
    net.run(test())
