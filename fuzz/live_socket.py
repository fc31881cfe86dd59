"""Sockets of the live fuzzer's raw peers, plain and with TLS, and the thread that all of them run on.

A thread of their own, with a plain asyncio loop, so that they go on whatever the connection under test does to its loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from pathlib import Path
from typing import Any

_CERTIFICATE = Path(__file__).parents[1] / "examples" / "localhost.pem"


def server_tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(_CERTIFICATE)
    return context


def client_tls() -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=_CERTIFICATE)
    context.check_hostname = False
    return context


class PeerThread:
    """The loop of the peers."""

    def __init__(self) -> None:
        self._loop = asyncio.SelectorEventLoop()
        self.tls = {True: client_tls(), False: server_tls()}
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

    def run(self, work: Coroutine[Any, Any, None]) -> Future[None]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def call(self, function: Callable[[], None]) -> None:
        self._loop.call_soon_threadsafe(function)


class Wire:
    """A socket, plain or with TLS, that several coroutines may write to."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext | None, is_client: bool) -> None:
        sock.setblocking(False)
        self.sock = sock
        self._loop = asyncio.get_running_loop()
        self._lock = asyncio.Lock()
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context and context.wrap_bio(self._incoming, self._outgoing, not is_client)

    async def start(self) -> None:
        while self._tls is not None:
            try:
                self._tls.do_handshake()
                await self._flush()
                return
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill(65536)

    async def receive(self, size: int) -> bytes:
        """Some bytes, none at the end of the stream."""
        if self._tls is None:
            return await self._loop.sock_recv(self.sock, size)
        while True:
            try:
                return self._tls.read(size)
            except ssl.SSLWantReadError:
                await self._fill(size)
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""

    async def send(self, data: bytes) -> None:
        if self._tls is None:
            async with self._lock:
                await self._loop.sock_sendall(self.sock, data)
        else:
            for at in range(0, len(data), 65536):
                self._tls.write(data[at : at + 65536])
                await self._flush()

    async def half_close(self) -> None:
        if self._tls is not None:
            with contextlib.suppress(ssl.SSLError):
                self._tls.unwrap()
            await self._flush()
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async def _flush(self) -> None:
        async with self._lock:
            while self._outgoing.pending:
                await self._loop.sock_sendall(self.sock, self._outgoing.read())

    async def _fill(self, size: int) -> None:
        data = await self._loop.sock_recv(self.sock, size)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()
