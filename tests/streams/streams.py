"""Streams over the networks of the connection tests, and what a test waits for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

from picows._streams import MessageStream
from tests.connection.networks import Network
from tests.connection.peers import CLOSE, PING, PONG, ROLES, TEXT, Peer

OPTIONS = {"assemble_messages": True, "enable_auto_close": True}


def raw_peer(
    net: Network, stream: Callable[[], Any] = MessageStream, role: str = "server", **options: Any
) -> contextlib.AbstractAsyncContextManager[tuple[Peer, Any]]:
    """A raw peer, and the stream at the other end, which has the given role."""
    return ROLES[role](net, lambda *_: stream(), **OPTIONS, **options)


def pair(net: Network, **kinds: Any) -> contextlib.AbstractAsyncContextManager[tuple[Any, Any]]:
    """The streams of a client and of a server."""
    kinds = {"client": MessageStream, "server": MessageStream, **kinds}
    return net.pair(**kinds, client_options=OPTIONS, server_options=OPTIONS)


def send_texts(peer: Peer, *texts: object) -> None:
    peer.write(b"".join(peer.encode(TEXT, str(text).encode()) for text in texts))


async def arrived(peer: Peer) -> None:
    """Wait until all that the peer has sent was delivered."""
    peer.send(PING, b"arrived?")
    answer = await peer.receive()
    assert (answer.msg_type, answer.payload) == (PONG, b"arrived?")


async def say_close(peer: Peer, payload: bytes = b"") -> None:
    """What a peer does that closes: CLOSE, wait for the answer, end TCP."""
    peer.send(CLOSE, payload)
    while (await peer.receive()).msg_type != CLOSE:
        pass
    await peer.close()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


class Suspended(Exception):
    pass


def at_once(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run what must not suspend; returns its result."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    coroutine.close()
    raise Suspended


async def awaited(operation: Any) -> Any:
    """The same by `await`, which may take another way into it."""
    return await operation


def waiting(stream: Any) -> list[Any]:
    """All messages that can be received without suspending."""
    messages = []
    with contextlib.suppress(Suspended):
        while True:
            messages.append(at_once(awaited(stream.recv())))
    return messages
