"""Servers that accept or refuse in turn, and clients that come back to them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator
from typing import Any

from picows import WSBackoff, ws_reconnect
from tests.connection.networks import Network, Recorder
from tests.connection.peers import CLOSE, Peer, close_code, serve_streams, upgrade_response
from tests.connection.proxies import client_tls

AT_ONCE = WSBackoff(initial=1e-6, maximum=1e-6)
NEVER = WSBackoff(initial=1000, maximum=1000, jitter=None)
ACCEPT = b""


class Answers:
    """A raw server that answers in turn, the last answer for ever; ACCEPT is the upgrade."""

    def __init__(self, *answers: bytes) -> None:
        self._answers = itertools.chain(answers, itertools.repeat(answers[-1]))
        self.requests: list[bytes] = []
        self.times: list[float] = []
        self.peers: asyncio.Queue[Peer]  # those that were accepted

    @contextlib.asynccontextmanager
    async def serve(self, net: Network) -> AsyncIterator[str]:
        peers: list[Peer] = []
        self.peers = asyncio.Queue()

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            peer = Peer(reader, writer, masks=False)
            peers.append(peer)
            try:
                self.requests.append(await reader.readuntil(b"\r\n\r\n"))
            except (asyncio.IncompleteReadError, ConnectionError):
                return
            self.times.append(time.monotonic())
            answer = next(self._answers)
            if answer == ACCEPT:
                writer.write(upgrade_response(self.requests[-1]))
                self.peers.put_nowait(peer)
            else:
                writer.write(answer)
                await peer.close()

        async with serve_streams(net, handle) as url:
            yield url
        for peer in peers:
            await peer.close()


def status(code: int, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {code} Words", "Content-Length: 0", *headers]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode()


def reconnect(net: Network, url: str, factory: Any = Recorder, **options: Any) -> Any:
    options.setdefault("backoff", AT_ONCE)
    if net.tls:
        options.setdefault("ssl_context", client_tls())
    return ws_reconnect(factory, url, use_aiofastnet=net.fast, **options)


async def said_before_it_ended(peer: Peer) -> list[int]:
    """The close codes that came, the first of them answered."""
    frame = await peer.receive()
    assert frame.msg_type == CLOSE
    peer.send(CLOSE, frame.payload)
    peer.writer.write_eof() if peer.writer.can_write_eof() else await peer.close()
    return [close_code(frame), *(close_code(frame) for frame in await peer.receive_all())]
