"""The loads of the soak: what the life of one connection is, from the client's side, and what has to have come at its end."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import ssl
import struct
from collections.abc import Awaitable
from typing import Any, Callable

from live_wire import BINARY, CONTINUATION, TEXT, Damaged, encode, keys_in
from soak_messages import Fault, Messages, Numbers, Rising
from soak_process import PONG_PATIENCE, Process, Provoked
from soak_server import BROADCAST, ENDPOINTS, KEYS, LATEST, TOPIC, TOPICS, make_slow

from picows import (
    WSBackoff,
    WSDeflate,
    WSFrame,
    WSInvalidStatusError,
    WSListener,
    WSMsgType,
    WSTransport,
    ws_connect,
    ws_reconnect,
)
from picows.websockets.asyncio.client import connect
from picows.websockets.exceptions import ConnectionClosed

HOST = "127.0.0.1"
PLAIN = ("tcp", "tls", "deflate", "tls-deflate")
ENDS_OF_THE_SERVER = ("close", "close frame", "disconnect", "abort", "below", "raise", "refuse")


class Receiver(WSListener):
    """A client's listener: the messages of one origin are checked, what the server tells is kept."""

    def __init__(self, place: Place, numbers: Numbers | None = None) -> None:
        self.place = place
        self.numbers = numbers
        self.told: asyncio.Queue[list[str]] = asyncio.Queue()
        self.progress = asyncio.Event()
        self.transport: WSTransport
        self.calls: list[str] = []
        self.raises = False

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport
        self.calls.append("connected")
        self.place.process.listeners.add(self)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type not in (TEXT, BINARY):
            return
        process = self.place.process
        process.counts["messages"] += 1
        process.counts["bytes"] += frame.payload_size
        self.progress.set()
        if self.raises:
            raise Provoked("provoked")
        try:
            process.keeper.offer(frame)
            payload = frame.get_payload_as_bytes()
            if payload[:1] == b"!":
                self.told.put_nowait(payload[1:].decode().split())
            else:
                self.take(payload)
        except (Fault, Damaged) as error:
            process.fault(f"client, {self.place}: {error}")
            transport.disconnect(graceful=False)  # whoever waits for more waits in vain

    def __str__(self) -> str:
        return f"{self.place} {self.calls}"

    def take(self, payload: bytes) -> None:
        assert self.numbers is not None
        self.numbers.take(payload)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.calls.append("disconnected")
        self.progress.set()

    def ask(self, what: str) -> None:
        self.transport.send(WSMsgType.TEXT, f"!{what}")

    async def answer(self, verb: str) -> list[str]:
        """What the server tells next, which has to be this."""
        said = await self.place.process.within(self.told.get(), f"the server's word of {verb!r}, {self.place}")
        if said[0] != verb:
            raise Fault(f"the server said {said}, where {verb!r} was expected")
        return said[1:]

    async def come(self, number: int, numbers: Numbers | None = None) -> None:
        """Wait for a message, which has to come before the connection ends."""
        numbers = numbers or self.numbers
        assert numbers is not None
        while (numbers.last or 0) < number:
            if "disconnected" in self.calls:
                raise Fault(f"the connection ended, {numbers.last} of {number} messages had come; "
                            f"closed by {self.transport.close_code} {self.transport.close_reason!r}")
            self.progress.clear()
            await self.place.process.within(self.progress.wait(), f"message {number}, {numbers.last} came, {self.place}")


class LatestReceiver(Receiver):
    """Values by keys: each may be skipped, but the last has to come."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.values = [Rising(LATEST + key, None) for key in range(KEYS)]

    def take(self, payload: bytes) -> None:
        self.values[keys_in(payload)[0].origin - LATEST].take(payload)


class TopicsReceiver(Receiver):
    """What is published comes from the moment on in which the server says so, until it says so."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.topics: dict[int, Numbers] = {}

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        super().on_ws_frame(transport, frame)
        while not self.told.empty():
            verb, name, number = self.told.get_nowait()
            origin = TOPIC + TOPICS.index(name)
            with self.place.process.finding(f"client, {self.place}"):
                if verb == "subscribed":
                    self.topics[origin] = Numbers(origin, int(number))
                elif (numbers := self.topics.pop(origin)).last != int(number):
                    raise Fault(f"{name}: {numbers.last} was the last that came, {number} was sent before unsubscribing")

    def take(self, payload: bytes) -> None:
        origin = keys_in(payload)[0].origin
        if origin not in self.topics:
            raise Fault(f"a message of topic {origin:x} came, which is not subscribed to")
        self.topics[origin].take(payload)


