"""Senders of more than the other side takes."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from picows import WSMsgType, WSTransport
from tests.connection.networks import Recorder
from tests.connection.peers import Peer

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


async def stall(peer: Peer, transport: WSTransport) -> int:
    """Have the peer read nothing, and send until neither kernel takes more; how many frames of FILLING."""
    peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
    return await fill_kernels(transport)


async def fill_kernels(transport: WSTransport) -> int:
    """Send to who reads nothing until neither kernel takes more; how many frames of FILLING."""
    underlying: Any = transport.underlying_transport
    underlying.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
    sent = turns = 0
    while turns < 20:  # some transports write at the end of a turn, and the other end may read ahead
        turns += 1
        if transport.write_buffer_size < 8 * len(FILLING):
            transport.send(WSMsgType.BINARY, FILLING)
            sent += 1
            turns = 0
        await asyncio.sleep(0)
    return sent


def resume(peer: Peer) -> None:
    peer.writer.transport.resume_reading()  # type: ignore[attr-defined]


async def skip(peer: Peer, frames: int) -> None:
    """Read what the peer was stalled with."""
    resume(peer)
    for _ in range(frames):
        assert len((await peer.receive()).payload) == len(FILLING)


async def payloads(peer: Peer, count: int) -> list[bytes]:
    return [(await peer.receive()).payload for _ in range(count)]


def send_all(transport: WSTransport, *messages: str) -> None:
    """Each under the key that is its first letter."""
    for message in messages:
        assert transport.send_latest(message[0], WSMsgType.TEXT, message) is True
