"""The two ends of a connection that is broken on its way: what each sent, what came, and in which order it was called."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
from typing import Any

from live_wire import Assembler, Damaged, Key, keys_in, make_chunk

from picows import WSFrame, WSListener, WSMsgType, WSProtocolError, WSTransport
from picows.websockets.exceptions import ConnectionClosed

LINGER_LIMIT = 5.0  # seconds that what was sent before a graceful disconnect may take to arrive


class Side:
    """One end. Every message that it sends has the next number.

    :param origin: in whose name it numbers
    :param close_timeout: seconds for a close
    """

    def __init__(self, name: str, chance: random.Random, origin: int, close_timeout: float) -> None:
        self.name, self.close_timeout = name, close_timeout
        self._chance, self._origin, self._numbers = chance, origin, 0
        self.calls = ""  # c: connected, f: a frame or a message, d: disconnected
        self.sent: list[Key] = []  # was taken, or may have been
        self.taken = 0  # so many of them for sure
        self.came: list[Key] = []
        self.problems: list[str] = []
        self.disconnected = asyncio.Event()
        self._first = [self._size() for _ in range(chance.choice([0, 0, 1, 3, 20]))]
        self._later = [(chance.choice([0, 0, 0.001, 0.01]), self._size()) for _ in range(chance.choice([0, 1, 5, 20]))]
        self._replies = chance.choice([0, 3, 30])

    def _size(self) -> int:
        return self._chance.randrange(self._chance.choices([1, 100, 2000, 20_000, 150_000], [10, 50, 20, 10, 2])[0])

    def message(self, size: int) -> bytes:
        self._numbers += 1
        key = Key(self._origin, self._numbers)
        self.sent.append(key)
        return make_chunk(key, size, self._chance)

    def take(self, message: bytes) -> None:
        try:
            self.came += keys_in(message)
        except Damaged as error:
            self.problems.append(f"received: {error}")

    # What follows is different for callbacks and coroutines.

    close_seen = False  # the peer's CLOSE has come: all that it sent before had to come as well

    async def talk(self) -> None:
        """Send what is to be sent later."""

    async def end(self, how: str) -> None:
        raise NotImplementedError

    def abort(self) -> None:
        """At once."""

    def limit(self, how: str) -> float:
        """How many seconds `end` may take, whatever the network does."""
        return {"close": self.close_timeout, "disconnect": LINGER_LIMIT, "abort": 0.0,
                "send close": self.close_timeout + LINGER_LIMIT}[how]

    # The check

    @property
    def connected(self) -> bool:
        return self.calls.startswith("c")

    def check_order(self) -> None:
        if not re.fullmatch("(cf*d)?", self.calls):
            self.problems.append(f"callbacks came as {self.calls[:40]}...{self.calls[-10:]}, expected (cf*d)?")

    def check_against(self, sender: Side, complete: bool) -> None:
        if self.came != sender.sent[: len(self.came)]:
            wrong = next(i for i, key in enumerate(self.came) if [key] != sender.sent[i : i + 1])
            self.problems.append(f"{self.came[wrong]} came as number {wrong}, sent were {sender.sent[wrong : wrong + 3]}...")
        elif complete and len(self.came) < sender.taken:
            self.problems.append(f"{len(self.came)} messages came, {sender.taken} were sent")

    def __str__(self) -> str:
        return (f"{self.name} {type(self).__name__}, callbacks {len(self.calls)} {self.calls[:3]}...{self.calls[-3:]}, "
                f"sent {len(self.sent)}, taken {self.taken}, came {len(self.came)}, close seen {self.close_seen}")


class Listening(Side):
    """An end with callbacks."""

    transport: WSTransport

    def __init__(self, name: str, chance: random.Random, origin: int, close_timeout: float, assembles: bool) -> None:
        super().__init__(name, chance, origin, close_timeout)
        self._assembler = Assembler()
        self._assembles = assembles

    def listener(self) -> WSListener:
        return Listener(self)

    @property
    def close_seen(self) -> bool:  # type: ignore[override]
        state = self.transport.close_handshake if self.connected else None
        return state is not None and state.recv is not None

    def opened(self, transport: WSTransport) -> None:
        self.calls += "c"
        self.transport = transport
        for size in self._first:
            self._send(size)

    def frame_came(self, frame: WSFrame) -> None:
        self.calls += "f"
        if frame.msg_type & 8:
            return
        payload = frame.get_payload_as_bytes()
        if self._assembles:
            self.take(payload)
        else:
            rsv = frame.rsv1 << 2 | frame.rsv2 << 1 | frame.rsv3
            try:
                message = self._assembler.feed(int(frame.msg_type), payload, frame.fin, rsv)
            except Damaged as error:
                self.problems.append(f"received: {error}")
                return
            if message is None:
                return
            self.take(message[1])
        if self._replies:
            self._replies -= 1
            self._send(self._size())

    def closed(self) -> None:
        self.calls += "d"
        self.disconnected.set()

    def _send(self, size: int) -> None:
        chance, transport = self._chance, self.transport
        payload = self.message(size)
        cuts = sorted(chance.randrange(len(payload) + 1) for _ in range(chance.choice([0, 0, 0, 0, 1, 3])))
        taken = True
        for i, (begin, end) in enumerate(zip([0, *cuts], [*cuts, len(payload)])):
            kind = WSMsgType.CONTINUATION if i else chance.choice([WSMsgType.TEXT, WSMsgType.BINARY])
            taken = transport.send(kind, payload[begin:end], fin=i == len(cuts)) and taken
            if chance.random() < 0.1:
                transport.send_ping(b"?")
        if taken:
            self.taken = len(self.sent)
        else:
            self.sent.pop()

    async def talk(self) -> None:
        for pause, size in self._later:
            if self.disconnected.is_set():
                return
            self._send(size)
            await asyncio.sleep(pause)

    async def end(self, how: str) -> None:
        transport = self.transport
        if how == "close":
            await transport.close(1000, "done", timeout=self.close_timeout)
        elif how == "send close":
            transport.send_close(1000, "done")
            await asyncio.wait([asyncio.ensure_future(self.disconnected.wait())], timeout=self.close_timeout)
            transport.disconnect()
        else:
            transport.disconnect(graceful=how != "abort")
        try:
            await transport.wait_disconnected()
        except WSProtocolError as error:
            if error.code != 1008:  # receive_timeout
                self.problems.append(f"an undamaged stream was refused: {error!r}")
        if not self.disconnected.is_set():
            self.problems.append(f"{how} was over before on_ws_disconnected was called")

    def abort(self) -> None:
        if self.connected:
            self.transport.disconnect(graceful=False)


class Listener(WSListener):
    """Tells its end; neither keeps the other alive behind the connection."""

    def __init__(self, side: Listening) -> None:
        self._side = side

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._side.opened(transport)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        self._side.frame_came(frame)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._side.closed()


class Awaiting(Side):
    """An end with coroutines, as the package `websockets` has them."""

    ws: Any
    _closes = False  # what comes is of no interest any more

    def begin(self, ws: Any) -> asyncio.Future[None]:
        self.calls += "c"
        self.ws = ws
        return asyncio.ensure_future(self._live())

    async def _live(self) -> None:
        # Who waited to send and did not read could wait for a peer that does the same.
        sending = [asyncio.ensure_future(self._send_all([(0.0, size) for size in self._first]))]
        try:
            while True:
                message = await self.ws.recv()
                self.calls += "f"
                self.take(message.encode() if isinstance(message, str) else message)
                if self._replies:
                    self._replies -= 1
                    sending.append(asyncio.ensure_future(self._send_all([(0.0, self._size())])))
        except ConnectionClosed as end:
            self.close_seen = end.rcvd is not None and not self._closes
        finally:
            await asyncio.gather(*sending)
            self.calls += "d"
            self.disconnected.set()

    async def _send_all(self, messages: list[tuple[float, int]]) -> None:
        with contextlib.suppress(ConnectionClosed):
            for pause, size in messages:
                payload = self.message(size)
                number = len(self.sent)
                await self.ws.send(payload.decode() if self._chance.random() < 0.5 else payload)
                self.taken = max(self.taken, number)
                await asyncio.sleep(pause)

    async def talk(self) -> None:
        await self._send_all(self._later)

    async def end(self, how: str) -> None:
        if how == "abort":
            self.abort()
        else:
            self._closes = True
            await self.ws.close()
        await self.disconnected.wait()

    def abort(self) -> None:
        if self.connected:
            self.ws.transport.abort()

    def limit(self, how: str) -> float:
        return 0.0 if how == "abort" else self.close_timeout