class Place:
    """Where one connection after the other is made; what they have in common."""

    def __init__(self, process: Process, servers: dict[str, dict[str, int]], tls: ssl.SSLContext, origin: int) -> None:
        self.process, self._servers, self._tls, self.origin = process, servers, tls, origin
        self.chance = random.Random(f"{process.arguments.seed}/{origin}")
        self.next()

    def next(self) -> None:
        """Draw the next connection."""
        self.server = self.chance.choice(sorted(self._servers))
        self.endpoint = self.chance.choice(PLAIN)
        self.life = self.chance.uniform(0.3, 1) * self.process.arguments.life
        self._end = self.process.pace.active + self.life

    def __str__(self) -> str:
        return f"{self.origin:x} to {self.server} {self.endpoint}"

    @property
    def goes_on(self) -> bool:
        return self.process.pace.active < self._end and not self.process.stop.is_set()

    async def idle(self) -> None:
        """For a part of the connection's life."""
        await self.process.pace.sleep(self.chance.uniform(0, 0.1) * self.life)

    @property
    def port(self) -> int:
        return self._servers[self.server][self.endpoint]

    @property
    def url(self) -> str:
        return f"{'wss' if self.is_secure else 'ws'}://{HOST}:{self.port}/"

    @property
    def is_secure(self) -> bool:
        return bool(ENDPOINTS.get(self.endpoint, {}).get("tls"))

    def options(self) -> dict[str, Any]:
        options: dict[str, Any] = {
            "websocket_handshake_timeout": 120, "connect_timeout": 120, "max_frame_size": 64 << 20, "max_message_size": 64 << 20,
            "use_aiofastnet": self.chance.choice([None, False]),
            # libuv tells nobody of some resets, where aiofastnet runs on uvloop: docs/guides/speed.rst.
            "enable_auto_ping": True, "auto_ping_idle_timeout": max(1, min(15, self.process.arguments.life)),
            "auto_ping_reply_timeout": PONG_PATIENCE}
        if self.is_secure:
            options["ssl_context"] = self._tls
        if "deflate" in self.endpoint:
            options["compression"] = WSDeflate(client_no_context_takeover=self.chance.random() < 0.5)
        return options

    @property
    def takes_fragments(self) -> bool:
        return self.endpoint != "tcp"

    async def open(self, path: str, receiver: Receiver) -> None:
        await ws_connect(lambda: receiver, f"{self.url}{path}", **self.options())

    async def end(self, receiver: Receiver) -> None:
        """End a connection on which all has come that was to come."""
        transport = receiver.transport
        how = self.chance.choice(["close", "close frame", "disconnect", "abort", "ask"])
        if how == "close":
            await transport.close(1000, "done", timeout=120)
        elif how == "close frame":
            transport.send_close(1000, "done")
        elif how == "ask":
            how = f"asking for {self.chance.choice(ENDS_OF_THE_SERVER)}"
            receiver.ask(how.replace("asking for", "end"))
        else:
            transport.disconnect(graceful=how != "abort")
        await self.ended(receiver, how)

    async def ended(self, receiver: Receiver, how: str) -> None:
        await self.process.within(receiver.transport.wait_disconnected(), f"the end by {how}, {self}")
        if receiver.calls != ["connected", "disconnected"]:
            raise Fault(f"the callbacks of a connection were {receiver.calls}")


async def echo(place: Place) -> None:
    """Bursts of small messages, each of which comes back."""
    chance, messages = place.chance, Messages(place.origin, place.chance)
    receiver = Receiver(place, Numbers(place.origin))
    await place.open(f"echo/{place.origin:x}", receiver)
    while place.goes_on:
        await place.process.pace.turn(0.2)
        for _ in range(chance.choice([1, 1, 3, 30])):
            send_one(receiver.transport, messages, chance.choice([0, 40, 200, 2000]), False, chance)
        if chance.random() < 0.3:
            await receiver.come(messages.last)
        if chance.random() < 0.03:
            await place.process.within(receiver.transport.measure_roundtrip_time(2), f"round trips, {place}")
    await receiver.come(messages.last)
    await place.end(receiver)


async def large(place: Place) -> None:
    """Messages of up to two megabytes, some of them in fragments."""
    chance, messages = place.chance, Messages(place.origin, place.chance)
    receiver = Receiver(place, Numbers(place.origin))
    await place.open(f"echo/{place.origin:x}", receiver)
    while place.goes_on:
        await place.process.pace.turn(1)
        size = chance.choice([70_000, 300_000, 2_000_000])
        send_one(receiver.transport, messages, size, place.takes_fragments and chance.random() < 0.5, chance)
        if chance.random() < 0.7:
            await receiver.come(messages.last)
    await receiver.come(messages.last)
    await place.end(receiver)


