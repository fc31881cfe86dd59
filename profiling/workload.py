"""The work that is counted: frames in and out of one connection, by real sockets and asyncio's loop, in one thread.

A raw peer writes prebuilt bytes to one end of a Unix socket, one turn of the loop reads them from the other. Only that turn
is counted, or the loop over `send`: the peer, the handshake and some turns to warm up are not. Nothing here depends on time.

Run by count_instructions.py, under valgrind or strace. The rows are printed as JSON, in the order in which they were run.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import gc
import hashlib
import json
import os
import re
import socket
import tempfile
from typing import Any, Callable, NamedTuple

import listeners
from wire import binary_frame

from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect, ws_create_server

REQUEST = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
RESPONSE = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
# The whole burst has to fit in a socket's buffer, since nobody reads while it is written.
MAX_BURST_BYTES = 64 * 1024
WARM_UP = 10


class Case(NamedTuple):
    name: str
    action: str
    is_client: bool
    lone: bool = False


CASES = [
    Case("server receives", "receive", False),
    Case("client receives", "receive", True),
    Case("server sends", "send", False),
    Case("client sends", "send", True),
    Case("server echoes, lone frames", "echo", False, lone=True),
    Case("server echoes, bursts", "echo", False),
]


class Receiver(WSListener):
    def __init__(self) -> None:
        self.received = 0

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.BINARY:
            self.received += frame.payload_size


class Echo(Receiver):
    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.BINARY:
            self.received += frame.payload_size
            transport.send(frame.msg_type, frame)


def send_frames(transport: WSTransport, payload: bytes, frames: int) -> None:
    for _ in range(frames):
        transport.send(WSMsgType.BINARY, payload)


RECEIVERS = {"Python": Receiver, "Cython": listeners.Receiver}
ECHOES = {"Python": Echo, "Cython": listeners.Echo}
SENDERS = {"Python": send_frames, "Cython": listeners.send_frames}


async def connect_server(listener: Any) -> socket.socket:
    """Give the listener a connection of a server; returns the raw client."""
    peer = socket.socket(socket.AF_UNIX)
    with tempfile.TemporaryDirectory() as folder:
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(os.path.join(folder, "socket"))
        server = await ws_create_server(lambda request: listener, sock=listening)
        peer.connect(listening.getsockname())
        peer.send(REQUEST)
        # The answer is the last act of an upgrade.
        await asyncio.get_running_loop().run_in_executor(None, peer.recv, 4096)
        server.close()
    return peer


async def connect_client(listener: Any) -> socket.socket:
    """Give the listener a connection of a client; returns the raw server."""
    ours, peer = socket.socketpair()

    def answer() -> None:
        (key,) = re.findall(rb"Sec-WebSocket-Key: *(\S+)", peer.recv(4096))
        accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        peer.send(RESPONSE + b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n")

    answered = asyncio.get_running_loop().run_in_executor(None, answer)
    await ws_connect(lambda: listener, "ws://localhost/", socket_factory=lambda endpoint: ours)
    await answered
    return peer


class Row:
    """One line of the table: a connection, and one step of it that is done again and again."""

    def __init__(self, loop: Any, case: Case, language: str, size: int, burst: int) -> None:
        self.loop = loop
        self.case = case
        self.language = language
        self.size = size
        self.burst = 1 if case.lone else max(1, min(burst, MAX_BURST_BYTES // (size + 14)))
        self.payload = bytes(index % 251 for index in range(size))
        self.listener = (ECHOES if case.action == "echo" else RECEIVERS)[language]()
        connect = connect_client if case.is_client else connect_server
        self.peer = loop.run_until_complete(connect(self.listener))
        self.wire = binary_frame(self.payload, None if case.is_client else b"\x37\xfa\x21\x3d") * self.burst
        reply = binary_frame(self.payload, bytes(4) if case.is_client else None)
        self.reply_size = 0 if case.action == "receive" else len(reply) * self.burst

    def run(self, steps: int, mark: Callable[[str], None]) -> dict[str, object]:
        self.go_on(WARM_UP, lambda step: step())
        mark(f"begin {self.peer.fileno()}")
        self.go_on(steps, listeners.counted)
        mark("end")
        transport = self.listener.transport
        assert transport.write_buffer_size == 0
        transport.disconnect(False)
        self.peer.close()
        self.turn()
        return {
            "case": self.case.name,
            "language": self.language,
            "size": self.size,
            "burst": self.burst,
            "frames": steps * self.burst,
        }

    def go_on(self, steps: int, count: Callable[[Callable[[], None]], None]) -> None:
        step = self.send if self.case.action == "send" else self.turn
        for _ in range(steps):
            if self.case.action != "send":
                expected = self.listener.received + self.burst * self.size
                self.peer.sendall(self.wire)
            count(step)
            if self.case.action != "send":
                assert self.listener.received == expected
            missing = self.reply_size
            while missing:
                missing -= len(self.peer.recv(missing))

    def send(self) -> None:
        SENDERS[self.language](self.listener.transport, self.payload, self.burst)

    def turn(self) -> None:
        # One turn by itself is not to be had by the public methods; run_forever() does much more before and after it.
        self.loop._run_once()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", required=True)
    parser.add_argument("--frames", type=int, required=True)
    parser.add_argument("--burst", type=int, required=True)
    parser.add_argument("--mark", action="store_true", help="mark each row by system calls, for strace")
    args = parser.parse_args()

    def mark(text: str) -> None:
        if args.mark:
            os.access(f"picows {text}", os.F_OK)

    gc.disable()
    loop = asyncio.SelectorEventLoop()
    rows = []
    for case in CASES:
        for language in SENDERS:
            for size in args.sizes:
                row = Row(loop, case, language, size, args.burst)
                rows.append(row.run(-(-args.frames // row.burst), mark))
                listeners.row_done()
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
