"""Senders of more than the other side takes."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from picows import WSMsgType, WSTransport
from tests.connection.networks import Recorder

FILLING = bytes(1 << 16)


class Producer(Recorder):
    """Sends as the guides say: until it is told to pause."""

    def __init__(self) -> None:
        super().__init__()
        self.paused = asyncio.Event()
        self.resumed = asyncio.Event()

    def pause_writing(self) -> None:
        self.calls.append("pause")
        self.resumed.clear()
        self.paused.set()

    def resume_writing(self) -> None:
        self.calls.append("resume")
        self.paused.clear()
        self.resumed.set()


def fill(transport: WSTransport) -> int:
    """Send until the peer's kernel takes no more, so that the next write calls pause_writing; how much was sent."""
    underlying: Any = transport.underlying_transport
    underlying.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
    underlying.set_write_buffer_limits(high=1 << 30)
    filled = 0
    while not underlying.get_write_buffer_size():
        transport.send(WSMsgType.BINARY, FILLING)
        filled += len(FILLING)
    underlying.set_write_buffer_limits(high=underlying.get_write_buffer_size() + 1)
    return filled