def send_one(transport: WSTransport, messages: Messages, size: int, in_fragments: bool, chance: random.Random) -> None:
    message = messages.make(size)
    kind = chance.choice([WSMsgType.TEXT, WSMsgType.BINARY])
    if in_fragments:
        cut = chance.randrange(len(message))
        transport.send(kind, message[:cut], False)
        transport.send_ping(b"between")
        taken = transport.send(WSMsgType(CONTINUATION), message[cut:])
    else:
        taken = transport.send(kind, chance.choice([message, message.decode(), memoryview(message)]))
    messages.last += taken


async def push(place: Place) -> None:
    """The server sends, and heeds what it is told of a client who reads now and then."""
    await read_slowly(place, "push")


async def drop(place: Place) -> None:
    """The server sends, and drops what finds no room."""
    place.endpoint = "drop"
    await read_slowly(place, "flood")


async def read_slowly(place: Place, path: str) -> None:
    receiver = Receiver(place, Numbers(place.origin))
    await place.open(f"{path}/{place.origin:x}", receiver)
    await pause_now_and_then(place, receiver.transport)
    receiver.ask("stop")
    (last,) = await receiver.answer("last")
    assert receiver.numbers is not None
    if receiver.numbers.last != int(last):
        raise Fault(f"{receiver.numbers.last} came last, {last} was sent last")
    await place.end(receiver)


async def pause_now_and_then(place: Place, transport: WSTransport) -> None:
    make_slow(transport)
    while place.goes_on:
        await place.idle()
        transport.underlying_transport.pause_reading()
        await place.idle()
        transport.underlying_transport.resume_reading()


async def overrun(place: Place) -> None:
    """A client who does not read is disconnected. What came before has to be right."""
    place.endpoint = "strict"
    receiver = Receiver(place, Numbers(place.origin))
    await place.open(f"flood/{place.origin:x}", receiver)
    make_slow(receiver.transport)
    while place.goes_on and not receiver.transport.is_disconnected:
        await place.idle()
        with contextlib.suppress(RuntimeError):  # it may have ended
            receiver.transport.underlying_transport.pause_reading()
        await place.idle()
        await place.idle()
        with contextlib.suppress(RuntimeError):
            receiver.transport.underlying_transport.resume_reading()
    receiver.transport.disconnect(graceful=False)
    await place.ended(receiver, "not reading")


async def latest(place: Place) -> None:
    """Values of which a newer one replaces an older one, to a client who reads now and then."""
    receiver = LatestReceiver(place)
    await place.open("latest", receiver)
    await pause_now_and_then(place, receiver.transport)
    before = await receiver.answer("joined")
    receiver.ask("stop")
    for numbers, joined, last in zip(receiver.values, before, await receiver.answer("last")):
        if int(last) > int(joined):
            await receiver.come(int(last), numbers)
    await place.end(receiver)


async def broadcasts(place: Place) -> None:
    receiver = Receiver(place, Numbers(BROADCAST, None))
    await place.open("broadcasts", receiver)
    (joined,) = await receiver.answer("joined")
    await place.process.pace.sleep(place.life)
    receiver.ask("stop")
    (last,) = await receiver.answer("last")
    assert receiver.numbers is not None
    if (receiver.numbers.last or int(joined)) != int(last):
        raise Fault(f"{receiver.numbers.last} was the last broadcast that came, {last} the last that was sent")
    await place.end(receiver)


async def topics(place: Place) -> None:
    chance = place.chance
    receiver = TopicsReceiver(place)
    await place.open("topics", receiver)
    joined: set[str] = set()
    while place.goes_on:
        name = chance.choice(TOPICS)
        receiver.ask(f"{'un' * (name in joined)}subscribe {name}")
        joined ^= {name}
        await place.process.pace.turn(0.5)
    # The others are left by the end of the connection.
    await place.end(receiver)


async def churn(place: Place) -> None:
    """Connections that hardly live, and end in the middle of something."""
    chance, messages = place.chance, Messages(place.origin, place.chance)
    receiver = Receiver(place, Numbers(place.origin))
    opening = asyncio.ensure_future(place.open(f"echo/{place.origin:x}", receiver))
    if chance.random() < 0.2 and (not place.is_secure or place.process.arguments.settle > 60):
        await asyncio.sleep(chance.uniform(0, 0.004))
        if opening.cancel():
            with contextlib.suppress(asyncio.CancelledError):
                await opening
            if not receiver.calls:
                return
            receiver.transport.disconnect(graceful=False)
            return await place.ended(receiver, "a cancelled connect")
    await opening
    for _ in range(chance.randrange(30)):
        send_one(receiver.transport, messages, chance.choice([0, 200, 40_000]), False, chance)
    if chance.random() < 0.3:
        await receiver.come(messages.last)
    if chance.random() < 0.1:
        receiver.raises = True
        send_one(receiver.transport, messages, 1, False, chance)
        try:
            return await place.ended(receiver, "an exception")
        except Provoked:
            return
    await place.end(receiver)


async def refused(place: Place) -> None:
    """Connects that fail."""
    try:
        if place.chance.random() < 0.5:
            await place.open("nothing", Receiver(place))
        else:
            # Bound, but not listening.
            with socket.socket() as sock:
                sock.bind((HOST, 0))
                await ws_connect(WSListener, f"ws://{HOST}:{sock.getsockname()[1]}/", connect_timeout=120)
    except WSInvalidStatusError as error:
        if error.response.status != 404:
            raise
    except ConnectionRefusedError:
        pass
    else:
        raise Fault("a connect to nothing did not fail")
    await place.process.pace.turn(0.5)


async def raw(place: Place) -> None:
    """Peers that break the protocol, or off."""
    loop, chance = asyncio.get_running_loop(), place.chance
    request = (
        b"GET /raw HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
    frame = encode(BINARY, b"x" * chance.choice([10, 200_000]), mask=b"mask")
    stream = chance.choice([
        b"", request[:50], b"nonsense\r\n\r\n", request, request + b"\xff\xff\xff\xff", request + frame[: len(frame) // 2],
        request + encode(BINARY, b"without a mask", mask=None), request + frame])
    with socket.socket() as sock:
        sock.setblocking(False)
        await loop.sock_connect(sock, (HOST, place.port))
        with contextlib.suppress(OSError):  # cut by the server; "not connected" is no ConnectionError
            await loop.sock_sendall(sock, stream)
            ending = chance.choice(["close", "reset", "read", "half-close"])
            if ending == "reset":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            elif ending == "half-close":
                sock.shutdown(socket.SHUT_WR)
                while await place.process.within(loop.sock_recv(sock, 65536), f"the end of a half-closed connection, {place}"):
                    pass
            elif ending == "read":
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(loop.sock_recv(sock, 65536), 0.5)
    await place.process.pace.turn(0.5)


async def reconnect(place: Place) -> None:
    """One connection after another, all of which the server ends."""
    chance = place.chance
    backoff = WSBackoff(0.05, maximum=0.2)
    receive = lambda: Receiver(place, Numbers(place.origin))  # noqa: E731
    connections = ws_reconnect(receive, f"{place.url}echo/{place.origin:x}", backoff=backoff, **place.options())
    rounds = 0
    async with connections:
        async for transport, receiver in connections:
            messages = Messages(place.origin, chance)
            for _ in range(chance.randrange(1, 10)):
                send_one(transport, messages, chance.choice([0, 200, 5000]), False, chance)
            await receiver.come(messages.last)
            receiver.ask(f"end {chance.choice(ENDS_OF_THE_SERVER)}")
            await place.ended(receiver, "the server")
            await place.process.pace.turn(0.5)
            rounds += 1
            if rounds == 5 or place.process.stop.is_set():
                break


async def coroutines(place: Place) -> None:
    """The interface of the package websockets, on both sides."""
    chance, process = place.chance, place.process
    place.endpoint = chance.choice(["coroutines", *PLAIN])
    messages, numbers = Messages(place.origin, chance), Numbers(place.origin)
    options: dict[str, Any] = {"ssl": place.options()["ssl_context"]} if place.is_secure else {}
    url = f"{place.url}echo/{place.origin:x}"
    options.update(proxy=None, open_timeout=120, close_timeout=120, ping_timeout=PONG_PATIENCE, max_size=None)
    async with connect(url, **options) as ws:
        while place.goes_on:
            await process.pace.turn(0.3)
            for _ in range(chance.choice([1, 5, 20])):
                message = messages.make(chance.choice([0, 200, 3000]))
                messages.last += 1
                await process.within(ws.send(chance.choice([message, message.decode()])), f"send, {place}")
            while numbers.last < messages.last:
                try:
                    came = await process.within(ws.recv(), f"recv, {place}")
                except ConnectionClosed as error:
                    raise Fault(f"{numbers.last} of {messages.last} had come: {error!r}") from None
                numbers.take(came.encode() if isinstance(came, str) else came)
                process.counts["messages"] += 1
        if chance.random() < 0.2:
            ws.transport.abort()


LOADS: dict[str, Callable[[Place], Awaitable[None]]] = {
    load.__name__: load
    for load in (echo, large, push, drop, overrun, latest, broadcasts, topics, churn, refused, raw, reconnect, coroutines)
}
